//! The catalogue in one SQLite file, or in memory.

use std::collections::BTreeMap;
use std::path::Path;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Row, Sqlite, Transaction};
use uuid::Uuid;

use super::row::ServedRow;
use super::{Batch, Foreign, RegistryBatch, Store, StoreError, Stored, StoredRegistry};

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

/// The right to write: there is one writer only.
#[derive(Debug)]
pub struct SqliteTransaction(SqliteStore);

impl Store for SqliteStore {
    const SHARED: bool = false;
    type Transaction = SqliteTransaction;

    async fn begin(&self, _: u64) -> Result<(SqliteTransaction, Foreign), StoreError> {
        Ok((SqliteTransaction(self.clone()), Foreign::default()))
    }

    async fn foreign(&self, _: u64) -> Result<Foreign, StoreError> {
        Ok(Foreign::default())
    }

    async fn changed(&self) -> Result<(), StoreError> {
        std::future::pending().await
    }

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
        let mut registries: BTreeMap<String, StoredRegistry> = BTreeMap::new();
        let rows = sqlx::query("SELECT name, revision, compacted FROM registries");
        for row in rows.fetch_all(&self.pool).await? {
            let name: String = row.get(0);
            let stored = StoredRegistry {
                revision: number(&row, 1, &name)?,
                compacted: number(&row, 2, &name)?,
                entries: Vec::new(),
            };
            registries.insert(name, stored);
        }
        let rows: Vec<ServedRow> =
            sqlx::query_as("SELECT * FROM served").fetch_all(&self.pool).await?;
        for row in rows {
            registries.entry(row.registry.clone()).or_default().entries.push(row.entry()?);
        }
        let contributions = sqlx::query("SELECT source, id, entry FROM contributions");
        let contributions = contributions.fetch_all(&self.pool).await?;
        let contribution = |row: &SqliteRow| (row.get(0), row.get(1), row.get(2));
        Ok(Stored {
            epoch,
            registries,
            contributions: contributions.iter().map(contribution).collect(),
            ..Stored::default()
        })
    }
}

impl super::Transaction for SqliteTransaction {
    async fn commit(self, batch: &Batch) -> Result<u64, StoreError> {
        let mut transaction = self.0.pool.begin().await?;
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
        for registry in &batch.dropped {
            for table in
                ["DELETE FROM served WHERE registry = ?", "DELETE FROM registries WHERE name = ?"]
            {
                sqlx::query(table).bind(registry).execute(&mut *transaction).await?;
            }
        }
        for (registry, changes) in &batch.registries {
            write(&mut transaction, registry, changes).await?;
        }
        transaction.commit().await?;
        Ok(0)
    }
}

/// Writes what changes in one registry.
async fn write(
    transaction: &mut Transaction<'_, Sqlite>,
    registry: &str,
    changes: &RegistryBatch,
) -> Result<(), sqlx::Error> {
    for entry in &changes.entries {
        let official = &entry.official;
        sqlx::query(
            "INSERT INTO served (registry, name, version, server, status, status_changed_at, \
             status_message, published_at, updated_at, is_latest, stale, revision) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (registry, name, version) DO UPDATE SET server = excluded.server, \
             status = excluded.status, status_changed_at = excluded.status_changed_at, \
             status_message = excluded.status_message, published_at = excluded.published_at, \
             updated_at = excluded.updated_at, is_latest = excluded.is_latest, \
             stale = excluded.stale, revision = excluded.revision",
        )
        .bind(registry)
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
        .execute(&mut **transaction)
        .await?;
    }
    for key in &changes.purged {
        sqlx::query("DELETE FROM served WHERE registry = ? AND name = ? AND version = ?")
            .bind(registry)
            .bind(key.name.as_str())
            .bind(key.version.as_str())
            .execute(&mut **transaction)
            .await?;
    }
    sqlx::query(
        "INSERT INTO registries (name, revision, compacted) VALUES (?, ?, ?) ON CONFLICT (name) \
         DO UPDATE SET revision = excluded.revision, compacted = excluded.compacted",
    )
    .bind(registry)
    .bind(i64::try_from(changes.revision).unwrap_or(i64::MAX))
    .bind(i64::try_from(changes.compacted).unwrap_or(i64::MAX))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

fn number(row: &SqliteRow, column: usize, registry: &str) -> Result<u64, StoreError> {
    let corrupt = |_| StoreError::Corrupt { what: "a registry's revision", name: registry.into() };
    u64::try_from(row.get::<i64, _>(column)).map_err(corrupt)
}
