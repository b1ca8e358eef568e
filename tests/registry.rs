//! `waymark registry-api` under publishers, kills and restarts; `waymark discovery` feeding it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "common/session.rs"]
mod session;

use std::collections::BTreeSet;

use common::{Registry, Waymark, eventually, examples, get, names, server};
use session::Session;
use tokio_stream::StreamExt;
use tonic::Code;
use waymark_proto::v1::publish_request::Message;
use waymark_proto::v1::{Begin, End, Entry, Link, Remove};

fn registry(data: &std::path::Path) -> Registry {
    Registry::start(data, "127.0.0.1:0", &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_kill_byte_for_byte() {
    let data = tempfile::tempdir().unwrap();
    for round in 0..8_u64 {
        let before = registry(data.path());
        let mut session = Session::open(&before.grpc, "p").await;
        // What earlier rounds left is kept by saying it again.
        session.say(Message::Begin(Begin {})).await;
        for id in 0..round {
            let name = format!("a.b/r{id}");
            session.upsert(&name, server(&name, "1.0.0", "stays")).await;
        }
        session.say(Message::End(End {})).await;
        session.durable().await;
        let name = format!("a.b/r{round}");
        session.upsert(&name, server(&name, "1.0.0", "stays")).await;
        session.durable().await;
        let page = get(&format!("{}/v0.1/servers?limit=100", before.rest));
        // More is under way, unacknowledged, when the process dies.
        for extra in 0..50 {
            session.upsert("flood", server("a.b/flood", "1.0.0", &format!("flood {extra}"))).await;
        }
        before.waymark.kill();

        let after = registry(data.path());
        let again = get(&format!("{}/v0.1/servers?limit=100", after.rest));
        let (kept, old) = (again.json(), page.json());
        for entry in old["servers"].as_array().unwrap() {
            if entry["server"]["name"] != "a.b/flood" {
                assert!(
                    kept["servers"].as_array().unwrap().contains(entry),
                    "round {round}: {entry}"
                );
            }
        }
        after.waymark.kill();
    }
    // Nothing happens in between: the very same bytes.
    let first = registry(data.path());
    let page = get(&format!("{}/v0.1/servers?limit=100&include_deleted=true", first.rest));
    first.waymark.stop();
    let second = registry(data.path());
    let again = get(&format!("{}/v0.1/servers?limit=100&include_deleted=true", second.rest));
    assert_eq!(page.body, again.body);
    assert_eq!(page.header("etag"), again.header("etag"));
    second.waymark.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_survive_kills_at_random_points() {
    let data = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..10_u64 {
        let before = registry(data.path());
        let mut session = Session::open(&before.grpc, &format!("p{round}")).await;
        session.full(&[]).await;
        let mut sent = Vec::new();
        for n in 0..200 {
            let name = format!("a.b/r{round}-{n}");
            if !session.upsert(&name, server(&name, "1.0.0", "d")).await {
                break;
            }
            sent.push((session.sequence, name));
        }
        // Different for every round, and never all of it.
        let enough = session.sequence - 200 + (round * 37) % 190;
        while session.acknowledged < enough {
            session.response().await.unwrap().unwrap();
        }
        before.waymark.kill();
        let durable = sent.into_iter().filter(|(sequence, _)| *sequence <= session.acknowledged);
        acknowledged.extend(durable.map(|(_, name)| name));
        let after = registry(data.path());
        let served: BTreeSet<String> = names(&after.rest, "limit=100").into_iter().collect();
        let lost: Vec<_> = acknowledged.difference(&served).collect();
        assert!(lost.is_empty(), "round {round} lost {lost:?}");
        after.waymark.kill();
    }
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_state_drops_what_it_does_not_hold_and_a_broken_one_drops_nothing() {
    let data = tempfile::tempdir().unwrap();
    let registry = registry(data.path());
    let (a, b) = (server("a.b/a", "1.0.0", "d"), server("a.b/b", "1.0.0", "d"));
    let mut session = Session::open(&registry.grpc, "p").await;
    session.full(&[("1", a.clone()), ("2", b.clone())]).await;
    assert_eq!(names(&registry.rest, ""), ["a.b/a", "a.b/b"]);
    // Another publisher's entries are its own business.
    let mut other = Session::open(&registry.grpc, "q").await;
    other.full(&[("1", server("a.b/q", "1.0.0", "d"))]).await;

    // A full state that breaks off drops nothing.
    drop(session);
    let mut session = Session::open(&registry.grpc, "p").await;
    session.say(Message::Begin(Begin {})).await;
    session.upsert("1", a.clone()).await;
    session.durable().await;
    drop(session);
    assert_eq!(names(&registry.rest, ""), ["a.b/a", "a.b/b", "a.b/q"]);

    let mut session = Session::open(&registry.grpc, "p").await;
    session.full(&[("1", a)]).await;
    assert_eq!(names(&registry.rest, ""), ["a.b/a", "a.b/q"]);
    // Under one id another name: the old one goes.
    session.upsert("1", server("a.b/renamed", "1.0.0", "d")).await;
    session.durable().await;
    assert_eq!(names(&registry.rest, ""), ["a.b/q", "a.b/renamed"]);
    session.say(Message::Remove(Remove { id: "1".into() })).await;
    session.durable().await;
    assert_eq!(names(&registry.rest, ""), ["a.b/q"]);

    // A newer session takes over.
    let mut newer = Session::open(&registry.grpc, "p").await;
    assert_eq!(session.ended().await.code(), Code::Aborted);
    newer.full(&[("2", b)]).await;
    assert_eq!(names(&registry.rest, ""), ["a.b/b", "a.b/q"]);
    // When a publisher has no more to say, it still hears of everything.
    newer.upsert("3", server("a.b/c", "1.0.0", "d")).await;
    let Session { sender, mut responses, sequence, .. } = newer;
    drop(sender);
    let mut last = 0;
    while let Some(response) = responses.next().await {
        last = response.unwrap().acknowledged_sequence;
    }
    assert_eq!(last, sequence);
    registry.waymark.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_entries_are_rejected_one_by_one() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path(), "127.0.0.1:0", &["--max-entries", "8"]);
    let mut session = Session::open(&registry.grpc, "p").await;
    session.say(Message::Begin(Begin {})).await;
    let good = server("a.b/good", "1.0.0", "d");
    let entry = |id: &str, server: Vec<u8>| Entry {
        id: id.into(),
        server_json: server.into(),
        ..Entry::default()
    };
    let huge = server("a.b/huge", "1.0.0", &"x".repeat(300_000));
    let with_user = String::from_utf8(good.clone()).unwrap().replace("https://", "https://u:p@");
    let link = Link { name: "no.such/entry".into(), version: String::new() };
    let entries = [
        (entry("good", good.clone()), None),
        (entry("no json", b"{".to_vec()), Some("InvalidEntry")),
        (entry("bad name", server("nothing", "1.0.0", "d")), Some("InvalidEntry")),
        (entry("bad version", server("a.b/v", "^1", "d")), Some("InvalidEntry")),
        (entry("no description", server("a.b/d", "1.0.0", "")), Some("InvalidEntry")),
        (entry("credentials", with_user.into_bytes()), Some("InvalidEntry")),
        (entry("huge", huge), Some("EntryTooLarge")),
        (
            Entry { registry: "team".into(), ..entry("registry", good.clone()) },
            Some("RegistryNotFound"),
        ),
        (
            Entry { authz_claims_json: "{\"a\":\"b\"}".into(), ..entry("claims", good.clone()) },
            Some("ClaimsNotEnforced"),
        ),
        (Entry { link: Some(link), ..entry("link", good.clone()) }, Some("LinkedEntryNotFound")),
        (entry("again", good.clone()), Some("EntryShadowed")),
    ];
    // `again` comes after `good` in the order of ids, whatever the order of arrival.
    let entries: Vec<_> = entries
        .into_iter()
        .map(|(entry, code)| match entry.id.as_str() {
            "again" => (Entry { id: "z again".into(), ..entry }, code),
            _ => (entry, code),
        })
        .collect();
    for (entry, _) in &entries {
        session.say(Message::Upsert(entry.clone())).await;
    }
    for n in 0..10 {
        session.upsert(&format!("n{n}"), server(&format!("a.b/n{n}"), "1.0.0", "d")).await;
    }
    session.say(Message::End(End {})).await;
    session.durable().await;
    let code = |id: &str| {
        let rejection = session.rejections.iter().find(|rejection| rejection.id == id);
        rejection.map(|rejection| rejection.code.as_str())
    };
    for (entry, expected) in &entries {
        assert_eq!(code(&entry.id), *expected, "{}", entry.id);
    }
    // good, link, z again, the one of another registry (which may yet come) and four more are eight.
    assert_eq!((code("n3"), code("n4")), (None, Some("TooManyEntries")));
    assert!(session.rejections.iter().all(|r| r.message.ends_with('.') && r.message.len() < 500));
    assert_eq!(names(&registry.rest, ""), ["a.b/good", "a.b/n0", "a.b/n1", "a.b/n2", "a.b/n3"]);

    // What stood against an entry goes away by itself.
    session.say(Message::Remove(Remove { id: "good".into() })).await;
    session.durable().await;
    assert_eq!(session.resolved.last().map(String::as_str), Some("z again"));
    assert!(names(&registry.rest, "").contains(&"a.b/good".to_owned()));

    // A protocol that is broken ends the stream, not the registry.
    session.sequence += 5;
    session.say(Message::Begin(Begin {})).await;
    assert_eq!(session.ended().await.code(), Code::InvalidArgument);
    let metrics = String::from_utf8(get(&format!("{}/metrics", registry.rest)).body).unwrap();
    assert!(
        metrics.contains("waymark_publish_entries_refused_total{code=\"InvalidEntry\"} 5"),
        "{metrics}"
    );
    registry.waymark.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_is_away_goes_stale_and_then_goes() {
    use waymark_proto::v1::GetServerRequest;
    use waymark_proto::v1::catalogue_service_client::CatalogueServiceClient;
    let data = tempfile::tempdir().unwrap();
    let more = ["--stale-after", "200ms", "--publisher-retention", "3s"];
    let registry = Registry::start(data.path(), "127.0.0.1:0", &more);
    let mut session = Session::open(&registry.grpc, "p").await;
    session.full(&[("1", server("a.b/a", "1.0.0", "d"))]).await;
    let mut client = CatalogueServiceClient::connect(registry.grpc.clone()).await.unwrap();
    let mut stale = async || {
        let request = GetServerRequest { name: "a.b/a".into(), ..GetServerRequest::default() };
        client.get_server(request).await.map(|response| response.into_inner().stale)
    };
    assert!(!stale().await.unwrap());
    let before = get(&format!("{}/v0.1/servers", registry.rest)).body;
    drop(session);
    while !stale().await.unwrap() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(
        get(&format!("{}/v0.1/servers", registry.rest)).body,
        before,
        "stale is served as it was"
    );
    let mut session = Session::open(&registry.grpc, "p").await;
    session.full(&[("1", server("a.b/a", "1.0.0", "d"))]).await;
    assert!(!stale().await.unwrap());
    drop(session);
    while stale().await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(names(&registry.rest, "").is_empty());
    registry.waymark.stop();
}

#[test]
fn discovery_feeds_a_registry_over_a_socket_and_gets_over_its_loss() {
    let (_folder, manifests) = examples();
    let data = tempfile::tempdir().unwrap();
    let socket = data.path().join("registry.sock");
    let address = format!("unix:{}", socket.display());
    let catalogue = manifests.join("registry.json");
    let catalogue = ["--catalogue", catalogue.to_str().unwrap()];
    let first = Registry::start(&data.path().join("one"), &address, &catalogue);
    let mut discovery = Waymark::start(&[
        "discovery",
        "--assume-accepted",
        "--registry",
        &address,
        "--manifests",
        manifests.to_str().unwrap(),
    ]);
    let all = |rest: &str| {
        eventually("publishing", || {
            let names = names(rest, "");
            (names.len() == 14).then_some(names)
        })
    };
    let published = all(&first.rest);
    first.waymark.kill();
    discovery.line(&["publishing stopped; trying again"]);
    // Another registry at the same place, with nothing in it.
    let second = Registry::start(&data.path().join("two"), &address, &catalogue);
    assert_eq!(all(&second.rest), published);
    // A change while nobody listens is not lost.
    second.waymark.stop();
    discovery.line(&["publishing stopped; trying again"]);
    std::fs::remove_file(manifests.join("01-basic.yaml")).unwrap();
    discovery.line(&["is not published any more"]);
    let third = Registry::start(&data.path().join("two"), &address, &catalogue);
    eventually("the removal", || (names(&third.rest, "").len() == 13).then_some(()));
    discovery.stop();
    assert_eq!(names(&third.rest, "").len(), 13, "what was published stays");
    third.waymark.stop();
    assert!(!socket.exists(), "the socket is removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linked_entry_survives_a_restart_byte_for_byte() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("servers.json");
    // Enough entries that the file takes longer to read than the store.
    let curated = |name: String| String::from_utf8(server(&name, "1.0.0", "d")).unwrap();
    let mut all: Vec<String> = (0..2000).map(|n| curated(format!("z.z/filler-{n}"))).collect();
    all.push(curated("a.b/curated".into()));
    std::fs::write(&file, format!("{{\"servers\": [{}]}}", all.join(","))).unwrap();
    let folder = data.path().join("d");
    let start =
        || Registry::start(&folder, "127.0.0.1:0", &["--catalogue", file.to_str().unwrap()]);
    let first = start();
    let mut session = Session::open(&first.grpc, "p").await;
    let linked = Entry {
        id: "l".into(),
        server_json: server("x.y/z", "9.9.9", "d").into(),
        link: Some(Link { name: "a.b/curated".into(), version: String::new() }),
        ..Entry::default()
    };
    session.say(Message::Begin(Begin {})).await;
    session.say(Message::Upsert(linked)).await;
    session.say(Message::End(End {})).await;
    session.durable().await;
    let query = "/v0.1/servers?include_deleted=true";
    let before = get(&format!("{}{query}", first.rest));
    assert!(String::from_utf8_lossy(&before.body).contains("https://9.9.9.example.com/x.y/z"));
    first.waymark.kill();
    let second = start();
    let after = get(&format!("{}{query}", second.rest));
    assert_eq!(String::from_utf8_lossy(&before.body), String::from_utf8_lossy(&after.body));
    second.waymark.stop();
    // What the catalogue lost while the registry was down is gone, link or not.
    std::fs::write(&file, "{\"servers\": []}").unwrap();
    let third = start();
    assert!(names(&third.rest, "").is_empty());
    third.waymark.stop();
}

#[test]
fn the_curated_catalogue_is_followed_and_an_open_write_side_refused() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("servers.json");
    let write = |names: &[&str]| {
        let servers: Vec<String> = names
            .iter()
            .map(|name| String::from_utf8(server(name, "1.0.0", "d")).unwrap())
            .collect();
        std::fs::write(&file, format!("{{\"servers\": [{}]}}", servers.join(","))).unwrap();
    };
    write(&["a.b/one", "a.b/two"]);
    let path = file.to_str().unwrap();
    let registry = Registry::start(&data.path().join("d"), "127.0.0.1:0", &["--catalogue", path]);
    assert_eq!(names(&registry.rest, ""), ["a.b/one", "a.b/two"]);
    write(&["a.b/two", "a.b/three"]);
    eventually("the change", || {
        (names(&registry.rest, "") == ["a.b/three", "a.b/two"]).then_some(())
    });
    // A file that cannot be read keeps the last good state.
    std::fs::write(&file, "{").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(names(&registry.rest, ""), ["a.b/three", "a.b/two"]);
    registry.waymark.stop();
    // Without the file, its entries go.
    let registry = Registry::start(&data.path().join("d"), "127.0.0.1:0", &[]);
    assert!(names(&registry.rest, "").is_empty());
    registry.waymark.stop();

    let folder = data.path().join("open");
    let open = ["registry-api", "--grpc-addr", "0.0.0.0:0", "--data", folder.to_str().unwrap()];
    let output = common::binary().args(open).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("--allow-unauthenticated-publish"), "{error}");
}
