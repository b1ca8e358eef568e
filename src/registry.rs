//! `waymark registry-api`, and the registry part of `waymark dev`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use waymark_discovery::source::manifest::yaml;
use waymark_registry_api::assembly::{Added, Assembly, layout};
use waymark_registry_api::catalogue::{CURATED, Config, DISCOVERY, Handle, Layout, Writer};
use waymark_registry_api::config::{
    Configuration, Database, Discovered, FileOrigin, Source, SourceKind,
};
use waymark_registry_api::gateway::{FailMode, Gateway, GatewayConfig};
use waymark_registry_api::mcpregistry::{
    Controller, ControllerConfig, Dedicated, LogLevels, Process, definition,
};
use waymark_registry_api::metrics::Metrics;
use waymark_registry_api::running::{Shown, Tokens};
use waymark_registry_api::server::{Listening, Served, Transport, listen};
use waymark_registry_api::source::{Cluster, Engine, Reach, Sink};
use waymark_registry_api::store::{PostgresStore, SqliteStore, Store};
use waymark_registry_api::tls::{Tls, TlsFiles};

use crate::cli::{
    ControllerArgs, ElectionArgs, FailModeArg, GatewayArgs, ListenArgs, RegistryArgs, TlsArgs,
    TlsFor,
};
use crate::curated::Curated;
use crate::election::Election;
use crate::output;
use crate::run::{Stop, check_closed, cluster_client, stop_on_signal, writer_config};

/// How often it is looked whether the configuration file changed.
const LOOK: Duration = Duration::from_secs(1);
/// When a connection to the API server on which nothing came is broken off: a watch hears from it
/// each minute.
const API_TIMEOUT: Duration = Duration::from_secs(100);
/// How long the process is not ready because MCPRegistries are not listed.
const LISTED: Duration = Duration::from_secs(30);

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
    served: Served,
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
        let transport = transport(&listen_args.tls)?;
        if let Some(file) = &listen_args.publisher_tokens {
            // Said at the start, and not when the first publisher comes.
            Tokens::read(file)?;
        }
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
        let shown = Shown::default();
        let served = Served {
            catalogue: catalogue.clone(),
            metrics: Arc::clone(&metrics),
            shown: shown.clone(),
            gateway: gateway(&listen_args.gateway),
            transport,
            publisher_tokens: listen_args.publisher_tokens.clone(),
            watches_per_client: listen_args.max_watches_per_client,
        };
        Ok(Self { catalogue, listening, shown, metrics, served, writer, end })
    }

    /// Serves until `stop`, lets requests end, and stops the writer.
    pub(crate) async fn serve(self, stop: Stop) -> anyhow::Result<()> {
        let served = self.listening.serve(self.served, stop).await;
        self.end.cancel();
        self.writer.await.context("the writer failed")?;
        Ok(served?)
    }
}

fn transport(args: &TlsArgs) -> anyhow::Result<Transport> {
    let (Some(certificate), Some(key)) = (&args.tls_cert, &args.tls_key) else {
        return Ok(Transport::default());
    };
    let files = |client_ca: Option<&PathBuf>| TlsFiles {
        certificate: certificate.clone(),
        key: key.clone(),
        client_ca: client_ca.cloned(),
    };
    let read = |wanted: bool, client_ca: Option<&PathBuf>| {
        wanted.then(|| Tls::read(files(client_ca))).transpose()
    };
    Ok(Transport {
        http: read(args.tls_for != TlsFor::Grpc, None)?,
        grpc: read(args.tls_for != TlsFor::Http, args.tls_client_ca.as_ref())?,
    })
}

