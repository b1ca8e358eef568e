//! The catalogue in memory: one writer, immutable snapshots, a registry being a view over sources.

mod diagnostics;
mod handle;
mod layout;
mod merging;
mod prepared;
mod preview;
mod query;
mod search;
mod served;
mod snapshot;
mod writer;

pub use diagnostics::{Diagnostics, SourceDiagnostics};
pub use handle::{
    Edit, EditError, Handle, Health, Operation, PublishOutcome, Registries, Registry, SessionEnd,
    SessionId, Unavailable,
};
pub use layout::{CURATED, DISCOVERY, Layout, Origins, RegistryRule, Remotes, SourceRule};
pub use prepared::{MAX_ENTRY_BYTES, MAX_ID_BYTES, Prepared, Refusal, prepare, prepare_own};
pub use preview::{Preview, preview};
pub use query::{
    Cursor, DEFAULT_LIMIT, MAX_LIMIT, MAX_SEARCH, Page, Query, QueryError, VersionFilter,
};
pub use served::{Key, Served};
pub use snapshot::Snapshot;
pub use writer::{Config, Writer};
