//! Discovery on a real API server with 10,000 annotated routes: time to the first full publish,
//! memory, and the delay from a write to the API until REST shows it. `cargo xtask bench cluster`.
//!
//! Baselines: for the first publish, a paged list of the same routes by a plain client; for the
//! delay, a plain watch of the same routes, which sees each change as early as any controller can.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    dead_code
)]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/cluster/harness.rs"]
mod harness;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Registry, get};
use futures::{StreamExt, TryStreamExt, stream};
use harness::{Cluster, Discovery, blocking, gateway_api, namespace, object};
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::runtime::watcher;
use serde_json::{Value, json};

const ROUTES: usize = 10_000;
const CHANGES: usize = 1_000;
const NAMESPACES: usize = 20;

fn gateway() -> Value {
    let mut gateway = object("gateway.networking.k8s.io/v1", "Gateway", "infra", "public");
    gateway["spec"] = json!({"gatewayClassName": "any", "listeners": [{
        "name": "web", "protocol": "HTTP", "port": 80, "hostname": "*.example.com",
        "allowedRoutes": {"namespaces": {"from": "All"}}
    }]});
    gateway["status"] = json!({"conditions": [{"type": "Programmed", "status": "True",
        "reason": "Programmed", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    gateway
}

fn route(n: usize) -> Value {
    let mut route = object(
        "gateway.networking.k8s.io/v1",
        "HTTPRoute",
        &format!("team-{}", n % NAMESPACES),
        &format!("server-{n}"),
    );
    route["metadata"]["annotations"] = json!({
        "toolhive.stacklok.dev/registry-export": "true",
        "toolhive.stacklok.dev/registry-description": format!("Server number {n}"),
    });
    route["spec"] = json!({
        "parentRefs": [{"name": "public", "namespace": "infra"}],
        "hostnames": [format!("host-{}.example.com", n % 100)],
        "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": format!("/server-{n}/mcp")}}],
                   "backendRefs": [{"name": format!("server-{n}"), "port": 8080}]}]
    });
    route
}

fn status() -> Value {
    json!({"status": {"parents": [{
        "parentRef": {"name": "public", "namespace": "infra"},
        "controllerName": "example.com/controller",
        // A route that changes is not to wait for a controller that is not there.
        "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]
    }]}})
}

fn resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute"))
}

fn api(cluster: &Cluster, n: usize) -> Api<DynamicObject> {
    let namespace = format!("team-{}", n % NAMESPACES);
    Api::namespaced_with(cluster.client.clone(), &namespace, &resource())
}

async fn create(cluster: &Cluster) {
    stream::iter(0..ROUTES)
        .map(|n| async move {
            let api = api(cluster, n);
            let route: DynamicObject = serde_json::from_value(route(n)).unwrap();
            api.create(&PostParams::default(), &route).await?;
            let name = format!("server-{n}");
            let status = Patch::Merge(status());
            api.patch_status(&name, &PatchParams::default(), &status).await.map(drop)
        })
        .buffer_unordered(32)
        .try_collect::<Vec<()>>()
        .await
        .unwrap();
}

