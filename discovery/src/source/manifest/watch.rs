//! Notices that manifests changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// How long the files must be at rest before they are read again: editors and `git checkout`
/// write in several steps.
const REST: Duration = Duration::from_millis(100);
/// How often the files are read again where the system cannot tell of changes.
const POLL: Duration = Duration::from_secs(2);

/// The system cannot watch files.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {path}: {error}")]
pub struct WatchError {
    path: PathBuf,
    #[source]
    error: notify::Error,
}

/// Tells when something below some paths changed.
#[derive(Debug)]
pub struct Watcher {
    changed: Arc<Notify>,
    /// Dropping it ends the watch.
    _watcher: Box<dyn std::any::Any + Send + Sync>,
}

impl Watcher {
    /// Starts to watch. `-` (stdin) never changes.
    ///
    /// # Errors
    /// Where the system can neither tell of changes nor poll.
    pub fn new(paths: &[PathBuf]) -> Result<Self, WatchError> {
        let changed = Arc::new(Notify::new());
        match start(
            notify::RecommendedWatcher::new(handler(&changed), notify::Config::default()),
            paths,
        ) {
            Ok(watcher) => Ok(Self { changed, _watcher: Box::new(watcher) }),
            Err(WatchError { path, error }) => {
                tracing::warn!(path = %path.display(), %error, "polling files, because the system cannot tell of changes");
                let config =
                    notify::Config::default().with_poll_interval(POLL).with_compare_contents(true);
                let watcher = start(notify::PollWatcher::new(handler(&changed), config), paths)?;
                Ok(Self { changed, _watcher: Box::new(watcher) })
            }
        }
    }

    /// Waits for a change, and until the files are at rest.
    pub async fn changed(&self) {
        self.changed.notified().await;
        while tokio::time::timeout(REST, self.changed.notified()).await.is_ok() {}
    }
}

fn handler(changed: &Arc<Notify>) -> impl Fn(notify::Result<notify::Event>) + Send + 'static {
    let changed = Arc::clone(changed);
    move |event| {
        // Reading the files is an access; only that would never end.
        if !matches!(event, Ok(notify::Event { kind: EventKind::Access(_), .. })) {
            changed.notify_one();
        }
    }
}

fn start<W: notify::Watcher>(
    watcher: notify::Result<W>,
    paths: &[PathBuf],
) -> Result<W, WatchError> {
    let first = || paths.first().cloned().unwrap_or_default();
    let mut watcher = watcher.map_err(|error| WatchError { path: first(), error })?;
    for path in paths.iter().filter(|path| path.as_os_str() != "-") {
        // A file is watched through its folder: editors replace files, they do not write them.
        let (target, mode) = if path.is_dir() {
            (path.as_path(), RecursiveMode::Recursive)
        } else {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
            (parent.unwrap_or(Path::new(".")), RecursiveMode::NonRecursive)
        };
        watcher
            .watch(target, mode)
            .map_err(|error| WatchError { path: target.to_owned(), error })?;
    }
    Ok(watcher)
}
