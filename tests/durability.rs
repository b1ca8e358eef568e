//! kill -9 at a hundred points: what was acknowledged is there afterwards, and what is there is all
//! that was said up to some point, and nothing of what came later.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "common/postgres.rs"]
mod postgres;
#[path = "common/session.rs"]
mod session;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Registry, get, server};
use session::Session;
use waymark_proto::v1::publish_request::Message;
use waymark_proto::v1::{Entry, Remove};

const ROUNDS: u64 = 100;
const IDS: u64 = 7;

/// What is served: number of the operation that made it, by id.
fn served(registry: &Registry) -> BTreeMap<u64, u64> {
    let page = get(&format!("{}/v0.1/servers?limit=100", registry.rest)).json();
    let number = |text: &serde_json::Value| text.as_str().unwrap().to_owned();
    let item = |entry: &serde_json::Value| {
        let (name, text) =
            (number(&entry["server"]["name"]), number(&entry["server"]["description"]));
        (name.rsplit_once('-').unwrap().1.parse().unwrap(), text.parse().unwrap())
    };
    page["servers"].as_array().unwrap().iter().map(item).collect()
}

/// What there is after the first `n` operations: each puts an entry, but every fourth takes one out.
fn expected(n: u64) -> BTreeMap<u64, u64> {
    let mut all = BTreeMap::new();
    for operation in 1..=n {
        let id = operation * 3 % IDS;
        if operation.is_multiple_of(4) {
            all.remove(&id);
        } else {
            all.insert(id, operation);
        }
    }
    all
}

fn operation(n: u64) -> Message {
    let id = n * 3 % IDS;
    if n.is_multiple_of(4) {
        return Message::Remove(Remove { id: id.to_string() });
    }
    let server = server(&format!("com.example/server-{id}"), "1.0.0", &n.to_string());
    Message::Upsert(Entry { id: id.to_string(), server_json: server.into(), ..Entry::default() })
}

async fn rounds(start: impl Fn() -> Registry) {
    // Operations said so far, over all rounds, and acknowledged.
    let mut acknowledged = 0;
    let mut registry = start();
    // A slow machine does less in a round, and goes on for longer.
    for round in 0..ROUNDS * 10 {
        if round >= ROUNDS && acknowledged > ROUNDS * 2 {
            break;
        }
        let mut session = Session::open(&registry.grpc, "p").await;
        let state = expected(acknowledged);
        let entries: Vec<(String, Vec<u8>)> = state
            .iter()
            .map(|(id, n)| {
                let name = format!("com.example/server-{id}");
                (id.to_string(), server(&name, "1.0.0", &n.to_string()))
            })
            .collect();
        let entries: Vec<(&str, Vec<u8>)> =
            entries.iter().map(|(id, server)| (id.as_str(), server.clone())).collect();
        session.full(&entries).await;
        // Killed at another point each time, by somebody who does not know what is under way.
        let pid = registry.waymark.child.id().to_string();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(300 + round * 1_313 % 9_000));
            let killed = std::process::Command::new("kill").args(["-9", &pid]).status();
            assert!(killed.unwrap().success());
        });
        let base = session.sequence;
        let first = acknowledged;
        let mut said = first;
        loop {
            // Some at once, so that a batch holds several.
            for _ in 0..5 {
                said += 1;
                session.say(operation(said)).await;
            }
            let alive = session.try_durable().await;
            acknowledged = acknowledged.max(first + session.acknowledged.saturating_sub(base));
            if !alive {
                break;
            }
        }
        killer.join().unwrap();
        registry.waymark.kill();
        registry = start();
        let found = served(&registry);
        let prefix = (acknowledged..=said).find(|n| expected(*n) == found);
        let Some(prefix) = prefix else {
            panic!(
                "round {round}: {found:?} is no state from {acknowledged} to {said}: {:?}",
                expected(acknowledged)
            );
        };
        acknowledged = prefix;
    }
    assert!(acknowledged > ROUNDS * 2, "{acknowledged} operations in all");
    registry.waymark.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite() {
    let folder = tempfile::tempdir().unwrap();
    rounds(|| Registry::start(folder.path(), "127.0.0.1:0", &[])).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn postgresql() {
    let database = postgres::Postgres::start();
    let url = database.url();
    let args = ["--database-url", url.as_str()];
    rounds(|| Registry::start(database.folder(), "127.0.0.1:0", &args)).await;
}
