//! Query and path parameters.

use jiff::Timestamp;
use waymark_catalogue::ServerName;

use super::error::ApiError;
use crate::catalogue::{Cursor, Query, QueryError};

/// Most bytes of a query string.
const MAX_QUERY: usize = 4096;

/// Reads the parameters of a list. An empty parameter counts as absent, an unknown one is
/// passed over (as upstream does), of a repeated one the first counts.
pub(super) fn list(raw: &str) -> Result<Query, ApiError> {
    let raw = bounded(Some(raw))?;
    let get = |key: &str| {
        let mut pairs = url::form_urlencoded::parse(raw.as_bytes());
        pairs.find(|(name, _)| name == key).map(|(_, value)| value).filter(|v| !v.is_empty())
    };
    let mut query = Query::default();
    if let Some(limit) = get("limit") {
        query.limit(limit.parse().map_err(|_| QueryError::Limit)?)?;
    }
    if let Some(cursor) = get("cursor") {
        query.after = Some(Cursor::decode(&cursor)?.0);
    }
    if let Some(search) = get("search") {
        query.search(&search)?;
    }
    if let Some(version) = get("version") {
        query.version(&version)?;
    }
    let include_deleted = get("include_deleted").map(|v| boolean(&v)).transpose()?;
    if let Some(since) = get("updated_since") {
        let since: Timestamp = since.parse().map_err(|_| QueryError::UpdatedSince)?;
        query.updated_since = Some(since);
        if include_deleted == Some(false) {
            return Err(QueryError::Contradiction.into());
        }
    }
    query.include_deleted = include_deleted.unwrap_or_default();
    Ok(query)
}

/// Reads `include_deleted`.
pub(super) fn include_deleted(raw: Option<&str>) -> Result<bool, ApiError> {
    let raw = bounded(raw)?;
    let mut pairs = url::form_urlencoded::parse(raw.as_bytes());
    match pairs.find(|(name, _)| name == "include_deleted") {
        Some((_, value)) if !value.is_empty() => Ok(boolean(&value)?),
        _ => Ok(false),
    }
}

fn bounded(raw: Option<&str>) -> Result<&str, ApiError> {
    let raw = raw.unwrap_or_default();
    if raw.len() > MAX_QUERY {
        let sentence = format!("The query string has more than {MAX_QUERY} bytes");
        return Err(ApiError::BadRequest(sentence));
    }
    Ok(raw)
}

/// What upstream's parser takes for a boolean.
fn boolean(text: &str) -> Result<bool, QueryError> {
    match text {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Ok(true),
        "false" | "0" | "f" | "F" | "FALSE" | "False" => Ok(false),
        _ => Err(QueryError::IncludeDeleted),
    }
}

/// Checks a server name from a path.
pub(super) fn server_name(text: &str) -> Result<(), ApiError> {
    match ServerName::parse(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(ApiError::BadRequest(format!(
            "The server name in the path cannot be used: {error}; write its slash as %2F"
        ))),
    }
}
