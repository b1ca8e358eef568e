//! Faults of the API server and of the way to it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Registry, eventually};
use crate::harness::{Cluster, Discovery, blocking, free_port, namespace, object, serves};

/// An MCP resource with a URL of its own: the smallest thing that is published.
fn entry(name: &str) -> Value {
    let mut entry = object("toolhive.stacklok.dev/v1beta1", "MCPServerEntry", "apps", name);
    entry["spec"] = json!({"remoteUrl": "https://x.example.org/mcp", "transport": "sse", "groupRef": {"name": "g"}});
    let url = format!("https://{name}.example.org/mcp");
    entry["metadata"]["annotations"] = json!({"toolhive.stacklok.dev/registry-url": url});
    entry
}

/// Asks etcd by its JSON gateway.
fn etcd(port: u16, path: &str, body: &Value) -> Value {
    let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
    let url = format!("http://127.0.0.1:{port}{path}");
    agent.post(&url).send_json(body).unwrap().body_mut().read_json().unwrap()
}

async fn cluster() -> Cluster {
    let cluster = Cluster::start().await;
    cluster.install_all().await;
    cluster.apply(&namespace("apps", &json!({}))).await;
    cluster
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn the_history_is_compacted_under_the_watch() {
    let cluster = cluster().await;
    let account = cluster.cluster_account().await;
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path(), "127.0.0.1:0", &[]);
    cluster.apply(&entry("a")).await;
    cluster.apply(&entry("b")).await;
    let mut discovery = Discovery::start(&account, &registry.grpc, &["--leader-elect=false"]);
    blocking(|| serves(&registry, &["https://a.example.org/mcp", "https://b.example.org/mcp"]));
    // While discovery sees nothing, one is deleted and one added; then the API server forgets how it
    // came to that: etcd is compacted, and its own cache is gone with it.
    discovery.waymark.signal("-STOP");
    cluster.delete(&entry("a")).await;
    cluster.apply(&entry("c")).await;
    let status = etcd(cluster.server.etcd_port, "/v3/maintenance/status", &json!({}));
    let revision = status["header"]["revision"].as_str().unwrap();
    let compacted = json!({"revision": revision, "physical": true});
    etcd(cluster.server.etcd_port, "/v3/kv/compaction", &compacted);
    cluster.kill_apiserver();
    cluster.start_apiserver().await;
    discovery.waymark.signal("-CONT");
    discovery.waymark.line(&["the history was compacted; listing again", "mcpserverentries"]);
    blocking(|| serves(&registry, &["https://b.example.org/mcp", "https://c.example.org/mcp"]));
    discovery.waymark.stop();
    registry.waymark.stop();
}

/// Forwards connections, until it is told to let those that are open hang.
struct Proxy {
    port: u16,
    /// Connections up to this number hang: what they send is not read, nor are they closed.
    frozen: Arc<AtomicUsize>,
    opened: Arc<AtomicUsize>,
}

