//! The store suite: what every store must do, run over each of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../../tests/common/postgres.rs"]
mod postgres;

use std::collections::BTreeMap;
use std::future::Future;

use jiff::Timestamp;
use waymark_catalogue::meta::{Official, Status};
use waymark_registry_api::catalogue::Key;
use waymark_registry_api::config::Database;
use waymark_registry_api::store::{
    Batch, ContributionChange, Owner, PostgresStore, RegistryBatch, SqliteStore, Store, Stored,
    StoredEntry, StoredRegistry, Transaction,
};

fn entry(name: &str, version: &str, revision: u64) -> StoredEntry {
    let time = |n: i64| Timestamp::from_microsecond(1_700_000_000_123_456 + n).unwrap();
    StoredEntry {
        key: Key { name: name.into(), version: version.into() },
        server: format!("{{\"name\":\"{name}\",\"title\":\"ü 🚀 'quoted'\"}}"),
        official: Official {
            status: Status::Deprecated,
            status_changed_at: time(1),
            status_message: Some("why; -- not".into()),
            published_at: time(2),
            updated_at: time(3),
            is_latest: true,
        },
        stale: revision % 2 == 1,
        revision,
    }
}

fn contribution(id: &str, entry: Option<&[u8]>) -> ContributionChange {
    ContributionChange { source: "c/p".into(), id: id.into(), entry: entry.map(<[u8]>::to_vec) }
}

fn sorted(mut stored: Stored) -> Stored {
    // A number of its own in a store that several share.
    stored.sequence = 0;
    for registry in stored.registries.values_mut() {
        registry.entries.sort_by(|a, b| a.key.cmp(&b.key));
    }
    stored.contributions.sort();
    stored
}

async fn write<S: Store>(store: &S, batch: &Batch) {
    let sequence = store.load().await.unwrap().sequence;
    let (transaction, foreign) = store.begin(sequence).await.unwrap();
    assert!(foreign.contributions.is_empty() && !foreign.reset, "{foreign:?}");
    transaction.commit(batch).await.unwrap();
}

/// `open` opens the same store each time.
async fn suite<S: Store, F: Future<Output = S>>(open: impl Fn() -> F) {
    let store = open().await;
    let empty = store.load().await.unwrap();
    assert!(!empty.epoch.is_empty());
    assert_eq!(sorted(empty.clone()), Stored { epoch: empty.epoch.clone(), ..Stored::default() });

    // The same name and version in another registry is another entry.
    let team = RegistryBatch {
        entries: vec![entry("a.b/c", "1.0.0", 9)],
        revision: 9,
        ..RegistryBatch::default()
    };
    let batch = Batch {
        contributions: vec![contribution("1", Some(b"\0one")), contribution("2", Some(b"two"))],
        registries: BTreeMap::from([
            (
                "default".to_owned(),
                RegistryBatch {
                    entries: vec![
                        entry("a.b/c", "1.0.0", 1),
                        entry("a.b/c", "2.0.0", 2),
                        entry("a.b/d", "1", 3),
                    ],
                    purged: vec![],
                    revision: 3,
                    compacted: 0,
                },
            ),
            ("team".to_owned(), team.clone()),
            ("gone".to_owned(), team.clone()),
        ]),
        dropped: vec!["never there".into()],
        owners: vec![],
    };
    write(&store, &batch).await;
    let changes = Batch {
        // The last word counts, also within one batch.
        contributions: vec![
            contribution("1", Some(b"other")),
            contribution("2", None),
            contribution("3", Some(b"three")),
            contribution("3", None),
            contribution("never there", None),
        ],
        registries: BTreeMap::from([(
            "default".to_owned(),
            RegistryBatch {
                entries: vec![StoredEntry { stale: false, ..entry("a.b/c", "1.0.0", 4) }],
                purged: vec![Key { name: "a.b/d".into(), version: "1".into() }],
                revision: 4,
                compacted: 3,
            },
        )]),
        dropped: vec!["gone".into()],
        owners: vec![],
    };
    write(&store, &changes).await;
    drop(store);

    let expected = Stored {
        epoch: empty.epoch,
        registries: BTreeMap::from([
            (
                "default".to_owned(),
                StoredRegistry {
                    revision: 4,
                    compacted: 3,
                    entries: vec![
                        StoredEntry { stale: false, ..entry("a.b/c", "1.0.0", 4) },
                        entry("a.b/c", "2.0.0", 2),
                    ],
                },
            ),
            (
                "team".to_owned(),
                StoredRegistry { revision: 9, compacted: 0, entries: team.entries },
            ),
        ]),
        contributions: vec![("c/p".into(), "1".into(), b"other".to_vec())],
        ..Stored::default()
    };
    assert_eq!(sorted(open().await.load().await.unwrap()), expected);
}

#[tokio::test]
async fn sqlite_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/by/it");
    suite(|| async { SqliteStore::open(&path).await.unwrap() }).await;
}

