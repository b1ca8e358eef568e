//! A catalogue in a git repository: one file of a branch, tag or commit.
//!
//! A local repository is read in place. From a remote one the references are listed, and only where
//! the commit is another one it is fetched, shallow, into a folder that is removed afterwards.

mod http;
mod ssh;

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gix::bstr::ByteSlice;
use gix::progress::Discard;
use gix::remote::Direction;
use gix::remote::fetch::{Shallow, Tags};
use gix_transport::Protocol;
use gix_transport::client::blocking_io::Transport;
use url::Url;

use super::http::{Access, Fetcher};
use super::origin::{Cluster, Origin};
use super::{Expected, Fetched, MAX_BYTES, Source, SourceError, compressed, parse};
use ssh::Session;

/// Most bytes that are fetched of a repository.
const MAX_PACK: u64 = 100 << 20;
/// Most memory for one object, in bytes: what a crafted one may ask for.
const MAX_OBJECT: u64 = 2 * MAX_BYTES;

/// What of a repository is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// What its HEAD points to.
    Head,
    /// A branch.
    Branch(String),
    /// A tag.
    Tag(String),
    /// A commit, in 40 hexadecimal digits.
    Commit(String),
}

impl Reference {
    fn name(&self) -> String {
        match self {
            Self::Head => "HEAD".to_owned(),
            Self::Branch(branch) => format!("refs/heads/{branch}"),
            Self::Tag(tag) => format!("refs/tags/{tag}"),
            Self::Commit(commit) => commit.clone(),
        }
    }
}

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    /// A folder.
    Local(PathBuf),
    /// An HTTP server.
    Http {
        /// The repository's URL.
        url: Url,
        /// How the server is spoken to.
        access: Box<Access>,
    },
    /// An SSH server.
    Ssh {
        /// `ssh://user@host:port/path`.
        url: Url,
        /// The private key, in OpenSSH's format.
        key: Origin,
        /// Public keys of the server, as OpenSSH's `known_hosts` has them.
        known_hosts: Origin,
        /// Which addresses may be connected to.
        reach: super::Reach,
        /// Longest that it may take.
        timeout: Duration,
    },
}

/// Where a git source reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitOrigin {
    /// The repository.
    pub remote: Remote,
    /// What of it.
    pub reference: Reference,
    /// The file's path in the repository.
    pub path: String,
}

/// See the module's documentation.
pub struct GitSource {
    origin: GitOrigin,
    expected: Option<Expected>,
    cluster: Cluster,
    /// The commit that was read last.
    read: Option<gix::ObjectId>,
}

/// What went wrong below git, which knows of it only that something did.
#[derive(Debug, Clone, Default)]
struct Failure(Arc<Mutex<Option<SourceError>>>);

impl Failure {
    fn note(&self, error: SourceError) -> std::io::Error {
        let text = error.to_string();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        std::io::Error::other(text)
    }

    /// It, or what git says.
    fn or(&self, error: &gix::error::Error, shown: &str) -> SourceError {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        noted.unwrap_or_else(|| {
            let said = error.probable_cause().to_string();
            let said: String = said.chars().take(200).collect();
            SourceError::unavailable("Unreachable", format!("{shown} cannot be fetched: {said}"))
        })
    }
}

impl GitSource {
    /// A source that was not read yet.
    #[must_use]
    pub fn new(origin: GitOrigin, expected: Option<Expected>, cluster: Cluster) -> Self {
        Self { origin, expected, cluster, read: None }
    }

    /// The file of the repository, and its commit; `None` where that is the one that was read last.
    async fn file(&self) -> Result<Option<(gix::ObjectId, Vec<u8>)>, SourceError> {
        let task = Task {
            reference: self.origin.reference.clone(),
            path: self.origin.path.clone(),
            read: self.read,
            failure: Failure::default(),
            interrupt: Arc::default(),
        };
        // Whatever ends the wait for it ends the work.
        let _interrupt = Interrupt(Arc::clone(&task.interrupt));
        let blocking = match &self.origin.remote {
            Remote::Local(path) => {
                let path = path.clone();
                tokio::task::spawn_blocking(move || task.local(&path))
            }
            Remote::Http { url, access } => {
                let fetcher = Fetcher::new(access, &self.cluster).await?;
                let url = url.clone();
                let runtime = tokio::runtime::Handle::current();
                tokio::task::spawn_blocking(move || {
                    let http = http::Client::new(fetcher, runtime, task.failure.clone());
                    let parsed = gix::url::parse(url.as_str())
                        .map_err(|error| task.failure.or(&error, url.as_str()))?;
                    let connect = gix_transport::client::blocking_io::http::connect_http;
                    task.fetch(url.as_str(), connect(http, parsed, Protocol::V2, false))
                })
            }
            Remote::Ssh { url, key, known_hosts, reach, timeout } => {
                let key = key.read(&self.cluster).await?;
                let known_hosts = known_hosts.read(&self.cluster).await?;
                let session = Session::open(url, &key, &known_hosts, reach, *timeout).await?;
                let (shown, timeout) = (url.to_string(), *timeout);
                let work = tokio::task::spawn_blocking(move || {
                    let transport = session.transport(task.failure.clone());
                    task.fetch(&shown, transport)
                });
                return match tokio::time::timeout(timeout, work).await {
                    Ok(done) => done.unwrap_or_else(|error| Err(ended(&error))),
                    Err(_) => Err(SourceError::unavailable(
                        "TimedOut",
                        format!("{url} does not answer within {timeout:?}"),
                    )),
                };
            }
        };
        blocking.await.unwrap_or_else(|error| Err(ended(&error)))
    }
}

