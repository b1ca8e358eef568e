//! Watches MCPRegistries, once their CRD is there and is Waymark's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Client, ResourceExt};
use serde_json::Value;
use smol_str::SmolStr;
use tokio::sync::watch as channel;
use tokio_util::sync::CancellationToken;

use super::controller::resource;
use super::crd::{GROUP, VERSION};

/// How often the CRD is asked for where it cannot be watched.
const AGAIN: Duration = Duration::from_secs(30);

type Key = (String, String);

/// All MCPRegistries that are known.
#[derive(Debug, Clone, Default)]
pub(super) struct Objects {
    pub(super) by_key: BTreeMap<Key, DynamicObject>,
    /// Whether each namespace was listed, so that these are all.
    pub(super) listed: bool,
}

#[derive(Debug, Default)]
struct Part {
    now: BTreeMap<Key, DynamicObject>,
    listing: BTreeMap<Key, DynamicObject>,
    listed: bool,
}

/// Follows them.
pub(super) struct Resources {
    parts: Arc<Mutex<Vec<Part>>>,
    changes: channel::Receiver<u64>,
}

/// Whose CRD it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Definition {
    /// There is none.
    Missing,
    /// It has the fields that Waymark reads.
    Own,
    /// It has not: the ToolHive operator's.
    Foreign,
}

impl Resources {
    /// Follows those of some namespaces (all where empty) until `stop`.
    pub(super) fn follow(client: Client, namespaces: &[SmolStr], stop: CancellationToken) -> Self {
        let apis: Vec<Api<DynamicObject>> = if namespaces.is_empty() {
            vec![Api::all_with(client.clone(), &resource())]
        } else {
            let of = |n: &SmolStr| Api::namespaced_with(client.clone(), n, &resource());
            namespaces.iter().map(of).collect()
        };
        let parts: Vec<Part> = apis.iter().map(|_| Part::default()).collect();
        let parts = Arc::new(Mutex::new(parts));
        let (sender, changes) = channel::channel(0);
        tokio::spawn(run(client, apis, Arc::clone(&parts), sender, stop));
        Self { parts, changes }
    }

    /// Waits until something may have changed.
    pub(super) async fn changed(&mut self) -> Result<(), channel::error::RecvError> {
        self.changes.changed().await
    }

    /// What is known now.
    pub(super) fn now(&mut self) -> Objects {
        self.changes.mark_unchanged();
        let parts = lock(&self.parts);
        let by_key = parts.iter().flat_map(|part| part.now.clone()).collect();
        Objects { by_key, listed: parts.iter().all(|part| part.listed) }
    }
}

fn lock(parts: &Mutex<Vec<Part>>) -> MutexGuard<'_, Vec<Part>> {
    parts.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run(
    client: Client,
    apis: Vec<Api<DynamicObject>>,
    parts: Arc<Mutex<Vec<Part>>>,
    changes: channel::Sender<u64>,
    stop: CancellationToken,
) {
    let (sender, mut definition) = channel::channel(None);
    let definitions = tokio::spawn(follow_definition(client, sender, stop.clone()));
    loop {
        let found = *definition.borrow_and_update();
        match found {
            None => {}
            Some(Definition::Own) => {
                let watched = async {
                    let all = apis.iter().enumerate();
                    let all = all.map(|(at, api)| follow(api.clone(), at, &parts, &changes));
                    futures::future::join_all(all).await;
                };
                tokio::select! {
                    () = watched => {}
                    changed = definition.wait_for(|d| *d != Some(Definition::Own)) => {
                        if changed.is_err() { break }
                    }
                    () = stop.cancelled() => break,
                }
                continue;
            }
            Some(other) => {
                if other == Definition::Foreign {
                    tracing::error!(
                        "the CRD mcpregistries.{GROUP} is not Waymark's (the ToolHive operator has one of the same name): MCPRegistries are not served; what the configuration file names is"
                    );
                } else {
                    tracing::info!(
                        "the CRD mcpregistries.{GROUP} is not installed; waiting for it (waymark crds prints it)"
                    );
                }
                // There are none, then.
                for part in lock(&parts).iter_mut() {
                    *part = Part { listed: true, ..Part::default() };
                }
                changes.send_modify(|number| *number += 1);
            }
        }
        tokio::select! {
            changed = definition.changed() => if changed.is_err() { break },
            () = stop.cancelled() => break,
        }
    }
    definitions.abort();
}

