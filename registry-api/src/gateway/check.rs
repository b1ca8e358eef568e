//! Envoy's external authorization (`envoy.service.auth.v3.Authorization/Check`).

use std::sync::Arc;
use std::time::Instant;

use envoy_types::ext_authz::v3::pb::{
    Authorization, CheckRequest, CheckResponse, HeaderAppendAction, HttpStatusCode,
};
use envoy_types::ext_authz::v3::{
    CheckResponseExt, DeniedHttpResponseBuilder, OkHttpResponseBuilder,
};
use serde_json::json;
use smol_str::SmolStr;
use tonic::{Request, Response, Status};

use super::index::{GatewayIndex, Target, host_of};
use super::{FailMode, Gateway, documents, path};
use crate::catalogue::Handle;
use crate::metrics::Metrics;
use crate::running::Shown;

/// What protected resources and authorization servers say of themselves: RFC 9728, RFC 8414, and
/// OpenID Connect Discovery. A client asks for it before it may speak to the server.
const METADATA: [&str; 3] =
    ["oauth-protected-resource", "oauth-authorization-server", "openid-configuration"];

/// What is decided about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It goes to this server.
    Registered(Target),
    /// It is for what the gateway's host says of itself.
    Metadata,
    /// Nothing is published there; a word for metrics, and a sentence.
    Refused(&'static str, String),
}

/// Decides about a request by its authority, method and path.
#[must_use]
pub fn decide(index: &GatewayIndex, authority: &str, method: &str, raw: &str) -> Decision {
    let shown = |text: &str| text.chars().take(100).collect::<String>();
    let Some(host) = host_of(authority) else {
        return Decision::Refused("invalid_host", "The request names no host.".to_owned());
    };
    let Some(at) = index.host(&host) else {
        let sentence = format!("No registered MCP server is served at {:?}.", shown(&host));
        return Decision::Refused("unknown_host", sentence);
    };
    let Some(readings) = path::readings(raw) else {
        let sentence = "The request's path is none that a server could be registered at.";
        return Decision::Refused("invalid_path", sentence.to_owned());
    };
    let reads = matches!(method, "GET" | "HEAD" | "OPTIONS");
    if reads && readings.len() == 1 && readings.iter().all(|path| is_metadata(path)) {
        return Decision::Metadata;
    }
    // Every reading must lead to the same server.
    let covering: Vec<Option<&Target>> =
        readings.iter().map(|reading| at.covering(reading)).collect();
    let found = covering.iter().flatten().next();
    let same = |other: &Option<&Target>| {
        other.map(|other| &other.key.name) == found.map(|found| &found.key.name)
    };
    match found {
        Some(target) if covering.iter().all(same) => Decision::Registered((*target).clone()),
        Some(_) => {
            let sentence = "The request's path can be taken for another than it seems.";
            Decision::Refused("ambiguous_path", sentence.to_owned())
        }
        None => {
            let path = raw.split('?').next().unwrap_or_default();
            let place = shown(&format!("{host}{path}"));
            let sentence = format!("No registered MCP server is served at {place:?}.");
            Decision::Refused("not_registered", sentence)
        }
    }
}

fn is_metadata(path: &str) -> bool {
    let Some(rest) = path.strip_prefix("/.well-known/") else { return false };
    let own = |name: &str| {
        rest.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    METADATA.iter().any(|name| own(name)) || documents::is_document(path)
}

/// The service.
#[derive(Clone)]
pub struct Authorizer {
    gateway: Gateway,
    catalogue: Handle,
    shown: Shown,
    metrics: Arc<Metrics>,
}

impl Authorizer {
    /// A service over what the gateway knows.
    #[must_use]
    pub fn new(gateway: Gateway, catalogue: Handle, shown: Shown, metrics: Arc<Metrics>) -> Self {
        Self { gateway, catalogue, shown, metrics }
    }

    /// Why nothing can be told, where that is so.
    fn blind(&self, index: &GatewayIndex) -> Option<&'static str> {
        if index.is_empty() {
            Some("the catalogue is empty")
        } else if self.catalogue.health().store_error.is_some() {
            Some("the catalogue may be old: its store cannot be reached")
        } else if self.shown.not_ready.load().is_some() {
            Some("the catalogue is not complete yet")
        } else {
            None
        }
    }

    fn answer(&self, request: &CheckRequest) -> (CheckResponse, &'static str) {
        let index = self.gateway.index();
        let http = request.attributes.as_ref().and_then(|a| a.request.as_ref());
        let http = http.and_then(|request| request.http.as_ref());
        let Some(http) = http else {
            return (self.refuse("The request is no HTTP request."), "invalid_request");
        };
        let config = self.gateway.config();
        let decision = decide(&index, &http.host, &http.method, &http.path);
        // What is registered passes also where the rest is not known.
        let (reason, sentence) = match decision {
            Decision::Registered(target) => return (passes(Some(&target)), "registered"),
            Decision::Metadata => return (passes(None), "metadata"),
            Decision::Refused(reason, sentence) => (reason, sentence),
        };
        if let Some(why) = self.blind(&index) {
            return match config.fail_mode {
                FailMode::Open => (passes(None), "fail_open"),
                FailMode::Closed => {
                    let sentence = format!("Nothing can be told of the request: {why}.");
                    (self.refuse(&sentence), "fail_closed")
                }
            };
        }
        if config.dry_run {
            tracing::info!(reason, "{sentence} It passes, because this is a dry run");
            return (passes(None), "dry_run");
        }
        tracing::debug!(reason, "{sentence}");
        (self.refuse(&sentence), reason)
    }

    fn refuse(&self, sentence: &str) -> CheckResponse {
        let mut body = json!({ "error": sentence });
        if let (Some(object), Some(url)) =
            (body.as_object_mut(), self.gateway.config().registry_url.as_ref())
        {
            object.insert("registry".to_owned(), json!(url));
        }
        let mut denied = DeniedHttpResponseBuilder::new();
        denied
            .set_http_status(HttpStatusCode::Forbidden)
            .add_header("content-type", "application/json", None, false)
            .set_body(body.to_string());
        let mut response = CheckResponse::with_status(Status::permission_denied("not registered"));
        response.set_http_response(denied);
        response
    }
}

