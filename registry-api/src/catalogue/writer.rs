//! The one task that changes the catalogue.
//!
//! Commands come through one bounded channel: who publishes faster than the store writes, waits.
//! Everything that is waiting becomes one batch: merged, stored, then shown, then acknowledged.

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

use super::diagnostics::{Diagnostics, MAX_LISTED, SourceDiagnostics};
use super::handle::{
    Command, Edit, EditError, Handle, Health, Operation, PublishOutcome, Refused, Registries,
    Registry, SessionEnd, SessionId,
};
use super::layout::{Layout, RegistryRule, is_publisher};
use super::merging::{Origin, State};
use super::prepared::{Prepared, Refusal, decode};
use super::served::Served;
use super::snapshot::Snapshot;
use crate::metrics::Metrics;
use crate::store::{
    Batch, ContributionChange, Foreign, Owner, Store, StoreError, StoredRegistry, Transaction,
};

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
            let registry = registry.unwrap_or_else(|| StoredRegistry {
                revision: if fresh { 0 } else { first_revision() },
                compacted: if fresh { 0 } else { first_revision() },
                ..StoredRegistry::default()
            });
            let epoch = epoch_of(&epoch, &rule.name);
            let mut snapshot = Snapshot::new(epoch, registry.revision, registry.compacted);
            for e in registry.entries {
                let served = Served::new(e.key, &e.server, e.official, e.revision, e.stale);
                snapshot.insert(Arc::new(served));
            }
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
            } else if !writer.layout.sources.contains_key(&source) {
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
        writer.batch.dropped.extend(stored.registries.into_keys());
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
                    self.show(waiting);
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
        self.adopt(foreign);
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

    /// Takes in what others have written.
    async fn catch_up(&mut self) -> Result<(), StoreError> {
        let foreign = self.store.foreign(self.sequence).await?;
        self.adopt(foreign);
        Ok(())
    }

    fn adopt(&mut self, foreign: Foreign) {
        if foreign.sequence == self.sequence && !foreign.reset {
            return;
        }
        self.sequence = foreign.sequence;
        if let Some(batch) = self.unstored.take() {
            // It was merged without knowing of this.
            for view in &mut self.views {
                let changes = batch.registries.get(view.rule.name.as_str());
                let names = changes.into_iter().flat_map(|changes| {
                    let entries = changes.entries.iter().map(|entry| entry.key.name.clone());
                    entries.chain(changes.purged.iter().map(|key| key.name.clone()))
                });
                view.state.roll_back((*view.shown.snapshot()).clone(), names);
            }
            self.batch.contributions = batch.contributions;
            self.batch.dropped = batch.dropped;
            self.batch.owners = batch.owners;
        }
        let before = Timestamp::now().checked_sub(self.config.deleted_retention);
        for view in &mut self.views {
            let registry = foreign.registries.get(view.rule.name.as_str());
            if foreign.reset {
                let kept = registry.map_or((0, 0), |r| (r.revision, r.compacted));
                let epoch = epoch_of(&self.epoch, &view.rule.name);
                let names = view.state.snapshot.live().map(|s| s.key.name.clone());
                let names: Vec<SmolStr> = names.collect();
                let snapshot = Snapshot::new(epoch, kept.0, kept.1);
                view.state.roll_back(snapshot, names.into_iter());
            }
            let Some(registry) = registry else { continue };
            for e in &registry.entries {
                let official = e.official.clone();
                let served = Served::new(e.key.clone(), &e.server, official, e.revision, e.stale);
                view.state.adopt(served);
            }
            if let Ok(before) = before
                && registry.compacted > view.state.snapshot.compacted
            {
                view.state.forget(before, registry.compacted);
            }
        }
        if foreign.reset {
            let kept: HashSet<(&str, &str)> =
                foreign.contributions.iter().map(|c| (&*c.source, &*c.id)).collect();
            let known = self.contributions.iter();
            let gone: Vec<Origin> = known
                .flat_map(|(source, of)| of.keys().map(move |id| (source.clone(), id.clone())))
                .filter(|(source, id)| !kept.contains(&(source.as_str(), id.as_str())))
                .collect();
            for (source, id) in gone {
                self.drop_contribution(&source, &id);
            }
        }
        for change in foreign.contributions {
            let (source, id) = (SmolStr::from(change.source), SmolStr::from(change.id));
            let decoded = change.entry.map(|encoded| decode(&source, &encoded));
            match decoded {
                Some(Ok(Ok(prepared))) => self.insert(&source, prepared, true),
                Some(Ok(Err(refusal))) => {
                    tracing::warn!(%source, entry = %id, "another replica has taken what this one does not: {}", refusal.message);
                }
                Some(Err(error)) => {
                    tracing::error!(%source, entry = %id, %error, "a contribution cannot be read");
                }
                None => {
                    self.drop_contribution(&source, &id);
                }
            }
        }
        for owner in foreign.owners {
            self.own(&owner);
        }
    }

    /// Takes in which replica has the session of a publisher.
    fn own(&mut self, owner: &Owner) {
        if owner.owner == self.replica {
            return;
        }
        let away = Timestamp::now().duration_since(owner.seen);
        let away = Duration::try_from(away).unwrap_or_default();
        let now = Instant::now();
        let publisher = self.publishers.entry(SmolStr::from(owner.source.as_str())).or_default();
        publisher.away_since = Some(now.checked_sub(away).unwrap_or(now));
        publisher.full = None;
        if let Some((_, old)) = publisher.session.take() {
            let _ = old.try_send(PublishOutcome::Ended(SessionEnd::Superseded));
        }
        if away < self.config.stale_after {
            self.set_stale(&SmolStr::from(owner.source.as_str()), false);
        }
    }

    /// Says that the session of a publisher is here.
    fn claim(&mut self, source: &SmolStr) {
        if S::SHARED {
            let (source, owner) = (source.to_string(), self.replica.clone());
            self.batch.owners.retain(|owner| owner.source != source);
            self.batch.owners.push(Owner { source, owner, seen: Timestamp::now() });
        }
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

    fn take(&mut self, command: Command, waiting: &mut Waiting) {
        match command {
            Command::Open { source, session, outcomes } => {
                self.set_stale(&source, false);
                let entries = self.count(&source);
                let claimed = source.clone();
                let publisher = self.publishers.entry(source).or_default();
                publisher.entries = entries;
                publisher.sequence = 0;
                publisher.full = None;
                publisher.away_since = None;
                if let Some((_, old)) = publisher.session.replace((session, outcomes)) {
                    // Where it does not listen any more it is over anyway.
                    let _ = old.try_send(PublishOutcome::Ended(SessionEnd::Superseded));
                }
                self.claim(&claimed);
            }
            Command::Publish { source, session, sequence, operations } => {
                let Some(mut publisher) = self.publishers.remove(&source) else {
                    return;
                };
                if publisher.session.as_ref().is_some_and(|(open, _)| *open == session) {
                    publisher.sequence = sequence;
                    for operation in operations {
                        self.operate(&mut publisher, &source, operation);
                    }
                }
                self.publishers.insert(source, publisher);
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
            Command::Replace { source, entries, done } => {
                let kept: HashSet<SmolStr> = entries.iter().map(|e| e.id.clone()).collect();
                for id in self.ids(&source).iter().filter(|id| !kept.contains(*id)) {
                    self.remove(&source, id);
                }
                for entry in entries {
                    self.insert(&source, entry, false);
                }
                waiting.refused.push((source, done));
            }
            Command::Edit { source, edit, done } => match self.edit(&source, edit) {
                Ok(()) => waiting.edits.push(done),
                // Who asked may have gone.
                Err(error) => drop(done.send(Err(error))),
            },
            Command::Configure { layout, done } => {
                self.configure(layout);
                waiting.others.push(done);
            }
            Command::Start { done } => {
                self.started = true;
                for view in &mut self.views {
                    view.state.touch_orphans();
                }
                waiting.others.push(done);
            }
        }
    }

    fn ids(&self, source: &str) -> Vec<SmolStr> {
        self.contributions.get(source).map(|of| of.keys().cloned().collect()).unwrap_or_default()
    }

    fn count(&self, source: &str) -> usize {
        self.contributions.get(source).map_or(0, HashMap::len)
    }

    fn has(&self, source: &str, id: &str) -> bool {
        self.contributions.get(source).is_some_and(|of| of.contains_key(id))
    }

    /// Takes a contribution in; `stored` where it is in the store already.
    fn insert(&mut self, source: &SmolStr, mut entry: Prepared, stored: bool) {
        let encoded = std::mem::take(&mut entry.encoded);
        self.route(source, &entry);
        let of = self.contributions.entry(source.clone()).or_default();
        if of.get(&entry.id) == Some(&entry) {
            return;
        }
        if !stored {
            self.batch.contributions.push(ContributionChange {
                source: source.to_string(),
                id: entry.id.to_string(),
                entry: Some(encoded),
            });
        }
        of.insert(entry.id.clone(), entry);
    }

    /// Hands a contribution to the registries that show it.
    fn route(&mut self, source: &SmolStr, entry: &Prepared) {
        let origin = (source.clone(), entry.id.clone());
        self.retell.insert(origin.clone());
        match self.layout.misdirected(source, entry) {
            Some(refusal) => self.refusals.insert(origin, refusal),
            None => self.refusals.remove(&origin),
        };
        for view in &mut self.views {
            match self.layout.precedence(&view.rule, source, entry) {
                Some(precedence) => {
                    view.state.upsert(source, precedence, entry, view.rule.remotes);
                }
                None => view.state.remove(source, &entry.id),
            }
        }
    }

    fn remove(&mut self, source: &SmolStr, id: &SmolStr) {
        if self.drop_contribution(source, id) {
            self.forget(source, id);
        }
    }

    /// Takes a contribution out; tells whether it was there.
    fn drop_contribution(&mut self, source: &SmolStr, id: &SmolStr) -> bool {
        let origin = (source.clone(), id.clone());
        self.retell.insert(origin.clone());
        self.refusals.remove(&origin);
        for view in &mut self.views {
            view.state.remove(source, id);
        }
        let of = self.contributions.get_mut(source);
        of.is_some_and(|of| of.remove(id).is_some())
    }

    /// Takes a contribution out of the store.
    fn forget(&mut self, source: &SmolStr, id: &SmolStr) {
        self.batch.contributions.push(ContributionChange {
            source: source.to_string(),
            id: id.to_string(),
            entry: None,
        });
    }

    /// Notes that an entry was refused before it got here: what was there under its id is gone.
    fn refuse(&mut self, source: &SmolStr, id: &SmolStr, refusal: Refusal) {
        self.remove(source, id);
        self.refusals.insert((source.clone(), id.clone()), refusal);
    }

    fn set_stale(&mut self, source: &SmolStr, stale: bool) {
        for view in &mut self.views {
            view.state.set_stale(source, stale);
        }
    }

    /// Makes the registries what a new layout says. What they served keeps its times and revisions.
    fn configure(&mut self, layout: Layout) {
        let mut old: HashMap<SmolStr, View> =
            self.views.drain(..).map(|view| (view.rule.name.clone(), view)).collect();
        self.layout = layout;
        for rule in &self.layout.registries {
            self.views.push(match old.remove(&rule.name) {
                Some(view) => {
                    let snapshot = view.state.snapshot;
                    let shown = Arc::new(Registry {
                        name: rule.name.clone(),
                        rule: rule.clone(),
                        snapshot: ArcSwap::new(view.shown.snapshot()),
                        revisions: view.revisions.subscribe(),
                    });
                    let state = State::new(snapshot);
                    View { rule: rule.clone(), state, shown, revisions: view.revisions }
                }
                None => {
                    let (epoch, revision) = (epoch_of(&self.epoch, &rule.name), first_revision());
                    View::new(rule.clone(), Snapshot::new(epoch, revision, revision))
                }
            });
        }
        for name in old.into_keys() {
            self.metrics.forget(&name);
            self.batch.dropped.push(name.to_string());
        }
        let gone: Vec<SmolStr> = self
            .contributions
            .keys()
            .filter(|source| !is_publisher(source) && !self.layout.sources.contains_key(*source))
            .cloned()
            .collect();
        for source in gone {
            for id in self.ids(&source) {
                self.remove(&source, &id);
            }
            self.contributions.remove(&source);
        }
        let contributions = std::mem::take(&mut self.contributions);
        for (source, of) in &contributions {
            for entry in of.values() {
                self.route(source, entry);
            }
        }
        self.contributions = contributions;
        let away: Vec<SmolStr> = self
            .publishers
            .iter()
            .filter(|(_, p)| p.away_since.is_some_and(|s| s.elapsed() > self.config.stale_after))
            .map(|(source, _)| source.clone())
            .collect();
        for source in away {
            self.set_stale(&source, true);
        }
        for view in &mut self.views {
            view.state.touch_orphans();
        }
        if let Some(all) = registries(&self.layout, &self.views) {
            self.registries.store(Arc::new(all));
        }
    }

    fn edit(&mut self, source: &SmolStr, edit: Edit) -> Result<(), EditError> {
        match edit {
            Edit::Publish(entry) if self.has(source, &entry.id) => {
                Err(EditError::Exists(format!("{} {}", entry.name, entry.version)))
            }
            Edit::Publish(_) if self.count(source) >= self.config.max_entries => {
                Err(EditError::TooMany(self.config.max_entries))
            }
            Edit::Publish(entry) => {
                self.insert(source, *entry, false);
                Ok(())
            }
            Edit::Replace(entry) => {
                let of = self.contributions.get(source);
                let Some(old) = of.and_then(|of| of.get(&entry.id)) else {
                    return Err(EditError::NotFound(format!("{} {}", entry.name, entry.version)));
                };
                let (status, message) = old.status.clone();
                self.insert(source, entry.with_status(status, message), false);
                Ok(())
            }
            Edit::SetStatus { name, version, status, message } => {
                let of = self.contributions.get(source).into_iter().flat_map(HashMap::values);
                let meant = |entry: &&Prepared| {
                    entry.name == name && version.as_ref().is_none_or(|v| *v == entry.version)
                };
                let entries: Vec<Prepared> = of.filter(meant).cloned().collect();
                if entries.is_empty() {
                    let version = version.map(|v| format!(" {v}")).unwrap_or_default();
                    return Err(EditError::NotFound(format!("{name}{version}")));
                }
                if entries.iter().all(|e| e.status.0 == status && e.status.1 == message) {
                    return Err(EditError::NoChange(status.as_str()));
                }
                for entry in entries {
                    self.insert(source, entry.with_status(status, message.clone()), false);
                }
                Ok(())
            }
        }
    }

    fn housekeeping(&mut self) {
        let here = self.publishers.iter().filter(|(_, publisher)| publisher.session.is_some());
        let here: Vec<SmolStr> = here.map(|(source, _)| source.clone()).collect();
        for source in here {
            self.claim(&source);
        }
        let (mut gone, mut stale) = (Vec::new(), Vec::new());
        for (source, publisher) in &self.publishers {
            let Some(away) = publisher.away_since.map(|since| since.elapsed()) else {
                continue;
            };
            if away > self.config.publisher_retention {
                gone.push(source.clone());
            } else if away > self.config.stale_after {
                stale.push(source.clone());
            }
        }
        for source in stale {
            self.set_stale(&source, true);
        }
        for source in gone {
            tracing::info!(%source, "removing the entries of a publisher that has been away for too long");
            for id in self.ids(&source) {
                self.remove(&source, &id);
            }
            self.contributions.remove(&source);
            self.publishers.remove(&source);
        }
        if let Ok(before) = Timestamp::now().checked_sub(self.config.deleted_retention) {
            for view in &mut self.views {
                view.state.purge(before);
            }
        }
    }

    /// What stands against a contribution in any registry.
    fn refusal(&self, origin: &Origin) -> Option<Refusal> {
        let shared = self.refusals.get(origin);
        shared.or_else(|| self.views.iter().find_map(|view| view.state.refusal(origin))).cloned()
    }

    /// Acknowledges, and tells what stands against entries; tells whether that may have changed.
    fn tell(&mut self, waiting: Waiting) -> bool {
        let mut origins = std::mem::take(&mut self.retell);
        for view in &mut self.views {
            origins.append(&mut view.state.take_retell());
        }
        let any = !origins.is_empty();
        let mut news: BTreeMap<SmolStr, Vec<(SmolStr, Option<Refusal>)>> = BTreeMap::new();
        for origin in origins {
            let refusal = self.refusal(&origin);
            news.entry(origin.0).or_default().push((origin.1, refusal));
        }
        // Who asked may have gone.
        for (source, done) in waiting.refused {
            let of = news.get(&source).into_iter().flatten();
            let refused = of.filter_map(|(id, refusal)| Some((id.clone(), refusal.clone()?)));
            let _ = done.send(refused.collect());
        }
        for done in waiting.edits {
            let _ = done.send(Ok(()));
        }
        for done in waiting.others {
            let _ = done.send(());
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
        any
    }

    /// Brings the diagnostics up to date, in a storm now and then.
    fn diagnose(&mut self, changed: bool) {
        self.undiagnosed |= changed;
        if !self.undiagnosed || self.diagnosed.elapsed() < DIAGNOSE {
            return;
        }
        self.undiagnosed = false;
        self.diagnosed = Instant::now();
        let mut sources: BTreeMap<SmolStr, SourceDiagnostics> = BTreeMap::new();
        for (source, of) in &self.contributions {
            let publisher = self.publishers.get(source);
            let away = publisher.and_then(|publisher| publisher.away_since);
            let stale = away.is_some_and(|since| since.elapsed() > self.config.stale_after);
            let of = SourceDiagnostics { entries: of.len(), stale, ..Default::default() };
            sources.insert(source.clone(), of);
        }
        let shared =
            self.refusals.iter().map(|(origin, refusal)| (SmolStr::default(), origin, refusal));
        let own = self.views.iter().flat_map(|view| {
            let of = view.state.refusals();
            of.map(|(origin, refusal)| (view.rule.name.clone(), origin, refusal))
        });
        for (registry, (source, id), refusal) in shared.chain(own) {
            let of = sources.entry(source.clone()).or_default();
            of.refused += 1;
            if of.listed.len() < MAX_LISTED {
                of.listed.push((registry, id.clone(), refusal.clone()));
            }
        }
        self.diagnostics.store(Arc::new(Diagnostics { sources }));
    }

    fn operate(&mut self, publisher: &mut Publisher, source: &SmolStr, operation: Operation) {
        match operation {
            Operation::Begin => publisher.full = Some(HashSet::new()),
            Operation::Upsert(id, entry) => {
                if let Some(full) = &mut publisher.full {
                    full.insert(id.clone());
                }
                let known = self.has(source, &id);
                match *entry {
                    Ok(_) if publisher.entries >= self.config.max_entries && !known => {
                        let message = format!(
                            "The publisher has {} entries, which is the most this registry takes. Raise --max-entries.",
                            self.config.max_entries
                        );
                        self.refuse(source, &id, Refusal::new("TooManyEntries", message));
                    }
                    Ok(prepared) => {
                        publisher.entries += usize::from(!known);
                        self.insert(source, prepared, false);
                    }
                    Err(refusal) => {
                        publisher.entries -= usize::from(known).min(publisher.entries);
                        self.refuse(source, &id, refusal);
                    }
                }
            }
            Operation::Remove(id) => {
                publisher.entries -= usize::from(self.has(source, &id)).min(publisher.entries);
                self.remove(source, &id);
            }
            Operation::End => {
                let Some(full) = publisher.full.take() else {
                    return;
                };
                for id in self.ids(source).iter().filter(|id| !full.contains(*id)) {
                    publisher.entries = publisher.entries.saturating_sub(1);
                    self.remove(source, id);
                }
            }
        }
    }
}
