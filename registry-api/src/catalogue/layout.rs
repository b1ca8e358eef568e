//! Which registries there are, and which sources they show.

use std::collections::BTreeMap;

use smol_str::SmolStr;
use waymark_catalogue::filter::Filter;

use super::prepared::{Prepared, Refusal};
use crate::DEFAULT_REGISTRY;

/// Source name of the curated catalogue where no configuration names sources.
pub const CURATED: &str = "catalogue";
/// Source name of what publishers discover where no configuration names sources.
pub const DISCOVERY: &str = "discovery";

/// Which remotes of discovered entries a registry shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Remotes {
    /// Those that clients outside the cluster reach.
    #[default]
    External,
    /// Those that only clients inside the cluster reach.
    InCluster,
    /// Both, the external ones first.
    Both,
}

impl Remotes {
    /// The name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::External => "external",
            Self::InCluster => "in-cluster",
            Self::Both => "both",
        }
    }
}

/// What a source takes entries from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Only what is given to it by name: a file, the managed entries.
    Own,
    /// All publishers; only entries made of objects in these namespaces, where any are named.
    Publishers {
        /// Namespaces; all where empty.
        namespaces: Vec<SmolStr>,
        /// Only entries whose labels name the registry.
        labelled: bool,
    },
}

/// A source, as far as routing its entries goes.
#[derive(Debug, Clone)]
pub struct SourceRule {
    /// Where its entries come from.
    pub origins: Origins,
    /// Which of them it lets through.
    pub filter: Filter,
}

/// A registry: a view over sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryRule {
    /// Its name.
    pub name: SmolStr,
    /// Its sources; of entries with one name and version the one of the first source is served.
    pub sources: Vec<SmolStr>,
    /// Which remotes it shows.
    pub remotes: Remotes,
}

/// All registries and their sources.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Sources by name.
    pub sources: BTreeMap<SmolStr, SourceRule>,
    /// Registries; never empty.
    pub registries: Vec<RegistryRule>,
    /// Whether these are all: where they are not, what was stored of the sources and registries of
    /// MCPRegistries (whose names have a dot) is kept though none is named.
    pub complete: bool,
}

impl Default for Layout {
    /// One registry: the curated catalogue first, then what is discovered.
    fn default() -> Self {
        let rule = |origins| SourceRule { origins, filter: Filter::default() };
        let (curated, discovery) = (SmolStr::new_static(CURATED), SmolStr::new_static(DISCOVERY));
        Self {
            sources: BTreeMap::from([
                (curated.clone(), rule(Origins::Own)),
                (
                    discovery.clone(),
                    rule(Origins::Publishers { namespaces: Vec::new(), labelled: false }),
                ),
            ]),
            registries: vec![RegistryRule {
                name: SmolStr::new_static(DEFAULT_REGISTRY),
                sources: vec![curated, discovery],
                remotes: Remotes::External,
            }],
            complete: true,
        }
    }
}

/// Whether contributions come from a publisher: their source is `cluster/publisher`, while names of
/// configured sources have no slash.
pub(super) fn is_publisher(source: &str) -> bool {
    source.contains('/')
}

/// Whether a label, which is `name` or `namespace.name`, names a registry other than by the whole of
/// its name: an MCPRegistry by its own name from within its namespace, a registry of the
/// configuration with whatever namespace, because it has none.
fn is_named(rule: &RegistryRule, label: &str, entry: &Prepared) -> bool {
    let of = |namespace: &SmolStr| {
        let own = rule.name.strip_prefix(namespace.as_str());
        own.and_then(|own| own.strip_prefix('.')) == Some(label)
    };
    match label.split_once('.') {
        Some((_, own)) => rule.name == own && !own.contains('.'),
        None => entry.namespaces.iter().any(of),
    }
}

impl Layout {
    /// Name of the default registry: the one called `default`, else the first.
    #[must_use]
    pub fn default_registry(&self) -> SmolStr {
        let named = self.registries.iter().find(|rule| rule.name == DEFAULT_REGISTRY);
        named.or(self.registries.first()).map(|rule| rule.name.clone()).unwrap_or_default()
    }

    /// Whether what is stored of a source or a registry may be forgotten where none of its name is
    /// here.
    pub(super) fn may_forget(&self, name: &str) -> bool {
        self.complete || !name.contains('.')
    }

    fn takes_publishers(&self, rule: &RegistryRule, without_label: bool) -> bool {
        let publishers = |name: &SmolStr| match self.sources.get(name).map(|s| &s.origins) {
            Some(Origins::Publishers { labelled, .. }) => !(*labelled && without_label),
            _ => false,
        };
        rule.sources.iter().any(publishers)
    }

