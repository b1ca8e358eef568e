//! A real Envoy with the shipped configuration.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use waymark_discovery::source::manifest::yaml;

use crate::common::{PATIENCE, eventually, get};
use crate::web::{Reply, Web};
use crate::{Published, route};

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An Envoy, killed when dropped.
struct Envoy {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The shipped configuration, with the addresses of a test.
fn shipped() -> Value {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/gateway/envoy/envoy.yaml");
    yaml(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn set_address(config: &mut Value, cluster: &str, port: u16) {
    let clusters = config["static_resources"]["clusters"].as_array_mut().unwrap();
    let found = clusters.iter_mut().find(|known| known["name"] == cluster).unwrap();
    let address = &mut found["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
        ["socket_address"];
    address["address"] = "127.0.0.1".into();
    address["port_value"] = port.into();
    found["type"] = "STATIC".into();
}

fn port_of(url: &str) -> u16 {
    url.rsplit_once(':').unwrap().1.trim_end_matches('/').parse().unwrap()
}

impl Envoy {
    /// In front of a backend, asking a registry; `ca` where that speaks TLS.
    fn start(
        published: &Published,
        backend: &Web,
        ca: Option<&Path>,
        change: impl Fn(&mut Value),
    ) -> Self {
        let binary: PathBuf = std::env::var_os("ENVOY_BIN")
            .expect("ENVOY_BIN is set; run these tests by `cargo xtask test`")
            .into();
        let mut config = shipped();
        let (port, admin) = (free_port(), free_port());
        let listener = &mut config["static_resources"]["listeners"][0];
        listener["address"]["socket_address"]["address"] = "127.0.0.1".into();
        listener["address"]["socket_address"]["port_value"] = port.into();
        config["admin"]["address"]["socket_address"]["port_value"] = admin.into();
        set_address(&mut config, "waymark-grpc", port_of(&published.registry.grpc));
        set_address(&mut config, "waymark-rest", port_of(&published.registry.rest));
        set_address(&mut config, "mcp-servers", backend.address.port());
        let clusters = config["static_resources"]["clusters"].as_array_mut().unwrap();
        match ca {
            None => {
                clusters[0].as_object_mut().unwrap().remove("transport_socket");
            }
            Some(ca) => {
                let tls = &mut clusters[0]["transport_socket"]["typed_config"];
                tls["sni"] = "localhost".into();
                let validation = &mut tls["common_tls_context"]["validation_context"];
                validation["trusted_ca"]["filename"] = ca.to_str().unwrap().into();
                validation["match_typed_subject_alt_names"][0]["matcher"]["exact"] =
                    "localhost".into();
            }
        }
        change(&mut config);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("envoy.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(binary)
            .args(["--concurrency", "1", "--use-dynamic-base-id", "-l", "warn", "-c"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let envoy = Self { child, port, _folder: folder };
        eventually("Envoy's start", || TcpStream::connect(("127.0.0.1", port)).ok());
        envoy
    }

    /// Sends a request as it stands, byte for byte: what a client library would mend.
    fn raw(&self, method: &str, host: &str, path: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n"
        );
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status =
            answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
        (status, answer)
    }

    fn status(&self, host: &str, path: &str) -> u16 {
        self.raw("POST", host, path, "").0
    }

    fn answers(&self, host: &str, path: &str, expected: u16) -> Duration {
        let started = Instant::now();
        loop {
            let status = self.status(host, path);
            if status == expected {
                return started.elapsed();
            }
            assert!(started.elapsed() < PATIENCE, "{host}{path}: {status}, not {expected}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

const HOST: &str = "mcp.example.com";

#[test]
#[ignore = "needs Envoy: cargo xtask test"]
fn only_what_is_registered_passes() {
    let backend = Web::start(Reply::Document(b"here".to_vec()));
    let routes = [route("one", HOST, "/one"), route("two", HOST, "/two/deep")];
    let args = ["--gateway-registry-url", "https://registry.example.com"];
    let published = Published::start(&routes, &args);
    let envoy = Envoy::start(&published, &backend, None, |_| {});
    envoy.answers(HOST, "/one", 200);
    envoy.answers(HOST, "/two/deep/er?x=y", 200);
    // The server behind is told whose request it is, whatever the client says.
    backend.forget();
    let lies = "x-mcp-server-name: somebody/else\r\nx-mcp-server-version: 9\r\n";
    assert_eq!(envoy.raw("POST", HOST, "/one/mcp", lies).0, 200);
    let asked = backend.asked()[0].clone();
    let all = |name: &str| -> Vec<&str> {
        asked.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    };
    assert_eq!(all("x-mcp-server-name"), ["com.example.mcp/one"]);
    assert_eq!(all("x-mcp-server-version"), ["1.0.0"]);
    // What is not, is told so in one sentence, and where to look.
    backend.forget();
    let (status, answer) = envoy.raw("POST", HOST, "/three", "");
    assert_eq!(status, 403);
    assert!(answer.contains("content-type: application/json"), "{answer}");
    let body: Value = serde_json::from_str(answer.rsplit("\r\n\r\n").next().unwrap()).unwrap();
    assert_eq!(body["registry"], "https://registry.example.com");
    assert_eq!(body["error"], "No registered MCP server is served at \"mcp.example.com/three\".");
    for (host, path) in [
        (HOST, "/"),
        (HOST, "/onex"),
        (HOST, "/ONE"),
        (HOST, "/two"),
        (HOST, "/.well-known/acme-challenge/x"),
        ("other.example.com", "/one"),
    ] {
        assert_eq!(envoy.status(host, path), 403, "{host}{path}");
    }
    // The gateway's own documents, and those that authorization needs.
    for path in ["/.well-known/ai-catalog.json", "/.well-known/mcp/catalog.json"] {
        let (status, answer) = envoy.raw("GET", HOST, path, "");
        assert!(status == 200 && answer.contains("urn:air:mcp.example.com:mcp:one"), "{answer}");
    }
    assert!(backend.asked().is_empty(), "{:?}", backend.asked());
    let metadata = "/.well-known/oauth-protected-resource/one";
    let (status, _) = envoy.raw("GET", HOST, metadata, "x-mcp-server-name: x\r\n");
    assert_eq!(status, 200);
    assert!(!backend.asked()[0].headers.contains_key("x-mcp-server-name"));

    // Published and withdrawn, the answer changes.
    published.publish(&[routes[0].clone(), route("three", HOST, "/three")]);
    envoy.answers(HOST, "/three", 200);
    envoy.answers(HOST, "/two/deep", 403);
    published.publish(&routes);
    envoy.answers(HOST, "/three", 403);
    envoy.answers(HOST, "/two/deep", 200);
    let metrics =
        String::from_utf8(get(&format!("{}/metrics", published.registry.rest)).body).unwrap();
    for line in [
        "waymark_gateway_decisions_total{decision=\"registered\"}",
        "waymark_gateway_decisions_total{decision=\"not_registered\"}",
        "waymark_gateway_decisions_total{decision=\"unknown_host\"} 1",
        "waymark_gateway_decision_duration_seconds_count",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    // The registry is killed: nothing passes, and it is said that this is not the request's fault.
    published.registry.waymark.kill();
    envoy.answers(HOST, "/one", 503);
}

#[test]
#[ignore = "needs Envoy: cargo xtask test"]
fn paths_that_lead_elsewhere() {
    let backend = Web::start(Reply::Document(b"here".to_vec()));
    let routes = [route("one", HOST, "/one/mcp"), route("in", HOST, "/one/mcp/in")];
    let published = Published::start(&routes, &[]);
    // As it is shipped, and with an Envoy that normalizes nothing.
    let strict = Envoy::start(&published, &backend, None, |_| {});
    let lax = Envoy::start(&published, &backend, None, |config| {
        let manager = &mut config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
            [0]["typed_config"];
        let manager = manager.as_object_mut().unwrap();
        manager["normalize_path"] = false.into();
        manager["merge_slashes"] = false.into();
        manager.insert("path_with_escaped_slashes_action".into(), "KEEP_UNCHANGED".into());
    });
    strict.answers(HOST, "/one/mcp/in", 200);
    lax.answers(HOST, "/one/mcp/in", 200);
    let tricks = [
        "/one/mcp/..",
        "/one/mcp/../admin",
        "/one/mcp/../../admin",
        "/one/mcp/./../admin",
        "/one/mcp/in/../../../admin",
        "/one/mcp//../../admin",
        "/one/mcp/%2e%2e/admin",
        "/one/mcp/%2E%2E/admin",
        "/one/mcp/.%2e/admin",
        "/one/mcp/%2e./admin",
        "/one/mcp/%2e%2e%2fadmin",
        "/one/mcp/..%2fadmin",
        "/one/mcp/..%2Fadmin",
        "/one/mcp%2f..%2fadmin",
        "/one/mcp/%252e%252e/admin",
        "/one/mcp/%252e%252e%252fadmin",
        "/one/mcp/..%252fadmin",
        "/one/mcp/%25252e%25252e/admin",
        "/one/mcp/..%5cadmin",
        "/one/mcp/..%255cadmin",
        "/one/mcp/..\\admin",
        "/one/mcp\\..\\admin",
        "/one/mcp/..;/admin",
        "/one/mcp/..;x=y/admin",
        "/one/mcp/..;x=y;z/admin",
        "/one/mcp/.;/../admin",
        "/one/mcp/%2e%2e;/admin",
        "/one/mcp/%2e%2e%3b/admin",
        "/one/mcp/%2e%2e%3bx/admin",
        "/one/mcp;/../admin",
        "/one/mcp;x=/../../admin",
        "/one/mcp/%00",
        "/one/mcp/%00/../admin",
        "/one/mcp/%0d%0aX-Admin:%20yes",
        "/one/mcp/%ff",
        "/one/mcp/%c0%ae%c0%ae/admin",
        "/one/MCP",
        "/One/mcp",
        "/one/mcpadmin",
        "/one/mcp%2eadmin",
        "/one",
        "/admin",
        "/admin?x=/one/mcp",
        "/admin;/one/mcp",
        "/admin%3f/one/mcp",
        "/.well-known/oauth-protected-resource/../../admin",
        "/.well-known/oauth-protected-resource/%2e%2e/%2e%2e/admin",
        "/.well-known/ai-catalog.json/../../admin",
    ];
    assert!(tricks.len() >= 40);
    backend.forget();
    for path in tricks {
        for envoy in [&strict, &lax] {
            for method in ["GET", "POST"] {
                let (status, answer) = envoy.raw(method, HOST, path, "");
                // Refused by Waymark, or by Envoy itself (a redirect tells the normalized path).
                assert!(matches!(status, 403 | 400 | 307 | 404), "{method} {path}: {answer}");
            }
        }
    }
    let seen: Vec<String> = backend.asked().into_iter().map(|asked| asked.path).collect();
    assert!(seen.is_empty(), "{seen:?}");
    // Paths that are only unusual pass.
    for path in
        ["/one/mcp/", "/one/mcp/a%20b", "/one/mcp/x;y=z", "/one/mcp/a.b/c..d", "/one/mcp?x=../.."]
    {
        assert_eq!((strict.status(HOST, path), lax.status(HOST, path)), (200, 200), "{path}");
    }
    published.registry.waymark.stop();
}

#[test]
#[ignore = "needs Envoy: cargo xtask test"]
fn fail_modes_and_dry_run() {
    let backend = Web::start(Reply::Document(b"here".to_vec()));
    let one = [route("one", HOST, "/one")];
    // An empty catalogue.
    for (mode, status) in [("closed", 403), ("open", 200)] {
        let published = Published::start(&[], &["--gateway-fail-mode", mode]);
        let envoy = Envoy::start(&published, &backend, None, |_| {});
        envoy.answers(HOST, "/any", status);
        published.publish(&one);
        envoy.answers(HOST, "/one", 200);
        envoy.answers(HOST, "/any", 403);
        published.registry.waymark.stop();
    }
    let mut published = Published::start(&one, &["--gateway-dry-run"]);
    let open = |config: &mut Value| {
        let filter = &mut config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
            [0]["typed_config"]["http_filters"][0]["typed_config"];
        filter["failure_mode_allow"] = true.into();
    };
    let envoy = Envoy::start(&published, &backend, None, open);
    envoy.answers(HOST, "/one", 200);
    assert_eq!(envoy.status(HOST, "/any"), 200);
    published.registry.waymark.line(&["dry run", "mcp.example.com/any"]);
    let metrics =
        String::from_utf8(get(&format!("{}/metrics", published.registry.rest)).body).unwrap();
    assert!(
        metrics.contains("waymark_gateway_decisions_total{decision=\"dry_run\"} 1"),
        "{metrics}"
    );
    // The registry is killed, and Envoy is told to let pass what cannot be checked.
    published.registry.waymark.kill();
    envoy.answers(HOST, "/any", 200);
}

#[test]
#[ignore = "needs Envoy: cargo xtask test"]
fn tls_between_envoy_and_waymark() {
    let backend = Web::start(Reply::Document(b"here".to_vec()));
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let certify = || {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(path("tls.key"), made.signing_key.serialize_pem()).unwrap();
        std::fs::write(path("tls.crt"), made.cert.pem()).unwrap();
        made.cert.pem()
    };
    let first = certify();
    std::fs::write(path("ca.crt"), &first).unwrap();
    let (cert, key) = (path("tls.crt"), path("tls.key"));
    let args = [
        "--tls-cert",
        cert.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
        "--tls-for",
        "grpc",
    ];
    let file = path("registry.json");
    std::fs::write(&file, r#"{"servers": [{"name": "com.example.mcp/one", "description": "d",
        "version": "1.0.0", "remotes": [{"type": "streamable-http", "url": "https://mcp.example.com/one"}]}]}"#)
        .unwrap();
    let args = [&args[..], &["--catalogue", file.to_str().unwrap()]].concat();
    let published = Published::start(&[], &args);
    let ca = path("ca.crt");
    let envoy = Envoy::start(&published, &backend, Some(&ca), |_| {});
    envoy.answers(HOST, "/one", 200);
    assert_eq!(envoy.status(HOST, "/two"), 403);
    // The certificate is another one, which this Envoy does not trust; one that does gets through.
    let second = certify();
    let other = path("other.crt");
    std::fs::write(&other, second).unwrap();
    let envoy = Envoy::start(&published, &backend, Some(&other), |_| {});
    envoy.answers(HOST, "/one", 200);
    let envoy = Envoy::start(&published, &backend, Some(&ca), |_| {});
    assert_eq!(envoy.status(HOST, "/one"), 503);
}
