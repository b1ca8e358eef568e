//! From a rule's match to the path of a URL.

use smol_str::{SmolStr, format_smolstr};

use crate::object::{McpResource, PathType, Rewrite, RouteMatch, Rule};

/// Paths under which no MCP endpoint is ever published: discovery documents, probes, metrics,
/// authorization servers, and the message endpoint of the sse transport.
const NEVER: [&str; 7] =
    ["/.well-known", "/health", "/healthz", "/readyz", "/metrics", "/oauth", "/messages"];

/// A path that can be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    /// The path; empty for the root of a prefix.
    pub(crate) path: SmolStr,
    /// Whether the match is exact.
    pub(crate) exact: bool,
    /// Whether the match also asks for headers, query parameters or a method.
    pub(crate) special: bool,
    /// Where it cannot be told that the server answers there: the path at which it does answer.
    pub(crate) unverified: Option<SmolStr>,
}

/// A match that cannot be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unpublishable {
    /// A regular expression, or a type that this version does not know.
    NotPlain(SmolStr),
    /// Under a path of [`NEVER`].
    NeverAnEndpoint(SmolStr),
    /// Not absolute, or with characters that a path cannot hold.
    NotAPath(SmolStr),
}

/// The path of every match of a rule.
pub(crate) fn of_rule(
    rule: &Rule,
    resource: Option<&McpResource>,
    suffix: Option<&str>,
) -> Vec<Result<Path, Unpublishable>> {
    let everything = [RouteMatch::default()];
    let matches = if rule.matches.is_empty() { &everything[..] } else { &rule.matches };
    matches.iter().map(|m| of_match(m, rule.rewrite.as_ref(), resource, suffix)).collect()
}

fn of_match(
    matched: &RouteMatch,
    rewrite: Option<&Rewrite>,
    resource: Option<&McpResource>,
    suffix: Option<&str>,
) -> Result<Path, Unpublishable> {
    let (value, exact) = match &matched.path {
        None => ("", false),
        Some(path) => match path.kind {
            PathType::Exact => (path.value.as_str(), true),
            PathType::Prefix => (path.value.trim_end_matches('/'), false),
            PathType::Other => return Err(Unpublishable::NotPlain(path.value.clone())),
        },
    };
    let foreign = |c: char| !c.is_ascii_graphic() || "?#\"<>\\^`{|}".contains(c);
    if !(value.is_empty() || value.starts_with('/')) || value.contains(foreign) {
        return Err(Unpublishable::NotAPath(value.into()));
    }
    if NEVER.iter().any(|never| covers(never, value)) {
        return Err(Unpublishable::NeverAnEndpoint(value.into()));
    }
    let published =
        |path: SmolStr, unverified| Ok(Path { path, exact, special: matched.special, unverified });
    if let Some(suffix) = suffix {
        // An exact match has no room for a suffix: it is the endpoint, or nothing is.
        let suffix = if exact { "" } else { suffix };
        return published(format_smolstr!("{value}{suffix}"), None);
    }
    let Some((resource, serves)) = resource.and_then(|r| Some((r, r.path.as_deref()?))) else {
        return published(value.into(), None);
    };
    match rewrite {
        Some(Rewrite::Prefix(to)) if !exact => {
            let to = to.trim_end_matches('/');
            match below(to, serves) {
                Some(rest) => published(format_smolstr!("{value}{rest}"), None),
                None => published(value.into(), Some(serves.into())),
            }
        }
        Some(Rewrite::Full(to)) => {
            let reached = to.trim_end_matches('/') == serves.trim_end_matches('/');
            published(value.into(), (!reached).then(|| serves.into()))
        }
        Some(Rewrite::Prefix(_)) | None => {
            // A server with `endpointPrefix` expects an ingress to strip that prefix by means of
            // its own; the client's path then has it.
            if let Some(prefix) = &resource.stripped_prefix {
                let full = format_smolstr!("{prefix}{serves}");
                if if exact { value == full } else { prefix == value } {
                    return published(full, None);
                }
            }
            let covered = if exact { value == serves } else { covers(value, serves) };
            if covered {
                published(serves.into(), None)
            } else {
                published(value.into(), Some(serves.into()))
            }
        }
    }
}

/// Whether a prefix match of `prefix` (without trailing slash) admits `path`: whole segments, as
/// Gateway API compares them.
fn covers(prefix: &str, path: &str) -> bool {
    below(prefix, path).is_some()
}

/// What follows `prefix` in `path`: empty, or starting with a slash.
fn below<'p>(prefix: &str, path: &'p str) -> Option<&'p str> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}
