//! A catalogue document of any known format, entry by entry.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;
use waymark_catalogue::format;

use super::{Fetched, SourceError};
use crate::catalogue::prepare_own;

/// An entry that is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Where it stands in the document, or its name and version.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

/// Reads a catalogue document: JSON, else YAML. Entries that are not valid are left out one by one.
///
/// # Errors
/// Where it is no catalogue at all.
pub fn read_document(text: &str) -> Result<Fetched, SourceError> {
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => serde_saphyr::from_str(text)
            .map_err(|_| SourceError::Format(format!("it is neither JSON ({error}) nor YAML")))?,
    };
    let mut fetched = read_catalogue(&value)?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    fetched.hash = hasher.finish();
    Ok(fetched)
}

/// What is said of an entry whose name and version stand there before.
pub const TWICE: &str = "it stands in the catalogue twice; the first counts";

/// The same of a document that was parsed; without a fingerprint.
///
/// # Errors
/// Where it is no catalogue at all.
pub fn read_catalogue(value: &Value) -> Result<Fetched, SourceError> {
    let unknown = || SourceError::Format(format::FormatError::Unknown.to_string());
    let format = format::detect(value).ok_or_else(unknown)?;
    let catalogue = format::read_value(value, format)
        .map_err(|error| SourceError::Format(error.to_string()))?;
    let mut fetched = Fetched::default();
    for rejected in catalogue.rejected {
        let violations: Vec<String> = rejected.violations.iter().map(ToString::to_string).collect();
        fetched.rejected.push(Rejected { path: rejected.path, message: violations.join("; ") });
    }
    let mut ids = HashSet::new();
    for entry in catalogue.entries {
        let id = format!("{}@{}", entry.server.name, entry.server.version);
        if !ids.insert(id.clone()) {
            fetched.rejected.push(Rejected { path: id, message: TWICE.to_owned() });
            continue;
        }
        match prepare_own(&id, &entry.server) {
            Ok(prepared) => fetched.entries.push(prepared),
            Err(refusal) => {
                fetched.rejected.push(Rejected { path: id, message: refusal.message });
            }
        }
    }
    Ok(fetched)
}
