//! Publishes the index's entries to a registry: one session at a time, again after every break.
//!
//! Nothing is queued but ids of entries: what is sent is read from the index at the moment of
//! sending, so a registry that is away costs no memory beyond one id per changed entry.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use waymark_proto::v1::publish_request::Message;
use waymark_proto::v1::publisher_service_client::PublisherServiceClient;
use waymark_proto::v1::{
    self, Begin, End, Hello, PublishRequest, PublishResponse, Rejection, Remove,
};

use crate::entry::Entry;
use crate::object::Key;
use crate::problem::{Code, Problem};
use crate::shared::SharedIndex;
use waymark_kubernetes::lease::Leadership;

/// First pause after a break; doubled up to [`LONGEST_PAUSE`], with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Requests in the channel to the stream; the window bounds what is under way.
const CHANNEL: usize = 64;

/// Who publishes to where.
#[derive(Debug, Clone)]
pub struct PublisherConfig {
    /// `http://host:port`, `https://…` or `unix:/path`.
    pub registry: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the publisher within the cluster.
    pub publisher: String,
    /// A file with the bearer token that the registry wants; read for each session, so that it may
    /// be rotated.
    pub token_file: Option<PathBuf>,
    /// Certificates of authorities, in PEM, that are trusted for `https://` instead of the system's.
    pub ca: Option<Vec<u8>>,
}

/// How the session stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether a session is open.
    pub connected: bool,
    /// Whether all that the index holds is durable at the registry.
    pub synced: bool,
    /// How many of the index's updates ([`SharedIndex::updates`]) were durable when it was last
    /// in sync; `None` before the first time.
    pub synced_updates: Option<u64>,
    /// How often the registry said something of entries that it does not take.
    pub verdicts: u64,
    /// Sessions that ended with an error.
    pub breaks: u64,
    /// Why the last one ended.
    pub last_error: Option<String>,
}

/// A registry address that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the registry address {address:?} cannot be used: {reason}")]
pub struct AddressError {
    address: String,
    reason: String,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("cannot reach the registry: {}", root(.0))]
    Connect(#[from] tonic::transport::Error),
    #[error("the registry ended the session: {}", .0.message())]
    Status(#[from] tonic::Status),
    #[error("the registry closed the stream")]
    Closed,
    #[error("the registry's token cannot be read from {0}")]
    Token(String),
    #[error("the registry acknowledged {0}, which was never sent")]
    Acknowledgement(u64),
}

/// The innermost cause, which is what says something (connection refused …).
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Publishes a shared index.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<SharedIndex>,
    config: PublisherConfig,
    channel: Channel,
    status: watch::Sender<Status>,
}

