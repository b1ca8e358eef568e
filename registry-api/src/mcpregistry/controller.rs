//! Brings MCPRegistries and what this process serves into step.
//!
//! Each pass looks at all resources: it is pure but for what differs, so a pass in which nothing has
//! changed asks the API server nothing. Whatever may change something (an object, a source, what is
//! served, who leads) wakes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use smol_str::SmolStr;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use waymark_kubernetes::event::{Notice, Poster, Reporter};
use waymark_kubernetes::lease::Leadership;

use super::crd::{DeploymentMode, LogLevel, MCPRegistrySpec, Phase, StorageType};
use super::dedicated::{self, Dedicated};
use super::outcome::{self, Observed, Trouble};
use super::plan::{Plan, plan, registry_name, stored};
use super::resource::{FINALIZER, Resource, difference, is_older, kind};
use super::storage::{self, StorageError};
use super::watch::{Objects, Resources};
use crate::assembly::{Added, AddedSource, Assembly};
use crate::catalogue::Handle;
use crate::config::Fault;
use crate::metrics::Metrics;
use crate::running::Shown;
use crate::source::{self, Cause, Reach, Statuses};

/// Label of objects that belong to an MCPRegistry: its name.
pub(super) const LABEL: &str = "toolhive.stacklok.dev/mcpregistry";
/// Field manager of what the controller applies.
pub(super) const MANAGER: &str = "waymark-registry-api";
/// `reportingController` of Events.
const CONTROLLER: &str = "waymark.dev/registry-api";
/// How long changes may settle.
const SETTLE: Duration = Duration::from_millis(50);
/// How often what is served is counted.
const COUNT: Duration = Duration::from_secs(1);
/// How long cleaning up may fail before the MCPRegistry is let go all the same.
const CLEANUP: Duration = Duration::from_secs(30);
/// How often dedicated Deployments are looked at.
const DEDICATED: Duration = Duration::from_secs(10);
/// Longest that the requests about one MCPRegistry may take.
const REQUESTS: Duration = Duration::from_secs(60);
/// How long to wait after the API server refused.
const REFUSED: Duration = Duration::from_secs(5);

/// Told which registries want more to be logged, by name.
pub type LogLevels = Box<dyn Fn(&BTreeMap<SmolStr, LogLevel>) + Send + Sync>;

/// What the controller is given.
pub struct ControllerConfig {
    /// How the API server is reached.
    pub client: Client,
    /// Namespaces whose MCPRegistries count; all where empty.
    pub namespaces: Vec<SmolStr>,
    /// Prefix of annotations.
    pub prefix: String,
    /// Which addresses their sources may be fetched from.
    pub reach: Reach,
    /// URL under which clients reach REST, for `status.apiEndpoint`.
    pub api_url: Option<String>,
    /// How dedicated Deployments are made; `None`: they are not.
    pub dedicated: Option<Dedicated>,
    /// Whether this process reads sources and writes status.
    pub leadership: Leadership,
    /// Who this process is (`reportingInstance`).
    pub instance: String,
    /// Whether Events are posted.
    pub events: bool,
    /// Told which registries want more to be logged.
    pub log_levels: LogLevels,
}

/// The parts of the process that the controller works on.
pub struct Process {
    /// What it runs.
    pub assembly: Arc<Mutex<Assembly>>,
    /// What it serves.
    pub catalogue: Handle,
    /// How its sources stand, and whether it is ready.
    pub shown: Shown,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
}

type Key = (String, String);

/// What the controller remembers of an MCPRegistry.
#[derive(Debug, Default)]
struct Memory {
    /// UID of the object that it is about: one of the same name may be another.
    uid: Option<String>,
    /// Generation that was planned, and what came of it.
    generation: Option<i64>,
    plan: Option<Plan>,
    faults: Vec<Fault>,
    /// Revision of the registry of which there is a copy, and where that is.
    copied: Option<(u64, super::crd::StorageRefStatus)>,
    /// Whether the copy was asked for.
    restored: bool,
    /// When its Deployment was last looked at, for which generation, and how many of its replicas are
    /// available.
    dedicated: Option<(Instant, Option<i64>, i32)>,
    /// Whether it is known to have no Deployment.
    no_deployment: bool,
    /// Not to be tried again before.
    pause: Option<Instant>,
    trouble: Option<Trouble>,
    /// The copy and the Deployment are not to be tried again before.
    rest: Option<Instant>,
}

