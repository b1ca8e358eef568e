//! What is counted, in the names of the field.

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::catalogue::Snapshot;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    method: &'static str,
    route: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GrpcLabels {
    grpc_service: &'static str,
    grpc_method: &'static str,
    grpc_code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RegistryLabels {
    /// Names of registries are the admin's, and few.
    registry: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    /// Names of sources are the admin's, and few.
    source: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    decision: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    code: &'static str,
}

/// From a file's milliseconds to the longest time-out.
fn sync_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 4.0, 10))
}

/// All metrics of the process. Labels come from fixed sets only, never from input.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<HttpLabels, Counter>,
    duration: Histogram,
    grpc: Family<GrpcLabels, Counter>,
    servers: Family<RegistryLabels, Gauge>,
    revision: Family<RegistryLabels, Gauge<i64, AtomicI64>>,
    publishers: Gauge,
    stored: Counter<u64, AtomicU64>,
    store_duration: Histogram,
    store_errors: Counter,
    refused: Family<RefusalLabels, Counter>,
    watchers: Gauge,
    syncs: Family<SourceLabels, Counter>,
    sync_errors: Family<SourceLabels, Counter>,
    sync_duration: Family<SourceLabels, Histogram, fn() -> Histogram>,
    last_sync: Family<SourceLabels, Gauge<f64, AtomicU64>>,
    deployed: Family<RegistryLabels, Gauge>,
    statuses_written: Counter,
    decisions: Family<DecisionLabels, Counter>,
    decision_duration: Histogram,
    source_entries: Family<SourceLabels, Gauge>,
    source_rejected: Family<SourceLabels, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.000_1, 4.0, 9));
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            duration: seconds(),
            grpc: Family::default(),
            servers: Family::default(),
            revision: Family::default(),
            publishers: Gauge::default(),
            stored: Counter::default(),
            store_duration: seconds(),
            store_errors: Counter::default(),
            refused: Family::default(),
            watchers: Gauge::default(),
            syncs: Family::default(),
            sync_errors: Family::default(),
            sync_duration: Family::new_with_constructor(sync_buckets),
            last_sync: Family::default(),
            deployed: Family::default(),
            statuses_written: Counter::default(),
            decisions: Family::default(),
            decision_duration: Histogram::new(exponential_buckets(0.000_001, 4.0, 10)),
            source_entries: Family::default(),
            source_rejected: Family::default(),
        };
        let r = &mut metrics.registry;
        r.register("http_requests", "HTTP requests answered", metrics.requests.clone());
        r.register_with_unit(
            "http_request_duration",
            "Time to answer an HTTP request, the sending aside",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        r.register("grpc_server_handled", "gRPC calls ended, by code", metrics.grpc.clone());
        r.register(
            "mcpregistry_servers_total",
            "Server versions that are served",
            metrics.servers.clone(),
        );
        r.register(
            "waymark_catalogue_revision",
            "Revision of the catalogue",
            metrics.revision.clone(),
        );
        r.register(
            "waymark_publishers_connected",
            "Open publish sessions",
            metrics.publishers.clone(),
        );
        r.register(
            "waymark_publish_entries_stored",
            "Server versions written to the store",
            metrics.stored.clone(),
        );
        r.register_with_unit(
            "waymark_store_commit_duration",
            "Time to make a batch durable",
            Unit::Seconds,
            metrics.store_duration.clone(),
        );
        r.register(
            "waymark_store_errors",
            "Failed writes to the store",
            metrics.store_errors.clone(),
        );
        r.register(
            "waymark_publish_entries_refused",
            "Entries that were not taken, by code",
            metrics.refused.clone(),
        );
        r.register("waymark_watchers", "Open watches of the catalogue", metrics.watchers.clone());
        r.register("mcpregistry_sync", "Attempts to read a source", metrics.syncs.clone());
        r.register("mcpregistry_sync_errors", "Attempts that failed", metrics.sync_errors.clone());
        r.register_with_unit(
            "mcpregistry_sync_duration",
            "Time of an attempt",
            Unit::Seconds,
            metrics.sync_duration.clone(),
        );
        r.register_with_unit(
            "mcpregistry_last_sync_timestamp",
            "When a source was last read well, since the epoch",
            Unit::Seconds,
            metrics.last_sync.clone(),
        );
        r.register(
            "mcpregistry_deployed_servers_total",
            "Discovered server versions that are served",
            metrics.deployed.clone(),
        );
        r.register(
            "waymark_gateway_decisions",
            "Decisions about requests that a gateway asked about, by what came of them",
            metrics.decisions.clone(),
        );
        r.register_with_unit(
            "waymark_gateway_decision_duration",
            "Time of a decision",
            Unit::Seconds,
            metrics.decision_duration.clone(),
        );
        r.register(
            "waymark_mcpregistry_status_writes",
            "Writes of the status of an MCPRegistry",
            metrics.statuses_written.clone(),
        );
        r.register(
            "waymark_source_entries",
            "Good entries of a source when it was last read well",
            metrics.source_entries.clone(),
        );
        r.register(
            "waymark_source_entries_rejected",
            "Entries of a source that were not taken when it was last read",
            metrics.source_rejected.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// The text that Prometheus reads.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }

    pub(crate) fn http(
        &self,
        method: &'static str,
        route: &'static str,
        status: u16,
        took: Duration,
    ) {
        self.requests.get_or_create(&HttpLabels { method, route, status }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    pub(crate) fn grpc(&self, service: &'static str, method: &'static str, code: tonic::Code) {
        let grpc_code = match code {
            tonic::Code::Ok => "OK",
            tonic::Code::InvalidArgument => "InvalidArgument",
            tonic::Code::NotFound => "NotFound",
            tonic::Code::Aborted => "Aborted",
            tonic::Code::Unavailable => "Unavailable",
            tonic::Code::Unauthenticated => "Unauthenticated",
            tonic::Code::PermissionDenied => "PermissionDenied",
            _ => "Other",
        };
        let labels = GrpcLabels { grpc_service: service, grpc_method: method, grpc_code };
        self.grpc.get_or_create(&labels).inc();
    }

    pub(crate) fn catalogue(&self, registry: &str, snapshot: &Snapshot) {
        let served = i64::try_from(snapshot.len()).unwrap_or(i64::MAX);
        let labels = RegistryLabels { registry: registry.to_owned() };
        self.servers.get_or_create(&labels).set(served);
        let deployed = i64::try_from(snapshot.deployed()).unwrap_or(i64::MAX);
        self.deployed.get_or_create(&labels).set(deployed);
        let revision = i64::try_from(snapshot.revision).unwrap_or(i64::MAX);
        self.revision.get_or_create(&labels).set(revision);
    }

    /// Forgets a registry that is gone.
    pub(crate) fn forget(&self, registry: &str) {
        let labels = RegistryLabels { registry: registry.to_owned() };
        self.servers.remove(&labels);
        self.deployed.remove(&labels);
        self.revision.remove(&labels);
    }

    pub(crate) fn publishers(&self, connected: usize) {
        self.publishers.set(i64::try_from(connected).unwrap_or(i64::MAX));
    }

    pub(crate) fn stored(&self, entries: usize, took: Duration) {
        self.stored.inc_by(u64::try_from(entries).unwrap_or(u64::MAX));
        self.store_duration.observe(took.as_secs_f64());
    }

    pub(crate) fn store_failed(&self) {
        self.store_errors.inc();
    }

    pub(crate) fn refused(&self, code: &'static str) {
        self.refused.get_or_create(&RefusalLabels { code }).inc();
    }

    /// Counts an attempt to read a source.
    pub(crate) fn synced(&self, source: &str, took: Duration, at: Timestamp, good: bool) {
        let labels = SourceLabels { source: source.to_owned() };
        self.syncs.get_or_create(&labels).inc();
        // There from the first attempt on, so that an alert need not care whether it is.
        self.sync_errors.get_or_create(&labels).inc_by(u64::from(!good));
        self.sync_duration.get_or_create(&labels).observe(took.as_secs_f64());
        if good {
            self.last_sync.get_or_create(&labels).set(at.as_duration().as_secs_f64());
        }
    }

    /// Notes how many entries of a source were taken and how many not.
    pub(crate) fn source(&self, source: &str, entries: usize, rejected: usize) {
        let labels = SourceLabels { source: source.to_owned() };
        let set = |family: &Family<SourceLabels, Gauge>, n: usize| {
            family.get_or_create(&labels).set(i64::try_from(n).unwrap_or(i64::MAX));
        };
        if entries > 0 || rejected == 0 {
            set(&self.source_entries, entries);
        }
        set(&self.source_rejected, rejected);
    }

    /// Forgets a source that is gone.
    pub(crate) fn forget_source(&self, source: &str) {
        let labels = SourceLabels { source: source.to_owned() };
        self.syncs.remove(&labels);
        self.sync_errors.remove(&labels);
        self.sync_duration.remove(&labels);
        self.last_sync.remove(&labels);
        self.source_entries.remove(&labels);
        self.source_rejected.remove(&labels);
    }

    /// Counts a decision about a request to a gateway.
    pub(crate) fn authorized(&self, decision: &'static str, took: Duration) {
        self.decisions.get_or_create(&DecisionLabels { decision }).inc();
        self.decision_duration.observe(took.as_secs_f64());
    }

    pub(crate) fn status_written(&self) {
        self.statuses_written.inc();
    }

    pub(crate) fn watcher(&self) -> Watching {
        self.watchers.inc();
        Watching(self.watchers.clone())
    }
}

/// Counts a watch for as long as it lives.
#[derive(Debug)]
pub(crate) struct Watching(Gauge);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.dec();
    }
}
