//! From one opted-in object to endpoints, a name, and reasons: a pure function of the objects.

mod backend;
mod direct;
mod naming;
mod parent;
mod route;

use smol_str::SmolStr;
use waymark_catalogue::merge::Link;

use crate::object::{
    Gateway, HttpRoute, Key, Kind, ListenerSet, McpResource, Namespace, Object, ReferenceGrant,
    Service, Transport,
};
use crate::problem::Problem;
use crate::settings::Settings;

/// How the resolver reads other objects. What it reads, and what it looks for in vain, is all
/// that a resolution depends on.
pub trait Lookup {
    /// A Gateway.
    fn gateway(&self, namespace: &str, name: &str) -> Option<&Gateway>;
    /// A ListenerSet.
    fn listener_set(&self, namespace: &str, name: &str) -> Option<&ListenerSet>;
    /// A Namespace.
    fn namespace(&self, name: &str) -> Option<&Namespace>;
    /// A Service.
    fn service(&self, namespace: &str, name: &str) -> Option<&Service>;
    /// An MCP resource.
    fn mcp(&self, kind: Kind, namespace: &str, name: &str) -> Option<&McpResource>;
    /// Whether any ReferenceGrant of a namespace fulfils a condition.
    fn any_grant(&self, namespace: &str, test: impl Fn(&ReferenceGrant) -> bool) -> bool;
}

/// By which parent and listener a URL is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Via {
    /// The Gateway or ListenerSet; the MCP resource itself for a direct URL.
    pub parent: Key,
    /// The listener's name; empty for a direct URL.
    pub listener: SmolStr,
}

/// One URL at which a server is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The URL.
    pub url: SmolStr,
    /// How it is spoken to.
    pub transport: Transport,
    /// Whether clients outside the cluster reach it.
    pub external: bool,
    /// Whether the path is matched exactly.
    pub exact: bool,
    /// Length of the path, for the order.
    path_length: u16,
    /// By which way.
    pub via: Via,
}

impl Endpoint {
    fn is_https(&self) -> bool {
        self.url.starts_with("https:")
    }

    /// https before http, exact before prefix, shorter path first, then text order.
    pub(crate) fn order(&self) -> (bool, bool, u16, &str) {
        (!self.is_https(), !self.exact, self.path_length, &self.url)
    }

    /// The URL without its scheme and port, for telling http and https of one place.
    fn place(&self) -> (&str, &str) {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let end = authority.rfind(']').unwrap_or(0);
        let host = match authority.get(end..).and_then(|tail| tail.rfind(':')) {
            Some(colon) => authority.get(..end + colon).unwrap_or(authority),
            None => authority,
        };
        (host, path)
    }
}

/// The name that an offer goes by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Naming {
    /// A server name of its own.
    Named {
        /// The full server name.
        name: SmolStr,
        /// Whether an annotation says it; a derived one may get suffixes.
        explicit: bool,
    },
    /// The name of an entry that the catalogue already has.
    Linked(Box<Link>),
}

/// One server that an object offers for publishing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Offer {
    /// What the server is: the MCP resource, or the route where there is none.
    pub identity: Key,
    /// Where it is reached, in order; never empty.
    pub endpoints: Box<[Endpoint]>,
    /// What it is called.
    pub naming: Naming,
}

/// All that one object offers, and all reasons why it does not offer more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Resolution {
    /// The servers.
    pub offers: Vec<Offer>,
    /// The reasons.
    pub problems: Vec<Problem>,
}

/// Resolves an HTTPRoute or an MCP resource; `None` for an object that publishes nothing by
/// nature.
#[must_use]
pub fn resolve(object: &Object, lookup: &impl Lookup, settings: &Settings) -> Option<Resolution> {
    match object {
        Object::HttpRoute(route) => Some(resolve_route(route, lookup, settings)),
        Object::Mcp(resource) => direct::resolve(resource, lookup, settings),
        _ => None,
    }
}

/// Resolves an annotated HTTPRoute.
#[must_use]
pub fn resolve_route(route: &HttpRoute, lookup: &impl Lookup, settings: &Settings) -> Resolution {
    route::Resolver { route, lookup, settings, resolution: Resolution::default() }.resolve()
}
