//! What ToolHive's own discovery gets wrong, and this one does not.

use serde_json::{Value, json};

use crate::common::Registry;
use crate::harness::{Cluster, Discovery, blocking, namespace, object, served, serves};

const EXPORT: &str = "toolhive.stacklok.dev/registry-export";

/// An MCPServer with a URL of its own.
fn server(namespace: &str, name: &str, transport: &str, export: &str) -> Value {
    let mut server = object("toolhive.stacklok.dev/v1beta1", "MCPServer", namespace, name);
    server["spec"] = json!({"image": "example.com/x:1.2.3", "transport": transport});
    server["metadata"]["annotations"] = json!({
        EXPORT: export,
        "toolhive.stacklok.dev/registry-url": format!("https://{name}.example.org/mcp"),
        "toolhive.stacklok.dev/registry-description": "A server",
    });
    server
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn d1_to_d5() {
    let cluster = Cluster::start().await;
    // D4: the CRDs are not there when discovery starts.
    let account = cluster.cluster_account().await;
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path(), "127.0.0.1:0", &[]);
    let start = || Discovery::start(&account, &registry.grpc, &["--lease-duration", "4s"]);
    let discovery = start();
    blocking(|| discovery.until_ready());
    cluster.install_all().await;

    // D1: several namespaces; an event in one deletes nothing of the other.
    for name in ["one", "two"] {
        cluster.apply(&namespace(name, &json!({}))).await;
        cluster.apply(&server(name, name, "streamable-http", "true")).await;
    }
    let both = ["https://one.example.org/mcp", "https://two.example.org/mcp"];
    blocking(|| serves(&registry, &both));
    let mut changed = server("one", "one", "streamable-http", "true");
    changed["metadata"]["labels"] = json!({"changed": "yes"});
    cluster.apply(&changed).await;
    cluster.apply(&server("one", "three", "streamable-http", "true")).await;
    blocking(|| serves(&registry, &[both[0], "https://three.example.org/mcp", both[1]]));

    // D2: what opts out is withdrawn, and a sibling's change does not bring it back; what never
    // opted in is not exported by it either.
    cluster.apply(&server("one", "three", "streamable-http", "false")).await;
    cluster.apply(&server("one", "four", "streamable-http", "false")).await;
    cluster.apply(&server("one", "one", "streamable-http", "true")).await;
    blocking(|| serves(&registry, &both));

    // D3: deleted while discovery was down.
    discovery.waymark.stop();
    cluster.delete(&server("two", "two", "", "")).await;
    assert_eq!(blocking(|| served(&registry)), both);
    let mut discovery = start();
    blocking(|| serves(&registry, &both[..1]));

    // D5: SSE is published as SSE.
    cluster.apply(&server("one", "one", "sse", "true")).await;
    let kind = || {
        let page = crate::common::get(&format!("{}/v0.1/servers", registry.rest)).json();
        page["servers"][0]["server"]["remotes"][0]["type"].as_str().unwrap().to_owned()
    };
    blocking(|| crate::common::eventually("sse", || (kind() == "sse").then_some(())));

    // D4: a lease that cannot be held any more is seen in readiness, and is held again later.
    blocking(|| discovery.until_ready());
    cluster.kill_apiserver();
    discovery.waymark.line(&["cannot be held"]);
    let (status, text) = blocking(|| discovery.ready());
    assert!(status == 503 && text.contains("[-] lease"), "{status} {text}");
    cluster.start_apiserver().await;
    blocking(|| discovery.until_ready());
    cluster.apply(&server("one", "five", "sse", "true")).await;
    blocking(|| serves(&registry, &["https://five.example.org/mcp", both[0]]));
    discovery.waymark.stop();
    registry.waymark.stop();
}
