//! Storms of changes with kills in the middle: afterwards the registry equals what `plan` gives.

use std::io::Write;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{self, Registry, get};
use crate::harness::{Cluster, Discovery, blocking, gateway_api, namespace};

const ROUTES: usize = 500;
const KILLS: usize = 50;

fn gateway() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "public", "namespace": "infra"},
        "spec": {"gatewayClassName": "any", "listeners": [{
            "name": "web", "protocol": "HTTP", "port": 80, "hostname": "*.example.com",
            "allowedRoutes": {"namespaces": {"from": "All"}}
        }]},
        "status": {"conditions": [{
            "type": "Programmed", "status": "True", "reason": "Programmed", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"
        }]}
    })
}

/// One of the routes, in one of many states: hosts that change, names that conflict, opted out.
fn route(n: usize, state: usize) -> Value {
    let export = if (n + state).is_multiple_of(5) { "false" } else { "true" };
    let mut annotations = json!({"toolhive.stacklok.dev/registry-export": export});
    if n.is_multiple_of(7) {
        annotations["toolhive.stacklok.dev/registry-name"] = json!(format!("shared-{}", n % 3));
    }
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": format!("route-{n}"), "namespace": "apps", "annotations": annotations},
        "spec": {
            "parentRefs": [{"name": "public", "namespace": "infra"}],
            "hostnames": [format!("h{}.example.com", (n + state) % 9)],
            "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/mcp"}}],
                       "backendRefs": [{"name": "x", "port": 8080}]}]
        },
        "status": {"parents": [{
            "parentRef": {"name": "public", "namespace": "infra"},
            "controllerName": "example.com/controller",
            "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]
        }]}
    })
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
    let mut stdin = child.stdin.take().unwrap();
    let writing = std::thread::spawn(move || stdin.write_all(list.as_bytes()).unwrap());
    let output = blocking(|| child.wait_with_output().unwrap());
    writing.join().unwrap();
    urls(&serde_json::from_slice(&output.stdout).unwrap())
}

fn urls(list: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let server = |entry: &Value| {
        (text(&entry["server"]["name"]), text(&entry["server"]["remotes"][0]["url"]))
    };
    list["servers"].as_array().unwrap().iter().map(server).collect()
}

/// All that the registry serves.
fn registered(rest: &str) -> Vec<(String, String)> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(&format!("{rest}/v0.1/servers?limit=100&cursor={cursor}")).json();
        all.extend(urls(&page));
        match page["metadata"]["nextCursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return all,
        }
    }
}

async fn equals_the_plan(cluster: &Cluster, registry: &Registry) {
    let planned = planned(cluster).await;
    assert!(planned.len() > ROUTES / 10, "{planned:?}");
    blocking(|| {
        let mut last = Vec::new();
        let deadline = Instant::now() + common::PATIENCE;
        while last != planned {
            assert!(Instant::now() < deadline, "{last:#?}\nexpected {planned:#?}");
            std::thread::sleep(Duration::from_millis(50));
            last = registered(&registry.rest);
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn discovery_killed_fifty_times_and_the_registry_now_and_then() {
    let cluster = Cluster::start().await;
    for plural in ["gateways", "httproutes"] {
        cluster.install(&gateway_api(plural)).await;
    }
    cluster.apply(&namespace("infra", &json!({}))).await;
    cluster.apply(&namespace("apps", &json!({}))).await;
    cluster.apply(&gateway()).await;
    let data = tempfile::tempdir().unwrap();
    let mut registry = Some(Registry::start(data.path(), "127.0.0.1:0", &[]));
    let grpc = registry.as_ref().unwrap().grpc.clone();
    let admin = cluster.server.admin();
    // A killed leader's lease would have to run out each time.
    let args = ["--leader-elect=false"];
    let (over, steps) = (AtomicBool::new(false), AtomicUsize::new(0));
    let churn = async {
        while !over.load(Ordering::Relaxed) {
            let step = steps.fetch_add(1, Ordering::Relaxed);
            let n = step * 7 % ROUTES;
            let route = route(n, step / 11);
            cluster.apply(&route).await;
            if step.is_multiple_of(8) {
                cluster.delete(&route).await;
            }
        }
    };
    let kills = async {
        for round in 0..KILLS {
            let address = grpc.replace("http://", "");
            registry.get_or_insert_with(|| Registry::start(data.path(), &address, &[]));
            let discovery = blocking(|| Discovery::start(&admin, &grpc, &args));
            // Every time at another point: while it lists, while it publishes, later.
            let pause = 20 + (round * 367) % 1100;
            tokio::time::sleep(Duration::from_millis(u64::try_from(pause).unwrap())).await;
            if round % 10 == 4 {
                registry.take().unwrap().waymark.kill();
            }
            discovery.waymark.kill();
        }
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(churn, kills);
    assert!(steps.into_inner() > ROUTES, "the storm was none");
    // One route for certain: an empty registry would not be one.
    let address = grpc.replace("http://", "");
    let registry = registry.unwrap_or_else(|| Registry::start(data.path(), &address, &[]));
    let discovery = Discovery::start(&admin, &grpc, &args);
    equals_the_plan(&cluster, &registry).await;

    // The registry is killed and comes back without its data: it gets everything again.
    registry.waymark.kill();
    let empty = tempfile::tempdir().unwrap();
    let registry = Registry::start(empty.path(), &address, &[]);
    equals_the_plan(&cluster, &registry).await;
    discovery.waymark.stop();
    registry.waymark.stop();
}
