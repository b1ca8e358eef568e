//! One watch: lists, follows, and recovers by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, DynamicObject};
use kube::core::{GroupVersionKind, Status};
use kube::discovery::{ApiResource, oneshot};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use serde_json::Value;
use smol_str::SmolStr;
use tokio::sync::mpsc;

use super::scope::Target;
use super::state::Watches;
use crate::object::{self, Key, Kind, Parsed};

/// How often a kind that is not served is looked for.
const LOOK: Duration = Duration::from_secs(3);
/// How often a Namespace is asked for where it cannot be watched.
const POLL: Duration = Duration::from_secs(5);

/// Versions in which a kind may be served, the preferred one first.
pub(crate) fn versions(kind: Kind) -> &'static [&'static str] {
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
pub(super) enum Update {
    /// Everything that the watch of this number sees.
    All(usize, Vec<Parsed>),
    /// One object.
    One(Parsed),
    /// One object is gone.
    Gone(Key),
}

/// The index is gone: nothing is left to do.
struct Closed;

pub(super) struct Watch {
    pub(super) client: Client,
    pub(super) number: usize,
    pub(super) target: Target,
    pub(super) prefix: Arc<str>,
    /// Whether to ask for streaming lists.
    pub(super) streaming: bool,
    pub(super) updates: mpsc::Sender<Update>,
    pub(super) watches: Watches,
}

/// Why a watch ended.
enum Ended {
    /// The kind may be served in another version, or not at all.
    NotFound,
    /// To be started afresh.
    Again,
}

impl Watch {
    pub(super) async fn run(mut self) {
        let work = async {
            match self.target.polled().cloned() {
                Some(name) => self.poll(&name).await,
                None => self.follow().await,
            }
        };
        // Only a closed index ends it.
        let Err(Closed) = work.await;
    }

    async fn follow(&mut self) -> Result<std::convert::Infallible, Closed> {
        loop {
            match self.resource().await {
                Ok(Some(resource)) => while let Ended::Again = self.watch(&resource).await? {},
                Ok(None) => {
                    // Not installed: there are none.
                    self.watches.listed(&self.target, true);
                    self.send(Update::All(self.number, Vec::new())).await?;
                    tokio::time::sleep(LOOK).await;
                }
                Err(error) => {
                    self.broke("get", &error);
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    /// The version in which the API server serves the kind; `None` where it does not.
    async fn resource(&self) -> Result<Option<ApiResource>, kube::Error> {
        let kind = self.target.kind;
        for version in versions(kind) {
            let gvk = GroupVersionKind::gvk(kind.group(), version, kind.as_str());
            match oneshot::pinned_kind(&self.client, &gvk).await {
                Ok((resource, _)) => return Ok(Some(resource)),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(kube::Error::Discovery(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn api(&self, resource: &ApiResource) -> Api<DynamicObject> {
        match &self.target.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        }
    }

    async fn watch(&mut self, resource: &ApiResource) -> Result<Ended, Closed> {
        let mut config = self.target.config();
        if self.streaming {
            config = config.streaming_lists();
        }
        let mut events = watcher(self.api(resource), config).default_backoff().boxed();
        let mut listing: BTreeMap<Key, Option<Parsed>> = BTreeMap::new();
        let mut listed_twice = false;
        let mut in_full = false;
        while let Some(event) = events.next().await {
            let update = match event {
                Ok(Event::Init) => {
                    listing.clear();
                    continue;
                }
                Ok(Event::InitApply(object)) => {
                    let parsed = self.parse(resource, &object);
                    // A streaming list that broke off and began again does not say so.
                    listed_twice |= listing.insert(self.key(&object), parsed).is_some();
                    continue;
                }
                Ok(Event::InitDone) if listed_twice => return Ok(Ended::Again),
                Ok(Event::InitDone) => {
                    in_full = true;
                    self.watches.listed(&self.target, false);
                    let objects = std::mem::take(&mut listing).into_values().flatten().collect();
                    Update::All(self.number, objects)
                }
                Ok(Event::Apply(object)) => {
                    self.watches.alive(&self.target);
                    match self.parse(resource, &object) {
                        Some(parsed) => Update::One(parsed),
                        None => Update::Gone(self.key(&object)),
                    }
                }
                Ok(Event::Delete(object)) => Update::Gone(self.key(&object)),
                Err(error) => {
                    listing.clear();
                    if let Some(ended) = self.failed(&error, in_full) {
                        return Ok(ended);
                    }
                    continue;
                }
            };
            self.send(update).await?;
        }
        Ok(Ended::Again)
    }

    /// Says what is wrong; tells whether to begin afresh.
    fn failed(&mut self, error: &watcher::Error, in_full: bool) -> Option<Ended> {
        let (verb, status) = match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status)) => ("list", status),
            watcher::Error::WatchStartFailed(kube::Error::Api(status))
            | watcher::Error::WatchFailed(kube::Error::Api(status))
            | watcher::Error::WatchError(status) => ("watch", status),
            other => {
                self.broke("watch", other);
                return None;
            }
        };
        match status.code {
            // The CRD may be gone, or served in another version.
            404 => return Some(Ended::NotFound),
            // Too old a resource version: listed again, which is nothing to worry about.
            410 => tracing::info!(watch = %self.target, "the history was compacted; listing again"),
            400 | 422 if self.streaming && !in_full => {
                tracing::info!(watch = %self.target, "the API server offers no streaming lists; listing in pages");
                self.streaming = false;
                return Some(Ended::Again);
            }
            _ => self.refused(verb, status),
        }
        None
    }

    fn refused(&self, verb: &str, status: &Status) {
        if status.code != 403 {
            self.broke(verb, status);
            return;
        }
        let error = format!("RBAC does not allow to {verb} {}", self.target);
        if self.watches.broke(&self.target, &error) {
            tracing::error!(
                verb,
                resource = self.target.kind.resource(),
                namespace = self.target.namespace.as_deref().unwrap_or("all"),
                "{error}; grant it as deploy/gateway/rbac does"
            );
        }
    }

    fn broke(&self, verb: &str, error: &dyn std::fmt::Display) {
        let text = error.to_string();
        if self.watches.broke(&self.target, &text) {
            tracing::warn!(watch = %self.target, verb, error = text, "a watch broke; trying again");
        }
    }

    /// Asks for a Namespace again and again.
    async fn poll(&self, name: &SmolStr) -> Result<std::convert::Infallible, Closed> {
        let resource = ApiResource {
            group: String::new(),
            version: "v1".into(),
            api_version: "v1".into(),
            kind: "Namespace".into(),
            plural: "namespaces".into(),
        };
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let mut last = None;
        loop {
            let found = match api.get_opt(name).await {
                Ok(found) => Some(found.and_then(|object| self.parse(&resource, &object))),
                Err(kube::Error::Api(status)) => {
                    self.refused("get", &status);
                    None
                }
                Err(error) => {
                    self.broke("get", &error);
                    None
                }
            };
            if let Some(found) = found {
                self.watches.listed(&self.target, false);
                if last.as_ref() != Some(&found) {
                    self.send(Update::All(self.number, found.iter().cloned().collect())).await?;
                    last = Some(found);
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn send(&self, update: Update) -> Result<(), Closed> {
        self.updates.send(update).await.map_err(|_| Closed)
    }

    fn key(&self, object: &DynamicObject) -> Key {
        Key::new(self.target.kind, object.namespace().unwrap_or_default(), object.name_any())
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
