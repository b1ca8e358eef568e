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
