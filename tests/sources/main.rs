//! Sources of a catalogue, from real servers on this machine, with every fault.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;
mod git;
mod registry;
mod url;
#[path = "../common/web.rs"]
mod web;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use common::{PATIENCE, Registry, eventually, get};

/// A catalogue in the upstream format, of servers by name.
fn catalogue(names: &[&str]) -> String {
    let server = |name: &&str| {
        json!({"name": name, "description": "d", "version": "1.0.0",
            "remotes": [{"type": "streamable-http", "url": "https://x.example.com/mcp"}]})
    };
    json!({"servers": names.iter().map(server).collect::<Vec<_>>()}).to_string()
}

/// A registry of one source, `s`, given as it stands in a configuration file.
struct Process {
    folder: tempfile::TempDir,
    registry: Registry,
}

fn write_config(folder: &Path, source: &Value) -> PathBuf {
    let mut source = source.clone();
    source["name"] = json!("s");
    let config =
        json!({"sources": [source], "registries": [{"name": "default", "sources": ["s"]}]});
    let path = folder.join("registry.yaml");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

impl Process {
    fn start(source: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = write_config(folder.path(), source);
        let args = ["--config", config.to_str().unwrap()];
        let registry = Registry::start(&folder.path().join("data"), "127.0.0.1:0", &args);
        Self { folder, registry }
    }

    fn restart(self) -> Self {
        let Self { folder, registry } = self;
        registry.waymark.stop();
        let config = folder.path().join("registry.yaml");
        let args = ["--config", config.to_str().unwrap()];
        let registry = Registry::start(&folder.path().join("data"), "127.0.0.1:0", &args);
        Self { folder, registry }
    }

    fn names(&self) -> Vec<String> {
        common::names(&self.registry.rest, "")
    }

    fn serves(&self, names: &[&str]) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while self.names() != names {
            assert!(
                std::time::Instant::now() < deadline,
                "{:?} is served, not {names:?}; the source is {}",
                self.names(),
                self.status()
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// What `/v1/sources` says of the source.
    fn status(&self) -> Value {
        get(&format!("{}/v1/sources", self.registry.rest)).json()["sources"][0].clone()
    }

    /// Waits until the source fails for a reason, with a message that holds a text.
    fn fails(&self, reason: &str, says: &str) {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            let sync = &status["syncStatus"];
            if sync["phase"] == "failed"
                && sync["reason"] == reason
                && sync["message"].as_str().unwrap().contains(says)
            {
                return;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "the source does not fail with {reason} {says:?}: {status:#}"
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn recovers(&self) {
        eventually("the source's recovery", || {
            (self.status()["syncStatus"]["phase"] == "complete").then_some(())
        });
    }
}

/// How often sources are read in these tests.
fn often() -> Value {
    json!({"interval": "1s", "retryPolicy": {"backoffInterval": "1s", "backoffMultiplier": "1"}})
}