fn gateway(args: &GatewayArgs) -> Gateway {
    Gateway::new(GatewayConfig {
        registry: args.gateway_registry.clone(),
        fail_mode: match args.gateway_fail_mode {
            FailModeArg::Open => FailMode::Open,
            FailModeArg::Closed => FailMode::Closed,
        },
        dry_run: args.gateway_dry_run,
        registry_url: args.gateway_registry_url.clone(),
        trusted: args.trusted_proxy.clone(),
    })
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

pub(crate) async fn run(args: RegistryArgs, log_levels: LogLevels) -> anyhow::Result<ExitCode> {
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
    let tokens = tokens(&configuration)?;
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
    // What MCPRegistries add is known when they are listed; until then it is kept.
    let added = Added { complete: !args.controller.mcpregistries, ..Added::default() };
    let all = layout(&configuration, &added);
    let registry = Registry::start(place, &args.listen, config, all).await?;
    let (catalogue, shown) = (registry.catalogue.clone(), registry.shown.clone());
    let metrics = Arc::clone(&registry.metrics);
    let sink = Sink {
        catalogue: catalogue.clone(),
        statuses: shown.statuses.clone(),
        metrics: Arc::clone(&metrics),
    };
    let client = match args.controller.mcpregistries {
        true => Some(cluster_client(API_TIMEOUT).await?),
        false => None,
    };
    let cluster = client.clone().map_or_else(Cluster::default, Cluster::of);
    let engine = Engine::new(sink, cluster, stop.clone());
    let mut assembly =
        Assembly::new(catalogue.clone(), engine, shown.clone(), configuration, tokens, added);
    assembly.apply().await?;
    assembly.first_read().await;
    let assembly = Arc::new(Mutex::new(assembly));
    catalogue.start().await?;
    if let Some(file) = args.config {
        let follow = Follow { file, assembly: Arc::clone(&assembly) };
        tokio::spawn(follow.run(stop.clone()));
    }
    tracing::info!(
        http = %registry.listening.http_address,
        grpc = %registry.listening.grpc_address,
        servers = registry.catalogue.snapshot().len(),
        "the registry is listening"
    );
    let controlling = client.map(|client| {
        let assembly = Arc::clone(&assembly);
        let process = Process { assembly, catalogue, shown, metrics };
        let http = registry.listening.http_address;
        let local = http.ip().is_loopback().then(|| format!("http://{http}"));
        control(client, args.controller, &args.election, process, (local, log_levels), &stop)
    });
    let controlling = controlling.transpose()?;
    registry.serve(stop).await?;
    // The sources are read for as long as it is there.
    drop(assembly);
    if let Some((controlling, election)) = controlling {
        controlling.await.context("the controller failed")?;
        election.end().await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts the controller of MCPRegistries.
fn control(
    client: kube::Client,
    args: ControllerArgs,
    election_args: &ElectionArgs,
    process: Process,
    (local, log_levels): (Option<String>, LogLevels),
    stop: &Stop,
) -> anyhow::Result<(JoinHandle<()>, Election)> {
    const LISTING: &str = "the MCPRegistries are not listed yet";
    let election = Election::start(&client, election_args, "waymark-registry-api")?;
    let image = args.dedicated_image.zip(args.dedicated_upstream);
    let config = ControllerConfig {
        client,
        namespaces: args.mcpregistry_namespace,
        prefix: args.annotation_prefix,
        reach: Reach::Public(args.allow_source_network.into()),
        api_url: args.api_url.or(local),
        dedicated: image.map(|(image, upstream)| Dedicated { image, upstream }),
        leadership: election.leadership.clone(),
        instance: election.identity.clone(),
        events: election_args.events,
        log_levels,
    };
    let not_ready = Arc::clone(&process.shown.not_ready);
    not_ready.store(Arc::new(Some(LISTING)));
    tokio::spawn(async move {
        // What is stored is served, though the API server does not answer.
        tokio::time::sleep(LISTED).await;
        not_ready.store(Arc::new(None));
    });
    let controller = Controller::new(config, process);
    Ok((tokio::spawn(controller.run(stop.clone())), election))
}

/// Prints the CRD.
pub(crate) fn print_crds() -> anyhow::Result<ExitCode> {
    output::print(&serde_saphyr::to_string(&definition())?)?;
    Ok(ExitCode::SUCCESS)
}

/// Who may write.
fn tokens(configuration: &Configuration) -> anyhow::Result<Tokens> {
    let file = configuration.static_token_file.as_deref();
    Ok(file.map(Tokens::read).transpose()?.unwrap_or_default())
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
    let mut sources = Vec::new();
    for (at, file) in files.iter().enumerate() {
        if let Err(error) = std::fs::metadata(file) {
            bail!("cannot read {}: {error}", file.display());
        }
        let name = if at == 0 { CURATED.to_owned() } else { format!("{CURATED}-{}", at + 1) };
        sources.push(Source::new(name, SourceKind::File(FileOrigin::Path(file.clone()))));
    }
    sources.push(Source::new(DISCOVERY, SourceKind::Discovery(Discovered::default())));
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
    assembly: Arc<Mutex<Assembly>>,
}

impl Follow {
    async fn run(self, stop: Stop) {
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
            if let Err(error) = self.apply().await {
                tracing::error!("the configuration stays as it was: {error:#}");
            }
        }
    }

    async fn apply(&self) -> anyhow::Result<()> {
        let mut configuration = read(&self.file)?;
        let mut assembly = self.assembly.lock().await;
        let database = &assembly.configuration().database;
        if configuration.database != *database {
            if configuration.database.is_some() {
                tracing::warn!("another database is used after a restart only");
            }
            configuration.database.clone_from(database);
        }
        let (sources, registries) = (configuration.sources.len(), configuration.registries.len());
        // The token file may have changed, too.
        let tokens = tokens(&configuration)?;
        assembly.configure(configuration, tokens).await?;
        tracing::info!(sources, registries, "the configuration was read again");
        Ok(())
    }
}
