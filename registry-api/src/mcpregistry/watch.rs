//! Watches MCPRegistries, once their CRD is there and is Waymark's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, DynamicObject};
use kube::runtime::watcher;
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Client, ResourceExt};
use serde_json::Value;
use smol_str::SmolStr;
use tokio::sync::watch as channel;
use tokio_util::sync::CancellationToken;
use waymark_kubernetes::listing::Listing;

use super::crd::{GROUP, VERSION};
use super::resource::kind;

/// How often it is looked whose the CRD is, while it is not Waymark's, and while it is.
const LOOK: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(60));

type Key = (String, String);

/// All MCPRegistries that are known.
#[derive(Debug, Clone, Default)]
pub(super) struct Objects {
    pub(super) by_key: BTreeMap<Key, DynamicObject>,
    /// Whether each namespace was listed, so that these are all.
    pub(super) listed: bool,
}

/// Those of one namespace, or of all.
type Part = Listing<Key, DynamicObject>;

/// Follows them.
pub(super) struct Resources {
    parts: Arc<Mutex<Vec<Part>>>,
    changes: channel::Receiver<u64>,
    /// The number of changes when it was last asked what is known.
    seen: u64,
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
            vec![Api::all_with(client.clone(), &kind())]
        } else {
            let of = |n: &SmolStr| Api::namespaced_with(client.clone(), n, &kind());
            namespaces.iter().map(of).collect()
        };
        let parts: Vec<Part> = apis.iter().map(|_| Part::default()).collect();
        let parts = Arc::new(Mutex::new(parts));
        let (sender, changes) = channel::channel(0);
        tokio::spawn(run(client, apis, Arc::clone(&parts), sender, stop));
        Self { parts, changes, seen: 0 }
    }

    /// Waits until something may have changed.
    pub(super) async fn changed(&mut self) -> Result<(), channel::error::RecvError> {
        self.changes.changed().await
    }

    /// What is known now, where that may have changed since the last call.
    pub(super) fn news(&mut self) -> Option<Objects> {
        let changes = *self.changes.borrow_and_update();
        if std::mem::replace(&mut self.seen, changes) == changes {
            return None;
        }
        let parts = lock(&self.parts);
        let by_key = parts.iter().flat_map(|part| part.now().clone()).collect();
        Some(Objects { by_key, listed: parts.iter().all(Listing::is_listed) })
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
    let definitions = tokio::spawn(follow_definition(client, sender));
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
                    *part = Listing::nothing();
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

/// Whether the schema of MCPRegistry in an OpenAPI document has the fields that Waymark reads.
fn judge(openapi: &Value) -> Definition {
    let schemas = openapi.pointer("/components/schemas").and_then(Value::as_object);
    let name = format!(".{VERSION}.MCPRegistry");
    let schema = schemas.into_iter().flatten().find(|(key, _)| key.ends_with(&name));
    let Some((_, schema)) = schema else { return Definition::Missing };
    let has =
        |field: &str| schema.pointer(&format!("/properties/spec/properties/{field}")).is_some();
    let own = ["source", "syncPolicy", "filter"].into_iter().all(has);
    if own && !has("configYAML") { Definition::Own } else { Definition::Foreign }
}

/// What the API server serves, by its OpenAPI document: everybody may read that, and so no right to
/// read CRDs is needed.
async fn look(client: &Client) -> Result<Definition, kube::Error> {
    let request =
        http::Request::get(format!("/openapi/v3/apis/{GROUP}/{VERSION}")).body(Vec::new());
    let request = request.map_err(kube::Error::HttpError)?;
    match client.request::<Value>(request).await {
        Ok(openapi) => Ok(judge(&openapi)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Definition::Missing),
        Err(error) => Err(error),
    }
}

async fn follow_definition(client: Client, sender: channel::Sender<Option<Definition>>) {
    loop {
        match look(&client).await {
            Ok(found) => {
                sender.send_if_modified(|known| {
                    let other = *known != Some(found);
                    *known = Some(found);
                    other
                });
            }
            // What was known holds.
            Err(error) => {
                tracing::warn!("cannot ask the API server for the MCPRegistry CRD: {error}")
            }
        }
        let own = *sender.borrow() == Some(Definition::Own);
        tokio::time::sleep(if own { LOOK.1 } else { LOOK.0 }).await;
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
                part.apply(event, key, |object| object);
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
        let document = |name: &str, fields: Value| {
            let spec = json!({"type": "object", "properties": fields});
            json!({"components": {"schemas": {name: {"properties": {"spec": spec}}}}})
        };
        let name = "dev.stacklok.toolhive.v1alpha1.MCPRegistry";
        let object = json!({"type": "object"});
        let own = json!({"source": object, "syncPolicy": object, "filter": object});
        let foreign = json!({"configYAML": {"type": "string"}, "displayName": {"type": "string"}});
        let list = "dev.stacklok.toolhive.v1alpha1.MCPRegistryList";
        for (document, found) in [
            (document(name, own.clone()), Definition::Own),
            (document(name, foreign), Definition::Foreign),
            (document(list, own), Definition::Missing),
            (json!({}), Definition::Missing),
        ] {
            assert_eq!(judge(&document), found, "{document}");
        }
    }
}
