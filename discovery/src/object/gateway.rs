//! Gateways, ListenerSets and their listeners.

use serde::Deserialize;
use smol_str::SmolStr;

use super::Meta;

/// A condition of a status (`metav1.Condition`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// Its type, for example `Accepted`.
    pub r#type: SmolStr,
    /// `True`, `False` or `Unknown`.
    pub status: SmolStr,
    /// Machine-readable reason.
    pub reason: SmolStr,
    /// Human-readable message; a controller's text.
    pub message: SmolStr,
    /// Generation it was made for; 0 where the controller does not say.
    pub observed_generation: i64,
}

/// The condition of a type, where it was made for `generation` or a later one (or does not say).
pub(crate) fn current<'c>(
    conditions: &'c [Condition],
    kind: &str,
    generation: i64,
) -> Option<&'c Condition> {
    conditions.iter().find(|c| {
        c.r#type == kind && (c.observed_generation == 0 || c.observed_generation >= generation)
    })
}

/// What the cluster cannot know, as annotations say it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Overrides {
    /// `registry-host`: the public name, ready for a URL.
    pub host: Option<SmolStr>,
    /// `registry-scheme`: whether https.
    pub https: Option<bool>,
    /// `registry-port`.
    pub port: Option<u16>,
}

/// A Gateway.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gateway {
    /// Metadata.
    pub meta: Meta,
    /// Overrides from its annotations.
    pub overrides: Overrides,
    /// Annotations that cannot be used.
    pub problems: Vec<crate::Problem>,
    /// Its class (`spec.gatewayClassName`).
    pub class: SmolStr,
    /// Its own listeners.
    pub listeners: Box<[Listener]>,
    /// Which ListenerSets may attach.
    pub allowed_listeners: AllowedListeners,
    /// Whether it has any status at all.
    pub has_status: bool,
    /// Its conditions.
    pub conditions: Box<[Condition]>,
    /// Status by listener.
    pub listener_status: Box<[ListenerStatus]>,
    /// `status.addresses`; `spec.addresses` where there is no status at all.
    pub addresses: Box<[Address]>,
}

/// A ListenerSet (Gateway API 1.5).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ListenerSet {
    /// Metadata.
    pub meta: Meta,
    /// The Gateway it attaches to.
    pub parent: ParentGateway,
    /// Its listeners.
    pub listeners: Box<[Listener]>,
    /// Whether it has any status at all.
    pub has_status: bool,
    /// Its conditions.
    pub conditions: Box<[Condition]>,
    /// Status by listener.
    pub listener_status: Box<[ListenerStatus]>,
}

/// `ListenerSetSpec.parentRef`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ParentGateway {
    /// API group; Gateway API's by default.
    pub group: Option<SmolStr>,
    /// Kind; Gateway by default.
    pub kind: Option<SmolStr>,
    /// Namespace; the set's own by default.
    pub namespace: Option<SmolStr>,
    /// Name.
    pub name: SmolStr,
}

/// A listener of a Gateway or ListenerSet.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Listener {
    /// Name, unique within its Gateway or set.
    pub name: SmolStr,
    /// Hostname or wildcard; everything where absent or empty.
    pub hostname: Option<SmolStr>,
    /// Port.
    pub port: u16,
    /// `HTTP`, `HTTPS`, `TLS`, `TCP`, `UDP` or an implementation's own.
    pub protocol: SmolStr,
    /// TLS settings.
    pub tls: Option<Tls>,
    /// Which routes may attach.
    pub allowed_routes: AllowedRoutes,
}

/// `Listener.tls`, as far as the rules read it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Tls {
    /// `Terminate` (default) or `Passthrough`.
    pub mode: Option<SmolStr>,
}

/// `Listener.allowedRoutes`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AllowedRoutes {
    /// From which namespaces.
    pub namespaces: RouteNamespaces,
    /// Of which kinds; the protocol's own where empty.
    pub kinds: Box<[RouteKind]>,
}

/// `RouteGroupKind`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RouteKind {
    /// API group; Gateway API's by default.
    pub group: Option<SmolStr>,
    /// Kind.
    pub kind: SmolStr,
}

/// `RouteNamespaces`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RouteNamespaces {
    /// `Same` by default.
    pub from: Option<From>,
    /// For `Selector`.
    pub selector: Option<Selector>,
}

/// `Gateway.spec.allowedListeners`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AllowedListeners {
    /// `None` by default.
    pub namespaces: RouteNamespaces,
}

/// `FromNamespaces`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub enum From {
    /// Every namespace.
    All,
    /// The same namespace.
    Same,
    /// Those that the selector selects.
    Selector,
    /// No namespace.
    None,
    /// A value that this version does not know: admits nothing.
    #[serde(untagged)]
    Unknown(SmolStr),
}

/// `metav1.LabelSelector`. Empty selects everything.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Selector {
    /// Labels that must be there with these values.
    pub match_labels: std::collections::BTreeMap<SmolStr, SmolStr>,
    /// Requirements that must all hold.
    pub match_expressions: Box<[SelectorRequirement]>,
}

/// `metav1.LabelSelectorRequirement`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SelectorRequirement {
    /// Label key.
    pub key: SmolStr,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: SmolStr,
    /// Values, for `In` and `NotIn`.
    pub values: Box<[SmolStr]>,
}

impl Selector {
    /// Whether the labels are selected. `get` looks a label up.
    pub fn selects<'l>(&self, get: impl Fn(&str) -> Option<&'l str>) -> bool {
        self.match_labels.iter().all(|(key, value)| get(key) == Some(value.as_str()))
            && self.match_expressions.iter().all(|r| {
                let value = get(&r.key);
                let listed = value.is_some_and(|value| r.values.iter().any(|v| v == value));
                match r.operator.as_str() {
                    "In" => listed,
                    "NotIn" => !listed,
                    "Exists" => value.is_some(),
                    "DoesNotExist" => value.is_none(),
                    _ => false,
                }
            })
    }
}

/// Status of one listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ListenerStatus {
    /// The listener's name.
    pub name: SmolStr,
    /// Its conditions.
    pub conditions: Box<[Condition]>,
}

/// An address of a Gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Address {
    /// `IPAddress` (default), `Hostname` or an implementation's own.
    pub r#type: Option<SmolStr>,
    /// The address.
    pub value: SmolStr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors() {
        let labels = [("team", "a"), ("env", "prod")];
        let get = |key: &str| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
        for (selector, selected) in [
            (r#"{}"#, true),
            (r#"{"matchLabels": {"team": "a"}}"#, true),
            (r#"{"matchLabels": {"team": "b"}}"#, false),
            (
                r#"{"matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "b"]}]}"#,
                true,
            ),
            (
                r#"{"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["a"]}]}"#,
                false,
            ),
            (r#"{"matchExpressions": [{"key": "x", "operator": "NotIn", "values": ["a"]}]}"#, true),
            (r#"{"matchExpressions": [{"key": "env", "operator": "Exists"}]}"#, true),
            (r#"{"matchExpressions": [{"key": "env", "operator": "DoesNotExist"}]}"#, false),
            (r#"{"matchExpressions": [{"key": "env", "operator": "Gt", "values": ["1"]}]}"#, false),
        ] {
            let parsed: Selector = serde_json::from_str(selector).unwrap();
            assert_eq!(parsed.selects(get), selected, "{selector}");
        }
    }
}
