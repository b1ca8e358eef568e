//! What discovery counts, in the text format of Prometheus.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::index::Counts;
use crate::publisher::Status;
use crate::source::cluster::Watches;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProblemLabels {
    code: &'static str,
    severity: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabels {
    resource: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// All metrics of discovery. Labels come from fixed sets only, never from input.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    commits: Counter,
    changed: Counter<u64, AtomicU64>,
    opted_in: Gauge,
    endpoints: Gauge,
    entries: Gauge,
    rejected: Gauge,
    problems: Family<ProblemLabels, Gauge>,
    events: Family<ReasonLabels, Counter>,
    breaks: Family<WatchLabels, Gauge>,
    listed: Family<WatchLabels, Gauge>,
    leader: Gauge,
    connected: Gauge,
    synced: Gauge,
    sessions_broken: Gauge,
    probes: Family<ResultLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            commits: Counter::default(),
            changed: Counter::default(),
            opted_in: Gauge::default(),
            endpoints: Gauge::default(),
            entries: Gauge::default(),
            rejected: Gauge::default(),
            problems: Family::default(),
            events: Family::default(),
            breaks: Family::default(),
            listed: Family::default(),
            leader: Gauge::default(),
            connected: Gauge::default(),
            synced: Gauge::default(),
            sessions_broken: Gauge::default(),
            probes: Family::default(),
        };
        let registry = metrics.registry.sub_registry_with_prefix("waymark");
        let r = registry.sub_registry_with_prefix("discovery");
        r.register("commits", "Commits of the index", metrics.commits.clone());
        r.register(
            "changed_entries",
            "Entries that commits added, changed or removed",
            metrics.changed.clone(),
        );
        r.register("objects", "Opted-in objects", metrics.opted_in.clone());
        r.register("endpoints", "Endpoints that they offer", metrics.endpoints.clone());
        r.register("entries", "Entries for the registry", metrics.entries.clone());
        r.register(
            "rejected_entries",
            "Entries that the registry rejects",
            metrics.rejected.clone(),
        );
        r.register("problems", "Problems of objects, by code", metrics.problems.clone());
        r.register("events", "Kubernetes Events posted, by reason", metrics.events.clone());
        r.register("watch_breaks", "How often a watch broke", metrics.breaks.clone());
        r.register("watch_listed", "Whether a watch has listed", metrics.listed.clone());
        r.register("leader", "Whether this process leads", metrics.leader.clone());
        r.register("probes", "Endpoints probed, by result", metrics.probes.clone());
        let r = registry.sub_registry_with_prefix("publish");
        r.register("connected", "Whether a publish session is open", metrics.connected.clone());
        r.register("synced", "Whether the registry has everything", metrics.synced.clone());
        r.register(
            "sessions_broken",
            "Publish sessions that broke",
            metrics.sessions_broken.clone(),
        );
        metrics
    }
}

/// What gauges are taken from when they are read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readings {
    pub(crate) counts: Counts,
    pub(crate) leader: bool,
    pub(crate) status: Status,
    pub(crate) watches: Watches,
}

impl Metrics {
    /// Metrics to share.
    #[must_use]
    pub fn shared() -> Arc<Self> {
        Arc::default()
    }

    /// Counts a commit.
    pub fn committed(&self, entries: usize) {
        self.commits.inc();
        self.changed.inc_by(u64::try_from(entries).unwrap_or(u64::MAX));
    }

    pub(crate) fn event(&self, reason: &'static str) {
        self.events.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Counts a probe.
    pub(crate) fn probed(&self, result: &'static str) {
        self.probes.get_or_create(&ResultLabels { result }).inc();
    }

    pub(crate) fn render(&self, readings: &Readings) -> String {
        let set = |gauge: &Gauge, n: usize| {
            gauge.set(i64::try_from(n).unwrap_or(i64::MAX));
        };
        set(&self.opted_in, readings.counts.opted_in);
        set(&self.endpoints, readings.counts.endpoints);
        set(&self.entries, readings.counts.entries);
        set(&self.rejected, readings.counts.rejections);
        self.problems.clear();
        for ((code, severity), n) in &readings.counts.problems {
            let labels = ProblemLabels { code: code.as_str(), severity: severity.as_str() };
            set(&self.problems.get_or_create(&labels), *n);
        }
        self.breaks.clear();
        self.listed.clear();
        for (kind, breaks, listed) in readings.watches.by_kind() {
            let labels = WatchLabels { resource: kind.resource() };
            self.breaks.get_or_create(&labels).set(i64::try_from(breaks).unwrap_or(i64::MAX));
            self.listed.get_or_create(&labels).set(i64::from(listed));
        }
        self.leader.set(i64::from(readings.leader));
        self.connected.set(i64::from(readings.status.connected));
        self.synced.set(i64::from(readings.status.synced));
        self.sessions_broken.set(i64::try_from(readings.status.breaks).unwrap_or(i64::MAX));
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}
