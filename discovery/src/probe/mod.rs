//! Probing, where the admin asks for it: speaks MCP to the published endpoints, learns their tools,
//! and marks those that do not answer. Nothing is withdrawn because of a probe.
//!
//! The URLs come from routes and annotations, so they are hostile: probes carry no credentials,
//! follow redirects only to the same host, reach no loopback and no link-local address unless
//! allowed, and all that is read is bounded.

mod client;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::finding::Finding;
use crate::index::Changes;
use crate::metrics::Metrics;
use crate::shared::SharedIndex;
pub use client::ClientError;
use client::ProbeClient;
use waymark_kubernetes::lease::Leadership;

/// Failures in a row after which an endpoint is marked.
const PATIENCE: u32 = 2;
/// First pause after a failure; doubled up to the interval.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// How often it is looked for new endpoints.
const LOOK: Duration = Duration::from_secs(1);

/// How endpoints are probed.
#[derive(Debug, Clone)]
pub struct ProbeConfig {
    /// How often an endpoint that answers is probed.
    pub interval: Duration,
    /// Longest that one probe may take.
    pub timeout: Duration,
    /// Most probes at a time.
    pub concurrency: usize,
    /// Whether loopback and link-local addresses may be reached.
    pub allow_local: bool,
    /// Addresses of hosts that this process reaches elsewhere than clients do.
    pub resolve: HashMap<String, IpAddr>,
}

/// Probes the endpoints of an index.
pub struct Prober {
    shared: Arc<SharedIndex>,
    leadership: Leadership,
    listed: watch::Receiver<bool>,
    config: ProbeConfig,
    client: ProbeClient,
    metrics: Arc<Metrics>,
}

struct Schedule {
    due: Instant,
    failures: u32,
    running: bool,
}

impl Prober {
    /// A prober that probes when it runs.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub fn new(
        shared: Arc<SharedIndex>,
        leadership: Leadership,
        listed: watch::Receiver<bool>,
        config: ProbeConfig,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ClientError> {
        let client = ProbeClient::new(&config)?;
        Ok(Self { shared, leadership, listed, config, client, metrics })
    }

    /// Probes until `stop`, whenever this process leads. `changed` is told of every commit.
    pub async fn run(
        mut self,
        stop: CancellationToken,
        mut changed: impl FnMut(&SharedIndex, &Changes),
    ) {
        tokio::select! {
            listed = self.listed.wait_for(|listed| *listed) => if listed.is_err() { return },
            () = stop.cancelled() => return,
        }
        let mut schedule: HashMap<SmolStr, Schedule> = HashMap::new();
        let mut running: JoinSet<(SmolStr, Finding)> = JoinSet::new();
        loop {
            tokio::select! {
                () = self.leadership.begins() => {}
                () = stop.cancelled() => return,
            }
            self.start(&mut schedule, &mut running);
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                Some(Ok((url, finding))) = running.join_next() => {
                    let mut findings = BTreeMap::new();
                    self.take(&mut schedule, url, finding, &mut findings);
                    while let Some(Ok((url, finding))) = running.try_join_next() {
                        self.take(&mut schedule, url, finding, &mut findings);
                    }
                    let changes = self.shared.update(|index| {
                        index.set_findings(findings);
                        index.commit()
                    });
                    if !changes.is_empty() {
                        changed(&self.shared, &changes);
                    }
                }
                () = stop.cancelled() => return,
            }
        }
    }

    /// Starts what is due, as far as may run at a time.
    fn start(
        &self,
        schedule: &mut HashMap<SmolStr, Schedule>,
        running: &mut JoinSet<(SmolStr, Finding)>,
    ) {
        let urls = self.shared.read().probe_urls();
        let before = schedule.len();
        schedule.retain(|url, entry| entry.running || urls.contains(url));
        if schedule.len() < before {
            self.shared.update(|index| {
                index.retain_findings(&urls);
                Changes::default()
            });
        }
        let now = Instant::now();
        for url in urls {
            if running.len() >= self.config.concurrency {
                return;
            }
            let new = Schedule { due: now, failures: 0, running: false };
            let entry = schedule.entry(url.clone()).or_insert(new);
            if entry.running || entry.due > now {
                continue;
            }
            entry.running = true;
            let client = self.client.clone();
            running.spawn(async move {
                let finding = client.probe(&url).await;
                (url, finding)
            });
        }
    }

    /// Notes what a probe found; what changes nothing is not handed on.
    fn take(
        &self,
        schedule: &mut HashMap<SmolStr, Schedule>,
        url: SmolStr,
        finding: Finding,
        findings: &mut BTreeMap<SmolStr, Finding>,
    ) {
        let Some(entry) = schedule.get_mut(&url) else { return };
        entry.running = false;
        let pause = match &finding {
            Finding::Answers { .. } => {
                self.metrics.probed("answers");
                entry.failures = 0;
                self.config.interval
            }
            Finding::Silent(_) => {
                self.metrics.probed("silent");
                entry.failures = entry.failures.saturating_add(1);
                let doubled = FIRST_RETRY.saturating_mul(1 << (entry.failures - 1).min(16));
                doubled.min(self.config.interval)
            }
        };
        entry.due = Instant::now() + pause.mul_f64(rand::random_range(0.8..1.0));
        if entry.failures == 0 || entry.failures >= PATIENCE {
            findings.insert(url, finding);
        }
    }
}
