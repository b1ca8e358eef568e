//! Another registry, by the MCP registry API v0.1: all of it, then what changed.
//!
//! Registries may read from registries, but not in a circle: an entry that went round would never
//! go away. So each says of itself, in the header [`PATH_HEADER`], which registries its entries come
//! from; one that finds itself there refuses the source, and drops what it had of it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use http::header::{HeaderMap, HeaderName};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use smol_str::SmolStr;
use url::Url;
use waymark_catalogue::meta::{OFFICIAL, Status};
use waymark_catalogue::validate;

use super::http::{Access, Fetcher};
use super::origin::Cluster;
use super::{Content, Fetched, Rejected, Source, SourceError};
use crate::catalogue::{Handle, Prepared, prepare_own};

/// The header of `/v0.1/version` in which a registry names itself and those that it reads from.
pub const PATH_HEADER: &str = "x-waymark-registry-path";
/// Most registries in a row.
pub const MAX_PATH: usize = 32;
/// Entries of a page: the most that upstream's API allows.
const PAGE: usize = 100;
/// Most bytes of a page: as many entries of the largest size.
const MAX_PAGE: u64 = 32 << 20;
/// Most entries of another registry.
const MAX_ENTRIES: usize = 200_000;
/// How far back beyond the last change is asked: registries round their times, and may show a change
/// after one that was later.
const OVERLAP: Duration = Duration::from_secs(2);
/// When the last change is this long ago, and was asked for once more since, nothing comes beside it.
const QUIET: Duration = Duration::from_secs(10);

/// Where a registry source reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryOrigin {
    /// What `/v0.1/servers` is appended to.
    pub endpoint: Url,
    /// How its server is spoken to.
    pub access: Access,
    /// How often all of it is read, and not only what changed.
    pub full_interval: Duration,
}

/// What is known of an entry that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    /// Fingerprint of what was made of it; `None` where it is not valid.
    digest: Option<[u8; 32]>,
    /// Why it is not valid.
    fault: Option<String>,
}

/// What was read so far.
#[derive(Debug)]
struct Mirror {
    entries: BTreeMap<SmolStr, Known>,
    /// The latest change of any entry; `None` where the registry does not tell of all.
    changed: Option<Timestamp>,
    /// Since when that is the latest one.
    since: Instant,
    /// Whether all that changed with it is known.
    settled: bool,
    /// When all of it was read.
    full: Instant,
}

/// See the module's documentation.
pub struct RegistrySource {
    name: SmolStr,
    origin: RegistryOrigin,
    cluster: Cluster,
    catalogue: Handle,
    mirror: Option<Mirror>,
    path: Vec<String>,
}

/// One item of a page, as leniently as can be: what is wrong with one entry concerns it alone.
struct Item {
    server: Value,
    status: Status,
    message: Option<String>,
    updated: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Page {
    servers: Option<Vec<Value>>,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    next_cursor: Option<String>,
}

impl RegistrySource {
    /// The source `name` of a catalogue, not read yet.
    #[must_use]
    pub fn new(name: SmolStr, origin: RegistryOrigin, cluster: Cluster, catalogue: Handle) -> Self {
        Self { name, origin, cluster, catalogue, mirror: None, path: Vec::new() }
    }

    fn url(&self, path: &str) -> Result<Url, SourceError> {
        let mut url = self.origin.endpoint.clone();
        let base = url.path().trim_end_matches('/');
        let base = base.strip_suffix("/v0.1").or(base.strip_suffix("/v0")).unwrap_or(base);
        let path = format!("{base}/v0.1/{path}");
        url.set_path(&path);
        Ok(url)
    }

