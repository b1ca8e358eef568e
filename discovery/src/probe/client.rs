//! One probe: `initialize`, then `tools/list`, over streamable HTTP.

use std::collections::HashMap;
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use rmcp::ServiceExt;
use rmcp::model::{ClientCapabilities, ClientConfig, Implementation, PaginatedRequestParams};
use rmcp::service::ClientInitializeError;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::{
    StreamableHttpClientTransportConfig, StreamableHttpError,
};
use rmcp::transport::worker::WorkerQuitReason;
use smol_str::SmolStr;

use super::ProbeConfig;
use crate::annotation::{MAX_ITEM, MAX_ITEMS};
use crate::finding::Finding;

/// Redirects that are followed, all to the same host.
const MAX_REDIRECTS: usize = 3;
/// Pages of tools that are read.
const MAX_PAGES: usize = 10;
/// Largest SSE event.
const MAX_EVENT: usize = 1 << 20;
/// Most characters of a reason.
const MAX_REASON: usize = 160;

/// A client that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("probing cannot be set up: {0}")]
pub struct ClientError(#[from] reqwest::Error);

#[derive(Clone)]
pub(super) struct ProbeClient {
    http: reqwest::Client,
    timeout: Duration,
    allow_local: bool,
}

/// Whether an address is one that no published endpoint has: the host's own, link-local (with the
/// clouds' metadata services), unspecified, or multicast.
fn is_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || v4.is_multicast()
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
        }
    }
}

/// Resolves names, some of them as the admin says, to no local address unless allowed.
struct Resolver {
    known: HashMap<String, IpAddr>,
    allow_local: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (known, allow_local) = (self.known.get(name.as_str()).copied(), self.allow_local);
        Box::pin(async move {
            let found: Vec<SocketAddr> = match known {
                Some(address) => vec![(address, 0).into()],
                None => tokio::net::lookup_host((name.as_str(), 0)).await?.collect(),
            };
            let allowed = |a: &SocketAddr| allow_local || !is_local(a.ip());
            let public: Vec<SocketAddr> = found.into_iter().filter(allowed).collect();
            if public.is_empty() {
                let error: Box<dyn Error + Send + Sync> = "the host's address is local".into();
                return Err(error);
            }
            let addresses: Addrs = Box::new(public.into_iter());
            Ok(addresses)
        })
    }
}

impl ProbeClient {
    pub(super) fn new(config: &ProbeConfig) -> Result<Self, ClientError> {
        // Another part of the process may have chosen already; either will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let redirects = Policy::custom(|attempt| {
            let from = attempt.previous().last();
            let same = from.is_some_and(|from| from.host_str() == attempt.url().host_str());
            if !same {
                attempt.error("it redirects to another host")
            } else if attempt.previous().len() > MAX_REDIRECTS {
                attempt.error("it redirects too often")
            } else {
                attempt.follow()
            }
        });
        let resolver = Resolver { known: config.resolve.clone(), allow_local: config.allow_local };
        let http = reqwest::Client::builder()
            .redirect(redirects)
            .dns_resolver(resolver)
            .referer(false)
            .no_proxy()
            .connect_timeout(config.timeout)
            .timeout(config.timeout)
            .pool_max_idle_per_host(0)
            .user_agent(concat!("waymark/", env!("CARGO_PKG_VERSION"), " (probe)"))
            .build()?;
        Ok(Self { http, timeout: config.timeout, allow_local: config.allow_local })
    }

    /// Probes a URL. Whatever happens, it ends within the time-out.
    pub(super) async fn probe(&self, url: &str) -> Finding {
        if !self.allow_local && literal(url).is_some_and(is_local) {
            return Finding::Silent("its address is local".into());
        }
        match tokio::time::timeout(self.timeout, self.talk(url)).await {
            Ok(Ok(tools)) => Finding::Answers { tools },
            Ok(Err(reason)) => Finding::Silent(reason),
            Err(_) => Finding::Silent("it takes too long".into()),
        }
    }

    async fn talk(&self, url: &str) -> Result<Vec<SmolStr>, SmolStr> {
        let config = StreamableHttpClientTransportConfig::with_uri(url)
            .max_sse_event_size(MAX_EVENT)
            .reinit_on_expired_session(false);
        let transport = StreamableHttpClientTransport::with_client(self.http.clone(), config);
        let me = Implementation::new("waymark", env!("CARGO_PKG_VERSION"));
        let info = ClientConfig::new(ClientCapabilities::default(), me);
        let session = match info.serve(transport).await {
            Ok(session) => session,
            Err(error) if wants_credentials(&error) => return Ok(Vec::new()),
            Err(error) => return Err(reason(&error)),
        };
        let has_tools = session.peer_info().is_some_and(|info| info.capabilities.tools.is_some());
        let mut tools = Vec::new();
        let mut cursor = None;
        for _ in 0..if has_tools { MAX_PAGES } else { 0 } {
            let params = PaginatedRequestParams::default().with_cursor(cursor);
            // It answered; what it says of its tools is a gift.
            let Ok(page) = session.list_tools(Some(params)).await else { break };
            tools.extend(page.tools.iter().filter_map(|tool| name(&tool.name)));
            cursor = page.next_cursor;
            if cursor.is_none() || tools.len() >= MAX_ITEMS {
                break;
            }
        }
        tools.truncate(MAX_ITEMS);
        let _ = session.cancel().await;
        Ok(tools)
    }
}

