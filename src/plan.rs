//! `waymark plan`: manifests in, outcome out.

use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};
use waymark_discovery::Index;
use waymark_discovery::explanation::Outcome;
use waymark_discovery::publisher::{problem, to_proto};
use waymark_discovery::source::manifest::Manifests;
use waymark_proto::v1::{Entry, Rejection};
use waymark_registry_api::catalogue::{Preview, preview};

use crate::cli::{PlanArgs, PlanFormat};
use crate::curated::{Curated, read_files};
use crate::output;
use crate::run::settings;

pub(crate) fn run(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let settings = settings(&args.manifests.rules, args.manifests.assume.assume_accepted)?;
    let mut manifests = Manifests::read(&args.manifests.paths, &settings.prefix)?;
    let mut documents = read_files(&args.manifests.catalogue)?;
    documents.append(&mut manifests.catalogues);
    let curated = Curated::of(&documents);
    let assumed = if settings.assume_accepted { manifests.without_status() } else { 0 };
    let mut explanations = std::mem::take(&mut manifests.faults);
    explanations.extend(curated.faults);
    let mut index = Index::new(settings);
    manifests.apply(&mut index);

    let entries: Vec<Entry> = index.entries().into_values().map(to_proto).collect();
    let preview = preview(curated.entries, &entries);
    for (id, refusal) in &preview.refused {
        let (code, message) = (refusal.code.to_owned(), refusal.message.clone());
        let rejection = Rejection { id: id.to_string(), code, message };
        index.set_rejection(id, Some(problem(&rejection)));
    }
    explanations.extend(index.outcome().objects);
    let outcome = Outcome::new(explanations).assuming(assumed);
    let text = match args.output {
        PlanFormat::Table => output::explanations(&outcome.objects) + &output::summary(&outcome),
        PlanFormat::Json => serde_json::to_string_pretty(&outcome)? + "\n",
        PlanFormat::Yaml => serde_saphyr::to_string(&outcome).context("cannot write YAML")?,
        PlanFormat::Upstream => serde_json::to_string_pretty(&upstream(&preview)?)? + "\n",
    };
    output::print(&text)?;
    Ok(if outcome.has_error() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The registry's list. What only a registry knows (`_meta`) is empty.
fn upstream(preview: &Preview) -> anyhow::Result<Value> {
    let servers = preview
        .servers
        .iter()
        .map(|served| {
            let server: Value = serde_json::from_str(served.server_text())?;
            Ok(json!({"server": server, "_meta": {}}))
        })
        .collect::<anyhow::Result<Vec<Value>>>()?;
    Ok(json!({"metadata": {"count": servers.len()}, "servers": servers}))
}
