//! The shipped roles: enough, and nothing in them unused. With any verb of any resource, or any
//! resource name, taken away, the log says which one is missing.

use serde_json::{Value, json};

use crate::common::{PATIENCE, Registry};
use crate::harness::{Cluster, Discovery, blocking, namespace, object, shipped};

const APPS: &str = "apps";

/// A role with something taken away.
pub(crate) struct Variant {
    /// The file that it is of.
    pub(crate) file: &'static str,
    /// Where in `rules`, in which of its lists, and which item.
    rule: usize,
    list: &'static str,
    item: String,
    /// The resource that the verb is about; of a verb only.
    resource: Option<String>,
    /// What the log must say.
    pub(crate) says: String,
}

impl Variant {
    /// Takes it away from the documents' rules.
    pub(crate) fn apply(&self, document: &mut Value) {
        let Some(rules) = document.get_mut("rules").and_then(Value::as_array_mut) else { return };
        let mut rule = rules[self.rule].clone();
        let remove = |rule: &mut Value, list: &str, item: &str| {
            let items = rule[list].as_array_mut().unwrap();
            items.retain(|known| known != item);
            // No names at all would be all names.
            if items.is_empty() && list == "resourceNames" {
                items.push(json!("another"));
            }
        };
        match &self.resource {
            None => remove(&mut rules[self.rule], self.list, &self.item),
            Some(resource) => {
                // The others keep the verb.
                remove(&mut rules[self.rule], "resources", resource);
                rule["resources"] = json!([resource]);
                remove(&mut rule, self.list, &self.item);
                rules.push(rule);
                rules.retain(|rule| {
                    ["resources", "verbs"].iter().all(|list| rule[*list] != json!([]))
                });
            }
        }
    }

    pub(crate) fn name(&self) -> String {
        let resource = self.resource.as_deref().unwrap_or_default();
        format!("{} rule {} {} {resource}", self.file, self.rule, self.item)
    }
}

fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items.map(|item| item.as_str().unwrap().to_owned()).collect()
}

/// Everything that can be taken away from a file's role.
pub(crate) fn variants(file: &'static str) -> Vec<Variant> {
    let role = shipped(file).into_iter().find(|document| document["rules"].is_array()).unwrap();
    let mut variants = Vec::new();
    for (at, rule) in role["rules"].as_array().unwrap().iter().enumerate() {
        let group = rule["apiGroups"][0].as_str().unwrap();
        for resource in texts(&rule["resources"]) {
            let full =
                if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
            for verb in texts(&rule["verbs"]) {
                let lists = ["list", "watch"].contains(&verb.as_str());
                let ours = (lists && !file.starts_with("registry-api"))
                    || ["events", "namespaces"].contains(&resource.as_str());
                let says = if ours {
                    format!("RBAC does not allow to {verb} {full}")
                } else {
                    // The API server's own words.
                    format!("cannot {verb} resource \"{resource}\"")
                };
                variants.push(Variant {
                    file,
                    rule: at,
                    list: "verbs",
                    item: verb,
                    resource: Some(resource.clone()),
                    says,
                });
            }
            for name in texts(&rule["resourceNames"]) {
                variants.push(Variant {
                    file,
                    rule: at,
                    list: "resourceNames",
                    says: format!("\"{name}\" is forbidden"),
                    item: name,
                    resource: None,
                });
            }
        }
    }
    variants
}

/// An MCP resource whose URL changes back and forth, so that the same Event comes again.
fn entry(turn: usize) -> Value {
    let mut entry = object("toolhive.stacklok.dev/v1beta1", "MCPServerEntry", APPS, "x");
    entry["spec"] = json!({"remoteUrl": "https://x.example.org/mcp", "transport": "sse", "groupRef": {"name": "g"}});
    let url = format!("https://x.example.org/{}", turn % 2);
    entry["metadata"]["annotations"] = json!({"toolhive.stacklok.dev/registry-url": url});
    entry
}

