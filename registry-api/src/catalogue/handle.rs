//! The way to the catalogue: reads without waiting, commands to the writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use smol_str::SmolStr;
use tokio::sync::{mpsc, oneshot, watch};

use super::prepared::{Prepared, Refusal};
use super::snapshot::Snapshot;

/// Acknowledgements that a session may leave unread before it is given up.
const UNREAD: usize = 1024;

/// Identifies a publish session within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(u64);

/// One step of a publish session.
#[derive(Debug)]
pub enum Operation {
    /// The full state starts.
    Begin,
    /// An entry, or why it is not taken.
    Upsert(SmolStr, Box<Result<Prepared, Refusal>>),
    /// An entry is gone.
    Remove(SmolStr),
    /// The full state ends.
    End,
}

/// What the writer tells a session.
#[derive(Debug)]
pub enum PublishOutcome {
    /// Everything up to this sequence number is durable.
    Durable {
        /// The number; the one before where only refusals changed.
        sequence: u64,
        /// Entries that are not served, and why.
        refused: Vec<(SmolStr, Refusal)>,
        /// Entries against which nothing stands any more.
        resolved: Vec<SmolStr>,
    },
    /// The session is over.
    Ended(SessionEnd),
}

/// Why the writer ended a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// A newer session of the same publisher took over.
    Superseded,
}

/// Whether the catalogue can be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Why the store cannot be written at the moment.
    pub store_error: Option<String>,
}

/// The writer is gone: the process shuts down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the registry is shutting down")]
pub struct Unavailable;

/// What the writer is asked to do.
pub(super) enum Command {
    Open { source: SmolStr, session: SessionId, outcomes: mpsc::Sender<PublishOutcome> },
    Publish { source: SmolStr, session: SessionId, sequence: u64, operations: Vec<Operation> },
    Close { source: SmolStr, session: SessionId },
    Curated { entries: Vec<Prepared>, done: oneshot::Sender<Vec<(SmolStr, Refusal)>> },
}

/// The way to the catalogue: reads without waiting, commands to the writer.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) revisions: watch::Receiver<u64>,
    pub(super) health: watch::Receiver<Health>,
    pub(super) sessions: Arc<AtomicU64>,
}

impl Handle {
    /// The catalogue as of now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Wakes whenever there is a new snapshot.
    #[must_use]
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.revisions.clone()
    }

    /// Whether the catalogue can be written.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// Opens a session for a source; an earlier one of the same source ends.
    ///
    /// # Errors
    /// Where the writer is gone.
    pub async fn open(
        &self,
        source: SmolStr,
    ) -> Result<(SessionId, mpsc::Receiver<PublishOutcome>), Unavailable> {
        let session = SessionId(self.sessions.fetch_add(1, Ordering::Relaxed));
        let (outcomes, receiver) = mpsc::channel(UNREAD);
        self.send(Command::Open { source, session, outcomes }).await?;
        Ok((session, receiver))
    }

    /// Hands operations on; the last one has the sequence number.
    ///
    /// # Errors
    /// Where the writer is gone.
    pub async fn publish(
        &self,
        source: SmolStr,
        session: SessionId,
        sequence: u64,
        operations: Vec<Operation>,
    ) -> Result<(), Unavailable> {
        self.send(Command::Publish { source, session, sequence, operations }).await
    }

    /// Says that a session is over. What it published stays.
    pub async fn close(&self, source: SmolStr, session: SessionId) {
        // Where the writer is gone there is no session to close.
        let _ = self.send(Command::Close { source, session }).await;
    }

    /// Replaces the curated catalogue. The first call, if only with nothing, sets the writer to
    /// work: until then the stored state is served as it is and nothing is acknowledged. Returns
    /// the entries that are not served when it is done.
    ///
    /// # Errors
    /// Where the writer is gone.
    pub async fn replace_curated(
        &self,
        entries: Vec<Prepared>,
    ) -> Result<Vec<(SmolStr, Refusal)>, Unavailable> {
        let (done, wait) = oneshot::channel();
        self.send(Command::Curated { entries, done }).await?;
        wait.await.map_err(|_| Unavailable)
    }

    async fn send(&self, command: Command) -> Result<(), Unavailable> {
        self.commands.send(command).await.map_err(|_| Unavailable)
    }
}
