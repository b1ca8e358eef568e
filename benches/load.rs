//! Reads while writes come in, watches that fan out, and the write path of PostgreSQL.
//! `cargo xtask bench load`.
//!
//! Baselines: the same reads of the same registry at rest; the same changes seen by one watcher; the
//! same entries published to SQLite.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs
)]

mod common;
#[path = "../tests/common/postgres.rs"]
mod postgres;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Registry, percentiles, publish, server, timed};
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use waymark_proto::v1::catalogue_service_client::CatalogueServiceClient;
use waymark_proto::v1::publish_request::Message;
use waymark_proto::v1::publisher_service_client::PublisherServiceClient;
use waymark_proto::v1::watch_servers_response::Event;
use waymark_proto::v1::{
    Begin, End, Entry, Hello, PublishRequest, PublishResponse, WatchServersRequest,
};

const ENTRIES: usize = 100_000;
const WRITES: u64 = 1_000;
const WATCHERS: usize = 1_000;
const CHANGES: usize = 100;
const TO_POSTGRES: usize = 20_000;

/// A publisher beside the one that published everything, that changes entries of its own.
struct Writer {
    sender: mpsc::Sender<PublishRequest>,
    responses: tonic::Streaming<PublishResponse>,
    sequence: u64,
}

impl Writer {
    async fn open(grpc: &str) -> Self {
        let mut client = PublisherServiceClient::connect(grpc.to_owned()).await.unwrap();
        let (sender, receiver) = mpsc::channel(1024);
        let hello =
            Hello { cluster: "bench".into(), publisher: "writer".into(), session: "1".into() };
        sender
            .send(PublishRequest { sequence: 1, message: Some(Message::Hello(hello)) })
            .await
            .unwrap();
        let responses = client.publish(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        let mut writer = Self { sender, responses, sequence: 1 };
        writer.say(Message::Begin(Begin {})).await;
        writer.say(Message::End(End {})).await;
        writer.durable().await;
        writer
    }

    async fn say(&mut self, message: Message) {
        self.sequence += 1;
        let request = PublishRequest { sequence: self.sequence, message: Some(message) };
        self.sender.send(request).await.unwrap();
    }

    async fn change(&mut self, id: usize, text: &str) {
        let mut server = server(ENTRIES + id);
        if let Some(fields) = server.as_object_mut() {
            fields.insert("description".into(), text.into());
        }
        let server_json = server.to_string().into_bytes().into();
        self.say(Message::Upsert(Entry { id: id.to_string(), server_json, ..Entry::default() }))
            .await;
    }

    async fn durable(&mut self) {
        loop {
            let response = self.responses.next().await.unwrap().unwrap();
            if response.acknowledged_sequence == self.sequence {
                return;
            }
        }
    }
}

/// Requests per second, and the 99th percentile, as wrk has them.
fn wrk(url: &str) -> (f64, String) {
    let output = Command::new("wrk")
        .args(["-t1", "-c16", "-d4s", "--latency", url])
        .output()
        .expect("wrk runs");
    let text = String::from_utf8(output.stdout).unwrap();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        line.unwrap_or_else(|| panic!("{text}")).trim().to_owned()
    };
    (field("Requests/sec:").parse().unwrap(), field("99%"))
}

