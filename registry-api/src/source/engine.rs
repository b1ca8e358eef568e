//! Runs the sources that a configuration names, and others when it changes.

use std::collections::BTreeMap;
use std::time::Duration;

use smol_str::SmolStr;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::sync::Sink;
use super::{
    Cluster, ConfigMapSource, FileSource, GitSource, RegistrySource, Source, Sync, UrlSource,
};
use crate::config::{self, SourceKind};

/// How long the first reading of sources is waited for. What one had when the process last ran is
/// served meanwhile.
const FIRST: Duration = Duration::from_secs(10);

struct Running {
    source: config::Source,
    trigger: watch::Sender<Option<String>>,
    stop: CancellationToken,
}

/// Runs sources.
pub struct Engine {
    sink: Sink,
    cluster: Cluster,
    stop: CancellationToken,
    running: BTreeMap<SmolStr, Running>,
    /// Closed when all that were started were read once.
    first: Option<mpsc::Receiver<()>>,
}

impl Engine {
    /// Runs none yet; all end at `stop`.
    #[must_use]
    pub fn new(sink: Sink, cluster: Cluster, stop: CancellationToken) -> Self {
        Self { sink, cluster, stop, running: BTreeMap::new(), first: None }
    }

    /// Runs these sources: starts those that are new or changed, stops those that are gone. A
    /// trigger that is another than before asks its source to be read at once.
    pub fn apply<'s>(
        &mut self,
        sources: impl IntoIterator<Item = (&'s config::Source, Option<String>)>,
    ) {
        let mut wanted: BTreeMap<&SmolStr, (&config::Source, Option<String>)> =
            sources.into_iter().map(|(source, asked)| (&source.name, (source, asked))).collect();
        self.running.retain(|name, running| match wanted.get_mut(name) {
            Some((source, asked)) if **source == running.source => {
                let asked = asked.take();
                running.trigger.send_if_modified(|trigger| {
                    let other = *trigger != asked;
                    *trigger = asked;
                    other
                });
                wanted.remove(name);
                true
            }
            replaced => {
                running.stop.cancel();
                // What is read now is another source, of which nothing is known yet.
                self.sink.statuses.forget(name);
                if replaced.is_none() {
                    self.sink.metrics.forget_source(name);
                }
                false
            }
        });
        let (read, first) = mpsc::channel::<()>(1);
        for (source, asked) in wanted.into_values() {
            self.start(source.clone(), asked, &read);
        }
        self.first = Some(first);
    }

    /// Waits until each of the sources that were started last was read once, or has taken long enough.
    pub async fn first_read(&mut self) {
        let Some(mut first) = self.first.take() else { return };
        // Ends when every source has let go of its sender.
        if tokio::time::timeout(FIRST, first.recv()).await.is_err() {
            tracing::warn!("some sources were not read within {FIRST:?}; going on without them");
        }
    }

    fn start(&mut self, source: config::Source, asked: Option<String>, read: &mpsc::Sender<()>) {
        let (trigger, asks) = watch::channel(asked);
        let stop = self.stop.child_token();
        let expected = source.expected;
        let cluster = || self.cluster.clone();
        let task = Task { source: &source, asks, sink: &self.sink, stop: stop.clone(), read };
        match source.kind.clone() {
            SourceKind::File(origin) => task.spawn(FileSource::new(origin, expected)),
            SourceKind::Url(origin) => task.spawn(UrlSource::new(origin, expected, cluster())),
            SourceKind::Git(origin) => task.spawn(GitSource::new(origin, expected, cluster())),
            SourceKind::ConfigMap(origin) => {
                task.spawn(ConfigMapSource::new(origin, expected, cluster()));
            }
            SourceKind::Registry(origin) => {
                let (name, catalogue) = (source.name.clone(), self.sink.catalogue.clone());
                task.spawn(RegistrySource::new(name, origin, cluster(), catalogue));
            }
            SourceKind::Managed | SourceKind::Discovery(_) => return,
        }
        self.running.insert(source.name.clone(), Running { source, trigger, stop });
    }
}

/// What a source's task is made of.
struct Task<'t> {
    source: &'t config::Source,
    asks: watch::Receiver<Option<String>>,
    sink: &'t Sink,
    stop: CancellationToken,
    read: &'t mpsc::Sender<()>,
}

impl Task<'_> {
    fn spawn<S: Source + std::marker::Sync>(self, source: S) {
        let (name, policy, sink) =
            (self.source.name.clone(), self.source.policy, self.sink.clone());
        let sync = Sync::new(name, source, policy, self.asks, sink);
        let read = self.read.clone();
        tokio::spawn(sync.run(move || drop(read), self.stop));
    }
}
