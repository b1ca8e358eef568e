//! Kubernetes manifests: files, folders or stdin, YAML or JSON.
//!
//! A document that cannot be read is reported with its file and line and does not stop the
//! others. A catalogue file among the manifests (JSON or YAML of a known catalogue format) is
//! handed on as such.

mod document;
mod watch;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;
use waymark_catalogue::format;

use crate::explanation::Explanation;
use crate::index::{Changes, Index};
use crate::object::{self, Key, Object, Parsed};
use crate::problem::{Code, Problem, Severity};

pub use document::{MAX_BYTES, yaml};
pub use watch::{WatchError, Watcher};

/// Most files that are read.
pub const MAX_FILES: usize = 20_000;
/// Deepest folder that is looked into.
pub const MAX_DEPTH: usize = 32;

/// Endings of the files that are read in a folder.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// A path that cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It does not exist, or is not readable.
    #[error("cannot read {path}: {error}; name files or folders of manifests, or - for stdin")]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// More than [`MAX_FILES`].
    #[error("more than {MAX_FILES} manifest files; name a smaller folder")]
    TooManyFiles,
}

/// What a document was read from, as `file:line`.
type Location = String;

/// Everything that a set of paths holds.
#[derive(Debug, Default)]
pub struct Manifests {
    /// Objects by key, each with the place it came from.
    objects: BTreeMap<Key, (Parsed, Location)>,
    /// Catalogue documents, each with the place it came from.
    pub catalogues: Vec<(Location, Value)>,
    /// Documents that cannot be used, one explanation each.
    pub faults: Vec<Explanation>,
    /// How many files were read.
    pub files: usize,
}

impl Manifests {
    /// Reads all paths: files, folders (recursively, hidden ones left out), `-` for stdin.
    ///
    /// # Errors
    /// Where a path cannot be read at all, or there are too many files. What is wrong inside a
    /// file is no error but a fault.
    pub fn read(paths: &[PathBuf], prefix: &str) -> Result<Self, ManifestError> {
        let mut manifests = Self::default();
        for file in files(paths)? {
            manifests.read_file(&file, prefix);
        }
        Ok(manifests)
    }

    /// Reads one text, as if from a file of that name.
    pub fn read_text(&mut self, name: &str, text: &str, prefix: &str) {
        self.files += 1;
        for document in document::split(text) {
            let location = format!("{name}:{}", document.line);
            match document::parse(&document) {
                Ok(Some(value)) => self.take(&location, value, prefix),
                Ok(None) => {}
                Err(fault) => {
                    let location = format!("{name}:{}", fault.line);
                    self.fault(&location, Severity::Error, &fault.message, "Mend the YAML.");
                }
            }
        }
    }

    fn read_file(&mut self, file: &Path, prefix: &str) {
        let name = file.display().to_string();
        let mut bytes = Vec::new();
        let read = if file.as_os_str() == "-" {
            std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes)
        } else {
            std::fs::File::open(file).and_then(|f| f.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        };
        if let Err(error) = read {
            return self.fault(&name, Severity::Error, &format!("cannot be read: {error}"), "");
        }
        if bytes.len() as u64 > MAX_BYTES {
            let message = format!("has more than {MAX_BYTES} bytes");
            return self.fault(&name, Severity::Error, &message, "Split the file.");
        }
        match String::from_utf8(bytes) {
            Ok(text) => self.read_text(&name, &text, prefix),
            Err(_) => self.fault(&name, Severity::Error, "is not UTF-8", "Save it as UTF-8."),
        }
    }

    fn fault(&mut self, location: &str, severity: Severity, message: &str, remedy: &str) {
        let message = format!("{location}: {message}.");
        let problem = Problem::error(Code::InvalidDocument, location, message, remedy);
        self.faults.push(document_explanation(location, problem.with(severity)));
    }

    fn take(&mut self, location: &str, value: Value, prefix: &str) {
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        let kind = text("kind");
        if let (Some(item_kind), Some(items)) =
            (kind.strip_suffix("List"), value.get("items").and_then(Value::as_array))
        {
            let api_version = text("apiVersion");
            for (at, item) in items.iter().enumerate() {
                let mut item = item.clone();
                // The items of a typed list say neither kind nor version.
                if let Some(fields) = item.as_object_mut() {
                    fields.entry("kind").or_insert_with(|| item_kind.into());
                    fields.entry("apiVersion").or_insert_with(|| api_version.into());
                }
                self.take(&format!("{location} items[{at}]"), item, prefix);
            }
            return;
        }
        if kind.is_empty() {
            if format::detect(&value).is_some() {
                self.catalogues.push((location.to_owned(), value));
            } else {
                let message = "is neither a Kubernetes object nor a catalogue; it is passed over";
                self.fault(location, Severity::Note, message, "");
            }
            return;
        }
        match object::parse(&value, prefix) {
            Ok(Parsed::Other) => {}
            Ok(parsed) => {
                let key = match &parsed {
                    Parsed::Object(object) => object.key(),
                    Parsed::NotAnnotated(key) => key.clone(),
                    Parsed::Other => return,
                };
                if let Some((_, first)) = self.objects.get(&key) {
                    let message =
                        format!("{location}: {key} stands in {first} too; that one counts.");
                    let problem = Problem::error(
                        Code::DuplicateObject,
                        key.to_string(),
                        message,
                        "Remove one of the two.",
                    );
                    self.faults.push(document_explanation(location, problem));
                    return;
                }
                self.objects.insert(key, (parsed, location.to_owned()));
            }
            Err(error) => {
                let remedy = "Correct the field; `kubectl apply --dry-run=server` checks it too.";
                self.fault(location, Severity::Error, &error.to_string(), remedy);
            }
        }
    }

