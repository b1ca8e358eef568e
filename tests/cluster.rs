//! `waymark discovery` against a real API server: the life of a route, and the API server's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use cluster::{Cluster, gateway_api};
use common::{Registry, Waymark, eventually, get, names};
use serde_json::{Value, json};

fn namespace(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

fn gateway(hostname: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "public", "namespace": "infra"},
        "spec": {"gatewayClassName": "any", "listeners": [{
            "name": "web", "protocol": "HTTP", "port": 80, "hostname": hostname,
            "allowedRoutes": {"namespaces": {"from": "Selector", "selector": {"matchLabels": {"mcp": "yes"}}}}
        }]},
        "status": {"conditions": [{
            "type": "Programmed", "status": "True", "reason": "Programmed", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"
        }]}
    })
}

fn route(hostname: &str, export: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "github", "namespace": "apps",
            "annotations": {"toolhive.stacklok.dev/registry-export": export}},
        "spec": {
            "parentRefs": [{"name": "public", "namespace": "infra"}],
            "hostnames": [hostname],
            "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/mcp"}}],
                       "backendRefs": [{"name": "github", "port": 8080}]}]
        }
    })
}

fn accepted(mut route: Value) -> Value {
    route["status"] = json!({"parents": [{
        "parentRef": {"name": "public", "namespace": "infra"},
        "controllerName": "example.com/controller",
        "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]
    }]});
    route
}

fn discovery(cluster: &Cluster, registry: &Registry) -> Waymark {
    let mut command = common::binary();
    command.env("KUBECONFIG", &cluster.kubeconfig);
    command.args(["discovery", "--registry", &registry.grpc]);
    Waymark::spawn(command)
}

