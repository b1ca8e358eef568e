//! Which listeners admit a route, and the hosts, scheme and port it is reached at through them.

use smol_str::SmolStr;

use crate::host;
use crate::object::{
    Address, Condition, From, GATEWAY_GROUP, Gateway, HttpRoute, Key, Kind, Listener,
    ListenerStatus, Meta, RouteNamespaces,
};
use crate::problem::{Code, Problem, excerpt};
use crate::resolver::{Lookup, Via};

/// Where a route is reached through one listener, the path aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) https: bool,
    /// As a URL holds it.
    pub(crate) host: SmolStr,
    /// `None` for the scheme's default.
    pub(crate) port: Option<u16>,
    /// Whether the Gateway accepted the host for the route, so that names may go under it.
    pub(crate) claimable: bool,
    /// Whether clients outside the cluster reach it.
    pub(crate) external: bool,
    pub(crate) via: Via,
}

/// The listeners of one parent, with what all of them share.
pub(crate) struct Parent<'o> {
    /// The Gateway, or the ListenerSet.
    pub(crate) key: Key,
    pub(crate) meta: &'o Meta,
    pub(crate) listeners: &'o [Listener],
    pub(crate) status: &'o [ListenerStatus],
    /// The Gateway, whose overrides and addresses count for its ListenerSets too.
    pub(crate) gateway: &'o Gateway,
}

