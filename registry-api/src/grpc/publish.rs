//! `PublisherService`: a stream of entries in, acknowledgements out.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use smol_str::{SmolStr, format_smolstr};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status, Streaming};
use waymark_proto::v1::publish_request::Message;
use waymark_proto::v1::publisher_service_server::PublisherService;
use waymark_proto::v1::{Hello, PublishRequest, PublishResponse, Rejection};

use crate::catalogue::{
    Handle, MAX_ID_BYTES, Operation, PublishOutcome, Refusal, SessionId, Unavailable, prepare,
};
use crate::metrics::Metrics;
use crate::running::{Tokens, bearer};

/// Requests that a publisher may have under way unacknowledged.
const WINDOW: u32 = 4096;
/// Most operations that go to the writer as one command.
const CHUNK: usize = 512;
/// How long a stream may stay without a hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_NAME: usize = 253;

/// Takes entries from publishers.
#[derive(Debug, Clone)]
pub struct Receiver {
    catalogue: Handle,
    metrics: Arc<Metrics>,
    tokens: Option<Arc<Path>>,
    stop: CancellationToken,
}

/// Who may publish in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Publisher {
    /// Whoever it is: no tokens are asked for, or the peer has reached the socket.
    Anybody,
    /// The one whose token this is: it publishes for this cluster only.
    Cluster(SmolStr),
}

impl Receiver {
    /// A service that feeds `catalogue` until `stop`, of publishers that show a token of a file,
    /// where one is given.
    #[must_use]
    pub fn new(
        catalogue: Handle,
        metrics: Arc<Metrics>,
        tokens: Option<PathBuf>,
        stop: CancellationToken,
    ) -> Self {
        Self { catalogue, metrics, tokens: tokens.map(Arc::from), stop }
    }

    /// Who opens a session. What is wrong with the file is the admin's to know, not the peer's.
    fn publisher<T>(&self, request: &Request<T>) -> Result<Publisher, Status> {
        let socket = request.extensions().get::<UdsConnectInfo>().is_some();
        let Some(file) = self.tokens.as_ref().filter(|_| !socket) else {
            return Ok(Publisher::Anybody);
        };
        let tokens = Tokens::read(file).map_err(|error| {
            tracing::error!("no publisher is let in: {error}");
            Status::unavailable("the registry cannot check tokens at the moment")
        })?;
        let given = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = given.and_then(bearer);
        let known = token.and_then(|token| tokens.bearer(token));
        known.cloned().map(Publisher::Cluster).ok_or_else(|| {
            let why = if token.is_some() { "an unknown token" } else { "no token" };
            tracing::warn!(peer = ?request.remote_addr(), "a publisher was refused: it showed {why}");
            Status::unauthenticated("publishing needs a bearer token that the registry knows")
        })
    }
}

type Responses = Pin<Box<dyn Stream<Item = Result<PublishResponse, Status>> + Send>>;

#[tonic::async_trait]
impl PublisherService for Receiver {
    type PublishStream = Responses;

    async fn publish(
        &self,
        request: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let publisher = self.publisher(&request).inspect_err(|status| {
            self.metrics.grpc("waymark.registry.v1.PublisherService", "Publish", status.code());
        })?;
        let (sender, receiver) = mpsc::channel(16);
        let this = self.clone();
        let requests = request.into_inner();
        tokio::spawn(async move {
            let ended = this.session(requests, &publisher, &sender).await;
            let code = ended.as_ref().map_or_else(Status::code, |()| tonic::Code::Ok);
            this.metrics.grpc("waymark.registry.v1.PublisherService", "Publish", code);
            if let Err(status) = ended {
                tracing::info!(code = ?status.code(), reason = status.message(), "a publish session ended");
                // The publisher may be gone.
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))))
    }
}

impl From<Unavailable> for Status {
    fn from(error: Unavailable) -> Self {
        Self::unavailable(error.to_string())
    }
}

fn broken(what: &str) -> Status {
    Status::invalid_argument(what)
}

