//! `waymark discovery` on a live cluster.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;
use waymark_discovery::event::Recorder;
use waymark_discovery::publisher::Publisher;
use waymark_discovery::source::cluster::{Cluster, Scope, Watches};
use waymark_kubernetes::lease::Leadership;

use super::{Parts, tell};
use crate::cli::{ElectionArgs, ScopeArgs};
use crate::election::Election;
use crate::run::{Stop, cluster_client};

pub(crate) fn scope(args: &ScopeArgs) -> Scope {
    Scope {
        namespaces: args.namespace.clone(),
        gateways: args.gateway.clone(),
        route_selector: args.route_selector.clone(),
    }
}

pub(super) async fn run(
    scope_args: &ScopeArgs,
    election_args: &ElectionArgs,
    mut parts: Parts,
    publisher: Publisher,
    stop: Stop,
) -> anyhow::Result<()> {
    let client = cluster_client(scope_args.api_timeout).await?;
    let election = Election::start(&client, election_args, "waymark-discovery")?;
    let leadership = election.leadership.clone();
    let (listed, complete) = watch::channel(false);
    let watches = Watches::default();

    parts.probe(&leadership, &complete, &stop)?;
    let admin = parts.admin(&publisher, complete.clone(), watches.clone(), leadership.clone());
    let serving = admin.map(|serve| tokio::spawn(serve.run(stop.clone())));
    let recording = election_args.events.then(|| {
        let recorder = Recorder {
            client: client.clone(),
            shared: Arc::clone(&parts.shared),
            leadership: leadership.clone(),
            published: publisher.status(),
            namespace: election.namespace.clone(),
            name: format!("{}-events", election.name),
            instance: election.identity.clone(),
            metrics: Arc::clone(&parts.metrics),
        };
        tokio::spawn(recorder.run(stop.clone()))
    });
    let cluster = Cluster { client, scope: scope(scope_args), watches };
    let metrics = Arc::clone(&parts.metrics);
    let following = tokio::spawn(cluster.follow(
        Arc::clone(&parts.shared),
        listed,
        stop.clone(),
        move |shared, changes| tell(shared, &metrics, changes),
    ));
    publish(publisher, complete, leadership, stop).await;
    following.await.context("watching the cluster failed")?;
    if let Some(recording) = recording {
        recording.await.context("recording Events failed")?;
    }
    // The lease is released last, when nothing is published any more.
    election.end().await?;
    if let Some(serving) = serving {
        serving.await.context("the admin port failed")??;
    }
    Ok(())
}

/// Publishes, but nothing before everything was listed: half a cluster would be dropped from the
/// registry as if it were gone.
async fn publish(
    publisher: Publisher,
    mut complete: watch::Receiver<bool>,
    leadership: Leadership,
    stop: Stop,
) {
    tokio::select! {
        listed = complete.wait_for(|listed| *listed) => if listed.is_err() { return },
        () = stop.cancelled() => return,
    }
    tracing::info!("the cluster was listed");
    publisher.run(leadership, stop).await;
}
