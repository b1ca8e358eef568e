//! Which part of a cluster is watched.

use std::fmt;

use kube::runtime::watcher;
use smol_str::SmolStr;

use crate::gateway_name::GatewayName;
use crate::object::{Key, Kind};

/// Which part of a cluster is watched; all of it by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Namespaces whose objects are watched; all where empty. Then a Role in each is enough.
    pub namespaces: Vec<SmolStr>,
    /// Gateways that are watched, in whatever namespace; all of the namespaces where empty.
    pub gateways: Vec<GatewayName>,
    /// A label selector that HTTPRoutes must match.
    pub route_selector: Option<String>,
}

/// One watch: a kind, in all namespaces or one, perhaps of one name only.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) kind: Kind,
    pub(super) namespace: Option<SmolStr>,
    pub(super) name: Option<SmolStr>,
    pub(super) labels: Option<String>,
}

impl Target {
    /// Whether an object is one that the watch sees.
    pub(super) fn covers(&self, key: &Key) -> bool {
        self.kind == key.kind
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
            && self.name.as_ref().is_none_or(|name| *name == key.name)
    }

    /// A Namespace of a given name is asked for, not watched: a Role allows `get` of its own
    /// Namespace, and no `list` or `watch` of Namespaces.
    pub(super) fn polled(&self) -> Option<&SmolStr> {
        self.name.as_ref().filter(|_| self.kind == Kind::Namespace)
    }

    pub(super) fn config(&self) -> watcher::Config {
        let mut config = watcher::Config::default();
        if let Some(name) = &self.name {
            config = config.fields(&format!("metadata.name={name}"));
        }
        if let Some(labels) = &self.labels {
            config = config.labels(labels);
        }
        config
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind.resource())?;
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => write!(f, " {namespace}/{name}"),
            (Some(namespace), None) => write!(f, " in namespace {namespace}"),
            (None, Some(name)) => write!(f, " {name}"),
            (None, None) => Ok(()),
        }
    }
}

impl Scope {
    /// The watches that see all of the scope, each object by one of them.
    pub(super) fn targets(&self) -> Vec<Target> {
        let mut targets: Vec<Target> = Kind::ALL.into_iter().flat_map(|k| self.of(k)).collect();
        targets.sort();
        targets.dedup();
        targets
    }

    fn of(&self, kind: Kind) -> Vec<Target> {
        let all = Target { kind, namespace: None, name: None, labels: None };
        match kind {
            Kind::Gateway if !self.gateways.is_empty() => {
                let one = |gateway: &GatewayName| Target {
                    namespace: Some(gateway.namespace.clone()),
                    name: Some(gateway.name.clone()),
                    ..all.clone()
                };
                self.gateways.iter().map(one).collect()
            }
            _ if self.namespaces.is_empty() => vec![self.labelled(all)],
            Kind::Namespace => {
                let one = |name: &SmolStr| Target { name: Some(name.clone()), ..all.clone() };
                self.namespaces.iter().map(one).collect()
            }
            _ => {
                let one = |namespace: &SmolStr| {
                    self.labelled(Target { namespace: Some(namespace.clone()), ..all.clone() })
                };
                self.namespaces.iter().map(one).collect()
            }
        }
    }

    fn labelled(&self, target: Target) -> Target {
        let labels = (target.kind == Kind::HttpRoute).then(|| self.route_selector.clone());
        Target { labels: labels.flatten(), ..target }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_become_watches() {
        let gateway: GatewayName = "infra/public".parse().unwrap();
        let namespaces = vec![SmolStr::new("a"), SmolStr::new("b"), SmolStr::new("a")];
        let shown = |scope: &Scope, kind: Kind| -> Vec<String> {
            let targets = scope.targets().into_iter().filter(|t| t.kind == kind);
            targets.map(|t| format!("{t}{}", t.labels.as_deref().unwrap_or_default())).collect()
        };
        let all = Scope::default();
        assert_eq!(all.targets().len(), Kind::ALL.len());
        assert_eq!(shown(&all, Kind::Namespace), ["namespaces"]);
        assert!(all.targets().iter().all(|target| target.polled().is_none()));

        let narrow = Scope {
            namespaces,
            gateways: vec![gateway],
            route_selector: Some(" team=x".to_owned()),
        };
        let routes = "httproutes.gateway.networking.k8s.io in namespace";
        assert_eq!(
            shown(&narrow, Kind::HttpRoute),
            [format!("{routes} a team=x"), format!("{routes} b team=x")]
        );
        assert_eq!(
            shown(&narrow, Kind::Gateway),
            ["gateways.gateway.networking.k8s.io infra/public"]
        );
        assert_eq!(shown(&narrow, Kind::Namespace), ["namespaces a", "namespaces b"]);
        assert_eq!(shown(&narrow, Kind::Service).len(), 2);
        let gateways = narrow.targets().into_iter().find(|t| t.kind == Kind::Gateway).unwrap();
        assert!(gateways.covers(&Key::new(Kind::Gateway, "infra", "public")));
        assert!(!gateways.covers(&Key::new(Kind::Gateway, "infra", "other")));
        assert!(!gateways.covers(&Key::new(Kind::ListenerSet, "infra", "public")));
    }
}
