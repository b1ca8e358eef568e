//! Posts one Event.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::told::Notice;
use crate::object::Key;
use crate::source::cluster::versions;

/// `reportingController` of all Events.
pub(super) const CONTROLLER: &str = "waymark.dev/discovery";
/// How long the same Event on the same object counts as one series (as client-go has it).
const SERIES: Duration = Duration::from_secs(6 * 60);
/// Most Events that are remembered for series.
const MAX_RECENT: usize = 4096;

/// What became of an Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Posted {
    Done,
    /// It was there already: told before a crash.
    Known,
    /// It cannot be posted, and never will be: its namespace is gone.
    Dropped,
    /// The role does not allow it.
    Forbidden,
    /// To be tried again.
    Failed,
}

struct Recent {
    name: String,
    count: i32,
    last: Instant,
}

pub(super) struct Poster {
    client: Client,
    instance: String,
    /// By object, reason and note.
    recent: HashMap<u64, Recent>,
    forbidden: bool,
}

impl Poster {
    pub(super) fn new(client: Client, instance: String) -> Self {
        Self { client, instance, recent: HashMap::new(), forbidden: false }
    }

    /// Posts a notice about an object. The same one again within [`SERIES`] is counted in the Event
    /// that is there.
    pub(super) async fn post(&mut self, key: &Key, uid: &str, notice: &Notice) -> Posted {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &key.namespace);
        let content = format!("{key}\n{uid}\n{}\n{}", notice.reason, notice.note);
        let content = xxh3_64(content.as_bytes());
        self.recent.retain(|_, recent| recent.last.elapsed() < SERIES);
        if let Some(recent) = self.recent.get_mut(&content) {
            let now = MicroTime(jiff::Timestamp::now());
            let series = json!({"series": {"count": recent.count + 1, "lastObservedTime": now}});
            match api.patch(&recent.name, &PatchParams::default(), &Patch::Merge(&series)).await {
                Ok(_) => {
                    recent.count += 1;
                    recent.last = Instant::now();
                    return Posted::Done;
                }
                // Someone has removed it.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return self.failed(&error, "patch", key),
            }
        }
        let event = self.event(key, uid, notice, content);
        let name = event.metadata.name.clone().unwrap_or_default();
        let posted = match api.create(&PostParams::default(), &event).await {
            Ok(_) => Posted::Done,
            Err(kube::Error::Api(status)) if status.code == 409 => Posted::Known,
            Err(error) => self.failed(&error, "create", key),
        };
        if matches!(posted, Posted::Done | Posted::Known) && self.recent.len() < MAX_RECENT {
            self.recent.insert(content, Recent { name, count: 1, last: Instant::now() });
        }
        posted
    }

    fn event(&self, key: &Key, uid: &str, notice: &Notice, content: u64) -> Event {
        let group = key.kind.group();
        let version = versions(key.kind).first().copied().unwrap_or("v1");
        let api_version =
            if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        // The number is part of the name: what comes again later is another Event.
        let name: String = key.name.chars().take(200).collect();
        let name = format!("{name}.{:016x}", content ^ u64::from(notice.number).rotate_left(32));
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(key.namespace.to_string()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(jiff::Timestamp::now())),
            action: Some(if notice.warning { "Resolve" } else { "Publish" }.to_owned()),
            reason: Some(notice.reason.to_owned()),
            note: Some(notice.note.clone()),
            type_: Some(if notice.warning { "Warning" } else { "Normal" }.to_owned()),
            regarding: Some(ObjectReference {
                api_version: Some(api_version),
                kind: Some(key.kind.as_str().to_owned()),
                namespace: Some(key.namespace.to_string()),
                name: Some(key.name.to_string()),
                uid: Some(uid.to_owned()).filter(|uid| !uid.is_empty()),
                ..ObjectReference::default()
            }),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.chars().take(128).collect()),
            ..Event::default()
        }
    }

    fn failed(&mut self, error: &kube::Error, verb: &str, key: &Key) -> Posted {
        let kube::Error::Api(status) = error else {
            tracing::warn!(object = %key, %error, "an Event was not posted; trying again");
            return Posted::Failed;
        };
        match status.code {
            403 if status.message.contains("being terminated") => Posted::Dropped,
            404 => Posted::Dropped,
            403 => {
                if !std::mem::replace(&mut self.forbidden, true) {
                    tracing::error!(
                        verb,
                        resource = "events.events.k8s.io",
                        namespace = %key.namespace,
                        "RBAC does not allow to {verb} events.events.k8s.io; grant it as deploy/gateway/rbac does, or say --events=false"
                    );
                }
                Posted::Forbidden
            }
            400 | 422 => {
                tracing::warn!(object = %key, error = status.message, "the API server does not take an Event");
                Posted::Dropped
            }
            _ => {
                tracing::warn!(object = %key, error = status.message, "an Event was not posted; trying again");
                Posted::Failed
            }
        }
    }
}
