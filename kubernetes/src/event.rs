//! Posts Kubernetes Events (`events.k8s.io/v1`).
//!
//! kube's own recorder counts Events of one reason about one object as one, whatever they say; here
//! only the same text is the same Event.

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

/// Most bytes of a note (`events.k8s.io/v1` Event.note: "less than 1kB").
const MAX_NOTE: usize = 1000;
/// How long the same Event on the same object counts as one series (as client-go has it).
const SERIES: Duration = Duration::from_secs(6 * 60);
/// Most Events that are remembered for series.
const MAX_RECENT: usize = 4096;

/// One Event to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Why, in CamelCase: `EndpointDiscovered`, a problem's code.
    pub reason: &'static str,
    /// What to say: a sentence or two.
    pub note: String,
    /// Whether the Event's type is Warning; else Normal.
    pub warning: bool,
    /// The how-manyth notice about the object it is: with it the same notice, told again after a
    /// crash, is known as the same.
    pub number: u32,
}

impl Notice {
    /// A notice whose text is cut to what an Event may hold.
    #[must_use]
    pub fn new(reason: &'static str, note: &str, warning: bool, number: u32) -> Self {
        let mut note = note.trim_end().to_owned();
        if note.len() > MAX_NOTE {
            let mut end = MAX_NOTE;
            while !note.is_char_boundary(end) {
                end -= 1;
            }
            note.truncate(end);
            note.push('…');
        }
        Self { reason, note, warning, number }
    }
}

/// Who posts Events.
#[derive(Debug, Clone)]
pub struct Reporter {
    /// `reportingController`.
    pub controller: &'static str,
    /// `reportingInstance`: which replica of it.
    pub instance: String,
    /// `action` of its Normal Events: what the controller does.
    pub action: &'static str,
    /// How to do without Events, for the message that says that RBAC does not allow them.
    pub or_else: &'static str,
}

/// What became of an Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posted {
    /// It is there.
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

/// Posts Events, and counts those that come again.
pub struct Poster {
    client: Client,
    reporter: Reporter,
    /// By object, reason and note.
    recent: HashMap<u64, Recent>,
    forbidden: bool,
}

impl Poster {
    /// Has posted nothing yet.
    #[must_use]
    pub fn new(client: Client, reporter: Reporter) -> Self {
        Self { client, reporter, recent: HashMap::new(), forbidden: false }
    }

    /// Posts a notice about an object. The same one again within six minutes is counted in the Event
    /// that is there.
    pub async fn post(&mut self, regarding: &ObjectReference, notice: &Notice) -> Posted {
        let namespace = regarding.namespace.as_deref().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let uid = regarding.uid.as_deref().unwrap_or_default();
        let key = shown(regarding);
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
                Err(error) => return self.failed(&error, "patch", regarding),
            }
        }
        let event = self.event(regarding, notice, content);
        let name = event.metadata.name.clone().unwrap_or_default();
        let posted = match api.create(&PostParams::default(), &event).await {
            Ok(_) => Posted::Done,
            Err(kube::Error::Api(status)) if status.code == 409 => Posted::Known,
            Err(error) => self.failed(&error, "create", regarding),
        };
        if matches!(posted, Posted::Done | Posted::Known) && self.recent.len() < MAX_RECENT {
            self.recent.insert(content, Recent { name, count: 1, last: Instant::now() });
        }
        posted
    }

    fn event(&self, regarding: &ObjectReference, notice: &Notice, content: u64) -> Event {
        // The number is part of the name: what comes again later is another Event.
        let name: String = regarding.name.iter().flat_map(|name| name.chars()).take(200).collect();
        let name = format!("{name}.{:016x}", content ^ u64::from(notice.number).rotate_left(32));
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: regarding.namespace.clone(),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(jiff::Timestamp::now())),
            action: Some(if notice.warning { "Resolve" } else { self.reporter.action }.to_owned()),
            reason: Some(notice.reason.to_owned()),
            note: Some(notice.note.clone()),
            type_: Some(if notice.warning { "Warning" } else { "Normal" }.to_owned()),
            regarding: Some(regarding.clone()),
            reporting_controller: Some(self.reporter.controller.to_owned()),
            reporting_instance: Some(self.reporter.instance.chars().take(128).collect()),
            ..Event::default()
        }
    }

    fn failed(&mut self, error: &kube::Error, verb: &str, about: &ObjectReference) -> Posted {
        let key = shown(about);
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
                        namespace = about.namespace,
                        "RBAC does not allow to {verb} events.events.k8s.io; grant it as deploy/gateway/rbac does{}",
                        self.reporter.or_else
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

/// An object, for people.
fn shown(object: &ObjectReference) -> String {
    let [kind, namespace, name] = [&object.kind, &object.namespace, &object.name]
        .map(|part| part.as_deref().unwrap_or_default());
    format!("{kind} {namespace}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_bounded() {
        let notice = Notice::new("Reason", &"ü".repeat(2000), true, 1);
        assert!(notice.note.len() <= 1004 && notice.note.ends_with('…'), "{}", notice.note.len());
        assert_eq!(Notice::new("Reason", "short ", true, 1).note, "short");
    }
}
