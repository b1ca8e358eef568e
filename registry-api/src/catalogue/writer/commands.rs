//! What the writer is asked to do, and what it does by itself.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use smol_str::SmolStr;
use tokio::time::Instant;

use super::{Publisher, Waiting, Writer};
use crate::catalogue::handle::{Command, Edit, EditError, Operation, PublishOutcome, SessionEnd};
use crate::catalogue::prepared::{Prepared, Refusal};
use crate::store::Store;

impl<S: Store> Writer<S> {
    pub(super) fn take(&mut self, command: Command, waiting: &mut Waiting) {
        match command {
            Command::Open { source, session, outcomes } => {
                self.set_stale(&source, false);
                let entries = self.count(&source);
                let claimed = source.clone();
                let publisher = self.publishers.entry(source).or_default();
                publisher.entries = entries;
                publisher.sequence = 0;
                publisher.full = None;
                publisher.away_since = None;
                if let Some((_, old)) = publisher.session.replace((session, outcomes)) {
                    // Where it does not listen any more it is over anyway.
                    let _ = old.try_send(PublishOutcome::Ended(SessionEnd::Superseded));
                }
                self.claim(&claimed);
            }
            Command::Publish { source, session, sequence, operations } => {
                let Some(mut publisher) = self.publishers.remove(&source) else {
                    return;
                };
                if publisher.session.as_ref().is_some_and(|(open, _)| *open == session) {
                    publisher.sequence = sequence;
                    for operation in operations {
                        self.operate(&mut publisher, &source, operation);
                    }
                }
                self.publishers.insert(source, publisher);
            }
            Command::Close { source, session } => {
                if let Some(publisher) = self.publishers.get_mut(&source)
                    && publisher.session.as_ref().is_some_and(|(open, _)| *open == session)
                {
                    publisher.session = None;
                    publisher.full = None;
                    publisher.away_since = Some(Instant::now());
                }
            }
            // Of a source that a new configuration has dropped meanwhile: nothing is left to do.
            Command::Replace { source, .. } if !self.layout.sources.contains_key(&source) => {}
            Command::Replace { source, entries, done } => {
                let kept: HashSet<SmolStr> = entries.iter().map(|e| e.id.clone()).collect();
                for id in self.ids(&source).iter().filter(|id| !kept.contains(*id)) {
                    self.remove(&source, id);
                }
                for entry in entries {
                    self.insert(&source, entry, false);
                }
                waiting.refused.push((source, done));
            }
            Command::Merge { source, .. } if !self.layout.sources.contains_key(&source) => {}
            Command::Merge { source, entries, removed, done } => {
                for id in removed {
                    self.remove(&source, &id);
                }
                for entry in entries {
                    self.insert(&source, entry, false);
                }
                waiting.refused.push((source, done));
            }
            Command::Edit { source, edit, done } => match self.edit(&source, edit) {
                Ok(()) => waiting.edits.push(done),
                // Who asked may have gone.
                Err(error) => drop(done.send(Err(error))),
            },
            Command::Configure { layout, done } => {
                self.configure(layout);
                waiting.others.push(done);
            }
            Command::Start { done } => {
                self.started = true;
                for view in &mut self.views {
                    view.state.touch_orphans();
                }
                waiting.others.push(done);
            }
        }
    }

    pub(super) fn edit(&mut self, source: &SmolStr, edit: Edit) -> Result<(), EditError> {
        match edit {
            Edit::Publish(entry) if self.has(source, &entry.id) => {
                Err(EditError::Exists(format!("{} {}", entry.name, entry.version)))
            }
            Edit::Publish(_) if self.count(source) >= self.config.max_entries => {
                Err(EditError::TooMany(self.config.max_entries))
            }
            Edit::Publish(entry) => {
                self.insert(source, *entry, false);
                Ok(())
            }
            Edit::Replace(entry) => {
                let of = self.contributions.get(source);
                let Some(old) = of.and_then(|of| of.get(&entry.id)) else {
                    return Err(EditError::NotFound(format!("{} {}", entry.name, entry.version)));
                };
                let (status, message) = old.status.clone();
                self.insert(source, entry.with_status(status, message), false);
                Ok(())
            }
            Edit::SetStatus { name, version, status, message } => {
                let of = self.contributions.get(source).into_iter().flat_map(HashMap::values);
                let meant = |entry: &&Prepared| {
                    entry.name == name && version.as_ref().is_none_or(|v| *v == entry.version)
                };
                let entries: Vec<Prepared> = of.filter(meant).cloned().collect();
                if entries.is_empty() {
                    let version = version.map(|v| format!(" {v}")).unwrap_or_default();
                    return Err(EditError::NotFound(format!("{name}{version}")));
                }
                if entries.iter().all(|e| e.status.0 == status && e.status.1 == message) {
                    return Err(EditError::NoChange(status.as_str()));
                }
                for entry in entries {
                    self.insert(source, entry.with_status(status, message.clone()), false);
                }
                Ok(())
            }
        }
    }

    pub(super) fn housekeeping(&mut self) {
        let here = self.publishers.iter().filter(|(_, publisher)| publisher.session.is_some());
        let here: Vec<SmolStr> = here.map(|(source, _)| source.clone()).collect();
        for source in here {
            self.claim(&source);
        }
        let (mut gone, mut stale) = (Vec::new(), Vec::new());
        for (source, publisher) in &self.publishers {
            let Some(away) = publisher.away_since.map(|since| since.elapsed()) else {
                continue;
            };
            if away > self.config.publisher_retention {
                gone.push(source.clone());
            } else if away > self.config.stale_after {
                stale.push(source.clone());
            }
        }
        for source in stale {
            self.set_stale(&source, true);
        }
        for source in gone {
            tracing::info!(%source, "removing the entries of a publisher that has been away for too long");
            for id in self.ids(&source) {
                self.remove(&source, &id);
            }
            self.contributions.remove(&source);
            self.publishers.remove(&source);
        }
        if let Ok(before) = Timestamp::now().checked_sub(self.config.deleted_retention) {
            for view in &mut self.views {
                view.state.purge(before);
            }
        }
    }

    pub(super) fn operate(
        &mut self,
        publisher: &mut Publisher,
        source: &SmolStr,
        operation: Operation,
    ) {
        match operation {
            Operation::Begin => publisher.full = Some(HashSet::new()),
            Operation::Upsert(id, entry) => {
                if let Some(full) = &mut publisher.full {
                    full.insert(id.clone());
                }
                let known = self.has(source, &id);
                match *entry {
                    Ok(_) if publisher.entries >= self.config.max_entries && !known => {
                        let message = format!(
                            "The publisher has {} entries, which is the most this registry takes. Raise --max-entries.",
                            self.config.max_entries
                        );
                        self.refuse(source, &id, Refusal::new("TooManyEntries", message));
                    }
                    Ok(prepared) => {
                        publisher.entries += usize::from(!known);
                        self.insert(source, prepared, false);
                    }
                    Err(refusal) => {
                        publisher.entries -= usize::from(known).min(publisher.entries);
                        self.refuse(source, &id, refusal);
                    }
                }
            }
            Operation::Remove(id) => {
                publisher.entries -= usize::from(self.has(source, &id)).min(publisher.entries);
                self.remove(source, &id);
            }
            Operation::End => {
                let Some(full) = publisher.full.take() else {
                    return;
                };
                for id in self.ids(source).iter().filter(|id| !full.contains(*id)) {
                    publisher.entries = publisher.entries.saturating_sub(1);
                    self.remove(source, id);
                }
            }
        }
    }
}
