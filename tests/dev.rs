//! `waymark dev` as a newcomer runs it: the examples in, REST and gRPC out, changes followed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{Dev, PATIENCE, eventually, examples, get, names, request};
use tokio_stream::StreamExt;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use waymark_proto::v1::catalogue_service_client::CatalogueServiceClient;
use waymark_proto::v1::watch_servers_response::Event;
use waymark_proto::v1::{
    GetServerRequest, ListServersRequest, ListVersionsRequest, WatchServersRequest,
};

/// All servers of the examples, by name.
const SERVERS: [&str; 14] = [
    "com.example.apps.files/files",
    "com.example.github/github",
    "com.example.maps/maps",
    "com.example.mcp/search",
    "com.example.team-a/tickets",
    "com.example.team/notes",
    "com.example.team/notes-team",
    "com.example.tools/github",
    "com.example.tools/jira",
    "com.example.weather/weather",
    "com.toolhive.k8s.lab/experiment",
    "io.github.example/postgres",
    "net.example.docs/docs",
    "org.example.billing/billing",
];

#[test]
fn the_examples_are_served_and_followed() {
    let (_folder, path) = examples();
    let mut dev = Dev::start(&[path.to_str().unwrap()]);
    let table = dev.waymark.seen.join("\n");
    for part in [
        "https://tools.example.com/jira/sse",
        "HTTPRoute shop/shop (NOT PUBLISHED)",
        "error NameNotPermitted",
        "do: Use a name under com.example.shop/",
        "15 URLs published, 1 problem.",
        "23 objects without a status assumed",
    ] {
        assert!(table.contains(part), "{part} in\n{table}");
    }
    assert_eq!(names(&dev.rest, "limit=5"), SERVERS);

    // The link: one entry, the catalogue's description, the route's URL.
    let postgres =
        get(&format!("{}/v0/servers/io.github.example%2Fpostgres/versions/latest", dev.rest));
    let postgres = postgres.json();
    assert_eq!(postgres["server"]["remotes"][0]["url"], "https://data.example.com/mcp");
    assert_eq!(
        postgres["server"]["description"],
        "Queries, schemas and plans of PostgreSQL databases"
    );

    // A change shows up, and the old name is deleted, not forgotten.
    let file = path.join("01-basic.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("weather.example.com", "sky.example.com")).unwrap();
    dev.waymark.line(&["com.example.sky/weather", "http://sky.example.com/mcp"]);
    let found = names(&dev.rest, "search=weather");
    assert_eq!(found, ["com.example.sky/weather"]);
    let all = get(&format!("{}/v0.1/servers?search=weather&include_deleted=true", dev.rest)).json();
    let official = "io.modelcontextprotocol.registry/official";
    assert_eq!(all["servers"][1]["_meta"][official]["status"], "deleted");

    // A broken file is reported with its line and touches nothing else.
    std::fs::write(path.join("broken.yaml"), "kind: Gateway\n---\nkind: [\n").unwrap();
    dev.waymark.line(&["error InvalidDocument", "broken.yaml:3"]);
    assert_eq!(names(&dev.rest, "").len(), SERVERS.len());

    // A link to an entry that goes away is told as soon as the registry knows.
    std::fs::remove_file(path.join("registry.json")).unwrap();
    dev.waymark.line(&["error LinkedEntryNotFound"]);
    eventually("the entry goes", || {
        (!names(&dev.rest, "").iter().any(|name| name.contains("postgres"))).then_some(())
    });
    dev.waymark.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_lists_gets_and_watches() {
    let (_folder, path) = examples();
    let dev = tokio::task::spawn_blocking({
        let path = path.clone();
        move || Dev::start(&[path.to_str().unwrap()])
    })
    .await
    .unwrap();
    let mut client = CatalogueServiceClient::connect(dev.grpc.clone()).await.unwrap();

    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let request =
            ListServersRequest { page_size: 4, page_token, ..ListServersRequest::default() };
        let page = client.list_servers(request).await.unwrap().into_inner();
        listed.extend(page.servers.into_iter().map(|server| server.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, SERVERS);

    let name = "com.example.tools/jira".to_owned();
    let request = GetServerRequest { name: name.clone(), ..GetServerRequest::default() };
    let got = client.get_server(request).await.unwrap().into_inner();
    let rest = get(&format!("{}/v0.1/servers/com.example.tools%2Fjira/versions/0.9.0", dev.rest));
    let rest = String::from_utf8(rest.body).unwrap();
    let server = String::from_utf8(got.server_json.to_vec()).unwrap();
    assert!(rest.starts_with(&format!("{{\"server\":{server},")), "the same bytes");
    let request = ListVersionsRequest { name, ..ListVersionsRequest::default() };
    let versions = client.list_versions(request).await.unwrap().into_inner().versions;
    assert_eq!(versions.len(), 1);
    assert!(versions[0].official.as_ref().unwrap().is_latest);

    // Watch: a snapshot, then changes; resumed, only what was missed.
    let watch = |resume_token: String| {
        let mut client = client.clone();
        async move {
            let request = WatchServersRequest { resume_token, ..WatchServersRequest::default() };
            client.watch_servers(request).await.unwrap().into_inner()
        }
    };
    let mut stream = watch(String::new()).await;
    let mut next =
        async || tokio::time::timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(next().await.event, Some(Event::SnapshotBegin(_))));
    for expected in SERVERS {
        let response = next().await;
        assert!(response.resume_token.is_empty());
        match response.event {
            Some(Event::Upserted(server)) => assert_eq!(server.name, expected),
            other => panic!("{other:?}"),
        }
    }
    let end = next().await;
    assert!(matches!(end.event, Some(Event::SnapshotEnd(_))));

    std::fs::remove_file(path.join("03-wildcard-listener.yaml")).unwrap();
    match next().await.event {
        Some(Event::Removed(removed)) => assert_eq!(removed.name, "com.example.apps.files/files"),
        other => panic!("{other:?}"),
    }
    let mut resumed = watch(end.resume_token).await;
    let mut missed = async || {
        tokio::time::timeout(PATIENCE, resumed.next()).await.unwrap().unwrap().unwrap().event
    };
    assert!(matches!(missed().await, Some(Event::Removed(_))));
    assert!(matches!(missed().await, Some(Event::SnapshotEnd(_))));
    for token in ["nonsense", "other-epoch:1"] {
        let mut fresh = watch(token.to_owned()).await;
        let first = fresh.next().await.unwrap().unwrap().event;
        assert!(matches!(first, Some(Event::SnapshotBegin(_))), "{token}");
    }

    // Health and reflection.
    let channel = tonic::transport::Channel::from_shared(dev.grpc.clone()).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut health = HealthClient::new(channel.clone());
    for service in
        ["", "waymark.registry.v1.CatalogueService", "waymark.registry.v1.PublisherService"]
    {
        let request = HealthCheckRequest { service: service.to_owned() };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service:?}");
    }
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let mut answers =
        reflection.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let answer = format!("{:?}", answers.next().await.unwrap().unwrap().message_response);
    for service in ["waymark.registry.v1.CatalogueService", "waymark.registry.v1.PublisherService"]
    {
        assert!(answer.contains(service), "{answer}");
    }

    // What cannot be answered.
    use tonic::Code::{InvalidArgument, NotFound};
    let list = |request: ListServersRequest| {
        let mut client = client.clone();
        async move { client.list_servers(request).await.unwrap_err() }
    };
    let default = ListServersRequest::default;
    for (request, code, part) in [
        (ListServersRequest { page_size: 101, ..default() }, InvalidArgument, "limit"),
        (ListServersRequest { page_token: "!".into(), ..default() }, InvalidArgument, "cursor"),
        (ListServersRequest { search: "x".repeat(201), ..default() }, InvalidArgument, "search"),
        (ListServersRequest { registry: "other".into(), ..default() }, NotFound, "registry"),
        (
            ListServersRequest {
                updated_since: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }),
                ..default()
            },
            InvalidArgument,
            "updated_since",
        ),
    ] {
        let status = list(request).await;
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(part), "{status:?}");
    }
    for (name, code) in [("no name", InvalidArgument), ("a.b/unknown", NotFound)] {
        let request = GetServerRequest { name: name.into(), ..GetServerRequest::default() };
        assert_eq!(client.get_server(request).await.unwrap_err().code(), code, "{name}");
    }
    tokio::task::spawn_blocking(move || dev.waymark.stop()).await.unwrap();
}

