//! Who holds which server name.
//!
//! Every claim has a chain of names that it would take, best first: an explicit name alone, or a
//! derived one and its suffixed forms. Claims have a place in one order, older ones first
//! (Gateway API's rule for conflicts). Each name goes to the first claim that can get nothing
//! better. As all names order the claims alike, exactly one assignment fulfils this, so the
//! outcome cannot depend on the order of events, and a change is mended locally: who loses a name
//! goes down its chain, who could do better with a name that became free moves up.

use std::cmp::Ordering;
use std::sync::Arc;

use ahash::{HashMap, RandomState};
use hashbrown::HashTable;
use smol_str::{SmolStr, format_smolstr};
use waymark_catalogue::ServerName;

use super::SourceId;
use crate::object::{Key, Kind};

/// Identifies a claim.
pub(super) type ClaimId = u32;

/// Age of an object, then namespace and name: the order in which claims are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rank {
    /// Creation time; `None` for those that were not created yet, which are youngest.
    pub(super) created: Option<i64>,
    pub(super) key: Key,
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        fn parts(rank: &Rank) -> (bool, Option<i64>, &str, &str, Kind) {
            let Key { kind, namespace, name } = &rank.key;
            (rank.created.is_none(), rank.created, namespace, name, *kind)
        }
        parts(self).cmp(&parts(other))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// One offer of one source, as a member of a claim.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member {
    pub(super) rank: Arc<Rank>,
    pub(super) source: SourceId,
    pub(super) offer: u32,
    /// Whether an annotation says the name, so that it gets no suffix.
    pub(super) explicit: bool,
    /// Name of the Gateway: the first suffix. The namespace is the second.
    pub(super) gateway: Option<SmolStr>,
}

/// One server that wants a name: an identity under one base name, with all its members.
#[derive(Debug)]
pub(super) struct Claim {
    identity: Key,
    /// The name that it would take first.
    base: SmolStr,
    /// Oldest first. The oldest one's word on suffixes counts.
    members: Vec<Member>,
    /// Level of its chain at which it holds a name.
    holds: Option<u8>,
    /// On how many levels it stands in line: up to the one it holds.
    in_line: u8,
}

impl Claim {
    /// Members, oldest first.
    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }

    /// The name that it would take first.
    pub(super) fn wanted(&self) -> &SmolStr {
        &self.base
    }

    /// The name that it holds, and whether it is the one it wanted first.
    pub(super) fn held(&self) -> Option<(SmolStr, bool)> {
        let level = self.holds?;
        Some((self.name(level)?, level == 0))
    }

    /// The name at a level of its chain: the base, then with one suffix more each time. Names
    /// that are too long are left out.
    fn name(&self, level: u8) -> Option<SmolStr> {
        if level == 0 {
            return Some(self.base.clone());
        }
        let oldest = self.members.first().filter(|member| !member.explicit)?;
        let mut name = self.base.clone();
        let mut valid =
            oldest.gateway.iter().chain([&oldest.rank.key.namespace]).filter_map(|suffix| {
                let longer = format_smolstr!("{name}-{suffix}");
                let valid = ServerName::parse(&longer).is_ok();
                valid.then(|| {
                    name = longer;
                    name.clone()
                })
            });
        valid.nth(usize::from(level) - 1)
    }

    /// By the oldest member, then by identity. One source may claim one name for several
    /// identities, never for one identity twice, so this never leaves a tie.
    fn place(&self, other: &Self) -> Ordering {
        fn rank(claim: &Claim) -> Option<&Rank> {
            claim.members.first().map(|member| &*member.rank)
        }
        rank(self).cmp(&rank(other)).then_with(|| self.identity.cmp(&other.identity))
    }
}

#[derive(Debug, Default)]
struct Name {
    holder: Option<ClaimId>,
    /// Claims that hold it or would rather have it than what they hold, in their order.
    line: Vec<ClaimId>,
}

/// All claims and names.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Claims by identity and base.
    table: HashTable<ClaimId>,
    hasher: RandomState,
    claims: Vec<Option<Box<Claim>>>,
    free: Vec<ClaimId>,
    names: HashMap<SmolStr, Name>,
    /// Names whose holder, or whose holder's members, changed. In the order of the changes, which
    /// is that of the memory; a name that stands in it twice does no harm.
    touched: Vec<SmolStr>,
    /// Sources of claims whose standing changed.
    affected: Vec<SourceId>,
}

