//! The curated catalogue: from files and from documents among the manifests.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::Value;
use smol_str::SmolStr;
use waymark_discovery::explanation::Explanation;
use waymark_discovery::source::manifest::yaml;
use waymark_discovery::{Code, Problem};
use waymark_registry_api::catalogue::Prepared;
use waymark_registry_api::source::{TWICE, read_catalogue};

/// Most bytes of one catalogue file.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// A curated catalogue, and what is wrong in it.
#[derive(Debug, Default)]
pub(crate) struct Curated {
    pub(crate) entries: Vec<Prepared>,
    pub(crate) faults: Vec<Explanation>,
    /// Name and version of the entries, for telling which stand there twice.
    ids: HashSet<SmolStr>,
}

/// Reads catalogue files.
///
/// # Errors
/// Where a file cannot be read at all.
pub(crate) fn read_files(files: &[PathBuf]) -> anyhow::Result<Vec<(String, Value)>> {
    let read = |file: &PathBuf| {
        let shown = file.display();
        let size = std::fs::metadata(file).with_context(|| format!("cannot read {shown}"))?.len();
        anyhow::ensure!(
            size <= MAX_BYTES,
            "{shown} has {size} bytes, {MAX_BYTES} at most are read"
        );
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
        // JSON is read as such, for its speed; YAML is what else it may be.
        let value = match serde_json::from_str(&text) {
            Ok(value) => value,
            Err(_) => {
                yaml(&text).map_err(|(line, why)| anyhow::anyhow!("{shown}:{line}: {why}"))?
            }
        };
        Ok((shown.to_string(), value))
    };
    files.iter().map(read).collect()
}

impl Curated {
    /// Takes the valid entries of documents, and notes the others.
    pub(crate) fn of(documents: &[(String, Value)]) -> Self {
        let mut curated = Self::default();
        for (location, document) in documents {
            curated.take(location, document);
        }
        curated
    }

    fn take(&mut self, location: &str, document: &Value) {
        let fetched = match read_catalogue(document, None) {
            Ok(fetched) => fetched,
            Err(error) => return self.fault(location, &error.to_string()),
        };
        for rejected in fetched.rejected {
            self.fault(location, &format!("{}: {}", rejected.path, rejected.message));
        }
        for entry in fetched.entries {
            // Documents may hold the same entry.
            if self.ids.insert(entry.id.clone()) {
                self.entries.push(entry);
            } else {
                self.fault(location, &format!("{}: {TWICE}", entry.id));
            }
        }
    }

    fn fault(&mut self, location: &str, message: &str) {
        let message = format!("{location}: {}.", message.trim_end_matches('.'));
        let remedy = "Correct the entry in the catalogue.";
        let problem = Problem::error(Code::InvalidDocument, location, message, remedy);
        self.faults.push(Explanation {
            kind: "Document".into(),
            namespace: "".into(),
            name: location.into(),
            published: Vec::new(),
            problems: vec![problem],
        });
    }
}
