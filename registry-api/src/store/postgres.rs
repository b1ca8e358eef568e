//! The catalogue in PostgreSQL, shared by several replicas.
//!
//! Writers take turns: who begins to write locks one row, reads what others have committed since,
//! and commits under the next sequence number. Everybody is notified (LISTEN/NOTIFY), and catches up
//! by that number, so that a lost notification costs some seconds and nothing else.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions, PgRow, PgSslMode};
use sqlx::{Connection, PgConnection, Postgres, Row};
use tokio::sync::Notify;
use uuid::Uuid;
use waymark_catalogue::meta::Official;

use super::row::ServedRow;
use super::{
    Batch, ContributionChange, Foreign, Owner, RegistryBatch, Store, StoreError, Stored,
    StoredEntry, StoredRegistry, Transaction,
};
use crate::catalogue::Key;
use crate::config::Database;

const CHANNEL: &str = "waymark";
const CONNECTIONS: u32 = 4;
const ACQUIRE: Duration = Duration::from_secs(5);
/// How often it is looked for what others wrote, where no notification comes.
const POLL: Duration = Duration::from_secs(3);
/// How many commits back a replica can catch up.
const KEPT: u64 = 100_000;
/// Rows of one statement.
const ROWS: usize = 5_000;

/// A database, with a pool of connections and a listener of its own.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pool: PgPool,
    wake: Arc<Wake>,
}

#[derive(Debug, Default)]
struct Wake {
    notify: Notify,
    /// Why the listener does not hear anything.
    error: Mutex<Option<String>>,
}

impl Wake {
    fn set(&self, error: Option<String>) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
        self.notify.notify_one();
    }
}

/// Begun to write: nobody else does until it ends.
#[derive(Debug)]
pub struct PostgresTransaction {
    transaction: sqlx::Transaction<'static, Postgres>,
    sequence: u64,
}

fn number(row: &PgRow, column: &str) -> Result<u64, StoreError> {
    let corrupt = |_| StoreError::Corrupt { what: "a number", name: column.to_owned() };
    u64::try_from(row.get::<i64, _>(column)).map_err(corrupt)
}

fn big(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl PostgresStore {
    /// Connects, and makes the tables or brings them up to date. Where no password is given, that of
    /// PGPASSWORD or of the password file (PGPASSFILE, ~/.pgpass) is used.
    ///
    /// # Errors
    /// Where the database cannot be reached or its tables cannot be brought up to date.
    pub async fn connect(database: &Database) -> Result<Self, StoreError> {
        let options = options(database)?.application_name("waymark");
        // By itself once: a pool would only say that it waited for too long.
        PgConnection::connect_with(&options).await?.close().await?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE)
            .connect_with(options)
            .await?;
        sqlx::migrate!("./migrations/postgres").run(&pool).await?;
        let epoch = Uuid::new_v4().simple().to_string();
        sqlx::query("INSERT INTO facts (key, value) VALUES ('epoch', $1) ON CONFLICT DO NOTHING")
            .bind(epoch)
            .execute(&pool)
            .await?;
        let wake = Arc::new(Wake::default());
        tokio::spawn(listen(pool.clone(), Arc::downgrade(&wake)));
        Ok(Self { pool, wake })
    }
}

fn options(database: &Database) -> Result<PgConnectOptions, StoreError> {
    let unusable = |what: String| StoreError::Unreachable(what);
    match database {
        Database::Url(url)
            if !url.starts_with("postgres://") && !url.starts_with("postgresql://") =>
        {
            Err(unusable("its URL is none of PostgreSQL: postgres://user@host/database".to_owned()))
        }
        Database::Url(url) => {
            // The error of a URL may quote it, with its password.
            PgConnectOptions::from_str(url)
                .map_err(|_| unusable("its URL is none of PostgreSQL".to_owned()))
        }
        Database::Parts(parts) => {
            let mut options = PgConnectOptions::new()
                .host(&parts.host)
                .port(parts.port)
                .username(&parts.user)
                .database(&parts.database);
            if let Some(file) = &parts.password_file {
                let read = std::fs::read_to_string(file);
                let password =
                    read.map_err(|e| unusable(format!("cannot read {}: {e}", file.display())))?;
                options = options.password(password.trim_end_matches(['\r', '\n']));
            } else if let Some(password) = &parts.password {
                options = options.password(password);
            }
            if let Some(mode) = &parts.ssl_mode {
                let mode = PgSslMode::from_str(mode);
                options = options.ssl_mode(mode.map_err(|e| unusable(e.to_string()))?);
            }
            Ok(options)
        }
    }
}

