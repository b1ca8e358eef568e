//! A live cluster: one watch per kind, all of them feeding one index.
//!
//! Kinds that the API server does not serve (their CRD is not installed) are waited for. A watch
//! that breaks is taken up again by itself, with back-off; meanwhile the index keeps what it had.
//! Nothing is committed before every kind was listed once, so that a restart never publishes half
//! of the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, DynamicObject};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiResource, oneshot};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::index::Changes;
use crate::object::{self, Key, Kind, Parsed};
use crate::publisher::SharedIndex;

/// How often a kind that is not served is looked for.
const LOOK: Duration = Duration::from_secs(3);
/// Updates that may wait for the index.
const QUEUE: usize = 1024;
/// Most updates of one commit.
const BATCH: usize = 512;
/// How long updates are gathered before they are committed, so that a burst is one change.
const TICK: Duration = Duration::from_millis(5);

/// Versions in which a kind may be served, the preferred one first.
fn versions(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::HttpRoute | Kind::Gateway | Kind::ListenerSet | Kind::ReferenceGrant => {
            &["v1", "v1beta1"]
        }
        Kind::Namespace | Kind::Service => &["v1"],
        Kind::LifecycleMcpServer => &["v1alpha1"],
        _ => &["v1beta1", "v1alpha1"],
    }
}

/// What a watch tells the index.
enum Update {
    /// Everything of a kind.
    All(Kind, Vec<Parsed>),
    /// One object.
    One(Parsed),
    /// One object is gone.
    Gone(Key),
}

/// Follows a cluster until `stop`. `listed` becomes true when every kind was listed and the first
/// commit is done; `changed` is told of every commit.
pub async fn follow(
    client: Client,
    shared: Arc<SharedIndex>,
    listed: watch::Sender<bool>,
    stop: CancellationToken,
    mut changed: impl FnMut(&SharedIndex, &Changes) + Send,
) {
    let (sender, mut updates) = mpsc::channel(QUEUE);
    let prefix: Arc<str> = shared.read().settings().prefix.as_str().into();
    for kind in Kind::ALL {
        let watch = Watch {
            client: client.clone(),
            kind,
            prefix: Arc::clone(&prefix),
            updates: sender.clone(),
        };
        let stop = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = watch.run() => {}
                () = stop.cancelled() => {}
            }
        });
    }
    drop(sender);
    let mut missing: BTreeSet<Kind> = Kind::ALL.into_iter().collect();
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            taken = updates.recv_many(&mut batch, BATCH) => if taken == 0 { return },
            () = stop.cancelled() => return,
        }
        tokio::time::sleep(TICK).await;
        while batch.len() < BATCH
            && let Ok(update) = updates.try_recv()
        {
            batch.push(update);
        }
        for update in &batch {
            if let Update::All(kind, _) = update {
                missing.remove(kind);
            }
        }
        let complete = missing.is_empty();
        let changes = shared.update(|index| {
            for update in batch.drain(..) {
                match update {
                    Update::All(kind, objects) => replace(index, kind, objects),
                    Update::One(parsed) => index.apply(parsed),
                    Update::Gone(key) => index.remove(&key),
                }
            }
            if complete { index.commit() } else { Changes::default() }
        });
        if complete {
            changed(&shared, &changes);
            listed.send_replace(true);
        }
    }
}

/// Brings all objects of a kind to what a list held.
fn replace(index: &mut crate::Index, kind: Kind, objects: Vec<Parsed>) {
    let key = |parsed: &Parsed| match parsed {
        Parsed::Object(object) => Some(object.key()),
        _ => None,
    };
    let held: BTreeSet<Key> = objects.iter().filter_map(key).collect();
    let gone: Vec<Key> =
        index.keys().filter(|key| key.kind == kind && !held.contains(key)).collect();
    for key in gone {
        index.remove(&key);
    }
    for parsed in objects {
        index.apply(parsed);
    }
}

/// The watch of one kind.
struct Watch {
    client: Client,
    kind: Kind,
    prefix: Arc<str>,
    updates: mpsc::Sender<Update>,
}

impl Watch {
    async fn run(self) {
        loop {
            match self.resource().await {
                Ok(Some(resource)) => self.watch(&resource).await,
                Ok(None) => {
                    // Not installed: there are none.
                    if self.send(Update::All(self.kind, Vec::new())).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(LOOK).await;
                }
                Err(error) => {
                    tracing::warn!(kind = %self.kind, %error, "cannot ask the API server which version it serves; trying again");
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    /// The version in which the API server serves the kind; `None` where it does not.
    async fn resource(&self) -> Result<Option<ApiResource>, kube::Error> {
        for version in versions(self.kind) {
            let gvk = GroupVersionKind::gvk(self.kind.group(), version, self.kind.as_str());
            match oneshot::pinned_kind(&self.client, &gvk).await {
                Ok((resource, _)) => return Ok(Some(resource)),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(kube::Error::Discovery(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Watches until the kind is not served any more.
    async fn watch(&self, resource: &ApiResource) {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), resource);
        let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
        let mut listing: BTreeMap<Key, Parsed> = BTreeMap::new();
        while let Some(event) = events.next().await {
            let update = match event {
                Ok(Event::Init) => {
                    listing.clear();
                    continue;
                }
                Ok(Event::InitApply(object)) => {
                    if let Some(parsed) = self.parse(resource, &object) {
                        listing.insert(self.key(&object), parsed);
                    }
                    continue;
                }
                Ok(Event::InitDone) => {
                    let objects = std::mem::take(&mut listing).into_values().collect();
                    Update::All(self.kind, objects)
                }
                Ok(Event::Apply(object)) => match self.parse(resource, &object) {
                    Some(parsed) => Update::One(parsed),
                    None => Update::Gone(self.key(&object)),
                },
                Ok(Event::Delete(object)) => Update::Gone(self.key(&object)),
                Err(error) => {
                    if is_not_found(&error) {
                        // The CRD may be gone, or served in another version.
                        return;
                    }
                    tracing::warn!(kind = %self.kind, %error, "a watch broke; trying again");
                    continue;
                }
            };
            if self.send(update).await.is_err() {
                return;
            }
        }
    }

    async fn send(&self, update: Update) -> Result<(), mpsc::error::SendError<Update>> {
        self.updates.send(update).await
    }

    fn key(&self, object: &DynamicObject) -> Key {
        Key::new(self.kind, object.namespace().unwrap_or_default(), object.name_any())
    }

    /// The compact form; `None` where the object cannot be read, which is said.
    fn parse(&self, resource: &ApiResource, object: &DynamicObject) -> Option<Parsed> {
        let mut value = serde_json::to_value(object).ok()?;
        if let Some(fields) = value.as_object_mut() {
            // The items of a list do not say what they are.
            fields.insert("apiVersion".into(), Value::from(resource.api_version.as_str()));
            fields.insert("kind".into(), Value::from(resource.kind.as_str()));
        }
        match object::parse(&value, &self.prefix) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                tracing::warn!(%error, "an object cannot be read; it is passed over");
                None
            }
        }
    }
}

fn is_not_found(error: &watcher::Error) -> bool {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status,
        watcher::Error::WatchError(status) => status,
        _ => return false,
    };
    status.code == 404
}