fn ended(error: &tokio::task::JoinError) -> SourceError {
    SourceError::unavailable("Unreadable", format!("the repository cannot be read: {error}"))
}

struct Interrupt(Arc<AtomicBool>);

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Source for GitSource {
    async fn fetch(&mut self) -> Result<Fetched, SourceError> {
        let Some((commit, bytes)) = self.file().await? else { return Ok(Fetched::Unchanged) };
        tracing::debug!(%commit, "the repository was read");
        self.read = Some(commit);
        parse(compressed::text(&bytes, MAX_BYTES)?, self.expected).await
    }

    fn reset(&mut self) {
        self.read = None;
    }
}

/// The part that blocks.
struct Task {
    reference: Reference,
    path: String,
    read: Option<gix::ObjectId>,
    failure: Failure,
    interrupt: Arc<AtomicBool>,
}

type Found = Result<Option<(gix::ObjectId, Vec<u8>)>, SourceError>;

/// Nothing of the machine's or the user's configuration, and bounds on what objects may take.
fn options() -> gix::open::Options {
    gix::open::Options::isolated()
        .config_overrides([format!("gitoxide.objects.allocLimit={MAX_OBJECT}")])
}

impl Task {
    fn local(&self, path: &Path) -> Found {
        let shown = path.display().to_string();
        let fail = |error: gix::error::Error| {
            SourceError::unavailable("NotFound", format!("{shown} is no git repository: {error}"))
        };
        let repository = gix::open_opts(path, options()).map_err(fail)?;
        let found = match &self.reference {
            Reference::Head => repository.head_id().ok().map(gix::Id::detach),
            Reference::Commit(commit) => gix::ObjectId::from_hex(commit.as_bytes())
                .ok()
                .filter(|id| repository.has_object(*id)),
            named => repository
                .find_reference(named.name().as_str())
                .ok()
                .and_then(|reference| reference.into_fully_peeled_id().ok())
                .map(gix::Id::detach),
        };
        let id = found.ok_or_else(|| self.no_reference(&shown))?;
        if self.read == Some(id) {
            return Ok(None);
        }
        self.blob(&repository, id, &shown)
    }

    fn no_reference(&self, shown: &str) -> SourceError {
        let message = match &self.reference {
            Reference::Head => format!("{shown} has no HEAD: it is empty"),
            Reference::Branch(branch) => format!("{shown} has no branch {branch}"),
            Reference::Tag(tag) => format!("{shown} has no tag {tag}"),
            Reference::Commit(commit) => format!("{shown} has no commit {commit}"),
        };
        SourceError::unavailable("ReferenceNotFound", message)
    }

    fn fetch<T: Transport>(&self, shown: &str, transport: T) -> Found {
        let fail = |error: gix::error::Error| self.failure.or(&error, shown);
        let folder = tempfile::tempdir()?;
        let repository = gix::ThreadSafeRepository::init_opts(
            folder.path(),
            gix::create::Kind::Bare,
            gix::create::Options::default(),
            options(),
        )
        .map_err(fail)?
        .to_thread_local();
        let spec = format!("+{}:refs/waymark/read", self.reference.name());
        let remote = repository
            .remote_at(shown)
            .and_then(|remote| remote.with_refspecs([spec.as_str()], Direction::Fetch))
            .map_err(fail)?
            .with_fetch_tags(Tags::None);
        let connection = remote
            .to_connection_with_transport(transport)
            // Credentials are the transport's: none are asked for.
            .with_credentials(|_| Ok(None));
        let prepared = connection
            .prepare_fetch(Discard, gix::remote::ref_map::Options::default())
            .map_err(fail)?;
        let mapping = prepared.ref_map().mappings.first();
        let id = mapping.and_then(|mapping| mapping.remote.as_id()).map(ToOwned::to_owned);
        let id = id.ok_or_else(|| self.no_reference(shown))?;
        if self.read == Some(id) {
            return Ok(None);
        }
        prepared
            .with_shallow(Shallow::DepthAtRemote(NonZeroU32::MIN))
            .receive(Discard, &self.interrupt)
            .map_err(|error| match &self.reference {
                Reference::Commit(_) if self.failure.is_empty() => self.no_reference(shown),
                _ => self.failure.or(&error, shown),
            })?;
        self.blob(&repository, id, shown)
    }

    /// The file, as of a commit (or of a tag that leads to one).
    fn blob(&self, repository: &gix::Repository, id: gix::ObjectId, shown: &str) -> Found {
        let corrupt = |error: gix::error::Error| {
            SourceError::invalid("InvalidRepository", format!("{shown} cannot be read: {error}"))
        };
        let commit =
            repository.find_object(id).and_then(|o| o.peel_to_commit()).map_err(corrupt)?;
        let path = self.path.trim_start_matches('/');
        let entry =
            commit.tree().and_then(|tree| tree.lookup_entry_by_path(path)).map_err(corrupt)?;
        let Some(entry) = entry.filter(|entry| entry.mode().is_blob()) else {
            let message = format!("{shown} has no file {path} at {}", commit.id);
            return Err(SourceError::unavailable("FileNotFound", message));
        };
        let size = repository.find_header(entry.object_id()).map_err(corrupt)?.size();
        if size > MAX_BYTES {
            return Err(SourceError::too_large(format!("the file {path} of {shown}"), MAX_BYTES));
        }
        let blob = entry.object().map_err(corrupt)?;
        Ok(Some((id, blob.data.as_bytes().to_vec())))
    }
}

impl Failure {
    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}
