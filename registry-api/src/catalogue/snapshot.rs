//! An immutable view of the whole catalogue: what readers see.
//!
//! Persistent maps: a change copies a logarithmic part and shares the rest, so the writer makes
//! a new snapshot per batch and readers keep theirs for as long as they like.

use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;
use jiff::Timestamp;
use memchr::memmem::Finder;
use smol_str::SmolStr;
use waymark_catalogue::version;

use super::query::{Cursor, Page, Query, VersionFilter};
use super::search::SearchIndex;
use super::served::{Key, Served};

type ByKey = OrdMap<Key, Arc<Served>>;

/// The catalogue at one revision.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Identity of the history: another one after the store was lost.
    pub epoch: Arc<str>,
    /// Revision of the last change.
    pub revision: u64,
    /// Deletions up to this revision may be forgotten: a watcher that has seen less starts anew.
    pub compacted: u64,
    all: ByKey,
    /// Those that are not deleted.
    live: ByKey,
    /// Of those, the newest version of each server.
    latest: OrdMap<SmolStr, Arc<Served>>,
    by_revision: OrdMap<u64, Arc<Served>>,
    by_updated: OrdMap<(Timestamp, Key), Arc<Served>>,
    search: SearchIndex,
    deployed: usize,
}

impl Snapshot {
    /// An empty catalogue.
    #[must_use]
    pub fn new(epoch: Arc<str>, revision: u64, compacted: u64) -> Self {
        Self { epoch, revision, compacted, ..Self::default() }
    }

    /// Puts a version in, in place of the one with the same key.
    pub(crate) fn insert(&mut self, served: Arc<Served>) {
        let key = served.key.clone();
        self.take_out(&key);
        self.by_revision.insert(served.revision, served.clone());
        self.by_updated.insert((served.official.updated_at, key.clone()), served.clone());
        if !served.is_deleted() {
            self.live.insert(key.clone(), served.clone());
            self.deployed += usize::from(served.deployed);
            if served.official.is_latest {
                self.latest.insert(key.name.clone(), served.clone());
            }
        }
        self.search.insert(&served);
        self.revision = self.revision.max(served.revision);
        self.all.insert(key, served);
    }

    /// Takes a version out for good.
    pub(super) fn purge(&mut self, key: &Key) {
        if let Some(old) = self.all.get(key) {
            self.compacted = self.compacted.max(old.revision);
        }
        self.take_out(key);
    }

    fn take_out(&mut self, key: &Key) {
        let Some(old) = self.all.remove(key) else {
            return;
        };
        self.deployed -= usize::from(self.live.remove(key).is_some_and(|s| s.deployed));
        self.search.remove(key);
        if self.latest.get(&key.name).is_some_and(|latest| latest.key == *key) {
            self.latest.remove(&key.name);
        }
        self.by_revision.remove(&old.revision);
        self.by_updated.remove(&(old.official.updated_at, old.key.clone()));
    }

