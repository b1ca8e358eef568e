//! One version of one server as it is served, its JSON made once.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use memchr::memmem;
use serde_json::Value;
use smol_str::SmolStr;
use waymark_catalogue::meta::{OFFICIAL, Official, Status};

/// Name and version: the order of lists, both as text (the upstream API's order).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Server name.
    pub name: SmolStr,
    /// Version.
    pub version: SmolStr,
}

/// One version of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Name and version.
    pub key: Key,
    /// What the registry knows of it.
    pub official: Official,
    /// Revision at which it last changed in any respect.
    pub revision: u64,
    /// Whether its publisher has been away for too long.
    pub stale: bool,
    /// The upstream API's `{"server": …, "_meta": …}`, ready to be sent.
    pub json: Bytes,
    /// Whether it runs in a cluster: its ToolHive extension says as what.
    pub deployed: bool,
    /// Where in `json` the server.json document ends.
    server_end: usize,
    /// Name, title and description in lower case, for searching.
    search: Box<str>,
    /// Fingerprint of `json`.
    pub digest: u64,
}

const HEAD: &str = "{\"server\":";

impl Served {
    /// Makes the JSON of an entry. `server` is its server.json document as compact JSON.
    #[must_use]
    pub fn new(key: Key, server: &str, official: Official, revision: u64, stale: bool) -> Self {
        let mut json = String::with_capacity(server.len() + 384);
        json.push_str(HEAD);
        json.push_str(server);
        let server_end = json.len();
        json.push_str(",\"_meta\":{\"");
        json.push_str(OFFICIAL);
        json.push_str("\":");
        // A struct of plain fields always serializes.
        json.push_str(&serde_json::to_string(&official).unwrap_or_default());
        json.push_str("}}");
        let mut hasher = DefaultHasher::new();
        json.hash(&mut hasher);
        Self {
            search: searchable(&key.name, server),
            key,
            official,
            revision,
            stale,
            // Within a text the quotes would be escaped.
            deployed: memmem::find(server.as_bytes(), b"\"kubernetes\":{").is_some(),
            json: Bytes::from(json),
            server_end,
            digest: hasher.finish(),
        }
    }

    /// The server.json document, sharing the memory of `json`.
    #[must_use]
    pub fn server(&self) -> Bytes {
        self.json.slice(HEAD.len()..self.server_end)
    }

    /// The server.json document as text.
    #[must_use]
    pub fn server_text(&self) -> &str {
        self.json
            .get(HEAD.len()..self.server_end)
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }

    /// Whether it is withdrawn.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.official.status == Status::Deleted
    }

    /// Name, title and description in lower case, a line each.
    pub(super) fn search_text(&self) -> &[u8] {
        self.search.as_bytes()
    }
}

fn searchable(name: &str, server: &str) -> Box<str> {
    #[derive(serde::Deserialize)]
    struct Texts {
        #[serde(default)]
        title: Value,
        #[serde(default)]
        description: Value,
    }
    let texts: Option<Texts> = serde_json::from_str(server).ok();
    let mut search = name.to_lowercase();
    for text in texts.iter().flat_map(|t| [&t.title, &t.description]).filter_map(Value::as_str) {
        search.push('\n');
        search.push_str(&text.to_lowercase());
    }
    search.into()
}
