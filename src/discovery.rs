//! `waymark discovery`, and the discovery part of `waymark dev`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use waymark_discovery::index::Changes;
use waymark_discovery::publisher::{Publisher, PublisherConfig, SharedIndex};
use waymark_discovery::source::cluster;
use waymark_discovery::source::manifest::{Manifests, Watcher};
use waymark_discovery::{Index, Severity};

use crate::cli::DiscoveryArgs;
use crate::run::{cluster_client, settings, stop_on_signal};

/// Name of this controller among the publishers of its cluster.
pub(crate) const PUBLISHER: &str = "waymark-discovery";

pub(crate) async fn run(args: DiscoveryArgs) -> anyhow::Result<ExitCode> {
    let stop = stop_on_signal()?;
    let settings = settings(&args.rules, args.assume_accepted)?;
    let prefix = settings.prefix.clone();
    let shared = SharedIndex::new(Index::new(settings));
    let config = PublisherConfig {
        registry: args.registry,
        cluster: args.cluster,
        publisher: PUBLISHER.into(),
    };
    let publisher = Publisher::new(Arc::clone(&shared), config)?;
    if args.manifests.is_empty() {
        return cluster(shared, publisher, stop).await;
    }
    let watcher = Watcher::new(&args.manifests)?;
    apply(&shared, Manifests::read(&args.manifests, &prefix)?);
    let publishing = tokio::spawn(publisher.run(stop.clone()));
    follow(&shared, &watcher, args.manifests, &prefix, &stop).await;
    publishing.await.context("the publisher failed")?;
    Ok(ExitCode::SUCCESS)
}

async fn cluster(
    shared: Arc<SharedIndex>,
    publisher: Publisher,
    stop: CancellationToken,
) -> anyhow::Result<ExitCode> {
    let client = cluster_client().await?;
    let (listed, mut complete) = watch::channel(false);
    let following =
        tokio::spawn(cluster::follow(client, Arc::clone(&shared), listed, stop.clone(), tell));
    // Nothing is published before everything was listed: half a cluster would be dropped from the
    // registry as if it were gone.
    let publishing = tokio::spawn(async move {
        tokio::select! {
            listed = complete.wait_for(|listed| *listed) => if listed.is_err() { return },
            () = stop.cancelled() => return,
        }
        tracing::info!("the cluster was listed");
        publisher.run(stop).await;
    });
    following.await.context("watching the cluster failed")?;
    publishing.await.context("the publisher failed")?;
    Ok(ExitCode::SUCCESS)
}

fn apply(shared: &SharedIndex, manifests: Manifests) {
    for problem in manifests.faults.iter().flat_map(|fault| &fault.problems) {
        tracing::warn!(code = %problem.code, "{}", problem.message);
    }
    let changes = shared.update(|index| manifests.apply(index));
    tell(shared, &changes);
}

/// Logs what became of the objects that changed.
fn tell(shared: &SharedIndex, changes: &Changes) {
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

async fn follow(
    shared: &SharedIndex,
    watcher: &Watcher,
    paths: Vec<PathBuf>,
    prefix: &str,
    stop: &CancellationToken,
) {
    loop {
        tokio::select! {
            () = watcher.changed() => {}
            () = stop.cancelled() => return,
        }
        // What cannot be read at all keeps the last good state.
        match Manifests::read(&paths, prefix) {
            Ok(manifests) => apply(shared, manifests),
            Err(error) => tracing::warn!(%error, "the manifests stay as they were"),
        }
    }
}
