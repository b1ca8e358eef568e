//! The index as its readers share it: one task changes it, a publisher sends what changed, Events tell
//! of it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use smol_str::SmolStr;
use tokio::sync::Notify;

use crate::index::{Changes, Index};
use crate::object::Key;

/// Objects whose changes are noted one by one.
const MAX_JOURNAL: usize = 20_000;

/// An index that one task changes and a publisher reads.
#[derive(Debug)]
pub struct SharedIndex {
    index: RwLock<Index>,
    /// Ids of entries that changed and were not sent yet; nothing while no session is open, because
    /// the next one sends everything.
    pending: Mutex<Option<BTreeSet<SmolStr>>>,
    /// Objects whose explanation changed, for who follows them.
    journal: Mutex<Journal>,
    objects_changed: Notify,
    /// How often entries changed; counted after they are pending.
    updates: AtomicU64,
    pub(crate) wake: Notify,
}

impl SharedIndex {
    /// Shares an index.
    #[must_use]
    pub fn new(index: Index) -> Arc<Self> {
        Arc::new(Self {
            index: RwLock::new(index),
            pending: Mutex::default(),
            journal: Mutex::default(),
            objects_changed: Notify::new(),
            updates: AtomicU64::new(0),
            wake: Notify::new(),
        })
    }

    /// Reads the index.
    pub fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the index; what changed is published.
    pub fn update(&self, change: impl FnOnce(&mut Index) -> Changes) -> Changes {
        let changes = change(&mut self.write());
        self.note_objects(&changes.objects);
        if !changes.entries.is_empty() {
            if let Some(pending) = &mut *self.pending() {
                pending.extend(changes.entries.iter().cloned());
            }
            self.updates.fetch_add(1, Ordering::SeqCst);
            self.wake.notify_one();
        }
        changes
    }

    /// How often entries changed so far; see [`Status::synced_updates`](crate::publisher::Status::synced_updates).
    #[must_use]
    pub fn updates(&self) -> u64 {
        self.updates.load(Ordering::SeqCst)
    }

    /// From now on it is noted which objects' explanations change.
    pub fn record_objects(&self) {
        let mut journal = self.journal();
        if matches!(*journal, Journal::Off) {
            *journal = Journal::Keys(BTreeSet::new());
        }
    }

    /// Waits until an object's explanation has changed since [`Self::take_objects`].
    pub async fn objects_changed(&self) {
        while self.journal().is_empty() {
            self.objects_changed.notified().await;
        }
    }

    /// The objects whose explanations changed since the last call; `None` where they were too many
    /// to note, and every object may be one.
    pub fn take_objects(&self) -> Option<BTreeSet<Key>> {
        let mut journal = self.journal();
        match std::mem::replace(&mut *journal, Journal::Keys(BTreeSet::new())) {
            Journal::Off => Some(BTreeSet::new()),
            Journal::Keys(keys) => Some(keys),
            Journal::All => None,
        }
    }

    pub(crate) fn note_objects<'k>(&self, keys: impl IntoIterator<Item = &'k Key>) {
        let mut journal = self.journal();
        if let Journal::Keys(noted) = &mut *journal {
            noted.extend(keys.into_iter().cloned());
            if noted.len() > MAX_JOURNAL {
                *journal = Journal::All;
            }
        }
        let any = !journal.is_empty();
        drop(journal);
        if any {
            self.objects_changed.notify_one();
        }
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pending(&self) -> MutexGuard<'_, Option<BTreeSet<SmolStr>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which objects' explanations changed.
#[derive(Debug, Default)]
enum Journal {
    /// Nobody wants to know.
    #[default]
    Off,
    Keys(BTreeSet<Key>),
    /// Too many.
    All,
}

impl Journal {
    fn is_empty(&self) -> bool {
        match self {
            Self::Off => true,
            Self::Keys(keys) => keys.is_empty(),
            Self::All => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Kind;

    #[test]
    fn nothing_is_queued_while_no_session_is_open() {
        let shared = SharedIndex::new(Index::default());
        let change = |n: usize| Changes {
            entries: vec![smol_str::format_smolstr!("com.example/{n}")],
            objects: vec![Key::new(Kind::HttpRoute, "apps", n.to_string())],
        };
        shared.update(|_| change(0));
        assert!(shared.pending().is_none());
        assert_eq!(shared.take_objects(), Some(BTreeSet::new()));
        shared.record_objects();
        shared.update(|_| change(1));
        assert_eq!(shared.take_objects().map(|keys| keys.len()), Some(1));
        // Too many to note one by one.
        for n in 0..=MAX_JOURNAL {
            shared.update(|_| change(n));
        }
        assert!(matches!(*shared.journal(), Journal::All));
        assert_eq!(shared.take_objects(), None);
        assert_eq!(shared.take_objects(), Some(BTreeSet::new()));
        assert!(shared.pending().is_none());
    }
}
