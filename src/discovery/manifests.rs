//! `waymark discovery --manifests`: files instead of a cluster.

use std::path::PathBuf;

use anyhow::Context;
use tokio::sync::watch;
use waymark_discovery::publisher::Publisher;
use waymark_discovery::source::cluster::Watches;
use waymark_discovery::source::manifest::{Manifests, Watcher};
use waymark_kubernetes::lease::Leadership;

use super::{Parts, tell};
use crate::run::Stop;

pub(super) async fn run(
    paths: Vec<PathBuf>,
    mut parts: Parts,
    publisher: Publisher,
    stop: Stop,
) -> anyhow::Result<()> {
    let prefix = parts.shared.read().settings().prefix.clone();
    let watcher = Watcher::new(&paths)?;
    apply(&parts, Manifests::read(&paths, &prefix)?);
    let leadership = Leadership::alone();
    let (_listed, listed) = watch::channel(true);
    parts.probe(&leadership, &listed, &stop)?;
    let admin = parts.admin(&publisher, listed, Watches::default(), leadership.clone());
    let serving = admin.map(|serve| tokio::spawn(serve.run(stop.clone())));
    let publishing = tokio::spawn(publisher.run(leadership, stop.clone()));
    follow(&parts, &watcher, paths, &prefix, &stop).await;
    publishing.await.context("the publisher failed")?;
    if let Some(serving) = serving {
        serving.await.context("the admin port failed")??;
    }
    Ok(())
}

fn apply(parts: &Parts, manifests: Manifests) {
    for problem in manifests.faults.iter().flat_map(|fault| &fault.problems) {
        tracing::warn!(code = %problem.code, "{}", problem.message);
    }
    let changes = parts.shared.update(|index| manifests.apply(index));
    tell(&parts.shared, &parts.metrics, &changes);
}

async fn follow(parts: &Parts, watcher: &Watcher, paths: Vec<PathBuf>, prefix: &str, stop: &Stop) {
    loop {
        tokio::select! {
            () = watcher.changed() => {}
            () = stop.cancelled() => return,
        }
        // What cannot be read at all keeps the last good state.
        match Manifests::read(&paths, prefix) {
            Ok(manifests) => apply(parts, manifests),
            Err(error) => tracing::warn!(%error, "the manifests stay as they were"),
        }
    }
}
