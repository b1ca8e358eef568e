//! The catalogue in memory: one writer, immutable snapshots.

mod handle;
mod merging;
mod prepared;
mod preview;
mod query;
mod search;
mod served;
mod snapshot;
mod writer;

pub use handle::{Handle, Health, Operation, PublishOutcome, SessionEnd, SessionId, Unavailable};
pub use prepared::{MAX_ENTRY_BYTES, MAX_ID_BYTES, Prepared, Refusal, prepare};
pub use preview::{Preview, preview};
pub use query::{
    Cursor, DEFAULT_LIMIT, MAX_LIMIT, MAX_SEARCH, Page, Query, QueryError, VersionFilter,
};
pub use served::{Key, Served};
pub use snapshot::Snapshot;
pub use writer::{CURATED, Config, Writer};