impl Receiver {
    async fn session(
        &self,
        mut requests: Streaming<PublishRequest>,
        publisher: &Publisher,
        responses: &mpsc::Sender<Result<PublishResponse, Status>>,
    ) -> Result<(), Status> {
        let first = tokio::time::timeout(HELLO_TIMEOUT, requests.next())
            .await
            .map_err(|_| broken("no hello came within 10 s"))?
            .ok_or_else(|| broken("the stream ended before the hello"))??;
        let source = match (first.sequence, first.message) {
            (1, Some(Message::Hello(hello))) => {
                let source = source(&hello)?;
                if let Publisher::Cluster(own) = publisher
                    && *own != hello.cluster
                {
                    tracing::warn!(%source, %own, "a publisher was refused: its token is another cluster's");
                    let message =
                        "the token is not one of this cluster; it publishes for its own only";
                    return Err(Status::permission_denied(message));
                }
                source
            }
            _ => {
                return Err(broken("the first request must be the hello, with sequence 1"));
            }
        };
        tracing::info!(%source, "a publisher opened a session");
        let (session, mut outcomes) = self.catalogue.open(source.clone()).await?;
        let hello = PublishResponse {
            acknowledged_sequence: 1,
            window: WINDOW,
            ..PublishResponse::default()
        };
        let ended = if responses.send(Ok(hello)).await.is_err() {
            Ok(())
        } else {
            tokio::select! {
                ended = self.talk(&mut requests, &source, session, &mut outcomes, responses) => ended,
                () = self.stop.cancelled() => Err(Unavailable.into()),
            }
        };
        self.catalogue.close(source, session).await;
        ended
    }

    async fn talk(
        &self,
        requests: &mut Streaming<PublishRequest>,
        source: &SmolStr,
        session: SessionId,
        outcomes: &mut mpsc::Receiver<PublishOutcome>,
        responses: &mpsc::Sender<Result<PublishResponse, Status>>,
    ) -> Result<(), Status> {
        let mut told = 1;
        let last = tokio::select! {
            last = self.take(requests, source, session) => last?,
            ended = answer(outcomes, responses, &mut told, None) => return ended,
        };
        // The publisher has no more to say, but still hears what became of it.
        answer(outcomes, responses, &mut told, Some(last)).await
    }

    /// Hands requests to the writer, as many at a time as are there. Returns the last sequence
    /// number when the publisher has no more to say.
    async fn take(
        &self,
        requests: &mut Streaming<PublishRequest>,
        source: &SmolStr,
        session: SessionId,
    ) -> Result<u64, Status> {
        let mut checker = Protocol { sequence: 1, full: None };
        let mut chunks = futures::StreamExt::ready_chunks(requests, CHUNK);
        while let Some(chunk) = chunks.next().await {
            let mut operations = Vec::with_capacity(chunk.len());
            let mut failure = None;
            for request in chunk {
                match request.and_then(|request| checker.check(request)) {
                    Ok(operation) => operations.push(operation),
                    Err(status) => {
                        failure = Some(status);
                        break;
                    }
                }
            }
            for operation in &operations {
                if let Operation::Upsert(_, entry) = operation
                    && let Err(refusal) = entry.as_ref()
                {
                    self.metrics.refused(refusal.code);
                }
            }
            // What came before the failure was right, and is kept.
            let sequence = checker.sequence;
            self.catalogue.publish(source.clone(), session, sequence, operations).await?;
            if let Some(status) = failure {
                return Err(status);
            }
        }
        Ok(checker.sequence)
    }
}

/// Passes on what the writer says, until everything up to `until` is acknowledged.
async fn answer(
    outcomes: &mut mpsc::Receiver<PublishOutcome>,
    responses: &mpsc::Sender<Result<PublishResponse, Status>>,
    told: &mut u64,
    until: Option<u64>,
) -> Result<(), Status> {
    while until.is_none_or(|until| *told < until) {
        match outcomes.recv().await.ok_or(Unavailable)? {
            PublishOutcome::Durable { sequence, refused, resolved } => {
                if sequence <= *told && refused.is_empty() && resolved.is_empty() {
                    continue;
                }
                *told = (*told).max(sequence);
                let response = PublishResponse {
                    acknowledged_sequence: *told,
                    window: 0,
                    rejections: refused.into_iter().map(rejection).collect(),
                    resolved_ids: resolved.into_iter().map(Into::into).collect(),
                };
                if responses.send(Ok(response)).await.is_err() {
                    return Ok(());
                }
            }
            PublishOutcome::Ended(_) => {
                return Err(Status::aborted("a newer session of this publisher took over"));
            }
        }
    }
    Ok(())
}

fn rejection((id, refusal): (SmolStr, Refusal)) -> Rejection {
    Rejection { id: id.into(), code: refusal.code.to_owned(), message: refusal.message }
}