    /// Learns which registries the other one reads from, and refuses it where this one is among
    /// them.
    async fn check_path(&mut self, fetcher: &Fetcher) -> Result<(), SourceError> {
        // Other registries say nothing, or have no such path.
        let said = match fetcher.get(&self.url("version")?, &HeaderMap::new(), MAX_PAGE).await {
            Ok(answer) => answer.headers.get(HeaderName::from_static(PATH_HEADER)).cloned(),
            Err(error) if error.reason == "NotFound" || error.reason == "UnexpectedStatus" => None,
            Err(error) => return Err(error),
        };
        let said = said.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
        let named = said.split(',').map(str::trim).filter(|id| !id.is_empty());
        self.path = named.take(MAX_PATH + 1).map(|id| id.chars().take(200).collect()).collect();
        let registries = self.catalogue.registries();
        let own = registries.by_name.values().filter(|r| r.rule.sources.contains(&self.name));
        let own: Vec<(String, SmolStr)> =
            own.map(|r| (r.snapshot().epoch.to_string(), r.name.clone())).collect();
        if let Some((_, registry)) = own.iter().find(|(id, _)| self.path.contains(id)) {
            let message = format!(
                "the registry at {} reads from this one: its registry {registry} is among those that entries come from there. Take one of the two out of the circle",
                self.origin.endpoint
            );
            return Err(SourceError::denied("RegistryLoop", message));
        }
        if self.path.len() >= MAX_PATH {
            let message = format!(
                "the registry at {} is the end of a chain of {MAX_PATH} registries; read from one nearer to the source",
                self.origin.endpoint
            );
            return Err(SourceError::denied("RegistryChainTooLong", message));
        }
        Ok(())
    }

    /// Reads page after page.
    async fn pages(
        &self,
        fetcher: &Fetcher,
        since: Option<Timestamp>,
    ) -> Result<Vec<Item>, SourceError> {
        let mut items = Vec::new();
        let mut cursors = HashSet::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut url = self.url("servers")?;
            url.query_pairs_mut().append_pair("limit", &PAGE.to_string());
            if let Some(since) = since {
                url.query_pairs_mut().append_pair("updated_since", &since.to_string());
            }
            if let Some(cursor) = &cursor {
                url.query_pairs_mut().append_pair("cursor", cursor);
            }
            let answer = fetcher.get(&url, &HeaderMap::new(), MAX_PAGE).await?;
            let page: Page = serde_json::from_slice(&answer.body).map_err(|error| {
                let endpoint = &self.origin.endpoint;
                let message = format!(
                    "{endpoint} does not answer as the MCP registry API v0.1 does: {error}"
                );
                SourceError::invalid("InvalidFormat", message)
            })?;
            items.extend(page.servers.unwrap_or_default().into_iter().map(item));
            if items.len() > MAX_ENTRIES {
                let message = format!(
                    "it has more than {MAX_ENTRIES} entries, which is the most that is read"
                );
                return Err(SourceError::invalid("TooLarge", message));
            }
            match page.metadata.next_cursor.filter(|cursor| !cursor.is_empty()) {
                None => return Ok(items),
                Some(next) if !cursors.insert(next.clone()) => {
                    let message = "its pages go round: it gives the same cursor twice";
                    return Err(SourceError::invalid("InvalidFormat", message));
                }
                Some(next) => cursor = Some(next),
            }
            tracing::debug!(entries = items.len(), "reading pages");
        }
    }

    /// Takes all that there is.
    fn whole(&mut self, items: Vec<Item>) -> Fetched {
        let mut entries = BTreeMap::new();
        let mut good = Vec::new();
        let (mut all_tell, mut latest) = (true, Timestamp::MIN);
        for item in items {
            match item.updated {
                Some(updated) => latest = latest.max(updated),
                // What is no entry at all does not change by itself.
                None => all_tell &= !item.server.is_object(),
            }
            if item.status == Status::Deleted {
                continue;
            }
            let (id, known, prepared) = read(item);
            // Of entries that stand there twice the first counts.
            if let Entry::Vacant(vacant) = entries.entry(id) {
                vacant.insert(known);
                good.extend(prepared);
            }
        }
        let changed = (all_tell && latest > Timestamp::MIN).then_some(latest);
        let mirror = Mirror { entries, changed, ..Mirror::new() };
        let content = mirror.content(good);
        self.mirror = Some(mirror);
        Fetched::Whole(content)
    }

