//! Another registry as a source.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;
use serde_json::{Value, json};

use crate::common::{self, Registry, eventually, get, request, send, server};
use crate::web::{Reply, Web};
use crate::{Process, often};

const TOKEN: &str = "Bearer a-token-of-sixteen-or-more";

fn source(endpoint: &str, full: &str) -> Value {
    json!({"api": {"endpoint": endpoint, "fullSyncInterval": full}, "syncPolicy": often()})
}

/// A registry that can be written to.
struct Upstream {
    folder: tempfile::TempDir,
    registry: Registry,
}

impl Upstream {
    fn start(more: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tokens = folder.path().join("tokens");
        std::fs::write(&tokens, format!("{},tests\n", &TOKEN[7..])).unwrap();
        let mut config = json!({
            "sources": [{"name": "own", "managed": {}}],
            "registries": [{"name": "default", "sources": ["own"]}],
            "auth": {"staticTokenFile": tokens},
        });
        for source in more.as_array().unwrap() {
            config["sources"].as_array_mut().unwrap().push(source.clone());
            config["registries"][0]["sources"].as_array_mut().unwrap().push(source["name"].clone());
        }
        let path = folder.path().join("registry.yaml");
        std::fs::write(&path, config.to_string()).unwrap();
        let args = ["--config", path.to_str().unwrap()];
        let registry = Registry::start(&folder.path().join("data"), "127.0.0.1:0", &args);
        Self { folder, registry }
    }

    fn publish(&self, name: &str, description: &str) {
        let url = format!("{}/v0.1/publish", self.registry.rest);
        let headers = [("authorization", TOKEN)];
        let answer = send("POST", &url, &headers, server(name, "1.0.0", description));
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    }

    fn delete(&self, name: &str) {
        let path = format!("servers/{}/versions/1.0.0", name.replace('/', "%2F"));
        let url = format!("{}/v0.1/{path}", self.registry.rest);
        assert_eq!(request("DELETE", &url, &[("authorization", TOKEN)]).status, 200);
    }
}

#[test]
fn a_chain_of_registries() {
    let first = Upstream::start(&json!([]));
    for n in 0..250 {
        first.publish(&format!("a.b/{n:03}"), "d");
    }
    let second = Process::start(&source(&first.registry.rest, "1h"));
    let third = Process::start(&source(&format!("{}/v0.1", second.registry.rest), "1h"));
    assert_eq!(second.names().len(), 250);
    eventually("the chain", || (third.names().len() == 250).then_some(()));
    // What changes, is new and is deleted goes down the chain, and nothing else is read.
    first.delete("a.b/001");
    first.publish("a.b/new", "d");
    let changed = server("a.b/002", "1.0.0", "changed");
    let url = format!("{}/v0.1/servers/a.b%2F002/versions/1.0.0", first.registry.rest);
    assert_eq!(send("PUT", &url, &[("authorization", TOKEN)], changed).status, 200);
    let status = format!("{}/v0.1/servers/a.b%2F003/versions/1.0.0/status", first.registry.rest);
    let body = br#"{"status": "deprecated", "statusMessage": "use another"}"#.to_vec();
    assert_eq!(send("PATCH", &status, &[("authorization", TOKEN)], body).status, 200);
    eventually("the changes", || {
        let names = third.names();
        let one = |name: &str| {
            let name = name.replace('/', "%2F");
            get(&format!("{}/v0.1/servers/{name}/versions/1.0.0", third.registry.rest)).json()
        };
        let official = "io.modelcontextprotocol.registry/official";
        (names.len() == 250
            && names.contains(&"a.b/new".to_owned())
            && !names.contains(&"a.b/001".to_owned())
            && one("a.b/002")["server"]["description"] == "changed"
            && one("a.b/003")["_meta"][official]["status"] == "deprecated"
            && one("a.b/003")["_meta"][official]["statusMessage"] == "use another")
            .then_some(())
    });
    // The end of the chain goes on without its beginning.
    first.registry.waymark.kill();
    second.fails("Unreachable", "cannot be reached");
    assert_eq!((second.names().len(), third.names().len()), (250, 250));
    third.registry.waymark.stop();
    second.registry.waymark.stop();
}

#[test]
fn registries_do_not_read_in_a_circle() {
    // Three in a circle: the last edge is added when the others are there.
    let a = Upstream::start(&json!([]));
    a.publish("a.b/one", "d");
    let read = |from: &Upstream| {
        let mut source = source(&from.registry.rest, "1h");
        source["name"] = json!("up");
        json!([source])
    };
    let b = Upstream::start(&read(&a));
    b.publish("a.b/two", "d");
    let c = Upstream::start(&read(&b));
    let names = |of: &Upstream| common::names(&of.registry.rest, "");
    assert_eq!(names(&c), ["a.b/one", "a.b/two"]);
    let path = a.folder.path().join("registry.yaml");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["sources"].as_array_mut().unwrap().push(read(&c)[0].clone());
    config["registries"][0]["sources"] = json!(["own", "up"]);
    std::fs::write(&path, config.to_string()).unwrap();
    let failed = |of: &Upstream| {
        let sources = get(&format!("{}/v1/sources", of.registry.rest)).json();
        let all = sources["sources"].as_array().unwrap().clone();
        let up = all.iter().find(|source| source["name"] == "up");
        up.is_some_and(|up| up["syncStatus"]["reason"] == "RegistryLoop")
    };
    eventually("the refusal", || failed(&a).then_some(()));
    let all = get(&format!("{}/v1/sources", a.registry.rest)).json().to_string();
    assert!(all.contains("reads from this one: its registry default"), "{all}");
    // What is deleted where it comes from is gone everywhere.
    a.delete("a.b/one");
    eventually("the deletion", || {
        (names(&a).is_empty() && !names(&b).contains(&"a.b/one".to_owned())).then_some(())
    });
    eventually("the deletion at the end", || {
        (!names(&c).contains(&"a.b/one".to_owned())).then_some(())
    });
    for upstream in [a, b, c] {
        upstream.registry.waymark.stop();
    }
}

