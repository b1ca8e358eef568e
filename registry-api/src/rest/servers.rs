//! The list, the versions and one version: pages made of ready pieces.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;

use super::error::ApiError;
use super::pages::Rendered;
use super::target::Target;
use super::{Api, params};
use crate::catalogue::{Cursor, Served};

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Answers may be kept, and are asked about again each time: the ETag makes that cheap.
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

pub(super) async fn list(
    State(api): State<Api>,
    target: Target,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let snapshot = target.registry.snapshot();
    let raw = raw.unwrap_or_default();
    let name = &target.registry.name;
    let rendered = api.0.pages.get(name, snapshot.generation(), &raw, || {
        let page = snapshot.list(&params::list(&raw)?);
        Ok::<_, ApiError>(list_page(&page.items, page.next.as_ref()))
    })?;
    Ok(packed(rendered, &headers))
}

pub(super) async fn versions(
    target: Target,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let name = target.name()?;
    let include_deleted = params::include_deleted(raw.as_deref())?;
    let versions = target.registry.snapshot().versions(name, include_deleted);
    if versions.is_empty() {
        return Err(ApiError::NotFound("Server not found"));
    }
    Ok(response(list_page(&versions, None), &headers))
}

pub(super) async fn version(
    target: Target,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let (name, version) = (target.name()?, target.version()?);
    let include_deleted = params::include_deleted(raw.as_deref())?;
    let snapshot = target.registry.snapshot();
    let found = if version == "latest" {
        snapshot.latest(name, include_deleted)
    } else {
        snapshot.get(name, version).filter(|s| include_deleted || !s.is_deleted())
    };
    let served = found.ok_or(ApiError::NotFound("Server not found"))?;
    Ok(response(Rendered::new(tag(served.digest), served.json.clone()), &headers))
}

fn list_page(items: &[Arc<Served>], next: Option<&Cursor>) -> Rendered {
    let mut hasher = DefaultHasher::new();
    for item in items {
        item.digest.hash(&mut hasher);
    }
    next.is_some().hash(&mut hasher);
    Rendered::new(tag(hasher.finish()), list_body(items, next))
}

/// A weak tag, because the same answer may go out compressed.
pub(super) fn tag(digest: u64) -> HeaderValue {
    // Quotes and hexadecimal digits are always a valid header value.
    HeaderValue::from_str(&format!("W/\"{digest:016x}\"")).unwrap_or(HeaderValue::from_static("*"))
}

fn list_body(items: &[Arc<Served>], next: Option<&Cursor>) -> Bytes {
    let length: usize = items.iter().map(|item| item.json.len() + 1).sum();
    let mut body = Vec::with_capacity(length + 512);
    body.extend_from_slice(b"{\"servers\":[");
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&item.json);
    }
    body.extend_from_slice(b"],\"metadata\":{");
    if let Some(next) = next {
        // A cursor is base64: nothing in it needs escaping.
        body.extend_from_slice(format!("\"nextCursor\":\"{}\",", next.encode()).as_bytes());
    }
    body.extend_from_slice(format!("\"count\":{}}}}}", items.len()).as_bytes());
    body.into()
}

/// Smaller answers are not worth compressing.
const PACK_FROM: usize = 1024;

/// A kept page: its compressed form is kept too, so that it is made once, not per request.
fn packed(rendered: Rendered, headers: &HeaderMap) -> Response<Body> {
    let gzip = (rendered.body.len() >= PACK_FROM && accepts_gzip(headers)).then(|| rendered.gzip());
    let Some(body) = gzip.flatten() else { return response(rendered, headers) };
    let mut response = response(Rendered::new(rendered.tag, body), headers);
    if response.status() == StatusCode::OK {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    response
}

/// Whether Accept-Encoding names gzip, and not with weight 0 (RFC 9110, 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    let mut codings = values.filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let refused = parts.any(|p| p.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0_f32)));
        named && !refused
    })
}

/// An answer with an ETag, or 304 where the client has it already.
fn response(rendered: Rendered, headers: &HeaderMap) -> Response<Body> {
    let strong = rendered.tag.to_str().unwrap_or_default().trim_start_matches("W/");
    let known = headers.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        let mut tags = value.to_str().unwrap_or_default().split(',').map(str::trim);
        // If-None-Match compares weakly (RFC 9110, 13.1.2).
        tags.any(|tag| tag == "*" || tag.trim_start_matches("W/") == strong)
    });
    let mut response = if known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let mut response = Response::new(Body::from(rendered.body));
        response.headers_mut().insert(header::CONTENT_TYPE, JSON);
        response
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, REVALIDATE);
    headers.insert(header::ETAG, rendered.tag);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_accepts_gzip() {
        for (value, accepts) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("deflate, gzip, br", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0, br", false),
            ("br", false),
            ("gzipped", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
            assert_eq!(accepts_gzip(&headers), accepts, "{value}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
