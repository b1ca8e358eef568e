//! The writer's working state: contributions in, changed versions and refusals out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use smol_str::SmolStr;
use waymark_catalogue::merge::{Contribution, Outcome, merge};
use waymark_catalogue::meta::{Official, Status};
use waymark_catalogue::version;

use super::layout::Remotes;
use super::prepared::{Prepared, Refusal};
use super::served::{Key, Served};
use super::snapshot::Snapshot;
use crate::store::{RegistryBatch, StoredEntry};

/// Source and id of a contribution.
pub(super) type Origin = (SmolStr, SmolStr);

#[derive(PartialEq)]
struct Standing {
    target: SmolStr,
    visible: bool,
    contribution: Contribution,
    status: (Status, Option<String>),
}

/// A version as it is to be served.
struct Wanted {
    server: Arc<str>,
    stale: bool,
    status: Status,
    message: Option<String>,
}

/// See the module's documentation.
pub(super) struct State {
    pub(super) snapshot: Snapshot,
    standings: HashMap<Origin, Standing>,
    /// Contributions by the server name that they contribute to.
    targets: HashMap<SmolStr, BTreeSet<Origin>>,
    /// What stands against contributions.
    refusals: HashMap<Origin, Refusal>,
    /// Contributions whose refusal may have changed since it was last told.
    retell: BTreeSet<Origin>,
    stale: HashSet<SmolStr>,
    /// Server names to merge again.
    touched: BTreeSet<SmolStr>,
    batch: RegistryBatch,
    clock: Timestamp,
}

