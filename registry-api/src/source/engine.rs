//! Runs the sources that a configuration names, and others when it changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use smol_str::SmolStr;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{FileSource, Statuses, Sync};
use crate::catalogue::Handle;
use crate::config::{Source, SourceKind};
use crate::metrics::Metrics;

/// Runs sources.
pub struct Engine {
    catalogue: Handle,
    statuses: Statuses,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    running: BTreeMap<SmolStr, (Source, CancellationToken)>,
}

impl Engine {
    /// Runs none yet; all end at `stop`.
    #[must_use]
    pub fn new(
        catalogue: Handle,
        statuses: Statuses,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Self {
        Self { catalogue, statuses, metrics, stop, running: BTreeMap::new() }
    }

    /// Runs these sources: starts those that are new or changed, stops those that are gone. Returns
    /// when each new one was read once.
    pub async fn apply(&mut self, sources: &[Source]) {
        self.running.retain(|name, (running, stop)| {
            let kept = sources.iter().any(|source| source == running);
            if !kept {
                stop.cancel();
                if !sources.iter().any(|source| source.name == *name) {
                    self.statuses.forget(name);
                    self.metrics.forget_source(name);
                }
            }
            kept
        });
        let mut starting = JoinSet::new();
        for source in sources {
            let SourceKind::File(origin) = &source.kind else { continue };
            if self.running.contains_key(&source.name) {
                continue;
            }
            let stop = self.stop.child_token();
            let mut sync = Sync::new(
                source.name.clone(),
                FileSource::new(origin.clone()),
                source.interval,
                self.catalogue.clone(),
                self.statuses.clone(),
                Arc::clone(&self.metrics),
            );
            self.running.insert(source.name.clone(), (source.clone(), stop.clone()));
            starting.spawn(async move {
                tokio::select! {
                    () = sync.once() => {}
                    () = stop.cancelled() => return,
                }
                tokio::spawn(sync.run(stop));
            });
        }
        while starting.join_next().await.is_some() {}
    }
}