    /// How many routes, Gateways and ListenerSets carry no status at all.
    #[must_use]
    pub fn without_status(&self) -> usize {
        let lacks = |(parsed, _): &&(Parsed, Location)| match parsed {
            Parsed::Object(Object::HttpRoute(route)) => !route.has_status,
            Parsed::Object(Object::Gateway(gateway)) => !gateway.has_status,
            Parsed::Object(Object::ListenerSet(set)) => !set.has_status,
            _ => false,
        };
        self.objects.values().filter(lacks).count()
    }

    /// Brings an index to the state of the manifests, objects that are gone included.
    pub fn apply(self, index: &mut Index) -> Changes {
        let gone: Vec<Key> = index.keys().filter(|key| !self.objects.contains_key(key)).collect();
        for key in gone {
            index.remove(&key);
        }
        let routes = self.objects.keys().filter(|key| key.kind == object::Kind::HttpRoute).count();
        index.reserve(self.objects.len(), routes);
        for (parsed, _) in self.objects.into_values() {
            index.apply(parsed);
        }
        index.commit()
    }
}

fn document_explanation(location: &str, problem: Problem) -> Explanation {
    Explanation {
        kind: "Document".into(),
        namespace: "".into(),
        name: location.into(),
        published: Vec::new(),
        problems: vec![problem],
    }
}

/// All files below the paths, sorted.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ManifestError> {
    let mut found = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            found.push(path.clone());
            continue;
        }
        let failed = |error| ManifestError::Path { path: path.clone(), error };
        if std::fs::metadata(path).map_err(failed)?.is_dir() {
            walk(path, 0, &mut found).map_err(failed)?;
        } else {
            found.push(path.clone());
        }
        if found.len() > MAX_FILES {
            return Err(ManifestError::TooManyFiles);
        }
    }
    Ok(found)
}

fn walk(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    entries.sort();
    for path in entries {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        // A link to a file counts (that is how Kubernetes mounts ConfigMaps), one to a folder
        // does not: it may lead in a circle.
        let is_link = path.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
        if hidden || found.len() > MAX_FILES {
            continue;
        }
        if path.is_dir() {
            if !is_link && depth < MAX_DEPTH {
                // A folder that cannot be listed leaves its neighbours alone.
                let _ = walk(&path, depth + 1, found);
            }
        } else if path.extension().is_some_and(|e| ENDINGS.iter().any(|known| e == *known)) {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::DEFAULT_PREFIX;

    fn read(text: &str) -> Manifests {
        let mut manifests = Manifests::default();
        manifests.read_text("f.yaml", text, DEFAULT_PREFIX);
        manifests
    }

    fn faults(manifests: &Manifests) -> Vec<(&str, Code)> {
        manifests.faults.iter().map(|f| (f.name.as_str(), f.problems[0].code)).collect()
    }

    #[test]
    fn a_broken_document_leaves_its_neighbours_alone() {
        let manifests = read(concat!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n",
            "---\n# broken\nkind: [\n",
            "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n",
            "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: 7}\n",
            "--- # empty\n---\napiVersion: v1\nkind: Service\nmetadata: {}\n",
        ));
        assert_eq!(manifests.objects.len(), 2);
        let lines: Vec<&str> = faults(&manifests).iter().map(|(name, _)| *name).collect();
        assert_eq!(lines, ["f.yaml:6", "f.yaml:12", "f.yaml:17"], "{:?}", manifests.faults);
        assert!(manifests.faults[1].problems[0].message.contains("metadata.name"));
    }

    #[test]
    fn lists_json_and_duplicates() {
        let manifests = read(concat!(
            r#"{"apiVersion": "v1", "kind": "List", "items": ["#,
            r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}]}"#,
            "\n---\napiVersion: v1\nkind: NamespaceList\nitems:\n- metadata: {name: b}\n- metadata: {name: a}\n",
        ));
        assert_eq!(manifests.objects.len(), 2);
        assert_eq!(faults(&manifests), [("f.yaml:3 items[1]", Code::DuplicateObject)]);
    }

    #[test]
    fn catalogues_and_strangers() {
        let manifests = read("{\"servers\": []}\n---\nreplicas: 3\n---\nkind: Deployment\n");
        assert_eq!(manifests.catalogues.len(), 1);
        assert_eq!(faults(&manifests), [("f.yaml:3", Code::InvalidDocument)]);
        assert_eq!(manifests.faults[0].problems[0].severity, Severity::Note);
    }
}
