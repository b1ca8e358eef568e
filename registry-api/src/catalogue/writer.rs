//! The one task that changes the catalogue.
//!
//! Commands come through one bounded channel: who publishes faster than the store writes, waits.
//! Everything that is waiting becomes one batch: merged, stored, then shown, then acknowledged.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use prost::Message;
use smol_str::SmolStr;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use waymark_proto::v1;

use super::handle::{Command, Handle, Health, Operation, PublishOutcome, SessionEnd, SessionId};
use super::merging::State;
use super::prepared::{Refusal, prepare};
use super::served::Served;
use super::snapshot::Snapshot;
use crate::metrics::Metrics;
use crate::store::{Batch, Store, StoreError};

/// Source name of the curated catalogue.
pub const CURATED: &str = "catalogue";
pub(super) const CURATED_PRECEDENCE: u32 = 0;
pub(super) const PUBLISHER_PRECEDENCE: u32 = 10;

/// Commands that may wait for the writer.
const QUEUE: usize = 256;
/// Most commands of one batch.
const BATCH: usize = 128;
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// What the admin decides about publishers.
#[derive(Debug, Clone)]
pub struct Config {
    /// After how long without a session a publisher's entries are marked stale.
    pub stale_after: Duration,
    /// After how long without a session they are removed.
    pub publisher_retention: Duration,
    /// How long deletions are remembered.
    pub deleted_retention: Duration,
    /// Most entries of one publisher.
    pub max_entries: usize,
}

impl Default for Config {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            stale_after: Duration::from_secs(300),
            publisher_retention: 30 * DAY,
            deleted_retention: 30 * DAY,
            max_entries: 200_000,
        }
    }
}

/// A publisher that the writer knows.
#[derive(Default)]
struct Publisher {
    session: Option<(SessionId, mpsc::Sender<PublishOutcome>)>,
    /// Sequence number of the last operation taken in this session.
    sequence: u64,
    /// Ids that the full state held so far; `None` outside of one.
    full: Option<HashSet<SmolStr>>,
    entries: usize,
    /// Since when there is no session.
    away_since: Option<Instant>,
}

/// The task's own state. See the module's documentation.
pub struct Writer<S> {
    store: S,
    config: Config,
    state: State,
    /// Whether the curated catalogue was loaded. Before that nothing is merged: what links to it,
    /// or is shadowed by it, would be judged as if it were gone.
    curated: bool,
    publishers: HashMap<SmolStr, Publisher>,
    commands: mpsc::Receiver<Command>,
    shown: Arc<ArcSwap<Snapshot>>,
    revisions: watch::Sender<u64>,
    health: watch::Sender<Health>,
    metrics: Arc<Metrics>,
}