/// Wakes the store at every notification, and now and then without one, for as long as it lives.
async fn listen(pool: PgPool, wake: std::sync::Weak<Wake>) {
    loop {
        let mut listener = match PgListener::connect_with(&pool).await {
            Ok(listener) => listener,
            Err(error) => {
                let Some(wake) = wake.upgrade() else { return };
                wake.set(Some(error.to_string()));
                drop(wake);
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        if let Err(error) = listener.listen(CHANNEL).await {
            let Some(wake) = wake.upgrade() else { return };
            wake.set(Some(error.to_string()));
            continue;
        }
        loop {
            // `None` is a connection that was lost and made anew: something may have been missed.
            let heard = tokio::time::timeout(POLL, listener.try_recv()).await;
            let Some(wake) = wake.upgrade() else { return };
            match heard {
                Ok(Err(error)) => {
                    wake.set(Some(error.to_string()));
                    break;
                }
                Ok(Ok(_)) | Err(_) => wake.set(None),
            }
        }
    }
}

async fn fact(connection: &mut PgConnection, key: &str) -> Result<String, StoreError> {
    let row = sqlx::query("SELECT value FROM facts WHERE key = $1").bind(key);
    let row = row.fetch_optional(connection).await?;
    let missing = || StoreError::Corrupt { what: "a fact", name: key.to_owned() };
    Ok(row.ok_or_else(missing)?.get(0))
}

fn parsed(text: &str, key: &str) -> Result<u64, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt { what: "a fact", name: key.to_owned() })
}

/// What was committed after a sequence number, up to `sequence`.
async fn since(
    connection: &mut PgConnection,
    since: u64,
    sequence: u64,
) -> Result<Foreign, StoreError> {
    if since == sequence {
        return Ok(Foreign { sequence, ..Foreign::default() });
    }
    let pruned = parsed(&fact(connection, "pruned").await?, "pruned")?;
    // What is too long ago, or of a database that was put back to an earlier state.
    let reset = since < pruned || since > sequence;
    let from = if reset { -1 } else { big(since) };
    let mut foreign = Foreign { sequence, reset, ..Foreign::default() };
    let rows = sqlx::query("SELECT name, revision, compacted FROM registries WHERE sequence > $1");
    for row in rows.bind(from).fetch_all(&mut *connection).await? {
        let registry = StoredRegistry {
            revision: number(&row, "revision")?,
            compacted: number(&row, "compacted")?,
            entries: Vec::new(),
        };
        foreign.registries.insert(row.get("name"), registry);
    }
    let rows = sqlx::query_as("SELECT * FROM served WHERE sequence > $1 ORDER BY revision");
    let rows: Vec<ServedRow> = rows.bind(from).fetch_all(&mut *connection).await?;
    for row in rows {
        let registry = foreign.registries.entry(row.registry.clone()).or_default();
        registry.entries.push(row.entry()?);
    }
    let rows = sqlx::query("SELECT source, id, entry FROM contributions WHERE sequence > $1");
    for row in rows.bind(from).fetch_all(&mut *connection).await? {
        foreign.contributions.push(ContributionChange {
            source: row.get(0),
            id: row.get(1),
            entry: row.get(2),
        });
    }
    let rows = sqlx::query("SELECT source, owner, seen FROM publishers WHERE sequence > $1");
    for row in rows.bind(from).fetch_all(&mut *connection).await? {
        let source: String = row.get(0);
        let corrupt = |_| StoreError::Corrupt { what: "a publisher", name: source.clone() };
        let seen = Timestamp::from_microsecond(row.get(2)).map_err(corrupt)?;
        foreign.owners.push(Owner { source, owner: row.get(1), seen });
    }
    Ok(foreign)
}

