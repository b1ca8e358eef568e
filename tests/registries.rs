//! Several registries over shared sources: configuration, reloads, managed entries, ToolHive's API.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "common/session.rs"]
mod session;

use std::path::Path;

use common::{Answer, Registry, Waymark, binary, eventually, get, names, send, server};
use serde_json::{Value, json};
use session::Session;
use tokio_stream::StreamExt;
use waymark_proto::v1::catalogue_service_client::CatalogueServiceClient;
use waymark_proto::v1::publish_request::Message;
use waymark_proto::v1::watch_servers_response::Event;
use waymark_proto::v1::{Entry, ListServersRequest, ObjectReference, Remote, WatchServersRequest};

const TOKEN: &str = "a-token-that-is-long-enough";

fn catalogue(folder: &Path, file: &str, servers: &[(&str, &str, &str)]) {
    let item = |(name, version, description): &(&str, &str, &str)| {
        let server: Value = serde_json::from_slice(&server(name, version, description)).unwrap();
        json!({ "server": server })
    };
    let servers: Vec<Value> = servers.iter().map(item).collect();
    let list = json!({"servers": servers, "metadata": {"count": servers.len()}});
    std::fs::write(folder.join(file), list.to_string()).unwrap();
}

/// Writes a configuration whose `DIR` stands for the folder.
fn configure(folder: &Path, text: &str) {
    let text = text.replace("DIR", folder.to_str().unwrap());
    std::fs::write(folder.join("registry.yaml"), text).unwrap();
}

fn start(folder: &Path) -> Registry {
    let config = folder.join("registry.yaml");
    let data = folder.join("data");
    Registry::start(&data, "127.0.0.1:0", &["--config", config.to_str().unwrap()])
}

const TEAMS: &str = r#"
sources:
- name: first
  file: {path: "DIR/first.json"}
- name: second
  file: {path: "DIR/second.json"}
  filter: {names: {exclude: ["com.example/hidden"]}}
- name: own
  managed: {}
  filter: {names: {exclude: ["com.example/forbidden"]}}
- name: k8s
  kubernetes: {namespaces: [apps]}
registries:
- {name: team, sources: [first, second, k8s], remotes: both}
- {name: default, sources: [second, first, own, k8s]}
- {name: inner, sources: [k8s], remotes: in-cluster}
auth: {mode: anonymous, staticTokenFile: "DIR/tokens"}
telemetry: {enabled: false}
"#;

fn teams() -> (tempfile::TempDir, Registry) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    catalogue(
        path,
        "first.json",
        &[("com.example/both", "1.0.0", "of the first"), ("com.example/one", "1.0.0", "x")],
    );
    catalogue(
        path,
        "second.json",
        &[("com.example/both", "1.0.0", "of the second"), ("com.example/hidden", "1.0.0", "x")],
    );
    std::fs::write(path.join("tokens"), format!("{TOKEN},ci\n")).unwrap();
    configure(path, TEAMS);
    let registry = start(path);
    (folder, registry)
}

fn at(registry: &Registry, name: &str) -> String {
    format!("{}/registry/{name}", registry.rest)
}

fn description(rest: &str, name: &str) -> String {
    let url = format!("{rest}/v0.1/servers/{}/versions/latest", name.replace('/', "%2F"));
    get(&url).json()["server"]["description"].as_str().unwrap_or_default().to_owned()
}

