//! The built binary, as a user runs it.
#![allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/httproutes");
/// How long anything may take before a test gives up; never what a test asserts on.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waymark"));
    command.env("RUST_LOG", "info").env_remove("RUST_BACKTRACE");
    command
}

/// A running process, killed when dropped.
pub struct Waymark {
    pub child: Child,
    lines: Receiver<String>,
    pub seen: Vec<String>,
}

impl Waymark {
    /// Starts the binary; its stdout and stderr are read as lines.
    pub fn start(args: &[&str]) -> Self {
        let mut command = binary();
        command.args(args);
        Self::spawn(command)
    }

    /// Starts a command of the binary.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let (sender, lines) = channel();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        for reader in [Box::new(stdout) as Box<dyn std::io::Read + Send>, Box::new(stderr)] {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(reader).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line that holds all parts.
    pub fn line(&mut self, parts: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if parts.iter().all(|part| line.contains(part)) {
                        return line;
                    }
                }
                Err(_) => panic!("no line with {parts:?} among\n{}", self.seen.join("\n")),
            }
        }
    }

    /// Takes in the lines that are there, into `seen`.
    pub fn drain(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            self.seen.push(line);
        }
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// SIGTERM, and a clean end.
    pub fn stop(mut self) {
        self.signal("-TERM");
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Waymark {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `waymark dev`, and where it serves.
pub struct Dev {
    pub waymark: Waymark,
    pub rest: String,
    pub grpc: String,
}

impl Dev {
    pub fn start(args: &[&str]) -> Self {
        let mut all = vec!["dev", "--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0"];
        all.extend(args);
        let mut waymark = Waymark::start(&all);
        let address = |line: String| line.split_whitespace().nth(1).unwrap().to_owned();
        let rest = address(waymark.line(&["REST", "http://"]));
        let rest = rest.strip_suffix("/v0.1/servers").unwrap().to_owned();
        let grpc = format!("http://{}", address(waymark.line(&["gRPC"])));
        Self { waymark, rest, grpc }
    }
}

/// `waymark registry-api` on a folder, and where it serves.
pub struct Registry {
    pub waymark: Waymark,
    pub rest: String,
    pub grpc: String,
}

impl Registry {
    pub fn start(data: &Path, grpc: &str, more: &[&str]) -> Self {
        Self::spawn(binary(), data, grpc, more)
    }

    /// The same by a command of the binary, which has an environment of its own.
    pub fn spawn(mut command: Command, data: &Path, grpc: &str, more: &[&str]) -> Self {
        let data = data.to_str().unwrap();
        command.args(["registry-api", "--log-format", "json", "--http-addr", "127.0.0.1:0"]);
        command.args(["--grpc-addr", grpc, "--data", data]).args(more);
        let mut waymark = Waymark::spawn(command);
        let line = waymark.line(&["the registry is listening"]);
        let log: Value = serde_json::from_str(&line).expect("a JSON log line");
        let rest = format!("http://{}", log["http"].as_str().unwrap());
        let grpc = log["grpc"].as_str().unwrap();
        let grpc =
            if grpc.starts_with("unix:") { grpc.to_owned() } else { format!("http://{grpc}") };
        Self { waymark, rest, grpc }
    }
}

/// Status, headers and body of a GET; errors are answers too.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

pub fn request(method: &str, url: &str, headers: &[(&str, &str)]) -> Answer {
    send(method, url, headers, Vec::new())
}

/// The same with a body.
pub fn send(method: &str, url: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .timeout_global(Some(PATIENCE))
        .build()
        .into();
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = agent.run(request.body(body).unwrap()).unwrap();
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap();
    Answer { status, headers, body }
}

pub fn get(url: &str) -> Answer {
    request("GET", url, &[])
}

/// Tries until the condition holds.
pub fn eventually<T>(what: &str, mut test: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = test() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// All server names of a list, over all pages.
pub fn names(rest: &str, query: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = get(&format!("{rest}/v0.1/servers?{query}&cursor={cursor}")).json();
        for server in page["servers"].as_array().unwrap() {
            names.push(server["server"]["name"].as_str().unwrap().to_owned());
        }
        match page["metadata"]["nextCursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return names,
        }
    }
}

/// A folder with the examples in it.
pub fn examples() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(EXAMPLES).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = folder.path().to_owned();
    (folder, path)
}

/// A server.json for publishing.
pub fn server(name: &str, version: &str, description: &str) -> Vec<u8> {
    json!({
        "name": name, "description": description, "version": version,
        "remotes": [{"type": "streamable-http", "url": format!("https://{version}.example.com/{name}")}]
    })
    .to_string()
    .into_bytes()
}