/// A tool's name, where it is one that an annotation could give.
fn name(name: &str) -> Option<SmolStr> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let good = (1..=MAX_ITEM).contains(&name.len()) && name.chars().all(plain);
    good.then(|| SmolStr::new(name))
}

/// The address of a URL whose host is one.
fn literal(url: &str) -> Option<IpAddr> {
    match url::Url::parse(url).ok()?.host()? {
        url::Host::Ipv4(address) => Some(address.into()),
        url::Host::Ipv6(address) => Some(address.into()),
        url::Host::Domain(_) => None,
    }
}

type HttpError = StreamableHttpError<reqwest::Error>;

/// What lies behind an error. The SDK's transport errors do not name all of their causes as
/// sources.
fn cause<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    if let Some(ClientInitializeError::TransportError { error, .. }) = error.downcast_ref() {
        return Some(&*error.error);
    }
    if let Some(WorkerQuitReason::<HttpError>::Fatal { error, .. }) = error.downcast_ref() {
        return Some(error);
    }
    match error.downcast_ref::<HttpError>() {
        Some(StreamableHttpError::Client(error)) => Some(error),
        _ => error.source(),
    }
}

fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'e (dyn Error + 'static)| cause(*error))
}

/// Whether the server answered, with 401 or 403.
fn wants_credentials(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| {
        matches!(
            cause.downcast_ref::<HttpError>(),
            Some(StreamableHttpError::AuthRequired(_) | StreamableHttpError::InsufficientScope(_))
        )
    })
}

/// Why, in few words: the innermost cause says most. It may quote the server, so it is bounded.
fn reason(error: &(dyn Error + 'static)) -> SmolStr {
    let text = causes(error).last().map(ToString::to_string).unwrap_or_default();
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_REASON);
    plain.collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses() {
        for (url, local) in [
            ("http://127.0.0.1:8080/mcp", true),
            ("http://127.1/mcp", true),
            ("http://[::1]/mcp", true),
            ("http://[::ffff:127.0.0.1]/mcp", true),
            ("http://169.254.169.254/latest/meta-data", true),
            ("http://[fe80::1]/mcp", true),
            ("http://0.0.0.0/mcp", true),
            ("http://10.0.0.1/mcp", false),
            ("https://203.0.113.7/mcp", false),
            ("https://example.com/mcp", false),
        ] {
            assert_eq!(literal(url).is_some_and(is_local), local, "{url}");
        }
    }

    #[test]
    fn names_of_tools() {
        assert_eq!(name("create_issue").as_deref(), Some("create_issue"));
        for bad in ["", "a b", "x\n", "<script>", &"x".repeat(MAX_ITEM + 1)] {
            assert_eq!(name(bad), None, "{bad:?}");
        }
    }
}