    /// Takes what changed.
    fn changes(mirror: &mut Mirror, items: Vec<Item>) -> Fetched {
        let (mut good, mut removed) = (Vec::new(), Vec::new());
        let mut any = false;
        for item in items {
            if let (Some(updated), Some(changed)) = (item.updated, &mut mirror.changed) {
                *changed = updated.max(*changed);
            }
            let deleted = item.status == Status::Deleted;
            let (id, known, prepared) = read(item);
            if mirror.entries.get(&id) == Some(&known) && !deleted {
                continue;
            }
            let had = mirror.entries.get(&id).is_some_and(|known| known.digest.is_some());
            if had && (deleted || prepared.is_none()) {
                removed.push(id.clone());
            }
            any |= if deleted {
                mirror.entries.remove(&id).is_some()
            } else {
                mirror.entries.insert(id, known);
                true
            };
            good.extend(prepared.filter(|_| !deleted));
        }
        if any {
            Fetched::Changes { content: mirror.content(good), removed }
        } else {
            Fetched::Unchanged
        }
    }
}

impl Mirror {
    fn new() -> Self {
        let now = Instant::now();
        Self { entries: BTreeMap::new(), changed: None, since: now, settled: false, full: now }
    }

    /// From when on changes are asked for; `None` where all has to be read.
    fn asks(&self) -> Option<Timestamp> {
        let changed = self.changed?;
        let asks = if self.settled {
            changed.checked_add(Duration::from_micros(1))
        } else {
            changed.checked_sub(OVERLAP)
        };
        asks.ok()
    }

    /// Notes how it stands after changes were asked for at `asked`.
    fn settle(&mut self, before: Option<Timestamp>, asked: Instant) {
        if self.changed == before {
            self.settled |= asked.duration_since(self.since) >= QUIET;
        } else {
            (self.since, self.settled) = (asked, false);
        }
    }

    fn content(&self, entries: Vec<Prepared>) -> Content {
        let mut hasher = Sha256::new();
        let mut rejected = Vec::new();
        let mut total = 0;
        for (id, known) in &self.entries {
            hasher.update(id.as_bytes());
            hasher.update(known.digest.unwrap_or_default());
            total += usize::from(known.digest.is_some());
            if let Some(message) = &known.fault {
                rejected.push(Rejected { path: id.to_string(), message: message.clone() });
            }
        }
        let hash = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Content { entries, rejected, total, hash }
    }
}

fn item(mut value: Value) -> Item {
    let official = value.pointer_mut(&format!("/_meta/{}", OFFICIAL.replace('/', "~1")));
    let official = official.map(Value::take).unwrap_or_default();
    let text = |key: &str| official.get(key).and_then(Value::as_str);
    let status = text("status").and_then(Status::parse).unwrap_or_default();
    let (updated, message) =
        (text("updatedAt").and_then(|at| at.parse().ok()), text("statusMessage"));
    let message = message.map(|message| message.chars().take(500).collect());
    // A bare server.json in the list is taken too: several registries write it so.
    let server = value.get_mut("server").map(Value::take).unwrap_or(value);
    Item { server, status, message, updated }
}

/// An entry's id, what is to be known of it, and the entry where it is valid.
fn read(item: Item) -> (SmolStr, Known, Option<Prepared>) {
    let part = |key: &str| {
        let text = item.server.get(key).and_then(Value::as_str).unwrap_or("?");
        text.chars().take(255).collect::<String>()
    };
    let id: SmolStr = format!("{}@{}", part("name"), part("version")).into();
    let prepared = validate::server(&item.server)
        .map_err(|violations| {
            let all: Vec<String> = violations.iter().take(5).map(ToString::to_string).collect();
            all.join("; ")
        })
        .and_then(|server| prepare_own(&id, &server).map_err(|refusal| refusal.message));
    match prepared {
        Ok(prepared) => {
            let prepared = prepared.with_status(item.status, item.message);
            let digest = Sha256::digest(&prepared.encoded).into();
            (id, Known { digest: Some(digest), fault: None }, Some(prepared))
        }
        Err(fault) => (id, Known { digest: None, fault: Some(fault) }, None),
    }
}

