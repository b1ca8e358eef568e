//! What probes find out.

use smol_str::SmolStr;

/// What a probe found out about an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Finding {
    /// It answers.
    Answers {
        /// Names of its tools, in order; empty where it does not tell them, for example because it
        /// wants credentials.
        tools: Vec<SmolStr>,
    },
    /// It does not, for this reason.
    Silent(SmolStr),
}
