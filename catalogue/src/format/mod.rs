//! The formats in which a catalogue comes and goes.
//!
//! Every format is read into the same [`Catalogue`]: server.json entries, what the file says
//! beside them, and what it holds that is no valid entry. A bad entry never takes down the rest.

mod client_config;
mod native;
mod toolhive;
mod upstream;

use serde_json::{Map, Value};

use crate::meta::Official;
use crate::server::ServerDetail;
use crate::validate::{self, Violation};

pub use client_config::server_config;

/// A catalogue's file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// The upstream API's list: `{"servers": [{"server": …, "_meta": …}], "metadata": …}`.
    Upstream,
    /// ToolHive's `upstream-registry` file: `{"$schema", "version", "meta", "data": {"servers"}}`.
    ToolHive,
    /// ToolHive's older native file: `servers` and `remote_servers` as maps.
    ToolHiveNative,
    /// A client's configuration: `{"mcpServers": {name: {command, args, env} | {type, url}}}`.
    ClientConfig,
}

impl Format {
    /// Every format there is.
    pub const ALL: [Self; 4] =
        [Self::Upstream, Self::ToolHive, Self::ToolHiveNative, Self::ClientConfig];

    /// The name used on the command line and in configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::ToolHive => "toolhive",
            Self::ToolHiveNative => "toolhive-native",
            Self::ClientConfig => "mcp-client",
        }
    }
}

/// One entry of a catalogue.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entry {
    /// The server.json document.
    pub server: ServerDetail,
    /// What the registry that it comes from says of it, where it says something.
    pub official: Option<Official>,
}

/// Something in a catalogue that is no valid entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// JSON path of the entry in the file.
    pub path: String,
    /// Every reason.
    pub violations: Vec<Violation>,
}

/// A catalogue read from a file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalogue {
    /// The valid entries, in the file's order.
    pub entries: Vec<Entry>,
    /// The entries that were left out.
    pub rejected: Vec<Rejected>,
    /// What the file says beside its entries (`version`, `meta`, `groups` …), for the way back.
    pub envelope: Map<String, Value>,
}

/// A file that is no catalogue at all.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Not JSON.
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON, but of no known format.
    #[error(
        "unknown catalogue format: expected an upstream list (`servers` as a list), a ToolHive \
         registry (`data.servers`), a native ToolHive registry (`servers` or `remote_servers` as \
         maps) or a client configuration (`mcpServers`)"
    )]
    Unknown,
    /// The format is plain, but a part of it has the wrong type.
    #[error("{path} must be {expected}")]
    Shape {
        /// JSON path of the part.
        path: &'static str,
        /// What should stand there.
        expected: &'static str,
    },
}

/// Tells a catalogue's format from its outermost fields.
#[must_use]
pub fn detect(document: &Value) -> Option<Format> {
    let fields = document.as_object()?;
    if fields.contains_key("mcpServers") {
        Some(Format::ClientConfig)
    } else if fields.get("data").is_some_and(Value::is_object) {
        Some(Format::ToolHive)
    } else if fields.get("servers").is_some_and(Value::is_array) {
        Some(Format::Upstream)
    } else if ["servers", "remote_servers"]
        .iter()
        .any(|key| fields.get(*key).is_some_and(Value::is_object))
    {
        Some(Format::ToolHiveNative)
    } else {
        None
    }
}

/// Reads a catalogue, its format detected.
///
/// # Errors
/// Where `text` is not JSON, of no known format, or its outermost parts have the wrong type.
/// Bad entries are no error: they are listed in [`Catalogue::rejected`].
pub fn read(text: &str) -> Result<Catalogue, FormatError> {
    let document: Value = serde_json::from_str(text)?;
    read_value(&document, detect(&document).ok_or(FormatError::Unknown)?)
}

/// Reads a catalogue of a known format.
///
/// # Errors
/// Where an outermost part has the wrong type.
pub fn read_value(document: &Value, format: Format) -> Result<Catalogue, FormatError> {
    match format {
        Format::Upstream => upstream::read(document),
        Format::ToolHive => toolhive::read(document),
        Format::ToolHiveNative => native::read(document),
        Format::ClientConfig => client_config::read(document),
    }
}

/// Writes a catalogue in a format. Entries that the format cannot hold are named in the second
/// part: the native and the client format have room for one package or remote only.
#[must_use]
pub fn write(catalogue: &Catalogue, format: Format) -> (Value, Vec<Rejected>) {
    match format {
        Format::Upstream => (upstream::write(catalogue), Vec::new()),
        Format::ToolHive => (toolhive::write(catalogue), Vec::new()),
        Format::ToolHiveNative => native::write(catalogue),
        Format::ClientConfig => client_config::write(catalogue),
    }
}

impl Catalogue {
    /// Takes `value` as an entry if it is a valid server.json, else notes every reason.
    fn take(&mut self, path: &str, value: &Value, official: Option<Official>) {
        match validate::server(value) {
            Ok(server) => self.entries.push(Entry { server, official }),
            Err(violations) => {
                self.rejected.push(Rejected { path: path.to_owned(), violations });
            }
        }
    }

    fn reject(&mut self, path: &str, message: impl Into<String>) {
        self.rejected.push(reject(path, message));
    }
}

fn reject(path: &str, message: impl Into<String>) -> Rejected {
    let violation = Violation { path: "$".to_owned(), message: message.into() };
    Rejected { path: path.to_owned(), violations: vec![violation] }
}

/// All fields of `object` but the named ones.
fn without(object: &Map<String, Value>, keys: &[&str]) -> Map<String, Value> {
    object
        .iter()
        .filter(|(key, _)| !keys.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn serialized<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

#[cfg(test)]
mod tests;