impl Names {
    pub(super) fn claim(&self, id: ClaimId) -> Option<&Claim> {
        self.claims.get(id as usize)?.as_deref()
    }

    fn claim_mut(&mut self, id: ClaimId) -> Option<&mut Claim> {
        self.claims.get_mut(id as usize)?.as_deref_mut()
    }

    /// Makes room for claims, most of which will have a name of their own.
    pub(super) fn reserve(&mut self, claims: usize) {
        let Self { table, claims: all, names, hasher, .. } = self;
        names.reserve(claims);
        table.reserve(claims, |id| hash_of(all, hasher, *id));
        all.reserve(claims);
    }

    pub(super) fn holder(&self, name: &str) -> Option<&Claim> {
        self.claim(self.names.get(name)?.holder?)
    }

    /// The names and sources that changed since the last call.
    pub(super) fn take_changes(&mut self) -> (Vec<SmolStr>, Vec<SourceId>) {
        (std::mem::take(&mut self.touched), std::mem::take(&mut self.affected))
    }

    /// Notes that a member of a claim changed in other respects than its names.
    pub(super) fn touch(&mut self, id: ClaimId) {
        let Some(Some(claim)) = self.claims.get(id as usize) else { return };
        if let Some((name, _)) = claim.held() {
            self.touched.push(name);
            // What the oldest member says counts for all of them.
            self.affected.extend(claim.members.iter().map(|member| member.source));
        }
    }

    /// Adds a member to the claim of an identity and a base name.
    pub(super) fn attach(&mut self, identity: &Key, base: &SmolStr, member: Member) -> ClaimId {
        let hash = self.hasher.hash_one((identity, base));
        let is_it = |id: &ClaimId| {
            self.claim(*id).is_some_and(|c| c.identity == *identity && c.base == *base)
        };
        let id = match self.table.find(hash, is_it).copied() {
            Some(id) => {
                self.lift(id);
                id
            }
            None => self.insert(hash, identity.clone(), base.clone()),
        };
        if let Some(claim) = self.claim_mut(id) {
            let at = claim.members.partition_point(|other| *other < member);
            claim.members.insert(at, member);
        }
        self.mend(vec![id], Vec::new());
        id
    }

