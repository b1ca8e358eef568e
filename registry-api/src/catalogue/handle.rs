//! The way to the catalogue: reads without waiting, commands to the writer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use smol_str::SmolStr;
use tokio::sync::{mpsc, oneshot, watch};
use waymark_catalogue::meta::Status;

use super::diagnostics::Diagnostics;
use super::layout::{Layout, RegistryRule};
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

/// What an author of managed entries asks for.
#[derive(Debug)]
pub enum Edit {
    /// A new version.
    Publish(Box<Prepared>),
    /// Another document for a version that is there.
    Replace(Box<Prepared>),
    /// Another status, for one version or all.
    SetStatus {
        /// Server name.
        name: SmolStr,
        /// The version; all where `None`.
        version: Option<SmolStr>,
        /// The status.
        status: Status,
        /// Why.
        message: Option<String>,
    },
}

/// Why an edit was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The version is there already.
    #[error("{0} is published already; publish another version, or replace this one")]
    Exists(String),
    /// There is no such server or version among the managed ones.
    #[error("{0} is not a managed server version here")]
    NotFound(String),
    /// Another replica wrote the same while the database was away.
    #[error("another replica has written the same entries meanwhile; look at them, and try again")]
    Overtaken,
    /// Everything is as it is asked for.
    #[error("no changes to apply: the status is {0} already")]
    NoChange(&'static str),
    /// There are too many.
    #[error("there are {0} managed versions, which is the most this registry takes")]
    TooMany(usize),
    /// The process shuts down.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// What the writer is asked to do.
pub(super) enum Command {
    Open { source: SmolStr, session: SessionId, outcomes: mpsc::Sender<PublishOutcome> },
    Publish { source: SmolStr, session: SessionId, sequence: u64, operations: Vec<Operation> },
    Close { source: SmolStr, session: SessionId },
    Replace { source: SmolStr, entries: Vec<Prepared>, done: Refused },
    Merge { source: SmolStr, entries: Vec<Prepared>, removed: Vec<SmolStr>, done: Refused },
    Edit { source: SmolStr, edit: Edit, done: oneshot::Sender<Result<(), EditError>> },
    Configure { layout: Layout, done: oneshot::Sender<()> },
    Start { done: oneshot::Sender<()> },
}

/// Where is told what of a source is not served.
pub(super) type Refused = oneshot::Sender<Vec<(SmolStr, Refusal)>>;

/// One registry, to be read.
#[derive(Debug)]
pub struct Registry {
    /// Its name.
    pub name: SmolStr,
    /// Its rule.
    pub rule: RegistryRule,
    pub(super) snapshot: ArcSwap<Snapshot>,
    pub(super) revisions: watch::Receiver<u64>,
}

impl Registry {
    /// The registry as of now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Wakes whenever there is a new snapshot; ends when the registry is gone.
    #[must_use]
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.revisions.clone()
    }
}

/// All registries.
#[derive(Debug)]
pub struct Registries {
    /// The default one.
    pub default: Arc<Registry>,
    /// All of them, by name.
    pub by_name: BTreeMap<SmolStr, Arc<Registry>>,
}

/// The way to the catalogue: reads without waiting, commands to the writer.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) registries: Arc<ArcSwap<Registries>>,
    pub(super) diagnostics: Arc<ArcSwap<Diagnostics>>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) health: watch::Receiver<Health>,
    pub(super) sessions: Arc<AtomicU64>,
}

impl Handle {
    /// All registries as of now.
    #[must_use]
    pub fn registries(&self) -> Arc<Registries> {
        self.registries.load_full()
    }

    /// A registry; the default one where the name is empty.
    #[must_use]
    pub fn registry(&self, name: &str) -> Option<Arc<Registry>> {
        let registries = self.registries.load();
        if name.is_empty() {
            return Some(Arc::clone(&registries.default));
        }
        registries.by_name.get(name).cloned()
    }

    /// The default registry as of now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.registries.load().default.snapshot()
    }

    /// What each source contributes, and what of it is not served.
    #[must_use]
    pub fn diagnostics(&self) -> Arc<Diagnostics> {
        self.diagnostics.load_full()
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

    /// Replaces all that a source has. Before [`Self::start`] it is only taken in. Returns the
    /// entries that are not served.
    ///
    /// # Errors
    /// Where the writer is gone.
    pub async fn replace(
        &self,
        source: SmolStr,
        entries: Vec<Prepared>,
    ) -> Result<Vec<(SmolStr, Refusal)>, Unavailable> {
        let (done, wait) = oneshot::channel();
        self.send(Command::Replace { source, entries, done }).await?;
        wait.await.map_err(|_| Unavailable)
    }

    /// Adds, changes and removes some of what a source has. Returns the entries that are not served.
    ///
    /// # Errors
    /// Where the writer is gone.
    pub async fn merge(
        &self,
        source: SmolStr,
        entries: Vec<Prepared>,
        removed: Vec<SmolStr>,
    ) -> Result<Vec<(SmolStr, Refusal)>, Unavailable> {
        let (done, wait) = oneshot::channel();
        self.send(Command::Merge { source, entries, removed, done }).await?;
        wait.await.map_err(|_| Unavailable)
    }

    /// Changes managed entries; done when it is durable.
    ///
    /// # Errors
    /// Why it is not made.
    pub async fn edit(&self, source: SmolStr, edit: Edit) -> Result<(), EditError> {
        let (done, wait) = oneshot::channel();
        self.send(Command::Edit { source, edit, done }).await?;
        wait.await.map_err(|_| Unavailable)?
    }

    /// Takes other registries and sources; done when they are served.
    ///
    /// # Errors
    /// Where the writer is gone.
    pub async fn configure(&self, layout: Layout) -> Result<(), Unavailable> {
        let (done, wait) = oneshot::channel();
        self.send(Command::Configure { layout, done }).await?;
        wait.await.map_err(|_| Unavailable)
    }

    /// Sets the writer to work: until then the stored state is served as it is and nothing is
    /// acknowledged, because what links to a source that is not loaded, or is shadowed by it, would
    /// be judged as if that were empty.
    ///
    /// # Errors
    /// Where the writer is gone.
    pub async fn start(&self) -> Result<(), Unavailable> {
        let (done, wait) = oneshot::channel();
        self.send(Command::Start { done }).await?;
        wait.await.map_err(|_| Unavailable)
    }

    async fn send(&self, command: Command) -> Result<(), Unavailable> {
        self.commands.send(command).await.map_err(|_| Unavailable)
    }
}
