//! How the watches stand, for readiness and metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::scope::Target;
use crate::object::Kind;

/// How one watch stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchState {
    /// Whether everything was listed once, or the kind is known not to be installed.
    pub listed: bool,
    /// Whether the API server does not serve the kind.
    pub missing: bool,
    /// How often it broke.
    pub breaks: u64,
    /// What stands in its way now: the last error, until something is received again.
    pub error: Option<String>,
}

/// How all watches stand.
#[derive(Debug, Clone, Default)]
pub struct Watches(Arc<Mutex<BTreeMap<Target, WatchState>>>);

impl Watches {
    /// Every watch, named by its resource and namespace, and how it stands.
    #[must_use]
    pub fn all(&self) -> Vec<(String, WatchState)> {
        self.states().iter().map(|(target, state)| (target.to_string(), state.clone())).collect()
    }

    /// Per kind: how often its watches broke, and whether all of them have listed.
    pub(crate) fn by_kind(&self) -> Vec<(Kind, u64, bool)> {
        let mut kinds: BTreeMap<Kind, (u64, bool)> = BTreeMap::new();
        for (target, state) in self.states().iter() {
            let (breaks, listed) = kinds.entry(target.kind).or_insert((0, true));
            *breaks += state.breaks;
            *listed &= state.listed;
        }
        kinds.into_iter().map(|(kind, (breaks, listed))| (kind, breaks, listed)).collect()
    }

    pub(super) fn expect(&self, targets: &[Target]) {
        self.states().extend(targets.iter().map(|t| (t.clone(), WatchState::default())));
    }

    pub(super) fn listed(&self, target: &Target, missing: bool) {
        self.change(target, |state| {
            state.listed = true;
            state.missing = missing;
            state.error = None;
        });
    }

    pub(super) fn alive(&self, target: &Target) {
        self.change(target, |state| state.error = None);
    }

    /// Notes an error; tells whether it is another one than before.
    pub(super) fn broke(&self, target: &Target, error: &str) -> bool {
        let mut states = self.states();
        let state = states.entry(target.clone()).or_default();
        state.breaks += 1;
        let news = state.error.as_deref() != Some(error);
        state.error = Some(error.to_owned());
        news
    }

    fn change(&self, target: &Target, change: impl FnOnce(&mut WatchState)) {
        change(self.states().entry(target.clone()).or_default());
    }

    fn states(&self) -> MutexGuard<'_, BTreeMap<Target, WatchState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
