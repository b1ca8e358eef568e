//! What all commands share: log, runtime, signals, settings.

use std::future::Future;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
pub(crate) use tokio_util::sync::CancellationToken as Stop;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, reload};
use waymark_discovery::Settings;
use waymark_discovery::source::manifest::yaml;
use waymark_registry_api::catalogue;
use waymark_registry_api::mcpregistry::{LogLevel, LogLevels};
use waymark_registry_api::server::Address;

use crate::cli::{ListenArgs, LogFormat, RetentionArgs, RuleArgs, TlsFor};

/// Logs to stderr at the level of `RUST_LOG`, else at `default`; gives the way to log more of some
/// registries.
pub(crate) fn logging(format: LogFormat, default: &str) -> LogLevels {
    let usual = std::env::var("RUST_LOG").ok().filter(|usual| EnvFilter::try_new(usual).is_ok());
    let usual = usual.unwrap_or_else(|| default.to_owned());
    let (filter, reload) = reload::Layer::new(EnvFilter::new(&usual));
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => registry.with(layer).init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).init(),
    }
    Box::new(move |levels| {
        let more = levels.iter().map(|(name, level)| {
            let level = match level {
                LogLevel::Error => "error",
                LogLevel::Warn => "warn",
                LogLevel::Info => "info",
                LogLevel::Debug => "debug",
                LogLevel::Trace => "trace",
            };
            format!(",[sync{{source={name}}}]={level}")
        });
        let directives: String = std::iter::once(usual.clone()).chain(more).collect();
        if let Err(error) = EnvFilter::try_new(&directives)
            .map_err(|error| error.to_string())
            .and_then(|filter| reload.reload(filter).map_err(|error| error.to_string()))
        {
            tracing::warn!(error, "the log levels of registries cannot be set");
        }
    })
}

pub(crate) fn block_on(
    command: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(command)
}

/// A token that SIGTERM and SIGINT cancel.
pub(crate) fn stop_on_signal() -> anyhow::Result<Stop> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to SIGINT")?;
    let stop = Stop::new();
    let cancel = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        cancel.cancel();
    });
    Ok(stop)
}

/// A client of the cluster that KUBECONFIG or the Pod's ServiceAccount leads to. A connection on
/// which nothing came for `timeout` is broken off.
pub(crate) async fn cluster_client(timeout: Duration) -> anyhow::Result<kube::Client> {
    let mut config = kube::Config::infer()
        .await
        .context("no cluster: set KUBECONFIG, run in a Pod, or name --manifests")?;
    config.read_timeout = Some(timeout);
    kube::Client::try_from(config).context("the cluster cannot be used")
}

pub(crate) fn settings(rules: &RuleArgs, assume_accepted: bool) -> anyhow::Result<Settings> {
    let delegations = match &rules.delegations {
        None => Vec::new(),
        Some(file) => {
            let shown = file.display();
            let text =
                std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
            match yaml(&text) {
                Ok(delegations) => delegations,
                Err((line, message)) => bail!("{shown}:{line}: {message}"),
            }
        }
    };
    Ok(Settings {
        prefix: rules.annotation_prefix.clone(),
        assume_accepted,
        require_mcp_backend: rules.require_mcp_backend,
        direct_url_policy: rules.direct_url_policy.into(),
        delegations,
        ..Settings::default()
    })
}

pub(crate) fn writer_config(retention: &RetentionArgs) -> catalogue::Config {
    catalogue::Config {
        stale_after: retention.stale_after,
        publisher_retention: retention.publisher_retention,
        deleted_retention: retention.deleted_retention,
        max_entries: retention.max_entries,
    }
}

/// Refuses to take entries from anybody on the network, where that is not asked for.
pub(crate) fn check_closed(listen: &ListenArgs) -> anyhow::Result<()> {
    let Address::Tcp(address) = &listen.grpc_addr else { return Ok(()) };
    if address.ip().is_loopback() || listen.allow_unauthenticated_publish {
        return Ok(());
    }
    let tls = listen.tls.tls_cert.is_some() && listen.tls.tls_for != TlsFor::Http;
    match (&listen.publisher_tokens, tls) {
        (Some(_), true) => Ok(()),
        (Some(_), false) => bail!(
            "--grpc-addr {address} would take the tokens of publishers in the clear: give --tls-cert \
             and --tls-key"
        ),
        (None, _) => bail!(
            "--grpc-addr {address} would take entries from anybody who reaches it: listen on a \
             loopback address or on a socket (unix:/path), ask for --publisher-tokens over TLS, or \
             say --allow-unauthenticated-publish"
        ),
    }
}
