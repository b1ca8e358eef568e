//! What a list asks for, with the limits of the upstream API.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use smol_str::SmolStr;
use waymark_catalogue::version::MAX_VERSION;

use super::served::{Key, Served};

/// Items of a page where no limit is given.
pub const DEFAULT_LIMIT: usize = 30;
/// Most items of a page.
pub const MAX_LIMIT: usize = 100;
/// Most characters of a search.
pub const MAX_SEARCH: usize = 200;
/// Most characters of a cursor: a name and a version of the greatest length.
const MAX_CURSOR: usize = 2048;

/// Which versions a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum VersionFilter {
    /// All.
    #[default]
    All,
    /// Only the newest of each server.
    Latest,
    /// Only this one.
    Exact(SmolStr),
}

/// What a list asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Most items of the page: 1 to [`MAX_LIMIT`].
    pub limit: usize,
    /// Where the page before ended.
    pub after: Option<Key>,
    /// Substring of name, title or description, in lower case.
    pub search: Option<String>,
    /// Only what changed at or after this time.
    pub updated_since: Option<Timestamp>,
    /// Which versions.
    pub version: VersionFilter,
    /// Whether deleted ones are shown.
    pub include_deleted: bool,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            limit: DEFAULT_LIMIT,
            after: None,
            search: None,
            updated_since: None,
            version: VersionFilter::All,
            include_deleted: false,
        }
    }
}

/// A query that cannot be answered: one sentence that names the parameter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Out of bounds, or no number.
    #[error("limit must be a number from 1 to {MAX_LIMIT}")]
    Limit,
    /// Not one that this API returned.
    #[error("cursor is not one that this API returned; start again without it")]
    Cursor,
    /// Too long.
    #[error("search has more than {MAX_SEARCH} characters")]
    Search,
    /// Not RFC 3339.
    #[error("updated_since must be an RFC 3339 time, for example 2025-08-07T13:15:04.280Z")]
    UpdatedSince,
    /// Too long.
    #[error("version has more than {MAX_VERSION} characters")]
    Version,
    /// Neither true nor false.
    #[error("include_deleted must be true or false")]
    IncludeDeleted,
    /// Contradicts `updated_since` (upstream's rule).
    #[error("include_deleted=false cannot go with updated_since, which includes deleted servers")]
    Contradiction,
}

/// One page.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The servers, ordered by name and version.
    pub items: Vec<Arc<Served>>,
    /// Where the next page starts; `None` where this is the last one.
    pub next: Option<Cursor>,
}

/// An opaque position in a list: the key of the last item of a page. It stays good when the
/// catalogue changes: the next page starts at the first key after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub Key);

impl Cursor {
    /// The text that clients get.
    #[must_use]
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}\n{}", self.0.name, self.0.version))
    }

    /// Reads the text that clients send back.
    ///
    /// # Errors
    /// Where it is none that [`Self::encode`] made.
    pub fn decode(text: &str) -> Result<Self, QueryError> {
        if text.len() > MAX_CURSOR {
            return Err(QueryError::Cursor);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| QueryError::Cursor)?;
        let text = String::from_utf8(bytes).map_err(|_| QueryError::Cursor)?;
        let (name, version) = text.split_once('\n').ok_or(QueryError::Cursor)?;
        Ok(Self(Key { name: name.into(), version: version.into() }))
    }
}

impl Query {
    /// Sets the search; empty for none.
    ///
    /// # Errors
    /// Where it is too long.
    pub fn search(&mut self, text: &str) -> Result<(), QueryError> {
        if text.chars().count() > MAX_SEARCH {
            return Err(QueryError::Search);
        }
        self.search = (!text.is_empty()).then(|| text.to_lowercase());
        Ok(())
    }

    /// Sets the version filter: `latest`, an exact version, or empty for all.
    ///
    /// # Errors
    /// Where it is too long to be a version.
    pub fn version(&mut self, text: &str) -> Result<(), QueryError> {
        if text.chars().count() > MAX_VERSION {
            return Err(QueryError::Version);
        }
        self.version = match text {
            "" => VersionFilter::All,
            "latest" => VersionFilter::Latest,
            exact => VersionFilter::Exact(exact.into()),
        };
        Ok(())
    }

    /// Sets the limit.
    ///
    /// # Errors
    /// Where it is out of bounds.
    pub fn limit(&mut self, limit: usize) -> Result<(), QueryError> {
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(QueryError::Limit);
        }
        self.limit = limit;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_as_they_went() {
        let key = Key { name: "a.b/c".into(), version: "1.0.0+ü,:\n".trim().into() };
        let cursor = Cursor(key);
        assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
        for text in ["", "!", "YQ", &"a".repeat(5000)] {
            assert_eq!(Cursor::decode(text), Err(QueryError::Cursor), "{text:.20}");
        }
    }
}
