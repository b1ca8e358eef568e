//! A catalogue in one ConfigMap or in several, watched: a change is served at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Client, ResourceExt};
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use waymark_kubernetes::listing::Listing;

use super::origin::Cluster;
use super::{
    Content, Expected, Fetched, MAX_BYTES, Rejected, Source, SourceError, compressed, digest,
    read_document,
};

/// Longest that the first list may take.
const LIST: Duration = Duration::from_secs(10);
/// How long changes of several ConfigMaps may settle.
const SETTLE: Duration = Duration::from_millis(50);

/// Which ConfigMaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The one of this name.
    Name(String),
    /// All whose labels match: one catalogue in several parts.
    Labels(String),
}

/// Where a ConfigMap source reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMapOrigin {
    /// Namespace of the ConfigMaps; the process's own where it is `None`.
    pub namespace: Option<String>,
    /// Which of them.
    pub selection: Selection,
    /// The key in `data` or `binaryData`.
    pub key: String,
    /// Namespace of the MCPRegistry that reads them, where it is another one: a ReferenceGrant must
    /// allow that.
    pub reader: Option<String>,
}

/// One ConfigMap, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Document {
    Bytes(Vec<u8>),
    /// The key is not there; these are.
    NoKey(Vec<String>),
}

/// Objects of one kind by name, and what went wrong since something last went well.
#[derive(Debug)]
struct Objects<V> {
    listing: Listing<String, V>,
    failure: Option<SourceError>,
}

impl<V> Default for Objects<V> {
    fn default() -> Self {
        Self { listing: Listing::default(), failure: None }
    }
}

impl<V> Objects<V> {
    fn apply<K: kube::Resource>(&mut self, event: Event<K>, value: impl FnOnce(K) -> V) {
        self.failure = None;
        self.listing.apply(event, ResourceExt::name_any, value);
    }
}

/// Documents, with the names of their ConfigMaps.
type Named = Vec<(String, Vec<u8>)>;

/// The state of the watches.
#[derive(Debug, Default)]
struct State {
    documents: Objects<Document>,
    grants: Objects<Value>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module's documentation.
pub struct ConfigMapSource {
    origin: ConfigMapOrigin,
    expected: Option<Expected>,
    cluster: Cluster,
    watched: Option<(Arc<Shared>, DropGuard)>,
    /// Fingerprint of what was read last.
    read: Option<String>,
}

impl ConfigMapSource {
    /// A source that is not watched yet.
    #[must_use]
    pub fn new(origin: ConfigMapOrigin, expected: Option<Expected>, cluster: Cluster) -> Self {
        Self { origin, expected, cluster, watched: None, read: None }
    }

    async fn watched(&mut self) -> Result<Arc<Shared>, SourceError> {
        if let Some((shared, _)) = &self.watched {
            return Ok(Arc::clone(shared));
        }
        let client = self.cluster.client().await?;
        let shared = Arc::new(Shared::default());
        let stop = CancellationToken::new();
        tokio::spawn(follow(client, self.origin.clone(), Arc::clone(&shared), stop.clone()));
        self.watched = Some((Arc::clone(&shared), stop.drop_guard()));
        Ok(shared)
    }