/// Lets a request pass, and tells the server behind whose it is. A client's own word for it is
/// overwritten, or taken away.
fn passes(target: Option<&Target>) -> CheckResponse {
    const NAME: &str = "x-mcp-server-name";
    const VERSION: &str = "x-mcp-server-version";
    let mut ok = OkHttpResponseBuilder::new();
    let mut response = CheckResponse::with_status(Status::ok("registered"));
    match target {
        Some(target) => {
            let overwrite = Some(HeaderAppendAction::OverwriteIfExistsOrAdd);
            ok.add_header(NAME, target.key.name.as_str(), overwrite, false);
            ok.add_header(VERSION, target.key.version.as_str(), overwrite, false);
            response.set_http_response(ok);
            response.set_dynamic_metadata(Some(metadata(&target.key.name, &target.key.version)));
        }
        None => {
            ok.remove_header(NAME).remove_header(VERSION);
            response.set_http_response(ok);
        }
    }
    response
}

fn metadata(name: &SmolStr, version: &SmolStr) -> envoy_types::pb::google::protobuf::Struct {
    use envoy_types::pb::google::protobuf::value::Kind;
    use envoy_types::pb::google::protobuf::{Struct, Value};
    let text = |text: &SmolStr| Value { kind: Some(Kind::StringValue(text.to_string())) };
    let fields = [("mcp_server_name", text(name)), ("mcp_server_version", text(version))];
    Struct { fields: fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect() }
}

#[tonic::async_trait]
impl Authorization for Authorizer {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let started = Instant::now();
        let (response, reason) = self.answer(request.get_ref());
        self.metrics.authorized(reason, started.elapsed());
        Ok(Response::new(response))
    }
}

#[cfg(test)]
mod tests {
    use super::super::index::tests::{index, served};
    use super::*;

    /// What is decided, in a word.
    fn word(index: &GatewayIndex, authority: &str, method: &str, path: &str) -> String {
        match decide(index, authority, method, path) {
            Decision::Registered(target) => target.key.name.to_string(),
            Decision::Metadata => "metadata".to_owned(),
            Decision::Refused(reason, _) => reason.to_owned(),
        }
    }

