//! Compact copies of the Kubernetes objects that the rules read, and nothing else of them.

mod gateway;
mod mcp;
pub(crate) mod parse;
mod route;

use std::fmt;

use smol_str::SmolStr;

pub(crate) use gateway::current;
pub use gateway::{
    Address, AllowedListeners, AllowedRoutes, Condition, From, Gateway, Listener, ListenerSet,
    ListenerStatus, Overrides, ParentGateway, RouteKind, RouteNamespaces, Selector,
    SelectorRequirement, Tls,
};
pub use mcp::McpResource;
pub use parse::{ParseError, Parsed, object as parse};
pub use route::{
    BackendRef, HttpRoute, ParentKind, ParentRef, ParentStatus, PathMatch, PathType, Rewrite,
    RouteMatch, Rule, State, Verdict,
};

/// The API group of Gateway API.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
/// ToolHive's API group.
pub const TOOLHIVE_GROUP: &str = "toolhive.stacklok.dev";
/// The API group of the MCP lifecycle operator.
pub const LIFECYCLE_GROUP: &str = "mcp.x-k8s.io";

/// The kinds of objects that the rules read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `gateway.networking.k8s.io` HTTPRoute.
    HttpRoute,
    /// `gateway.networking.k8s.io` Gateway.
    Gateway,
    /// `gateway.networking.k8s.io` ListenerSet.
    ListenerSet,
    /// `gateway.networking.k8s.io` ReferenceGrant.
    ReferenceGrant,
    /// Core Namespace.
    Namespace,
    /// Core Service.
    Service,
    /// `toolhive.stacklok.dev` MCPServer.
    McpServer,
    /// `toolhive.stacklok.dev` MCPRemoteProxy.
    McpRemoteProxy,
    /// `toolhive.stacklok.dev` VirtualMCPServer.
    VirtualMcpServer,
    /// `toolhive.stacklok.dev` MCPServerEntry.
    McpServerEntry,
    /// `toolhive.stacklok.dev` MCPRemoteEndpoint.
    McpRemoteEndpoint,
    /// `mcp.x-k8s.io` MCPServer.
    LifecycleMcpServer,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::HttpRoute,
        Self::Gateway,
        Self::ListenerSet,
        Self::ReferenceGrant,
        Self::Namespace,
        Self::Service,
        Self::McpServer,
        Self::McpRemoteProxy,
        Self::VirtualMcpServer,
        Self::McpServerEntry,
        Self::McpRemoteEndpoint,
        Self::LifecycleMcpServer,
    ];

    /// The kind's name in the Kubernetes API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HttpRoute => "HTTPRoute",
            Self::Gateway => "Gateway",
            Self::ListenerSet => "ListenerSet",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::Namespace => "Namespace",
            Self::Service => "Service",
            Self::McpServer | Self::LifecycleMcpServer => "MCPServer",
            Self::McpRemoteProxy => "MCPRemoteProxy",
            Self::VirtualMcpServer => "VirtualMCPServer",
            Self::McpServerEntry => "MCPServerEntry",
            Self::McpRemoteEndpoint => "MCPRemoteEndpoint",
        }
    }

    /// The kind's API group; empty for the core group.
    #[must_use]
    pub const fn group(self) -> &'static str {
        match self {
            Self::HttpRoute | Self::Gateway | Self::ListenerSet | Self::ReferenceGrant => {
                GATEWAY_GROUP
            }
            Self::Namespace | Self::Service => "",
            Self::LifecycleMcpServer => LIFECYCLE_GROUP,
            _ => TOOLHIVE_GROUP,
        }
    }

    /// The resource that stands for the kind in RBAC rules and in kubectl: plural and group.
    #[must_use]
    pub const fn resource(self) -> &'static str {
        match self {
            Self::HttpRoute => "httproutes.gateway.networking.k8s.io",
            Self::Gateway => "gateways.gateway.networking.k8s.io",
            Self::ListenerSet => "listenersets.gateway.networking.k8s.io",
            Self::ReferenceGrant => "referencegrants.gateway.networking.k8s.io",
            Self::Namespace => "namespaces",
            Self::Service => "services",
            Self::McpServer => "mcpservers.toolhive.stacklok.dev",
            Self::McpRemoteProxy => "mcpremoteproxies.toolhive.stacklok.dev",
            Self::VirtualMcpServer => "virtualmcpservers.toolhive.stacklok.dev",
            Self::McpServerEntry => "mcpserverentries.toolhive.stacklok.dev",
            Self::McpRemoteEndpoint => "mcpremoteendpoints.toolhive.stacklok.dev",
            Self::LifecycleMcpServer => "mcpservers.mcp.x-k8s.io",
        }
    }

    /// The kind of a group and name in the Kubernetes API, whatever the version.
    #[must_use]
    pub fn of(group: &str, kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == kind && k.group() == group)
    }

    /// Whether objects of the kind are MCP resources.
    #[must_use]
    pub const fn is_mcp(self) -> bool {
        matches!(
            self,
            Self::McpServer
                | Self::McpRemoteProxy
                | Self::VirtualMcpServer
                | Self::McpServerEntry
                | Self::McpRemoteEndpoint
                | Self::LifecycleMcpServer
        )
    }
}

