//! `waymark explain`: one object's outcome, and why.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use waymark_discovery::explanation::Outcome;
use waymark_discovery::publisher::SharedIndex;
use waymark_discovery::source::cluster;
use waymark_discovery::source::manifest::Manifests;
use waymark_discovery::{Index, Key, Kind};

use crate::cli::{ExplainArgs, ExplainFormat};
use crate::output;
use crate::run::settings;

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
    let settings = settings(&args.rules, args.assume_accepted.unwrap_or(manifests))?;
    let prefix = settings.prefix.clone();
    let shared = SharedIndex::new(Index::new(settings));
    if manifests {
        let read = Manifests::read(&args.manifests, &prefix)?;
        shared.update(|index| read.apply(index));
    } else {
        list(&shared).await?;
    }
    let index = shared.read();
    let explained = match index.explain(&key) {
        Some(explanation) => vec![explanation],
        None => index.dependents(&key).iter().filter_map(|key| index.explain(key)).collect(),
    };
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
async fn list(shared: &Arc<SharedIndex>) -> anyhow::Result<()> {
    let client = crate::run::cluster_client().await?;
    let (listed, mut complete) = watch::channel(false);
    let stop = CancellationToken::new();
    let following = cluster::follow(client, Arc::clone(shared), listed, stop.clone(), |_, _| {});
    tokio::select! {
        () = following => bail!("watching the cluster ended"),
        complete = tokio::time::timeout(LISTING, complete.wait_for(|listed| *listed)) => {
            stop.cancel();
            match complete {
                Ok(_) => Ok(()),
                Err(_) => bail!("the cluster was not listed within {LISTING:?}; see the warnings above"),
            }
        }
    }
}
