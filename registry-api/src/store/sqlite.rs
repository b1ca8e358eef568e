//! The catalogue in one SQLite file, or in memory.

use std::path::Path;

use jiff::Timestamp;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Row, Sqlite, Transaction};
use uuid::Uuid;
use waymark_catalogue::meta::{Official, Status};

use super::{Batch, Store, StoreError, Stored, StoredEntry};
use crate::catalogue::Key;

/// Name of the database file inside the data folder.
const FILE: &str = "waymark.db";

/// SQLite in WAL mode, synced at every commit.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    pool: SqlitePool,
}

impl SqliteStore {
    /// Opens or makes the database in a folder, which is made where it is missing.
    ///
    /// # Errors
    /// Where the folder or file cannot be used, or its tables cannot be brought up to date.
    pub async fn open(folder: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(folder).map_err(sqlx::Error::Io)?;
        let options = SqliteConnectOptions::new()
            .filename(folder.join(FILE))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        Self::connect(options).await
    }

    /// A database that is gone when the process ends.
    ///
    /// # Errors
    /// Where SQLite itself fails.
    pub async fn in_memory() -> Result<Self, StoreError> {
        Self::connect(SqliteConnectOptions::new().in_memory(true)).await
    }

    async fn connect(options: SqliteConnectOptions) -> Result<Self, StoreError> {
        // One connection: there is one writer, and nobody reads but at the start.
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options)
            .await?;
        sqlx::migrate!("./migrations/sqlite").run(&pool).await?;
        Ok(Self { pool })
    }

    async fn fact(&self, key: &str) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT value FROM facts WHERE key = ?").bind(key);
        Ok(row.fetch_optional(&self.pool).await?.map(|row| row.get(0)))
    }

    async fn number(&self, key: &'static str) -> Result<u64, StoreError> {
        match self.fact(key).await? {
            None => Ok(0),
            Some(text) => {
                text.parse().map_err(|_| StoreError::Corrupt { what: "a fact", name: key.into() })
            }
        }
    }
}

async fn set(
    transaction: &mut Transaction<'_, Sqlite>,
    key: &str,
    value: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO facts (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value")
        .bind(key)
        .bind(value)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

impl Store for SqliteStore {
    async fn load(&self) -> Result<Stored, StoreError> {
        let epoch = match self.fact("epoch").await? {
            Some(epoch) => epoch,
            None => {
                let epoch = Uuid::new_v4().simple().to_string();
                let mut transaction = self.pool.begin().await?;
                set(&mut transaction, "epoch", &epoch).await?;
                transaction.commit().await?;
                epoch
            }
        };
        let entries = sqlx::query(
            "SELECT name, version, server, status, status_changed_at, status_message, \
             published_at, updated_at, is_latest, stale, revision FROM entries",
        )
        .fetch_all(&self.pool)
        .await?;
        let contributions = sqlx::query("SELECT source, id, entry FROM contributions");
        let contributions = contributions.fetch_all(&self.pool).await?;
        Ok(Stored {
            epoch,
            revision: self.number("revision").await?,
            compacted: self.number("compacted").await?,
            entries: entries.iter().map(entry).collect::<Result<_, _>>()?,
            contributions: contributions
                .iter()
                .map(|row| (row.get(0), row.get(1), row.get(2)))
                .collect(),
        })
    }

    async fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        for change in &batch.contributions {
            let query = match &change.entry {
                Some(entry) => sqlx::query(
                    "INSERT INTO contributions (source, id, entry) VALUES (?, ?, ?) \
                     ON CONFLICT (source, id) DO UPDATE SET entry = excluded.entry",
                )
                .bind(&change.source)
                .bind(&change.id)
                .bind(entry),
                None => sqlx::query("DELETE FROM contributions WHERE source = ? AND id = ?")
                    .bind(&change.source)
                    .bind(&change.id),
            };
            query.execute(&mut *transaction).await?;
        }
        for entry in &batch.entries {
            let official = &entry.official;
            sqlx::query(
                "INSERT INTO entries (name, version, server, status, status_changed_at, \
                 status_message, published_at, updated_at, is_latest, stale, revision) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
                 ON CONFLICT (name, version) DO UPDATE SET server = excluded.server, \
                 status = excluded.status, status_changed_at = excluded.status_changed_at, \
                 status_message = excluded.status_message, published_at = excluded.published_at, \
                 updated_at = excluded.updated_at, is_latest = excluded.is_latest, \
                 stale = excluded.stale, revision = excluded.revision",
            )
            .bind(entry.key.name.as_str())
            .bind(entry.key.version.as_str())
            .bind(&entry.server)
            .bind(official.status.as_str())
            .bind(official.status_changed_at.as_microsecond())
            .bind(&official.status_message)
            .bind(official.published_at.as_microsecond())
            .bind(official.updated_at.as_microsecond())
            .bind(official.is_latest)
            .bind(entry.stale)
            .bind(i64::try_from(entry.revision).unwrap_or(i64::MAX))
            .execute(&mut *transaction)
            .await?;
        }
        for key in &batch.purged {
            sqlx::query("DELETE FROM entries WHERE name = ? AND version = ?")
                .bind(key.name.as_str())
                .bind(key.version.as_str())
                .execute(&mut *transaction)
                .await?;
        }
        set(&mut transaction, "revision", &batch.revision.to_string()).await?;
        set(&mut transaction, "compacted", &batch.compacted.to_string()).await?;
        transaction.commit().await?;
        Ok(())
    }
}

fn entry(row: &SqliteRow) -> Result<StoredEntry, StoreError> {
    let name: String = row.get("name");
    let corrupt = || StoreError::Corrupt { what: "an entry", name: name.clone() };
    let time = |column: &str| {
        Timestamp::from_microsecond(row.get::<i64, _>(column)).map_err(|_| corrupt())
    };
    Ok(StoredEntry {
        key: Key { name: name.as_str().into(), version: row.get::<String, _>("version").into() },
        server: row.get("server"),
        official: Official {
            status: Status::parse(row.get("status")).ok_or_else(corrupt)?,
            status_changed_at: time("status_changed_at")?,
            status_message: row.get("status_message"),
            published_at: time("published_at")?,
            updated_at: time("updated_at")?,
            is_latest: row.get("is_latest"),
        },
        stale: row.get("stale"),
        revision: u64::try_from(row.get::<i64, _>("revision")).map_err(|_| corrupt())?,
    })
}
