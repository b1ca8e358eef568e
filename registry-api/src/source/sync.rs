//! Keeps a source's entries in step: reads it, hands on what changed, keeps the last good state.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use smol_str::SmolStr;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::status::{Phase, Statuses};
use super::{Cause, Content, Fetched, Source, SourceError};
use crate::catalogue::Handle;
use crate::metrics::Metrics;

/// Rejected entries that are kept for the diagnostics.
const MAX_REJECTED: usize = 100;
/// Longest pause between two attempts.
const LONGEST_RETRY: Duration = Duration::from_secs(3600);

/// What happens after an attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Most attempts in a row, the first one included; then the interval counts again.
    pub attempts: u32,
    /// Pause after the first.
    pub pause: Duration,
    /// How much longer each further pause is.
    pub multiplier: f64,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 3, pause: Duration::from_secs(30), multiplier: 2.0 }
    }
}

/// When a source is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SyncPolicy {
    /// How often, where nothing says that it changed; `None`: only when it is asked for.
    pub interval: Option<Duration>,
    /// What happens after an attempt that failed.
    pub retry: Retry,
}

impl SyncPolicy {
    /// How long to wait after `failed` failures in a row; for ever where `None`.
    fn pause(&self, failed: u32) -> Option<Duration> {
        if failed == 0 || failed >= self.retry.attempts {
            return self.interval;
        }
        let exponent = i32::try_from(failed - 1).unwrap_or(i32::MAX);
        let longer = self.retry.pause.as_secs_f64() * self.retry.multiplier.powi(exponent);
        let pause = Duration::try_from_secs_f64(longer).unwrap_or(LONGEST_RETRY);
        Some(pause.min(LONGEST_RETRY))
    }
}

/// Asks a source to be read at once: another value is another wish.
pub type Trigger = watch::Receiver<Option<String>>;

/// Where a source's entries and its state go.
#[derive(Clone)]
pub struct Sink {
    /// The writer.
    pub catalogue: Handle,
    /// How sources stand.
    pub statuses: Statuses,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
}

/// Keeps one source in step.
pub struct Sync<S> {
    name: SmolStr,
    source: S,
    policy: SyncPolicy,
    trigger: Trigger,
    sink: Sink,
    /// Fingerprint of what was handed on last.
    handed: Option<String>,
    /// Failures in a row, since it was last asked for.
    failed: u32,
}

impl<S: Source> Sync<S> {
    /// Not read yet.
    #[must_use]
    pub fn new(name: SmolStr, source: S, policy: SyncPolicy, trigger: Trigger, sink: Sink) -> Self {
        Self { name, source, policy, trigger, sink, handed: None, failed: 0 }
    }

    /// Reads the source, now and again, until `stop`. `read` is told when it was read once.
    pub async fn run(mut self, read: impl FnOnce() + Send, stop: CancellationToken) {
        let span = tracing::info_span!("sync", source = %self.name);
        async {
            tokio::select! {
                () = self.once() => {}
                () = stop.cancelled() => return,
            }
            read();
            loop {
                let pause = self.policy.pause(self.failed);
                let automatic = self.policy.interval.is_some();
                tokio::select! {
                    () = self.source.changed(), if automatic => {}
                    () = sleep(pause) => {}
                    asked = self.trigger.changed() => {
                        if asked.is_err() {
                            return;
                        }
                        self.failed = 0;
                    }
                    () = stop.cancelled() => return,
                }
                tokio::select! {
                    () = self.once() => {}
                    () = stop.cancelled() => return,
                }
            }
        }
        .instrument(span)
        .await;
    }

