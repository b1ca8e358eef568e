//! Several replicas of the registry on one PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "common/postgres.rs"]
mod postgres;
#[path = "common/session.rs"]
mod session;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{PATIENCE, Registry, eventually, get, send, server};
use postgres::Postgres;
use serde_json::Value;
use session::Session;
use tokio_stream::StreamExt;
use waymark_proto::v1::catalogue_service_client::CatalogueServiceClient;
use waymark_proto::v1::publish_request::Message;
use waymark_proto::v1::watch_servers_response::Event;
use waymark_proto::v1::{Entry, Remove, WatchServersRequest};

const TOKEN: &str = "a-token-that-is-long-enough";

fn start(folder: &Path, database: &Postgres, grpc: &str) -> Registry {
    let tokens = folder.join("tokens");
    std::fs::write(&tokens, format!("{TOKEN},ci\n")).unwrap();
    let config = folder.join("registry.yaml");
    let text = format!(
        "sources: [{{name: own, managed: {{}}}}, {{name: k8s, kubernetes: {{}}}}]\n\
         registries: [{{name: default, sources: [own, k8s]}}]\n\
         auth: {{staticTokenFile: '{}'}}\n",
        tokens.display()
    );
    std::fs::write(&config, text).unwrap();
    let url = database.url();
    let args =
        ["--config", config.to_str().unwrap(), "--database-url", &url, "--stale-after", "2s"];
    Registry::start(&folder.join("unused"), grpc, &args)
}

/// All that a replica serves, deleted ones too, byte for byte.
fn everything(registry: &Registry) -> Vec<String> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let url = format!(
            "{}/v0.1/servers?include_deleted=true&limit=100&cursor={cursor}",
            registry.rest
        );
        let page = get(&url).json();
        all.extend(page["servers"].as_array().unwrap().iter().map(Value::to_string));
        match page["metadata"]["nextCursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return all,
        }
    }
}

fn same(replicas: &[&Registry]) -> Vec<String> {
    let mut all = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        all = replicas.iter().map(|replica| everything(replica)).collect();
        all.dedup();
        if all.len() == 1 {
            return all.remove(0);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let sizes: Vec<usize> = all.iter().map(Vec::len).collect();
    panic!("the replicas do not agree: {sizes:?}");
}

fn publish(rest: &str, name: &str, version: &str) -> u16 {
    let auth = format!("Bearer {TOKEN}");
    let url = format!("{rest}/v0.1/publish");
    send("POST", &url, &[("authorization", &auth)], server(name, version, "d")).status
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn what_one_takes_all_serve() {
    let database = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (
        start(folder.path(), &database, "127.0.0.1:0"),
        start(folder.path(), &database, "127.0.0.1:0"),
    );
    // A write through one is read through the other.
    assert_eq!(publish(&a.rest, "com.example/one", "1.0.0"), 200);
    let path = "/v0.1/servers/com.example%2Fone/versions/latest";
    eventually("the write at the other", || {
        (get(&format!("{}{path}", b.rest)).status == 200).then_some(())
    });
    assert_eq!(get(&format!("{}{path}", b.rest)).body, get(&format!("{}{path}", a.rest)).body);
    // The same version through both at once: one of them has it, and the other says so.
    for n in 0..10 {
        let name = format!("com.example/race-{n}");
        let mut statuses: Vec<u16> = std::thread::scope(|scope| {
            let both = [&a.rest, &b.rest].map(|rest| scope.spawn(|| publish(rest, &name, "1.0.0")));
            both.map(|thread| thread.join().unwrap()).to_vec()
        });
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409], "{name}");
    }
    // Two publishers to two replicas: nothing lost, nothing double.
    let (mut p, mut q) = (Session::open(&a.grpc, "p").await, Session::open(&b.grpc, "q").await);
    p.full(&[]).await;
    q.full(&[]).await;
    for n in 0..50 {
        p.upsert(&format!("{n}"), server(&format!("com.example/p-{n}"), "1.0.0", "d")).await;
        q.upsert(&format!("{n}"), server(&format!("com.example/q-{n}"), "1.0.0", "d")).await;
    }
    p.durable().await;
    q.durable().await;
    assert_eq!(same(&[&a, &b]).len(), 111);
    // A name that another publisher has, at the other replica, is refused here.
    p.upsert("late", server("com.example/q-1", "1.0.0", "other")).await;
    p.durable().await;
    // Both are at one precedence, so the first by source is served: p's.
    eventually("the verdict", || {
        let url = format!("{}/v0.1/servers/com.example%2Fq-1/versions/latest", b.rest);
        (get(&url).json()["server"]["description"] == "other").then_some(())
    });

    // A publisher that comes to another replica ends its session at the first; what it does not
    // bring is gone everywhere.
    let mut moved = Session::open(&b.grpc, "p").await;
    let ended = p.ended().await;
    assert!(ended.message().contains("newer session"), "{ended}");
    moved.full(&[("1", server("com.example/p-1", "1.0.0", "d"))]).await;
    eventually("what is gone", || {
        let page = get(&format!("{}/v0.1/servers?search=/p-&limit=100", a.rest)).json();
        (page["metadata"]["count"] == 1).then_some(())
    });
    // It is connected at b, so a does not call its entries stale, whatever time passes.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let metrics = get(&format!("{}/v1/sources", a.rest)).json();
    assert_eq!(metrics["publishers"]["c/p"]["stale"], false, "{metrics}");
    let agreed = same(&[&a, &b]);
    drop((moved, q));
    a.waymark.stop();
    // A third one begins with all of it.
    let c = start(folder.path(), &database, "127.0.0.1:0");
    assert_eq!(same(&[&b, &c]), agreed);
    b.waymark.stop();
    c.waymark.stop();
}