fn recorded(name: &str, updated: Option<&str>) -> Value {
    let mut entry = json!({"server": {"name": name, "description": "d", "version": "1.0.0"},
        "_meta": {}});
    if let Some(updated) = updated {
        entry["_meta"]["io.modelcontextprotocol.registry/official"] = json!({
            "status": "active", "publishedAt": updated, "updatedAt": updated, "isLatest": true});
    }
    entry
}

fn page(servers: &[Value], next: Option<&str>) -> (StatusCode, String) {
    let mut page = json!({"servers": servers, "metadata": {"count": servers.len()}});
    if let Some(next) = next {
        page["metadata"]["nextCursor"] = json!(next);
    }
    (StatusCode::OK, page.to_string())
}

#[test]
fn the_shape_of_upstreams_registry() {
    // Pages of the official registry: cursors of its own, and times in each entry.
    let upstream = |uri: &http::Uri| {
        let query = uri.query().unwrap_or_default();
        match uri.path() {
            "/v0.1/servers" if query.contains("updated_since") => {
                assert!(query.contains("updated_since=2026-01-02T02"), "{query}");
                page(&[recorded("a.b/late", Some("2026-01-03T00:00:00.000001Z"))], None)
            }
            "/v0.1/servers" if query.contains("cursor=a.b%2Fone%3A1.0.0") => page(
                &[recorded("a.b/two", Some("2026-01-02T03:04:05.678901Z")), json!(7)],
                Some(""),
            ),
            "/v0.1/servers" => {
                page(&[recorded("a.b/one", Some("2026-01-01T00:00:00Z"))], Some("a.b/one:1.0.0"))
            }
            _ => (StatusCode::NOT_FOUND, "{}".to_owned()),
        }
    };
    // So that what is asked is seen: the latest change, two seconds earlier.
    let upstream = move |uri: &http::Uri| {
        let text = uri.to_string().replace("2026-01-02T03%3A04%3A03.678901Z", "2026-01-02T02");
        let text = text.replace("2026-01-02T23%3A59%3A58.000001Z", "2026-01-02T02");
        upstream(&text.parse().unwrap())
    };
    let web = Web::start(Reply::By(Arc::new(upstream)));
    let process = Process::start(&source(&web.url(""), "1h"));
    process.serves(&["a.b/late", "a.b/one", "a.b/two"]);
    assert_eq!(process.status()["rejected"]["count"], 1);
    process.registry.waymark.stop();
}

#[test]
fn registries_that_tell_no_times_are_read_whole() {
    // ToolHive's server: `_meta` is empty.
    let shrunk = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&shrunk);
    let toolhive = move |uri: &http::Uri| {
        assert!(!uri.to_string().contains("updated_since"), "{uri}");
        match uri.path() {
            "/registry/team/v0.1/servers" if now.load(Ordering::Relaxed) => {
                page(&[recorded("a.b/one", None)], None)
            }
            "/registry/team/v0.1/servers" => {
                page(&[recorded("a.b/one", None), recorded("a.b/two", None)], None)
            }
            _ => (StatusCode::NOT_FOUND, "{}".to_owned()),
        }
    };
    let web = Web::start(Reply::By(Arc::new(toolhive)));
    let process = Process::start(&source(&web.url("/registry/team"), "1h"));
    process.serves(&["a.b/one", "a.b/two"]);
    shrunk.store(true, Ordering::Relaxed);
    process.serves(&["a.b/one"]);
    process.registry.waymark.stop();
}

#[test]
fn faults() {
    let web = Web::start(Reply::By(Arc::new(|_| page(&[recorded("a.b/one", None)], None))));
    let process = Process::start(&source(&web.url(""), "1h"));
    process.serves(&["a.b/one"]);
    let by = |text: &'static str| Reply::By(Arc::new(move |_| (StatusCode::OK, text.to_owned())));
    let around = |_: &http::Uri| page(&[recorded("a.b/two", None)], Some("again"));
    let failing_page = |uri: &http::Uri| match uri.query().unwrap_or_default().contains("cursor") {
        true => (StatusCode::BAD_GATEWAY, "{}".to_owned()),
        false => page(&[recorded("a.b/two", None)], Some("next")),
    };
    for (reply, reason, says) in [
        (by("{\"servers\": 7}"), "InvalidFormat", "does not answer as"),
        (by("<html>"), "InvalidFormat", "does not answer as"),
        (Reply::By(Arc::new(around)), "InvalidFormat", "the same cursor twice"),
        (Reply::By(Arc::new(failing_page)), "UnexpectedStatus", "502"),
        (Reply::Nothing, "TimedOut", "within"),
        (Reply::Announced(1 << 40), "TooLarge", "more than"),
    ] {
        web.set(reply);
        process.fails(reason, says);
        assert_eq!(process.names(), ["a.b/one"], "{reason}");
    }
    // No servers are no fault.
    web.set(by("{\"servers\": [], \"metadata\": {\"count\": 0}}"));
    process.serves(&[]);
    process.recovers();
    process.registry.waymark.stop();
}
