//! What each source contributes, and what of it is not served and why.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use super::prepared::Refusal;

/// Refusals that are listed per source; the rest is counted.
pub(super) const MAX_LISTED: usize = 100;

/// What a source contributes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceDiagnostics {
    /// Entries that it has here.
    pub entries: usize,
    /// Of a publisher: whether it has been away for so long that its entries are marked.
    pub stale: bool,
    /// How many of them are not served somewhere where they would be.
    pub refused: usize,
    /// Registry (empty where none is concerned), id of the entry, and why, of the first of them.
    pub listed: Vec<(SmolStr, SmolStr, Refusal)>,
}

/// What each source contributes: publishers under their own name (`cluster/publisher`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics {
    /// By source.
    pub sources: BTreeMap<SmolStr, SourceDiagnostics>,
}