impl<S: Store> Writer<S> {
    /// Loads the catalogue from its store.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn load(
        store: S,
        config: Config,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Handle), StoreError> {
        let stored = store.load().await?;
        let mut snapshot = Snapshot::new(stored.epoch.into(), stored.revision, stored.compacted);
        for entry in stored.entries {
            let served =
                Served::new(entry.key, &entry.server, entry.official, entry.revision, entry.stale);
            snapshot.insert(Arc::new(served));
        }
        let mut state = State::new(snapshot);
        let mut publishers: HashMap<SmolStr, Publisher> = HashMap::new();
        for (source, id, encoded) in stored.contributions {
            let source: SmolStr = source.into();
            let corrupt = || StoreError::Corrupt { what: "a contribution", name: id.clone() };
            let entry = v1::Entry::decode(encoded.as_slice()).map_err(|_| corrupt())?;
            // What was taken once may be refused by newer rules: then it is dropped.
            match prepare(&entry) {
                Ok(prepared) => state.upsert(&source, PUBLISHER_PRECEDENCE, prepared, true),
                Err(_) => state.remove(&source, &id.as_str().into(), true),
            }
            let publisher = publishers.entry(source).or_default();
            publisher.away_since = Some(Instant::now());
            publisher.entries += 1;
        }
        let (commands, receiver) = mpsc::channel(QUEUE);
        let shown = Arc::new(ArcSwap::from_pointee(state.snapshot.clone()));
        let revisions = watch::Sender::new(state.snapshot.revision);
        let health = watch::Sender::new(Health::default());
        let handle = Handle {
            snapshot: Arc::clone(&shown),
            commands,
            revisions: revisions.subscribe(),
            health: health.subscribe(),
            sessions: Arc::default(),
        };
        metrics.catalogue(&state.snapshot);
        let commands = receiver;
        let writer = Self {
            store,
            config,
            state,
            curated: false,
            publishers,
            commands,
            shown,
            revisions,
            health,
            metrics,
        };
        Ok((writer, handle))
    }

    /// Works until `stop`, or until every handle is gone; what was taken by then is stored.
    pub async fn run(mut self, stop: CancellationToken) {
        // Often enough for the shortest time that is configured, and never in a busy loop.
        let shortest = self.config.stale_after.min(self.config.publisher_retention);
        let period = (shortest / 4).clamp(Duration::from_millis(50), Duration::from_secs(30));
        let mut tick = tokio::time::interval(period);
        let mut commands = Vec::with_capacity(BATCH);
        loop {
            let mut done = Vec::new();
            tokio::select! {
                taken = self.commands.recv_many(&mut commands, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    for command in commands.drain(..) {
                        self.take(command, &mut done);
                    }
                }
                _ = tick.tick() => self.housekeeping(),
                () = stop.cancelled() => return,
            }
            if !self.curated {
                continue;
            }
            let batch = self.state.settle(Timestamp::now());
            if !batch.is_empty() && !self.store(&batch, &stop).await {
                return;
            }
            self.show();
            self.tell(done);
        }
    }

    fn take(&mut self, command: Command, done: &mut Vec<oneshot::Sender<Vec<(SmolStr, Refusal)>>>) {
        match command {
            Command::Open { source, session, outcomes } => {
                self.state.set_stale(&source, false);
                let entries = self.state.count(&source);
                let publisher = self.publishers.entry(source).or_default();
                publisher.entries = entries;
                publisher.sequence = 0;
                publisher.full = None;
                publisher.away_since = None;
                if let Some((_, old)) = publisher.session.replace((session, outcomes)) {
                    // Where it does not listen any more it is over anyway.
                    let _ = old.try_send(PublishOutcome::Ended(SessionEnd::Superseded));
                }
            }
            Command::Publish { source, session, sequence, operations } => {
                let Some(publisher) = self.publishers.get_mut(&source) else {
                    return;
                };
                if publisher.session.as_ref().is_none_or(|(open, _)| *open != session) {
                    return;
                }
                publisher.sequence = sequence;
                for operation in operations {
                    operate(&mut self.state, publisher, &source, operation, &self.config);
                }
            }
            Command::Close { source, session } => {
                if let Some(publisher) = self.publishers.get_mut(&source)
                    && publisher.session.as_ref().is_some_and(|(open, _)| *open == session)
                {
                    publisher.session = None;
                    publisher.full = None;
                    publisher.away_since = Some(Instant::now());
                }
            }
            Command::Curated { entries, done: sender } => {
                let source = SmolStr::new_static(CURATED);
                let kept: HashSet<SmolStr> = entries.iter().map(|e| e.id.clone()).collect();
                for id in self.state.ids(CURATED).iter().filter(|id| !kept.contains(*id)) {
                    self.state.remove(&source, id, false);
                }
                for entry in entries {
                    self.state.upsert(&source, CURATED_PRECEDENCE, entry, true);
                }
                self.state.touch_orphans();
                self.curated = true;
                done.push(sender);
            }
        }
    }

    fn housekeeping(&mut self) {
        let mut gone = Vec::new();
        for (source, publisher) in &self.publishers {
            let Some(away) = publisher.away_since.map(|since| since.elapsed()) else {
                continue;
            };
            if away > self.config.publisher_retention {
                gone.push(source.clone());
            } else if away > self.config.stale_after {
                self.state.set_stale(source, true);
            }
        }
        for source in gone {
            tracing::info!(%source, "removing the entries of a publisher that has been away for too long");
            for id in self.state.ids(&source) {
                self.state.remove(&source, &id, true);
            }
            self.publishers.remove(&source);
        }
        if let Ok(before) = Timestamp::now().checked_sub(self.config.deleted_retention) {
            self.state.purge(before);
        }
    }

    /// Stores a batch, trying again for as long as it takes; `false` where `stop` came first.
    async fn store(&self, batch: &Batch, stop: &CancellationToken) -> bool {
        let mut pause = FIRST_RETRY;
        loop {
            let started = Instant::now();
            match self.store.commit(batch).await {
                Ok(()) => {
                    self.metrics.stored(batch.entries.len(), started.elapsed());
                    self.health.send_if_modified(|health| health.store_error.take().is_some());
                    return true;
                }
                Err(error) => {
                    tracing::error!(%error, "the store cannot be written; nothing is acknowledged until it can");
                    self.metrics.store_failed();
                    self.health.send_modify(|h| h.store_error = Some(error.to_string()));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_RETRY),
                () = stop.cancelled() => return false,
            }
        }
    }

    fn show(&self) {
        let snapshot = &self.state.snapshot;
        let shown = self.shown.load();
        if shown.revision != snapshot.revision || shown.compacted != snapshot.compacted {
            self.shown.store(Arc::new(snapshot.clone()));
            self.metrics.catalogue(snapshot);
            self.revisions.send_replace(snapshot.revision);
        }
    }

    /// Acknowledges, and tells what stands against entries.
    fn tell(&mut self, done: Vec<oneshot::Sender<Vec<(SmolStr, Refusal)>>>) {
        let mut news: BTreeMap<SmolStr, Vec<(SmolStr, Option<Refusal>)>> = self.state.take_news();
        let curated = news.remove(CURATED).unwrap_or_default();
        let refused: Vec<(SmolStr, Refusal)> =
            curated.into_iter().filter_map(|(id, refusal)| Some((id, refusal?))).collect();
        for sender in done {
            // Who asked may have gone.
            let _ = sender.send(refused.clone());
        }
        for (source, publisher) in &mut self.publishers {
            let news = news.remove(source);
            let Some((_, outcomes)) = &publisher.session else {
                continue;
            };
            let (mut refused, mut resolved) = (Vec::new(), Vec::new());
            for (id, refusal) in news.into_iter().flatten() {
                match refusal {
                    Some(refusal) => refused.push((id, refusal)),
                    None => resolved.push(id),
                }
            }
            let sequence = publisher.sequence;
            let outcome = PublishOutcome::Durable { sequence, refused, resolved };
            if outcomes.try_send(outcome).is_err() {
                // It is gone, or does not read: the publisher opens another one.
                publisher.session = None;
                publisher.full = None;
                publisher.away_since = Some(Instant::now());
            }
        }
        let connected = self.publishers.values().filter(|p| p.session.is_some()).count();
        self.metrics.publishers(connected);
    }
}

