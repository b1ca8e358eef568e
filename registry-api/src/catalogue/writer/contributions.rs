//! What sources contribute, and to which registries it goes.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use smol_str::SmolStr;

use super::{View, Writer, registries, stored_snapshot};
use crate::catalogue::handle::Registry;
use crate::catalogue::layout::{Layout, is_publisher};
use crate::catalogue::merging::State;
use crate::catalogue::prepared::{Prepared, Refusal};
use crate::store::{ContributionChange, Store};

impl<S: Store> Writer<S> {
    pub(super) fn ids(&self, source: &str) -> Vec<SmolStr> {
        self.contributions.get(source).map(|of| of.keys().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn count(&self, source: &str) -> usize {
        self.contributions.get(source).map_or(0, HashMap::len)
    }

    pub(super) fn has(&self, source: &str, id: &str) -> bool {
        self.contributions.get(source).is_some_and(|of| of.contains_key(id))
    }

    /// Takes a contribution in; `stored` where it is in the store already.
    pub(super) fn insert(&mut self, source: &SmolStr, mut entry: Prepared, stored: bool) {
        let encoded = std::mem::take(&mut entry.encoded);
        let of = self.contributions.get(source);
        if of.is_some_and(|of| of.get(&entry.id) == Some(&entry)) {
            // The same again, as in a full state: what stands against it is told again.
            self.retell.insert((source.clone(), entry.id));
            return;
        }
        self.route(source, &entry);
        let of = self.contributions.entry(source.clone()).or_default();
        if !stored {
            self.batch.contributions.push(ContributionChange {
                source: source.to_string(),
                id: entry.id.to_string(),
                entry: Some(encoded),
            });
        }
        of.insert(entry.id.clone(), entry);
    }

    /// Hands a contribution to the registries that show it.
    pub(super) fn route(&mut self, source: &SmolStr, entry: &Prepared) {
        let origin = (source.clone(), entry.id.clone());
        self.retell.insert(origin.clone());
        match self.layout.misdirected(source, entry) {
            Some(refusal) => self.refusals.insert(origin, refusal),
            None => self.refusals.remove(&origin),
        };
        for view in &mut self.views {
            match self.layout.precedence(&view.rule, source, entry) {
                Some(precedence) => {
                    view.state.upsert(source, precedence, entry, view.rule.remotes);
                }
                None => view.state.remove(source, &entry.id),
            }
        }
    }

    pub(super) fn remove(&mut self, source: &SmolStr, id: &SmolStr) {
        if self.drop_contribution(source, id) {
            self.forget(source, id);
        }
    }

    /// Takes a contribution out; tells whether it was there.
    pub(super) fn drop_contribution(&mut self, source: &SmolStr, id: &SmolStr) -> bool {
        let origin = (source.clone(), id.clone());
        self.retell.insert(origin.clone());
        self.refusals.remove(&origin);
        for view in &mut self.views {
            view.state.remove(source, id);
        }
        let of = self.contributions.get_mut(source);
        of.is_some_and(|of| of.remove(id).is_some())
    }

    /// Takes a contribution out of the store.
    pub(super) fn forget(&mut self, source: &SmolStr, id: &SmolStr) {
        self.batch.contributions.push(ContributionChange {
            source: source.to_string(),
            id: id.to_string(),
            entry: None,
        });
    }

    /// Notes that an entry was refused before it got here: what was there under its id is gone.
    pub(super) fn refuse(&mut self, source: &SmolStr, id: &SmolStr, refusal: Refusal) {
        self.remove(source, id);
        self.refusals.insert((source.clone(), id.clone()), refusal);
    }

    pub(super) fn set_stale(&mut self, source: &SmolStr, stale: bool) {
        for view in &mut self.views {
            view.state.set_stale(source, stale);
        }
    }

    /// Makes the registries what a new layout says. What they served keeps its times and revisions.
    pub(super) fn configure(&mut self, layout: Layout) {
        let mut old: HashMap<SmolStr, View> =
            self.views.drain(..).map(|view| (view.rule.name.clone(), view)).collect();
        self.layout = layout;
        for rule in &self.layout.registries {
            self.views.push(match old.remove(&rule.name) {
                Some(view) => {
                    let snapshot = view.state.snapshot;
                    let shown = Arc::new(Registry {
                        name: rule.name.clone(),
                        rule: rule.clone(),
                        snapshot: ArcSwap::new(view.shown.snapshot()),
                        revisions: view.revisions.subscribe(),
                    });
                    let state = State::new(snapshot);
                    View { rule: rule.clone(), state, shown, revisions: view.revisions }
                }
                None => {
                    let stored = self.kept.remove(rule.name.as_str());
                    View::new(rule.clone(), stored_snapshot(&self.epoch, &rule.name, stored, false))
                }
            });
        }
        for name in old.into_keys() {
            self.metrics.forget(&name);
            self.batch.dropped.push(name.to_string());
        }
        if self.layout.complete {
            let known = &self.layout.registries;
            let kept = std::mem::take(&mut self.kept).into_iter();
            let gone = kept.filter(|(name, _)| !known.iter().any(|rule| rule.name == *name));
            self.batch.dropped.extend(gone.map(|(name, _)| name));
        }
        let gone: Vec<SmolStr> = self
            .contributions
            .keys()
            .filter(|source| !is_publisher(source) && !self.layout.sources.contains_key(*source))
            .filter(|source| self.layout.may_forget(source))
            .cloned()
            .collect();
        for source in gone {
            for id in self.ids(&source) {
                self.remove(&source, &id);
            }
            self.contributions.remove(&source);
        }
        let contributions = std::mem::take(&mut self.contributions);
        for (source, of) in &contributions {
            for entry in of.values() {
                self.route(source, entry);
            }
        }
        self.contributions = contributions;
        let away: Vec<SmolStr> = self
            .publishers
            .iter()
            .filter(|(_, p)| p.away_since.is_some_and(|s| s.elapsed() > self.config.stale_after))
            .map(|(source, _)| source.clone())
            .collect();
        for source in away {
            self.set_stale(&source, true);
        }
        for view in &mut self.views {
            view.state.touch_orphans();
        }
        if let Some(all) = registries(&self.layout, &self.views) {
            self.registries.store(Arc::new(all));
        }
    }
}
