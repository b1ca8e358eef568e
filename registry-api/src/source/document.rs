//! A catalogue document of any known format, entry by entry.

use std::collections::HashSet;

use serde_json::Value;
use sha2::{Digest, Sha256};
use waymark_catalogue::format::{self, Format};
use waymark_catalogue::meta::Status;

use super::{Content, Fetched, MAX_BYTES, SourceError, compressed};
use crate::catalogue::prepare_own;

/// An entry that is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Where it stands in the document, or its name and version.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

/// Which formats a source may have, where its author says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// `upstream`: the upstream API's list, or ToolHive's file that wraps one.
    Upstream,
    /// `toolhive`: ToolHive's file, the newer or the older one.
    ToolHive,
    /// `mcp-client`: `mcpServers`.
    McpClient,
}

impl Expected {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Upstream, Self::ToolHive, Self::McpClient];

    /// The name in configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::ToolHive => "toolhive",
            Self::McpClient => "mcp-client",
        }
    }

    fn takes(self, format: Format) -> bool {
        match self {
            Self::Upstream => matches!(format, Format::Upstream | Format::ToolHive),
            Self::ToolHive => matches!(format, Format::ToolHive | Format::ToolHiveNative),
            Self::McpClient => format == Format::ClientConfig,
        }
    }
}

/// The fingerprint of a document: SHA-256 in hexadecimal digits.
pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a catalogue document: JSON, else YAML. Entries that are not valid are left out one by one.
///
/// # Errors
/// Where it is no catalogue at all.
pub fn read_document(text: &str, expected: Option<Expected>) -> Result<Content, SourceError> {
    if text.trim().is_empty() {
        return Err(SourceError::invalid(
            "Empty",
            "it is empty; a catalogue without servers is {\"servers\": []}",
        ));
    }
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => serde_saphyr::from_str(text).map_err(|_| {
            SourceError::invalid("InvalidFormat", format!("it is neither JSON ({error}) nor YAML"))
        })?,
    };
    let mut content = read_catalogue(&value, expected)?;
    content.hash = digest(text.as_bytes());
    Ok(content)
}

/// The same of bytes that may be compressed.
///
/// # Errors
/// Where it is no catalogue at all.
pub(crate) fn read_packed(bytes: &[u8]) -> Result<Content, SourceError> {
    read_document(&compressed::text(bytes, MAX_BYTES)?, None)
}

/// The same off the runtime's threads: a large catalogue takes a while.
pub(super) async fn parse(
    text: String,
    expected: Option<Expected>,
) -> Result<Fetched, SourceError> {
    let read = tokio::task::spawn_blocking(move || read_document(&text, expected)).await;
    let content = read.map_err(|error| SourceError::invalid("InvalidFormat", error.to_string()))?;
    content.map(Fetched::Whole)
}

/// What is said of an entry whose name and version stand there before.
pub const TWICE: &str = "it stands in the catalogue twice; the first counts";

/// The same of a document that was parsed; without a fingerprint.
///
/// # Errors
/// Where it is no catalogue at all.
pub fn read_catalogue(value: &Value, expected: Option<Expected>) -> Result<Content, SourceError> {
    let invalid = |message: String| SourceError::invalid("InvalidFormat", message);
    let format =
        format::detect(value).ok_or_else(|| invalid(format::FormatError::Unknown.to_string()))?;
    if let Some(expected) = expected.filter(|expected| !expected.takes(format)) {
        let (is, expected) = (format.as_str(), expected.as_str());
        return Err(invalid(format!("its format is {is}, not {expected} as its source says")));
    }
    let catalogue =
        format::read_value(value, format).map_err(|error| invalid(error.to_string()))?;
    let mut content = Content::default();
    for rejected in catalogue.rejected {
        let violations: Vec<String> = rejected.violations.iter().map(ToString::to_string).collect();
        content.rejected.push(Rejected { path: rejected.path, message: violations.join("; ") });
    }
    let mut ids = HashSet::new();
    for entry in catalogue.entries {
        let id = format!("{}@{}", entry.server.name, entry.server.version);
        if !ids.insert(id.clone()) {
            content.rejected.push(Rejected { path: id, message: TWICE.to_owned() });
            continue;
        }
        let official = entry.official.map(|official| (official.status, official.status_message));
        let (status, message) = official.unwrap_or((Status::Active, None));
        if status == Status::Deleted {
            continue;
        }
        match prepare_own(&id, &entry.server) {
            Ok(prepared) => {
                content.entries.push(prepared.with_status(status, message));
            }
            Err(refusal) => {
                content.rejected.push(Rejected { path: id, message: refusal.message });
            }
        }
    }
    content.total = content.entries.len();
    Ok(content)
}
