//! What became of it: to publishers, to who waits, to the diagnostics.

use std::collections::BTreeMap;
use std::sync::Arc;

use smol_str::SmolStr;
use tokio::time::Instant;

use super::{DIAGNOSE, PublishOutcome, Waiting, Writer};
use crate::catalogue::diagnostics::{Diagnostics, MAX_LISTED, SourceDiagnostics};
use crate::catalogue::merging::Origin;
use crate::catalogue::prepared::Refusal;
use crate::store::Store;

impl<S: Store> Writer<S> {
    /// What stands against a contribution in any registry.
    pub(super) fn refusal(&self, origin: &Origin) -> Option<Refusal> {
        let shared = self.refusals.get(origin);
        shared.or_else(|| self.views.iter().find_map(|view| view.state.refusal(origin))).cloned()
    }

    /// Acknowledges, and tells what stands against entries; tells whether that may have changed.
    pub(super) fn tell(&mut self, waiting: Waiting) -> bool {
        let mut origins = std::mem::take(&mut self.retell);
        for view in &mut self.views {
            origins.append(&mut view.state.take_retell());
        }
        let any = !origins.is_empty();
        let mut news: BTreeMap<SmolStr, Vec<(SmolStr, Option<Refusal>)>> = BTreeMap::new();
        for origin in origins {
            let refusal = self.refusal(&origin);
            news.entry(origin.0).or_default().push((origin.1, refusal));
        }
        // Who asked may have gone.
        for (source, done) in waiting.refused {
            let of = news.get(&source).into_iter().flatten();
            let refused = of.filter_map(|(id, refusal)| Some((id.clone(), refusal.clone()?)));
            let _ = done.send(refused.collect());
        }
        for done in waiting.edits {
            let _ = done.send(Ok(()));
        }
        for done in waiting.others {
            let _ = done.send(());
        }
        for (source, publisher) in &mut self.publishers {
            let news = news.remove(source);
            let Some((_, outcomes)) = &publisher.session else {
                continue;
            };
            let (mut refused, mut resolved) = (Vec::new(), Vec::new());
            for (id, refusal) in news.into_iter().flatten() {
                match refusal {
                    Some(refusal) => refused.push((id, refusal)),
                    None => resolved.push(id),
                }
            }
            let sequence = publisher.sequence;
            let outcome = PublishOutcome::Durable { sequence, refused, resolved };
            if outcomes.try_send(outcome).is_err() {
                // It is gone, or does not read: the publisher opens another one.
                publisher.session = None;
                publisher.full = None;
                publisher.away_since = Some(Instant::now());
            }
        }
        let connected = self.publishers.values().filter(|p| p.session.is_some()).count();
        self.metrics.publishers(connected);
        any
    }

    /// Brings the diagnostics up to date, in a storm now and then.
    pub(super) fn diagnose(&mut self, changed: bool) {
        self.undiagnosed |= changed;
        if !self.undiagnosed || self.diagnosed.elapsed() < DIAGNOSE {
            return;
        }
        self.undiagnosed = false;
        self.diagnosed = Instant::now();
        let mut sources: BTreeMap<SmolStr, SourceDiagnostics> = BTreeMap::new();
        for (source, of) in &self.contributions {
            let publisher = self.publishers.get(source);
            let away = publisher.and_then(|publisher| publisher.away_since);
            let stale = away.is_some_and(|since| since.elapsed() > self.config.stale_after);
            let of = SourceDiagnostics { entries: of.len(), stale, ..Default::default() };
            sources.insert(source.clone(), of);
        }
        let shared =
            self.refusals.iter().map(|(origin, refusal)| (SmolStr::default(), origin, refusal));
        let own = self.views.iter().flat_map(|view| {
            let of = view.state.refusals();
            of.map(|(origin, refusal)| (view.rule.name.clone(), origin, refusal))
        });
        for (registry, (source, id), refusal) in shared.chain(own) {
            let of = sources.entry(source.clone()).or_default();
            of.refused += 1;
            if of.listed.len() < MAX_LISTED {
                of.listed.push((registry, id.clone(), refusal.clone()));
            }
        }
        self.diagnostics.store(Arc::new(Diagnostics { sources }));
    }
}
