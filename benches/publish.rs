//! gRPC publish: entries per second until they are durable. `cargo xtask bench publish`.
//!
//! Baseline: the store alone, given the same entries in batches of the same size, without gRPC,
//! validation, merging and acknowledgement.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, missing_docs)]

mod common;

use common::{Registry, publish, server, timed};
use waymark_catalogue::meta::{Official, Status};
use waymark_registry_api::catalogue::Key;
use waymark_registry_api::store::{
    Batch, ContributionChange, RegistryBatch, SqliteStore, Store, StoredEntry, Transaction,
};

const ENTRIES: usize = 100_000;
const BATCH: usize = 4096;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let servers: Vec<Vec<u8>> = (0..ENTRIES).map(|n| server(n).to_string().into_bytes()).collect();
    let bytes: usize = servers.iter().map(Vec::len).sum();
    println!("publish: {ENTRIES} entries of {} bytes, SQLite file, synced", bytes / ENTRIES);
    let folder = tempfile::tempdir().unwrap();

    let registry = Registry::start(&folder.path().join("registry"));
    let idle = registry.memory();
    let input = servers.clone();
    let (_, first) = timed(|| runtime.block_on(publish(&registry.grpc, input)));
    let input = servers.clone();
    let (_, again) = timed(|| runtime.block_on(publish(&registry.grpc, input)));
    let per_entry = (registry.memory() - idle) / ENTRIES as u64;
    drop(registry);

    let store = runtime.block_on(SqliteStore::open(&folder.path().join("store"))).unwrap();
    let (_, alone) = timed(|| runtime.block_on(store_alone(&store, &servers)));
    let rate = |time: std::time::Duration| ENTRIES as f64 / time.as_secs_f64();
    println!("  full state, all new      {:>9.0} entries/s", rate(first));
    println!("  full state, nothing new  {:>9.0} entries/s", rate(again));
    println!(
        "  the store alone          {:>9.0} entries/s  (publishing takes {:.2} times as long)",
        rate(alone),
        first.as_secs_f64() / alone.as_secs_f64()
    );
    println!("  memory of the registry   {per_entry:>9} bytes per entry");
}

async fn store_alone(store: &SqliteStore, servers: &[Vec<u8>]) {
    let mut revision = 0;
    for chunk in servers.chunks(BATCH) {
        let (mut batch, mut changes) = (Batch::default(), RegistryBatch::default());
        for server in chunk {
            revision += 1;
            let now = jiff::Timestamp::now();
            let text = String::from_utf8(server.clone()).unwrap();
            let name: serde_json::Value = serde_json::from_slice(server).unwrap();
            let name = name.get("name").and_then(|name| name.as_str()).unwrap();
            batch.contributions.push(ContributionChange {
                source: "bench/bench".into(),
                id: revision.to_string(),
                entry: Some(server.clone()),
            });
            changes.entries.push(StoredEntry {
                key: Key { name: name.into(), version: "1.4.2".into() },
                server: text,
                official: Official {
                    status: Status::Active,
                    status_changed_at: now,
                    status_message: None,
                    published_at: now,
                    updated_at: now,
                    is_latest: true,
                },
                stale: false,
                revision,
            });
        }
        changes.revision = revision;
        batch.registries.insert("default".into(), changes);
        let (transaction, _) = store.begin(0).await.unwrap();
        transaction.commit(&batch).await.unwrap();
    }
}
