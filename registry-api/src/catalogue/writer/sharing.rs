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

    /// Takes in what others have written; tells whether they wrote what could not be stored here,
    /// which is given up then.
    pub(super) fn adopt(&mut self, foreign: Foreign) -> bool {
        if foreign.sequence == self.sequence && !foreign.reset {
            return false;
        }
        self.sequence = foreign.sequence;
        let mut overtaken = false;
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
            let written: HashSet<(&str, &str)> =
                foreign.contributions.iter().map(|c| (&*c.source, &*c.id)).collect();
            self.batch.contributions = batch.contributions;
            self.batch.contributions.retain(|own| {
                let kept = !written.contains(&(&*own.source, &*own.id));
                overtaken |= !kept;
                kept
            });
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
        overtaken
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use serde_json::json;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::catalogue::{
        Config, Edit, EditError, Layout, Origins, Prepared, RegistryRule, Remotes, SourceRule,
        prepare_own,
    };
    use crate::metrics::Metrics;
    use crate::store::{Batch, ContributionChange, Stored, Transaction};

    /// A shared store that fails at one commit, and in which another replica writes before the next
    /// attempt: two faults that real databases cannot be made to show together.
    #[derive(Clone, Default)]
    struct Flaky {
        written: Arc<Mutex<Vec<Batch>>>,
        foreign: Vec<ContributionChange>,
    }

    struct Turn(Flaky);

    impl Store for Flaky {
        const SHARED: bool = true;
        type Transaction = Turn;

        async fn load(&self) -> Result<Stored, StoreError> {
            Ok(Stored { epoch: "e".into(), ..Stored::default() })
        }

        async fn begin(&self, seen: u64) -> Result<(Turn, Foreign), StoreError> {
            let foreign = self.foreign(seen).await?;
            Ok((Turn(self.clone()), foreign))
        }

        async fn foreign(&self, seen: u64) -> Result<Foreign, StoreError> {
            let failed = self.written.lock().unwrap().len() == 1 && seen == 0;
            Ok(Foreign {
                sequence: seen + u64::from(failed),
                contributions: if failed { self.foreign.clone() } else { Vec::new() },
                ..Foreign::default()
            })
        }

        async fn changed(&self) -> Result<(), StoreError> {
            std::future::pending().await
        }
    }

    impl Transaction for Turn {
        async fn commit(self, batch: &Batch) -> Result<u64, StoreError> {
            let mut written = self.0.written.lock().unwrap();
            written.push(batch.clone());
            if written.len() == 1 {
                return Err(StoreError::Unreachable("gone".into()));
            }
            Ok(2)
        }
    }

    fn entry(name: &str, description: &str) -> Prepared {
        let server = json!({"name": name, "description": description, "version": "1.0.0",
            "remotes": [{"type": "sse", "url": "https://x.example.com/sse"}]});
        let server = serde_json::from_value(server).unwrap();
        prepare_own(&format!("{name}@1.0.0"), &server).unwrap()
    }

    fn layout() -> Layout {
        let rule = SourceRule { origins: Origins::Own, filter: Default::default() };
        Layout {
            sources: BTreeMap::from([("own".into(), rule)]),
            registries: vec![RegistryRule {
                name: "default".into(),
                sources: vec!["own".into()],
                remotes: Remotes::External,
            }],
            complete: true,
        }
    }

    #[tokio::test]
    async fn what_could_not_be_stored_gives_way_to_what_others_wrote() {
        // The same entry elsewhere, or another one.
        for (name, result, served) in [
            ("a.b/same", Err(EditError::Overtaken), "of the other"),
            ("a.b/another", Ok(()), "of this one"),
        ] {
            let foreign = entry(name, "of the other");
            let store = Flaky {
                foreign: vec![ContributionChange {
                    source: "own".into(),
                    id: foreign.id.to_string(),
                    entry: Some(foreign.encoded),
                }],
                ..Flaky::default()
            };
            let (writer, handle) = Writer::load(
                store.clone(),
                Config::default(),
                layout(),
                Arc::new(Metrics::default()),
            )
            .await
            .unwrap();
            let stop = CancellationToken::new();
            let writing = tokio::spawn(writer.run(stop.clone()));
            handle.start().await.unwrap();
            let own = Edit::Publish(Box::new(entry("a.b/same", "of this one")));
            assert_eq!(handle.edit("own".into(), own).await, result, "{name}");
            let snapshot = handle.snapshot();
            let same = snapshot.get("a.b/same", "1.0.0").unwrap();
            assert!(same.server_text().contains(served), "{}", same.server_text());
            assert!(snapshot.get(name, "1.0.0").is_some());
            let last = store.written.lock().unwrap().last().unwrap().clone();
            assert_eq!(last.contributions.is_empty(), result.is_err());
            stop.cancel();
            writing.await.unwrap();
        }
    }
}
