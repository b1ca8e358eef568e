//! A publish session, by hand.
#![allow(unreachable_pub, dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use waymark_proto::v1::publish_request::Message;
use waymark_proto::v1::publisher_service_client::PublisherServiceClient;
use waymark_proto::v1::{Begin, End, Entry, Hello, PublishRequest, PublishResponse, Rejection};

use crate::common::PATIENCE;

/// A publisher, by hand.
pub struct Session {
    pub sender: mpsc::Sender<PublishRequest>,
    pub responses: Streaming<PublishResponse>,
    pub sequence: u64,
    pub acknowledged: u64,
    pub rejections: Vec<Rejection>,
    pub resolved: Vec<String>,
}

impl Session {
    pub async fn open(grpc: &str, publisher: &str) -> Self {
        let mut client = PublisherServiceClient::connect(grpc.to_owned()).await.unwrap();
        let (sender, receiver) = mpsc::channel(64);
        let mut session = {
            let hello =
                Hello { cluster: "c".into(), publisher: publisher.into(), session: "s".into() };
            let request = PublishRequest { sequence: 1, message: Some(Message::Hello(hello)) };
            sender.send(request).await.unwrap();
            let responses =
                client.publish(ReceiverStream::new(receiver)).await.unwrap().into_inner();
            Self {
                sender,
                responses,
                sequence: 1,
                acknowledged: 0,
                rejections: vec![],
                resolved: vec![],
            }
        };
        let first = session.responses.next().await.unwrap().unwrap();
        assert!(first.window > 0);
        session.acknowledged = first.acknowledged_sequence;
        session
    }

    /// The same, where nobody may be there.
    pub async fn try_open(grpc: &str, publisher: &str) -> Option<Self> {
        PublisherServiceClient::connect(grpc.to_owned()).await.ok()?;
        let (grpc, publisher) = (grpc.to_owned(), publisher.to_owned());
        // A registry that is killed meanwhile panics the helper, not the test.
        tokio::spawn(async move { Self::open(&grpc, &publisher).await }).await.ok()
    }

    /// A full state; whether it became durable before the session ended.
    pub async fn try_full(&mut self, entries: &[(&str, Vec<u8>)]) -> bool {
        self.say(Message::Begin(Begin {})).await;
        for (id, server) in entries {
            if !self.upsert(id, server.clone()).await {
                return false;
            }
        }
        self.say(Message::End(End {})).await && self.try_durable().await
    }

    /// Waits until everything that was said is durable; `false` where the session ends before.
    pub async fn try_durable(&mut self) -> bool {
        while self.acknowledged < self.sequence {
            match self.response().await {
                Some(Ok(())) => {}
                _ => return false,
            }
        }
        true
    }

    pub async fn say(&mut self, message: Message) -> bool {
        self.sequence += 1;
        let request = PublishRequest { sequence: self.sequence, message: Some(message) };
        self.sender.send(request).await.is_ok()
    }

    pub async fn upsert(&mut self, id: &str, server: Vec<u8>) -> bool {
        let entry = Entry { id: id.into(), server_json: server.into(), ..Entry::default() };
        self.say(Message::Upsert(entry)).await
    }

    /// Reads one response; `None` when the stream is over.
    pub async fn response(&mut self) -> Option<Result<(), Status>> {
        let next = tokio::time::timeout(PATIENCE, self.responses.next()).await.unwrap()?;
        Some(next.map(|response| {
            self.acknowledged = response.acknowledged_sequence;
            self.rejections.extend(response.rejections);
            self.resolved.extend(response.resolved_ids);
        }))
    }

    /// Waits until everything that was said is durable.
    pub async fn durable(&mut self) {
        while self.acknowledged < self.sequence {
            self.response().await.expect("an open stream").unwrap();
        }
    }

    /// Waits for the stream's end, and its status.
    pub async fn ended(&mut self) -> Status {
        loop {
            match self.response().await {
                Some(Ok(())) => {}
                Some(Err(status)) => return status,
                None => panic!("the stream ended without a status"),
            }
        }
    }

    pub async fn full(&mut self, entries: &[(&str, Vec<u8>)]) {
        self.say(Message::Begin(Begin {})).await;
        for (id, server) in entries {
            self.upsert(id, server.clone()).await;
        }
        self.say(Message::End(End {})).await;
        self.durable().await;
    }
}
