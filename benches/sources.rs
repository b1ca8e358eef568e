//! Sources of 10,000 entries: the first sync and one in which nothing has changed; another registry
//! whole, and only what changed. `cargo xtask bench sources`.
//!
//! Baselines: getting the same document and parsing it as JSON; reading the other registry whole.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;
#[path = "../tests/common/web.rs"]
mod web;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Registry, publish, server, timed};
use serde_json::{Value, json};
use web::{Reply, Web};

const ENTRIES: usize = 10_000;
/// Syncs of each kind that the mean is of.
const SYNCS: u64 = 5;

fn get(url: &str) -> Vec<u8> {
    let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
    let mut response = agent.get(url).call().unwrap();
    response.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap()
}

/// How many syncs there were, and how long they took together.
fn syncs(rest: &str) -> (u64, f64) {
    let metrics = String::from_utf8(get(&format!("{rest}/metrics"))).unwrap();
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| {
            line.strip_prefix(&format!("mcpregistry_sync_duration_seconds_{name}{{source=\"s\"}} "))
        });
        line.map_or(0.0, |value| value.parse().unwrap())
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (value("count") as u64, value("sum"))
}

/// The mean time of the next syncs.
fn next(rest: &str) -> Duration {
    let (from, before) = syncs(rest);
    loop {
        let (count, sum) = syncs(rest);
        if count >= from + SYNCS {
            return Duration::from_secs_f64((sum - before) / (count - from) as f64);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn start(folder: &Path, source: &Value) -> Registry {
    std::fs::create_dir_all(folder).unwrap();
    let mut source = source.clone();
    source["name"] = json!("s");
    source["syncPolicy"] = json!({"interval": "1s"});
    let config =
        json!({"sources": [source], "registries": [{"name": "default", "sources": ["s"]}]});
    let path = folder.join("registry.yaml");
    std::fs::write(&path, config.to_string()).unwrap();
    Registry::start_with(folder, &["--config", path.to_str().unwrap()])
}

fn print(what: &str, took: Duration, baseline: Duration) {
    let ratio = took.as_secs_f64() / baseline.as_secs_f64();
    println!("  {what:<44} {:>8.1} ms  {ratio:>7.3} of the baseline's", took.as_secs_f64() * 1e3);
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let servers: Vec<Value> = (0..ENTRIES).map(server).collect();
    let document = json!({ "servers": servers }).to_string();
    println!("sources: {ENTRIES} entries, {} MB", document.len() / 1_000_000);
    documents(folder.path(), &document);
    registries(folder.path());
}

fn documents(folder: &Path, document: &str) {
    let web = Web::start(Reply::Document(document.as_bytes().to_vec()));
    let (_, baseline) = timed(|| {
        let body = get(&web.url("/"));
        serde_json::from_slice::<Value>(&body).unwrap()
    });
    println!(
        "  getting and parsing it (baseline)            {:>8.1} ms",
        baseline.as_secs_f64() * 1e3
    );
    let empty = start(&folder.join("empty"), &json!({"file": {"data": "{\"servers\": []}"}}));
    let idle = empty.memory();
    drop(empty);
    let started = Instant::now();
    let registry = start(&folder.join("url"), &json!({"url": {"url": web.url("/")}}));
    let listening = started.elapsed();
    let (_, first) = syncs(&registry.rest);
    print("URL: first sync, stored and served", Duration::from_secs_f64(first), baseline);
    print("URL: nothing changed, told by ETag", next(&registry.rest), baseline);
    let memory = (registry.memory().saturating_sub(idle)) / ENTRIES as u64;
    // A server that cannot tell: the document is read, and its fingerprint is the same.
    let text = document.to_owned();
    web.set(Reply::By(Arc::new(move |_| (http::StatusCode::OK, text.clone()))));
    next(&registry.rest);
    print("URL: nothing changed, read all the same", next(&registry.rest), baseline);
    println!(
        "  from process start to listening              {:>8.1} ms",
        listening.as_secs_f64() * 1e3
    );
    println!("  memory beyond an empty registry              {memory:>8} bytes per entry");
}

fn registries(folder: &Path) {
    let upstream = Registry::start(&folder.join("upstream"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let all = |changed: usize| -> Vec<Vec<u8>> {
        let one = |n: usize| {
            let mut server = server(n);
            if n < changed {
                server["description"] = json!(format!("changed {changed}"));
            }
            server.to_string().into_bytes()
        };
        (0..ENTRIES).map(one).collect()
    };
    runtime.block_on(publish(&upstream.grpc, all(0)));
    let api = |full: &str| json!({"api": {"endpoint": upstream.rest, "fullSyncInterval": full}});
    let whole = start(&folder.join("whole"), &api("1s"));
    let baseline = next(&whole.rest);
    drop(whole);
    let registry = start(&folder.join("incremental"), &api("1h"));
    let (_, first) = syncs(&registry.rest);
    println!(
        "  registry: all of it, again (baseline)        {:>8.1} ms",
        baseline.as_secs_f64() * 1e3
    );
    print("registry: first sync, stored and served", Duration::from_secs_f64(first), baseline);
    // Until what changed last was asked for once more.
    std::thread::sleep(Duration::from_secs(14));
    print("registry: only what changed: nothing", next(&registry.rest), baseline);
    runtime.block_on(publish(&upstream.grpc, all(100)));
    let started = Instant::now();
    let text = "\"description\":\"changed 100\"";
    let name = server(99)["name"].as_str().unwrap().replace('/', "%2F");
    let url = format!("{}/v0.1/servers/{name}/versions/1.4.2", registry.rest);
    while !String::from_utf8(get(&url)).unwrap().contains(text) {
        std::thread::sleep(Duration::from_millis(5));
    }
    println!(
        "  registry: 100 changes, seen after            {:>8.1} ms (the interval is 1 s)",
        started.elapsed().as_secs_f64() * 1e3
    );
    print("registry: only what changed, after that", next(&registry.rest), baseline);
}