impl State {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        // Times never go back, whatever the system's clock does.
        let newest = snapshot.since(0).map(|served| served.official.updated_at).max();
        Self {
            snapshot,
            standings: HashMap::new(),
            targets: HashMap::new(),
            refusals: HashMap::new(),
            retell: BTreeSet::new(),
            stale: HashSet::new(),
            touched: BTreeSet::new(),
            batch: RegistryBatch::default(),
            clock: newest.unwrap_or(Timestamp::UNIX_EPOCH),
        }
    }

    /// Takes a contribution in, at a precedence and as the registry shows it.
    pub(super) fn upsert(
        &mut self,
        source: &SmolStr,
        precedence: u32,
        entry: &Prepared,
        remotes: Remotes,
    ) {
        let origin = (source.clone(), entry.id.clone());
        let (server, visible) = entry.shown(remotes);
        let new = Standing {
            target: entry.target().clone(),
            visible,
            contribution: Contribution {
                precedence,
                source: source.clone(),
                id: entry.id.clone(),
                version: entry.version.clone(),
                server,
                link: entry.link.clone(),
            },
            status: entry.status.clone(),
        };
        self.retell.insert(origin.clone());
        self.refusals.remove(&origin);
        self.touched.insert(new.target.clone());
        if self.standings.get(&origin) == Some(&new) {
            // The same again, as in a full state: only the outcome is looked at.
            return;
        }
        self.untarget(&origin);
        self.targets.entry(new.target.clone()).or_default().insert(origin.clone());
        self.standings.insert(origin, new);
    }

    /// Takes a contribution out.
    pub(super) fn remove(&mut self, source: &SmolStr, id: &SmolStr) {
        let origin = (source.clone(), id.clone());
        self.refusals.remove(&origin);
        self.untarget(&origin);
        if self.standings.remove(&origin).is_some() {
            self.retell.insert(origin);
        }
    }

    /// Takes in a version as another process serves it.
    pub(super) fn adopt(&mut self, served: Served) {
        self.clock = self.clock.max(served.official.updated_at);
        self.snapshot.insert(Arc::new(served));
    }

    /// Puts what is served back to an earlier state, and merges these names again.
    pub(super) fn roll_back(&mut self, snapshot: Snapshot, names: impl Iterator<Item = SmolStr>) {
        self.snapshot = snapshot;
        self.batch = RegistryBatch::default();
        self.touched.extend(names);
    }

    /// Forgets deletions that another process has forgotten.
    pub(super) fn forget(&mut self, before: Timestamp, compacted: u64) {
        let old = self.snapshot.deleted().filter(|s| s.official.updated_at < before);
        let old: Vec<Key> = old.map(|served| served.key.clone()).collect();
        for key in old {
            self.snapshot.purge(&key);
        }
        self.snapshot.compacted = self.snapshot.compacted.max(compacted);
    }

    /// What stands against a contribution.
    pub(super) fn refusal(&self, origin: &Origin) -> Option<&Refusal> {
        self.refusals.get(origin)
    }

    /// Contributions that are not served, and why.
    pub(super) fn refusals(&self) -> impl Iterator<Item = (&Origin, &Refusal)> {
        self.refusals.iter()
    }

    fn untarget(&mut self, origin: &Origin) {
        let Some(standing) = self.standings.get(origin) else {
            return;
        };
        self.touched.insert(standing.target.clone());
        if let Some(origins) = self.targets.get_mut(&standing.target) {
            origins.remove(origin);
            if origins.is_empty() {
                self.targets.remove(&standing.target);
            }
        }
    }

    /// Marks the entries of a source stale, or no longer so.
    pub(super) fn set_stale(&mut self, source: &SmolStr, stale: bool) {
        let changed =
            if stale { self.stale.insert(source.clone()) } else { self.stale.remove(source) };
        if changed {
            let of_source = self.standings.iter().filter(|(origin, _)| origin.0 == *source);
            self.touched.extend(of_source.map(|(_, standing)| standing.target.clone()));
        }
    }

    /// Looks again at all that is served without anybody contributing it: a curated file that is
    /// no longer configured.
    pub(super) fn touch_orphans(&mut self) {
        let orphans = self.snapshot.live().filter(|s| !self.targets.contains_key(&s.key.name));
        let orphans: Vec<SmolStr> = orphans.map(|served| served.key.name.clone()).collect();
        self.touched.extend(orphans);
    }

    /// Forgets deletions that are older than `before`.
    pub(super) fn purge(&mut self, before: Timestamp) {
        let old = self.snapshot.deleted().filter(|s| s.official.updated_at < before);
        let old: Vec<Key> = old.map(|served| served.key.clone()).collect();
        for key in old {
            self.snapshot.purge(&key);
            self.batch.purged.push(key);
        }
    }

    /// Merges every name that was touched, and gives what has to become durable.
    pub(super) fn settle(&mut self, now: Timestamp) -> RegistryBatch {
        let now = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
        self.clock = self.clock.max(now);
        for name in std::mem::take(&mut self.touched) {
            self.merge_name(&name);
        }
        self.batch.revision = self.snapshot.revision;
        self.batch.compacted = self.snapshot.compacted;
        std::mem::take(&mut self.batch)
    }

    /// Contributions whose refusal may have changed since the last call.
    pub(super) fn take_retell(&mut self) -> BTreeSet<Origin> {
        std::mem::take(&mut self.retell)
    }

    fn judge(&mut self, origin: Origin, refusal: Option<Refusal>) {
        if self.refusals.get(&origin) == refusal.as_ref() {
            return;
        }
        match refusal {
            Some(refusal) => self.refusals.insert(origin.clone(), refusal),
            None => self.refusals.remove(&origin),
        };
        self.retell.insert(origin);
    }

    fn merge_name(&mut self, name: &SmolStr) {
        let origins: Vec<Origin> = self.targets.get(name).into_iter().flatten().cloned().collect();
        let standings: Vec<(&Origin, &Standing)> = origins
            .iter()
            .filter_map(|origin| Some((origin, self.standings.get(origin)?)))
            .filter(|(_, standing)| standing.visible)
            .collect();
        let contributions: Vec<&Contribution> =
            standings.iter().map(|(_, standing)| &standing.contribution).collect();
        let merged = merge(&contributions);
        let source =
            |at: usize| contributions.get(at).map(|c| c.source.clone()).unwrap_or_default();
        let verdicts: Vec<(Origin, Option<Refusal>)> = standings
            .iter()
            .zip(&merged.outcomes)
            .map(|((origin, standing), outcome)| {
                let refusal = match outcome {
                    Outcome::Served | Outcome::Joined => None,
                    Outcome::Shadowed { by } => Some(Refusal::new(
                        "EntryShadowed",
                        format!("{name} {} is already served from {}. Use another name or version.", standing.contribution.version, source(*by)),
                    )),
                    Outcome::Unlinked => Some(Refusal::new(
                        "LinkedEntryNotFound",
                        format!("The catalogue has no entry {name}{}. Correct the annotation registry-server, or add the entry to the catalogue.",
                            standing.contribution.link.as_ref().and_then(|l| l.version.as_ref()).map(|v| format!(" {v}")).unwrap_or_default()),
                    )),
                };
                ((*origin).clone(), refusal)
            })
            .collect();
        let mut wanted: BTreeMap<SmolStr, Wanted> = merged
            .entries
            .into_iter()
            .map(|entry| {
                let stale = self.stale.contains(&source(entry.from));
                let status = standings.get(entry.from).map(|(_, standing)| standing.status.clone());
                let (status, message) = status.unwrap_or((Status::Active, None));
                (entry.version, Wanted { server: entry.server, stale, status, message })
            })
            .collect();
        for (origin, refusal) in verdicts {
            self.judge(origin, refusal);
        }
        self.serve(name, &mut wanted);
    }

    /// Brings the versions of a server to what is wanted.
    fn serve(&mut self, name: &SmolStr, wanted: &mut BTreeMap<SmolStr, Wanted>) {
        let now = self.clock;
        // Version, document, record, stale, whether the entry itself changed.
        let mut versions: Vec<(SmolStr, Arc<str>, Official, bool)> = Vec::new();
        let existing: Vec<Arc<Served>> = self.snapshot.versions_of(name).cloned().collect();
        for old in &existing {
            let mut official = old.official.clone();
            let (server, stale, status, message) = match wanted.remove(&old.key.version) {
                Some(Wanted { server, stale, status, message }) => {
                    if *server != *old.server_text() {
                        official.updated_at = now;
                    }
                    (server, stale, status, message)
                }
                None => (Arc::from(old.server_text()), false, Status::Deleted, None),
            };
            if official.status != status {
                official.status = status;
                official.status_changed_at = now;
                official.updated_at = now;
            }
            if official.status_message != message {
                official.status_message = message;
                official.updated_at = now;
            }
            versions.push((old.key.version.clone(), server, official, stale));
        }
        for (version, Wanted { server, stale, status, message }) in std::mem::take(wanted) {
            let official = Official {
                status,
                status_changed_at: now,
                status_message: message,
                published_at: now,
                updated_at: now,
                is_latest: false,
            };
            versions.push((version, server, official, stale));
        }
        let latest = versions
            .iter()
            .max_by(|(a, _, a_official, _), (b, _, b_official, _)| {
                let live = |official: &Official| official.status != Status::Deleted;
                live(a_official).cmp(&live(b_official)).then_with(|| {
                    version::compare((a, a_official.published_at), (b, b_official.published_at))
                })
            })
            .map(|(version, ..)| version.clone());
        for (version, server, mut official, stale) in versions {
            official.is_latest = latest.as_ref() == Some(&version);
            let same = existing.iter().find(|old| old.key.version == version).is_some_and(|old| {
                old.official == official && old.stale == stale && *old.server_text() == *server
            });
            if !same {
                let revision = self.snapshot.revision + 1;
                let key = Key { name: name.clone(), version };
                self.batch.entries.push(StoredEntry {
                    key: key.clone(),
                    server: server.to_string(),
                    official: official.clone(),
                    stale,
                    revision,
                });
                self.snapshot
                    .insert(Arc::new(Served::new(key, &server, official, revision, stale)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::prepared::prepare;
    use super::super::query::{Query, VersionFilter};
    use super::*;
    use serde_json::json;
    use waymark_proto::v1;

    fn entry(id: &str, name: &str, version: &str, description: &str) -> v1::Entry {
        let server = json!({"name": name, "description": description, "version": version,
            "remotes": [{"type": "sse", "url": format!("https://x/{id}")}]});
        v1::Entry {
            id: id.into(),
            server_json: server.to_string().into_bytes().into(),
            ..v1::Entry::default()
        }
    }

    fn state() -> State {
        State::new(Snapshot::new("e".into(), 0, 0))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn put(state: &mut State, source: &str, entry: &v1::Entry) {
        state.upsert(&source.into(), 10, &prepare(entry).unwrap(), Remotes::External);
    }

    fn shown(state: &State, query: &Query) -> Vec<String> {
        let page = state.snapshot.list(query);
        page.items.iter().map(|s| format!("{} {}", s.key.name, s.key.version)).collect()
    }

    #[test]
    fn times_change_only_when_the_entry_does() {
        let mut state = state();
        put(&mut state, "p", &entry("1", "a.b/c", "1.0.0", "d"));
        let batch = state.settle(at(10));
        assert_eq!(batch.entries.len(), 1);
        put(&mut state, "p", &entry("1", "a.b/c", "1.0.0", "d"));
        assert!(state.settle(at(20)).is_empty(), "the same again stores nothing");
        put(&mut state, "p", &entry("1", "a.b/c", "1.0.0", "other"));
        state.settle(at(30));
        let official = state.snapshot.get("a.b/c", "1.0.0").unwrap().official.clone();
        assert_eq!((official.published_at, official.updated_at), (at(10), at(30)));
        assert_eq!(official.status_changed_at, at(10));
        // A clock that goes back does not take times back.
        put(&mut state, "p", &entry("1", "a.b/c", "1.0.0", "third"));
        state.settle(at(5));
        assert_eq!(state.snapshot.get("a.b/c", "1.0.0").unwrap().official.updated_at, at(30));
    }

    #[test]
    fn latest_moves_and_deleted_ones_come_back() {
        let mut state = state();
        put(&mut state, "p", &entry("1", "a.b/c", "1.9.0", "d"));
        put(&mut state, "p", &entry("2", "a.b/c", "1.10.0", "d"));
        state.settle(at(1));
        let latest = Query { version: VersionFilter::Latest, ..Query::default() };
        assert_eq!(shown(&state, &latest), ["a.b/c 1.10.0"]);
        state.remove(&"p".into(), &"2".into());
        let batch = state.settle(at(2));
        assert_eq!(batch.entries.len(), 2, "one deleted, one latest again");
        assert_eq!(shown(&state, &latest), ["a.b/c 1.9.0"]);
        let deleted = Query { include_deleted: true, ..Query::default() };
        assert_eq!(shown(&state, &deleted), ["a.b/c 1.10.0", "a.b/c 1.9.0"]);
        let gone = state.snapshot.get("a.b/c", "1.10.0").unwrap();
        assert_eq!(
            (gone.official.status, gone.official.status_changed_at),
            (Status::Deleted, at(2))
        );
        put(&mut state, "p", &entry("2", "a.b/c", "1.10.0", "d"));
        state.settle(at(3));
        let back = &state.snapshot.get("a.b/c", "1.10.0").unwrap().official;
        assert_eq!((back.status, back.published_at, back.is_latest), (Status::Active, at(1), true));
        state.remove(&"p".into(), &"1".into());
        state.settle(at(4));
        state.purge(at(5));
        let batch = state.settle(at(6));
        assert_eq!(batch.purged.len(), 1);
        assert_eq!(shown(&state, &deleted), ["a.b/c 1.10.0"]);
        assert!(batch.compacted > 0);
    }

    #[test]
    fn refusals_are_told_when_they_come_and_when_they_go() {
        let mut state = state();
        let mut linked = entry("l", "x.y/z", "1.0.0", "d");
        linked.link = Some(v1::Link { name: "a.b/c".into(), version: String::new() });
        put(&mut state, "p", &linked);
        put(&mut state, "q", &entry("1", "n.m/o", "1.0.0", "first"));
        put(&mut state, "r", &entry("1", "n.m/o", "1.0.0", "second"));
        state.settle(at(1));
        let told = state.take_retell();
        assert_eq!(told.len(), 3);
        let code = |state: &State, source: &str, id: &str| {
            state.refusal(&(source.into(), id.into())).map(|refusal| refusal.code)
        };
        assert_eq!(code(&state, "p", "l"), Some("LinkedEntryNotFound"));
        assert_eq!((code(&state, "q", "1"), code(&state, "r", "1")), (None, Some("EntryShadowed")));
        put(&mut state, "q", &entry("2", "a.b/c", "1.0.0", "d"));
        state.remove(&"q".into(), &"1".into());
        state.settle(at(2));
        let told = state.take_retell();
        for (source, id) in [("p", "l"), ("r", "1")] {
            assert!(told.contains(&(source.into(), id.into())), "{told:?}");
            assert_eq!(code(&state, source, id), None);
        }
        let joined = state.snapshot.get("a.b/c", "1.0.0").unwrap().server_text().to_owned();
        assert!(joined.contains("https://x/l"), "{joined}");
    }

    #[test]
    fn pages_cover_everything_once() {
        let mut state = state();
        for n in 0..50 {
            let text = if n % 7 == 0 { "Special" } else { "plain" };
            put(&mut state, "p", &entry(&n.to_string(), &format!("a.b/{n:02}"), "1.0.0", text));
        }
        state.settle(at(1));
        for version in [VersionFilter::All, VersionFilter::Latest] {
            for limit in [1, 7, 49, 50, 100] {
                let mut query = Query { limit, version: version.clone(), ..Query::default() };
                let mut seen = Vec::new();
                loop {
                    let page = state.snapshot.list(&query);
                    seen.extend(page.items.iter().map(|served| served.key.name.clone()));
                    match page.next {
                        Some(cursor) => query.after = Some(cursor.0),
                        None => break,
                    }
                }
                let mut once = seen.clone();
                once.dedup();
                assert_eq!((seen.len(), once.len()), (50, 50), "limit {limit}");
            }
        }
        let mut query = Query::default();
        query.search("SPECIAL").unwrap();
        assert_eq!(shown(&state, &query).len(), 8);
    }
}
