//! Why something is not published, or not as its owner might think: stable codes, each with a
//! sentence and a remedy.

use std::fmt;

use serde::{Serialize, Serializer};

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something that the admin asked for is not published. `waymark plan` fails.
    Error,
    /// Something is published, but likely not as it was meant.
    Warning,
    /// Worth knowing; nothing needs to be done.
    Note,
}

impl Severity {
    /// The wire form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $code:ident),+ $(,)?) => {
        /// Stable code of a problem. A code never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[doc = $doc])+ $code),+
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$code),+];

            /// The code as it is written everywhere.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$code => stringify!($code)),+
                }
            }

            /// What the code means, in a sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$code => concat!($($doc),+).trim_ascii()),+
                }
            }
        }
    };
}

codes! {
    /// Whether the server answers at the published path cannot be told from the cluster.
    PathUnverified,
    /// The only address is one that clients outside the cluster cannot reach.
    InternalAddress,
    /// The MCP resource behind the route is failed or stopped; its entry stays.
    BackendNotReady,
    /// The same host and path is served over https too; only that is advertised.
    HttpsPreferred,
    /// Another server holds the derived name, so this one got a suffix.
    NameSuffixed,
    /// The object is being deleted, so what it published is withdrawn.
    ObjectDeleting,
    /// The Gateway is not among those by which is published (`--gateway`, `--gateway-class`).
    GatewayNotSelected,
    /// The route names no Gateway and no ListenerSet.
    NoParent,
    /// The Gateway does not exist.
    GatewayNotFound,
    /// The ListenerSet does not exist.
    ListenerSetNotFound,
    /// The Gateway does not allow the ListenerSet.
    ListenerSetNotAllowed,
    /// No controller has accepted the route for this parent.
    RouteNotAccepted,
    /// The route was accepted at an older generation only.
    StaleStatus,
    /// A controller says that a reference of the route cannot be resolved.
    ReferencesUnresolved,
    /// The Gateway or ListenerSet is refused, not programmed, or being deleted.
    GatewayNotReady,
    /// No listener has the parentRef's sectionName and port.
    ListenerNotFound,
    /// The listener's own conditions refuse.
    ListenerNotReady,
    /// The listener's protocol does not serve HTTP routes.
    ProtocolMismatch,
    /// The listener does not allow routes of this namespace.
    NamespaceNotAllowed,
    /// The listener does not allow HTTPRoutes.
    KindNotAllowed,
    /// The listener's hostname and the route's have nothing in common.
    HostnameMismatch,
    /// The host is a wildcard, so there is no URL to publish.
    WildcardHost,
    /// Neither a hostname nor an address of the Gateway is known.
    NoAddress,
    /// All rules of the route redirect elsewhere.
    RedirectOnly,
    /// The path cannot be published: a regular expression, or one that is never an endpoint.
    UnpublishablePath,
    /// The rule has no backend that could answer.
    NoBackend,
    /// No ReferenceGrant allows the route's reference to a Service of another namespace.
    ReferenceNotGranted,
    /// There is no MCP resource behind the route, and one is required.
    BackendNotMcp,
    /// An annotation's value cannot be used.
    InvalidAnnotation,
    /// The name is not a valid server name.
    InvalidName,
    /// The namespace may not use the name.
    NameNotPermitted,
    /// An older object holds the name.
    NameConflict,
    /// The MCP resource behind the route has a direct URL, which wins.
    DirectUrlConflict,
    /// The settings do not permit the direct URL.
    DirectUrlNotPermitted,
    /// The resource's remote URL cannot be published.
    InvalidUrl,
    /// The MCP resource is opted in, but has no direct URL of its own.
    DirectUrlMissing,
    /// A probe got no answer at the endpoint; its entry stays.
    EndpointNotAnswering,
    /// The registry has no entry of the name that the object links to.
    LinkedEntryNotFound,
    /// The registry did not take the entry.
    EntryRejected,
    /// A document of the manifests cannot be read.
    InvalidDocument,
    /// The manifests hold the same object twice.
    DuplicateObject,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One problem of one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Problem {
    /// Stable code.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// The object, and the part of it, that the problem is about: another one than the object
    /// that has the problem, where the cause lies there.
    pub about: String,
    /// What is wrong: one sentence.
    pub message: String,
    /// What to do: one sentence; empty where nothing needs to be done.
    pub remedy: String,
}

impl Problem {
    /// An error.
    #[must_use]
    pub fn error(
        code: Code,
        about: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            code,
            severity: Severity::Error,
            about: about.into(),
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    /// The same problem with another severity.
    #[must_use]
    pub fn with(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }
}

/// The start of a hostile text, fit for a message: at most 60 characters, quoted and escaped.
#[must_use]
pub fn excerpt(text: &str) -> String {
    const MOST: usize = 60;
    let cut: String = text.chars().take(MOST).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("{cut:?}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_explained() {
        let mut names: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
        assert!(Code::ALL.iter().all(|code| code.meaning().ends_with('.')));
    }

    #[test]
    fn the_docs_list_every_code_and_no_other() {
        let docs = include_str!("../../docs/problems.md");
        let rows = docs.lines().filter(|line| line.starts_with("| `")).map(str::to_owned);
        let codes = Code::ALL.iter().map(|code| format!("| `{code}` | {} |", code.meaning()));
        assert_eq!(rows.collect::<Vec<_>>(), codes.collect::<Vec<_>>());
    }

    #[test]
    fn excerpts_are_bounded_and_escaped() {
        assert_eq!(excerpt("a\n\u{1b}[31m"), r#""a\n\u{1b}[31m""#);
        assert_eq!(excerpt(&"x".repeat(1000)).chars().count(), 63);
    }
}