impl Publisher {
    /// Prepares to publish; connects when it runs.
    ///
    /// # Errors
    /// Where the registry's address cannot be used.
    pub fn new(shared: Arc<SharedIndex>, config: PublisherConfig) -> Result<Self, AddressError> {
        let bad = |reason: String| AddressError { address: config.registry.clone(), reason };
        let known = ["http://", "https://", "unix:"].iter().any(|s| config.registry.starts_with(s));
        if !known {
            return Err(bad("it must start with http://, https:// or unix:".into()));
        }
        let endpoint = Endpoint::from_shared(config.registry.clone())
            .map_err(|error| bad(root(&error)))?
            .connect_timeout(CONNECT_TIMEOUT)
            .keep_alive_while_idle(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .tcp_nodelay(true);
        let endpoint = if config.registry.starts_with("https://") {
            let tls = match &config.ca {
                Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                None => ClientTlsConfig::new().with_native_roots(),
            };
            endpoint.tls_config(tls).map_err(|error| bad(root(&error)))?
        } else {
            endpoint
        };
        let channel = endpoint.connect_lazy();
        Ok(Self { shared, config, channel, status: watch::Sender::default() })
    }

    /// Follows how the session stands.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Publishes until `stop`, whenever this process leads.
    pub async fn run(self, leadership: Leadership, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = leadership.begins() => {}
                () = stop.cancelled() => return,
            }
            // Whatever ends the term drops the session, and with it the stream.
            tokio::select! {
                () = self.publish(&leadership) => {}
                () = leadership.ends() => {}
                () = stop.cancelled() => return,
            }
            *self.shared.pending() = None;
            self.status.send_modify(|status| {
                status.connected = false;
                status.synced = false;
            });
        }
    }

    /// Publishes by one session after the other.
    async fn publish(&self, leadership: &Leadership) {
        let mut pause = FIRST_PAUSE;
        loop {
            let ended = Session::new(self, leadership.clone()).run().await;
            *self.shared.pending() = None;
            let was_synced = self.status.borrow().synced;
            if let Err(error) = ended {
                tracing::warn!(registry = %self.config.registry, %error, "publishing stopped; trying again");
                self.status.send_modify(|status| {
                    status.connected = false;
                    status.synced = false;
                    status.breaks += 1;
                    status.last_error = Some(error.to_string());
                });
            }
            if was_synced {
                pause = FIRST_PAUSE;
            }
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// One stream to the registry.
struct Session<'p> {
    publisher: &'p Publisher,
    leadership: Leadership,
    /// Last sequence number sent, and last one acknowledged.
    sent: u64,
    acknowledged: u64,
    /// How many requests may be unacknowledged.
    window: u64,
    ended_full_state: bool,
}

impl<'p> Session<'p> {
    fn new(publisher: &'p Publisher, leadership: Leadership) -> Self {
        Self { publisher, leadership, sent: 0, acknowledged: 0, window: 1, ended_full_state: false }
    }

    async fn run(mut self) -> Result<(), SessionError> {
        let publisher = self.publisher;
        let shared = &publisher.shared;
        let (sender, receiver) = mpsc::channel(CHANNEL);
        let hello = Message::Hello(Hello {
            cluster: publisher.config.cluster.clone(),
            publisher: publisher.config.publisher.clone(),
            session: format!("{:032x}", rand::random::<u128>()),
        });
        self.send(&sender, hello).await?;
        let mut client = PublisherServiceClient::new(publisher.channel.clone());
        // The last thing before the wire: a process that was paused may have lost the lease.
        let leadership = self.leadership.clone();
        let requests = ReceiverStream::new(receiver).take_while(move |_| leadership.holds());
        let mut request = tonic::Request::new(requests);
        if let Some(file) = &publisher.config.token_file {
            let unreadable =
                |why: String| SessionError::Token(format!("{}: {why}", file.display()));
            let token = tokio::fs::read_to_string(file).await;
            let token = token.map_err(|error| unreadable(error.to_string()))?;
            let value = format!("Bearer {}", token.trim()).parse();
            let value = value.map_err(|_| unreadable("it holds no token".to_owned()))?;
            request.metadata_mut().insert("authorization", value);
        }
        let mut responses = client.publish(request).await.map_err(connection)?.into_inner();
        let first = responses.next().await.ok_or(SessionError::Closed)??;
        self.window = u64::from(first.window.max(1));
        self.take(&first)?;
        publisher.status.send_modify(|status| status.connected = true);

        let rejected = shared.write().clear_rejections();
        shared.note_objects(&rejected);
        // From here on changes are sent after the full state, which is read as it is sent.
        *shared.pending() = Some(BTreeSet::new());
        let mut full: Vec<SmolStr> = shared.read().entry_ids().cloned().collect();
        full.sort_unstable();
        let mut full = full.into_iter();
        self.send(&sender, Message::Begin(Begin {})).await?;
        loop {
            while self.sent - self.acknowledged < self.window {
                let Some(message) = self.next(&mut full) else {
                    break;
                };
                self.send(&sender, message).await?;
            }
            self.report();
            let may_send = self.sent - self.acknowledged < self.window;
            tokio::select! {
                response = responses.next() => {
                    let response = response.ok_or(SessionError::Closed)??;
                    self.take(&response)?;
                }
                () = shared.wake.notified(), if may_send => {}
            }
        }
    }

    /// The next thing to say: the rest of the full state, its end, then changes.
    fn next(&mut self, full: &mut impl Iterator<Item = SmolStr>) -> Option<Message> {
        let shared = &self.publisher.shared;
        if !self.ended_full_state {
            let entry = full.find_map(|id| shared.read().entry(&id));
            return Some(match entry {
                Some(entry) => Message::Upsert(to_proto(entry)),
                None => {
                    self.ended_full_state = true;
                    Message::End(End {})
                }
            });
        }
        let id = shared.pending().as_mut()?.pop_first()?;
        let entry = shared.read().entry(&id);
        Some(match entry {
            Some(entry) => Message::Upsert(to_proto(entry)),
            None => Message::Remove(Remove { id: id.to_string() }),
        })
    }

    async fn send(
        &mut self,
        sender: &mpsc::Sender<PublishRequest>,
        message: Message,
    ) -> Result<(), SessionError> {
        self.sent += 1;
        let request = PublishRequest { sequence: self.sent, message: Some(message) };
        sender.send(request).await.map_err(|_| SessionError::Closed)
    }

    fn take(&mut self, response: &PublishResponse) -> Result<(), SessionError> {
        if response.acknowledged_sequence > self.sent {
            return Err(SessionError::Acknowledgement(response.acknowledged_sequence));
        }
        self.acknowledged = self.acknowledged.max(response.acknowledged_sequence);
        if !response.rejections.is_empty() || !response.resolved_ids.is_empty() {
            let mut index = self.publisher.shared.write();
            let mut objects = Vec::new();
            for id in &response.resolved_ids {
                objects.extend(index.set_rejection(id, None));
            }
            for rejection in &response.rejections {
                objects.extend(index.set_rejection(&rejection.id, Some(problem(rejection))));
            }
            drop(index);
            self.publisher.shared.note_objects(&objects);
            self.publisher.status.send_modify(|status| status.verdicts += 1);
        }
        Ok(())
    }

    /// Says whether everything is durable.
    fn report(&self) {
        // Read before what is pending: an update that is counted here is seen there.
        let updates = self.publisher.shared.updates();
        let synced = self.ended_full_state
            && self.acknowledged == self.sent
            && self.publisher.shared.pending().as_ref().is_some_and(BTreeSet::is_empty);
        self.publisher.status.send_if_modified(|status| {
            let through = if synced { Some(updates) } else { status.synced_updates };
            let changed = status.synced != synced || status.synced_updates != through;
            status.synced = synced;
            status.synced_updates = through;
            changed
        });
    }
}

/// A failure to connect comes as a status; its cause says more.
fn connection(status: tonic::Status) -> SessionError {
    match std::error::Error::source(&status) {
        Some(source) => SessionError::Status(tonic::Status::unavailable(root(source))),
        None => SessionError::Status(status),
    }
}

/// What a rejection says in the explanation of the entry's objects.
#[must_use]
pub fn problem(rejection: &Rejection) -> Problem {
    let code = match rejection.code.as_str() {
        "LinkedEntryNotFound" => Code::LinkedEntryNotFound,
        _ => Code::EntryRejected,
    };
    let (message, remedy) = match rejection.message.split_once(". ") {
        Some((message, remedy)) => (format!("{message}."), remedy.to_owned()),
        None => (rejection.message.clone(), "See the registry's log.".to_owned()),
    };
    Problem::error(code, format!("registry ({})", rejection.code), message, remedy)
}

/// An entry as it goes over the wire.
#[must_use]
pub fn to_proto(entry: Entry) -> v1::Entry {
    let remote =
        |(kind, url): (SmolStr, SmolStr)| v1::Remote { r#type: kind.into(), url: url.into() };
    let source = |key: Key| v1::ObjectReference {
        kind: key.kind.as_str().to_owned(),
        namespace: key.namespace.into(),
        name: key.name.into(),
    };
    v1::Entry {
        id: entry.id.into(),
        server_json: entry.server.into_bytes().into(),
        in_cluster_remotes: entry.in_cluster.into_iter().map(remote).collect(),
        link: entry.link.map(|link| v1::Link {
            name: link.name.into(),
            version: link.version.map(Into::into).unwrap_or_default(),
        }),
        registry: entry.registry.map(Into::into).unwrap_or_default(),
        authz_claims_json: entry.claims.map(|claims| claims.to_string()).unwrap_or_default(),
        sources: entry.sources.into_iter().map(source).collect(),
    }
}