/// Follows a replica by watching, from one to the next, until told to end; gives what it holds then.
async fn watcher(
    replicas: Vec<String>,
    done: tokio::sync::watch::Receiver<bool>,
) -> BTreeMap<String, String> {
    let (mut held, mut token) = (BTreeMap::new(), String::new());
    let mut quiet_since = Instant::now();
    for grpc in replicas.iter().cycle() {
        let Ok(mut client) = CatalogueServiceClient::connect(grpc.clone()).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let request = WatchServersRequest { resume_token: token.clone(), ..Default::default() };
        let Ok(events) = client.watch_servers(request).await else { continue };
        let mut events = events.into_inner();
        let mut within = false;
        let turn = Instant::now();
        loop {
            match tokio::time::timeout(Duration::from_millis(300), events.next()).await {
                Ok(Some(Ok(response))) => {
                    quiet_since = Instant::now();
                    match response.event.unwrap() {
                        Event::SnapshotBegin(_) => {
                            within = true;
                            held.clear();
                        }
                        Event::SnapshotEnd(_) => within = false,
                        Event::Upserted(server) => {
                            let text = String::from_utf8(server.server_json.to_vec()).unwrap();
                            held.insert(format!("{} {}", server.name, server.version), text);
                        }
                        Event::Removed(removed) => {
                            held.remove(&format!("{} {}", removed.name, removed.version));
                        }
                    }
                    if !response.resume_token.is_empty() {
                        token = response.resume_token;
                    }
                }
                Ok(_) => break,
                Err(_) => {
                    if *done.borrow() && !within && quiet_since.elapsed() > Duration::from_secs(5) {
                        return held;
                    }
                }
            }
            if turn.elapsed() > Duration::from_secs(2) && !within && !*done.borrow() {
                break;
            }
        }
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn three_replicas_agree_after_a_storm() {
    let mut database = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    let mut replicas: Vec<Registry> =
        (0..3).map(|_| start(folder.path(), &database, "127.0.0.1:0")).collect();
    let grpc: Vec<String> = replicas.iter().map(|replica| replica.grpc.clone()).collect();
    let (over, done) = tokio::sync::watch::channel(false);
    let watchers: Vec<_> =
        (0..3).map(|_| tokio::spawn(watcher(grpc.clone(), done.clone()))).collect();
    // Each publisher goes from replica to replica whenever its session ends; what it means to have is
    // known.
    let publishers: Vec<_> = ["p", "q"]
        .into_iter()
        .map(|name| {
            let (grpc, done) = (grpc.clone(), done.clone());
            tokio::spawn(async move {
                let mut wanted: BTreeMap<String, Vec<u8>> = BTreeMap::new();
                let mut turn = 0_usize;
                'sessions: for address in grpc.iter().cycle() {
                    let opened = tokio::time::timeout(
                        Duration::from_secs(5),
                        Session::try_open(address, name),
                    );
                    let Ok(Some(mut session)) = opened.await else {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    };
                    let entries: Vec<(&str, Vec<u8>)> =
                        wanted.iter().map(|(id, server)| (id.as_str(), server.clone())).collect();
                    if !session.try_full(&entries).await {
                        continue;
                    }
                    let last = *done.borrow();
                    let began = Instant::now();
                    while began.elapsed() < Duration::from_millis(1500) && !last {
                        turn += 1;
                        let id = format!("{}", turn * 7 % 60);
                        let message = if turn.is_multiple_of(5) {
                            wanted.remove(&id);
                            Message::Remove(Remove { id })
                        } else {
                            // Names that both have, too.
                            let server = server(
                                &format!("com.example/s-{id}"),
                                "1.0.0",
                                &format!("{name} {turn}"),
                            );
                            wanted.insert(id.clone(), server.clone());
                            Message::Upsert(Entry {
                                id,
                                server_json: server.into(),
                                ..Entry::default()
                            })
                        };
                        if !session.say(message).await || !session.try_durable().await {
                            continue 'sessions;
                        }
                    }
                    if last {
                        return wanted;
                    }
                }
                unreachable!()
            })
        })
        .collect();
    for round in 0..6 {
        tokio::time::sleep(Duration::from_millis(900)).await;
        if round == 3 {
            // The database crashes. Who reads is still served, and readiness says so.
            database.stop();
            eventually("readiness", || {
                let ready = get(&format!("{}/readiness", replicas[0].rest));
                (ready.status == 503).then_some(())
            });
            assert_eq!(get(&format!("{}/v0.1/servers", replicas[0].rest)).status, 200);
            database.run();
            eventually("readiness again", || {
                replicas
                    .iter()
                    .all(|r| get(&format!("{}/readiness", r.rest)).status == 200)
                    .then_some(())
            });
            continue;
        }
        let killed = replicas.remove(0);
        let address = killed.grpc.replace("http://", "");
        killed.waymark.kill();
        replicas.push(start(folder.path(), &database, &address));
    }
    over.send_replace(true);
    let mut wanted: BTreeMap<String, String> = BTreeMap::new();
    for publisher in publishers.into_iter().rev() {
        // Of names that both have, the first source's entry is served.
        for server in publisher.await.unwrap().into_values() {
            let server: Value = serde_json::from_slice(&server).unwrap();
            let name = format!("{} 1.0.0", server["name"].as_str().unwrap());
            wanted.insert(name, server["description"].as_str().unwrap().to_owned());
        }
    }
    let all: Vec<&Registry> = replicas.iter().collect();
    let agreed = same(&all);
    let live: BTreeMap<String, Value> = agreed
        .iter()
        .map(|text| serde_json::from_str::<Value>(text).unwrap())
        .filter(|entry| {
            entry["_meta"]["io.modelcontextprotocol.registry/official"]["status"] == "active"
        })
        .map(|entry| {
            let text = |field: &str| entry["server"][field].as_str().unwrap().to_owned();
            (format!("{} {}", text("name"), text("version")), entry["server"].clone())
        })
        .collect();
    let descriptions: BTreeMap<String, String> = live
        .iter()
        .map(|(key, server)| (key.clone(), server["description"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(descriptions, wanted);
    assert!(live.len() > 20, "{}", live.len());
    for watcher in watchers {
        let held = watcher.await.unwrap();
        let held: BTreeMap<String, Value> = held
            .into_iter()
            .map(|(key, text)| (key, serde_json::from_str(&text).unwrap()))
            .collect();
        assert_eq!(held, live);
    }
    for replica in replicas {
        replica.waymark.stop();
    }
}

#[test]
#[ignore = "needs PostgreSQL: cargo xtask test"]
fn over_tls_with_a_certificate_that_verifies_and_one_that_does_not() {
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
    let database = Postgres::start_with(&[("server.crt", &certificate), ("server.key", &key)]);
    let folder = tempfile::tempdir().unwrap();
    let [trusted, stranger] = [("trusted.pem", own.cert.pem()), ("stranger.pem", other.cert.pem())]
        .map(|(name, pem)| {
            let path = folder.path().join(name);
            std::fs::write(&path, pem).unwrap();
            path
        });
    let url = |root: &Path| {
        format!("{}?sslmode=verify-full&sslrootcert={}", database.url(), root.display())
    };
    let good = url(&trusted);
    let registry =
        Registry::start(&folder.path().join("x"), "127.0.0.1:0", &["--database-url", &good]);
    assert_eq!(get(&format!("{}/readiness", registry.rest)).status, 200);
    registry.waymark.stop();
    let mut command = common::binary();
    command.args(["registry-api", "--database-url", &url(&stranger), "--http-addr", "127.0.0.1:0"]);
    let output = command.args(["--grpc-addr", "127.0.0.1:0"]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && text.contains("certificate"), "{text}");
}

#[test]
#[ignore = "needs PostgreSQL: cargo xtask test"]
fn a_database_that_cannot_be_used_is_named_without_its_password() {
    for (url, says) in [
        ("postgres://u:geheim@127.0.0.1:1/x", "refused"),
        ("mysql://u:geheim@127.0.0.1/x", "none of PostgreSQL"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = common::binary();
        command.args(["registry-api", "--database-url", url, "--http-addr", "127.0.0.1:0"]);
        command.args(["--grpc-addr", "127.0.0.1:0", "--data", folder.path().to_str().unwrap()]);
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(says) && !text.contains("geheim"), "{text}");
    }
}
