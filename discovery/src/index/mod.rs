//! The index: objects in, changed entries and explanations out.
//!
//! It owns compact copies of the objects, resolves the opted-in ones (*sources*), and keeps for
//! each what the resolver read. When an object changes, the sources that read it (or looked for
//! it in vain) are resolved again at the next [`Index::commit`], and nothing else. Names are
//! assigned by the module `names`. The outcome is a function of the objects alone: the order of events
//! leaves no trace (`tests/index_equivalence.rs`).

mod edges;
mod explain;
mod names;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ahash::{HashMap, RandomState};
use hashbrown::HashTable;
use smol_str::{SmolStr, format_smolstr};
use waymark_catalogue::merge::Link;

pub use explain::Counts;

use crate::entry::{self, Entry, Findings, Share};
use crate::finding::Finding;
use crate::object::{Key, Kind, Meta, Object, Parsed, Transport};
use crate::problem::Problem;
use crate::resolver::{self, Naming, Offer, Resolution};
use crate::settings::Settings;
use edges::{Edges, Reads};
use names::{ClaimId, Member, Names, Rank};
use store::{Recorder, Store};

/// Identifies a source within the index.
type SourceId = u32;

/// An opted-in object, resolved.
#[derive(Debug)]
struct Source {
    /// Its key and age.
    rank: Arc<Rank>,
    resolution: Resolution,
    reads: Reads,
    /// Per offer: the claim it is a member of, or the entry of its link.
    shares: Vec<Standing>,
}

#[derive(Debug, Clone)]
enum Standing {
    Claim(ClaimId),
    Linked(SmolStr),
}

/// What a commit changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Ids of entries that are new, changed or gone ([`Index::entry`] tells which).
    pub entries: Vec<SmolStr>,
    /// Objects whose explanation may have changed.
    pub objects: Vec<Key>,
}

impl Changes {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.objects.is_empty()
    }
}

/// The index. See the module's documentation.
#[derive(Debug, Default)]
pub struct Index {
    settings: Settings,
    store: Store,
    /// Sources by key.
    ids: HashTable<SourceId>,
    hasher: RandomState,
    sources: Vec<Option<Box<Source>>>,
    free: Vec<SourceId>,
    edges: Edges,
    names: Names,
    /// Which source's offer a linked entry comes from.
    links: HashMap<SmolStr, (SourceId, usize)>,
    /// Fingerprints of the entries as of the last commit.
    committed: HashMap<SmolStr, u64>,
    /// What probes found out, by URL.
    findings: Findings,
    /// Sources whose findings changed.
    touched_findings: Vec<SourceId>,
    /// What the registry says against entries.
    rejections: HashMap<SmolStr, Problem>,
    /// Sources to resolve again, and keys that may be a source now.
    dirty: BTreeSet<SourceId>,
    candidates: Vec<Key>,
    /// Linked entries to look at again.
    touched_links: BTreeSet<SmolStr>,
}

impl Index {
    /// An empty index.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// The settings it works by.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Makes room for objects, of which some are opted in: what a first list knows beforehand.
    pub fn reserve(&mut self, objects: usize, opted_in: usize) {
        self.store.reserve(objects);
        let Self { ids, sources, hasher, .. } = self;
        ids.reserve(opted_in, |id| hash_of(sources, hasher, *id));
        sources.reserve(opted_in);
        self.names.reserve(opted_in);
        self.committed.reserve(opted_in);
        self.candidates.reserve(opted_in);
    }

    /// Takes in an object, or that it is not opted in.
    pub fn apply(&mut self, parsed: Parsed) {
        match parsed {
            Parsed::Object(object) => self.upsert(object),
            Parsed::NotAnnotated(key) => self.remove(&key),
            Parsed::Other => {}
        }
    }

    /// Takes in an object, new or changed.
    pub fn upsert(&mut self, object: Object) {
        let key = object.key();
        if !self.store.insert(&key, object) {
            return;
        }
        self.mark(&key);
    }