    #[test]
    fn path_tricks() {
        const HTTP: &str = "streamable-http";
        let index = index(&[
            served("a.b/one", "1.0.0", (1, false), &[(HTTP, "https://mcp.example.com/one/mcp")]),
            served("a.b/two", "1.0.0", (2, false), &[(HTTP, "https://mcp.example.com/two")]),
            served("a.b/inner", "1.0.0", (3, false), &[(HTTP, "https://mcp.example.com/two/in")]),
        ]);
        let (one, two) = ("a.b/one", "a.b/two");
        for (path, expected) in [
            ("/one/mcp", one),
            ("/one/mcp?x=/../admin", one),
            ("/one/mcp#/../admin", one),
            ("/one/mcp/", one),
            ("/one/mcp/a/b", one),
            ("/two", two),
            ("/two/in", "a.b/inner"),
            ("/one%2Fmcp", "ambiguous_path"),
            ("/o%6ee/mcp", "ambiguous_path"),
            ("/one/mcp/a%20b", one),
            ("/one/mcp/%C3%BC", one),
            ("/one/mcp/..", "ambiguous_path"),
            ("/one/mcp/../admin", "ambiguous_path"),
            ("/one/mcp/../../admin", "ambiguous_path"),
            ("/one/mcp/./x", one),
            ("/one/mcp//x", one),
            ("/one//mcp", "ambiguous_path"),
            ("//one/mcp", "ambiguous_path"),
            ("/one/mcp/%2e%2e/admin", "ambiguous_path"),
            ("/one/mcp/%2E%2E/admin", "ambiguous_path"),
            ("/one/mcp/.%2e/admin", "ambiguous_path"),
            ("/one/mcp/%2e./admin", "ambiguous_path"),
            ("/one/mcp/..%2fadmin", "ambiguous_path"),
            ("/one/mcp/..%2Fadmin", "ambiguous_path"),
            ("/one/mcp/%252e%252e/admin", "ambiguous_path"),
            ("/one/mcp/%25252e%25252e/admin", "ambiguous_path"),
            ("/one/mcp/..%252fadmin", "ambiguous_path"),
            ("/one/mcp/..\\admin", "ambiguous_path"),
            ("/one/mcp\\..\\admin", "ambiguous_path"),
            ("/one/mcp/..%5cadmin", "ambiguous_path"),
            ("/one/mcp/..;/admin", "ambiguous_path"),
            ("/one/mcp/..;a=b/admin", "ambiguous_path"),
            ("/one/mcp/%2e%2e%3b/admin", "ambiguous_path"),
            ("/one/mcp;x/../admin", "ambiguous_path"),
            ("/one/mcp;x", "ambiguous_path"),
            ("/one/mcp/x;y", one),
            ("/two/in/..", "ambiguous_path"),
            ("/two/in/../in", "a.b/inner"),
            ("/two/x/../in", "ambiguous_path"),
            ("/two/%69n", "ambiguous_path"),
            ("/admin/../one/mcp", "ambiguous_path"),
            ("/admin", "not_registered"),
            ("/one", "not_registered"),
            ("/ONE/mcp", "not_registered"),
            ("/one/mcpadmin", "not_registered"),
            ("/", "not_registered"),
            ("", "invalid_path"),
            ("*", "invalid_path"),
            ("one/mcp", "invalid_path"),
            ("http://mcp.example.com/one/mcp", "invalid_path"),
            ("/one/mcp/%00", "invalid_path"),
            ("/one/mcp/\u{0}", "invalid_path"),
            ("/one/mcp/ x", "invalid_path"),
            ("/one/mcp/%0d%0aX: y", "invalid_path"),
            ("/one/mcp/%ff", "invalid_path"),
        ] {
            // What a path may be taken for never depends on the method.
            for method in ["GET", "POST", "DELETE"] {
                assert_eq!(
                    word(&index, "mcp.example.com", method, path),
                    expected,
                    "{method} {path:?}"
                );
            }
        }
    }

    #[test]
    fn hosts_and_metadata() {
        let index = index(&[served(
            "a.b/one",
            "1.0.0",
            (1, false),
            &[("sse", "https://mcp.example.com/one/sse")],
        )]);
        for (authority, method, path, expected) in [
            ("MCP.EXAMPLE.COM:443", "GET", "/one/sse", "a.b/one"),
            ("mcp.example.com.", "POST", "/one/messages?sessionId=1", "a.b/one"),
            ("other.example.com", "GET", "/one/sse", "unknown_host"),
            ("", "GET", "/one/sse", "invalid_host"),
            ("mcp.example.com", "GET", "/.well-known/oauth-protected-resource", "metadata"),
            ("mcp.example.com", "GET", "/.well-known/oauth-protected-resource/one/sse", "metadata"),
            ("mcp.example.com", "GET", "/.well-known/oauth-authorization-server", "metadata"),
            ("mcp.example.com", "OPTIONS", "/.well-known/mcp/catalog.json", "metadata"),
            ("mcp.example.com", "GET", "/.well-known/ai-catalog.json", "metadata"),
            ("mcp.example.com", "POST", "/.well-known/ai-catalog.json", "not_registered"),
            ("mcp.example.com", "GET", "/.well-known/oauth-protected-resourcex", "not_registered"),
            (
                "mcp.example.com",
                "GET",
                "/.well-known/oauth-protected-resource/../../x",
                "not_registered",
            ),
            ("mcp.example.com", "GET", "/.well-known/acme-challenge/x", "not_registered"),
            ("other.example.com", "GET", "/.well-known/ai-catalog.json", "unknown_host"),
        ] {
            assert_eq!(
                word(&index, authority, method, path),
                expected,
                "{authority} {method} {path}"
            );
        }
    }
}
