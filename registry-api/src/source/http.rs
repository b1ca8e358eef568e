//! Fetching over HTTP, with bounds on time, size, redirects and addresses.

use std::error::Error;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use reqwest::redirect::Policy;
use url::Url;

use super::SourceError;
use super::origin::{Cluster, Origin};
use super::reach::{Reach, Refused};

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 5;
/// Longest that connecting may take.
const CONNECT: Duration = Duration::from_secs(10);

/// How a server is spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// Which addresses may be connected to.
    pub reach: Reach,
    /// Headers of each request, sent to the origin only and never to where it redirects to.
    pub headers: Vec<(String, Origin)>,
    /// A bearer token.
    pub bearer: Option<Origin>,
    /// User name and password.
    pub basic: Option<(String, Origin)>,
    /// Certificates of authorities, in PEM, trusted instead of the system's.
    pub ca: Option<Origin>,
    /// Longest that one request may take.
    pub timeout: Duration,
}

/// An answer that is not an error.
#[derive(Debug)]
pub(super) struct Answer {
    /// 200, or 304 where the request was conditional.
    pub(super) status: StatusCode,
    /// Its headers.
    pub(super) headers: HeaderMap,
    /// Its body, uncompressed.
    pub(super) body: Bytes,
    /// Where it came from, after redirects.
    pub(super) url: Url,
}

/// Fetches, with the credentials of one source.
#[derive(Clone)]
pub(super) struct Fetcher {
    client: reqwest::Client,
    reach: Reach,
    timeout: Duration,
    /// Sent to the origin only.
    secret: HeaderMap,
}