fn operate(
    state: &mut State,
    publisher: &mut Publisher,
    source: &SmolStr,
    operation: Operation,
    config: &Config,
) {
    match operation {
        Operation::Begin => publisher.full = Some(HashSet::new()),
        Operation::Upsert(id, entry) => {
            if let Some(full) = &mut publisher.full {
                full.insert(id.clone());
            }
            match *entry {
                Ok(_) if publisher.entries >= config.max_entries && !state.has(source, &id) => {
                    let message = format!(
                        "The publisher has {} entries, which is the most this registry takes. Raise --max-entries.",
                        config.max_entries
                    );
                    state.refuse(source, &id, Refusal::new("TooManyEntries", message));
                }
                Ok(prepared) => {
                    publisher.entries += usize::from(!state.has(source, &id));
                    state.upsert(source, PUBLISHER_PRECEDENCE, prepared, false);
                }
                Err(refusal) => {
                    publisher.entries -= usize::from(state.has(source, &id)).min(publisher.entries);
                    state.refuse(source, &id, refusal);
                }
            }
        }
        Operation::Remove(id) => {
            publisher.entries -= usize::from(state.has(source, &id)).min(publisher.entries);
            state.remove(source, &id, true);
        }
        Operation::End => {
            let Some(full) = publisher.full.take() else {
                return;
            };
            for id in state.ids(source).iter().filter(|id| !full.contains(*id)) {
                publisher.entries = publisher.entries.saturating_sub(1);
                state.remove(source, id, true);
            }
        }
    }
}