impl Parent<'_> {
    /// The origins through `listener`, or why there are none. Problems that stand beside origins
    /// (some hosts are wildcards) are added to `beside`.
    pub(crate) fn origins(
        &self,
        listener: &Listener,
        route: &HttpRoute,
        lookup: &impl Lookup,
        beside: &mut Vec<Problem>,
    ) -> Result<Vec<Origin>, Problem> {
        let about = format!("{} listener {}", self.key, listener.name);
        let https = self.scheme(listener, &about)?;
        self.check_conditions(listener, &about)?;
        self.check_allowed(listener, route, lookup, &about)?;
        let hosts = self.hosts(listener, route, &about, beside)?;
        let (own, gateway) = (&route.annotations.overrides, &self.gateway.overrides);
        let scheme = own.https.or(gateway.https);
        let public = scheme.unwrap_or(https);
        // A scheme that something in front speaks comes with that scheme's own port.
        let listens = (public == https).then_some(listener.port);
        let port = own.port.or(gateway.port).or(listens);
        let default = if public { 443 } else { 80 };
        let port = port.filter(|port| *port != default && *port != 0);
        let origin = |host: Host| Origin {
            https: public,
            host: host.name,
            port,
            claimable: host.claimable,
            external: host.external,
            via: Via { parent: self.key.clone(), listener: listener.name.clone() },
        };
        Ok(hosts.into_iter().map(origin).collect())
    }

    fn scheme(&self, listener: &Listener, about: &str) -> Result<bool, Problem> {
        let mode = listener.tls.as_ref().and_then(|tls| tls.mode.as_deref());
        match (listener.protocol.as_str(), mode) {
            ("HTTP", _) => Ok(false),
            ("HTTPS" | "TLS", None | Some("Terminate")) => Ok(true),
            ("HTTPS" | "TLS", Some(_)) => Err(Problem::error(
                Code::ProtocolMismatch,
                about,
                "The listener passes TLS through, so it cannot serve HTTP routes.",
                "Attach the route to a listener with tls.mode Terminate.",
            )),
            (protocol, _) => Err(Problem::error(
                Code::ProtocolMismatch,
                about,
                format!(
                    "The listener's protocol {} does not serve HTTP routes.",
                    excerpt(protocol)
                ),
                "Attach the route to an HTTP or HTTPS listener.",
            )),
        }
    }

    fn check_conditions(&self, listener: &Listener, about: &str) -> Result<(), Problem> {
        let Some(status) = self.status.iter().find(|s| s.name == listener.name) else {
            return Ok(());
        };
        // A condition that is missing is no refusal, one of an older generation neither.
        let refused = |kind: &str, refusal: &str| {
            crate::object::current(&status.conditions, kind, self.meta.generation)
                .filter(|c| c.status == refusal)
        };
        let refusal = refused("Accepted", "False")
            .or_else(|| refused("Conflicted", "True"))
            .or_else(|| refused("ResolvedRefs", "False"))
            .or_else(|| refused("Programmed", "False"));
        match refusal {
            None => Ok(()),
            Some(condition) => Err(Problem::error(
                Code::ListenerNotReady,
                about,
                format!("The listener is not ready: {}.", reason(condition)),
                "Mend what its condition names; the route is published as soon as it is ready.",
            )),
        }
    }

    fn check_allowed(
        &self,
        listener: &Listener,
        route: &HttpRoute,
        lookup: &impl Lookup,
        about: &str,
    ) -> Result<(), Problem> {
        let allowed = &listener.allowed_routes;
        let admits = |kind: &crate::object::RouteKind| {
            kind.group.as_deref().unwrap_or(GATEWAY_GROUP) == GATEWAY_GROUP
                && kind.kind == Kind::HttpRoute.as_str()
        };
        if !allowed.kinds.is_empty() && !allowed.kinds.iter().any(admits) {
            return Err(Problem::error(
                Code::KindNotAllowed,
                about,
                "The listener's allowedRoutes.kinds do not hold HTTPRoute.",
                "Add HTTPRoute to allowedRoutes.kinds, or attach the route to another listener.",
            ));
        }
        let from = From::Same;
        if admitted(&allowed.namespaces, &from, &self.meta.namespace, &route.meta.namespace, lookup)
        {
            return Ok(());
        }
        let rule = describe(&allowed.namespaces, &from);
        Err(Problem::error(
            Code::NamespaceNotAllowed,
            about,
            format!(
                "The listener does not allow routes of namespace {}: allowedRoutes.namespaces.from is {rule}.",
                route.meta.namespace
            ),
            "Widen allowedRoutes.namespaces of the listener, or label the namespace so that its selector takes it.",
        ))
    }

    fn hosts(
        &self,
        listener: &Listener,
        route: &HttpRoute,
        about: &str,
        beside: &mut Vec<Problem>,
    ) -> Result<Vec<Host>, Problem> {
        let own = listener.hostname.as_deref().filter(|hostname| !hostname.is_empty());
        let admitted: Vec<SmolStr> = match (own, &route.hostnames[..]) {
            (None, []) => Vec::new(),
            (Some(own), []) => host::intersect(own, own).into_iter().collect(),
            (None, hostnames) => hostnames.iter().filter_map(|h| host::intersect(h, h)).collect(),
            (Some(own), hostnames) => {
                let both: Vec<SmolStr> =
                    hostnames.iter().filter_map(|h| host::intersect(own, h)).collect();
                if both.is_empty() {
                    return Err(Problem::error(
                        Code::HostnameMismatch,
                        about,
                        format!(
                            "The listener's hostname {} and the route's hostnames have nothing in common.",
                            excerpt(own)
                        ),
                        "Add a hostname to the route that the listener admits, or attach it to another listener.",
                    ));
                }
                both
            }
        };
        if let Some(name) = &route.annotations.overrides.host {
            let claimable = own.is_none_or(|own| host::matches(own, name))
                || admitted.iter().any(|pattern| host::matches(pattern, name));
            let external = !host::is_cluster_internal(name);
            return Ok(vec![Host { name: name.clone(), claimable, external }]);
        }
        let public = self.gateway.overrides.host.as_ref();
        if admitted.is_empty() {
            return match public {
                Some(name) => Ok(vec![Host::of(name.clone())]),
                None => addresses(&self.gateway.addresses, self.gateway),
            };
        }
        let mut hosts: Vec<Host> = Vec::with_capacity(admitted.len());
        let mut wildcards = Vec::new();
        for hostname in admitted {
            let name = if host::is_wildcard(&hostname) {
                public.cloned()
            } else {
                host::for_url(&hostname)
            };
            match name {
                Some(name) if hosts.iter().any(|h| h.name == name) => {}
                Some(name) => hosts.push(Host::of(name)),
                None => wildcards.push(Problem::error(
                    Code::WildcardHost,
                    about,
                    format!("The host {} is a wildcard, which is no URL.", excerpt(&hostname)),
                    "Give the route an exact hostname, or set the annotation registry-host on the route or the Gateway.",
                )),
            }
        }
        if hosts.is_empty()
            && let Some(first) = wildcards.pop()
        {
            beside.append(&mut wildcards);
            return Err(first);
        }
        beside.append(&mut wildcards);
        Ok(hosts)
    }
}

