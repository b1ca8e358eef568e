//! How sources stand, for whoever shows it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use smol_str::SmolStr;
use tokio::sync::watch;

use super::{Rejected, SourceError};

/// How far a source is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// It was not read yet.
    #[default]
    Pending,
    /// The last attempt was good.
    Complete,
    /// The last attempt failed; what was there before is served.
    Failed,
}

impl Phase {
    /// The name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Complete => "complete",
            Self::Failed => "failed",
        }
    }
}

/// How a source stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SourceStatus {
    /// How far it is.
    pub phase: Phase,
    /// When it was last read well.
    pub last_sync: Option<Timestamp>,
    /// When what it has last changed.
    pub last_change: Option<Timestamp>,
    /// When it was last tried.
    pub last_attempt: Option<Timestamp>,
    /// Attempts since the last good one.
    pub attempts: u32,
    /// What is wrong.
    pub failure: Option<SourceError>,
    /// Good entries that it had when it was last read well.
    pub entries: usize,
    /// Fingerprint of what it had then.
    pub hash: Option<String>,
    /// How many of its entries were not taken.
    pub rejected: usize,
    /// The first of them.
    pub listed: Vec<Rejected>,
    /// What was done when it was asked to be read: the last trigger that was followed.
    pub trigger: Option<String>,
    /// Of another registry: the registries that its entries come from, itself first.
    pub path: Vec<String>,
}

#[derive(Debug, Default)]
struct All {
    by_name: Mutex<BTreeMap<SmolStr, SourceStatus>>,
    changes: watch::Sender<u64>,
}

/// How all sources stand.
#[derive(Debug, Clone, Default)]
pub struct Statuses(Arc<All>);

impl Statuses {
    /// How a source stands.
    #[must_use]
    pub fn get(&self, name: &str) -> SourceStatus {
        self.all().get(name).cloned().unwrap_or_default()
    }

    /// Wakes whenever one of them changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Forgets a source.
    pub fn forget(&self, name: &str) {
        self.all().remove(name);
    }

    /// The registries that entries of these sources come from.
    #[must_use]
    pub fn paths(&self, sources: &[SmolStr]) -> Vec<String> {
        let all = self.all();
        let mut path: Vec<String> = Vec::new();
        for id in sources.iter().filter_map(|name| all.get(name)).flat_map(|s| &s.path) {
            if !path.contains(id) {
                path.push(id.clone());
            }
        }
        path
    }

    pub(super) fn change(&self, name: &SmolStr, change: impl FnOnce(&mut SourceStatus)) {
        change(self.all().entry(name.clone()).or_default());
        self.0.changes.send_modify(|number| *number = number.wrapping_add(1));
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<SmolStr, SourceStatus>> {
        self.0.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
