//! The shipped role of the MCPRegistry controller: nothing in it is unused. With any verb of any
//! resource, or any resource name, taken away, the log says which one is missing. That the whole role
//! is enough, the other tests show.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::PATIENCE;
use crate::harness::{Cluster, blocking, gateway_api, namespace, object};
use crate::mcpregistry::{VERSION, crd, start};
use crate::rbac::{Variant, variants};

const OWN: &str = "registry-api-own-namespace.yaml";

fn registry(namespace: &str, name: &str, source: &Value, storage: &str) -> Value {
    let mut registry = object(VERSION, "MCPRegistry", namespace, name);
    registry["spec"] = json!({"source": source, "storageRef": {"type": storage},
        "syncPolicy": {"interval": "1s", "retryPolicy": {"backoffInterval": "1s"}}});
    registry
}

fn catalogue(namespace: &str, name: &str) -> Value {
    let mut map = object("v1", "ConfigMap", namespace, name);
    map["data"] = json!({"registry.json": "{\"servers\": []}"});
    map
}

/// What uses every verb, again and again: copies that come and go, a Secret, a ReferenceGrant that
/// comes and goes, and with it the same Event.
async fn turn(cluster: &Cluster, own: &str, other: &str, turn: usize) {
    let configmap = json!({"type": "configmap", "configmap": {"name": "data"}});
    let storage = ["configmap", "database"][turn % 2];
    cluster.apply(&registry(own, "copied", &configmap, storage)).await;
    let kind = ["ConfigMap", "Secret"][turn % 2];
    let mut grant = object("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", other, own);
    grant["spec"] = json!({
        "from": [{"group": "toolhive.stacklok.dev", "kind": "MCPRegistry", "namespace": own}],
        "to": [{"group": "", "kind": kind}]});
    cluster.apply(&grant).await;
}

async fn prepare(cluster: &Cluster, own: &str, other: &str) {
    cluster.apply(&namespace(own, &json!({}))).await;
    cluster.apply(&catalogue(own, "data")).await;
    let secret = json!({"type": "url", "url": {"url": "https://127.0.0.1/",
        "http": {"bearerTokenSecretRef": {"name": "token", "key": "value"}}}});
    cluster.apply(&registry(own, "secret", &secret, "database")).await;
    let granted = json!({"type": "configmap", "configmap": {"name": "data", "namespace": other}});
    cluster.apply(&registry(own, "granted", &granted, "database")).await;
}

/// A controller of one namespace whose role lacks something.
async fn launch(
    cluster: &Cluster,
    own: &str,
    variant: &Variant,
) -> (tempfile::TempDir, crate::common::Registry) {
    let account = cluster.account_of(own, "waymark-registry-api").await;
    for file in ["registry-api.yaml", OWN] {
        cluster
            .apply_shipped(file, |document| {
                if variant.file == file {
                    variant.apply(document);
                }
                if file == OWN {
                    document["metadata"]["namespace"] = json!(own);
                } else {
                    document["metadata"]["name"] = json!(own);
                    if document.get("roleRef").is_some() {
                        document["roleRef"]["name"] = json!(own);
                    }
                }
                if let Some(subjects) = document.get_mut("subjects") {
                    subjects[0]["namespace"] = json!(own);
                }
            })
            .await;
    }
    let data = tempfile::tempdir().unwrap();
    let args = ["--mcpregistry-namespace", own];
    let registry = blocking(|| start(&account, data.path(), &args));
    (data, registry)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn every_verb_is_needed_and_named() {
    let cluster = Cluster::start().await;
    cluster.install(&crd()).await;
    cluster.install(&gateway_api("referencegrants")).await;
    let other = "catalogues";
    cluster.apply(&namespace(other, &json!({}))).await;
    cluster.apply(&catalogue(other, "data")).await;
    let all: Vec<Variant> = ["registry-api.yaml", OWN].into_iter().flat_map(variants).collect();
    assert_eq!(all.len(), 19);
    for (at, chunk) in all.chunks(8).enumerate() {
        let mut running = Vec::new();
        for (n, variant) in chunk.iter().enumerate() {
            let own = format!("variant-{at}-{n}");
            prepare(&cluster, &own, other).await;
            let (data, registry) = launch(&cluster, &own, variant).await;
            running.push((variant, own, registry, data));
        }
        let deadline = Instant::now() + 2 * PATIENCE;
        for number in 0.. {
            for (_, own, ..) in &running {
                turn(&cluster, own, other, number).await;
            }
            tokio::time::sleep(Duration::from_millis(1500)).await;
            running.retain_mut(|(variant, _, registry, _)| {
                registry.waymark.drain();
                !registry.waymark.seen.iter().any(|line| {
                    // In the log's JSON quotes are escaped.
                    line.replace("\\\"", "\"").contains(&variant.says)
                })
            });
            let Some((variant, _, registry, _)) = running.first() else { break };
            if Instant::now() > deadline {
                let log: Vec<&str> =
                    registry.waymark.seen.iter().rev().take(12).map(String::as_str).collect();
                let log = log.join("\n");
                panic!("without {}: nothing says {}:\n{log}", variant.name(), variant.says);
            }
        }
    }
}