struct Host {
    name: SmolStr,
    claimable: bool,
    external: bool,
}

impl Host {
    fn of(name: SmolStr) -> Self {
        let external = !host::is_cluster_internal(&name);
        Self { claimable: external, external, name }
    }
}

/// The Gateway's addresses: hostnames where it has any, else IP addresses. Those that clients
/// outside reach go first, and the others do not count beside them.
fn addresses(addresses: &[Address], gateway: &Gateway) -> Result<Vec<Host>, Problem> {
    let of_type = |wanted: &str| -> Vec<Host> {
        addresses
            .iter()
            .filter(|a| a.r#type.as_deref().unwrap_or("IPAddress") == wanted)
            .filter_map(|a| host::for_url(&a.value))
            .map(Host::of)
            .collect()
    };
    let mut hosts = of_type("Hostname");
    if !hosts.iter().any(|h| h.external) {
        hosts.extend(of_type("IPAddress"));
    }
    if hosts.iter().any(|h| h.external) {
        hosts.retain(|h| h.external);
    }
    if hosts.is_empty() {
        return Err(Problem::error(
            Code::NoAddress,
            format!("Gateway {}/{}", gateway.meta.namespace, gateway.meta.name),
            "Neither the route nor the listener has a hostname, and the Gateway has no address yet.",
            "Give the route a hostname, wait for the Gateway's address, or set the annotation registry-host on the Gateway.",
        ));
    }
    Ok(hosts)
}

/// Whether `namespaces` (`default` where it says nothing) admits objects of namespace `of` to an
/// object in namespace `own`.
pub(crate) fn admitted(
    namespaces: &RouteNamespaces,
    default: &From,
    own: &str,
    of: &str,
    lookup: &impl Lookup,
) -> bool {
    match namespaces.from.as_ref().unwrap_or(default) {
        From::All => true,
        From::Same => own == of,
        From::None | From::Unknown(_) => false,
        From::Selector => match &namespaces.selector {
            Some(selector) => namespace_selected(selector, of, lookup),
            None => false,
        },
    }
}

/// Whether a selector takes a namespace. The API server gives every namespace the label
/// `kubernetes.io/metadata.name`, which manifests do not carry.
pub(crate) fn namespace_selected(
    selector: &crate::object::Selector,
    name: &str,
    lookup: &impl Lookup,
) -> bool {
    let labels = lookup.namespace(name).map(|n| &n.labels[..]).unwrap_or_default();
    selector.selects(|key| {
        let label = labels.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str());
        label.or((key == "kubernetes.io/metadata.name").then_some(name))
    })
}

pub(crate) fn describe(namespaces: &RouteNamespaces, default: &From) -> String {
    match namespaces.from.as_ref().unwrap_or(default) {
        From::All => "All".into(),
        From::Same => "Same".into(),
        From::None => "None".into(),
        From::Selector => "Selector, which does not take it".into(),
        From::Unknown(other) => excerpt(other),
    }
}

/// A condition's reason and message, the message cut to what fits a sentence.
pub(crate) fn reason(condition: &Condition) -> String {
    let message: String =
        condition.message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    let message = message.trim_end_matches('.');
    let kind = format!("{}={}", condition.r#type, condition.status);
    match (condition.reason.is_empty(), message.is_empty()) {
        (true, true) => kind,
        (false, true) => format!("{kind} ({})", condition.reason),
        (true, false) => format!("{kind}: {message}"),
        (false, false) => format!("{kind} ({}): {message}", condition.reason),
    }
}
