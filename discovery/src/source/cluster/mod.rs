//! A live cluster: one watch per kind (and namespace, where the scope is narrow), all of them
//! feeding one index.
//!
//! Kinds that the API server does not serve (their CRD is not installed) are waited for. A watch
//! that breaks is taken up again by itself, with back-off; meanwhile the index keeps what it had.
//! Nothing is committed before every watch has listed once, so that a restart never publishes half
//! of the cluster.

mod scope;
mod state;
mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::{mpsc, watch as channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::index::Changes;
use crate::object::{Key, Parsed};
use crate::shared::SharedIndex;
pub use scope::Scope;
use scope::Target;
pub use state::{WatchState, Watches};
pub(crate) use watch::versions;
use watch::{Update, Watch};

/// Updates that may wait for the index.
const QUEUE: usize = 1024;
/// Most updates of one commit.
const BATCH: usize = 512;
/// How far apart commits are, so that a burst is few changes.
const TICK: Duration = Duration::from_millis(5);
/// The first minor version of Kubernetes 1 whose streaming lists are used. Older servers may
/// ignore the parameter, and the list would never end.
const STREAMING_SINCE: u32 = 32;

/// A cluster, or a part of it, to follow.
pub struct Cluster {
    /// How the API server is reached.
    pub client: Client,
    /// Which part of it.
    pub scope: Scope,
    /// How the watches stand, to be read by others.
    pub watches: Watches,
}

impl Cluster {
    /// Follows the cluster until `stop`. `listed` becomes true when every watch has listed and the
    /// first commit is done; `changed` is told of every commit.
    pub async fn follow(
        self,
        shared: Arc<SharedIndex>,
        listed: channel::Sender<bool>,
        stop: CancellationToken,
        mut changed: impl FnMut(&SharedIndex, &Changes) + Send,
    ) {
        let targets = self.scope.targets();
        self.watches.expect(&targets);
        tokio::select! {
            () = stop.cancelled() => {}
            streaming = offers_streaming(&self.client) => {
                let (sender, updates) = mpsc::channel(QUEUE);
                self.start(&targets, streaming, &shared, &sender, &stop);
                drop(sender);
                index(&targets, updates, &shared, &listed, &stop, &mut changed).await;
            }
        }
    }

    fn start(
        &self,
        targets: &[Target],
        streaming: bool,
        shared: &SharedIndex,
        updates: &mpsc::Sender<Update>,
        stop: &CancellationToken,
    ) {
        let prefix: Arc<str> = shared.read().settings().prefix.as_str().into();
        for (number, target) in targets.iter().enumerate() {
            let watch = Watch {
                client: self.client.clone(),
                number,
                target: target.clone(),
                prefix: Arc::clone(&prefix),
                streaming,
                updates: updates.clone(),
                watches: self.watches.clone(),
            };
            let stop = stop.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = watch.run() => {}
                    () = stop.cancelled() => {}
                }
            });
        }
    }
}

/// Whether the API server's version is one that has streaming lists; it may still refuse them.
async fn offers_streaming(client: &Client) -> bool {
    match client.apiserver_version().await {
        Ok(version) => {
            let minor = version.minor.trim_end_matches(|c: char| !c.is_ascii_digit());
            minor.parse().is_ok_and(|minor: u32| minor >= STREAMING_SINCE)
        }
        Err(error) => {
            tracing::warn!(%error, "cannot ask the API server for its version; listing in pages");
            false
        }
    }
}

/// Takes updates into the index until `stop`.
async fn index(
    targets: &[Target],
    mut updates: mpsc::Receiver<Update>,
    shared: &SharedIndex,
    listed: &channel::Sender<bool>,
    stop: &CancellationToken,
    changed: &mut (impl FnMut(&SharedIndex, &Changes) + Send),
) {
    let mut missing: BTreeSet<usize> = (0..targets.len()).collect();
    let mut batch = Vec::new();
    let mut committed = Instant::now();
    loop {
        tokio::select! {
            taken = updates.recv_many(&mut batch, BATCH) => if taken == 0 { return },
            () = stop.cancelled() => return,
        }
        // The first of a burst is not kept waiting, the rest is gathered.
        tokio::time::sleep(TICK.saturating_sub(committed.elapsed())).await;
        while batch.len() < BATCH
            && let Ok(update) = updates.try_recv()
        {
            batch.push(update);
        }
        for update in &batch {
            if let Update::All(number, _) = update {
                missing.remove(number);
            }
        }
        let complete = missing.is_empty();
        committed = Instant::now();
        let changes = shared.update(|index| {
            for update in batch.drain(..) {
                match update {
                    Update::All(number, objects) => {
                        if let Some(target) = targets.get(number) {
                            replace(index, target, objects);
                        }
                    }
                    Update::One(parsed) => index.apply(parsed),
                    Update::Gone(key) => index.remove(&key),
                }
            }
            if complete { index.commit() } else { Changes::default() }
        });
        if complete {
            changed(shared, &changes);
            listed.send_replace(true);
        }
    }
}

/// Brings all objects that a watch sees to what its list held.
fn replace(index: &mut crate::Index, target: &Target, objects: Vec<Parsed>) {
    let key = |parsed: &Parsed| match parsed {
        Parsed::Object(object) => Some(object.key()),
        _ => None,
    };
    let held: BTreeSet<Key> = objects.iter().filter_map(key).collect();
    let gone: Vec<Key> =
        index.keys().filter(|key| target.covers(key) && !held.contains(key)).collect();
    for key in gone {
        index.remove(&key);
    }
    for parsed in objects {
        index.apply(parsed);
    }
}
