//! The one task that changes the catalogue.
//!
//! Commands come through one bounded channel: who publishes faster than the store writes, waits.
//! Everything that is waiting becomes one batch: merged, stored, then shown, then acknowledged.

mod commands;
mod contributions;
mod outcomes;
mod sharing;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use smol_str::SmolStr;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::catalogue::diagnostics::Diagnostics;
use crate::catalogue::handle::{
    Command, EditError, Handle, Health, PublishOutcome, Refused, Registries, Registry, SessionEnd,
    SessionId,
};
use crate::catalogue::layout::{Layout, RegistryRule, is_publisher};
use crate::catalogue::merging::{Origin, State};
use crate::catalogue::prepared::{Prepared, Refusal, decode};
use crate::catalogue::served::Served;
use crate::catalogue::snapshot::Snapshot;
use crate::metrics::Metrics;
use crate::store::{Batch, Store, StoreError, StoredRegistry, Transaction};

/// How often the diagnostics are made anew in a storm.
const DIAGNOSE: Duration = Duration::from_millis(200);
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

/// A registry that the writer keeps.
struct View {
    rule: RegistryRule,
    state: State,
    shown: Arc<Registry>,
    revisions: watch::Sender<u64>,
}

impl View {
    fn new(rule: RegistryRule, snapshot: Snapshot) -> Self {
        let revisions = watch::Sender::new(snapshot.revision);
        let shown = Arc::new(Registry {
            name: rule.name.clone(),
            rule: rule.clone(),
            snapshot: ArcSwap::from_pointee(snapshot.clone()),
            revisions: revisions.subscribe(),
        });
        Self { rule, state: State::new(snapshot), shown, revisions }
    }

    fn show(&self, metrics: &Metrics) {
        let snapshot = &self.state.snapshot;
        let shown = self.shown.snapshot.load();
        if shown.revision != snapshot.revision || shown.compacted != snapshot.compacted {
            self.shown.snapshot.store(Arc::new(snapshot.clone()));
            metrics.catalogue(&self.rule.name, snapshot);
            self.revisions.send_replace(snapshot.revision);
        }
    }
}

/// The task's own state. See the module's documentation.
pub struct Writer<S> {
    store: S,
    /// Who this process is among those that share the store.
    replica: String,
    /// Number of the last commit that is taken in.
    sequence: u64,
    /// What could not be stored yet.
    unstored: Option<Batch>,
    config: Config,
    layout: Layout,
    epoch: Arc<str>,
    /// What every source contributes, by source and id.
    contributions: HashMap<SmolStr, HashMap<SmolStr, Prepared>>,
    /// What stands against contributions in all registries alike.
    refusals: HashMap<Origin, Refusal>,
    retell: BTreeSet<Origin>,
    views: Vec<View>,
    /// Registries that are stored, while it is not known whether they are configured.
    kept: BTreeMap<String, StoredRegistry>,
    /// What has to become durable beside what the registries serve.
    batch: Batch,
    /// Whether all sources were loaded; see [`Handle::start`].
    started: bool,
    publishers: HashMap<SmolStr, Publisher>,
    commands: mpsc::Receiver<Command>,
    registries: Arc<ArcSwap<Registries>>,
    diagnostics: Arc<ArcSwap<Diagnostics>>,
    diagnosed: Instant,
    undiagnosed: bool,
    health: watch::Sender<Health>,
    metrics: Arc<Metrics>,
}

/// Who waits for a batch to be durable.
#[derive(Default)]
struct Waiting {
    refused: Vec<(SmolStr, Refused)>,
    edits: Vec<oneshot::Sender<Result<(), EditError>>>,
    others: Vec<oneshot::Sender<()>>,
}

/// Identity of one registry's history.
fn epoch_of(epoch: &str, registry: &str) -> Arc<str> {
    format!("{epoch}.{registry}").into()
}

/// The first revision of a registry that is added to others: past all that an earlier one of the
/// same name can have had, so that no token of that can be taken for one of this.
fn first_revision() -> u64 {
    u64::try_from(Timestamp::now().as_microsecond()).unwrap_or_default()
}