impl Store for PostgresStore {
    const SHARED: bool = true;
    type Transaction = PostgresTransaction;

    async fn load(&self) -> Result<Stored, StoreError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            .execute(&mut *transaction)
            .await?;
        let epoch = fact(&mut transaction, "epoch").await?;
        let sequence = parsed(&fact(&mut transaction, "sequence").await?, "sequence")?;
        // Everything: as if the first commit were not seen yet.
        let all = since(&mut transaction, u64::MAX, sequence).await?;
        transaction.rollback().await?;
        let contribution = |c: ContributionChange| Some((c.source, c.id, c.entry?));
        Ok(Stored {
            epoch,
            sequence,
            registries: all.registries,
            contributions: all.contributions.into_iter().filter_map(contribution).collect(),
            owners: all.owners,
        })
    }

    async fn begin(&self, seen: u64) -> Result<(PostgresTransaction, Foreign), StoreError> {
        let mut transaction = self.pool.begin().await?;
        let row = sqlx::query("SELECT value FROM facts WHERE key = 'sequence' FOR UPDATE");
        let text: String = row.fetch_one(&mut *transaction).await?.get(0);
        let sequence = parsed(&text, "sequence")?;
        let foreign = since(&mut transaction, seen, sequence).await?;
        Ok((PostgresTransaction { transaction, sequence }, foreign))
    }

    async fn foreign(&self, seen: u64) -> Result<Foreign, StoreError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            .execute(&mut *transaction)
            .await?;
        let sequence = parsed(&fact(&mut transaction, "sequence").await?, "sequence")?;
        let foreign = since(&mut transaction, seen, sequence).await?;
        transaction.rollback().await?;
        Ok(foreign)
    }

    async fn changed(&self) -> Result<(), StoreError> {
        self.wake.notify.notified().await;
        let error = self.wake.error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        error.map_or(Ok(()), |error| Err(StoreError::Unreachable(error)))
    }
}

impl Transaction for PostgresTransaction {
    async fn commit(mut self, batch: &Batch) -> Result<u64, StoreError> {
        let sequence = self.sequence + 1;
        let connection = &mut *self.transaction;
        contributions(connection, &batch.contributions, sequence).await?;
        for registry in &batch.dropped {
            for statement in
                ["DELETE FROM served WHERE registry = $1", "DELETE FROM registries WHERE name = $1"]
            {
                sqlx::query(statement).bind(registry).execute(&mut *connection).await?;
            }
        }
        for (name, changes) in &batch.registries {
            registry(connection, name, changes, sequence).await?;
        }
        for owner in &batch.owners {
            sqlx::query(
                "INSERT INTO publishers (source, owner, seen, sequence) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (source) DO UPDATE SET owner = excluded.owner, seen = excluded.seen, \
                 sequence = excluded.sequence",
            )
            .bind(&owner.source)
            .bind(&owner.owner)
            .bind(owner.seen.as_microsecond())
            .bind(big(sequence))
            .execute(&mut *connection)
            .await?;
        }
        if sequence.is_multiple_of(KEPT / 10) && sequence > KEPT {
            let pruned = sequence - KEPT;
            sqlx::query("DELETE FROM contributions WHERE entry IS NULL AND sequence <= $1")
                .bind(big(pruned))
                .execute(&mut *connection)
                .await?;
            set(connection, "pruned", pruned).await?;
        }
        set(connection, "sequence", sequence).await?;
        sqlx::query("SELECT pg_notify($1, $2)")
            .bind(CHANNEL)
            .bind(sequence.to_string())
            .execute(&mut *connection)
            .await?;
        self.transaction.commit().await?;
        Ok(sequence)
    }
}

