//! MCP resources of every kind, from JSON.

use serde::Deserialize;
use serde_json::Value;
use smol_str::SmolStr;

use super::{Raw, from_status};
use crate::annotation::Carrier;
use crate::object::{Kind, McpResource, Transport};

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawMcpSpec {
    image: Option<SmolStr>,
    transport: Option<SmolStr>,
    proxy_mode: Option<SmolStr>,
    endpoint_prefix: Option<SmolStr>,
    r#type: Option<SmolStr>,
    // MCPRemoteProxy and MCPServerEntry write `remoteUrl`, MCPRemoteEndpoint `remoteURL`.
    #[serde(alias = "remoteURL")]
    remote_url: Option<SmolStr>,
    oidc_config: Option<Value>,
    oidc_config_ref: Option<Value>,
    auth_server_ref: Option<Value>,
    incoming_auth: Option<RawIncomingAuth>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawIncomingAuth {
    r#type: Option<SmolStr>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawMcpStatus {
    phase: SmolStr,
    url: Option<SmolStr>,
    address: Option<RawAddress>,
    server_info: Option<RawServerInfo>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawAddress {
    url: Option<SmolStr>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawServerInfo {
    name: Option<SmolStr>,
    version: Option<SmolStr>,
}

pub(super) fn resource(kind: Kind, raw: &Raw<Value, Value>, prefix: &str) -> McpResource {
    // Specs of these kinds are many-shaped across operators and versions; fields of an
    // unexpected type count as absent.
    let spec: RawMcpSpec = from_status(raw.spec.as_ref());
    let status: RawMcpStatus = from_status(raw.status.as_ref());
    let named = spec.transport.as_deref();
    let spoken = match kind {
        Kind::McpServer if !matches!(named, Some("sse" | "streamable-http")) => {
            spec.proxy_mode.as_deref()
        }
        Kind::VirtualMcpServer | Kind::LifecycleMcpServer => None,
        _ => named,
    };
    let transport = if spoken == Some("sse") { Transport::Sse } else { Transport::StreamableHttp };
    let backend_transport = match kind {
        Kind::McpServer => SmolStr::new(named.unwrap_or("stdio")),
        _ => SmolStr::new_static(transport.as_str()),
    };
    let address = status.address.and_then(|a| a.url).or(status.url).filter(|url| !url.is_empty());
    let path_of = |url: Option<&SmolStr>| {
        url::Url::parse(url?).ok().map(|url| SmolStr::new(url.path().trim_end_matches('/')))
    };
    let path = match kind {
        Kind::McpServer | Kind::VirtualMcpServer => Some(SmolStr::new_static(match transport {
            Transport::Sse => "/sse",
            Transport::StreamableHttp => "/mcp",
        })),
        Kind::LifecycleMcpServer => path_of(address.as_ref()).filter(|path| !path.is_empty()),
        _ => path_of(spec.remote_url.as_ref()),
    };
    let direct = match kind {
        Kind::McpServerEntry => true,
        Kind::McpRemoteEndpoint => spec.r#type.as_deref() == Some("direct"),
        _ => false,
    };
    let stripped = spec.endpoint_prefix.map(|p| SmolStr::new(p.trim_end_matches('/')));
    let info = status.server_info.unwrap_or_default();
    McpResource {
        kind,
        meta: raw.metadata.compact(true),
        annotations: raw.metadata.annotations(prefix, Carrier::McpResource),
        transport,
        backend_transport,
        path,
        stripped_prefix: stripped.filter(|p| p.starts_with('/')),
        remote_url: spec.remote_url,
        direct,
        image: spec.image,
        server_name: info.name,
        server_version: info.version,
        in_cluster_url: address,
        not_ready: Some(status.phase).filter(|p| p == "Failed" || p == "Stopped"),
        authenticated: spec.oidc_config.is_some()
            || spec.oidc_config_ref.is_some()
            || spec.auth_server_ref.is_some()
            || spec.incoming_auth.and_then(|auth| auth.r#type).is_some_and(|t| t != "anonymous"),
    }
}
