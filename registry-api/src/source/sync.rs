//! Keeps a source's entries in step: reads it, hands on what changed, keeps the last good state.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use smol_str::SmolStr;
use tokio_util::sync::CancellationToken;

use super::{Fetched, Rejected, Source};
use crate::catalogue::Handle;
use crate::metrics::Metrics;

/// Rejected entries that are kept for the diagnostics.
const MAX_REJECTED: usize = 100;

/// How far a source is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// It was not read yet.
    #[default]
    Pending,
    /// The last attempt was good.
    Complete,
    /// The last attempt failed; what was there before is served.
    Failed,
}

impl Phase {
    /// The name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Complete => "complete",
            Self::Failed => "failed",
        }
    }
}

/// How a source stands.
#[derive(Debug, Clone, Default)]
pub struct SourceStatus {
    /// How far it is.
    pub phase: Phase,
    /// When it was last read well.
    pub last_sync: Option<Timestamp>,
    /// When it was last tried.
    pub last_attempt: Option<Timestamp>,
    /// Attempts since the last good one.
    pub attempts: u32,
    /// What is wrong.
    pub message: Option<String>,
    /// How many of its entries were not taken.
    pub rejected: usize,
    /// The first of them.
    pub listed: Vec<Rejected>,
}

/// How all sources stand.
#[derive(Debug, Clone, Default)]
pub struct Statuses(Arc<Mutex<BTreeMap<SmolStr, SourceStatus>>>);

impl Statuses {
    /// How a source stands.
    #[must_use]
    pub fn get(&self, name: &str) -> SourceStatus {
        self.all().get(name).cloned().unwrap_or_default()
    }

    /// Forgets a source.
    pub fn forget(&self, name: &str) {
        self.all().remove(name);
    }

    fn change(&self, name: &SmolStr, change: impl FnOnce(&mut SourceStatus)) {
        change(self.all().entry(name.clone()).or_default());
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<SmolStr, SourceStatus>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps one source in step.
pub struct Sync<S> {
    name: SmolStr,
    source: S,
    interval: Duration,
    catalogue: Handle,
    statuses: Statuses,
    metrics: Arc<Metrics>,
    /// Fingerprint of what was handed on last.
    last: Option<u64>,
}

impl<S: Source> Sync<S> {
    /// Not read yet.
    #[must_use]
    pub fn new(
        name: SmolStr,
        source: S,
        interval: Duration,
        catalogue: Handle,
        statuses: Statuses,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { name, source, interval, catalogue, statuses, metrics, last: None }
    }

    /// Reads the source once and hands on what changed.
    pub async fn once(&mut self) {
        let (now, started) = (Timestamp::now(), Instant::now());
        let failure = match self.source.fetch().await {
            Ok(fetched) => self.take(fetched).await.err(),
            Err(error) => Some(error.to_string()),
        };
        self.metrics.synced(&self.name, started.elapsed(), failure.is_none());
        if let Some(message) = &failure {
            tracing::warn!(source = %self.name, "{message}; what it had before stays");
        }
        self.statuses.change(&self.name, |status| {
            status.last_attempt = Some(now);
            match failure {
                None => {
                    status.phase = Phase::Complete;
                    status.last_sync = Some(now);
                    status.attempts = 0;
                    status.message = None;
                }
                Some(message) => {
                    status.phase = Phase::Failed;
                    status.attempts = status.attempts.saturating_add(1);
                    status.message = Some(message);
                }
            }
        });
    }

    async fn take(&mut self, fetched: Fetched) -> Result<(), String> {
        let Fetched { entries, mut rejected, hash } = fetched;
        let total = rejected.len();
        let news = self.last != Some(hash);
        if news {
            for rejected in rejected.iter().take(MAX_REJECTED) {
                tracing::warn!(source = %self.name, entry = %rejected.path, "{}", rejected.message);
            }
        }
        rejected.truncate(MAX_REJECTED);
        self.statuses.change(&self.name, |status| {
            status.rejected = total;
            status.listed = rejected;
        });
        self.metrics.source(&self.name, entries.len(), total);
        if entries.is_empty() && total > 0 {
            return Err(format!("none of its {total} entries is valid"));
        }
        if !news {
            return Ok(());
        }
        let count = entries.len();
        let done = self.catalogue.replace(self.name.clone(), entries).await;
        let refused = done.map_err(|error| error.to_string())?;
        for (id, refusal) in &refused {
            tracing::warn!(source = %self.name, entry = %id, code = refusal.code, "{}", refusal.message);
        }
        tracing::info!(source = %self.name, entries = count, "the source is in step");
        self.last = Some(hash);
        Ok(())
    }

    /// Reads it again whenever it changes and at every interval, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            // Not all at the same time.
            let pause = self.interval.mul_f64(rand::random_range(0.9..1.0));
            tokio::select! {
                () = self.source.changed() => {}
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            self.once().await;
        }
    }
}
