//! Who holds which server name.
//!
//! Every claim has a chain of names that it would take, best first: an explicit name alone, or a
//! derived one and its suffixed forms. Claims have a rank, older ones first (Gateway API's rule
//! for conflicts). Each name goes to the best-ranked claim that can get nothing better. As all
//! names rank the claims alike, exactly one assignment fulfils this, so the outcome cannot depend
//! on the order of events, and a change is mended locally: who loses a name goes down its chain,
//! who could do better with a name that became free moves up.

use std::collections::{BTreeSet, HashMap, HashSet};

use smol_str::SmolStr;

use super::SourceId;
use crate::object::{Key, Kind};

/// Identifies a claim.
pub(super) type ClaimId = u32;

/// Age of an object, then namespace and name: the order in which claims are served.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Creation time; those that were not created yet are youngest.
    pub(super) created: i64,
    pub(super) namespace: SmolStr,
    pub(super) name: SmolStr,
    pub(super) kind: Kind,
}

/// One offer of one source, as a member of a claim.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member {
    pub(super) rank: Rank,
    pub(super) source: SourceId,
    pub(super) offer: usize,
    /// Names that the member would take, best first.
    pub(super) chain: Vec<SmolStr>,
}

/// One server that wants a name: an identity under one base name, with all its members.
#[derive(Debug)]
pub(super) struct Claim {
    key: (Key, SmolStr),
    members: BTreeSet<Member>,
    /// Index in the oldest member's chain of the name that it holds.
    holds: Option<usize>,
}

impl Claim {
    /// Members, oldest first.
    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }

    fn chain(&self) -> &[SmolStr] {
        self.members.first().map(|member| &member.chain[..]).unwrap_or_default()
    }

    /// The name that it would take first.
    pub(super) fn wanted(&self) -> Option<&SmolStr> {
        self.chain().first()
    }

    /// The name that it holds, and whether it is the one it wanted first.
    pub(super) fn held(&self) -> Option<(&SmolStr, bool)> {
        let at = self.holds?;
        Some((self.chain().get(at)?, at == 0))
    }

    fn place(&self, id: ClaimId) -> Option<Place> {
        Some((self.members.first()?.rank.clone(), self.key.0.clone(), id))
    }
}

/// Order of claims for one name: by the oldest member, then by identity. One route may claim one
/// name for several identities, never for one identity twice, so the id never decides.
type Place = (Rank, Key, ClaimId);

#[derive(Debug, Default)]
struct Name {
    holder: Option<ClaimId>,
    claimants: BTreeSet<Place>,
}

/// All claims and names.
#[derive(Debug, Default)]
pub(super) struct Names {
    ids: HashMap<(Key, SmolStr), ClaimId>,
    claims: Vec<Option<Claim>>,
    free: Vec<ClaimId>,
    names: HashMap<SmolStr, Name>,
    /// Names whose holder, or whose holder's members, changed.
    touched: HashSet<SmolStr>,
    /// Sources of claims whose standing changed.
    affected: BTreeSet<SourceId>,
}

impl Names {
    pub(super) fn claim(&self, id: ClaimId) -> Option<&Claim> {
        self.claims.get(id as usize)?.as_ref()
    }

    pub(super) fn holder(&self, name: &str) -> Option<&Claim> {
        self.claim(self.names.get(name)?.holder?)
    }

    /// The names and sources that changed since the last call.
    pub(super) fn take_changes(&mut self) -> (HashSet<SmolStr>, BTreeSet<SourceId>) {
        (std::mem::take(&mut self.touched), std::mem::take(&mut self.affected))
    }

    /// Notes that a member of a claim changed in other respects than its names.
    pub(super) fn touch(&mut self, id: ClaimId) {
        let Some(Some(claim)) = self.claims.get(id as usize) else {
            return;
        };
        if let Some((name, _)) = claim.held() {
            self.touched.insert(name.clone());
            // What the oldest member says counts for all of them.
            self.affected.extend(claim.members.iter().map(|member| member.source));
        }
    }

    /// Adds a member to the claim of an identity and a base name.
    pub(super) fn attach(&mut self, key: (Key, SmolStr), member: Member) -> ClaimId {
        let id = match self.ids.get(&key) {
            Some(id) => {
                let id = *id;
                self.lift(id);
                id
            }
            None => {
                let claim = Claim { key: key.clone(), members: BTreeSet::new(), holds: None };
                let id = match self.free.pop() {
                    Some(id) => id,
                    None => {
                        self.claims.push(None);
                        ClaimId::try_from(self.claims.len() - 1).unwrap_or(ClaimId::MAX)
                    }
                };
                if let Some(slot) = self.claims.get_mut(id as usize) {
                    *slot = Some(claim);
                }
                self.ids.insert(key, id);
                id
            }
        };
        if let Some(Some(claim)) = self.claims.get_mut(id as usize) {
            claim.members.insert(member);
        }
        self.place(id);
        id
    }