#[tokio::test]
async fn sqlite_in_memory_is_gone_when_it_is_closed() {
    let store = SqliteStore::in_memory().await.unwrap();
    let batch = Batch { contributions: vec![contribution("1", Some(b"x"))], ..Batch::default() };
    write(&store, &batch).await;
    assert_eq!(store.load().await.unwrap().contributions.len(), 1);
    drop(store);
    let other = SqliteStore::in_memory().await.unwrap();
    assert!(other.load().await.unwrap().contributions.is_empty());
}

#[tokio::test]
async fn an_older_database_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("waymark.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    // As the first version left it: one registry, without a name.
    let all = sqlx::migrate!("./migrations/sqlite");
    let first = sqlx::migrate::Migrator {
        migrations: all.migrations.iter().take(1).cloned().collect::<Vec<_>>().into(),
        ..sqlx::migrate::Migrator::DEFAULT
    };
    first.run(&pool).await.unwrap();
    for statement in [
        "INSERT INTO facts VALUES ('epoch', 'e'), ('revision', '7'), ('compacted', '3')",
        "INSERT INTO contributions VALUES ('c/p', '1', x'00')",
        "INSERT INTO entries VALUES ('a.b/c', '1.0.0', '{}', 'active', 1, NULL, 2, 3, 1, 0, 7)",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    pool.close().await;
    let stored = SqliteStore::open(folder.path()).await.unwrap().load().await.unwrap();
    assert_eq!(stored.epoch, "e");
    assert_eq!(stored.contributions, [("c/p".to_owned(), "1".to_owned(), vec![0])]);
    let registry = &stored.registries["default"];
    assert_eq!((registry.revision, registry.compacted, registry.entries.len()), (7, 3, 1));
    let entry = &registry.entries[0];
    assert_eq!((entry.key.name.as_str(), entry.official.updated_at.as_microsecond()), ("a.b/c", 3));
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "no database").unwrap();
    assert!(SqliteStore::open(&file).await.is_err());
    std::fs::create_dir(folder.path().join("data")).unwrap();
    std::fs::write(folder.path().join("data/waymark.db"), "no database at all, but text").unwrap();
    assert!(SqliteStore::open(&folder.path().join("data")).await.is_err());
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn postgresql() {
    let server = postgres::Postgres::start();
    suite(|| async { PostgresStore::connect(&Database::Url(server.url())).await.unwrap() }).await;
}

/// The next wake-up that is not only the poll.
async fn heard(store: &PostgresStore, seen: u64) -> u64 {
    loop {
        store.changed().await.unwrap();
        let foreign = store.foreign(seen).await.unwrap();
        if foreign.sequence != seen {
            return foreign.sequence;
        }
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn replicas_hear_of_each_other_and_take_turns() {
    let server = postgres::Postgres::start();
    let (a, b) = (
        PostgresStore::connect(&Database::Url(server.url())).await.unwrap(),
        PostgresStore::connect(&Database::Url(server.url())).await.unwrap(),
    );
    assert_eq!(a.load().await.unwrap().epoch, b.load().await.unwrap().epoch);
    let seen = Timestamp::from_microsecond(1_700_000_000_123_456).unwrap();
    let batch = Batch {
        contributions: vec![contribution("1", Some(b"one"))],
        registries: BTreeMap::from([(
            "default".to_owned(),
            RegistryBatch {
                entries: vec![entry("a.b/c", "1.0.0", 1)],
                revision: 1,
                ..RegistryBatch::default()
            },
        )]),
        owners: vec![Owner { source: "c/p".into(), owner: "a".into(), seen }],
        ..Batch::default()
    };
    write(&a, &batch).await;
    assert_eq!(heard(&b, 0).await, 1);
    let foreign = b.foreign(0).await.unwrap();
    assert_eq!(foreign.contributions, batch.contributions);
    assert_eq!(foreign.owners, batch.owners);
    assert_eq!(foreign.registries["default"].entries, batch.registries["default"].entries);
    assert!(!foreign.reset);
    // Nothing is told twice; what is gone is told as gone.
    assert_eq!(b.foreign(1).await.unwrap().contributions, []);
    let gone = Batch { contributions: vec![contribution("1", None)], ..Batch::default() };
    write(&b, &gone).await;
    assert_eq!(a.foreign(1).await.unwrap().contributions, gone.contributions);
    assert_eq!(a.load().await.unwrap().contributions, []);
    // Who begins second waits, and then sees what the first wrote; one that ends without a commit
    // has written nothing.
    let (first, _) = a.begin(2).await.unwrap();
    let second = tokio::spawn({
        let b = b.clone();
        async move { b.begin(2).await.unwrap() }
    });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(!second.is_finished());
    assert_eq!(first.commit(&batch).await.unwrap(), 3);
    let (second, foreign) = second.await.unwrap();
    assert_eq!((foreign.sequence, foreign.contributions.len()), (3, 1));
    drop(second);
    assert_eq!(a.foreign(3).await.unwrap().sequence, 3);
    // A number that this database has not reached yet is of another state of it.
    assert!(a.foreign(99).await.unwrap().reset);
}