    fn insert(&mut self, hash: u64, identity: Key, base: SmolStr) -> ClaimId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.claims.push(None);
            ClaimId::try_from(self.claims.len() - 1).unwrap_or(ClaimId::MAX)
        });
        if let Some(slot) = self.claims.get_mut(id as usize) {
            let members = Vec::with_capacity(1);
            let claim = Claim { identity, base, members, holds: None, in_line: 0 };
            *slot = Some(Box::new(claim));
        }
        let Self { table, claims, hasher, .. } = self;
        table.insert_unique(hash, id, |id| hash_of(claims, hasher, *id));
        id
    }

    /// Takes a source's offer out of a claim; an empty claim is gone.
    pub(super) fn detach(&mut self, id: ClaimId, source: SourceId, offer: u32) {
        self.lift(id);
        let Some(claim) = self.claim_mut(id) else { return };
        claim.members.retain(|member| (member.source, member.offer) != (source, offer));
        if !claim.members.is_empty() {
            self.mend(vec![id], Vec::new());
            return;
        }
        let Some(claim) = self.claims.get_mut(id as usize).and_then(Option::take) else { return };
        let hash = self.hasher.hash_one((&claim.identity, &claim.base));
        if let Ok(entry) = self.table.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
        self.free.push(id);
    }

    /// Takes a claim out of all lines.
    fn lift(&mut self, id: ClaimId) {
        let held = self.claim(id).and_then(Claim::held);
        self.leave_lines(id, 0);
        self.hold(id, None);
        if let Some((held, _)) = held {
            self.touched.push(held.clone());
            if let Some(state) = self.names.get_mut(&held) {
                state.holder = None;
            }
            self.mend(Vec::new(), vec![held]);
        }
    }

    /// Takes a claim out of the lines from a level on.
    fn leave_lines(&mut self, id: ClaimId, from: u8) {
        let Some(claim) = self.claim(id) else { return };
        let names: Vec<SmolStr> = (from..claim.in_line).filter_map(|l| claim.name(l)).collect();
        let Self { claims, names: lines, .. } = self;
        let Some(Some(claim)) = claims.get(id as usize) else { return };
        for name in names {
            let Some(state) = lines.get_mut(&name) else { continue };
            if let Ok(at) = search(claims, &state.line, claim) {
                state.line.remove(at);
            }
            if state.line.is_empty() {
                lines.remove(&name);
            }
        }
        if let Some(claim) = self.claim_mut(id) {
            claim.in_line = from.min(claim.in_line);
        }
    }

    /// Puts a claim into the line for its name at a level.
    fn join_line(&mut self, id: ClaimId, level: u8, name: &SmolStr) {
        let Self { claims, names, .. } = self;
        let Some(Some(claim)) = claims.get(id as usize) else { return };
        if level < claim.in_line {
            return;
        }
        let state = names.entry(name.clone()).or_default();
        if let Err(at) = search(claims, &state.line, claim) {
            state.line.insert(at, id);
        }
        if let Some(claim) = self.claim_mut(id) {
            claim.in_line = level + 1;
        }
    }

    fn hold(&mut self, id: ClaimId, level: Option<u8>) {
        if let Some(Some(claim)) = self.claims.get_mut(id as usize) {
            claim.holds = level;
            self.affected.extend(claim.members.iter().map(|member| member.source));
        }
    }

    /// Settles claims that hold nothing, and fills names that became free, until nobody can do
    /// better. Each step gives a name to an earlier claim or fills a free one, so it ends.
    fn mend(&mut self, mut unsettled: Vec<ClaimId>, mut vacant: Vec<SmolStr>) {
        loop {
            if let Some(id) = unsettled.pop() {
                if let Some(displaced) = self.settle(id) {
                    unsettled.push(displaced);
                }
            } else if let Some(name) = vacant.pop() {
                if let Some(left) = self.fill(&name) {
                    vacant.push(left);
                }
            } else {
                return;
            }
        }
    }

    /// Gives a claim the first name of its chain that is free or held by a later claim, which is
    /// returned.
    fn settle(&mut self, id: ClaimId) -> Option<ClaimId> {
        let mut level = 0;
        loop {
            let name = self.claim(id)?.name(level)?;
            self.join_line(id, level, &name);
            let holder = self.names.get(&name)?.holder;
            let yields = match holder.and_then(|holder| self.claim(holder)) {
                None => true,
                Some(holder) => self.claim(id)?.place(holder) == Ordering::Less,
            };
            if yields {
                if let Some(displaced) = holder {
                    self.hold(displaced, None);
                }
                self.give(id, level, name);
                return holder;
            }
            level += 1;
        }
    }

    fn give(&mut self, id: ClaimId, level: u8, name: SmolStr) {
        if let Some(state) = self.names.get_mut(&name) {
            state.holder = Some(id);
        }
        self.hold(id, Some(level));
        self.touched.push(name);
    }

    /// Gives a free name to the first claim in line that holds nothing better; returns the name
    /// that it leaves.
    fn fill(&mut self, name: &SmolStr) -> Option<SmolStr> {
        let state = self.names.get(name)?;
        if state.holder.is_some() {
            return None;
        }
        let (id, level, left) = state.line.iter().find_map(|id| {
            let claim = self.claim(*id)?;
            let level = (0..claim.in_line).find(|l| claim.name(*l).as_ref() == Some(name))?;
            let better = claim.holds.is_none_or(|holds| level < holds);
            better.then(|| (*id, level, claim.held().map(|(held, _)| held)))
        })?;
        if let Some(left) = &left {
            self.touched.push(left.clone());
            if let Some(state) = self.names.get_mut(left) {
                state.holder = None;
            }
        }
        self.leave_lines(id, level + 1);
        self.give(id, level, name.clone());
        left
    }
}

fn hash_of(claims: &[Option<Box<Claim>>], hasher: &RandomState, id: ClaimId) -> u64 {
    let claim = claims.get(id as usize).and_then(Option::as_ref);
    claim.map_or(0, |claim| hasher.hash_one((&claim.identity, &claim.base)))
}

/// Where a claim stands, or would stand, in a line.
fn search(claims: &[Option<Box<Claim>>], line: &[ClaimId], claim: &Claim) -> Result<usize, usize> {
    line.binary_search_by(|other| {
        let other = claims.get(*other as usize).and_then(Option::as_deref);
        other.map_or(Ordering::Less, |other| other.place(claim))
    })
}
