//! `waymark discovery`.

pub(crate) mod cluster;
mod manifests;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::watch;
use waymark_discovery::admin::Admin;
use waymark_discovery::index::Changes;
use waymark_discovery::metrics::Metrics;
use waymark_discovery::probe::{ProbeConfig, Prober};
use waymark_discovery::publisher::{Publisher, PublisherConfig};
use waymark_discovery::shared::SharedIndex;
use waymark_discovery::source::cluster::Watches;
use waymark_discovery::{Index, Severity};
use waymark_kubernetes::lease::Leadership;

use crate::cli::DiscoveryArgs;
use crate::run::{Stop, settings, stop_on_signal};

/// Name of this controller among the publishers of its cluster.
pub(crate) const PUBLISHER: &str = "waymark-discovery";

pub(crate) async fn run(args: DiscoveryArgs) -> anyhow::Result<ExitCode> {
    let stop = stop_on_signal()?;
    let mut settings = settings(&args.rules, args.assume_accepted)?;
    settings.gateways.clone_from(&args.scope.gateway);
    settings.gateway_classes.clone_from(&args.scope.gateway_class);
    let shared = SharedIndex::new(Index::new(settings));
    let ca = args
        .registry_ca
        .as_ref()
        .map(|file| std::fs::read(file).with_context(|| format!("cannot read {}", file.display())));
    let ca = ca.transpose()?;
    let config = PublisherConfig {
        registry: args.registry,
        cluster: args.cluster,
        publisher: PUBLISHER.into(),
        token_file: args.registry_token_file,
        ca,
    };
    let publisher = Publisher::new(Arc::clone(&shared), config)?;
    let listener = match args.admin_addr.0 {
        None => None,
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            let listener = listener.with_context(|| {
                format!("cannot listen on --admin-addr {address}; choose another, or say off")
            })?;
            tracing::info!(admin = %listener.local_addr()?, "the admin port is listening");
            Some(listener)
        }
    };
    let probe = args.probe.probe.then(|| ProbeConfig {
        interval: args.probe.probe_interval,
        timeout: args.probe.probe_timeout,
        concurrency: args.probe.probe_concurrency.get(),
        allow_local: args.probe.probe_allow_local,
        resolve: args.probe.probe_resolve.iter().cloned().collect(),
    });
    let parts = Parts { shared, metrics: Metrics::shared(), probe, listener };
    if args.manifests.is_empty() {
        cluster::run(&args.scope, &args.election, parts, publisher, stop).await?;
    } else {
        manifests::run(args.manifests, parts, publisher, stop).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What both sources share.
struct Parts {
    shared: Arc<SharedIndex>,
    metrics: Arc<Metrics>,
    probe: Option<ProbeConfig>,
    listener: Option<TcpListener>,
}

/// The admin port, ready to be served.
struct AdminPort {
    admin: Admin,
    listener: TcpListener,
}

impl AdminPort {
    async fn run(self, stop: Stop) -> anyhow::Result<()> {
        self.admin.serve(self.listener, stop).await.context("the admin port failed")
    }
}

impl Parts {
    /// Starts to probe, where it is asked for.
    fn probe(
        &self,
        leadership: &Leadership,
        listed: &watch::Receiver<bool>,
        stop: &Stop,
    ) -> anyhow::Result<()> {
        let Some(config) = self.probe.clone() else { return Ok(()) };
        let (shared, metrics) = (Arc::clone(&self.shared), Arc::clone(&self.metrics));
        let prober = Prober::new(shared, leadership.clone(), listed.clone(), config, metrics)?;
        let metrics = Arc::clone(&self.metrics);
        tokio::spawn(
            prober.run(stop.clone(), move |shared, changes| tell(shared, &metrics, changes)),
        );
        Ok(())
    }

    /// The admin port, where there is to be one.
    fn admin(
        &mut self,
        publisher: &Publisher,
        listed: watch::Receiver<bool>,
        watches: Watches,
        leadership: Leadership,
    ) -> Option<AdminPort> {
        let admin = Admin {
            shared: Arc::clone(&self.shared),
            published: publisher.status(),
            listed,
            watches,
            leadership,
            metrics: Arc::clone(&self.metrics),
        };
        self.listener.take().map(|listener| AdminPort { admin, listener })
    }
}

/// Logs what became of the objects that changed.
fn tell(shared: &SharedIndex, metrics: &Metrics, changes: &Changes) {
    metrics.committed(changes.entries.len());
    let index = shared.read();
    for key in &changes.objects {
        let Some(explanation) = index.explain(key) else {
            tracing::info!(object = %key, "is not published any more");
            continue;
        };
        for published in &explanation.published {
            tracing::info!(object = %key, server = %published.server, url = %published.url, "published");
        }
        for problem in explanation.problems.iter().filter(|p| p.severity != Severity::Note) {
            tracing::warn!(object = %key, code = %problem.code, "{} {}", problem.message, problem.remedy);
        }
    }
}
