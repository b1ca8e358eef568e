//! Sources and registries: what there is, how it stands, and what is not served and why.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::{Api, json_response};
use crate::catalogue::{Diagnostics, SourceDiagnostics};
use crate::config::{Source, SourceKind};
use crate::source::{Phase, SourceStatus};

fn refused(diagnostics: &SourceDiagnostics) -> Value {
    let listed = diagnostics.listed.iter().map(|(registry, id, refusal)| {
        // Where it stands in all registries alike, none is named.
        let registry = Some(registry).filter(|name| !name.is_empty());
        json!({
            "entry": id,
            "code": refusal.code,
            "message": refusal.message,
            "registry": registry,
        })
    });
    json!({"count": diagnostics.refused, "first": listed.collect::<Vec<Value>>()})
}

fn source(source: &Source, status: &SourceStatus, diagnostics: &Diagnostics) -> Value {
    let own = match source.kind {
        // What publishers contribute stands under their own names.
        SourceKind::Discovery(_) => {
            let mut all = SourceDiagnostics::default();
            for (_, of) in diagnostics.sources.iter().filter(|(name, _)| name.contains('/')) {
                all.entries += of.entries;
                all.refused += of.refused;
                all.listed.extend(of.listed.iter().cloned());
            }
            all
        }
        _ => diagnostics.sources.get(&source.name).cloned().unwrap_or_default(),
    };
    let phase = if source.kind.is_read() { status.phase } else { Phase::Complete };
    let rejected: Vec<Value> = status
        .listed
        .iter()
        .map(|rejected| json!({"entry": rejected.path, "message": rejected.message}))
        .collect();
    json!({
        "name": source.name,
        "type": source.kind.as_str(),
        "syncSchedule": source.policy.interval.map(|interval| format!("{interval:?}")),
        "filterConfig": source.filter,
        "syncStatus": {
            "phase": phase.as_str(),
            "lastSyncTime": status.last_sync.map(|time| time.to_string()),
            "lastAttempt": status.last_attempt.map(|time| time.to_string()),
            "attemptCount": status.attempts,
            "serverCount": own.entries,
            "lastChange": status.last_change.map(|time| time.to_string()),
            "hash": status.hash,
            "reason": status.failure.as_ref().map(|failure| failure.reason),
            "message": status.failure.as_ref().map(|failure| &failure.message),
        },
        "rejected": {"count": status.rejected, "first": rejected},
        "notServed": refused(&own),
    })
}

pub(super) async fn sources(State(api): State<Api>) -> Response {
    let (running, diagnostics) = (api.0.shown.running.load(), api.0.catalogue.diagnostics());
    let all = running
        .sources
        .iter()
        .map(|of| source(of, &api.0.shown.statuses.get(&of.name), &diagnostics));
    let publishers = diagnostics.sources.iter().filter(|(name, _)| name.contains('/'));
    let publishers: BTreeMap<&str, Value> = publishers
        .map(|(name, of)| {
            let about =
                json!({"serverCount": of.entries, "stale": of.stale, "notServed": refused(of)});
            (name.as_str(), about)
        })
        .collect();
    let body = json!({"sources": all.collect::<Vec<Value>>(), "publishers": publishers});
    json_response(StatusCode::OK, &body)
}

pub(super) async fn registries(State(api): State<Api>) -> Response {
    let all = api.0.catalogue.registries();
    let registries: Vec<Value> = all
        .by_name
        .values()
        .map(|registry| {
            let snapshot = registry.snapshot();
            json!({
                "name": registry.name,
                "default": registry.name == all.default.name,
                "sources": registry.rule.sources,
                "remotes": registry.rule.remotes.as_str(),
                "serverCount": snapshot.servers(),
                "versionCount": snapshot.len(),
                "revision": snapshot.revision,
                "url": format!("/registry/{}", registry.name),
            })
        })
        .collect();
    json_response(StatusCode::OK, &json!({ "registries": registries }))
}