fn source(hello: &Hello) -> Result<SmolStr, Status> {
    for (what, text) in
        [("cluster", &hello.cluster), ("publisher", &hello.publisher), ("session", &hello.session)]
    {
        let plain = |c: char| c.is_ascii_graphic() && c != '/';
        if text.is_empty() || text.len() > MAX_NAME || !text.chars().all(plain) {
            return Err(broken(&format!(
                "hello.{what} must have 1 to {MAX_NAME} printable ASCII characters, no slash and no space"
            )));
        }
    }
    Ok(format_smolstr!("{}/{}", hello.cluster, hello.publisher))
}

/// Checks the order of requests.
struct Protocol {
    sequence: u64,
    /// Whether a full state is open (`Some(true)`) or was ended; `None` before the first.
    full: Option<bool>,
}

impl Protocol {
    fn check(&mut self, request: PublishRequest) -> Result<Operation, Status> {
        if request.sequence != self.sequence + 1 {
            return Err(broken(&format!(
                "sequence {} follows {}, {} was expected",
                request.sequence,
                self.sequence,
                self.sequence + 1
            )));
        }
        let message = request.message.ok_or_else(|| broken("a request without a message"))?;
        let operation = match (message, self.full) {
            (Message::Hello(_), _) => return Err(broken("a second hello")),
            (Message::Begin(_), Some(true)) => return Err(broken("begin within a full state")),
            (Message::Begin(_), _) => {
                self.full = Some(true);
                Operation::Begin
            }
            (_, None) => return Err(broken("a full state must come first: send begin")),
            (Message::End(_), Some(true)) => {
                self.full = Some(false);
                Operation::End
            }
            (Message::End(_), _) => return Err(broken("end without begin")),
            (Message::Upsert(entry), _) => {
                check_id(&entry.id)?;
                Operation::Upsert(entry.id.as_str().into(), Box::new(prepare(&entry)))
            }
            (Message::Remove(_), Some(true)) => {
                return Err(broken("remove within a full state: leave the entry out instead"));
            }
            (Message::Remove(remove), _) => {
                check_id(&remove.id)?;
                Operation::Remove(remove.id.into())
            }
        };
        self.sequence = request.sequence;
        Ok(operation)
    }
}

fn check_id(id: &str) -> Result<(), Status> {
    if id.is_empty() || id.len() > MAX_ID_BYTES {
        return Err(broken(&format!("an id must have 1 to {MAX_ID_BYTES} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use waymark_proto::v1::{Begin, End, Entry, Remove};

    #[test]
    fn what_breaks_the_protocol() {
        let entry = || Message::Upsert(Entry { id: "a".into(), ..Entry::default() });
        let remove = || Message::Remove(Remove { id: "a".into() });
        let begin = || Message::Begin(Begin {});
        let end = || Message::End(End {});
        for (messages, expected) in [
            (vec![begin(), entry(), end(), entry(), remove()], None),
            (vec![begin(), end(), begin(), end()], None),
            (vec![entry()], Some("full state must come first")),
            (vec![remove()], Some("full state must come first")),
            (vec![end()], Some("full state must come first")),
            (vec![begin(), begin()], Some("begin within")),
            (vec![begin(), remove()], Some("remove within")),
            (vec![begin(), end(), end()], Some("end without")),
            (vec![begin(), Message::Hello(Hello::default())], Some("second hello")),
            (vec![begin(), Message::Upsert(Entry::default())], Some("an id must have")),
        ] {
            let mut protocol = Protocol { sequence: 1, full: None };
            let failed = messages.into_iter().zip(2..).find_map(|(message, sequence)| {
                protocol.check(PublishRequest { sequence, message: Some(message) }).err()
            });
            match (failed, expected) {
                (None, None) => {}
                (Some(status), Some(part)) if status.message().contains(part) => {}
                (failed, expected) => panic!("{failed:?}, expected {expected:?}"),
            }
        }
        let mut protocol = Protocol { sequence: 1, full: None };
        let gap = PublishRequest { sequence: 3, message: Some(begin()) };
        assert!(protocol.check(gap).unwrap_err().message().contains("2 was expected"));
    }

    #[test]
    fn names_in_the_hello() {
        let hello = |cluster: &str| Hello {
            cluster: cluster.into(),
            publisher: "p".into(),
            session: "s".into(),
        };
        assert_eq!(source(&hello("c")).unwrap(), "c/p");
        for bad in ["", "a/b", "a b", "a\n", &"x".repeat(254)] {
            assert!(source(&hello(bad)).is_err(), "{bad:.20}");
        }
    }
}