async fn reads(registry: &Registry) {
    let get = "/registry/default/v0.1/servers/com.example.team7%2Fcalendar-7/versions/latest";
    let paths = [
        ("list, first page", "/registry/default/v0.1/servers".to_owned()),
        ("list, 100 latest", "/registry/default/v0.1/servers?limit=100&version=latest".to_owned()),
        ("get one", get.to_owned()),
        ("search, many matches", "/registry/default/v0.1/servers?search=weather".to_owned()),
        ("search, one match", "/registry/default/v0.1/servers?search=calendar-7007".to_owned()),
    ];
    let measure = || -> Vec<(f64, String)> {
        paths.iter().map(|(_, path)| wrk(&format!("{}{path}", registry.rest))).collect()
    };
    let rest = tokio::task::block_in_place(measure);
    let over = Arc::new(AtomicBool::new(false));
    let (stop, grpc) = (Arc::clone(&over), registry.grpc.clone());
    let writing = tokio::spawn(async move {
        let mut writer = Writer::open(&grpc).await;
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        let (started, mut written) = (Instant::now(), 0_u64);
        while !stop.load(Ordering::Relaxed) {
            ticks.tick().await;
            for _ in 0..WRITES / 100 {
                written += 1;
                let id = usize::try_from(written % 5_000).unwrap();
                writer.change(id, &format!("change {written}")).await;
            }
            writer.durable().await;
        }
        written as f64 / started.elapsed().as_secs_f64()
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let busy = tokio::task::block_in_place(measure);
    over.store(true, Ordering::Relaxed);
    let rate = writing.await.unwrap();
    println!("reads of one registry at {ENTRIES} entries while {rate:.0} writes/s come in:");
    for ((name, _), ((rest, _), (busy, late))) in paths.iter().zip(rest.iter().zip(&busy)) {
        println!(
            "  {name:<22} {busy:>8.0} requests/s, p99 {late:>8}   at rest {rest:>8.0} (ratio {:.2})",
            busy / rest
        );
    }
}

/// Delays from the sending of a change until watchers have it.
async fn fan_out(registry: &Registry, watchers: usize) -> (Duration, Duration) {
    let (seen, mut sightings) = mpsc::unbounded_channel();
    let mut clients = Vec::new();
    for _ in 0..watchers.div_ceil(100) {
        clients.push(CatalogueServiceClient::connect(registry.grpc.clone()).await.unwrap());
    }
    let opening = (0..watchers).map(|n| {
        let mut client = clients.get(n / 100).unwrap().clone();
        let seen = seen.clone();
        async move {
            let paths = vec!["name".to_owned(), "server_json".to_owned()];
            let mask = Some(prost_types::FieldMask { paths });
            // From now on only: the token of this very moment.
            let request = WatchServersRequest { read_mask: mask.clone(), ..Default::default() };
            let mut first = client.watch_servers(request).await.unwrap().into_inner();
            let mut token = String::new();
            if n == 0 {
                while let Some(Ok(response)) = first.next().await {
                    token = response.resume_token;
                    if matches!(response.event, Some(Event::SnapshotEnd(_))) {
                        break;
                    }
                }
            }
            drop(first);
            (client, mask, token, seen)
        }
    });
    let opened = join_all(opening).await;
    let token = opened.first().unwrap().2.clone();
    let mut tasks = Vec::new();
    let ready = Arc::new(tokio::sync::Barrier::new(watchers + 1));
    for (mut client, read_mask, _, seen) in opened {
        let (resume_token, ready) = (token.clone(), Arc::clone(&ready));
        tasks.push(tokio::spawn(async move {
            let request = WatchServersRequest { resume_token, read_mask, ..Default::default() };
            let mut events = client.watch_servers(request).await.unwrap().into_inner();
            while let Some(Ok(response)) = events.next().await {
                match response.event {
                    Some(Event::SnapshotEnd(_)) => {
                        ready.wait().await;
                    }
                    Some(Event::Upserted(server)) => {
                        let now = Instant::now();
                        let value: serde_json::Value =
                            serde_json::from_slice(&server.server_json).unwrap();
                        let text =
                            value.get("description").and_then(|d| d.as_str()).unwrap_or_default();
                        if let Some(n) = text.strip_prefix("fan ").and_then(|n| n.parse().ok()) {
                            let _: Result<(), _> = seen.send((n, now));
                        }
                    }
                    _ => {}
                }
            }
        }));
    }
    ready.wait().await;
    let mut writer = Writer::open(&registry.grpc).await;
    let mut sent: Vec<Instant> = Vec::new();
    for n in 0..CHANGES {
        sent.push(Instant::now());
        writer.change(n, &format!("fan {n}")).await;
        writer.durable().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut delays = Vec::new();
    while delays.len() < CHANGES * watchers {
        let (n, at): (usize, Instant) = sightings.recv().await.unwrap();
        delays.push(at.duration_since(*sent.get(n).unwrap()));
    }
    for task in tasks {
        task.abort();
    }
    percentiles(delays)
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let limit = ["--max-watches-per-client", "5000"];
    let registry = Registry::start_with(&folder.path().join("registry"), &limit);
    let servers: Vec<Vec<u8>> = (0..ENTRIES).map(|n| server(n).to_string().into_bytes()).collect();
    publish(&registry.grpc, servers).await;
    reads(&registry).await;
    let (one50, one99) = fan_out(&registry, 1).await;
    let (all50, all99) = fan_out(&registry, WATCHERS).await;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!("a change to {WATCHERS} watchers, from its sending until each has it:");
    println!(
        "  p50 {:.1} ms, p99 {:.1} ms; to one watcher {:.1} and {:.1} ms (ratio {:.1} and {:.1})",
        ms(all50),
        ms(all99),
        ms(one50),
        ms(one99),
        ms(all50) / ms(one50),
        ms(all99) / ms(one99)
    );
    drop(registry);

    let servers: Vec<Vec<u8>> =
        (0..TO_POSTGRES).map(|n| server(n).to_string().into_bytes()).collect();
    let database = postgres::Postgres::start();
    let rate = |registry: &Registry| {
        let input = servers.clone();
        let publishing = || {
            tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(publish(&registry.grpc, input))
            })
        };
        TO_POSTGRES as f64 / timed(publishing).1.as_secs_f64()
    };
    let url = database.url();
    let postgres = Registry::start_with(&folder.path().join("unused"), &["--database-url", &url]);
    let to_postgres = rate(&postgres);
    drop(postgres);
    let sqlite = Registry::start(&folder.path().join("sqlite"));
    let to_sqlite = rate(&sqlite);
    println!("publishing {TO_POSTGRES} new entries until they are durable:");
    println!(
        "  PostgreSQL {to_postgres:.0} entries/s; SQLite {to_sqlite:.0} (ratio {:.2})",
        to_postgres / to_sqlite
    );
}