    /// Whether a registry is one that a discovered entry is meant for: the one that its labels name;
    /// without such a label the default one, where that shows discovered entries at all, else every
    /// one that does.
    fn is_meant(&self, rule: &RegistryRule, entry: &Prepared) -> bool {
        if let Some(label) = &entry.registry {
            let exact = |rule: &RegistryRule| rule.name == *label;
            return exact(rule)
                || (is_named(rule, label, entry) && !self.registries.iter().any(exact));
        }
        let default = self.default_registry();
        let default = self.registries.iter().find(|rule| rule.name == default);
        rule.name == default.map(|rule| rule.name.as_str()).unwrap_or_default()
            || !default.is_some_and(|default| self.takes_publishers(default, true))
    }

    /// At which precedence a registry shows an entry; `None` where it does not.
    pub(super) fn precedence(
        &self,
        rule: &RegistryRule,
        source: &str,
        entry: &Prepared,
    ) -> Option<u32> {
        let publisher = is_publisher(source);
        if publisher && !self.is_meant(rule, entry) {
            return None;
        }
        let takes = |name: &SmolStr| {
            let Some(config) = self.sources.get(name) else { return false };
            let from = match &config.origins {
                Origins::Own => name == source,
                Origins::Publishers { namespaces, labelled } => {
                    let within = |namespace| namespaces.contains(namespace);
                    publisher
                        && (!labelled || entry.registry.is_some())
                        && (namespaces.is_empty() || entry.namespaces.iter().any(within))
                }
            };
            from && (config.filter.takes_all()
                || entry.detail().is_some_and(|d| config.filter.takes(&d)))
        };
        rule.sources.iter().position(takes).and_then(|at| u32::try_from(at).ok())
    }

    /// Why a discovered entry is not shown anywhere, where that is its labels' fault.
    pub(super) fn misdirected(&self, source: &str, entry: &Prepared) -> Option<Refusal> {
        let label = entry.registry.as_ref().filter(|_| is_publisher(source))?;
        let exact = self.registries.iter().find(|rule| rule.name == *label);
        let rule =
            exact.or_else(|| self.registries.iter().find(|rule| is_named(rule, label, entry)));
        if rule.is_some_and(|rule| self.precedence(rule, source, entry).is_some()) {
            return None;
        }
        let what = match rule {
            None => "does not exist",
            Some(rule) if self.takes_publishers(rule, false) => {
                "takes no entries of this namespace, or filters this one out,"
            }
            Some(_) => "takes no discovered entries",
        };
        Some(Refusal::new(
            "RegistryNotFound",
            format!(
                "The registry {label:.100?} {what} here. Correct the label registry-name, or remove it."
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use waymark_proto::v1;

    use super::*;
    use crate::catalogue::prepare;

    fn entry(label: &str, namespace: &str) -> Prepared {
        let server = json!({"name": "a.b/c", "description": "d", "version": "1.0.0"});
        prepare(&v1::Entry {
            id: "1".into(),
            server_json: server.to_string().into_bytes().into(),
            registry: label.into(),
            sources: vec![v1::ObjectReference {
                namespace: namespace.into(),
                ..Default::default()
            }],
            ..v1::Entry::default()
        })
        .unwrap()
    }

    #[test]
    fn where_labels_lead() {
        let publishers = |namespaces: &[&str], labelled| SourceRule {
            origins: Origins::Publishers {
                namespaces: namespaces.iter().map(|n| SmolStr::from(*n)).collect(),
                labelled,
            },
            filter: Filter::default(),
        };
        let sources = [
            ("k8s", publishers(&[], false)),
            ("same", publishers(&["a"], true)),
            ("all", publishers(&[], true)),
        ];
        let rule = |(name, source): (&str, &str)| RegistryRule {
            name: name.into(),
            sources: vec![source.into()],
            remotes: Remotes::External,
        };
        let registries = [
            ("default", "k8s"),
            ("team", "k8s"),
            ("a.prod", "same"),
            ("b.prod", "all"),
            ("a.team", "same"),
        ];
        let layout = Layout {
            sources: sources.into_iter().map(|(name, rule)| (name.into(), rule)).collect(),
            registries: registries.into_iter().map(rule).collect(),
            complete: true,
        };
        // Label, namespace of the object; the registries that show it.
        for (label, namespace, shown) in [
            ("", "a", vec!["default"]),
            ("team", "x", vec!["team"]),
            ("system.team", "x", vec!["team"]),
            ("team", "a", vec!["team"]),
            ("a.team", "a", vec!["a.team"]),
            ("prod", "a", vec!["a.prod"]),
            ("prod", "b", vec!["b.prod"]),
            ("prod", "c", vec![]),
            // It takes only what is of its own namespace.
            ("a.prod", "b", vec![]),
            ("b.prod", "a", vec!["b.prod"]),
            ("nowhere", "a", vec![]),
        ] {
            let entry = entry(label, namespace);
            let all = layout.registries.iter();
            let found = all.filter(|rule| layout.precedence(rule, "x/p", &entry).is_some());
            let found: Vec<&str> = found.map(|rule| rule.name.as_str()).collect();
            assert_eq!(found, shown, "{label} from {namespace}");
            let refused = layout.misdirected("x/p", &entry).is_some();
            assert_eq!(refused, shown.is_empty(), "{label} from {namespace}");
        }
    }
}
