//! `waymark dev`: the whole pipeline in one process, over real gRPC.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use smol_str::SmolStr;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use waymark_discovery::Index;
use waymark_discovery::explanation::{Explanation, Outcome};
use waymark_discovery::publisher::{Publisher, PublisherConfig, Status};
use waymark_discovery::shared::SharedIndex;
use waymark_discovery::source::manifest::{Manifests, Watcher};
use waymark_kubernetes::lease::Leadership;
use waymark_registry_api::catalogue::{Handle, Layout};
use waymark_registry_api::server::Address;

use crate::cli::DevArgs;
use crate::curated::{Curated, read_files};
use crate::discovery::PUBLISHER;
use crate::output;
use crate::registry::{Place, Registry, load_curated};
use crate::run::{settings, stop_on_signal, writer_config};

/// How long the table waits for the registry to say that everything is stored.
const SYNC: Duration = Duration::from_secs(30);

pub(crate) async fn run(args: DevArgs) -> anyhow::Result<ExitCode> {
    let stop = stop_on_signal()?;
    let settings = settings(&args.manifests.rules, args.manifests.assume.assume_accepted)?;
    let config = writer_config(&args.retention);
    let place = args.data.as_deref().map_or(Place::Memory, Place::Folder);
    let registry = Registry::start(place, &args.listen, config, Layout::default()).await?;
    let http = registry.listening.http_address;
    let grpc = registry.listening.grpc_address.clone();

    let mut watched = args.manifests.paths.clone();
    watched.extend(args.manifests.catalogue.iter().cloned());
    let watcher = Watcher::new(&watched)?;
    let shared = SharedIndex::new(Index::new(settings));
    let address = match &grpc {
        Address::Tcp(address) => format!("http://{address}"),
        Address::Unix(_) => grpc.to_string(),
    };
    let config = PublisherConfig {
        registry: address,
        cluster: "dev".into(),
        publisher: PUBLISHER.into(),
        token_file: None,
        ca: None,
    };
    let publisher = Publisher::new(Arc::clone(&shared), config)?;
    let mut dev = Dev {
        paths: args.manifests.paths,
        catalogues: args.manifests.catalogue,
        shared,
        catalogue: registry.catalogue.clone(),
        published: publisher.status(),
        shown: HashMap::new(),
    };
    let serving = tokio::spawn(registry.serve(stop.clone()));
    let first = dev.read().await?;
    let publishing = tokio::spawn(publisher.run(Leadership::alone(), stop.clone()));
    dev.settle().await;
    let outcome = dev.outcome(&first);
    output::print(&output::explanations(&outcome.objects))?;
    output::print(&output::summary(&outcome))?;
    output::print(&format!(
        "\nREST  http://{http}/v0.1/servers\ngRPC  {grpc} (reflection is on)\nFollowing changes; Ctrl-C ends.\n"
    ))?;
    dev.remember(&outcome);
    let followed = dev.follow(first, &watcher, &stop).await;
    stop.cancel();
    publishing.await.context("the publisher failed")?;
    serving.await.context("the registry failed")??;
    followed?;
    Ok(ExitCode::SUCCESS)
}

struct Dev {
    paths: Vec<PathBuf>,
    catalogues: Vec<PathBuf>,
    shared: Arc<SharedIndex>,
    catalogue: Handle,
    published: watch::Receiver<Status>,
    /// What was printed of each object.
    shown: HashMap<(SmolStr, SmolStr, SmolStr), Explanation>,
}

/// What a reading of the manifests says beside the index.
struct Reading {
    faults: Vec<Explanation>,
    assumed: usize,
}

impl Dev {
    async fn read(&self) -> anyhow::Result<Reading> {
        let (prefix, assume) = {
            let index = self.shared.read();
            (index.settings().prefix.clone(), index.settings().assume_accepted)
        };
        let mut manifests = Manifests::read(&self.paths, &prefix)?;
        let mut documents = read_files(&self.catalogues)?;
        documents.append(&mut manifests.catalogues);
        let mut curated = Curated::of(&documents);
        let mut faults = std::mem::take(&mut manifests.faults);
        faults.append(&mut curated.faults);
        let assumed = if assume { manifests.without_status() } else { 0 };
        load_curated(&self.catalogue, curated).await?;
        self.shared.update(|index| manifests.apply(index));
        Ok(Reading { faults, assumed })
    }

    /// Waits until everything is stored, and the registry has said what it does not take.
    async fn settle(&mut self) {
        let updates = self.shared.updates();
        let done = |status: &Status| status.synced_updates.is_some_and(|synced| synced >= updates);
        let synced = tokio::time::timeout(SYNC, self.published.wait_for(done)).await;
        if !matches!(synced, Ok(Ok(_))) {
            tracing::warn!("the registry has not stored everything within {SYNC:?}");
        }
    }

    fn outcome(&self, reading: &Reading) -> Outcome {
        let mut objects = self.shared.read().outcome().objects;
        objects.extend(reading.faults.iter().cloned());
        Outcome::new(objects).assuming(reading.assumed)
    }

    fn remember(&mut self, outcome: &Outcome) {
        let key = |o: &Explanation| (o.kind.clone(), o.namespace.clone(), o.name.clone());
        self.shown = outcome.objects.iter().map(|o| (key(o), o.clone())).collect();
    }

    /// Prints what changes, of the manifests or of the registry's mind.
    async fn follow(
        &mut self,
        mut reading: Reading,
        watcher: &Watcher,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut verdicts = self.published.borrow_and_update().verdicts;
        loop {
            tokio::select! {
                () = watcher.changed() => match self.read().await {
                    Ok(read) => reading = read,
                    Err(error) => {
                        tracing::warn!("the manifests stay as they were: {error:#}");
                        continue;
                    }
                },
                changed = self.published.changed() => {
                    let now = self.published.borrow_and_update().verdicts;
                    if changed.is_err() || now == verdicts {
                        continue;
                    }
                }
                () = stop.cancelled() => return Ok(()),
            }
            self.settle().await;
            verdicts = self.published.borrow_and_update().verdicts;
            let outcome = self.outcome(&reading);
            self.print_changes(&outcome)?;
            self.remember(&outcome);
        }
    }

    fn print_changes(&self, outcome: &Outcome) -> anyhow::Result<()> {
        let key = |o: &Explanation| (o.kind.clone(), o.namespace.clone(), o.name.clone());
        let differs = |o: &&Explanation| self.shown.get(&key(o)) != Some(*o);
        let changed: Vec<Explanation> = outcome.objects.iter().filter(differs).cloned().collect();
        let gone: Vec<&Explanation> = self
            .shown
            .values()
            .filter(|o| !outcome.objects.iter().any(|n| key(n) == key(o)))
            .collect();
        if changed.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let mut text = String::from("\n--- changed\n");
        text.push_str(&output::explanations(&changed));
        for object in gone {
            text.push_str(&format!("gone: {} {}/{}\n", object.kind, object.namespace, object.name));
        }
        text.push_str(&output::summary(outcome));
        output::print(&text)
    }
}