    /// The documents of now, and their fingerprint.
    fn documents(&self, shared: &Shared) -> Result<(Named, String), SourceError> {
        let state = shared.state();
        let failures = [&state.documents.failure, &state.grants.failure];
        if let Some(failure) = failures.into_iter().flatten().next() {
            return Err(failure.clone());
        }
        if let Some(reader) = &self.origin.reader
            && !state
                .grants
                .listing
                .now()
                .values()
                .any(|grant| grants(grant, reader, &self.origin.selection))
        {
            let of = self.origin.namespace.as_deref().unwrap_or_default();
            let message = format!(
                "no ReferenceGrant in the namespace {of} lets an MCPRegistry of the namespace {reader} read its ConfigMaps; create one, or move the ConfigMap"
            );
            return Err(SourceError::denied("ReferenceNotGranted", message));
        }
        let within = self.origin.namespace.as_deref().unwrap_or("its own namespace");
        if state.documents.listing.now().is_empty() {
            let message = match &self.origin.selection {
                Selection::Name(name) => format!("there is no ConfigMap {name} in {within}"),
                Selection::Labels(labels) => {
                    format!("no ConfigMap in {within} has the labels {labels}")
                }
            };
            return Err(SourceError::unavailable("ConfigMapNotFound", message));
        }
        let mut documents = Vec::new();
        for (name, document) in state.documents.listing.now() {
            match document {
                Document::Bytes(bytes) => documents.push((name.clone(), bytes.clone())),
                Document::NoKey(keys) => {
                    let keys = if keys.is_empty() { "none".to_owned() } else { keys.join(", ") };
                    let key = &self.origin.key;
                    return Err(SourceError::invalid(
                        "KeyNotFound",
                        format!("the ConfigMap {name} has no key {key}; its keys are: {keys}"),
                    ));
                }
            }
        }
        drop(state);
        let size: usize = documents.iter().map(|(_, bytes)| bytes.len()).sum();
        if size as u64 > MAX_BYTES {
            return Err(SourceError::too_large("the ConfigMaps together", MAX_BYTES));
        }
        let all: Vec<u8> = documents
            .iter()
            .flat_map(|(name, bytes)| [name.as_bytes(), &[0], bytes.as_slice(), &[0]].concat())
            .collect();
        Ok((documents, digest(&all)))
    }
}

impl Source for ConfigMapSource {
    async fn fetch(&mut self) -> Result<Fetched, SourceError> {
        let shared = self.watched().await?;
        let wants_grants = self.origin.reader.is_some();
        let listed = async {
            loop {
                let changed = shared.changed.notified();
                {
                    let state = shared.state();
                    let complete = state.documents.listing.is_listed()
                        && (state.grants.listing.is_listed() || !wants_grants);
                    if complete
                        || state.documents.failure.is_some()
                        || state.grants.failure.is_some()
                    {
                        return;
                    }
                }
                changed.await;
            }
        };
        if tokio::time::timeout(LIST, listed).await.is_err() {
            let message = "the API server does not list ConfigMaps in time";
            return Err(SourceError::unavailable("TimedOut", message));
        }
        let (documents, hash) = self.documents(&shared)?;
        if self.read.as_ref() == Some(&hash) {
            return Ok(Fetched::Unchanged);
        }
        let expected = self.expected;
        let read = tokio::task::spawn_blocking(move || read_all(&documents, expected)).await;
        // What was read is not read again, whatever came of it.
        self.read = Some(hash.clone());
        let read =
            read.map_err(|error| SourceError::invalid("InvalidFormat", error.to_string()))?;
        let mut content = read.inspect_err(|_| self.read = None)?;
        content.hash = hash;
        Ok(Fetched::Whole(content))
    }

    async fn changed(&mut self) {
        let Some((shared, _)) = &self.watched else { return std::future::pending().await };
        shared.changed.notified().await;
        tokio::time::sleep(SETTLE).await;
    }

    fn reset(&mut self) {
        self.read = None;
    }
}

/// Reads all documents. Of several, one that cannot be read is left out, unless it is all there is.
fn read_all(
    documents: &[(String, Vec<u8>)],
    expected: Option<Expected>,
) -> Result<Content, SourceError> {
    let mut content = Content::default();
    let mut ids = std::collections::HashSet::new();
    let mut failure = None;
    for (name, bytes) in documents {
        let read =
            compressed::text(bytes, MAX_BYTES).and_then(|text| read_document(&text, expected));
        let part = match read {
            Ok(part) => part,
            Err(error) => {
                let message = error.to_string();
                content.rejected.push(Rejected { path: format!("ConfigMap {name}"), message });
                failure = Some(error);
                continue;
            }
        };
        content.rejected.extend(part.rejected);
        for entry in part.entries {
            if ids.insert(entry.id.clone()) {
                content.entries.push(entry);
            } else {
                let (path, message) = (entry.id.to_string(), super::TWICE.to_owned());
                content.rejected.push(Rejected { path, message });
            }
        }
    }
    content.total = content.entries.len();
    match failure {
        Some(failure) if content.entries.is_empty() => Err(failure),
        _ => Ok(content),
    }
}

/// Whether a ReferenceGrant lets MCPRegistries of a namespace read the selected ConfigMaps.
fn grants(grant: &Value, reader: &str, selection: &Selection) -> bool {
    let is = |item: &Value, field: &str, wanted: &str| {
        item.get(field).and_then(Value::as_str).unwrap_or_default() == wanted
    };
    let any = |list: &str, test: &dyn Fn(&Value) -> bool| {
        let items = grant.pointer(&format!("/spec/{list}")).and_then(Value::as_array);
        items.is_some_and(|items| items.iter().any(test))
    };
    let from = any("from", &|item| {
        is(item, "group", crate::mcpregistry::GROUP)
            && is(item, "kind", "MCPRegistry")
            && is(item, "namespace", reader)
    });
    from && any("to", &|item| {
        let named = item.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let selected = match (named, selection) {
            (None, _) => true,
            (Some(name), Selection::Name(wanted)) => name == wanted,
            (Some(_), Selection::Labels(_)) => false,
        };
        is(item, "group", "") && is(item, "kind", "ConfigMap") && selected
    })
}

/// Watches until `stop`.
async fn follow(
    client: Client,
    origin: ConfigMapOrigin,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let namespace = origin.namespace.clone();
    let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    let config = match &origin.selection {
        Selection::Name(name) => {
            watcher::Config::default().fields(&format!("metadata.name={name}"))
        }
        Selection::Labels(labels) => watcher::Config::default().labels(labels),
    };
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let documents = watch(api, config).default_backoff();
    let what = format!("ConfigMaps in the namespace {namespace}");
    let documents = keep(documents, |next| {
        let mut state = shared.state();
        match next {
            Ok(event) => state.documents.apply(event, |map| document(map, &origin.key)),
            Err(error) => state.documents.failure = Some(failed(&error, &what)),
        }
        drop(state);
        shared.changed.notify_one();
    });
    let granted = async {
        if origin.reader.is_none() {
            return;
        }
        let gvk = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1beta1", "ReferenceGrant");
        let resource = ApiResource::from_gvk(&gvk);
        let api: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &resource);
        let all = watch(api, watcher::Config::default()).default_backoff();
        let what = format!("ReferenceGrants in the namespace {namespace}");
        keep(all, |next| {
            let mut state = shared.state();
            match next {
                Ok(event) => state.grants.apply(event, |grant| grant.data),
                // Gateway API is not installed: nothing is granted.
                Err(watcher::Error::InitialListFailed(kube::Error::Api(status)))
                    if status.code == 404 =>
                {
                    state.grants.listing = Listing::nothing();
                }
                Err(error) => state.grants.failure = Some(failed(&error, &what)),
            }
            drop(state);
            shared.changed.notify_one();
        })
        .await;
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(documents, granted) } => {}
        () = stop.cancelled() => {}
    }
}