impl Proxy {
    fn start(to: u16) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let (frozen, opened) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (hang, count) = (Arc::clone(&frozen), Arc::clone(&opened));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                for (from, into) in [(&client, &server), (&server, &client)] {
                    let (from, into) = (from.try_clone().unwrap(), into.try_clone().unwrap());
                    let hang = Arc::clone(&hang);
                    std::thread::spawn(move || {
                        pump(from, into, || number <= hang.load(Ordering::SeqCst))
                    });
                }
            }
        });
        Self { port, frozen, opened }
    }

    /// All connections that are open now hang; new ones work.
    fn freeze(&self) {
        self.frozen.store(self.opened.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

fn pump(mut from: TcpStream, mut into: TcpStream, hangs: impl Fn() -> bool) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read) = from.read(&mut buffer) {
        while hangs() {
            std::thread::sleep(Duration::from_secs(1));
        }
        if read == 0 || into.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = into.shutdown(Shutdown::Both);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn half_open_connections() {
    let cluster = cluster().await;
    let account = cluster.cluster_account().await;
    let token = cluster.token("waymark-system").await;
    let proxy = Proxy::start(cluster.server.port);
    cluster.server.kubeconfig(&account, proxy.port, "waymark-system", &json!({"token": token}));
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path(), "127.0.0.1:0", &[]);
    cluster.apply(&entry("a")).await;
    let args = ["--api-timeout", "5s", "--lease-duration", "6s"];
    let discovery = Discovery::start(&account, &registry.grpc, &args);
    blocking(|| serves(&registry, &["https://a.example.org/mcp"]));
    proxy.freeze();
    cluster.apply(&entry("b")).await;
    blocking(|| serves(&registry, &["https://a.example.org/mcp", "https://b.example.org/mcp"]));
    discovery.waymark.kill();
    registry.waymark.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn expired_tokens_are_read_again() {
    let cluster = cluster().await;
    let account = cluster.cluster_account().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), cluster.token("waymark-system").await).unwrap();
    let user = json!({"tokenFile": file.path()});
    cluster.server.kubeconfig(&account, cluster.server.port, "waymark-system", &user);
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path(), "127.0.0.1:0", &[]);
    cluster.apply(&entry("a")).await;
    // Watches are taken up anew all the time, each time with the token of then.
    let args = ["--api-timeout", "4s", "--leader-elect=false"];
    let mut discovery = Discovery::start(&account, &registry.grpc, &args);
    blocking(|| serves(&registry, &["https://a.example.org/mcp"]));
    // The ServiceAccount is another one, and the old token worth nothing.
    cluster.delete(&object("v1", "ServiceAccount", "waymark-system", "waymark-discovery")).await;
    let fresh = cluster.token("waymark-system").await;
    discovery.waymark.line(&["Unauthorized"]);
    cluster.apply(&entry("b")).await;
    std::fs::write(file.path(), fresh).unwrap();
    // The client reads the file again within a minute.
    let deadline = Instant::now() + Duration::from_secs(150);
    blocking(|| {
        while crate::harness::served(&registry).len() != 2 {
            assert!(Instant::now() < deadline, "the new token is not used");
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    discovery.waymark.stop();
    registry.waymark.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn a_registry_that_was_away() {
    let cluster = cluster().await;
    let account = cluster.cluster_account().await;
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path(), "127.0.0.1:0", &[]);
    let grpc = registry.grpc.clone();
    let address = grpc.replace("http://", "");
    cluster.apply(&entry("a")).await;
    let discovery = Discovery::start(&account, &grpc, &["--leader-elect=false"]);
    blocking(|| serves(&registry, &["https://a.example.org/mcp"]));
    cluster.event("apps", "MCPServerEntry/a", "EndpointDiscovered", "https://a.").await;
    registry.waymark.kill();
    blocking(|| {
        eventually("the break", || discovery.ready().1.contains("disconnected").then_some(()))
    });
    // Many come and go; one stays.
    for n in 0..200 {
        cluster.apply(&entry(&format!("passing-{n}"))).await;
        cluster.delete(&entry(&format!("passing-{n}"))).await;
    }
    cluster.apply(&entry("b")).await;
    cluster.delete(&entry("a")).await;
    // Events tell of what the registry has, so of none of this yet.
    let events = cluster.events("apps").await;
    assert_eq!(events.len(), 1, "{events:#?}");
    let registry = Registry::start(data.path(), &address, &[]);
    blocking(|| serves(&registry, &["https://b.example.org/mcp"]));
    cluster.event("apps", "MCPServerEntry/b", "EndpointDiscovered", "https://b.").await;
    cluster.event("apps", "MCPServerEntry/a", "EndpointRemoved", "https://a.").await;
    // What came and went unseen is not told.
    let events = cluster.events("apps").await;
    assert_eq!(events.len(), 3, "{events:#?}");
    discovery.waymark.stop();
    registry.waymark.stop();
}
