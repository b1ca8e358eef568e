//! The gateway plugin at 100,000 published servers: decisions over gRPC, and what asking adds to a
//! request through Envoy. `cargo xtask bench gateway`.
//!
//! Baselines: a health check over the same connections to the same process; the same Envoy without
//! the filter.
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

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Registry, percentiles, publish, server};
use envoy_types::ext_authz::v3::pb::CheckRequest;
use envoy_types::pb::envoy::service::auth::v3::AttributeContext;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request};
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use futures::future::join_all;
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const SERVERS: usize = 100_000;
const CONNECTIONS: usize = 4;
const CALLS_AT_A_TIME: usize = 16;
const CALLS: usize = 5_000;

fn request(n: usize, known: bool) -> CheckRequest {
    let path = if known { format!("/server-{n}/mcp?x=y") } else { format!("/nothing-{n}/mcp") };
    let headers = ["user-agent", "accept", "content-type", "mcp-session-id", "x-request-id"];
    let headers = headers.map(|name| (name.to_owned(), "some value of a header".to_owned()));
    CheckRequest {
        attributes: Some(AttributeContext {
            request: Some(Request {
                http: Some(HttpRequest {
                    host: format!("team{}.example.com", n % 1000),
                    path,
                    method: "POST".into(),
                    headers: headers.into_iter().collect(),
                    ..HttpRequest::default()
                }),
                ..Request::default()
            }),
            ..AttributeContext::default()
        }),
    }
}

/// Calls per second, and the percentiles of one.
struct Load {
    rate: f64,
    half: Duration,
    most: Duration,
}

/// Many calls over a few connections, each stream of calls one after the other.
async fn load<F, C>(channels: &[Channel], call: F) -> Load
where
    F: Fn(Channel, usize) -> C + Clone + Send + 'static,
    C: Future<Output = ()> + Send,
{
    let started = Instant::now();
    let tasks = (0..CONNECTIONS * CALLS_AT_A_TIME).map(|task| {
        let (channel, call) = (channels[task % channels.len()].clone(), call.clone());
        tokio::spawn(async move {
            let mut times = Vec::with_capacity(CALLS);
            for n in 0..CALLS {
                let begun = Instant::now();
                call(channel.clone(), (task * CALLS + n) * 7919 % SERVERS).await;
                times.push(begun.elapsed());
            }
            times
        })
    });
    let times: Vec<Duration> = join_all(tasks).await.into_iter().flat_map(|t| t.unwrap()).collect();
    let rate = times.len() as f64 / started.elapsed().as_secs_f64();
    let (half, most) = percentiles(times);
    Load { rate, half, most }
}

fn print(what: &str, load: &Load, baseline: Option<&Load>) {
    let ratio = baseline.map(|b| format!("  {:.2} of the baseline's", load.rate / b.rate));
    println!(
        "  {what:<28} {:>8.0}/s  p50 {:>7.1?}  p99 {:>7.1?}{}",
        load.rate,
        load.half,
        load.most,
        ratio.unwrap_or_default()
    );
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let servers: Vec<Vec<u8>> = (0..SERVERS).map(|n| server(n).to_string().into_bytes()).collect();
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(&folder.path().join("registry"));
    runtime.block_on(publish(&registry.grpc, servers));
    println!(
        "gateway: {SERVERS} published servers, {} calls at a time",
        CONNECTIONS * CALLS_AT_A_TIME
    );
    runtime.block_on(decisions(&registry));
    envoy(&registry, folder.path());
}

async fn decisions(registry: &Registry) {
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS {
        let endpoint = Endpoint::from_shared(registry.grpc.clone()).unwrap();
        channels.push(endpoint.tcp_nodelay(true).connect().await.unwrap());
    }
    // Until the index has followed.
    loop {
        let answer =
            AuthorizationClient::new(channels[0].clone()).check(request(99_999, true)).await;
        if answer.unwrap().into_inner().status.unwrap().code == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let health = load(&channels, async |channel, _| {
        HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap();
    });
    let health = health.await;
    let decide = |known: bool| {
        load(&channels, move |channel, n| async move {
            let answer = AuthorizationClient::new(channel).check(request(n, known)).await.unwrap();
            assert_eq!(answer.into_inner().status.unwrap().code == 0, known);
        })
    };
    let (registered, refused) = (decide(true).await, decide(false).await);
    print("health check (baseline)", &health, None);
    print("decision: registered", &registered, Some(&health));
    print("decision: refused", &refused, Some(&health));
}

struct Envoy(Child, u16);

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An Envoy that answers by itself, so that only its own work and the asking are measured.
fn start(registry: &Registry, folder: &std::path::Path, asks: bool) -> Envoy {
    let port = free_port();
    let grpc: u16 = registry.grpc.rsplit_once(':').unwrap().1.parse().unwrap();
    let router = json!({"name": "envoy.filters.http.router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}});
    let authorization = json!({"name": "envoy.filters.http.ext_authz", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "waymark"}, "timeout": "5s"}}});
    let filters: Vec<Value> = if asks { vec![authorization, router] } else { vec![router] };
    let config = json!({"static_resources": {
        "listeners": [{"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": "x", "http_filters": filters,
                    "route_config": {"virtual_hosts": [{"name": "x", "domains": ["*"], "routes": [{
                        "match": {"prefix": "/"},
                        "direct_response": {"status": 200, "body": {"inline_string": "here"}}}]}]}}}]}]}],
        "clusters": [{"name": "waymark", "type": "STATIC", "connect_timeout": "1s",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}}}},
            "load_assignment": {"cluster_name": "waymark", "endpoints": [{"lb_endpoints": [{
                "endpoint": {"address": {"socket_address": {
                    "address": "127.0.0.1", "port_value": grpc}}}}]}]}}]}});
    let file = folder.join(format!("envoy-{port}.json"));
    std::fs::write(&file, config.to_string()).unwrap();
    let binary = std::env::var_os("ENVOY_BIN").expect("run this by `cargo xtask bench gateway`");
    let mut child = Command::new(binary)
        .args(["--concurrency", "1", "--use-dynamic-base-id", "-l", "error", "-c"])
        .arg(file)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(child.try_wait().unwrap().is_none(), "Envoy has ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    Envoy(child, port)
}

/// Requests per second, p50 and p99 as wrk tells them.
fn wrk(envoy: &Envoy) -> (f64, String, String) {
    let url = format!("http://127.0.0.1:{}/server-7/mcp", envoy.1);
    let output = Command::new("wrk")
        .args(["-t1", "-c8", "-d8s", "--latency", "-H", "Host: team7.example.com", &url])
        .output()
        .expect("wrk is there");
    let text = String::from_utf8(output.stdout).unwrap();
    let after = |label: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(label));
        line.unwrap_or_else(|| panic!("{text}")).trim().to_owned()
    };
    assert!(!text.contains("Non-2xx"), "{text}");
    (after("Requests/sec:").parse().unwrap(), after("50%"), after("99%"))
}

fn envoy(registry: &Registry, folder: &std::path::Path) {
    let (plain, asking) = (start(registry, folder, false), start(registry, folder, true));
    let (without, with) = (wrk(&plain), wrk(&asking));
    println!(
        "  Envoy alone (baseline)       {:>8.0}/s  p50 {:>8}  p99 {:>8}",
        without.0, without.1, without.2
    );
    println!(
        "  Envoy that asks              {:>8.0}/s  p50 {:>8}  p99 {:>8}  {:.2} of the baseline's",
        with.0,
        with.1,
        with.2,
        with.0 / without.0
    );
}