#[test]
fn rest_answers_as_upstream_does() {
    let dev = Dev::start(&[common::EXAMPLES]);
    let long = "x".repeat(201);
    let huge = format!("search={}", "x".repeat(5000));
    let good = [
        ("/v0.1/servers", 14),
        ("/v0/servers", 14),
        ("/registry/default/v0.1/servers", 14),
        ("/v0.1/servers?limit=100&version=latest", 14),
        ("/v0.1/servers?limit=1", 1),
        ("/v0.1/servers?limit=&cursor=&search=&version=&updated_since=&include_deleted=", 14),
        ("/v0.1/servers?unknown=parameter", 14),
        ("/v0.1/servers?search=GITHUB", 3),
        ("/v0.1/servers?search=Queries%2C%20schemas", 1),
        ("/v0.1/servers?search=PostgreSQL&version=3.2.0", 1),
        ("/v0.1/servers?version=1.4.2", 2),
        ("/v0.1/servers?version=9.9.9", 0),
        ("/v0.1/servers?updated_since=2020-01-01T00:00:00Z", 14),
        ("/v0.1/servers?updated_since=2020-01-01T00:00:00%2B02:00&include_deleted=true", 14),
        ("/v0.1/servers?updated_since=2999-01-01T00:00:00.5Z", 0),
        ("/v0.1/servers?include_deleted=true", 14),
        ("/v0.1/servers/com.example.tools%2Fgithub/versions", 1),
        ("/v0.1/servers/com.example.tools%2fgithub/versions?include_deleted=1", 1),
    ];
    for (path, count) in good {
        let answer = get(&format!("{}{path}", dev.rest));
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
        let page = answer.json();
        assert_eq!(page["servers"].as_array().unwrap().len(), count, "{path}");
        assert_eq!(page["metadata"]["count"], count, "{path}");
    }
    let bad = [
        ("/v0.1/servers?limit=0", 400, "limit"),
        ("/v0.1/servers?limit=101", 400, "limit"),
        ("/v0.1/servers?limit=-1", 400, "limit"),
        ("/v0.1/servers?limit=many", 400, "limit"),
        ("/v0.1/servers?cursor=%21%21", 400, "cursor"),
        ("/v0.1/servers?cursor=YQ", 400, "cursor"),
        (&format!("/v0.1/servers?search={long}"), 400, "search"),
        (&format!("/v0.1/servers?{huge}"), 400, "query string"),
        ("/v0.1/servers?updated_since=yesterday", 400, "updated_since"),
        ("/v0.1/servers?updated_since=2020-01-01", 400, "updated_since"),
        ("/v0.1/servers?include_deleted=maybe", 400, "include_deleted"),
        (
            "/v0.1/servers?updated_since=2020-01-01T00:00:00Z&include_deleted=false",
            400,
            "include_deleted",
        ),
        ("/v0.1/servers/nothing/versions", 400, "server name"),
        ("/v0.1/servers/a%20b%2Fc/versions/latest", 400, "server name"),
        ("/v0.1/servers/a.b%2Fc/versions", 404, "Server not found"),
        ("/v0.1/servers/a.b%2Fc/versions/latest", 404, "Server not found"),
        ("/v0.1/servers/com.example.tools%2Fgithub/versions/9.9.9", 404, "Server not found"),
        (
            "/v0.1/servers/com.example.tools%2Fgithub/versions/1.4.2?include_deleted=x",
            400,
            "include_deleted",
        ),
        ("/v0.1/servers/%FF%FE/versions", 400, "percent-encoded"),
        ("/v0.1/servers/a.b%2Fc/versions/%FF", 400, "percent-encoded"),
        ("/v0.1/nothing", 404, "nothing at this path"),
        ("/", 404, "nothing at this path"),
        ("/registry/other/v0.1/servers", 404, "Registry not found"),
        ("/registry/%FF/v0.1/servers", 400, "percent-encoded"),
    ];
    for (path, status, part) in bad {
        let answer = get(&format!("{}{path}", dev.rest));
        assert_eq!(answer.status, status, "{path}");
        let body = answer.json();
        let error = body["error"].as_str().unwrap();
        assert!(error.contains(part), "{path}: {error}");
        assert_eq!(body.as_object().unwrap().len(), 1, "{path}");
    }
    let posted = request("POST", &format!("{}/v0.1/servers", dev.rest), &[]);
    assert_eq!((posted.status, posted.json()["error"].is_string()), (405, true));
    for (path, key) in [
        ("/health", "status"),
        ("/readiness", "servers"),
        ("/version", "git_commit"),
        ("/v0.1/health", "status"),
        ("/v0.1/ping", "pong"),
        ("/v0.1/version", "version"),
    ] {
        let answer = get(&format!("{}{path}", dev.rest));
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.json()[key].is_null(), "{path}");
    }
    let metrics = String::from_utf8(get(&format!("{}/metrics", dev.rest)).body).unwrap();
    for line in
        ["mcpregistry_servers_total{registry=\"default\"} 14", "waymark_publishers_connected 1"]
    {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    dev.waymark.stop();
}