    /// Grows with every new snapshot that differs in what it shows: with every change, and when
    /// deletions are forgotten.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.revision + self.compacted
    }

    /// Number of versions that are not deleted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether there is nothing but deleted ones.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Number of versions that run in a cluster and are not deleted.
    #[must_use]
    pub fn deployed(&self) -> usize {
        self.deployed
    }

    /// Number of servers that are not deleted.
    #[must_use]
    pub fn servers(&self) -> usize {
        self.latest.len()
    }

    /// One version, deleted or not.
    #[must_use]
    pub fn get(&self, name: &str, version: &str) -> Option<&Arc<Served>> {
        self.all.get(&Key { name: name.into(), version: version.into() })
    }

    /// The newest version of a server; a deleted one only where asked for.
    #[must_use]
    pub fn latest<'s>(&'s self, name: &'s str, include_deleted: bool) -> Option<&'s Arc<Served>> {
        self.latest.get(name).or_else(|| {
            let mut versions = self.versions_of(name).filter(|_| include_deleted);
            versions.find(|served| served.official.is_latest)
        })
    }

    /// All versions of a server in text order, deleted ones too.
    pub fn versions_of<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s Arc<Served>> {
        let from = Key { name: name.into(), version: SmolStr::default() };
        self.all.range(from..).map(|(_, served)| served).take_while(move |s| s.key.name == name)
    }

    /// All versions of a server, newest first.
    #[must_use]
    pub fn versions(&self, name: &str, include_deleted: bool) -> Vec<Arc<Served>> {
        let mut versions: Vec<Arc<Served>> = self
            .versions_of(name)
            .filter(|s| include_deleted || !s.is_deleted())
            .cloned()
            .collect();
        versions.sort_by(|a, b| {
            version::compare(
                (&b.key.version, b.official.published_at),
                (&a.key.version, a.official.published_at),
            )
        });
        versions
    }

    /// What changed after a revision, in the order of revisions.
    pub fn since(&self, revision: u64) -> impl Iterator<Item = &Arc<Served>> {
        let after = (Bound::Excluded(revision), Bound::Unbounded);
        self.by_revision.range(after).map(|(_, served)| served)
    }

    /// Everything that is not deleted, in the order of names.
    pub fn live(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.live.values()
    }

    /// Everything that is deleted.
    pub(super) fn deleted(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.all.values().filter(|served| served.is_deleted())
    }

    /// One page.
    #[must_use]
    pub fn list(&self, query: &Query) -> Page {
        let deleted = query.include_deleted || query.updated_since.is_some();
        if let Some(since) = query.updated_since {
            // What changed since is mostly little: found by time, then put in order.
            let from = (since, Key { name: SmolStr::default(), version: SmolStr::default() });
            let mut changed: Vec<&Arc<Served>> =
                self.by_updated.range(from..).map(|(_, served)| served).collect();
            return self.sorted(&mut changed, query);
        }
        // A text that many entries hold fills a page soon; for others the search index is asked.
        match &query.search {
            Some(text) => self.ordered(query, deleted, SCAN).unwrap_or_else(|| {
                let found = self.search.find(text.as_bytes());
                let shown = |served: &&Arc<Served>| deleted || !served.is_deleted();
                self.sorted(&mut found.filter(shown).collect(), query)
            }),
            None => self.ordered(query, deleted, usize::MAX).unwrap_or_default(),
        }
    }

    /// A page of candidates that are in no order.
    fn sorted(&self, candidates: &mut Vec<&Arc<Served>>, query: &Query) -> Page {
        if let Some(after) = &query.after {
            candidates.retain(|served| served.key > *after);
        }
        candidates.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        page(candidates.iter().copied(), query)
    }

    /// A page in the order of keys; `None` where `most` entries were not enough to fill it.
    fn ordered(&self, query: &Query, deleted: bool, most: usize) -> Option<Page> {
        let bound = |after: &Option<Key>| match after {
            Some(key) => Bound::Excluded(key.clone()),
            None => Bound::Unbounded,
        };
        match (&query.version, deleted) {
            (VersionFilter::Latest, false) => {
                // One version per name: the name alone is the position. A page that ended at
                // another version of the name it ended with has shown that name.
                let after = query.after.as_ref().map(|key| key.name.clone());
                let from = after.map_or(Bound::Unbounded, Bound::Excluded);
                within(self.latest.range((from, Bound::Unbounded)).map(|(_, s)| s), query, most)
            }
            (_, false) => {
                let range = (bound(&query.after), Bound::Unbounded);
                within(self.live.range(range).map(|(_, s)| s), query, most)
            }
            (_, true) => {
                let range = (bound(&query.after), Bound::Unbounded);
                within(self.all.range(range).map(|(_, s)| s), query, most)
            }
        }
    }
}

/// How many entries are looked at for a searched text before the search index is asked.
const SCAN: usize = 512;

/// A page of ordered candidates; `None` where `most` of them were looked at and more are left.
fn within<'s>(
    mut candidates: impl Iterator<Item = &'s Arc<Served>>,
    query: &Query,
    most: usize,
) -> Option<Page> {
    let page = page(candidates.by_ref().take(most), query);
    let complete = page.next.is_some() || candidates.next().is_none();
    complete.then_some(page)
}

fn page<'s>(candidates: impl Iterator<Item = &'s Arc<Served>>, query: &Query) -> Page {
    let finder = query.search.as_ref().map(Finder::new);
    let mut matching = candidates.filter(|served| {
        let version = match &query.version {
            VersionFilter::All => true,
            VersionFilter::Latest => served.official.is_latest,
            VersionFilter::Exact(version) => served.key.version == *version,
        };
        version && finder.as_ref().is_none_or(|f| f.find(served.search_text()).is_some())
    });
    let items: Vec<Arc<Served>> = matching.by_ref().take(query.limit).cloned().collect();
    let more = items.len() == query.limit && matching.next().is_some();
    let last = items.last().filter(|_| more);
    let next = last.map(|served| Cursor(served.key.clone()));
    Page { items, next }
}
