//! Sources of catalogue entries, and how they are kept in step.
//!
//! ```text
//!  file · url · git · api · configmap ──fetch──► document (format, entries) ──► sync ──► writer
//!                                       ◄─changed/interval/trigger─ policy ◄──┘   └──► statuses
//! ```
//!
//! Each source has a task of its own, so that none waits for another. A source that fails keeps what
//! it had, and says so.

mod compressed;
mod configmap;
mod document;
mod engine;
mod error;
mod file;
mod git;
mod http;
mod origin;
mod reach;
mod registry;
mod status;
mod sync;
mod url;

use std::future::Future;

use smol_str::SmolStr;

use crate::catalogue::Prepared;
pub use configmap::{ConfigMapOrigin, ConfigMapSource, Selection};
pub(crate) use document::digest;
use document::parse;
pub(crate) use document::read_packed;
pub use document::{Expected, Rejected, TWICE, read_catalogue, read_document};
pub use engine::Engine;
pub use error::{Cause, SourceError};
pub use file::FileSource;
pub use git::{GitOrigin, GitSource, Reference, Remote};
pub use http::Access;
pub use origin::{Cluster, Origin};
pub use reach::Reach;
pub use registry::{MAX_PATH, PATH_HEADER, RegistryOrigin, RegistrySource};
pub use status::{Phase, SourceStatus, Statuses};
pub use sync::{Retry, Sink, Sync, SyncPolicy, Trigger};
pub use url::{UrlOrigin, UrlSource};

/// Most bytes of a catalogue document, uncompressed.
pub const MAX_BYTES: u64 = 64 << 20;

/// What a source has, as far as it is good.
#[derive(Debug, Default)]
pub struct Content {
    /// The entries that are good: all of them, or those that changed.
    pub entries: Vec<Prepared>,
    /// Those of all its entries that are not.
    pub rejected: Vec<Rejected>,
    /// How many good ones it has in all.
    pub total: usize,
    /// A fingerprint of all of it, in hexadecimal digits: the same means that nothing has changed.
    pub hash: String,
}

/// What reading a source came to.
#[derive(Debug)]
pub enum Fetched {
    /// Nothing has changed since it was read last.
    Unchanged,
    /// All that it has.
    Whole(Content),
    /// What changed since it was read last.
    Changes {
        /// What is new or other than before.
        content: Content,
        /// Ids of entries that are gone.
        removed: Vec<SmolStr>,
    },
}

/// A source of catalogue entries.
pub trait Source: Send + 'static {
    /// Reads it.
    fn fetch(&mut self) -> impl Future<Output = Result<Fetched, SourceError>> + Send;

    /// Waits until there may be something new; for ever where it cannot tell.
    fn changed(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// The registries that its entries come from, where it is one.
    fn path(&self) -> Vec<String> {
        Vec::new()
    }

    /// Forgets what was read last, because it was not taken: the next fetch gives all there is.
    fn reset(&mut self) {}
}