/// A text that names no kind that the rules read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is expected")]
pub struct KindError(String);

impl std::str::FromStr for Kind {
    type Err = KindError;

    /// As people and kubectl write it: `httproute`, `HTTPRoutes`, `mcpserver.mcp.x-k8s.io`.
    fn from_str(text: &str) -> Result<Self, KindError> {
        let (kind, group) = text.split_once('.').map_or((text, None), |(k, g)| (k, Some(g)));
        let is = |known: &Self| {
            let singular = known.as_str().eq_ignore_ascii_case(kind);
            let plural = known.resource().split('.').next();
            (singular || plural.is_some_and(|plural| plural.eq_ignore_ascii_case(kind)))
                && group.is_none_or(|group| known.group() == group)
        };
        Self::ALL.into_iter().find(is).ok_or_else(|| {
            let kinds: Vec<String> =
                Self::ALL.iter().map(|kind| kind.as_str().to_ascii_lowercase()).collect();
            KindError(format!("one of {}", kinds.join(", ")))
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Identifies an object: kind, namespace (empty for a Namespace), name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for a Namespace.
    pub namespace: SmolStr,
    /// Its name.
    pub name: SmolStr,
}

impl Key {
    /// A key of its parts.
    pub fn new(kind: Kind, namespace: impl Into<SmolStr>, name: impl Into<SmolStr>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// How an MCP endpoint is spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// `streamable-http`.
    #[default]
    StreamableHttp,
    /// `sse`.
    Sse,
}

impl Transport {
    /// The name in server.json.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StreamableHttp => waymark_catalogue::server::STREAMABLE_HTTP,
            Self::Sse => waymark_catalogue::server::SSE,
        }
    }
}

/// What every object has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// Namespace; empty for a Namespace.
    pub namespace: SmolStr,
    /// Name.
    pub name: SmolStr,
    /// UID; empty in manifests that were not applied.
    pub uid: Box<str>,
    /// `metadata.generation`; 0 in manifests that were not applied.
    pub generation: i64,
    /// Creation time in seconds since 1970; `None` in manifests that were not applied.
    pub created: Option<i64>,
    /// Whether `deletionTimestamp` is set.
    pub deleting: bool,
}

/// A Namespace: its labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Name.
    pub name: SmolStr,
    /// Labels, sorted by key.
    pub labels: Box<[(SmolStr, SmolStr)]>,
}

/// A Service: the MCP resource that owns it, if one does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Namespace.
    pub namespace: SmolStr,
    /// Name.
    pub name: SmolStr,
    /// Kind and name of the owning MCP resource.
    pub owner: Option<(Kind, SmolStr)>,
}

/// A ReferenceGrant: which references from other namespaces it allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceGrant {
    /// Namespace: the one that is referred to.
    pub namespace: SmolStr,
    /// Name.
    pub name: SmolStr,
    /// Namespaces from which HTTPRoutes may refer.
    pub from: Box<[SmolStr]>,
    /// Names of the Services they may refer to; `None` for all.
    pub to: Box<[Option<SmolStr>]>,
}

/// An object of one of the kinds.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// An HTTPRoute.
    HttpRoute(Box<HttpRoute>),
    /// A Gateway.
    Gateway(Box<Gateway>),
    /// A ListenerSet.
    ListenerSet(Box<ListenerSet>),
    /// A ReferenceGrant.
    ReferenceGrant(ReferenceGrant),
    /// A Namespace.
    Namespace(Namespace),
    /// A Service.
    Service(Service),
    /// An MCP resource of any kind.
    Mcp(Box<McpResource>),
}

impl Object {
    /// The object's key.
    #[must_use]
    pub fn key(&self) -> Key {
        let (kind, namespace, name) = self.parts();
        Key::new(kind, namespace, name)
    }

    /// The parts of the object's key.
    #[must_use]
    pub fn parts(&self) -> (Kind, &str, &str) {
        fn of(kind: Kind, meta: &Meta) -> (Kind, &str, &str) {
            (kind, &meta.namespace, &meta.name)
        }
        match self {
            Self::HttpRoute(o) => of(Kind::HttpRoute, &o.meta),
            Self::Gateway(o) => of(Kind::Gateway, &o.meta),
            Self::ListenerSet(o) => of(Kind::ListenerSet, &o.meta),
            Self::ReferenceGrant(o) => (Kind::ReferenceGrant, &o.namespace, &o.name),
            Self::Namespace(o) => (Kind::Namespace, "", &o.name),
            Self::Service(o) => (Kind::Service, &o.namespace, &o.name),
            Self::Mcp(o) => of(o.kind, &o.meta),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_as_people_write_them() {
        for (text, expected) in [
            ("httproute", Some(Kind::HttpRoute)),
            ("HTTPRoutes", Some(Kind::HttpRoute)),
            ("mcpserver", Some(Kind::McpServer)),
            ("mcpserver.mcp.x-k8s.io", Some(Kind::LifecycleMcpServer)),
            ("Gateway", Some(Kind::Gateway)),
            ("referencegrants", Some(Kind::ReferenceGrant)),
            ("mcpserverentries", Some(Kind::McpServerEntry)),
            ("mcpremoteproxies.toolhive.stacklok.dev", Some(Kind::McpRemoteProxy)),
            ("pod", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }
}