/// A discovered entry: with remotes outside and inside of the cluster, of a namespace, for a registry.
fn discovered(name: &str, namespace: &str, registry: &str) -> Entry {
    Entry {
        id: name.into(),
        server_json: server(name, "1.0.0", "discovered").into(),
        in_cluster_remotes: vec![Remote {
            r#type: "sse".into(),
            url: format!("http://{namespace}.svc.cluster.local/sse"),
        }],
        registry: registry.into(),
        sources: vec![ObjectReference {
            kind: "HTTPRoute".into(),
            namespace: namespace.into(),
            name: "x".into(),
        }],
        ..Entry::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn registries_are_views_over_sources() {
    let (_folder, registry) = teams();
    // The first source of each registry serves a version that two have.
    assert_eq!(names(&at(&registry, "team"), ""), ["com.example/both", "com.example/one"]);
    assert_eq!(description(&at(&registry, "team"), "com.example/both"), "of the first");
    assert_eq!(description(&at(&registry, "default"), "com.example/both"), "of the second");
    // The default one is served at the root.
    assert_eq!(names(&registry.rest, ""), names(&at(&registry, "default"), ""));
    assert_eq!(names(&at(&registry, "inner"), ""), [""; 0]);
    assert_eq!(get(&format!("{}/v0.1/servers", at(&registry, "none"))).status, 404);

    // Discovered entries go where their labels say, else to the default registry; only those of the
    // configured namespaces.
    let mut session = Session::open(&registry.grpc, "p").await;
    session.full(&[]).await;
    for entry in [
        discovered("com.example/unlabelled", "apps", ""),
        discovered("com.example/for-team", "apps", "team"),
        discovered("com.example/for-inner", "apps", "inner"),
        discovered("com.example/elsewhere", "other", ""),
        discovered("com.example/lost", "apps", "nowhere"),
    ] {
        session.say(Message::Upsert(entry)).await;
    }
    session.durable().await;
    let lost: Vec<(&str, &str)> =
        session.rejections.iter().map(|r| (r.id.as_str(), r.code.as_str())).collect();
    assert_eq!(lost, [("com.example/lost", "RegistryNotFound")]);
    let found = |name: &str| {
        let all = names(&at(&registry, name), "search=discovered");
        all.into_iter().map(|name| name.replace("com.example/", "")).collect::<Vec<_>>()
    };
    assert_eq!(found("default"), ["unlabelled"]);
    assert_eq!(found("team"), ["for-team"]);
    assert_eq!(found("inner"), ["for-inner"]);
    // Addresses inside the cluster never leave through an external view.
    let urls = |registry_name: &str, name: &str| {
        let url = format!(
            "{}/v0.1/servers/com.example%2F{name}/versions/latest",
            at(&registry, registry_name)
        );
        let remotes = get(&url).json()["server"]["remotes"].clone();
        let url = |remote: &Value| remote["url"].as_str().unwrap().to_owned();
        remotes.as_array().unwrap().iter().map(url).collect::<Vec<_>>()
    };
    let (outside, inside) =
        ("https://1.0.0.example.com/com.example", "http://apps.svc.cluster.local/sse");
    assert_eq!(urls("default", "unlabelled"), [format!("{outside}/unlabelled")]);
    assert_eq!(urls("team", "for-team"), [format!("{outside}/for-team"), inside.to_owned()]);
    assert_eq!(urls("inner", "for-inner"), [inside]);

    // gRPC sees the same registries, and watches one of them.
    let mut client = CatalogueServiceClient::connect(registry.grpc.clone()).await.unwrap();
    let list = ListServersRequest { registry: "inner".into(), ..Default::default() };
    let listed = client.list_servers(list).await.unwrap().into_inner();
    assert_eq!(listed.servers.len(), 1);
    let unknown = ListServersRequest { registry: "none".into(), ..Default::default() };
    assert_eq!(client.list_servers(unknown).await.unwrap_err().code(), tonic::Code::NotFound);
    let watch = WatchServersRequest { registry: "inner".into(), ..Default::default() };
    let mut events = client.watch_servers(watch).await.unwrap().into_inner();
    let mut token = String::new();
    while let Some(Ok(response)) = events.next().await {
        token = response.resume_token;
        if matches!(response.event, Some(Event::SnapshotEnd(_))) {
            break;
        }
    }
    session.say(Message::Upsert(discovered("com.example/new-team", "apps", "team"))).await;
    session.say(Message::Upsert(discovered("com.example/new-inner", "apps", "inner"))).await;
    session.durable().await;
    let next = events.next().await.unwrap().unwrap();
    let Some(Event::Upserted(upserted)) = next.event else { panic!("{next:?}") };
    assert_eq!(upserted.name, "com.example/new-inner");
    // A token of one registry is none of another.
    let other =
        WatchServersRequest { registry: "team".into(), resume_token: token, ..Default::default() };
    let mut events = client.watch_servers(other).await.unwrap().into_inner();
    let first = events.next().await.unwrap().unwrap();
    assert!(matches!(first.event, Some(Event::SnapshotBegin(_))), "{first:?}");

    // What is not served is told, and why.
    let diagnostics = eventually("diagnostics", || {
        let sources = get(&format!("{}/v1/sources", registry.rest)).json();
        let second = sources["sources"].as_array().unwrap().iter().find(|s| s["name"] == "second");
        let second = second.unwrap().clone();
        (second["notServed"]["count"] == 1).then_some(second)
    });
    let shadowed = &diagnostics["notServed"]["first"][0];
    assert_eq!(
        (&shadowed["registry"], &shadowed["code"]),
        (&json!("team"), &json!("EntryShadowed"))
    );
    assert_eq!(diagnostics["syncStatus"]["phase"], "complete");
    let registries = get(&format!("{}/v1/registries", registry.rest)).json();
    assert_eq!(registries["registries"][1]["name"], "inner");
    assert_eq!(registries["registries"][1]["serverCount"], 2);
    registry.waymark.stop();
}

fn status_of(answer: &Answer) -> (u16, String) {
    let body = answer.json();
    let text = body["error"].as_str().or(body["server"]["description"].as_str());
    (answer.status, text.unwrap_or_default().to_owned())
}

#[test]
fn managed_entries() {
    let (folder, registry) = teams();
    let bearer = format!("Bearer {TOKEN}");
    let auth = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let rest = format!("{}/v0.1", registry.rest);
    let publish = format!("{rest}/publish");
    let null =
        br#"{"name": "a.b/c", "description": "d", "version": "1.0.0", "_meta": null}"#.to_vec();
    let body = server("com.example/mine", "1.0.0", "one");
    let bare = json!({"name": "com.example/nothing", "version": "1.0.0", "description": "bare"});
    let bare = bare.to_string().into_bytes();
    // Who may, where, and what.
    for (url, headers, body, status, says) in [
        (publish.clone(), &auth[1..], body.clone(), 401, "bearer token"),
        (
            publish.clone(),
            &[("authorization", "Bearer wrong-token-but-long")][..],
            body.clone(),
            401,
            "bearer token",
        ),
        (publish.clone(), &[("authorization", TOKEN)][..], body.clone(), 401, "bearer token"),
        (
            format!("{}/v0.1/publish", at(&registry, "team")),
            &auth[..],
            body.clone(),
            501,
            "no managed source",
        ),
        (
            format!("{}/v0.1/publish", at(&registry, "none")),
            &auth[..],
            body.clone(),
            404,
            "Registry not found",
        ),
        (publish.clone(), &auth[..], b"{".to_vec(), 400, "not JSON"),
        (publish.clone(), &auth[..], null, 400, "$._meta: must be an object, not null"),
        (publish.clone(), &auth[..], server("nothing", "1.0.0", "d"), 400, "not valid"),
        (publish.clone(), &auth[..], server("com.example/x", "^1", "d"), 400, "version"),
        (publish.clone(), &auth[..], server("com.example/forbidden", "1.0.0", "d"), 400, "filter"),
        (publish.clone(), &auth[..], vec![b' '; 300_000], 413, "more than 262144 bytes"),
        (
            publish.clone(),
            &auth[..],
            server("com.example/one", "1.0.0", "d"),
            409,
            "published already",
        ),
        (publish.clone(), &auth[..], body.clone(), 200, "one"),
        (publish.clone(), &auth[..], body, 409, "published already"),
        // Upstream's schema has both remotes and packages optional.
        (publish.clone(), &auth[..], bare, 200, "bare"),
        (publish, &auth[..], server("com.example/mine", "2.0.0", "two"), 200, "two"),
    ] {
        let (got, text) = status_of(&send("POST", &url, headers, body));
        assert!(
            got == status && text.contains(says),
            "{url}: {got} {text}, expected {status} {says}"
        );
    }
    assert_eq!(names(&registry.rest, "search=mine"), ["com.example/mine"; 2]);

    let one = format!("{rest}/servers/com.example%2Fmine/versions/1.0.0");
    let official = |answer: &Answer| {
        answer.json()["_meta"]["io.modelcontextprotocol.registry/official"].clone()
    };
    let published = official(&get(&one))["publishedAt"].clone();
    let replaced = send("PUT", &one, &auth, server("com.example/mine", "1.0.0", "better"));
    assert_eq!(status_of(&replaced), (200, "better".into()));
    assert_eq!(official(&replaced)["publishedAt"], published);
    let other = send("PUT", &one, &auth, server("com.example/mine", "3.0.0", "x"));
    assert_eq!(other.status, 400);
    let missing = format!("{rest}/servers/com.example%2Fone/versions/1.0.0");
    let absent = send("PUT", &missing, &auth, server("com.example/one", "1.0.0", "x"));
    assert_eq!(absent.status, 404, "{:?}", absent.json());

    // Deprecated, with a message; the same again changes nothing.
    let status =
        |body: Value| send("PATCH", &format!("{one}/status"), &auth, body.to_string().into());
    let deprecated = status(json!({"status": "deprecated", "statusMessage": "Use 2.0.0"}));
    assert_eq!(deprecated.status, 200);
    assert_eq!(official(&deprecated)["status"], "deprecated");
    assert_eq!(official(&deprecated)["statusMessage"], "Use 2.0.0");
    let again = status(json!({"status": "deprecated", "statusMessage": "Use 2.0.0"}));
    assert_eq!(
        status_of(&again),
        (400, "no changes to apply: the status is deprecated already".into())
    );
    assert_eq!(status(json!({"status": "gone"})).status, 400);
    assert_eq!(status(json!({"status": "active", "statusMessage": "x".repeat(501)})).status, 400);
    // Deleted: gone from lists, there for who asks, and back again.
    let deleted = send("DELETE", &one, &auth, vec![]);
    assert_eq!((deleted.status, official(&deleted)["status"].clone()), (200, json!("deleted")));
    assert_eq!(get(&one).status, 404);
    assert_eq!(get(&format!("{one}?include_deleted=true")).status, 200);
    assert_eq!(names(&registry.rest, "search=mine"), ["com.example/mine"]);
    // All versions at once.
    let all = format!("{rest}/servers/com.example%2Fmine/status");
    let all = send("PATCH", &all, &auth, json!({"status": "active"}).to_string().into());
    assert_eq!((all.status, all.json()["updatedCount"].clone()), (200, json!(2)));
    assert_eq!(names(&registry.rest, "search=mine"), ["com.example/mine"; 2]);
    let unknown = format!("{rest}/servers/com.example%2Fone/status");
    let unknown = send("PATCH", &unknown, &auth, json!({"status": "deleted"}).to_string().into());
    assert_eq!(unknown.status, 404);
    send("DELETE", &one, &auth, vec![]);

    // What was acknowledged survives a kill.
    let before = get(&format!("{rest}/servers?include_deleted=true&limit=100")).body;
    registry.waymark.kill();
    let registry = start(folder.path());
    let after = get(&format!("{}/v0.1/servers?include_deleted=true&limit=100", registry.rest)).body;
    assert_eq!(String::from_utf8(after).unwrap(), String::from_utf8(before).unwrap());
    registry.waymark.stop();
}

#[test]
fn the_configuration_is_followed() {
    let (folder, mut registry) = teams();
    let path = folder.path();
    let rest = registry.rest.clone();
    // A change of a file of a source.
    catalogue(
        path,
        "first.json",
        &[("com.example/one", "1.0.0", "x"), ("com.example/later", "1.0.0", "x")],
    );
    eventually("the file", || {
        (names(&format!("{rest}/registry/team"), "search=later").len() == 1).then_some(())
    });
    // One that holds nothing valid keeps its last good state, and says so.
    std::fs::write(path.join("first.json"), r#"{"servers": [{"server": {"name": "bad"}}]}"#)
        .unwrap();
    registry.waymark.line(&["none of its 1 entries is valid", "first"]);
    std::fs::remove_file(path.join("first.json")).unwrap();
    registry.waymark.line(&["cannot read", "first.json"]);
    assert_eq!(names(&format!("{rest}/registry/team"), "search=later").len(), 1);
    let sources = get(&format!("{rest}/v1/sources")).json();
    assert_eq!(sources["sources"][0]["syncStatus"]["phase"], "failed");
    assert_eq!(sources["sources"][0]["syncStatus"]["serverCount"], 2);
    let metrics = String::from_utf8(get(&format!("{rest}/metrics")).body).unwrap();
    for line in [
        "waymark_source_entries{source=\"first\"} 2",
        "waymark_source_entries_rejected{source=\"first\"} 1",
        "mcpregistry_sync_errors_total{source=\"second\"} 0",
    ] {
        assert!(metrics.lines().any(|l| l == line), "no {line} in\n{metrics}");
    }
    // The same after a restart.
    registry.waymark.kill();
    let mut registry = start(path);
    let rest = registry.rest.clone();
    assert_eq!(names(&format!("{rest}/registry/team"), "search=later").len(), 1);

    // A configuration with mistakes changes nothing.
    configure(path, "sources: []\nregistries: []\n");
    registry.waymark.line(&["the configuration stays as it was"]);
    assert_eq!(get(&format!("{rest}/registry/team/v0.1/servers")).status, 200);
    // Another one is taken without dropping a connection; what stays keeps its times.
    let later = format!("{rest}/registry/team/v0.1/servers/com.example%2Flater/versions/latest");
    let before = get(&later).json();
    let changed = TEAMS
        .replace(
            "- {name: inner, sources: [k8s], remotes: in-cluster}\n",
            "- {name: fresh, sources: [first]}\n",
        )
        .replace("sources: [second, first, own, k8s]", "sources: [first, own]");
    configure(path, &changed);
    registry.waymark.line(&["the configuration was read again"]);
    assert_eq!(get(&format!("{rest}/registry/inner/v0.1/servers")).status, 404);
    assert_eq!(names(&format!("{rest}/registry/fresh"), "").len(), 2);
    assert_eq!(names(&rest, ""), ["com.example/later", "com.example/one"]);
    assert_eq!(get(&later).json(), before);
    // The dropped source's entry of the default registry is deleted, as clients see.
    let gone =
        format!("{rest}/v0.1/servers/com.example%2Fboth/versions/latest?include_deleted=true");
    assert_eq!(
        get(&gone).json()["_meta"]["io.modelcontextprotocol.registry/official"]["status"],
        "deleted"
    );
    // At SIGHUP the token file is read again.
    let publish = |token: &str| {
        let auth = format!("Bearer {token}");
        let body = server("com.example/mine", "1.0.0", "d");
        send("POST", &format!("{rest}/v0.1/publish"), &[("authorization", &auth)], body).status
    };
    std::fs::write(path.join("tokens"), "another-token-of-somebody,ops\n").unwrap();
    registry.waymark.signal("-HUP");
    registry.waymark.line(&["the configuration was read again"]);
    assert_eq!((publish(TOKEN), publish("another-token-of-somebody")), (401, 200));
    registry.waymark.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_over_a_new_configuration() {
    let (folder, mut registry) = teams();
    let mut client = CatalogueServiceClient::connect(registry.grpc.clone()).await.unwrap();
    let mut events =
        client.watch_servers(WatchServersRequest::default()).await.unwrap().into_inner();
    while let Some(Ok(response)) = events.next().await {
        if matches!(response.event, Some(Event::SnapshotEnd(_))) {
            break;
        }
    }
    let changed = TEAMS.replace("sources: [second, first, own, k8s]", "sources: [first, own]");
    configure(folder.path(), &changed);
    tokio::task::block_in_place(|| registry.waymark.line(&["the configuration was read again"]));
    // Of the second source's entries one is gone, and the other is the first source's now; the one
    // that the second shadowed is not another.
    let next = events.next().await.unwrap().unwrap();
    let Some(Event::Upserted(both)) = next.event else { panic!("{next:?}") };
    assert_eq!(both.name, "com.example/both");
    assert!(String::from_utf8_lossy(&both.server_json).contains("of the first"));
    drop(events);
    registry.waymark.stop();
}

#[test]
fn toolhives_api() {
    let folder = tempfile::tempdir().unwrap();
    let examples = common::EXAMPLES;
    let data = folder.path().join("data");
    let registry = Registry::start(&data, "127.0.0.1:0", &[]);
    let args = [
        "discovery",
        "--registry",
        &registry.grpc,
        "--manifests",
        examples,
        "--assume-accepted=true",
        "--admin-addr",
        "off",
    ];
    let discovery = Waymark::start(&args);
    let rest = format!("{}/api/v1/registry", registry.rest);
    eventually("servers", || {
        (get(&format!("{rest}/info")).json()["total_servers"].as_u64()? > 5).then_some(())
    });
    let total = get(&format!("{rest}/info")).json()["total_servers"].clone();
    let toolhive = get(&format!("{rest}/servers")).json();
    assert_eq!(toolhive["total"], total);
    let first = &toolhive["servers"][0];
    assert!(
        first["name"].is_string() && first["url"].is_string() && first["transport"].is_string(),
        "{first}"
    );
    let upstream = get(&format!("{rest}/servers?format=upstream")).json();
    assert_eq!(
        upstream["servers"].as_array().unwrap().len(),
        usize::try_from(total.as_u64().unwrap()).unwrap()
    );
    let name = upstream["servers"][0]["server"]["name"].as_str().unwrap().to_owned();
    let client = get(&format!("{rest}/servers?format=mcp-client")).json();
    assert!(client["mcpServers"][&name]["url"].is_string(), "{client}");
    let encoded = name.replace('/', "%2F");
    assert_eq!(get(&format!("{rest}/servers/{encoded}")).json()["name"], name);
    assert_eq!(
        get(&format!("{rest}/servers/{encoded}?format=upstream")).json()["server"]["name"],
        name
    );
    let config = get(&format!("{rest}/servers/{encoded}?format=mcp-client")).json();
    assert_eq!(config["mcpServers"].as_object().unwrap().len(), 1);
    let deployed = get(&format!("{rest}/servers/deployed")).json();
    let one = &deployed["servers"][0];
    for field in ["name", "namespace", "kind", "server", "endpoint_url"] {
        assert!(one[field].is_string(), "{field} of {one}");
    }
    let own = one["name"].as_str().unwrap();
    let found = get(&format!("{rest}/servers/deployed/{own}")).json();
    assert_eq!(found["servers"][0]["name"], own);
    assert_eq!(
        get(&format!("{}/v0/servers/deployed", registry.rest)).json()["total"],
        deployed["total"]
    );
    for (path, status) in [
        ("/servers?format=xml", 400),
        ("/servers?registry=none", 404),
        ("/servers/nothing", 404),
        ("/servers/deployed/nothing", 404),
        ("/info?registry=default", 200),
    ] {
        assert_eq!(get(&format!("{rest}{path}")).status, status, "{path}");
    }
    discovery.stop();
    registry.waymark.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn masks_and_limits() {
    let folder = tempfile::tempdir().unwrap();
    catalogue(folder.path(), "a.json", &[("com.example/one", "1.0.0", "x")]);
    let file = folder.path().join("a.json");
    let args = ["--catalogue", file.to_str().unwrap(), "--max-watches-per-client", "3"];
    let registry = Registry::start(&folder.path().join("data"), "127.0.0.1:0", &args);
    let mut client = CatalogueServiceClient::connect(registry.grpc.clone()).await.unwrap();
    let mask = |paths: &[&str]| {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        Some(prost_types::FieldMask { paths })
    };
    let list = |paths: &[&str]| ListServersRequest { read_mask: mask(paths), ..Default::default() };
    let listed = client.list_servers(list(&["name", "revision"])).await.unwrap().into_inner();
    let one = &listed.servers[0];
    assert_eq!(one.name, "com.example/one");
    assert!(one.server_json.is_empty() && one.version.is_empty() && one.official.is_none());
    assert!(one.revision > 0);
    let status = client.list_servers(list(&["nothing"])).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert!(status.message().contains("server_json"), "{status}");
    // As many watches as are allowed, and a place is free again when one ends.
    let request = || WatchServersRequest { read_mask: mask(&["official"]), ..Default::default() };
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(client.watch_servers(request()).await.unwrap().into_inner());
    }
    let status = client.watch_servers(request()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    let mut first = open.remove(0);
    first.next().await.unwrap().unwrap();
    let Some(Event::Upserted(upserted)) = first.next().await.unwrap().unwrap().event else {
        panic!()
    };
    assert_eq!((upserted.name.as_str(), upserted.version.as_str()), ("com.example/one", "1.0.0"));
    assert!(upserted.official.is_some() && upserted.server_json.is_empty());
    drop(first);
    let deadline = std::time::Instant::now() + common::PATIENCE;
    while client.watch_servers(request()).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "the place is not free again");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // REST: headers and bodies.
    let long = "x".repeat(17 * 1024);
    let url = format!("{}/v0.1/servers", registry.rest);
    let answer = send("GET", &url, &[("x-long", &long)], vec![]);
    assert_eq!((answer.status, answer.json()["error"].is_string()), (431, true));
    let answer = send("GET", &url, &[("x-long", &long[..1024])], vec![]);
    assert_eq!(answer.status, 200);
    drop(open);
    registry.waymark.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_does_not_read_keeps_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(folder.path(), "127.0.0.1:0", &[]);
    let mut session = Session::open(&registry.grpc, "p").await;
    session.full(&[]).await;
    let mut client = CatalogueServiceClient::connect(registry.grpc.clone()).await.unwrap();
    let mut slow = client.watch_servers(WatchServersRequest::default()).await.unwrap().into_inner();
    slow.next().await.unwrap().unwrap();
    // Far more than any buffer between the two holds: 40 MB of states of 20 entries.
    let long = "x".repeat(20_000);
    for n in 0..2_000 {
        let name = format!("com.example/slow-{}", n % 20);
        let mut document: Value =
            serde_json::from_slice(&server(&name, "1.0.0", &n.to_string())).unwrap();
        document["_meta"] =
            json!({"io.modelcontextprotocol.registry/publisher-provided": {"x": {"long": long}}});
        session.upsert(&(n % 20).to_string(), document.to_string().into_bytes()).await;
        if n % 100 == 99 {
            session.durable().await;
        }
    }
    session.durable().await;
    // It has not seen every state, but it comes to the last one.
    let (mut seen, mut held) = (0, std::collections::BTreeMap::new());
    let last = |n: usize| (1_980 + n).to_string();
    while (0..20).any(|n| held.get(&format!("com.example/slow-{n}")) != Some(&last(n))) {
        let next = tokio::time::timeout(common::PATIENCE, slow.next()).await;
        let response = next.expect("a last state").unwrap().unwrap();
        if let Some(Event::Upserted(upserted)) = response.event {
            let document: Value = serde_json::from_slice(&upserted.server_json).unwrap();
            held.insert(upserted.name, document["description"].as_str().unwrap().to_owned());
            seen += 1;
        }
    }
    assert!(seen < 2_000, "{seen}: every state was kept for it");
    registry.waymark.stop();
}

/// Entries in the shapes that public registries hold: long texts, any script, packages of every type,
/// many versions, headers with variables.
fn public_shapes(count: usize) -> Value {
    let words =
        ["search", "Wetter", "天気予報", "погода", "🚀 deploy", "données", "طقس", "mail & files"];
    let server = |n: usize| {
        let word = words[n % words.len()];
        let mut server = json!({
            "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
            "name": format!("io.github.author-{}/server_{}.{}", n % 977, n % 1400, n % 3),
            "title": format!("{word} {n}"),
            "description": format!("{word}: {}", "ü".repeat(n % 80)),
            "version": format!("{}.{}.{}-rc.{}+build.{n}", n / 1400, n % 7, n % 11, n % 2),
            "websiteUrl": "https://example.com/ü?q=1",
            "repository": {"url": format!("https://github.com/author/{n}"), "source": "github", "id": n.to_string()},
            "icons": [{"src": "https://example.com/icon.svg", "mimeType": "image/svg+xml", "sizes": ["any"]}],
            "_meta": {"io.modelcontextprotocol.registry/publisher-provided": {"tool": {"deep": [1, {"x": null}]}}},
        });
        let kind = ["npm", "pypi", "oci", "nuget", "mcpb"][n % 5];
        if !n.is_multiple_of(3) {
            server["packages"] = json!([{
                "registryType": kind, "identifier": if kind == "mcpb" {
                    "https://example.com/x.mcpb".to_owned() } else { format!("pkg-{n}") },
                "version": "1.0.0",
                "fileSha256": (kind == "mcpb").then(|| "ab".repeat(32)),
                "transport": {"type": "stdio"},
                "runtimeArguments": [{"type": "named", "name": "--x", "value": "{v}", "variables": {"v": {"isRequired": true}}}],
                "environmentVariables": [{"name": "TOKEN", "isSecret": true, "description": "a token"}],
            }]);
            if kind != "mcpb" {
                server["packages"][0].as_object_mut().unwrap().remove("fileSha256");
            }
        } else {
            server["remotes"] = json!([
                {"type": "streamable-http", "url": format!("https://mcp-{n}.example.com/mcp"),
                 "headers": [{"name": "Authorization", "value": "Bearer {token}", "isSecret": true,
                              "variables": {"token": {"isSecret": true}}}]},
                {"type": "sse", "url": format!("https://mcp-{n}.example.com/sse")},
            ]);
        }
        json!({ "server": server })
    };
    json!({"servers": (0..count).map(server).collect::<Vec<Value>>(), "metadata": {"count": count}})
}

#[test]
fn thousands_of_real_shapes_come_out_as_they_went_in() {
    let folder = tempfile::tempdir().unwrap();
    let list = public_shapes(5000);
    let file = folder.path().join("public.json");
    std::fs::write(&file, list.to_string()).unwrap();
    let data = folder.path().join("data");
    let args = ["--catalogue", file.to_str().unwrap()];
    let registry = Registry::start(&data, "127.0.0.1:0", &args);
    let sources = get(&format!("{}/v1/sources", registry.rest)).json();
    assert_eq!(
        sources["sources"][0]["rejected"]["count"], 0,
        "{:#}",
        sources["sources"][0]["rejected"]["first"]
    );
    let mut wanted: std::collections::BTreeMap<(String, String), Value> = Default::default();
    for entry in list["servers"].as_array().unwrap() {
        let text = |field: &str| entry["server"][field].as_str().unwrap().to_owned();
        wanted.entry((text("name"), text("version"))).or_insert_with(|| entry["server"].clone());
    }
    let (mut cursor, mut found) = (String::new(), 0);
    loop {
        let page = get(&format!("{}/v0.1/servers?limit=100&cursor={cursor}", registry.rest)).json();
        for entry in page["servers"].as_array().unwrap() {
            let text = |field: &str| entry["server"][field].as_str().unwrap().to_owned();
            assert_eq!(entry["server"], wanted[&(text("name"), text("version"))]);
            found += 1;
        }
        match page["metadata"]["nextCursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(found, wanted.len());
    assert!(found > 4000, "{found}");
    // Found by a text in any script.
    let page =
        get(&format!("{}/v0.1/servers?search=%E5%A4%A9%E6%B0%97&version=latest", registry.rest))
            .json();
    assert_eq!(page["metadata"]["count"], 30);
    registry.waymark.stop();
}

#[test]
fn check_config_says_every_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.yaml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let mut command = binary();
        command.args(["registry-api", "--check-config", "--config", file.to_str().unwrap()]);
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let good = "sources: [{name: a, managed: {}}]\nregistries: [{name: default, sources: [a]}]\n";
    let (code, text) = check(good);
    assert!(code == Some(0) && text.contains("1 sources, 1 registries"), "{text}");
    let (code, text) =
        check("sources: [{name: A, managed: {}}]\nregistries: [{name: r, sources: [b]}]\nx: 1\n");
    assert_eq!(code, Some(2));
    for path in ["sources[0].name", "registries[0].sources[0]", "  x: there is no such field"] {
        assert!(text.contains(path), "{path}: {text}");
    }
    let (code, text) = check("sources: [\n");
    assert!(code == Some(2) && text.contains("registry.yaml:"), "{text}");
    let (code, text) = check(&format!("{good}auth: {{staticTokenFile: /no/such/file}}\n"));
    assert!(code == Some(2) && text.contains("/no/such/file"), "{text}");
}
