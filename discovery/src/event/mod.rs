//! Kubernetes Events (`events.k8s.io/v1`) on the objects that were annotated: what is published,
//! what changed, and every problem with its remedy. One per change, never again after a restart.
//!
//! The index says which objects changed; after a moment, in which a burst settles, each is compared
//! with what was told of it ([`told::Told`]), and the difference is posted. Events are posted only
//! while this process leads and the registry has everything: they never say "published" before it is
//! so.

mod memory;
pub mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use waymark_kubernetes::event::{Posted, Poster, Reporter};
use waymark_kubernetes::lease::Leadership;

use crate::metrics::Metrics;
use crate::object::Key;
use crate::problem::Code;
use crate::publisher::Status;
use crate::shared::SharedIndex;
use crate::source::cluster::versions;
use memory::Memory;
use told::Told;

/// `reportingController` of all Events.
const CONTROLLER: &str = "waymark.dev/discovery";
/// How long changes may settle before they are told.
const SETTLE: Duration = Duration::from_secs(1);
/// How many times an object that waits for its Gateway's controller is left alone.
const PATIENCE: u8 = 8;
/// How often at most what was told is written down.
const SAVE: Duration = Duration::from_secs(5);
/// How long to wait after the API server refused.
const REFUSED: Duration = Duration::from_secs(30);
const FAILED: Duration = Duration::from_secs(2);

/// Posts Events about the objects of an index.
pub struct Recorder {
    /// How the API server is reached.
    pub client: Client,
    /// The index.
    pub shared: Arc<SharedIndex>,
    /// Only a leader posts.
    pub leadership: Leadership,
    /// How publishing stands.
    pub published: watch::Receiver<Status>,
    /// Namespace of the ConfigMaps in which is kept what was told.
    pub namespace: String,
    /// Their name, to which a number is added.
    pub name: String,
    /// Who this process is (`reportingInstance`).
    pub instance: String,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
}

impl Recorder {
    /// Posts Events until `stop`, whenever this process leads.
    pub async fn run(self, stop: CancellationToken) {
        self.shared.record_objects();
        let mut memory = Memory::new(self.client.clone(), &self.namespace, &self.name);
        loop {
            tokio::select! {
                () = self.leadership.begins() => {}
                () = stop.cancelled() => return,
            }
            let mut told = Told::default();
            tokio::select! {
                () = self.lead(&mut told, &mut memory) => {}
                () = self.leadership.ends() => {}
                () = stop.cancelled() => {
                    if memory.is_dirty() && self.leadership.holds() {
                        let _ = tokio::time::timeout(FAILED, memory.save(&told)).await;
                    }
                    return;
                }
            }
        }
    }

    /// Posts Events for as long as it is let.
    async fn lead(&self, told: &mut Told, memory: &mut Memory) {
        *told = loop {
            match memory.load().await {
                Ok(told) => break told,
                Err(error) => {
                    tracing::warn!(%error, namespace = self.namespace, "cannot read what Events were posted; trying again");
                    tokio::time::sleep(REFUSED).await;
                }
            }
        };
        let mut poster = Poster::new(
            self.client.clone(),
            Reporter {
                controller: CONTROLLER,
                instance: self.instance.clone(),
                action: "Publish",
                or_else: ", or say --events=false",
            },
        );
        let mut published = self.published.clone();
        let mut waiting: BTreeMap<Key, u8> = BTreeMap::new();
        let mut saved = Instant::now();
        let mut first = true;
        loop {
            if waiting.is_empty() && !memory.is_dirty() && !first {
                self.shared.objects_changed().await;
            }
            tokio::time::sleep(SETTLE).await;
            if published.wait_for(|status| status.synced).await.is_err() {
                return;
            }
            let all = std::mem::take(&mut first);
            let noted = self.shared.take_objects().filter(|_| !all);
            let mut keys: BTreeSet<Key> = noted.unwrap_or_else(|| {
                let all = self.shared.read().source_keys().collect::<BTreeSet<Key>>();
                all.into_iter().chain(told.keys().cloned()).collect()
            });
            keys.extend(waiting.keys().cloned());
            for key in keys {
                let tries = waiting.remove(&key).unwrap_or(0);
                if tries < PATIENCE && self.is_settling(&key) {
                    waiting.insert(key, tries + 1);
                    continue;
                }
                if !self.leadership.holds() {
                    return;
                }
                if let Err(pause) = self.tell(&key, told, memory, &mut poster).await {
                    waiting.insert(key, tries);
                    tokio::time::sleep(pause).await;
                }
            }
            if memory.is_dirty() && saved.elapsed() >= SAVE && self.leadership.holds() {
                saved = Instant::now();
                if let Err(error) = memory.save(told).await {
                    tracing::warn!(%error, namespace = self.namespace, "cannot write down what Events were posted; trying again");
                    tokio::time::sleep(FAILED).await;
                }
            }
        }
    }

    /// Whether an object's Gateway controller may just not have got to it yet.
    fn is_settling(&self, key: &Key) -> bool {
        let explanation = self.shared.read().explain(key);
        let settling = [Code::StaleStatus, Code::RouteNotAccepted];
        explanation.is_some_and(|e| e.problems.iter().any(|p| settling.contains(&p.code)))
    }

    /// Tells what there is to tell of an object. The error is how long to wait before trying again.
    async fn tell(
        &self,
        key: &Key,
        told: &mut Told,
        memory: &mut Memory,
        poster: &mut Poster,
    ) -> Result<(), Duration> {
        let (uid, explanation) = {
            let index = self.shared.read();
            let explanation = index.explain(key);
            (index.uid(key).unwrap_or_default().to_owned(), explanation)
        };
        let (notices, record) = told.news(key, &uid, explanation.as_ref());
        if told.get(key) == record.as_ref() {
            return Ok(());
        }
        let known = told.get(key).map(|record| record.uid.clone());
        let uid = if uid.is_empty() { known.unwrap_or_default() } else { uid };
        for notice in &notices {
            match poster.post(&reference(key, &uid), notice).await {
                Posted::Done => self.metrics.event(notice.reason),
                Posted::Known | Posted::Dropped => {}
                Posted::Forbidden => return Err(REFUSED),
                Posted::Failed => return Err(FAILED),
            }
        }
        told.set(key.clone(), record);
        memory.touch(key);
        Ok(())
    }
}

/// An object, as an Event names it.
fn reference(key: &Key, uid: &str) -> ObjectReference {
    let group = key.kind.group();
    let version = versions(key.kind).first().copied().unwrap_or("v1");
    let api_version =
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    ObjectReference {
        api_version: Some(api_version),
        kind: Some(key.kind.as_str().to_owned()),
        namespace: Some(key.namespace.to_string()),
        name: Some(key.name.to_string()),
        uid: Some(uid.to_owned()).filter(|uid| !uid.is_empty()),
        ..ObjectReference::default()
    }
}
