//! A catalogue in a file, or in the configuration itself.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::{Fetched, Source, SourceError, read_document};
use crate::config::FileOrigin;

/// Most bytes of a file.
pub(super) const MAX_BYTES: u64 = 64 << 20;
/// How often it is looked whether a file changed: often enough for a mounted ConfigMap, whose
/// replacement by symlinks file notifications miss.
const LOOK: Duration = Duration::from_millis(500);

/// What tells a file from an earlier state of it.
type Stamp = (SystemTime, u64);

/// See the module's documentation.
#[derive(Debug)]
pub struct FileSource {
    origin: FileOrigin,
    /// The state that was read last.
    read: Mutex<Option<Stamp>>,
}

impl FileSource {
    /// A source of that origin, not read yet.
    #[must_use]
    pub fn new(origin: FileOrigin) -> Self {
        Self { origin, read: Mutex::default() }
    }
}

async fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = tokio::fs::metadata(path).await.ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

impl Source for FileSource {
    async fn fetch(&self) -> Result<Fetched, SourceError> {
        let path = match &self.origin {
            FileOrigin::Data(text) => return read_document(text),
            FileOrigin::Path(path) => path,
        };
        // Before it is read: what changes meanwhile is seen as a change.
        let stamp = stamp(path).await;
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = stamp;
        let failed = |error: std::io::Error| {
            SourceError::Unavailable(format!("cannot read {}: {error}", path.display()))
        };
        let size = tokio::fs::metadata(path).await.map_err(failed)?.len();
        if size > MAX_BYTES {
            return Err(SourceError::TooLarge { size, most: MAX_BYTES });
        }
        let text = tokio::fs::read_to_string(path).await.map_err(failed)?;
        // A large catalogue takes a while.
        let read = tokio::task::spawn_blocking(move || read_document(&text)).await;
        read.unwrap_or_else(|error| Err(SourceError::Format(error.to_string())))
    }

    async fn changed(&self) {
        let FileOrigin::Path(path) = &self.origin else { return std::future::pending().await };
        let before = *self.read.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            tokio::time::sleep(LOOK).await;
            if stamp(path).await != before {
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
        let source = FileSource::new(FileOrigin::Path(path.clone()));
        let why = async || source.fetch().await.unwrap_err().to_string();
        assert!(why().await.contains("cannot read"), "{}", why().await);
        // A hole in a file takes no room.
        std::fs::File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(why().await.contains("67108864 at most"), "{}", why().await);
        for (text, says) in [
            ("", "no known"),
            ("[1, 2]", "no known"),
            ("{\"servers\": ", "neither JSON"),
            ("\u{0}\u{1}", "neither JSON"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = why().await;
            assert!(error.contains(says) || error.contains("format"), "{text:?}: {error}");
        }
        std::fs::write(&path, "servers: []\nmetadata: {count: 0}\n").unwrap();
        assert!(source.fetch().await.unwrap().entries.is_empty());
    }
}