/// Whether a CRD has the fields that Waymark reads.
fn judge(crd: &CustomResourceDefinition) -> Definition {
    let served = crd.spec.versions.iter().find(|version| version.name == VERSION && version.served);
    let schema = served.and_then(|version| version.schema.as_ref()).map(|s| serde_json::json!(s));
    let has = |field: &str| {
        let path = format!("/openAPIV3Schema/properties/spec/properties/{field}");
        schema.as_ref().is_some_and(|schema| schema.pointer(&path).is_some_and(Value::is_object))
    };
    let own = ["source", "syncPolicy", "filter"].into_iter().all(has);
    if own && !has("configYAML") { Definition::Own } else { Definition::Foreign }
}

async fn follow_definition(
    client: Client,
    sender: channel::Sender<Option<Definition>>,
    stop: CancellationToken,
) {
    let name = format!("mcpregistries.{GROUP}");
    let api: Api<CustomResourceDefinition> = Api::all(client);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(watch(api, config).default_backoff());
    let set = |found: Definition| {
        sender.send_if_modified(|known| {
            let other = *known != Some(found);
            *known = Some(found);
            other
        });
    };
    let mut listed = None;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = stop.cancelled() => return,
        };
        match event {
            Some(Ok(Event::Init)) => listed = None,
            Some(Ok(Event::InitApply(crd))) => listed = Some(judge(&crd)),
            Some(Ok(Event::InitDone)) => set(listed.unwrap_or(Definition::Missing)),
            Some(Ok(Event::Apply(crd))) => set(judge(&crd)),
            Some(Ok(Event::Delete(_))) => set(Definition::Missing),
            Some(Err(error)) => {
                tracing::warn!(
                    "the CRD {name} cannot be watched: {error}; grant it as deploy/gateway/rbac does"
                );
                tokio::time::sleep(AGAIN.min(Duration::from_secs(5))).await;
            }
            None => return,
        }
    }
}

async fn follow(
    api: Api<DynamicObject>,
    at: usize,
    parts: &Mutex<Vec<Part>>,
    changes: &channel::Sender<u64>,
) {
    let mut events = std::pin::pin!(watch(api, watcher::Config::default()).default_backoff());
    let key = |object: &DynamicObject| (object.namespace().unwrap_or_default(), object.name_any());
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                let mut parts = lock(parts);
                let Some(part) = parts.get_mut(at) else { return };
                match event {
                    Event::Init => part.listing.clear(),
                    Event::InitApply(object) => {
                        part.listing.insert(key(&object), object);
                    }
                    Event::InitDone => {
                        part.now = std::mem::take(&mut part.listing);
                        part.listed = true;
                    }
                    Event::Apply(object) => {
                        part.now.insert(key(&object), object);
                    }
                    Event::Delete(object) => {
                        part.now.remove(&key(&object));
                    }
                }
            }
            Err(error) => {
                tracing::warn!("MCPRegistries cannot be watched: {error}");
                continue;
            }
        }
        changes.send_modify(|number| *number += 1);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whose_definition_it_is() {
        assert_eq!(judge(&super::super::crd::definition()), Definition::Own);
        let crd = |version: &str, fields: Value| {
            serde_json::from_value(json!({
                "metadata": {"name": "x"},
                "spec": {"group": GROUP, "scope": "Namespaced",
                    "names": {"kind": "MCPRegistry", "plural": "mcpregistries"},
                    "versions": [{"name": version, "served": true, "storage": true,
                        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                            "spec": {"type": "object", "properties": fields}}}}}]}}))
            .unwrap()
        };
        let object = json!({"type": "object"});
        let own = json!({"source": object, "syncPolicy": object, "filter": object});
        assert_eq!(judge(&crd(VERSION, own.clone())), Definition::Own);
        assert_eq!(judge(&crd("v1beta1", own)), Definition::Foreign);
        let foreign = json!({"configYAML": {"type": "string"}, "displayName": {"type": "string"}});
        assert_eq!(judge(&crd(VERSION, foreign)), Definition::Foreign);
    }
}
