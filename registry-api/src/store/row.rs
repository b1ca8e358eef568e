//! One row of what is served, the same in every database.

use jiff::Timestamp;
use sqlx::FromRow;
use waymark_catalogue::meta::{Official, Status};

use super::{StoreError, StoredEntry};
use crate::catalogue::Key;

/// A row of the table `served`. Times in microseconds since 1970.
#[derive(Debug, FromRow)]
pub(super) struct ServedRow {
    pub(super) registry: String,
    name: String,
    version: String,
    server: String,
    status: String,
    status_changed_at: i64,
    status_message: Option<String>,
    published_at: i64,
    updated_at: i64,
    is_latest: bool,
    stale: bool,
    revision: i64,
}

impl ServedRow {
    pub(super) fn entry(self) -> Result<StoredEntry, StoreError> {
        let corrupt = || StoreError::Corrupt { what: "an entry", name: self.name.clone() };
        let time = |microseconds| Timestamp::from_microsecond(microseconds).map_err(|_| corrupt());
        Ok(StoredEntry {
            official: Official {
                status: Status::parse(&self.status).ok_or_else(corrupt)?,
                status_changed_at: time(self.status_changed_at)?,
                status_message: self.status_message.clone(),
                published_at: time(self.published_at)?,
                updated_at: time(self.updated_at)?,
                is_latest: self.is_latest,
            },
            stale: self.stale,
            revision: u64::try_from(self.revision).map_err(|_| corrupt())?,
            key: Key { name: self.name.as_str().into(), version: self.version.into() },
            server: self.server,
        })
    }
}
