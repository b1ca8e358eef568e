//! A catalogue in a file, or in the configuration itself.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Expected, Fetched, MAX_BYTES, Source, SourceError, compressed, parse};
use crate::config::FileOrigin;

/// How often it is looked whether a file changed: often enough for a mounted ConfigMap, whose
/// replacement by symlinks file notifications miss.
const LOOK: Duration = Duration::from_millis(500);

/// What tells a file from an earlier state of it.
type Stamp = (SystemTime, u64);

/// See the module's documentation.
#[derive(Debug)]
pub struct FileSource {
    origin: FileOrigin,
    expected: Option<Expected>,
    /// The state that was read last.
    read: Option<Stamp>,
}

impl FileSource {
    /// A source of that origin, not read yet.
    #[must_use]
    pub fn new(origin: FileOrigin, expected: Option<Expected>) -> Self {
        Self { origin, expected, read: None }
    }
}

async fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = tokio::fs::metadata(path).await.ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

impl Source for FileSource {
    async fn fetch(&mut self) -> Result<Fetched, SourceError> {
        let path = match &self.origin {
            FileOrigin::Data(text) => return parse(text.clone(), self.expected).await,
            FileOrigin::Path(path) => path,
        };
        // Before it is read: what changes meanwhile is seen as a change.
        self.read = stamp(path).await;
        let failed = |error: std::io::Error| {
            let message = format!("cannot read {}: {error}", path.display());
            SourceError::unavailable("Unreadable", message)
        };
        if tokio::fs::metadata(path).await.map_err(failed)?.len() > MAX_BYTES {
            return Err(SourceError::too_large(path.display(), MAX_BYTES));
        }
        let bytes = tokio::fs::read(path).await.map_err(failed)?;
        parse(compressed::text(&bytes, MAX_BYTES)?, self.expected).await
    }

    async fn changed(&mut self) {
        let FileOrigin::Path(path) = &self.origin else { return std::future::pending().await };
        loop {
            tokio::time::sleep(LOOK).await;
            if stamp(path).await != self.read {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_cannot_be_a_catalogue() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalogue.json");
        let mut source = FileSource::new(FileOrigin::Path(path.clone()), None);
        let mut why = async || source.fetch().await.unwrap_err().to_string();
        assert!(why().await.contains("cannot read"));
        // A hole in a file takes no room.
        std::fs::File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(why().await.contains("more than 67108864 bytes"));
        for (text, says) in [
            ("", "it is empty"),
            ("[1, 2]", "unknown catalogue format"),
            ("{\"servers\": ", "neither JSON"),
            ("\u{0}\u{1}", "neither JSON"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = why().await;
            assert!(error.contains(says), "{text:?}: {error}");
        }
        std::fs::write(&path, "servers: []\nmetadata: {count: 0}\n").unwrap();
        let Ok(Fetched::Whole(content)) = source.fetch().await else { panic!("not read") };
        assert!(content.entries.is_empty());
    }
}