impl Source for RegistrySource {
    async fn fetch(&mut self) -> Result<Fetched, SourceError> {
        let fetcher = Fetcher::new(&self.origin.access, &self.cluster).await?;
        self.check_path(&fetcher).await?;
        let current = self.mirror.as_ref().filter(|m| m.full.elapsed() < self.origin.full_interval);
        let since = current.and_then(Mirror::asks);
        let asked = Instant::now();
        let items = self.pages(&fetcher, since).await?;
        match (&mut self.mirror, since) {
            (Some(mirror), Some(_)) => {
                let before = mirror.changed;
                let fetched = Self::changes(mirror, items);
                mirror.settle(before, asked);
                Ok(fetched)
            }
            _ => Ok(self.whole(items)),
        }
    }

    fn reset(&mut self) {
        self.mirror = None;
    }

    fn path(&self) -> Vec<String> {
        self.path.clone()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(name: &str, description: &str, status: &str, second: u32) -> Item {
        item(json!({
            "server": {"name": name, "description": description, "version": "1.0.0"},
            "_meta": {OFFICIAL: {
                "status": status, "updatedAt": format!("2026-01-01T00:00:{second:02}Z")}},
        }))
    }

    fn mirror(items: Vec<Item>) -> (Mirror, Content) {
        let mut mirror = Mirror::new();
        let mut good = Vec::new();
        for item in items {
            mirror.changed = mirror.changed.max(item.updated);
            let (id, known, prepared) = read(item);
            mirror.entries.insert(id, known);
            good.extend(prepared);
        }
        let content = mirror.content(good);
        (mirror, content)
    }

    #[test]
    fn what_changed() {
        let first = || {
            vec![
                entry("a.b/one", "d", "active", 1),
                entry("a.b/two", "d", "active", 2),
                entry("bad", "d", "active", 3),
            ]
        };
        let (mut known, before) = mirror(first());
        assert_eq!((before.total, before.rejected.len()), (2, 1));
        // The overlap brings what is known already.
        assert!(matches!(RegistrySource::changes(&mut known, first()), Fetched::Unchanged));
        let news = vec![
            entry("a.b/one", "d", "deleted", 4),
            entry("a.b/two", "other", "deprecated", 5),
            entry("a.b/new", "d", "active", 6),
            entry("a.b/never", "d", "deleted", 6),
        ];
        let Fetched::Changes { content, removed } = RegistrySource::changes(&mut known, news)
        else {
            panic!("nothing changed");
        };
        assert_eq!(removed, ["a.b/one@1.0.0"]);
        let ids: Vec<&str> = content.entries.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!(ids, ["a.b/two@1.0.0", "a.b/new@1.0.0"]);
        assert_eq!(content.entries[0].status.0, Status::Deprecated);
        assert_eq!((content.total, content.rejected.len()), (2, 1));
        assert_ne!(content.hash, before.hash);
        assert_eq!(known.changed, "2026-01-01T00:00:06Z".parse().ok());
        // The same state, read anew, has the same fingerprint.
        let (_, anew) = mirror(vec![
            entry("bad", "d", "active", 3),
            entry("a.b/new", "d", "active", 6),
            entry("a.b/two", "other", "deprecated", 5),
        ]);
        assert_eq!(anew.hash, content.hash);
        // One that becomes bad is taken away.
        let mut worse = entry("a.b/new", "d", "active", 7);
        worse.server["description"] = json!(7);
        let Fetched::Changes { content, removed } =
            RegistrySource::changes(&mut known, vec![worse])
        else {
            panic!("nothing changed");
        };
        assert_eq!((removed.len(), content.total, content.rejected.len()), (1, 1, 2));
    }

    #[test]
    fn what_is_known_is_not_asked_for_for_ever() {
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        let mut mirror = Mirror::new();
        assert_eq!(mirror.asks(), None);
        let latest = at("2026-01-01T00:00:05.5Z");
        mirror.changed = latest;
        let later = |seconds: u64| mirror.since + Duration::from_secs(seconds);
        let (soon, late) = (later(1), later(11));
        mirror.settle(latest, soon);
        assert_eq!(mirror.asks(), at("2026-01-01T00:00:03.5Z"));
        mirror.settle(latest, late);
        assert_eq!(mirror.asks(), at("2026-01-01T00:00:05.500001Z"));
        // Another change begins it anew.
        mirror.changed = at("2026-01-01T00:00:09Z");
        mirror.settle(latest, late);
        assert_eq!(mirror.asks(), at("2026-01-01T00:00:07Z"));
    }
}