/// Waits until the registry serves just these URLs.
async fn serves(registry: &Registry, urls: &[&str]) {
    let rest = registry.rest.clone();
    let wanted: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
    tokio::task::spawn_blocking(move || {
        eventually(&format!("{wanted:?}"), || {
            let page = get(&format!("{rest}/v0.1/servers")).json();
            let servers = page["servers"].as_array().unwrap().clone();
            let urls: Vec<String> = servers
                .iter()
                .map(|s| s["server"]["remotes"][0]["url"].as_str().unwrap().to_owned())
                .collect();
            (urls == wanted).then_some(())
        });
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn the_life_of_a_route_and_of_the_api_server() {
    let mut cluster = Cluster::start().await;
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path(), "127.0.0.1:0", &[]);
    // Gateway API is not installed yet: that is waited for, not an error.
    let mut waymark = discovery(&cluster, &registry);
    waymark.line(&["the cluster was listed"]);
    for plural in ["gateways", "httproutes", "referencegrants", "listenersets"] {
        cluster.install(&gateway_api(plural)).await;
    }
    cluster.apply(&namespace("infra", &json!({}))).await;
    cluster.apply(&namespace("apps", &json!({}))).await;
    cluster.apply(&gateway("*.example.com")).await;

    // Created and annotated, but not accepted; then accepted, but of a namespace that may not.
    cluster.apply(&route("a.example.com", "true")).await;
    waymark.line(&["RouteNotAccepted", "apps/github"]);
    cluster.apply(&accepted(route("a.example.com", "true"))).await;
    waymark.line(&["NamespaceNotAllowed", "apps/github"]);
    serves(&registry, &[]).await;
    // A label of the namespace alone.
    cluster.apply(&namespace("apps", &json!({"mcp": "yes"}))).await;
    serves(&registry, &["http://a.example.com/mcp"]).await;
    // Another hostname: another URL and, with it, another name.
    cluster.apply(&accepted(route("b.example.com", "true"))).await;
    serves(&registry, &["http://b.example.com/mcp"]).await;
    assert_eq!(names(&registry.rest, ""), ["com.example.b/github"]);
    let explained = common::binary()
        .env("KUBECONFIG", &cluster.kubeconfig)
        .args(["explain", "gateway", "infra/public"])
        .output()
        .unwrap();
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(explained.status.success() && text.contains("http://b.example.com/mcp"), "{text}");
    // The Gateway alone.
    cluster.apply(&gateway("*.other.com")).await;
    serves(&registry, &[]).await;
    cluster.apply(&gateway("*.example.com")).await;
    serves(&registry, &["http://b.example.com/mcp"]).await;

    // The API server dies: what is published stays, and what happens later is seen.
    cluster.kill_apiserver();
    waymark.line(&["a watch broke"]);
    serves(&registry, &["http://b.example.com/mcp"]).await;
    cluster.start_apiserver().await;
    cluster.apply(&accepted(route("c.example.com", "true"))).await;
    serves(&registry, &["http://c.example.com/mcp"]).await;

    // Discovery is away while the route is opted out: the next one sees it (ToolHive's D2, D3).
    waymark.kill();
    cluster.apply(&route("c.example.com", "false")).await;
    serves(&registry, &["http://c.example.com/mcp"]).await;
    let waymark = discovery(&cluster, &registry);
    serves(&registry, &[]).await;
    cluster.apply(&accepted(route("c.example.com", "true"))).await;
    serves(&registry, &["http://c.example.com/mcp"]).await;
    cluster.delete(&route("c.example.com", "true")).await;
    serves(&registry, &[]).await;
    waymark.stop();
    registry.waymark.stop();
}

/// What `plan` makes of the cluster's objects: URLs by server name.
async fn planned(cluster: &Cluster) -> Vec<(String, String)> {
    let mut items = cluster.list("", "v1", "Namespace").await;
    for kind in ["Gateway", "HTTPRoute"] {
        items.extend(cluster.list("gateway.networking.k8s.io", "v1", kind).await);
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    let mut command = common::binary();
    command.args(["plan", "-o", "upstream", "--assume-accepted=false", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    urls(&serde_json::from_slice(&output.stdout).unwrap())
}

fn urls(list: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let server = |entry: &Value| {
        (text(&entry["server"]["name"]), text(&entry["server"]["remotes"][0]["url"]))
    };
    list["servers"].as_array().unwrap().iter().map(server).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn after_a_storm_the_registry_equals_the_plan() {
    let cluster = Cluster::start().await;
    for plural in ["gateways", "httproutes"] {
        cluster.install(&gateway_api(plural)).await;
    }
    cluster.apply(&namespace("infra", &json!({}))).await;
    cluster.apply(&namespace("apps", &json!({"mcp": "yes"}))).await;
    cluster.apply(&gateway("*.example.com")).await;
    let data = tempfile::tempdir().unwrap();
    let mut registry = Some(Registry::start(data.path(), "127.0.0.1:0", &[]));
    let grpc = registry.as_ref().unwrap().grpc.replace("http://", "");
    for round in 0..6_usize {
        if registry.is_none() {
            registry = Some(Registry::start(data.path(), &grpc, &[]));
        }
        let waymark = discovery(&cluster, registry.as_ref().unwrap());
        for step in 0..25_usize {
            // Every round the same routes in another state, some gone, some opted out, names that
            // conflict among them.
            let n = (round * 7 + step) % 30;
            let export = if (n + round) % 5 == 0 { "false" } else { "true" };
            let mut route = accepted(route(&format!("h{}.example.com", (n + round) % 9), export));
            route["metadata"]["name"] = json!(format!("route-{n}"));
            if n % 3 == 0 {
                route["metadata"]["annotations"]["toolhive.stacklok.dev/registry-name"] =
                    json!("shared");
            }
            cluster.apply(&route).await;
            if step % 8 == 7 {
                cluster.delete(&route).await;
            }
            // At another point each round: discovery dies, or the registry does.
            if step == 5 + round * 3 && round % 3 == 2 {
                registry.take().unwrap().waymark.kill();
            }
        }
        waymark.kill();
    }
    if registry.is_none() {
        registry = Some(Registry::start(data.path(), &grpc, &[]));
    }
    let registry = registry.unwrap();
    let waymark = discovery(&cluster, &registry);
    let planned = planned(&cluster).await;
    assert!(planned.len() > 5, "{planned:?}");
    let rest = registry.rest.clone();
    tokio::task::spawn_blocking(move || {
        let mut last = Vec::new();
        let deadline = std::time::Instant::now() + common::PATIENCE;
        while last != planned {
            assert!(std::time::Instant::now() < deadline, "{last:#?}\nexpected {planned:#?}");
            std::thread::sleep(std::time::Duration::from_millis(50));
            last = urls(&get(&format!("{rest}/v0.1/servers?limit=100")).json());
        }
    })
    .await
    .unwrap();
    waymark.stop();
    registry.waymark.stop();
}

#[test]
fn without_a_cluster_it_says_what_to_do() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waymark"));
    command.env("KUBECONFIG", "/no/such/kubeconfig").env_remove("KUBERNETES_SERVICE_HOST");
    let output = command.args(["discovery", "--registry", "http://127.0.0.1:1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("set KUBECONFIG"), "{error}");
}