    /// Reads the source once and hands on what changed.
    async fn once(&mut self) {
        let trigger = self.trigger.borrow_and_update().clone();
        let (now, started) = (Timestamp::now(), Instant::now());
        tracing::debug!(?trigger, "reading the source");
        let before = self.handed.clone();
        let outcome = match self.source.fetch().await {
            Ok(fetched) => self.take(fetched).await,
            Err(error) => Err(error),
        };
        // So that "unchanged" always means: as what was taken last.
        if outcome.as_ref().is_err_and(|error| error.cause != Cause::Source) {
            self.source.reset();
        }
        let took = started.elapsed();
        self.sink.metrics.synced(&self.name, took, now, outcome.is_ok());
        match &outcome {
            Ok(()) => tracing::debug!(?took, "the source was read"),
            Err(error) if error.cause == Cause::Denied => {
                tracing::warn!(reason = error.reason, "{error}; what it had before is taken away");
                self.withdraw().await;
            }
            Err(error) => {
                tracing::warn!(reason = error.reason, "{error}; what it had before stays");
            }
        }
        self.failed = if outcome.is_ok() { 0 } else { self.failed.saturating_add(1) };
        let changed = self.handed != before;
        let path = self.source.path();
        self.sink.statuses.change(&self.name, |status| {
            status.last_attempt = Some(now);
            status.trigger = trigger;
            status.path = path;
            if changed {
                status.last_change = Some(now);
            }
            status.hash.clone_from(&self.handed);
            match outcome {
                Ok(()) => {
                    status.phase = Phase::Complete;
                    status.last_sync = Some(now);
                    status.attempts = 0;
                    status.failure = None;
                }
                Err(error) => {
                    status.phase = Phase::Failed;
                    status.attempts = status.attempts.saturating_add(1);
                    status.failure = Some(error);
                }
            }
        });
    }

    async fn take(&mut self, fetched: Fetched) -> Result<(), SourceError> {
        match fetched {
            Fetched::Unchanged => Ok(()),
            Fetched::Whole(content) => self.hand_on(content, None).await,
            Fetched::Changes { content, removed } => self.hand_on(content, Some(removed)).await,
        }
    }

    async fn hand_on(
        &mut self,
        content: Content,
        removed: Option<Vec<SmolStr>>,
    ) -> Result<(), SourceError> {
        let Content { entries, mut rejected, total, hash } = content;
        let bad = rejected.len();
        let news = self.handed.as_ref() != Some(&hash);
        if news {
            for rejected in rejected.iter().take(MAX_REJECTED) {
                tracing::warn!(entry = %rejected.path, "{}", rejected.message);
            }
        }
        rejected.truncate(MAX_REJECTED);
        self.sink.metrics.source(&self.name, total, bad);
        let usable = total > 0 || bad == 0;
        self.sink.statuses.change(&self.name, |status| {
            status.rejected = bad;
            status.listed = rejected;
            if usable {
                status.entries = total;
            }
        });
        if !usable {
            let message = format!("none of its {bad} entries is valid");
            return Err(SourceError::invalid("NoValidEntries", message));
        }
        if !news {
            return Ok(());
        }
        let (catalogue, name) = (&self.sink.catalogue, self.name.clone());
        let done = match removed {
            None => catalogue.replace(name, entries).await,
            Some(removed) => catalogue.merge(name, entries, removed).await,
        };
        let refused = done.map_err(|error| SourceError {
            cause: Cause::Store,
            reason: "StoreFailed",
            message: error.to_string(),
        })?;
        for (id, refusal) in &refused {
            tracing::warn!(entry = %id, code = refusal.code, "{}", refusal.message);
        }
        tracing::info!(entries = total, rejected = bad, "the source is in step");
        self.handed = Some(hash);
        Ok(())
    }

    /// Takes away all that the source had.
    async fn withdraw(&mut self) {
        // Where the process is shutting down there is nothing left to do.
        let _ = self.sink.catalogue.replace(self.name.clone(), Vec::new()).await;
        self.handed = None;
        self.sink.statuses.change(&self.name, |status| status.entries = 0);
    }
}

/// Not all sources at the same time: a little less than `pause`. For ever where there is none.
async fn sleep(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause.mul_f64(rand::random_range(0.9..1.0))).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses() {
        let seconds = Duration::from_secs;
        let retry = Retry { attempts: 4, pause: seconds(10), multiplier: 2.5 };
        let policy = SyncPolicy { interval: Some(seconds(3600)), retry };
        for (failed, pause) in [(0, 3600.0), (1, 10.0), (2, 25.0), (3, 62.5), (4, 3600.0)] {
            assert_eq!(policy.pause(failed).map(|p| p.as_secs_f64()), Some(pause), "{failed}");
        }
        let manual = SyncPolicy { interval: None, retry };
        assert_eq!((manual.pause(0), manual.pause(1)), (None, Some(seconds(10))));
        let steep = Retry { attempts: u32::MAX, pause: seconds(10), multiplier: 10.0 };
        let policy = SyncPolicy { interval: None, retry: steep };
        assert_eq!(policy.pause(1000), Some(LONGEST_RETRY));
    }
}
