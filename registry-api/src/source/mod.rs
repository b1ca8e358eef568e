//! Sources of catalogue entries, and how they are kept in step.

mod document;
mod engine;
mod file;
mod sync;

use std::future::Future;

use crate::catalogue::Prepared;
pub use document::{Rejected, TWICE, read_catalogue, read_document};
pub use engine::Engine;
pub use file::FileSource;
pub use sync::{Phase, SourceStatus, Statuses, Sync};

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be got at.
    #[error("{0}")]
    Unavailable(String),
    /// It is larger than is read.
    #[error("it has {size} bytes, {most} at most are read")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// The most.
        most: u64,
    },
    /// It is no catalogue.
    #[error("{0}")]
    Format(String),
}

/// All that a source has.
#[derive(Debug, Default)]
pub struct Fetched {
    /// The entries that are good.
    pub entries: Vec<Prepared>,
    /// Those that are not.
    pub rejected: Vec<Rejected>,
    /// A fingerprint: the same means that nothing has changed.
    pub hash: u64,
}

/// A source of catalogue entries.
pub trait Source: Send + std::marker::Sync + 'static {
    /// Reads all of it.
    fn fetch(&self) -> impl Future<Output = Result<Fetched, SourceError>> + Send;

    /// Waits until there may be something new; for ever where it cannot tell.
    fn changed(&self) -> impl Future<Output = ()> + Send;
}
