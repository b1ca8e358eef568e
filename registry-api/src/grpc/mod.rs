//! The gRPC services.

mod consume;
mod mask;
mod publish;
mod watches;

pub use consume::Consumer;
pub use publish::Receiver;

use crate::catalogue::Served;
use jiff::Timestamp;
use waymark_catalogue::meta::Status;
use waymark_proto::v1;

/// Most bytes of one message from a client: an entry and what goes around it.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

fn server(served: &Served) -> v1::Server {
    let official = &served.official;
    v1::Server {
        name: served.key.name.to_string(),
        version: served.key.version.to_string(),
        server_json: served.server(),
        official: Some(v1::Official {
            status: match official.status {
                Status::Active => v1::Status::Active,
                Status::Deprecated => v1::Status::Deprecated,
                Status::Deleted => v1::Status::Deleted,
            }
            .into(),
            status_changed_at: Some(timestamp(official.status_changed_at)),
            published_at: Some(timestamp(official.published_at)),
            updated_at: Some(timestamp(official.updated_at)),
            is_latest: official.is_latest,
            status_message: official.status_message.clone().unwrap_or_default(),
        }),
        revision: served.revision,
        stale: served.stale,
    }
}
