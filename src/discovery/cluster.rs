//! `waymark discovery` on a live cluster.

use std::sync::Arc;

use anyhow::{Context, bail};
use tokio::sync::watch;
use waymark_discovery::event::Recorder;
use waymark_discovery::publisher::Publisher;
use waymark_discovery::source::cluster::{Cluster, Scope, Watches};
use waymark_kubernetes::lease::{Leadership, Lease, LeaseConfig};

use super::{Parts, tell};
use crate::cli::{ElectionArgs, ScopeArgs};
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
    election: &ElectionArgs,
    mut parts: Parts,
    publisher: Publisher,
    stop: Stop,
) -> anyhow::Result<()> {
    let client = cluster_client(scope_args.api_timeout).await?;
    let namespace = match &election.lease_namespace {
        Some(namespace) => namespace.to_string(),
        None => client.default_namespace().to_owned(),
    };
    let identity = identity();
    let (listed, complete) = watch::channel(false);
    let watches = Watches::default();
    let (leadership, holding) = if election.leader_elect {
        if election.lease_duration.as_secs() < 3 {
            bail!("--lease-duration must be 3s at least");
        }
        let config = LeaseConfig {
            namespace: namespace.clone(),
            name: election.lease_name.clone(),
            identity: identity.clone(),
            duration: election.lease_duration,
        };
        let lease = Lease::new(client.clone(), config);
        let leadership = lease.leadership();
        // The lease is released last, when nothing is published any more.
        let release = Stop::new();
        (leadership, Some((release.clone(), tokio::spawn(lease.run(release)))))
    } else {
        (Leadership::alone(), None)
    };

    parts.probe(&leadership, &complete, &stop)?;
    let admin = parts.admin(&publisher, complete.clone(), watches.clone(), leadership.clone());
    let serving = admin.map(|serve| tokio::spawn(serve.run(stop.clone())));
    let recording = election.events.then(|| {
        let recorder = Recorder {
            client: client.clone(),
            shared: Arc::clone(&parts.shared),
            leadership: leadership.clone(),
            published: publisher.status(),
            namespace,
            name: format!("{}-events", election.lease_name),
            instance: identity,
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
    if let Some((release, holding)) = holding {
        release.cancel();
        holding.await.context("holding the lease failed")?;
    }
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

/// Who this process is, unlike any other: the Pod or host, and something random.
fn identity() -> String {
    let host = ["POD_NAME", "HOSTNAME"].iter().find_map(|name| std::env::var(name).ok());
    let host = host.or_else(|| std::fs::read_to_string("/etc/hostname").ok());
    let host = host.unwrap_or_default();
    let host = if host.trim().is_empty() { "waymark" } else { host.trim() };
    format!("{host}_{}", uuid::Uuid::new_v4())
}