/// A discovery whose ServiceAccount has the shipped roles, but for what is taken away.
async fn start(
    cluster: &Cluster,
    registry: &Registry,
    id: &str,
    without: Option<&Variant>,
) -> Discovery {
    let narrow = without.is_some_and(|variant| variant.file == "watched-namespace.yaml");
    let account = cluster.account(id).await;
    let watching = if narrow { "watched-namespace.yaml" } else { "cluster.yaml" };
    for file in [watching, "own-namespace.yaml"] {
        cluster
            .apply_shipped(file, |document| {
                if let Some(variant) = without.filter(|variant| variant.file == file) {
                    variant.apply(document);
                }
                match file {
                    "own-namespace.yaml" => document["metadata"]["namespace"] = json!(id),
                    _ => {
                        document["metadata"]["name"] = json!(id);
                        if document.get("roleRef").is_some() {
                            document["roleRef"]["name"] = json!(id);
                        }
                    }
                }
                if let Some(subjects) = document.get_mut("subjects") {
                    subjects[0]["namespace"] = json!(id);
                }
            })
            .await;
    }
    let mut args = vec!["--cluster", id, "--lease-duration", "4s"];
    if narrow {
        args.extend(["-n", APPS]);
    }
    blocking(|| Discovery::start(&account, &registry.grpc, &args))
}

async fn every_variant_is_named(cluster: &Cluster, variants: Vec<Variant>) {
    let mut turn = 0;
    for (at, chunk) in variants.chunks(6).enumerate() {
        let mut running = Vec::new();
        for (n, variant) in chunk.iter().enumerate() {
            let data = tempfile::tempdir().unwrap();
            let registry = Registry::start(data.path(), "127.0.0.1:0", &[]);
            let id = format!("variant-{at}-{n}");
            let discovery = start(cluster, &registry, &id, Some(variant)).await;
            running.push((variant, discovery, (registry, data)));
        }
        let deadline = std::time::Instant::now() + PATIENCE;
        while !running.is_empty() {
            turn += 1;
            cluster.apply(&entry(turn)).await;
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            running.retain_mut(|(variant, discovery, _)| {
                discovery.waymark.drain();
                !discovery.waymark.seen.iter().any(|line| line.contains(&variant.says))
            });
            if std::time::Instant::now() > deadline {
                let (variant, discovery, _) = &running[0];
                let log: Vec<&str> =
                    discovery.waymark.seen.iter().rev().take(12).map(String::as_str).collect();
                let log = log.join("\n");
                panic!("without {}: nothing says {}:\n{log}", variant.name(), variant.says);
            }
        }
    }
}

async fn the_whole_role_is_enough(cluster: &Cluster) {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path(), "127.0.0.1:0", &[]);
    let mut discovery = start(cluster, &registry, "whole", None).await;
    blocking(|| discovery.until_ready());
    // Until an Event was counted in a series, which takes all that there is to do.
    for turn in 0.. {
        cluster.apply(&entry(turn)).await;
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        let events = cluster.events(APPS).await;
        if events.iter().any(|event| event[3].contains("(x2)")) {
            break;
        }
        assert!(turn < 20, "{events:#?}");
    }
    discovery.waymark.drain();
    let log = discovery.waymark.seen.join("\n");
    assert!(!log.contains("forbidden") && !log.contains("RBAC"), "{log}");
    discovery.waymark.stop();
    registry.waymark.stop();
}

async fn cluster(args: &[&str]) -> Cluster {
    let cluster = Cluster::start_with(args).await;
    cluster.install_all().await;
    cluster.apply(&namespace(APPS, &json!({}))).await;
    cluster
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn roles_where_lists_are_streamed() {
    let cluster = cluster(&[]).await;
    the_whole_role_is_enough(&cluster).await;
    let files = ["cluster.yaml", "own-namespace.yaml", "watched-namespace.yaml"];
    let all = files.into_iter().flat_map(variants).filter(|variant| variant.item != "list");
    every_variant_is_named(&cluster, all.collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn roles_where_lists_come_in_pages() {
    let cluster = cluster(&["--feature-gates=WatchList=false"]).await;
    the_whole_role_is_enough(&cluster).await;
    let files = ["cluster.yaml", "watched-namespace.yaml"];
    let all = files.into_iter().flat_map(variants).filter(|variant| variant.item == "list");
    every_variant_is_named(&cluster, all.collect()).await;
}