async fn set(connection: &mut PgConnection, key: &str, value: u64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE facts SET value = $2 WHERE key = $1")
        .bind(key)
        .bind(value.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

async fn contributions(
    connection: &mut PgConnection,
    changes: &[ContributionChange],
    sequence: u64,
) -> Result<(), sqlx::Error> {
    // The last word counts; one statement cannot touch a row twice.
    let last: BTreeMap<(&str, &str), Option<&[u8]>> =
        changes.iter().map(|c| ((&*c.source, &*c.id), c.entry.as_deref())).collect();
    let rows: Vec<_> = last.into_iter().collect();
    for rows in rows.chunks(ROWS) {
        let sources: Vec<&str> = rows.iter().map(|((source, _), _)| *source).collect();
        let ids: Vec<&str> = rows.iter().map(|((_, id), _)| *id).collect();
        let entries: Vec<Option<&[u8]>> = rows.iter().map(|(_, entry)| *entry).collect();
        sqlx::query(
            "INSERT INTO contributions (source, id, entry, sequence) \
             SELECT *, $4 FROM UNNEST($1::text[], $2::text[], $3::bytea[]) \
             ON CONFLICT (source, id) DO UPDATE SET entry = excluded.entry, \
             sequence = excluded.sequence",
        )
        .bind(sources)
        .bind(ids)
        .bind(entries)
        .bind(big(sequence))
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Writes what changes in one registry.
async fn registry(
    connection: &mut PgConnection,
    name: &str,
    changes: &RegistryBatch,
    sequence: u64,
) -> Result<(), sqlx::Error> {
    let last: BTreeMap<&Key, &StoredEntry> = changes.entries.iter().map(|e| (&e.key, e)).collect();
    let rows: Vec<&StoredEntry> = last.into_values().collect();
    for rows in rows.chunks(ROWS) {
        let times = |time: fn(&Official) -> Timestamp| -> Vec<i64> {
            rows.iter().map(|row| time(&row.official).as_microsecond()).collect()
        };
        sqlx::query(
            "INSERT INTO served (registry, name, version, server, status, status_changed_at, \
             status_message, published_at, updated_at, is_latest, stale, revision, sequence) \
             SELECT $1, *, $13 FROM UNNEST($2::text[], $3::text[], $4::text[], $5::text[], \
             $6::bigint[], $7::text[], $8::bigint[], $9::bigint[], $10::bool[], $11::bool[], \
             $12::bigint[]) \
             ON CONFLICT (registry, name, version) DO UPDATE SET server = excluded.server, \
             status = excluded.status, status_changed_at = excluded.status_changed_at, \
             status_message = excluded.status_message, published_at = excluded.published_at, \
             updated_at = excluded.updated_at, is_latest = excluded.is_latest, \
             stale = excluded.stale, revision = excluded.revision, sequence = excluded.sequence",
        )
        .bind(name)
        .bind(rows.iter().map(|row| row.key.name.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.key.version.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.server.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.official.status.as_str()).collect::<Vec<_>>())
        .bind(times(|official| official.status_changed_at))
        .bind(rows.iter().map(|row| row.official.status_message.as_deref()).collect::<Vec<_>>())
        .bind(times(|official| official.published_at))
        .bind(times(|official| official.updated_at))
        .bind(rows.iter().map(|row| row.official.is_latest).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.stale).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| big(row.revision)).collect::<Vec<_>>())
        .bind(big(sequence))
        .execute(&mut *connection)
        .await?;
    }
    for key in &changes.purged {
        sqlx::query("DELETE FROM served WHERE registry = $1 AND name = $2 AND version = $3")
            .bind(name)
            .bind(key.name.as_str())
            .bind(key.version.as_str())
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query(
        "INSERT INTO registries (name, revision, compacted, sequence) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (name) DO UPDATE SET revision = excluded.revision, \
         compacted = excluded.compacted, sequence = excluded.sequence",
    )
    .bind(name)
    .bind(big(changes.revision))
    .bind(big(changes.compacted))
    .bind(big(sequence))
    .execute(connection)
    .await?;
    Ok(())
}
