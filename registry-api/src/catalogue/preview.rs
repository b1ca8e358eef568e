//! What the registry would serve: the writer's own merge, without a writer.

use std::sync::Arc;

use jiff::Timestamp;
use smol_str::SmolStr;
use waymark_proto::v1;

use super::layout::{CURATED, Layout};
use super::merging::State;
use super::prepared::{Prepared, Refusal, prepare};
use super::served::Served;
use super::snapshot::Snapshot;

/// What would be served, and what would not.
#[derive(Debug, Default)]
pub struct Preview {
    /// The servers, ordered by name and version.
    pub servers: Vec<Arc<Served>>,
    /// Entries of the publisher that would not be served.
    pub refused: Vec<(SmolStr, Refusal)>,
}

/// Merges a curated catalogue with the entries of one publisher, as [`Layout::default`] has it.
#[must_use]
pub fn preview(curated: Vec<Prepared>, published: &[v1::Entry]) -> Preview {
    let layout = Layout::default();
    let mut state = State::new(Snapshot::default());
    let mut refused = Vec::new();
    let (catalogue, publisher) =
        (SmolStr::new_static(CURATED), SmolStr::new_static("preview/publisher"));
    let own = curated.into_iter().map(|entry| (&catalogue, entry));
    let mut all: Vec<(&SmolStr, Prepared)> = own.collect();
    for entry in published {
        let id = SmolStr::from(entry.id.as_str());
        match prepare(entry) {
            Ok(prepared) => match layout.misdirected(&publisher, &prepared) {
                None => all.push((&publisher, prepared)),
                Some(refusal) => refused.push((id, refusal)),
            },
            Err(refusal) => refused.push((id, refusal)),
        }
    }
    for (source, entry) in all {
        for rule in &layout.registries {
            if let Some(precedence) = layout.precedence(rule, source, &entry) {
                state.upsert(source, precedence, &entry, rule.remotes);
            }
        }
    }
    state.settle(Timestamp::UNIX_EPOCH);
    let of_publisher = state.refusals().filter(|((source, _), _)| *source == publisher);
    refused.extend(of_publisher.map(|((_, id), refusal)| (id.clone(), refusal.clone())));
    refused.sort_by(|(a, _), (b, _)| a.cmp(b));
    Preview { servers: state.snapshot.live().cloned().collect(), refused }
}