#[test]
fn etags_compression_and_cors() {
    let dev = Dev::start(&[common::EXAMPLES]);
    let url = format!("{}/v0.1/servers", dev.rest);
    let full = get(&url);
    let tag = full.header("etag").unwrap().to_owned();
    for header in [tag.clone(), format!("\"other\", {tag}"), tag.replace("W/", ""), "*".into()] {
        let answer = request("GET", &url, &[("if-none-match", &header)]);
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{header}");
    }
    assert_eq!(request("GET", &url, &[("if-none-match", "\"other\"")]).status, 200);
    assert_ne!(get(&format!("{url}?limit=2")).header("etag"), Some(tag.as_str()));

    let zipped = request("GET", &url, &[("accept-encoding", "gzip")]);
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    let mut plain = Vec::new();
    std::io::copy(&mut flate2::read::GzDecoder::new(&zipped.body[..]), &mut plain).unwrap();
    assert_eq!(plain, full.body);
    assert!(zipped.body.len() < full.body.len() / 2);

    let asked = [("origin", "https://app.example"), ("access-control-request-method", "GET")];
    let preflight = request("OPTIONS", &url, &asked);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    assert!(preflight.header("access-control-allow-methods").unwrap().contains("GET"));
    let headed = request("HEAD", &url, &[]);
    assert_eq!((headed.status, headed.header("etag")), (200, Some(tag.as_str())));
    dev.waymark.stop();
}
