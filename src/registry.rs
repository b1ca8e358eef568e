//! `waymark registry-api`, and the registry part of `waymark dev`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use waymark_discovery::source::manifest::yaml;
use waymark_registry_api::catalogue::{CURATED, Config, DISCOVERY, Handle, Layout, Writer};
use waymark_registry_api::config::{
    Configuration, DEFAULT_INTERVAL, Database, FileOrigin, Source, SourceKind,
};
use waymark_registry_api::metrics::Metrics;
use waymark_registry_api::running::{Running, Shown};
use waymark_registry_api::server::{Listening, listen};
use waymark_registry_api::source::Engine;
use waymark_registry_api::store::{PostgresStore, SqliteStore, Store};

use crate::cli::{ListenArgs, RegistryArgs};
use crate::curated::Curated;
use crate::output;
use crate::run::{Stop, check_closed, stop_on_signal, writer_config};

/// How often it is looked whether the configuration file changed.
const LOOK: Duration = Duration::from_secs(1);

/// Where a registry is kept.
pub(crate) enum Place<'p> {
    Folder(&'p Path),
    Memory,
    Database(&'p Database),
}

/// Loads a registry and starts its writer.
async fn write<S: Store>(
    store: S,
    config: Config,
    layout: Layout,
    (end, metrics): (Stop, Arc<Metrics>),
) -> anyhow::Result<(JoinHandle<()>, Handle)> {
    let (writer, catalogue) = Writer::load(store, config, layout, metrics).await?;
    Ok((tokio::spawn(writer.run(end)), catalogue))
}

/// A registry that is loaded and listens.
pub(crate) struct Registry {
    pub(crate) catalogue: Handle,
    pub(crate) listening: Listening,
    pub(crate) shown: Shown,
    metrics: Arc<Metrics>,
    watches_per_client: usize,
    writer: JoinHandle<()>,
    /// Stops the writer, after all that feeds it.
    end: Stop,
}

impl Registry {
    pub(crate) async fn start(
        place: Place<'_>,
        listen_args: &ListenArgs,
        config: Config,
        layout: Layout,
    ) -> anyhow::Result<Self> {
        check_closed(listen_args)?;
        let metrics = Arc::new(Metrics::default());
        let end = Stop::new();
        let running = (end.clone(), Arc::clone(&metrics));
        let (writer, catalogue) = match place {
            Place::Folder(folder) => {
                let store = SqliteStore::open(folder).await;
                let store = store
                    .with_context(|| format!("cannot open the registry in {}", folder.display()))?;
                write(store, config, layout, running).await?
            }
            Place::Memory => {
                write(SqliteStore::in_memory().await?, config, layout, running).await?
            }
            Place::Database(database) => {
                let store = PostgresStore::connect(database).await;
                let store =
                    store.map_err(|error| anyhow::anyhow!("cannot use the database: {error}"))?;
                write(store, config, layout, running).await?
            }
        };
        let listening =
            listen(listen_args.http_addr, &listen_args.grpc_addr).await.map_err(|e| {
                anyhow::anyhow!("{e}; choose other addresses with --http-addr and --grpc-addr")
            })?;
        Ok(Self {
            catalogue,
            listening,
            shown: Shown::default(),
            metrics,
            watches_per_client: listen_args.max_watches_per_client,
            writer,
            end,
        })
    }

    /// Serves until `stop`, lets requests end, and stops the writer.
    pub(crate) async fn serve(self, stop: Stop) -> anyhow::Result<()> {
        let Self { listening, catalogue, metrics, shown, watches_per_client, .. } = self;
        let served = listening.serve(catalogue, metrics, shown, watches_per_client, stop).await;
        self.end.cancel();
        self.writer.await.context("the writer failed")?;
        Ok(served?)
    }
}

/// Replaces the curated catalogue, sets the writer to work, and logs what is wrong.
pub(crate) async fn load_curated(catalogue: &Handle, curated: Curated) -> anyhow::Result<()> {
    for fault in curated.faults.iter().flat_map(|fault| &fault.problems) {
        tracing::warn!(code = %fault.code, "{}", fault.message);
    }
    let entries = curated.entries.len();
    let refused = catalogue.replace(CURATED.into(), curated.entries).await?;
    for (id, refusal) in &refused {
        tracing::warn!(entry = %id, code = refusal.code, "{}", refusal.message);
    }
    catalogue.start().await?;
    tracing::info!(entries, "the curated catalogue is loaded");
    Ok(())
}

pub(crate) async fn run(args: RegistryArgs) -> anyhow::Result<ExitCode> {
    let mut configuration = match &args.config {
        Some(file) => read(file)?,
        None => simple(&args.catalogue)?,
    };
    if let Some(url) = args.database_url {
        configuration.database = Some(Database::Url(url));
    }
    for ignored in &configuration.ignored {
        tracing::warn!("{ignored}");
    }
    let running = Running::of(&configuration)?;
    if args.check_config {
        let (sources, registries) = (configuration.sources.len(), configuration.registries.len());
        let file = args.config.as_deref().unwrap_or(Path::new("the command line"));
        output::print(&format!(
            "{} is good: {sources} sources, {registries} registries.\n",
            file.display()
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    let stop = stop_on_signal()?;
    let config = writer_config(&args.retention);
    let place = configuration.database.as_ref().map_or(Place::Folder(&args.data), Place::Database);
    let registry = Registry::start(place, &args.listen, config, configuration.layout()).await?;
    let catalogue = registry.catalogue.clone();
    let statuses = registry.shown.statuses.clone();
    let metrics = Arc::clone(&registry.metrics);
    let mut engine = Engine::new(catalogue.clone(), statuses, metrics, stop.clone());
    engine.apply(&running.sources).await;
    registry.shown.running.store(Arc::new(running));
    catalogue.start().await?;
    if let Some(file) = args.config {
        let follow = Follow { file, current: configuration, engine, shown: registry.shown.clone() };
        tokio::spawn(follow.run(catalogue, stop.clone()));
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

/// Reads a configuration file.
fn read(file: &Path) -> anyhow::Result<Configuration> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    let value: serde_json::Value =
        yaml(&text).map_err(|(line, why)| anyhow::anyhow!("{shown}:{line}: {why}"))?;
    Configuration::read(&value).map_err(|faults| {
        let lines: Vec<String> = faults.iter().map(|fault| format!("  {fault}")).collect();
        anyhow::anyhow!("{shown} cannot be used:\n{}", lines.join("\n"))
    })
}

/// The configuration where none is given: catalogue files, then what is discovered.
fn simple(files: &[PathBuf]) -> anyhow::Result<Configuration> {
    let source = |name: String, kind| Source {
        name: name.into(),
        kind,
        interval: DEFAULT_INTERVAL,
        filter: Default::default(),
    };
    let mut sources = Vec::new();
    for (at, file) in files.iter().enumerate() {
        if let Err(error) = std::fs::metadata(file) {
            bail!("cannot read {}: {error}", file.display());
        }
        let name = if at == 0 { CURATED.to_owned() } else { format!("{CURATED}-{}", at + 1) };
        sources.push(source(name, SourceKind::File(FileOrigin::Path(file.clone()))));
    }
    sources.push(source(DISCOVERY.to_owned(), SourceKind::Discovery(Vec::new())));
    let mut layout = Layout::default();
    for rule in &mut layout.registries {
        rule.sources = sources.iter().map(|source| source.name.clone()).collect();
    }
    let registries = layout.registries;
    Ok(Configuration {
        sources,
        registries,
        database: None,
        static_token_file: None,
        ignored: Vec::new(),
    })
}

/// Follows the configuration file.
struct Follow {
    file: PathBuf,
    current: Configuration,
    engine: Engine,
    shown: Shown,
}

impl Follow {
    async fn run(mut self, catalogue: Handle, stop: Stop) {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
        let mut seen = std::fs::read(&self.file).ok();
        loop {
            let asked = tokio::select! {
                _ = hangup.recv() => true,
                () = tokio::time::sleep(LOOK) => false,
                () = stop.cancelled() => return,
            };
            let now = std::fs::read(&self.file).ok();
            if !asked && now == seen {
                continue;
            }
            seen = now;
            if let Err(error) = self.apply(&catalogue).await {
                tracing::error!("the configuration stays as it was: {error:#}");
            }
        }
    }

    async fn apply(&mut self, catalogue: &Handle) -> anyhow::Result<()> {
        let mut configuration = read(&self.file)?;
        if configuration.database != self.current.database {
            if configuration.database.is_some() {
                tracing::warn!("another database is used after a restart only");
            }
            configuration.database.clone_from(&self.current.database);
        }
        // The token file may have changed, too.
        let running = Running::of(&configuration)?;
        if configuration != self.current {
            catalogue.configure(configuration.layout()).await?;
            self.engine.apply(&configuration.sources).await;
            self.current = configuration;
        }
        self.shown.running.store(Arc::new(running));
        tracing::info!(
            sources = self.current.sources.len(),
            registries = self.current.registries.len(),
            "the configuration was read again"
        );
        Ok(())
    }
}
