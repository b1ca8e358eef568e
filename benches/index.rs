//! The index: initial load, one change, memory. `cargo xtask bench index`.
//!
//! Baseline for one change is what a controller does that recomputes the world at each event: the
//! same index, loaded anew from the same objects.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, missing_docs)]

mod common;

use std::time::Duration;

use cap::Cap;
use common::{percentiles, timed};
use serde_json::{Value, json};
use waymark_discovery::object::{Parsed, parse};
use waymark_discovery::settings::DEFAULT_PREFIX;
use waymark_discovery::{Index, Settings};

#[global_allocator]
static ALLOCATOR: Cap<mimalloc::MiMalloc> = Cap::new(mimalloc::MiMalloc, usize::MAX);

const GATEWAYS: usize = 1000;

fn gateway(n: usize, port: u16) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": format!("gateway-{n}"), "namespace": format!("team-{n}"), "generation": 1},
        "spec": {"gatewayClassName": "x", "listeners": [
            {"name": "https", "protocol": "HTTPS", "port": port, "hostname": format!("*.team{n}.example.com")}
        ]},
        "status": {
            "conditions": [{"type": "Programmed", "status": "True", "observedGeneration": 1}],
            "addresses": [{"type": "IPAddress", "value": "203.0.113.1"}]
        }
    })
}

fn route(n: usize, host: &str) -> Value {
    let team = n % GATEWAYS;
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {
            "name": format!("server-{n}"), "namespace": format!("team-{team}"), "generation": 1,
            "uid": format!("6c7f3b1e-3a52-4f43-9f0e-{n:012}"),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {
                "toolhive.stacklok.dev/registry-export": "true",
                "toolhive.stacklok.dev/registry-description": format!("Everything about server {n}"),
                "toolhive.stacklok.dev/registry-tools": "list, get, create"
            }
        },
        "spec": {
            "parentRefs": [{"name": format!("gateway-{team}")}],
            "hostnames": [format!("{host}.team{team}.example.com")],
            "rules": [{
                "matches": [{"path": {"type": "PathPrefix", "value": format!("/server-{n}")}}],
                "filters": [{"type": "URLRewrite", "urlRewrite": {"path": {
                    "type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}}],
                "backendRefs": [{"name": format!("mcp-server-{n}-proxy"), "port": 8080}]
            }]
        },
        "status": {"parents": [{
            "parentRef": {"name": format!("gateway-{team}")}, "controllerName": "example.com/controller",
            "conditions": [
                {"type": "Accepted", "status": "True", "observedGeneration": 1, "reason": "Accepted"},
                {"type": "ResolvedRefs", "status": "True", "observedGeneration": 1, "reason": "ResolvedRefs"}
            ]
        }]}
    })
}

fn compact(value: &Value) -> Parsed {
    parse(value, DEFAULT_PREFIX).unwrap()
}

fn objects(routes: usize) -> Vec<Parsed> {
    let gateways = (0..GATEWAYS).map(|n| compact(&gateway(n, 443)));
    gateways.chain((0..routes).map(|n| compact(&route(n, "mcp")))).collect()
}

fn load(objects: Vec<Parsed>) -> Index {
    let mut index = Index::new(Settings::default());
    // As a controller does with its first list.
    index.reserve(objects.len(), objects.len() - GATEWAYS);
    for object in objects {
        index.apply(object);
    }
    index.commit();
    index
}

fn main() {
    println!("index: {GATEWAYS} Gateways, one core");
    for routes in [10_000, 100_000] {
        let before = ALLOCATOR.allocated();
        let input = objects(routes);
        let compact_bytes = ALLOCATOR.allocated() - before;
        let (mut index, took) = timed(|| load(input));
        let bytes = ALLOCATOR.allocated() - before;
        assert_eq!(index.outcome().summary.published, routes);
        assert_eq!(index.entry_ids().count(), routes);
        println!("  {routes} routes");
        println!(
            "    initial load      {:>9.1} ms   {:.2} µs per route",
            took.as_secs_f64() * 1e3,
            took.as_secs_f64() * 1e6 / routes as f64
        );
        println!(
            "    memory            {:>9.1} MiB  {} bytes per route ({} of it the compact objects)",
            bytes as f64 / f64::from(1 << 20),
            bytes / routes,
            compact_bytes / routes
        );
        let mut changes = Vec::new();
        for step in 0..2000 {
            let n = step * 7919 % routes;
            let changed = compact(&route(n, &format!("mcp{step}")));
            let (changes_seen, took) = timed(|| {
                index.apply(changed);
                index.commit()
            });
            // The URL and with it the name: one entry goes, one comes.
            assert_eq!(changes_seen.entries.len(), 2);
            changes.push(took);
        }
        let (median, p99) = percentiles(changes);
        let again = objects(routes);
        let (_, anew) = timed(|| load(again));
        report("one route", median, p99, anew);
        let mut changes = Vec::new();
        for step in 0..200 {
            let changed = compact(&gateway(step, 8443));
            let (changes_seen, took) = timed(|| {
                index.apply(changed);
                index.commit()
            });
            assert_eq!(changes_seen.entries.len(), routes / GATEWAYS);
            changes.push(took);
        }
        let (median, p99) = percentiles(changes);
        report(&format!("a Gateway of {}", routes / GATEWAYS), median, p99, anew);
    }
}

fn report(what: &str, median: Duration, p99: Duration, anew: Duration) {
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    println!(
        "    {what:<17} {:>9.1} µs   p99 {:.1} µs; recomputing everything: {:.0} times as long",
        micros(median),
        micros(p99),
        anew.as_secs_f64() / median.as_secs_f64()
    );
}
