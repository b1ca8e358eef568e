//! What the benchmarks share: times, and entries to publish.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use waymark_proto::v1::publish_request::Message;
use waymark_proto::v1::publisher_service_client::PublisherServiceClient;
use waymark_proto::v1::{Begin, End, Entry, Hello, PublishRequest};

/// The time that a piece of work takes.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let done = work();
    (done, started.elapsed())
}

/// Median and 99th percentile.
pub fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    let at = |share: f64| {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        let index = (times.len() as f64 * share) as usize;
        times.get(index.min(times.len() - 1)).copied().unwrap_or_default()
    };
    (at(0.5), at(0.99))
}

/// A server.json of the size that discovered entries have.
pub fn server(n: usize) -> Value {
    let url = format!("https://team{}.example.com/server-{n}/mcp", n % 1000);
    let words = ["weather", "tickets", "search", "billing", "maps", "files", "mail", "calendar"];
    let word = words.get(n % words.len()).unwrap();
    json!({
        "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
        "name": format!("com.example.team{}/{word}-{n}", n % 1000),
        "title": format!("The {word} server"),
        "description": format!("Everything about {word}, number {n}, for people and agents"),
        "version": "1.4.2",
        "remotes": [{"type": "streamable-http", "url": url}],
        "_meta": {"io.modelcontextprotocol.registry/publisher-provided": {"io.github.stacklok": {url.as_str(): {
            "status": "active", "tier": "Community", "tools": ["list", "get", "create"], "tags": [word],
            "metadata": {"kubernetes": {"kind": "MCPServer", "namespace": format!("team{}", n % 1000),
                "name": format!("{word}-{n}"), "uid": "6c7f3b1e-3a52-4f43-9f0e-8c8d8d0c2f11",
                "image": "ghcr.io/example/server:1.4.2", "transport": "stdio"}}
        }}}}
    })
}

/// A registry of its own, killed when dropped.
pub struct Registry {
    child: Child,
    pub rest: String,
    pub grpc: String,
}

impl Registry {
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    pub fn start_with(data: &Path, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_waymark"))
            .args(["registry-api", "--log-format", "json", "--http-addr", "127.0.0.1:0"])
            .args(["--grpc-addr", "127.0.0.1:0", "--data", data.to_str().unwrap()])
            .args(more)
            .env("RUST_LOG", "waymark=info")
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let listening = lines.find_map(|line| {
            let log: Value = serde_json::from_str(&line.ok()?).ok()?;
            let address = |key: &str| Some(format!("http://{}", log.get(key)?.as_str()?));
            Some((address("http")?, address("grpc")?))
        });
        let (rest, grpc) = listening.expect("the registry listens");
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, rest, grpc }
    }

    /// Memory that the process holds, in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Publishes servers as one full state; returns when all of it is durable.
pub async fn publish(grpc: &str, servers: Vec<Vec<u8>>) {
    let mut client = PublisherServiceClient::connect(grpc.to_owned()).await.unwrap();
    let (sender, receiver) = mpsc::channel(1024);
    let last = servers.len() as u64 + 3;
    let sending = tokio::spawn(async move {
        let hello =
            Hello { cluster: "bench".into(), publisher: "bench".into(), session: "1".into() };
        let entries = servers.into_iter().enumerate().map(|(n, server)| {
            let server_json = server.into();
            Message::Upsert(Entry { id: n.to_string(), server_json, ..Entry::default() })
        });
        let messages = [Message::Hello(hello), Message::Begin(Begin {})].into_iter();
        let messages = messages.chain(entries).chain([Message::End(End {})]);
        for (sequence, message) in (1..).zip(messages) {
            let request = PublishRequest { sequence, message: Some(message) };
            sender.send(request).await.unwrap();
        }
        // Kept open until the last acknowledgement has come.
        sender
    });
    let mut responses = client.publish(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    loop {
        let response = responses.next().await.unwrap().unwrap();
        assert!(response.rejections.is_empty(), "{:?}", response.rejections.first());
        if response.acknowledged_sequence == last {
            drop(sending.await.unwrap());
            return;
        }
    }
}