/// See the module's documentation.
pub struct Controller {
    config: ControllerConfig,
    process: Process,
    statuses: Statuses,
    resources: BTreeMap<Key, Arc<Resource>>,
    memory: BTreeMap<Key, Memory>,
    listed: bool,
    poster: Poster,
    levels: BTreeMap<SmolStr, LogLevel>,
}

impl Controller {
    /// Has seen nothing yet.
    #[must_use]
    pub fn new(config: ControllerConfig, process: Process) -> Self {
        let reporter = Reporter {
            controller: CONTROLLER,
            instance: config.instance.clone(),
            action: "Sync",
            or_else: "",
        };
        let poster = Poster::new(config.client.clone(), reporter);
        let statuses = process.shown.statuses.clone();
        let (resources, memory) = (BTreeMap::new(), BTreeMap::new());
        let levels = BTreeMap::new();
        Self { config, process, statuses, resources, memory, listed: false, poster, levels }
    }

    /// Works until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut resources =
            Resources::follow(self.config.client.clone(), &self.config.namespaces, stop.clone());
        let mut sources = self.statuses.changes();
        let mut standing = self.config.leadership.standing();
        let mut tick = tokio::time::interval(COUNT);
        loop {
            tokio::select! {
                // Where the watches have ended, `stop` is on its way.
                changed = resources.changed() => if changed.is_err() { return },
                _ = sources.changed() => {}
                _ = standing.changed() => {}
                _ = tick.tick() => {}
                () = stop.cancelled() => return,
            }
            tokio::time::sleep(SETTLE).await;
            sources.mark_unchanged();
            if let Some(objects) = resources.news() {
                self.take(objects);
            }
            tokio::select! {
                () = self.pass() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Takes in what the API server has.
    fn take(&mut self, objects: Objects) {
        self.listed |= objects.listed;
        let mut kept: BTreeSet<Key> = BTreeSet::new();
        for (key, object) in objects.by_key {
            kept.insert(key.clone());
            let known = self.resources.get(&key);
            let newer =
                known.is_none_or(|k| k.object.resource_version() != object.resource_version());
            // What was written last may not have come back yet.
            if newer && !known.is_some_and(|known| is_older(&object, &known.object)) {
                self.resources.insert(key, Arc::new(Resource::of(object)));
            }
        }
        if objects.listed {
            self.resources.retain(|key, _| kept.contains(key));
            self.memory.retain(|key, _| kept.contains(key));
        }
    }

    async fn pass(&mut self) {
        if !self.listed {
            return;
        }
        let leads = self.config.leadership.holds();
        let keys: Vec<Key> = self.resources.keys().cloned().collect();
        let added = self.plan_all(&keys, leads);
        self.log_levels();
        if self.process.assembly.lock().await.add(added).await.is_err() {
            return;
        }
        self.process.shown.not_ready.store(Arc::new(None));
        for key in keys {
            if !self.config.leadership.holds() {
                return;
            }
            let paused = self.memory.get(&key).and_then(|memory| memory.pause);
            if paused.is_some_and(|until| Instant::now() < until) {
                continue;
            }
            let error = match tokio::time::timeout(REQUESTS, self.settle(&key)).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("the API server does not answer within {REQUESTS:?}"),
            };
            let registry = registry_name(&key.0, &key.1);
            tracing::warn!(%registry, error, "the MCPRegistry could not be written; trying again");
            self.memory.entry(key).or_default().pause = Some(Instant::now() + REFUSED);
        }
    }

    /// What all MCPRegistries add. A spec that is not right leaves what there was before.
    fn plan_all(&mut self, keys: &[Key], leads: bool) -> Added {
        let mut added = Added { complete: true, ..Added::default() };
        let asking = self.trigger_key();
        for key in keys {
            let Some(resource) = self.resources.get(key) else { continue };
            if resource.is_deleting() {
                continue;
            }
            let memory = self.memory.entry(key.clone()).or_default();
            let uid = resource.object.uid();
            if memory.uid != uid {
                *memory = Memory { uid, ..Memory::default() };
            }
            let generation = resource.object.metadata.generation;
            if memory.generation != generation || memory.generation.is_none() {
                memory.generation = generation;
                let (namespace, name) = key;
                let planned = match &resource.spec {
                    Ok(spec) => plan(namespace, name, spec, &self.config.reach),
                    Err(error) => {
                        Err(vec![Fault { path: "spec".to_owned(), message: error.clone() }])
                    }
                };
                match planned {
                    Ok(plan) => (memory.plan, memory.faults) = (Some(plan), Vec::new()),
                    Err(faults) => {
                        memory.faults = faults;
                        let kept = memory.plan.take();
                        memory.plan =
                            Some(kept.unwrap_or_else(|| stored(namespace, name, &resource.spec)));
                    }
                }
            }
            let Some(plan) = &memory.plan else { continue };
            let trigger = resource.object.annotations().get(&asking).cloned();
            // A resource whose spec is wrong is left as it is.
            let read = leads && memory.faults.is_empty();
            if let Some(source) = &plan.source {
                let read = read && source.kind.is_read();
                let (source, trigger) = (source.clone(), trigger.clone());
                added.sources.push(AddedSource { source, read, trigger });
            }
            let (source, trigger) = (plan.deployed.clone(), None);
            added.sources.push(AddedSource { source, read: false, trigger });
            added.registries.push(plan.registry.clone());
        }
        added
    }

    fn trigger_key(&self) -> String {
        format!("{}sync-trigger", self.config.prefix)
    }

    fn log_levels(&mut self) {
        let level = |resource: &Arc<Resource>| {
            let level = resource.spec.as_ref().ok()?.log_level?;
            Some((resource.registry.clone(), level))
        };
        let levels: BTreeMap<SmolStr, LogLevel> =
            self.resources.values().filter_map(level).collect();
        if levels != self.levels {
            (self.config.log_levels)(&levels);
            self.levels = levels;
        }
    }

    /// Writes what there is to write of one MCPRegistry.
    async fn settle(&mut self, key: &Key) -> Result<(), kube::Error> {
        let Some(resource) = self.resources.get(key).cloned() else { return Ok(()) };
        if resource.is_deleting() {
            return self.finish(key, &resource).await;
        }
        if !resource.has_finalizer() {
            self.set_finalizer(key, &resource, true).await?;
            return Ok(());
        }
        self.assist(key, &resource).await;
        let observed = self.observe(key, &resource);
        self.write(key, &resource, &observed).await
    }

    /// The copy and the Deployment.
    async fn assist(&mut self, key: &Key, resource: &Resource) {
        let Ok(spec) = &resource.spec else { return };
        let rests = self.memory.get(key).and_then(|memory| memory.rest);
        if rests.is_some_and(|until| Instant::now() < until) {
            return;
        }
        let copied = self.copy(key, resource, spec).await;
        let copied =
            copied.map_err(|error| Trouble { reason: "StorageFailed", message: error.to_string() });
        let deployed = self.deploy(key, resource, spec).await;
        let deployed = deployed.map_err(|message| Trouble { reason: "DeploymentFailed", message });
        let trouble = copied.err().or(deployed.err());
        let memory = self.memory.entry(key.clone()).or_default();
        memory.rest = trouble.is_some().then(|| Instant::now() + REFUSED);
        if let Some(trouble) = trouble.as_ref().filter(|now| memory.trouble.as_ref() != Some(now)) {
            let registry = &resource.registry;
            tracing::warn!(%registry, reason = trouble.reason, "{}; trying again", trouble.message);
        }
        memory.trouble = trouble;
    }

    /// Keeps the copy in step, or takes what it has where there is nothing else.
    async fn copy(
        &mut self,
        key: &Key,
        resource: &Resource,
        spec: &MCPRegistrySpec,
    ) -> Result<(), StorageError> {
        let (client, owner) = (&self.config.client, resource.owner());
        let name = &resource.registry;
        let memory = self.memory.entry(key.clone()).or_default();
        if spec.storage_ref.kind != StorageType::Configmap {
            let known = resource.status.storage_ref.as_ref();
            if known.is_some_and(|known| known.config_map_ref.is_some()) {
                storage::remove(client, &owner).await?;
            }
            memory.copied = None;
            return Ok(());
        }
        let Some(registry) = self.process.catalogue.registry(name) else { return Ok(()) };
        let (snapshot, source) = (registry.snapshot(), self.statuses.get(name));
        // What must not be read must not come back from a copy either.
        let away = source.failure.as_ref().is_some_and(|failure| failure.cause != Cause::Denied);
        if snapshot.is_empty() && away {
            if !memory.restored {
                let entries = storage::read(client, &owner).await?;
                memory.restored = true;
                if !entries.is_empty() {
                    let count = entries.len();
                    tracing::info!(registry = %name, entries = count, "taking what the copy has, because the source cannot be read");
                    // Where the process is shutting down it is not needed.
                    let _ = self.process.catalogue.replace(name.clone(), entries).await;
                }
            }
        } else if source.phase == source::Phase::Complete
            && memory.copied.as_ref().is_none_or(|(at, _)| *at != snapshot.generation())
        {
            let storage = storage::write(client, &owner, &snapshot).await?;
            memory.copied = Some((snapshot.generation(), storage));
        }
        Ok(())
    }

    /// Keeps the Deployment in step.
    async fn deploy(
        &mut self,
        key: &Key,
        resource: &Resource,
        spec: &MCPRegistrySpec,
    ) -> Result<(), String> {
        let (client, owner) = (&self.config.client, resource.owner());
        let name = &resource.registry;
        let memory = self.memory.entry(key.clone()).or_default();
        match (spec.deployment.mode, &self.config.dedicated) {
            (DeploymentMode::Dedicated, Some(dedicated)) => {
                memory.no_deployment = false;
                let looked = memory.dedicated.as_ref();
                // Another generation may want another Deployment.
                let due = looked.is_none_or(|(at, generation, _)| {
                    at.elapsed() >= DEDICATED || *generation != memory.generation
                });
                if due {
                    let applied =
                        dedicated::apply(client, &owner, &spec.deployment, dedicated, name).await;
                    let available = applied.map_err(|error| error.to_string())?;
                    memory.dedicated = Some((Instant::now(), memory.generation, available));
                }
                Ok(())
            }
            (DeploymentMode::Dedicated, None) => {
                Err("this controller makes no dedicated Deployments: it was given no --dedicated-image and --dedicated-upstream".to_owned())
            }
            (DeploymentMode::Shared, Some(_)) if !memory.no_deployment => {
                memory.dedicated = None;
                dedicated::remove(client, &owner).await.map_err(|error| error.to_string())?;
                memory.no_deployment = true;
                Ok(())
            }
            (DeploymentMode::Shared, _) => Ok(()),
        }
    }

    fn observe(&self, key: &Key, resource: &Resource) -> Observed {
        let name = &resource.registry;
        let registry = self.process.catalogue.registry(name);
        let snapshot = registry.map(|registry| registry.snapshot());
        let memory = self.memory.get(key);
        let reads =
            memory.and_then(|memory| memory.plan.as_ref()).is_some_and(|p| p.source.is_some());
        let dedicated = memory.and_then(|memory| memory.dedicated.as_ref());
        let shared = self.config.api_url.as_ref();
        let shared = shared.map(|url| format!("{}/registry/{name}", url.trim_end_matches('/')));
        Observed {
            generation: resource.object.metadata.generation,
            trigger: resource.object.annotations().get(&self.trigger_key()).cloned(),
            faults: memory.map(|memory| memory.faults.clone()).unwrap_or_default(),
            source: reads.then(|| self.statuses.get(name)),
            servers: snapshot.as_ref().map_or(0, |snapshot| snapshot.len()),
            deployed: snapshot.as_ref().map_or(0, |snapshot| snapshot.deployed()),
            endpoint: match dedicated {
                Some((_, _, 1..)) => Some(dedicated::endpoint(&resource.owner())),
                _ => shared,
            },
            storage: memory
                .and_then(|memory| memory.copied.as_ref())
                .map(|(_, storage)| storage.clone())
                .or_else(|| {
                    let configmap = resource
                        .spec
                        .as_ref()
                        .is_ok_and(|s| s.storage_ref.kind == StorageType::Configmap);
                    if configmap {
                        resource.status.storage_ref.clone()
                    } else {
                        Some(super::crd::StorageRefStatus::default())
                    }
                }),
            deleting: resource.is_deleting(),
            trouble: memory.and_then(|memory| memory.trouble.clone()),
        }
    }

    /// Writes the status where it is another, and tells what changed.
    async fn write(
        &mut self,
        key: &Key,
        resource: &Resource,
        observed: &Observed,
    ) -> Result<(), kube::Error> {
        let new = outcome::status(&resource.status, observed, Timestamp::now());
        let Some(patch) = difference(resource.object.data.get("status"), &new) else {
            return Ok(());
        };
        let written = self
            .api(&key.0)
            .patch_status(&key.1, &params(), &Patch::Merge(&json!({"status": patch})))
            .await;
        self.process.metrics.status_written();
        match written {
            Ok(object) => {
                self.resources.insert(key.clone(), Arc::new(Resource::of(object)));
            }
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(error) => return Err(error),
        }
        if self.config.events {
            let regarding = resource.reference();
            let number = u32::try_from(Timestamp::now().as_second()).unwrap_or_default();
            for (reason, note, warning) in outcome::news(&resource.status, &new) {
                self.poster.post(&regarding, &Notice::new(reason, &note, warning, number)).await;
            }
        }
        Ok(())
    }

    /// Takes a registry down whose MCPRegistry is being deleted. It is not served any more by now.
    async fn finish(&mut self, key: &Key, resource: &Arc<Resource>) -> Result<(), kube::Error> {
        if !resource.has_finalizer() {
            return Ok(());
        }
        if resource.status.phase != Phase::Terminating {
            let observed = self.observe(key, resource);
            self.write(key, resource, &observed).await?;
        }
        let (client, owner) = (&self.config.client, resource.owner());
        let removed = async {
            storage::remove(client, &owner).await.map_err(|error| error.to_string())?;
            if self.config.dedicated.is_some() {
                dedicated::remove(client, &owner).await.map_err(|error| error.to_string())?;
            }
            Ok::<(), String>(())
        };
        if let Err(error) = removed.await {
            let since = resource.object.metadata.deletion_timestamp.as_ref().map(|at| at.0);
            let took = since.map(|since| Timestamp::now().duration_since(since));
            let took = took.and_then(|took| Duration::try_from(took).ok()).unwrap_or_default();
            let registry = &resource.registry;
            if took < CLEANUP {
                tracing::warn!(%registry, "{error}; trying again");
                self.memory.entry(key.clone()).or_default().pause = Some(Instant::now() + REFUSED);
                return Ok(());
            }
            tracing::error!(%registry, "{error}; the MCPRegistry is let go all the same, its objects have to be removed by hand");
        }
        let current = self.resources.get(key).cloned().unwrap_or_else(|| Arc::clone(resource));
        self.set_finalizer(key, &current, false).await
    }

    /// Adds or removes the finalizer; where somebody else wrote meanwhile, the next pass does.
    async fn set_finalizer(
        &mut self,
        key: &Key,
        resource: &Resource,
        wanted: bool,
    ) -> Result<(), kube::Error> {
        let others = resource.object.finalizers().iter().filter(|f| *f != FINALIZER).cloned();
        let finalizers: Vec<String> = others.chain(wanted.then(|| FINALIZER.to_owned())).collect();
        let patch = json!({"metadata": {
            "resourceVersion": resource.object.resource_version(), "finalizers": finalizers}});
        match self.api(&key.0).patch(&key.1, &params(), &Patch::Merge(&patch)).await {
            Ok(object) => {
                if wanted {
                    self.resources.insert(key.clone(), Arc::new(Resource::of(object)));
                } else {
                    self.resources.remove(key);
                }
                Ok(())
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn api(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.config.client.clone(), namespace, &kind())
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}
