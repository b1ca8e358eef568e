//! `waymark registry-api`, and the registry part of `waymark dev`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use waymark_discovery::source::manifest::Watcher;
use waymark_registry_api::catalogue::{Config, Handle, Writer};
use waymark_registry_api::metrics::Metrics;
use waymark_registry_api::server::{Listening, listen};
use waymark_registry_api::store::SqliteStore;

use crate::cli::{ListenArgs, RegistryArgs};
use crate::curated::{Curated, read_files};
use crate::run::{check_closed, stop_on_signal, writer_config};

/// A registry that is loaded and listens.
pub(crate) struct Registry {
    pub(crate) catalogue: Handle,
    pub(crate) listening: Listening,
    metrics: Arc<Metrics>,
    writer: JoinHandle<()>,
    /// Stops the writer, after all that feeds it.
    end: CancellationToken,
}

impl Registry {
    pub(crate) async fn start(
        data: Option<&Path>,
        listen_args: &ListenArgs,
        config: Config,
    ) -> anyhow::Result<Self> {
        check_closed(listen_args)?;
        let store = match data {
            Some(folder) => SqliteStore::open(folder)
                .await
                .with_context(|| format!("cannot open the registry in {}", folder.display()))?,
            None => SqliteStore::in_memory().await?,
        };
        let metrics = Arc::new(Metrics::default());
        let (writer, catalogue) = Writer::load(store, config, Arc::clone(&metrics)).await?;
        let listening =
            listen(listen_args.http_addr, &listen_args.grpc_addr).await.map_err(|e| {
                anyhow::anyhow!("{e}; choose other addresses with --http-addr and --grpc-addr")
            })?;
        let end = CancellationToken::new();
        let writer = tokio::spawn(writer.run(end.clone()));
        Ok(Self { catalogue, listening, metrics, writer, end })
    }

    /// Serves until `stop`, lets requests end, and stops the writer.
    pub(crate) async fn serve(self, stop: CancellationToken) -> anyhow::Result<()> {
        let served = self.listening.serve(self.catalogue, self.metrics, stop).await;
        self.end.cancel();
        self.writer.await.context("the writer failed")?;
        Ok(served?)
    }
}

/// Replaces the curated catalogue and logs what is wrong with it.
pub(crate) async fn load_curated(catalogue: &Handle, curated: Curated) -> anyhow::Result<()> {
    for fault in curated.faults.iter().flat_map(|fault| &fault.problems) {
        tracing::warn!(code = %fault.code, "{}", fault.message);
    }
    let entries = curated.entries.len();
    let refused = catalogue.replace_curated(curated.entries).await?;
    for (id, refusal) in &refused {
        tracing::warn!(entry = %id, code = refusal.code, "{}", refusal.message);
    }
    tracing::info!(entries, "the curated catalogue is loaded");
    Ok(())
}

pub(crate) async fn run(args: RegistryArgs) -> anyhow::Result<ExitCode> {
    let stop = stop_on_signal()?;
    let config = writer_config(&args.retention);
    let registry = Registry::start(Some(&args.data), &args.listen, config).await?;
    // Always, even without files: entries of a file that is no longer configured go.
    let curated = Curated::of(&read_files(&args.catalogue)?);
    load_curated(&registry.catalogue, curated).await?;
    if !args.catalogue.is_empty() {
        follow_curated(registry.catalogue.clone(), args.catalogue)?;
    }
    tracing::info!(
        http = %registry.listening.http_address,
        grpc = %registry.listening.grpc_address,
        servers = registry.catalogue.snapshot().len(),
        "the registry is listening"
    );
    registry.serve(stop).await?;
    Ok(ExitCode::SUCCESS)
}

fn follow_curated(catalogue: Handle, files: Vec<PathBuf>) -> anyhow::Result<()> {
    let watcher = Watcher::new(&files)?;
    tokio::spawn(async move {
        loop {
            watcher.changed().await;
            // A file that cannot be read keeps the last good state.
            let done = match read_files(&files) {
                Ok(documents) => load_curated(&catalogue, Curated::of(&documents)).await,
                Err(error) => Err(error.context("the curated catalogue stays as it was")),
            };
            if let Err(error) = done {
                tracing::warn!("{error:#}");
            }
        }
    });
    Ok(())
}