    /// Takes in that an object is gone.
    pub fn remove(&mut self, key: &Key) {
        if self.store.remove(key) {
            self.mark(key);
        }
    }

    /// Keys of all objects that it knows.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.store.keys()
    }

    fn mark(&mut self, key: &Key) {
        if key.kind == Kind::ReferenceGrant {
            self.dirty.extend(self.edges.readers(&store::grants_key(&key.namespace)));
            return;
        }
        self.dirty.extend(self.edges.readers(key));
        if key.kind == Kind::HttpRoute || key.kind.is_mcp() {
            self.candidates.push(key.clone());
        }
    }

    /// Resolves what the objects taken in since the last commit can affect, and tells what
    /// changed.
    pub fn commit(&mut self) -> Changes {
        let mut changes = Changes::default();
        let mut changed: Vec<SourceId> = Vec::new();
        for key in std::mem::take(&mut self.candidates) {
            let id = self.id(&key);
            if let Some(id) = id {
                self.dirty.remove(&id);
            }
            self.resolve(key, id, &mut changed, &mut changes);
        }
        for id in std::mem::take(&mut self.dirty) {
            if let Some(key) = self.source(id).map(|source| source.rank.key.clone()) {
                self.resolve(key, Some(id), &mut changed, &mut changes);
            }
        }
        let (touched, affected) = self.names.take_changes();
        changed.extend(affected);
        changed.append(&mut self.touched_findings);
        changed.sort_unstable();
        changed.dedup();
        for id in changed {
            if let Some(source) = self.source(id) {
                changes.objects.push(source.rank.key.clone());
            }
        }
        let links = std::mem::take(&mut self.touched_links);
        for id in touched.into_iter().chain(links) {
            let fingerprint = self.with_shares(&id, |_, link, shares| {
                entry::fingerprint(link, shares, &self.findings)
            });
            let changed = match fingerprint {
                Some(fingerprint) => {
                    self.committed.insert(id.clone(), fingerprint) != Some(fingerprint)
                }
                None => {
                    self.rejections.remove(&id);
                    self.committed.remove(&id).is_some()
                }
            };
            if changed {
                changes.entries.push(id);
            }
        }
        changes
    }

    fn id(&self, key: &Key) -> Option<SourceId> {
        let is_key = |id: &SourceId| self.source(*id).is_some_and(|source| source.rank.key == *key);
        self.ids.find(self.hasher.hash_one(key), is_key).copied()
    }

    fn source(&self, id: SourceId) -> Option<&Source> {
        self.sources.get(id as usize)?.as_deref()
    }

    fn resolve(
        &mut self,
        key: Key,
        id: Option<SourceId>,
        changed: &mut Vec<SourceId>,
        changes: &mut Changes,
    ) {
        let recorder = Recorder::new(&self.store);
        let object = self.store.get(&key);
        let resolution =
            object.and_then(|object| resolver::resolve(object, &recorder, &self.settings));
        let reads = recorder.into_reads();
        let created = object.and_then(|object| meta(object)?.created);
        match (id, resolution) {
            (None, None) => {}
            (Some(id), None) => {
                changes.objects.push(key);
                self.forget(id);
            }
            (None, Some(resolution)) => {
                let rank = Arc::new(Rank { created, key });
                let id = self.free.pop().unwrap_or_else(|| {
                    self.sources.push(None);
                    SourceId::try_from(self.sources.len() - 1).unwrap_or(SourceId::MAX)
                });
                let reads = self.edges.replace(id, &[], reads);
                let shares = self.attach(id, &rank, &resolution);
                let hash = self.hasher.hash_one(&rank.key);
                changed.push(id);
                let source = Box::new(Source { rank, resolution, reads, shares });
                if let Some(slot) = self.sources.get_mut(id as usize) {
                    *slot = Some(source);
                }
                let Self { ids, sources, hasher, .. } = self;
                ids.insert_unique(hash, id, |id| hash_of(sources, hasher, *id));
            }
            (Some(id), Some(resolution)) => self.update(id, created, resolution, reads, changed),
        }
    }

    fn update(
        &mut self,
        id: SourceId,
        created: Option<i64>,
        resolution: Resolution,
        reads: Vec<Key>,
        changed: &mut Vec<SourceId>,
    ) {
        let Some(Some(mut source)) = self.sources.get_mut(id as usize).map(Option::take) else {
            return;
        };
        source.reads = self.edges.replace(id, &source.reads, reads);
        let same_names = source.rank.created == created
            && source.resolution.offers.len() == resolution.offers.len()
            && source.resolution.offers.iter().zip(&resolution.offers).all(|(old, new)| {
                (&old.identity, &old.naming, gateway(old))
                    == (&new.identity, &new.naming, gateway(new))
            });
        if same_names {
            for share in &source.shares {
                match share {
                    Standing::Claim(claim) => self.names.touch(*claim),
                    Standing::Linked(entry) => {
                        self.touched_links.insert(entry.clone());
                    }
                }
            }
        } else {
            self.detach(id, &source.shares);
            source.rank = Arc::new(Rank { created, key: source.rank.key.clone() });
            source.shares = self.attach(id, &source.rank, &resolution);
        }
        if source.resolution != resolution {
            changed.push(id);
        }
        source.resolution = resolution;
        if let Some(slot) = self.sources.get_mut(id as usize) {
            *slot = Some(source);
        }
    }

    fn forget(&mut self, id: SourceId) {
        let Some(Some(source)) = self.sources.get_mut(id as usize).map(Option::take) else {
            return;
        };
        self.edges.replace(id, &source.reads, Vec::new());
        self.detach(id, &source.shares);
        let hash = self.hasher.hash_one(&source.rank.key);
        if let Ok(entry) = self.ids.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
        self.free.push(id);
    }

    fn attach(&mut self, id: SourceId, rank: &Arc<Rank>, resolution: &Resolution) -> Vec<Standing> {
        let key = &rank.key;
        let standing = |(at, offer): (usize, &Offer)| match &offer.naming {
            Naming::Named { name, explicit } => {
                let member = Member {
                    rank: Arc::clone(rank),
                    source: id,
                    offer: offer_id(at),
                    explicit: *explicit,
                    gateway: gateway(offer).cloned(),
                };
                Standing::Claim(self.names.attach(&offer.identity, name, member))
            }
            Naming::Linked(_) => {
                let entry =
                    format_smolstr!("link:{}/{}/{}#{at}", key.kind, key.namespace, key.name);
                self.links.insert(entry.clone(), (id, at));
                self.touched_links.insert(entry.clone());
                Standing::Linked(entry)
            }
        };
        resolution.offers.iter().enumerate().map(standing).collect()
    }

    fn detach(&mut self, id: SourceId, shares: &[Standing]) {
        for (at, share) in shares.iter().enumerate() {
            match share {
                Standing::Claim(claim) => self.names.detach(*claim, id, offer_id(at)),
                Standing::Linked(entry) => {
                    self.links.remove(entry);
                    self.touched_links.insert(entry.clone());
                }
            }
        }
    }

    /// Ids of all entries as of the last commit.
    pub fn entry_ids(&self) -> impl Iterator<Item = &SmolStr> {
        self.committed.keys()
    }

    /// The entry of an id; `None` where it is gone.
    #[must_use]
    pub fn entry(&self, id: &str) -> Option<Entry> {
        self.with_shares(id, |name, link, shares| {
            entry::build(id, name, link, shares, &self.findings)
        })
    }

    /// Hands an entry's server name, link and shares to `make`.
    fn with_shares<T>(
        &self,
        id: &str,
        make: impl FnOnce(&str, Option<&Link>, &[Share<'_>]) -> T,
    ) -> Option<T> {
        if let Some((source, at)) = self.links.get(id) {
            let source = self.source(*source)?;
            let offer = source.resolution.offers.get(*at)?;
            let Naming::Linked(link) = &offer.naming else { return None };
            return Some(make(&link.name, Some(link), &[self.share(source, offer)?]));
        }
        let claim = self.names.holder(id)?;
        let shares: Vec<Share<'_>> = claim
            .members()
            .filter_map(|member| {
                let source = self.source(member.source)?;
                self.share(source, source.resolution.offers.get(member.offer as usize)?)
            })
            .collect();
        Some(make(id, None, &shares))
    }

    /// URLs that can be probed: those of external streamable HTTP endpoints.
    #[must_use]
    pub fn probe_urls(&self) -> BTreeSet<SmolStr> {
        let offers = self.sources.iter().flatten().flat_map(|source| &source.resolution.offers);
        let endpoints = offers.flat_map(|offer| &offer.endpoints);
        endpoints
            .filter(|endpoint| endpoint.external && endpoint.transport == Transport::StreamableHttp)
            .map(|endpoint| endpoint.url.clone())
            .collect()
    }

    /// Takes in what probes found out, by URL; the next commit tells what it changes.
    pub fn set_findings(&mut self, mut findings: BTreeMap<SmolStr, Finding>) {
        findings.retain(|url, finding| self.findings.get(url) != Some(finding));
        if findings.is_empty() {
            return;
        }
        for (id, source) in (0..).zip(&self.sources) {
            let Some(source) = source else { continue };
            for (offer, share) in source.resolution.offers.iter().zip(&source.shares) {
                if !offer.endpoints.iter().any(|e| findings.contains_key(&e.url)) {
                    continue;
                }
                self.touched_findings.push(id);
                match share {
                    Standing::Claim(claim) => self.names.touch(*claim),
                    Standing::Linked(entry) => {
                        self.touched_links.insert(entry.clone());
                    }
                }
            }
        }
        self.findings.extend(findings);
    }

    /// Forgets findings about other URLs.
    pub fn retain_findings(&mut self, urls: &BTreeSet<SmolStr>) {
        self.findings.retain(|url, _| urls.contains(url));
    }

    fn share<'i>(&'i self, source: &'i Source, offer: &'i Offer) -> Option<Share<'i>> {
        let object = self.store.get(&source.rank.key)?;
        let annotations = match object {
            Object::HttpRoute(route) => &route.annotations,
            Object::Mcp(resource) => &resource.annotations,
            _ => return None,
        };
        Some(Share {
            source: &source.rank.key,
            meta: meta(object)?,
            annotations,
            resource: self.store.mcp(&offer.identity),
            endpoints: &offer.endpoints,
        })
    }

    /// Every entry, by id.
    #[must_use]
    pub fn entries(&self) -> BTreeMap<SmolStr, Entry> {
        self.committed.keys().filter_map(|id| Some((id.clone(), self.entry(id)?))).collect()
    }
}

fn meta(object: &Object) -> Option<&Meta> {
    match object {
        Object::HttpRoute(route) => Some(&route.meta),
        Object::Mcp(resource) => Some(&resource.meta),
        _ => None,
    }
}

fn hash_of(sources: &[Option<Box<Source>>], hasher: &RandomState, id: SourceId) -> u64 {
    let source = sources.get(id as usize).and_then(Option::as_ref);
    source.map_or(0, |source| hasher.hash_one(&source.rank.key))
}

/// The Gateway (or ListenerSet) by which the preferred URL of an offer is reached.
fn gateway(offer: &Offer) -> Option<&SmolStr> {
    let via = offer.endpoints.first().map(|endpoint| &endpoint.via.parent);
    via.filter(|via| !via.kind.is_mcp()).map(|via| &via.name)
}

/// An offer's index as it is stored; an object never has so many rules that it would not fit.
fn offer_id(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