/// What is stored of a registry; the beginning of one where nothing is, the very first where the
/// store is fresh.
fn stored_snapshot(
    epoch: &str,
    name: &str,
    stored: Option<StoredRegistry>,
    fresh: bool,
) -> Snapshot {
    let registry = stored.unwrap_or_else(|| StoredRegistry {
        revision: if fresh { 0 } else { first_revision() },
        compacted: if fresh { 0 } else { first_revision() },
        ..StoredRegistry::default()
    });
    let mut snapshot = Snapshot::new(epoch_of(epoch, name), registry.revision, registry.compacted);
    for e in registry.entries {
        let served = Served::new(e.key, &e.server, e.official, e.revision, e.stale);
        snapshot.insert(Arc::new(served));
    }
    snapshot
}

fn registries(layout: &Layout, views: &[View]) -> Option<Registries> {
    let all = views.iter().map(|view| (view.rule.name.clone(), Arc::clone(&view.shown)));
    let by_name: BTreeMap<SmolStr, Arc<Registry>> = all.collect();
    let default = by_name.get(&layout.default_registry()).cloned()?;
    Some(Registries { default, by_name })
}

impl<S: Store> Writer<S> {
    /// Loads the catalogue from its store.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn load(
        store: S,
        config: Config,
        layout: Layout,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Handle), StoreError> {
        let mut stored = store.load().await?;
        let epoch: Arc<str> = stored.epoch.into();
        let fresh = stored.registries.is_empty();
        let mut views = Vec::with_capacity(layout.registries.len());
        for rule in &layout.registries {
            let registry = stored.registries.remove(rule.name.as_str());
            let snapshot = stored_snapshot(&epoch, &rule.name, registry, fresh);
            metrics.catalogue(&rule.name, &snapshot);
            views.push(View::new(rule.clone(), snapshot));
        }
        let all = registries(&layout, &views)
            .ok_or(StoreError::Corrupt { what: "a layout", name: "no registry".to_owned() })?;
        let (commands, receiver) = mpsc::channel(QUEUE);
        let health = watch::Sender::new(Health::default());
        let handle = Handle {
            registries: Arc::new(ArcSwap::from_pointee(all)),
            diagnostics: Arc::default(),
            commands,
            health: health.subscribe(),
            sessions: Arc::default(),
        };
        let mut writer = Self {
            store,
            replica: Uuid::new_v4().to_string(),
            sequence: stored.sequence,
            unstored: None,
            config,
            layout,
            epoch,
            contributions: HashMap::new(),
            refusals: HashMap::new(),
            retell: BTreeSet::new(),
            views,
            kept: BTreeMap::new(),
            batch: Batch::default(),
            started: false,
            publishers: HashMap::new(),
            commands: receiver,
            registries: Arc::clone(&handle.registries),
            diagnostics: Arc::clone(&handle.diagnostics),
            diagnosed: Instant::now(),
            undiagnosed: true,
            health,
            metrics,
        };
        for owner in stored.owners {
            writer.own(&owner);
        }
        for (source, id, encoded) in stored.contributions {
            let corrupt = |_| StoreError::Corrupt { what: "a contribution", name: id.clone() };
            let decoded = decode(&source, &encoded).map_err(corrupt)?;
            let source: SmolStr = source.into();
            if is_publisher(&source) {
                let publisher = writer.publishers.entry(source.clone()).or_default();
                publisher.away_since.get_or_insert_with(Instant::now);
            } else if !writer.layout.sources.contains_key(&source)
                && writer.layout.may_forget(&source)
            {
                writer.forget(&source, &id.into());
                continue;
            }
            // What was taken once may be refused by newer rules: then it is dropped.
            match decoded {
                Ok(prepared) => writer.insert(&source, prepared, true),
                Err(_) => writer.forget(&source, &id.into()),
            }
        }
        // Registries that are not configured any more.
        let (gone, kept) =
            stored.registries.into_iter().partition(|(name, _)| writer.layout.may_forget(name));
        let gone: BTreeMap<String, StoredRegistry> = gone;
        writer.batch.dropped.extend(gone.into_keys());
        writer.kept = kept;
        let sources: Vec<SmolStr> = writer.publishers.keys().cloned().collect();
        for source in sources {
            let entries = writer.count(&source);
            if let Some(publisher) = writer.publishers.get_mut(&source) {
                publisher.entries = entries;
            }
        }
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
            let mut waiting = Waiting::default();
            let mut housekeeping = false;
            tokio::select! {
                taken = self.commands.recv_many(&mut commands, BATCH) => if taken == 0 { return },
                _ = tick.tick() => housekeeping = true,
                () = tokio::time::sleep(DIAGNOSE), if self.undiagnosed => {
                    self.diagnose(false);
                    continue;
                }
                changed = self.store.changed() => {
                    let caught_up = match changed {
                        Ok(()) => self.catch_up().await,
                        Err(error) => Err(error),
                    };
                    match caught_up {
                        Ok(()) => self.recovered(),
                        Err(error) => self.failed(&error),
                    }
                    if self.started {
                        self.show(waiting);
                    }
                    continue;
                }
                () = stop.cancelled() => return,
            }
            if !self.write(&mut commands, housekeeping, &mut waiting, &stop).await {
                return;
            }
            if self.started {
                self.show(waiting);
            }
        }
    }

    /// Shows what is durable, and tells who waits for it.
    fn show(&mut self, waiting: Waiting) {
        for view in &self.views {
            view.show(&self.metrics);
        }
        // Refusals alone change nothing that is stored.
        let changed = self.tell(waiting);
        self.diagnose(changed);
    }

    /// Carries out commands and stores what they change, trying again for as long as it takes;
    /// `false` where `stop` came first.
    async fn write(
        &mut self,
        commands: &mut Vec<Command>,
        mut housekeeping: bool,
        waiting: &mut Waiting,
        stop: &CancellationToken,
    ) -> bool {
        let mut pause = FIRST_RETRY;
        loop {
            match self.attempt(commands, &mut housekeeping, waiting).await {
                Ok(()) => {
                    self.recovered();
                    return true;
                }
                Err(error) => self.failed(&error),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_RETRY),
                () = stop.cancelled() => return false,
            }
        }
    }

    async fn attempt(
        &mut self,
        commands: &mut Vec<Command>,
        housekeeping: &mut bool,
        waiting: &mut Waiting,
    ) -> Result<(), StoreError> {
        let started = Instant::now();
        // What others wrote is taken in before, so that commands meet the state that they change.
        let (transaction, foreign) = self.store.begin(self.sequence).await?;
        if self.adopt(foreign) {
            for done in waiting.edits.drain(..) {
                let _ = done.send(Err(EditError::Overtaken));
            }
        }
        if std::mem::take(housekeeping) {
            self.housekeeping();
            self.undiagnosed = true;
        }
        for command in commands.drain(..) {
            self.take(command, waiting);
        }
        if !self.started {
            // Nothing is served of it yet.
            for (_, done) in waiting.refused.drain(..) {
                let _ = done.send(Vec::new());
            }
            return Ok(());
        }
        let batch = match self.unstored.take() {
            Some(batch) => batch,
            None => self.settle(),
        };
        if batch.is_empty() {
            return Ok(());
        }
        match transaction.commit(&batch).await {
            Ok(sequence) => {
                self.sequence = sequence;
                self.metrics.stored(batch.entries(), started.elapsed());
                Ok(())
            }
            Err(error) => {
                self.unstored = Some(batch);
                Err(error)
            }
        }
    }

    fn recovered(&self) {
        self.health.send_if_modified(|health| health.store_error.take().is_some());
    }

    fn failed(&self, error: &StoreError) {
        let text = error.to_string();
        if self.health.borrow().store_error.as_ref() != Some(&text) {
            tracing::error!(
                "{text}; what was there is served, and nothing is acknowledged until it can be stored"
            );
        }
        self.metrics.store_failed();
        self.health.send_modify(|health| health.store_error = Some(text));
    }

    /// Merges everything that was touched; gives what has to become durable.
    fn settle(&mut self) -> Batch {
        let now = Timestamp::now();
        for view in &mut self.views {
            let changes = view.state.settle(now);
            if !changes.is_empty() {
                self.batch.registries.insert(view.rule.name.to_string(), changes);
            }
        }
        std::mem::take(&mut self.batch)
    }
}