impl Fetcher {
    /// A fetcher that has read its credentials.
    ///
    /// # Errors
    /// Where they cannot be read or used.
    pub(super) async fn new(access: &Access, cluster: &Cluster) -> Result<Self, SourceError> {
        let unusable = |what: &str| {
            SourceError::unavailable("CredentialsUnavailable", format!("{what} cannot be used"))
        };
        let mut secret = HeaderMap::new();
        for (name, origin) in &access.headers {
            let header = HeaderName::from_bytes(name.as_bytes());
            let value = HeaderValue::from_str(&origin.read(cluster).await?);
            let (Ok(header), Ok(value)) = (header, value) else {
                return Err(unusable(&format!("the header {name:?}")));
            };
            secret.insert(header, value);
        }
        let authorization = match (&access.bearer, &access.basic) {
            (Some(token), _) => Some(format!("Bearer {}", token.read(cluster).await?)),
            (None, Some((user, password))) => {
                use base64::Engine;
                let pair = format!("{user}:{}", password.read(cluster).await?);
                Some(format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(pair)))
            }
            (None, None) => None,
        };
        if let Some(authorization) = authorization {
            let value = HeaderValue::from_str(&authorization);
            secret.insert(header::AUTHORIZATION, value.map_err(|_| unusable("the credentials"))?);
        }
        for value in secret.values_mut() {
            value.set_sensitive(true);
        }
        // There may be one already: the process has one at most.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = reqwest::Client::builder()
            .redirect(Policy::none())
            .connect_timeout(CONNECT)
            .timeout(access.timeout)
            .user_agent(concat!("waymark/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(access.reach.clone());
        if access.reach != Reach::Anywhere {
            // A proxy would connect wherever it is asked to.
            client = client.no_proxy();
        }
        if let Some(ca) = &access.ca {
            let pem = ca.read(cluster).await?;
            let all = reqwest::Certificate::from_pem_bundle(pem.as_bytes());
            let all = all.ok().filter(|all| !all.is_empty());
            client = client.tls_certs_only(all.ok_or_else(|| unusable("the CA bundle"))?);
        }
        let client = client.build().map_err(|error| {
            SourceError::unavailable("Unreachable", format!("no client can be made: {error}"))
        })?;
        let (reach, timeout) = (access.reach.clone(), access.timeout);
        Ok(Self { client, reach, timeout, secret })
    }

    /// Gets a URL, following redirects.
    ///
    /// # Errors
    /// Where the server cannot be reached, or does not answer with 200 or 304.
    pub(super) async fn get(
        &self,
        url: &Url,
        headers: &HeaderMap,
        most: u64,
    ) -> Result<Answer, SourceError> {
        self.send(Method::GET, url, headers, Bytes::new(), most).await
    }

    /// Sends a request; the same as [`Self::get`] else. A POST is not redirected.
    ///
    /// # Errors
    /// See there.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: &HeaderMap,
        body: Bytes,
        most: u64,
    ) -> Result<Answer, SourceError> {
        let mut target = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            self.check(&target)?;
            let mut request =
                self.client.request(method.clone(), target.clone()).headers(headers.clone());
            if target.origin() == url.origin() {
                request = request.headers(self.secret.clone());
            }
            if method == Method::POST {
                request = request.body(body.clone());
            }
            let response = request.send().await.map_err(|e| self.failed(&e, &target))?;
            let status = response.status();
            let location = response.headers().get(header::LOCATION);
            match (status, location) {
                (StatusCode::OK | StatusCode::NOT_MODIFIED, _) => {
                    let headers = response.headers().clone();
                    let body = self.body(response, &target, most).await?;
                    return Ok(Answer { status, headers, body, url: target });
                }
                (status, Some(location)) if status.is_redirection() && method == Method::GET => {
                    let next = location.to_str().ok().and_then(|to| target.join(to).ok());
                    target = next.ok_or_else(|| {
                        let message = format!("{} redirects to nowhere", shown(&target));
                        SourceError::unavailable("InvalidRedirect", message)
                    })?;
                }
                (status, _) => return Err(refused(status, &target)),
            }
        }
        Err(SourceError::unavailable(
            "TooManyRedirects",
            format!("{} redirects more than {MAX_REDIRECTS} times", shown(url)),
        ))
    }

    /// Refuses what no request may go to. Names are checked when they are resolved.
    fn check(&self, url: &Url) -> Result<(), SourceError> {
        if !matches!(url.scheme(), "http" | "https") {
            let message = format!("{} is neither http nor https", shown(url));
            return Err(SourceError::unavailable("InvalidRedirect", message));
        }
        let address = match url.host() {
            Some(url::Host::Ipv4(address)) => address.into(),
            Some(url::Host::Ipv6(address)) => address.into(),
            _ => return Ok(()),
        };
        if self.reach.allows(address) { Ok(()) } else { Err(not_allowed(url)) }
    }

    async fn body(
        &self,
        mut response: reqwest::Response,
        url: &Url,
        most: u64,
    ) -> Result<Bytes, SourceError> {
        let too_large = || SourceError::too_large(shown(url), most);
        if response.content_length().is_some_and(|length| length > most) {
            return Err(too_large());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.failed(&e, url))? {
            if (body.len() + chunk.len()) as u64 > most {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    fn failed(&self, error: &reqwest::Error, url: &Url) -> SourceError {
        let causes = || std::iter::successors(error.source(), |cause| (*cause).source());
        let find = |wanted: &dyn Fn(&(dyn Error + 'static)) -> bool| causes().any(wanted);
        if find(&|cause| matches!(cause.downcast_ref(), Some(Refused::NotAllowed))) {
            return not_allowed(url);
        }
        let deepest = causes().last().map_or_else(|| error.to_string(), ToString::to_string);
        let deepest: String = deepest.chars().take(200).collect();
        let certificate = |cause: &(dyn Error + 'static)| {
            cause.downcast_ref::<rustls::Error>().is_some()
                || cause.to_string().contains("invalid peer certificate")
        };
        let (reason, what) = if error.is_timeout() {
            ("TimedOut", format!("does not answer within {:?}", self.timeout))
        } else if find(&certificate) {
            ("CertificateInvalid", format!("its TLS cannot be trusted: {deepest}"))
        } else if error.is_decode() {
            ("InvalidBody", format!("its body cannot be read: {deepest}"))
        } else {
            ("Unreachable", format!("cannot be reached: {deepest}"))
        };
        SourceError::unavailable(reason, format!("{} {what}", shown(url)))
    }
}

fn not_allowed(url: &Url) -> SourceError {
    let message = format!("{} is not fetched: {}", shown(url), Refused::NotAllowed);
    SourceError::unavailable("AddressNotAllowed", message)
}

fn refused(status: StatusCode, url: &Url) -> SourceError {
    let reason = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "Unauthorized",
        StatusCode::NOT_FOUND | StatusCode::GONE => "NotFound",
        StatusCode::TOO_MANY_REQUESTS => "RateLimited",
        _ => "UnexpectedStatus",
    };
    SourceError::unavailable(reason, format!("{} answers with {status}", shown(url)))
}

/// A URL in a message: its query may hold a secret, and it may be long.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.as_str().chars().take(200).collect()
}