    /// Takes a source's offer out of a claim; an empty claim is gone.
    pub(super) fn detach(&mut self, id: ClaimId, source: SourceId, offer: usize) {
        self.lift(id);
        let Some(Some(claim)) = self.claims.get_mut(id as usize) else {
            return;
        };
        claim.members.retain(|member| (member.source, member.offer) != (source, offer));
        if claim.members.is_empty() {
            let key = claim.key.clone();
            self.ids.remove(&key);
            if let Some(slot) = self.claims.get_mut(id as usize) {
                *slot = None;
            }
            self.free.push(id);
        } else {
            self.place(id);
        }
    }

    /// Takes a claim out of all names of its chain.
    fn lift(&mut self, id: ClaimId) {
        let Some(claim) = self.claim(id) else { return };
        let Some(place) = claim.place(id) else { return };
        let chain = claim.chain().to_vec();
        let held = claim.holds.and_then(|at| chain.get(at)).cloned();
        for name in &chain {
            if let Some(state) = self.names.get_mut(name) {
                state.claimants.remove(&place);
                if state.claimants.is_empty() {
                    self.names.remove(name);
                }
            }
        }
        self.hold(id, None);
        if let Some(held) = held {
            self.touched.insert(held.clone());
            if let Some(state) = self.names.get_mut(&held) {
                state.holder = None;
            }
            self.mend(Vec::new(), vec![held]);
        }
    }

    /// Puts a claim into all names of its chain and lets it take the best it can get.
    fn place(&mut self, id: ClaimId) {
        let Some(claim) = self.claim(id) else { return };
        let Some(place) = claim.place(id) else { return };
        for name in claim.chain().to_vec() {
            self.names.entry(name).or_default().claimants.insert(place.clone());
        }
        self.mend(vec![id], Vec::new());
    }

    fn hold(&mut self, id: ClaimId, at: Option<usize>) {
        if let Some(Some(claim)) = self.claims.get_mut(id as usize) {
            claim.holds = at;
            self.affected.extend(claim.members.iter().map(|member| member.source));
        }
    }

    /// Settles claims that hold nothing, and fills names that became free, until nobody can do
    /// better. Each step gives a name to a better-ranked claim or fills a free one, so it ends.
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

    /// Gives a claim the first name of its chain that is free or held by a worse-ranked claim,
    /// which is returned.
    fn settle(&mut self, id: ClaimId) -> Option<ClaimId> {
        let claim = self.claim(id)?;
        let place = claim.place(id)?;
        let (at, name, displaced) = claim.chain().iter().enumerate().find_map(|(at, name)| {
            let holder = self.names.get(name)?.holder;
            let yields = match holder {
                None => true,
                Some(holder) => place < self.claim(holder)?.place(holder)?,
            };
            yields.then(|| (at, name.clone(), holder))
        })?;
        if let Some(displaced) = displaced {
            self.hold(displaced, None);
        }
        if let Some(state) = self.names.get_mut(&name) {
            state.holder = Some(id);
        }
        self.hold(id, Some(at));
        self.touched.insert(name);
        displaced
    }

    /// Gives a free name to the best-ranked claim that holds nothing better; returns the name
    /// that it leaves.
    fn fill(&mut self, name: &SmolStr) -> Option<SmolStr> {
        let state = self.names.get(name)?;
        if state.holder.is_some() {
            return None;
        }
        let (id, at, left) = state.claimants.iter().find_map(|(_, _, id)| {
            let claim = self.claim(*id)?;
            let at = claim.chain().iter().position(|n| n == name)?;
            let better = claim.holds.is_none_or(|holds| at < holds);
            let left = claim.holds.and_then(|holds| claim.chain().get(holds)).cloned();
            better.then_some((*id, at, left))
        })?;
        if let Some(state) = self.names.get_mut(name) {
            state.holder = Some(id);
        }
        self.hold(id, Some(at));
        self.touched.insert(name.clone());
        let left = left?;
        if let Some(state) = self.names.get_mut(&left) {
            state.holder = None;
        }
        self.touched.insert(left.clone());
        Some(left)
    }
}
