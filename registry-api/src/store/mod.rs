//! Where the catalogue survives restarts.

mod postgres;
mod row;
mod sqlite;

use std::collections::BTreeMap;
use std::future::Future;

use jiff::Timestamp;
use waymark_catalogue::meta::Official;

use crate::catalogue::Key;

pub use postgres::{PostgresStore, PostgresTransaction};
pub use sqlite::{SqliteStore, SqliteTransaction};

/// A store that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database says so.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The tables could not be made or brought up to date.
    #[error("the database could not be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// It cannot be listened to.
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
    /// A row does not hold what this version writes.
    #[error("the database holds {what} that cannot be read: {name}")]
    Corrupt {
        /// What kind of row.
        what: &'static str,
        /// Which one.
        name: String,
    },
}

/// One version of one server as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// Name and version.
    pub key: Key,
    /// The server.json document.
    pub server: String,
    /// The registry's record.
    pub official: Official,
    /// Whether its publisher has been away for too long.
    pub stale: bool,
    /// Revision of its last change.
    pub revision: u64,
}

/// One registry as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredRegistry {
    /// Revision of the last change.
    pub revision: u64,
    /// Deletions up to this revision may be forgotten.
    pub compacted: u64,
    /// What is served.
    pub entries: Vec<StoredEntry>,
}

/// Everything that is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// Identity of the history.
    pub epoch: String,
    /// Number of the last commit, in a store that several share.
    pub sequence: u64,
    /// Registries by name.
    pub registries: BTreeMap<String, StoredRegistry>,
    /// What sources contributed: source, id, encoded entry.
    pub contributions: Vec<(String, String, Vec<u8>)>,
    /// Which replica has the session of which publisher, in a store that several share.
    pub owners: Vec<Owner>,
}

/// Which replica has, or had last, the session of a publisher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The publisher.
    pub source: String,
    /// The replica.
    pub owner: String,
    /// When it was last known to be connected.
    pub seen: Timestamp,
}

/// What others wrote to a store that several share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foreign {
    /// Number of the last commit.
    pub sequence: u64,
    /// Whether this is everything: what is not in it is gone.
    pub reset: bool,
    /// Contributions that changed.
    pub contributions: Vec<ContributionChange>,
    /// Versions that changed, and revisions, by registry.
    pub registries: BTreeMap<String, StoredRegistry>,
    /// Publishers that connected, or were seen to be.
    pub owners: Vec<Owner>,
}

/// One contribution that changed; `entry` is `None` where it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContributionChange {
    /// Source.
    pub source: String,
    /// Id within the source.
    pub id: String,
    /// The entry, encoded.
    pub entry: Option<Vec<u8>>,
}

/// Changes that become durable together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Contributions, in order.
    pub contributions: Vec<ContributionChange>,
    /// Registries that change, by name.
    pub registries: BTreeMap<String, RegistryBatch>,
    /// Registries that are gone with all that they served; before the others are written.
    pub dropped: Vec<String>,
    /// Publishers that are connected here, in a store that several share.
    pub owners: Vec<Owner>,
}

/// What changes in one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryBatch {
    /// Versions that are new or changed.
    pub entries: Vec<StoredEntry>,
    /// Versions that are forgotten for good.
    pub purged: Vec<Key>,
    /// Revision after the batch.
    pub revision: u64,
    /// Compacted revision after the batch.
    pub compacted: u64,
}

impl RegistryBatch {
    /// Whether there is nothing to store.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.purged.is_empty()
    }
}

impl Batch {
    /// Whether there is nothing to store.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.contributions.is_empty()
            && self.registries.is_empty()
            && self.dropped.is_empty()
            && self.owners.is_empty()
    }

    /// Number of versions that are new or changed, over all registries.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.registries.values().map(|registry| registry.entries.len()).sum()
    }
}

/// A durable store of all registries.
pub trait Store: Send + Sync + 'static {
    /// Whether several processes may share it.
    const SHARED: bool;
    /// The right to write.
    type Transaction: Transaction;

    /// Reads everything. An empty store gets an epoch.
    fn load(&self) -> impl Future<Output = Result<Stored, StoreError>> + Send;

    /// Begins to write: no other process does until the transaction ends. Gives what others wrote
    /// after the commit of number `seen`.
    fn begin(
        &self,
        seen: u64,
    ) -> impl Future<Output = Result<(Self::Transaction, Foreign), StoreError>> + Send;

    /// What others wrote after the commit of number `seen`.
    fn foreign(&self, seen: u64) -> impl Future<Output = Result<Foreign, StoreError>> + Send;

    /// Waits until others may have written something; for ever where there are none.
    ///
    /// # Errors
    /// Where that cannot be told at the moment.
    fn changed(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Begun to write; dropped, it writes nothing.
pub trait Transaction: Send + 'static {
    /// Makes a batch durable: when this returns, a power cut does not undo it. Gives the number of
    /// the commit.
    fn commit(self, batch: &Batch) -> impl Future<Output = Result<u64, StoreError>> + Send;
}
