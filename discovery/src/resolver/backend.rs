//! From a rule's backendRefs to the MCP resource behind them.

use crate::object::{BackendRef, HttpRoute, Key, Kind, McpResource, Rule};
use crate::problem::{Code, Problem, Severity};
use crate::resolver::{Lookup, direct};
use crate::settings::Settings;

/// The Service names that ToolHive's operator gives, for Services that say no owner.
const SERVICE_NAMES: [(Kind, &str, &str); 3] = [
    (Kind::McpServer, "mcp-", "-proxy"),
    (Kind::McpRemoteProxy, "mcp-", "-remote-proxy"),
    (Kind::VirtualMcpServer, "vmcp-", ""),
];

/// The MCP resource behind a rule: `None` where there is none that is known.
///
/// # Errors
/// Why the rule publishes nothing.
pub(super) fn of_rule<'l>(
    rule: &Rule,
    route: &HttpRoute,
    lookup: &'l impl Lookup,
    settings: &Settings,
) -> Result<Option<&'l McpResource>, Box<Problem>> {
    let Some(backend) = heaviest(&rule.backends) else {
        // A filter of the implementation's own may answer without a backend.
        if rule.extended {
            return Ok(None);
        }
        return Err(Box::new(Problem::error(
            Code::NoBackend,
            "spec.rules",
            "A rule has no backendRefs with a weight above 0, so nothing answers there.",
            "Point backendRefs at the Service of the MCP server.",
        )));
    };
    if !backend.is_service {
        return Ok(None);
    }
    let own = &route.meta.namespace;
    let namespace = backend.namespace.as_ref().unwrap_or(own);
    if namespace != own {
        let granted = lookup.any_grant(namespace, |grant| {
            grant.from.contains(own)
                && grant.to.iter().any(|to| to.as_ref().is_none_or(|name| *name == backend.name))
        });
        if !granted {
            return Err(Box::new(Problem::error(
                Code::ReferenceNotGranted,
                Key::new(Kind::Service, namespace.clone(), backend.name.clone()).to_string(),
                format!(
                    "No ReferenceGrant in namespace {namespace} allows HTTPRoutes of namespace {own} to refer to Service {}.",
                    backend.name
                ),
                "Create a ReferenceGrant in the Service's namespace.",
            )));
        }
    }
    let Some(resource) = resource(backend, namespace, lookup) else {
        return Ok(None);
    };
    if resource.meta.deleting {
        return Err(Box::new(
            Problem::error(
                Code::ObjectDeleting,
                resource.key().to_string(),
                format!("{} is being deleted.", resource.key()),
                "",
            )
            .with(Severity::Note),
        ));
    }
    if direct::publishes(resource, lookup, settings) {
        return Err(Box::new(
            Problem::error(
                Code::DirectUrlConflict,
                resource.key().to_string(),
                format!(
                    "{} names its own registry-url, which wins over this route.",
                    resource.key()
                ),
                "Remove registry-url from the resource, or registry-export from the route.",
            )
            .with(Severity::Warning),
        ));
    }
    Ok(Some(resource))
}

/// The backend with the most weight, the first of several.
fn heaviest(backends: &[BackendRef]) -> Option<&BackendRef> {
    let mut best: Option<&BackendRef> = None;
    for backend in backends.iter().filter(|b| b.weight > 0) {
        if best.is_none_or(|b| backend.weight > b.weight) {
            best = Some(backend);
        }
    }
    best
}

fn resource<'l>(
    backend: &BackendRef,
    namespace: &str,
    lookup: &'l impl Lookup,
) -> Option<&'l McpResource> {
    let service = lookup.service(namespace, &backend.name);
    if let Some((kind, name)) = service.and_then(|service| service.owner.as_ref()) {
        return lookup.mcp(*kind, namespace, name);
    }
    SERVICE_NAMES.iter().find_map(|(kind, before, after)| {
        let name = backend.name.strip_prefix(before)?.strip_suffix(after)?;
        lookup.mcp(*kind, namespace, name)
    })
}
