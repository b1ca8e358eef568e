//! What other processes write to a store that several share.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;
use smol_str::SmolStr;
use tokio::time::Instant;

use super::{PublishOutcome, SessionEnd, Writer, epoch_of};
use crate::catalogue::merging::Origin;
use crate::catalogue::prepared::decode;
use crate::catalogue::served::Served;
use crate::catalogue::snapshot::Snapshot;
use crate::store::{Foreign, Owner, Store, StoreError};

impl<S: Store> Writer<S> {
    /// Takes in what others have written.
    pub(super) async fn catch_up(&mut self) -> Result<(), StoreError> {
        let foreign = self.store.foreign(self.sequence).await?;
        self.adopt(foreign);
        Ok(())
    }

    pub(super) fn adopt(&mut self, foreign: Foreign) {
        if foreign.sequence == self.sequence && !foreign.reset {
            return;
        }
        self.sequence = foreign.sequence;
        if let Some(batch) = self.unstored.take() {
            // It was merged without knowing of this.
            for view in &mut self.views {
                let changes = batch.registries.get(view.rule.name.as_str());
                let names = changes.into_iter().flat_map(|changes| {
                    let entries = changes.entries.iter().map(|entry| entry.key.name.clone());
                    entries.chain(changes.purged.iter().map(|key| key.name.clone()))
                });
                view.state.roll_back((*view.shown.snapshot()).clone(), names);
            }
            self.batch.contributions = batch.contributions;
            self.batch.dropped = batch.dropped;
            self.batch.owners = batch.owners;
        }
        let before = Timestamp::now().checked_sub(self.config.deleted_retention);
        for view in &mut self.views {
            let registry = foreign.registries.get(view.rule.name.as_str());
            if foreign.reset {
                let kept = registry.map_or((0, 0), |r| (r.revision, r.compacted));
                let epoch = epoch_of(&self.epoch, &view.rule.name);
                let names = view.state.snapshot.live().map(|s| s.key.name.clone());
                let names: Vec<SmolStr> = names.collect();
                let snapshot = Snapshot::new(epoch, kept.0, kept.1);
                view.state.roll_back(snapshot, names.into_iter());
            }
            let Some(registry) = registry else { continue };
            for e in &registry.entries {
                let official = e.official.clone();
                let served = Served::new(e.key.clone(), &e.server, official, e.revision, e.stale);
                view.state.adopt(served);
            }
            if let Ok(before) = before
                && registry.compacted > view.state.snapshot.compacted
            {
                view.state.forget(before, registry.compacted);
            }
        }
        if foreign.reset {
            let kept: HashSet<(&str, &str)> =
                foreign.contributions.iter().map(|c| (&*c.source, &*c.id)).collect();
            let known = self.contributions.iter();
            let gone: Vec<Origin> = known
                .flat_map(|(source, of)| of.keys().map(move |id| (source.clone(), id.clone())))
                .filter(|(source, id)| !kept.contains(&(source.as_str(), id.as_str())))
                .collect();
            for (source, id) in gone {
                self.drop_contribution(&source, &id);
            }
        }
        for change in foreign.contributions {
            let (source, id) = (SmolStr::from(change.source), SmolStr::from(change.id));
            let decoded = change.entry.map(|encoded| decode(&source, &encoded));
            match decoded {
                Some(Ok(Ok(prepared))) => self.insert(&source, prepared, true),
                Some(Ok(Err(refusal))) => {
                    tracing::warn!(%source, entry = %id, "another replica has taken what this one does not: {}", refusal.message);
                }
                Some(Err(error)) => {
                    tracing::error!(%source, entry = %id, %error, "a contribution cannot be read");
                }
                None => {
                    self.drop_contribution(&source, &id);
                }
            }
        }
        for owner in foreign.owners {
            self.own(&owner);
        }
    }

    /// Takes in which replica has the session of a publisher.
    pub(super) fn own(&mut self, owner: &Owner) {
        if owner.owner == self.replica {
            return;
        }
        let away = Timestamp::now().duration_since(owner.seen);
        let away = Duration::try_from(away).unwrap_or_default();
        let now = Instant::now();
        let publisher = self.publishers.entry(SmolStr::from(owner.source.as_str())).or_default();
        publisher.away_since = Some(now.checked_sub(away).unwrap_or(now));
        publisher.full = None;
        if let Some((_, old)) = publisher.session.take() {
            let _ = old.try_send(PublishOutcome::Ended(SessionEnd::Superseded));
        }
        if away < self.config.stale_after {
            self.set_stale(&SmolStr::from(owner.source.as_str()), false);
        }
    }

    /// Says that the session of a publisher is here.
    pub(super) fn claim(&mut self, source: &SmolStr) {
        if S::SHARED {
            let (source, owner) = (source.to_string(), self.replica.clone());
            self.batch.owners.retain(|owner| owner.source != source);
            self.batch.owners.push(Owner { source, owner, seen: Timestamp::now() });
        }
    }
}
