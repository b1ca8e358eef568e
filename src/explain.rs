//! `waymark explain`: one object's outcome, and why.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::watch;
use waymark_discovery::explanation::Outcome;
use waymark_discovery::shared::SharedIndex;
use waymark_discovery::source::cluster::{Cluster, Watches};
use waymark_discovery::source::manifest::Manifests;
use waymark_discovery::{Index, Key, Kind};

use crate::cli::{ExplainArgs, ExplainFormat, ScopeArgs};
use crate::discovery::cluster::scope;
use crate::output;
use crate::run::{Stop, settings};

/// How long the cluster may take to be listed.
const LISTING: Duration = Duration::from_secs(60);

pub(crate) async fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let key = match (args.kind, args.name.split_once('/')) {
        (Kind::Namespace, None) => Key::new(args.kind, "", args.name.as_str()),
        (Kind::Namespace, Some(_)) => bail!("a Namespace is named without a slash"),
        (kind, Some((namespace, name))) => Key::new(kind, namespace, name),
        (kind, None) => bail!("a {kind} is named by NAMESPACE/NAME, for example apps/github"),
    };
    let manifests = !args.manifests.is_empty();
    let mut settings = settings(&args.rules, args.assume_accepted.unwrap_or(manifests))?;
    settings.gateways.clone_from(&args.scope.gateway);
    settings.gateway_classes.clone_from(&args.scope.gateway_class);
    let prefix = settings.prefix.clone();
    let shared = SharedIndex::new(Index::new(settings));
    if manifests {
        let read = Manifests::read(&args.manifests, &prefix)?;
        shared.update(|index| read.apply(index));
    } else {
        list(&shared, &args.scope).await?;
    }
    let explained = shared.read().explain_related(&key);
    let nothing = explained.is_empty();
    let outcome = Outcome::new(explained);
    let text = match args.output {
        ExplainFormat::Table if nothing => format!(
            "{key} is not opted in ({prefix}registry-export), does not exist, or nothing depends on it.\n"
        ),
        ExplainFormat::Table => output::explanations(&outcome.objects),
        ExplainFormat::Json => serde_json::to_string_pretty(&outcome)? + "\n",
        ExplainFormat::Yaml => serde_saphyr::to_string(&outcome).context("cannot write YAML")?,
    };
    output::print(&text)?;
    Ok(if nothing || outcome.has_error() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Lists the cluster once.
async fn list(shared: &Arc<SharedIndex>, args: &ScopeArgs) -> anyhow::Result<()> {
    let client = crate::run::cluster_client(args.api_timeout).await?;
    let (listed, mut complete) = watch::channel(false);
    let stop = Stop::new();
    let watches = Watches::default();
    let cluster = Cluster { client, scope: scope(args), watches: watches.clone() };
    let following = cluster.follow(Arc::clone(shared), listed, stop.clone(), |_, _| {});
    tokio::select! {
        () = following => bail!("watching the cluster ended"),
        complete = tokio::time::timeout(LISTING, complete.wait_for(|listed| *listed)) => {
            stop.cancel();
            match complete {
                Ok(_) => Ok(()),
                Err(_) => {
                    let missing = watches.all().into_iter().filter(|(_, state)| !state.listed);
                    let missing: Vec<String> = missing.map(|(watch, _)| watch).collect();
                    bail!("the cluster was not listed within {LISTING:?}: {}", missing.join(", "))
                }
            }
        }
    }
}