/// Resident memory now and at its highest, in MiB.
fn memory(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// When a plain watch saw a description.
type Sightings = Arc<Mutex<HashMap<String, Instant>>>;

fn watch(cluster: &Cluster) -> Sightings {
    let sightings = Sightings::default();
    let (seen, client) = (Arc::clone(&sightings), cluster.client.clone());
    tokio::spawn(async move {
        let api: Api<DynamicObject> = Api::all_with(client, &resource());
        let mut events = watcher(api, watcher::Config::default()).boxed();
        while let Some(event) = events.next().await {
            if let Ok(watcher::Event::Apply(object)) = event {
                let annotations = object.metadata.annotations.unwrap_or_default();
                let text = annotations["toolhive.stacklok.dev/registry-description"].clone();
                seen.lock().unwrap().entry(text).or_insert_with(Instant::now);
            }
        }
    });
    sightings
}

/// Changes one route after the other, and waits until REST shows each. The times from the beginning
/// of the write until REST shows it, and until the plain watch does.
async fn changes(cluster: &Cluster, registry: &Registry) -> (Vec<Duration>, Vec<Duration>) {
    let sightings = watch(cluster);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (mut shown, mut watched) = (Vec::new(), Vec::new());
    for change in 0..CHANGES {
        let n = change * 7919 % ROUTES;
        let text = format!("Change number {change}");
        let patch = json!({"metadata": {"annotations":
            {"toolhive.stacklok.dev/registry-description": text}}});
        let name = format!("com.example.host-{}%2Fserver-{n}", n % 100);
        let url = format!("{}/v0.1/servers/{name}/versions/latest", registry.rest);
        let (started, expected) = (Instant::now(), text.clone());
        let api = api(cluster, n);
        let writing = tokio::spawn(async move {
            let params = PatchParams::default();
            api.patch(&format!("server-{n}"), &params, &Patch::Merge(&patch)).await.unwrap();
        });
        shown.push(blocking(|| {
            while get(&url).json()["server"]["description"] != expected {
                std::thread::sleep(Duration::from_micros(200));
            }
            started.elapsed()
        }));
        writing.await.unwrap();
        let seen = loop {
            if let Some(seen) = sightings.lock().unwrap().get(&text) {
                break *seen;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        watched.push(seen.duration_since(started));
    }
    (shown, watched)
}

#[tokio::main]
async fn main() {
    let cluster = Cluster::start().await;
    for plural in ["gateways", "httproutes", "referencegrants", "listenersets"] {
        cluster.install(&gateway_api(plural)).await;
    }
    let account = cluster.cluster_account().await;
    cluster.apply(&namespace("infra", &json!({}))).await;
    for n in 0..NAMESPACES {
        cluster.apply(&namespace(&format!("team-{n}"), &json!({}))).await;
    }
    cluster.apply(&gateway()).await;
    create(&cluster).await;
    println!("cluster: {ROUTES} annotated routes on a real API server, SQLite, with Events");

    let all: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource());
    let started = Instant::now();
    let (mut listed, mut token) = (0, None);
    loop {
        let mut params = ListParams::default().limit(500);
        params.continue_token = token;
        let page = all.list(&params).await.unwrap();
        listed += page.items.len();
        token = page.metadata.continue_.filter(|token| !token.is_empty());
        if token.is_none() {
            break;
        }
    }
    let list = started.elapsed();
    assert_eq!(listed, ROUTES);

    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path(), "127.0.0.1:0", &[]);
    let started = Instant::now();
    let discovery = Discovery::start(&account, &registry.grpc, &[]);
    blocking(|| {
        while discovery.ready().0 != 200 {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let first = started.elapsed();
    let pid = discovery.waymark.child.id();
    println!(
        "  first full publish      {:>8.2} s from the start of the process; a plain paged list {:.2} s (ratio {:.2})",
        first.as_secs_f64(),
        list.as_secs_f64(),
        first.as_secs_f64() / list.as_secs_f64()
    );
    let (now, most) = memory(pid);
    println!("  memory                  {now:>8} MiB, at most {most} MiB");
    let posted = || {
        let metrics = get(&format!("{}/metrics", discovery.admin));
        let metrics = String::from_utf8(metrics.body).unwrap();
        let line = metrics.lines().find(|line| line.contains("reason=\"EndpointDiscovered\""));
        line.map_or(0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
    };
    blocking(|| {
        while posted() < ROUTES {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let events = started.elapsed() - first;
    println!("  Events posted           {:>8.0} per second", 10_000.0 / events.as_secs_f64());

    let (shown, watched) = changes(&cluster, &registry).await;
    let ((p50, p99), (watch50, watch99)) = (percentiles(shown), percentiles(watched));
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!("  {CHANGES} changes, one after the other, from the start of the write:");
    println!("  shown by REST           p50 {:>6.1} ms   p99 {:>6.1} ms", ms(p50), ms(p99));
    println!(
        "  seen by a plain watch   p50 {:>6.1} ms   p99 {:>6.1} ms   (ratio {:.2} and {:.2})",
        ms(watch50),
        ms(watch99),
        ms(p50) / ms(watch50),
        ms(p99) / ms(watch99)
    );
    let (now, most) = memory(pid);
    println!("  memory after that       {now:>8} MiB, at most {most} MiB");
    discovery.waymark.stop();
    registry.waymark.stop();
}