async fn keep<K>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>>,
    mut take: impl FnMut(Result<Event<K>, watcher::Error>),
) {
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        take(event);
    }
}

fn document(map: ConfigMap, key: &str) -> Document {
    let (mut data, mut binary) =
        (map.data.unwrap_or_default(), map.binary_data.unwrap_or_default());
    let bytes = data.remove(key).map(String::into_bytes);
    match bytes.or_else(|| binary.remove(key).map(|bytes| bytes.0)) {
        Some(bytes) => Document::Bytes(bytes),
        None => Document::NoKey(data.into_keys().chain(binary.into_keys()).take(20).collect()),
    }
}

fn failed(error: &watcher::Error, what: &str) -> SourceError {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => Some(status.clone()),
        watcher::Error::WatchError(status) => Some(status.clone()),
        _ => None,
    };
    match status {
        Some(status) if status.code == 403 => SourceError::unavailable(
            "Forbidden",
            format!("RBAC does not allow to list and watch {what}: {}", status.message),
        ),
        Some(status) => SourceError::unavailable(
            "WatchFailed",
            format!("{what} cannot be watched: {}", status.message),
        ),
        None => {
            SourceError::unavailable("WatchFailed", format!("{what} cannot be watched: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reference_grants() {
        let from =
            json!({"group": "toolhive.stacklok.dev", "kind": "MCPRegistry", "namespace": "a"});
        let to = json!({"group": "", "kind": "ConfigMap"});
        let named = json!({"group": "", "kind": "ConfigMap", "name": "one"});
        let grant = |from: &Value, to: &Value| json!({"spec": {"from": [from], "to": [to]}});
        let (one, labels) = (Selection::Name("one".into()), Selection::Labels("x=y".into()));
        for (grant, reader, selection, granted) in [
            (grant(&from, &to), "a", &one, true),
            (grant(&from, &to), "a", &labels, true),
            (grant(&from, &to), "b", &one, false),
            (grant(&from, &named), "a", &one, true),
            (grant(&from, &named), "a", &labels, false),
            (grant(&from, &named), "a", &Selection::Name("two".into()), false),
            (grant(&from, &json!({"group": "", "kind": "Secret"})), "a", &one, false),
            (grant(&json!({"kind": "HTTPRoute", "namespace": "a"}), &to), "a", &one, false),
            (json!({"spec": {}}), "a", &one, false),
            (json!(7), "a", &one, false),
        ] {
            assert_eq!(grants(&grant, reader, selection), granted, "{grant} {reader}");
        }
    }

    #[test]
    fn parts() {
        let server = |name: &str| json!({"name": name, "description": "d", "version": "1.0.0"});
        let list = |names: &[&str]| {
            json!({"servers": names.iter().map(|n| server(n)).collect::<Vec<_>>()})
                .to_string()
                .into_bytes()
        };
        let part = |name: &str, bytes: Vec<u8>| (name.to_owned(), bytes);
        let all = [
            part("a", list(&["a.b/one", "a.b/two"])),
            part("b", b"no catalogue".to_vec()),
            part("c", list(&["a.b/two", "a.b/three", "bad"])),
        ];
        let content = read_all(&all, None).unwrap();
        let ids: Vec<&str> = content.entries.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!(ids, ["a.b/one@1.0.0", "a.b/two@1.0.0", "a.b/three@1.0.0"]);
        let rejected: Vec<&str> = content.rejected.iter().map(|r| r.path.as_str()).collect();
        assert_eq!(rejected, ["ConfigMap b", "$.servers[2]", "a.b/two@1.0.0"]);
        assert_eq!(read_all(&all[1..2], None).unwrap_err().reason, "InvalidFormat");
    }
}
