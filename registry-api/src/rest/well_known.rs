//! The catalogue at the gateway's own hosts.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::body::Body;
use axum::extract::{ConnectInfo, FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::Value;
use smol_str::SmolStr;

use super::Api;
use super::error::ApiError;
use crate::gateway::{self, host_of};
use crate::server::Peer;

/// Catalogues may be kept for a minute: a route that is withdrawn is refused at once by the gateway,
/// whatever a client has read.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=60");
const NOWHERE: ApiError = ApiError::NotFound("No MCP server is published at this host");

/// The host that was asked: that of the request, or, where a trusted peer hands it on, of the request
/// that the peer got.
pub(super) struct AskedHost(SmolStr);

impl FromRequestParts<Api> for AskedHost {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let peer = parts.extensions.get::<ConnectInfo<Peer>>();
        let trusted = peer.is_some_and(|ConnectInfo(Peer(peer))| api.0.gateway.trusts(peer.ip()));
        let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        // A peer that adds to the header puts itself last: the first is the client's.
        let forwarded = text("x-forwarded-host").filter(|_| trusted);
        let forwarded = forwarded.and_then(|hosts| hosts.split(',').next()).map(str::trim);
        let own = parts.uri.authority().map(|authority| authority.as_str());
        let asked = forwarded.or(own).or_else(|| text(header::HOST.as_str()));
        let host = asked.and_then(host_of);
        host.map(Self).ok_or_else(|| ApiError::BadRequest("The request names no host".to_owned()))
    }
}

fn document(kind: &'static str, body: &Value, headers: &HeaderMap) -> Response<Body> {
    let text = body.to_string();
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let tag = super::servers::tag(hasher.finish());
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| *known == tag);
    let mut response = Response::new(if known { Body::empty() } else { Body::from(text) });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    fields.insert(header::CACHE_CONTROL, CACHE);
    fields.insert(header::ETAG, tag);
    // One path, another answer for each host.
    fields.insert(header::VARY, HeaderValue::from_static("host, x-forwarded-host"));
    response
}

pub(super) async fn ai_catalog(
    State(api): State<Api>,
    AskedHost(name): AskedHost,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let index = api.0.gateway.index();
    let host = index.host(&name).ok_or(NOWHERE)?;
    let body = gateway::ai_catalog(&name, host);
    Ok(document("application/ai-catalog+json", &body, &headers))
}

pub(super) async fn mcp_catalog(
    State(api): State<Api>,
    AskedHost(name): AskedHost,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let index = api.0.gateway.index();
    let host = index.host(&name).ok_or(NOWHERE)?;
    Ok(document("application/json", &gateway::mcp_catalog(host), &headers))
}

pub(super) async fn server_card(
    State(api): State<Api>,
    AskedHost(name): AskedHost,
    Path((namespace, own)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let index = api.0.gateway.index();
    let host = index.host(&name).ok_or(NOWHERE)?;
    let card = gateway::server_card(&name, host, &format!("{namespace}/{own}"));
    let card = card.ok_or(ApiError::NotFound("No such MCP server is published at this host"))?;
    Ok(document("application/mcp-server-card+json", &card, &headers))
}
