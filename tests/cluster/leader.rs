//! Leader election with two processes: kill -9, a paused leader, SIGTERM.

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;

use crate::common::{Registry, eventually};
use crate::harness::{Cluster, Discovery, blocking, namespace, object, serves};

/// An MCP resource with a URL of its own: the smallest thing that is published.
fn entry(namespace: &str, name: &str) -> serde_json::Value {
    let mut entry = object("toolhive.stacklok.dev/v1beta1", "MCPServerEntry", namespace, name);
    entry["spec"] = json!({"remoteUrl": "https://x.example.org/mcp", "transport": "sse", "groupRef": {"name": "g"}});
    let url = format!("https://{name}.example.org/mcp");
    entry["metadata"]["annotations"] = json!({"toolhive.stacklok.dev/registry-url": url});
    entry
}

async fn holder(cluster: &Cluster, namespace: &str) -> String {
    let api: Api<Lease> = Api::namespaced(cluster.client.clone(), namespace);
    let lease = api.get("waymark-discovery").await.unwrap();
    lease.spec.unwrap().holder_identity.unwrap_or_default()
}

fn sessions(registry: &mut Registry) -> usize {
    registry.waymark.drain();
    registry.waymark.seen.iter().filter(|line| line.contains("opened a session")).count()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn of_two_processes_one_publishes() {
    const APPS: &str = "leader-apps";
    const SYSTEM: &str = "leader-system";
    let cluster = Cluster::shared().await;
    let account = cluster.account(SYSTEM).await;
    cluster.apply(&namespace(APPS, &json!({}))).await;
    for (file, name) in [("watched-namespace.yaml", APPS), ("own-namespace.yaml", SYSTEM)] {
        cluster
            .apply_shipped(file, |document| {
                document["metadata"]["namespace"] = json!(name);
                if let Some(subjects) = document.get_mut("subjects") {
                    subjects[0]["namespace"] = json!(SYSTEM);
                }
            })
            .await;
    }
    let data = tempfile::tempdir().unwrap();
    let mut registry = Registry::start(data.path(), "127.0.0.1:0", &[]);
    let grpc = registry.grpc.clone();
    let start = |duration: &str| {
        let args = ["-n", APPS, "--lease-duration", duration];
        Discovery::start(&account, &grpc, &args)
    };
    cluster.apply(&entry(APPS, "a")).await;
    let mut first = start("4s");
    first.waymark.line(&["this process leads now"]);
    blocking(|| serves(&registry, &["https://a.example.org/mcp"]));
    let mut second = start("4s");
    second.waymark.line(&["another process leads"]);
    // Who stands by is ready, and says for whom.
    blocking(|| second.until_ready());
    assert!(second.ready().1.contains("standing by for"), "{:?}", second.ready());
    assert_eq!(sessions(&mut registry), 1);

    // Killed: replaced when its lease has run out.
    first.waymark.kill();
    second.waymark.line(&["the lease ran out; taking over"]);
    cluster.apply(&entry(APPS, "b")).await;
    blocking(|| serves(&registry, &["https://a.example.org/mcp", "https://b.example.org/mcp"]));
    assert_eq!(sessions(&mut registry), 2);

    // Paused: replaced; and when it goes on, it publishes nothing any more.
    let mut third = start("4s");
    third.waymark.line(&["another process leads"]);
    second.waymark.signal("-STOP");
    third.waymark.line(&["the lease ran out; taking over"]);
    cluster.apply(&entry(APPS, "c")).await;
    let three =
        ["https://a.example.org/mcp", "https://b.example.org/mcp", "https://c.example.org/mcp"];
    blocking(|| serves(&registry, &three));
    let leader = holder(&cluster, SYSTEM).await;
    second.waymark.signal("-CONT");
    blocking(|| {
        eventually("a leader that has stepped back", || {
            second.ready().1.contains("standing by for").then_some(())
        });
    });
    cluster.apply(&entry(APPS, "d")).await;
    let four = [three[0], three[1], three[2], "https://d.example.org/mcp"];
    blocking(|| serves(&registry, &four));
    blocking(|| second.until_ready());
    assert_eq!(holder(&cluster, SYSTEM).await, leader);
    assert_eq!(sessions(&mut registry), 3, "the paused leader opened a session again");
    assert!(!registry.waymark.seen.iter().any(|line| line.contains("uperseded")));

    // SIGTERM: the lease is given back at once.
    third.waymark.stop();
    assert_ne!(holder(&cluster, SYSTEM).await, leader);
    second.waymark.line(&["this process leads now"]);
    cluster.delete(&entry(APPS, "d")).await;
    blocking(|| serves(&registry, &three));
    blocking(|| eventually("a session", || (sessions(&mut registry) == 4).then_some(())));
    second.waymark.stop();
    registry.waymark.stop();
}
