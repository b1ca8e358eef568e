//! What the registry would serve: the writer's own merge, without a writer.

use std::sync::Arc;

use jiff::Timestamp;
use smol_str::SmolStr;
use waymark_proto::v1;

use super::merging::State;
use super::prepared::{Prepared, Refusal, prepare};
use super::served::Served;
use super::snapshot::Snapshot;
use super::writer::{CURATED, CURATED_PRECEDENCE, PUBLISHER_PRECEDENCE};

/// What would be served, and what would not.
#[derive(Debug, Default)]
pub struct Preview {
    /// The servers, ordered by name and version.
    pub servers: Vec<Arc<Served>>,
    /// Entries of the publisher that would not be served.
    pub refused: Vec<(SmolStr, Refusal)>,
}

/// Merges a curated catalogue with the entries of one publisher.
#[must_use]
pub fn preview(curated: Vec<Prepared>, published: &[v1::Entry]) -> Preview {
    let mut state = State::new(Snapshot::default());
    for entry in curated {
        state.upsert(&SmolStr::new_static(CURATED), CURATED_PRECEDENCE, entry, true);
    }
    let publisher = SmolStr::new_static("preview");
    for entry in published {
        match prepare(entry) {
            Ok(prepared) => state.upsert(&publisher, PUBLISHER_PRECEDENCE, prepared, true),
            Err(refusal) => state.refuse(&publisher, &entry.id.as_str().into(), refusal),
        }
    }
    state.settle(Timestamp::UNIX_EPOCH);
    let news = state.take_news().remove(&publisher).unwrap_or_default();
    Preview {
        servers: state.snapshot.live().cloned().collect(),
        refused: news.into_iter().filter_map(|(id, refusal)| Some((id, refusal?))).collect(),
    }
}
