//! What the admin decides about discovery.

use serde::Deserialize;

use smol_str::SmolStr;

use crate::gateway_name::GatewayName;
use crate::object::Selector;

/// Default prefix of all annotations.
pub const DEFAULT_PREFIX: &str = "toolhive.stacklok.dev/";

/// Whether an MCP resource may name its own external URL (`registry-url`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DirectUrlPolicy {
    /// Any URL; the entry's name goes under the URL's host.
    #[default]
    Allow,
    /// Only URLs on hosts that are delegated to the namespace.
    Delegated,
    /// None.
    Deny,
}

/// Names and hosts that namespaces may use beyond what their routes give them.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Delegation {
    /// The namespaces it is for, by their labels.
    pub namespace_selector: Selector,
    /// Beginnings of server names, ending at a `.` or `/`, or followed by one:
    /// `com.company` permits `com.company/x` and `com.company.team/x`, not `com.companyx/x`.
    #[serde(default)]
    pub name_prefixes: Vec<String>,
    /// Hosts of direct URLs: exact, or `*.` for everything below.
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// All settings of the resolver.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Prefix of all annotations, with its slash.
    pub prefix: String,
    /// Whether a route without any status counts as accepted, and a Gateway or ListenerSet
    /// without any as programmed. For manifests that were not applied yet.
    pub assume_accepted: bool,
    /// Whether a route must lead to an MCP resource.
    pub require_mcp_backend: bool,
    /// Whether MCP resources may name their own URL.
    pub direct_url_policy: DirectUrlPolicy,
    /// Names and hosts beyond the routes' own.
    pub delegations: Vec<Delegation>,
    /// The Gateways by which is published; all where empty.
    pub gateways: Vec<GatewayName>,
    /// The classes of Gateways by which is published; all where empty.
    pub gateway_classes: Vec<SmolStr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prefix: DEFAULT_PREFIX.to_owned(),
            assume_accepted: false,
            require_mcp_backend: false,
            direct_url_policy: DirectUrlPolicy::default(),
            delegations: Vec::new(),
            gateways: Vec::new(),
            gateway_classes: Vec::new(),
        }
    }
}

impl Delegation {
    /// Whether one of the prefixes permits the name.
    #[must_use]
    pub fn permits_name(&self, name: &str) -> bool {
        self.name_prefixes.iter().any(|prefix| {
            name.strip_prefix(prefix.as_str()).is_some_and(|rest| {
                prefix.ends_with(['.', '/', '-', '_'])
                    || rest.starts_with(['.', '/'])
                    || rest.is_empty()
            })
        })
    }

    /// Whether one of the hosts permits a direct URL's host.
    #[must_use]
    pub fn permits_host(&self, host: &str) -> bool {
        self.hosts.iter().any(|pattern| crate::host::matches(pattern, host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_prefixes_end_at_a_boundary() {
        for (prefix, name, permitted) in [
            ("com.company", "com.company/x", true),
            ("com.company", "com.company.team/x", true),
            ("com.company", "com.companyx/x", false),
            ("com.company/team-a-", "com.company/team-a-x", true),
            ("com.company/team-a", "com.company/team-ab", false),
            ("com.company/team-a", "com.company/team-a", true),
            ("com.company", "org.company/x", false),
        ] {
            let delegation =
                Delegation { name_prefixes: vec![prefix.into()], ..Delegation::default() };
            assert_eq!(delegation.permits_name(name), permitted, "{prefix} {name}");
        }
    }
}
