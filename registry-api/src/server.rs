//! Listening, draining: REST on one address, gRPC on another or on a Unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use waymark_proto::v1::catalogue_service_server::CatalogueServiceServer;
use waymark_proto::v1::publisher_service_server::PublisherServiceServer;

use crate::catalogue::Handle;
use crate::grpc::{Consumer, MAX_MESSAGE_BYTES, Receiver};
use crate::metrics::Metrics;
use crate::rest::Api;
use crate::running::Shown;

/// How long open requests may take to end after a signal.
const DRAIN: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err("unix: needs a path, for example unix:/run/waymark.sock".into());
            }
            return Ok(Self::Unix(path.into()));
        }
        let address = text.parse();
        address.map(Self::Tcp).map_err(|_| {
            format!("{text:?} is neither IP:PORT nor unix:/path (for all addresses: 0.0.0.0:PORT)")
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The server cannot listen, or stopped listening.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be used.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// The gRPC server failed.
    #[error("the gRPC server failed: {0}")]
    Grpc(#[from] tonic::transport::Error),
    /// The reflection service could not be built from the contracts.
    #[error("the gRPC contracts cannot be reflected: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The HTTP server failed.
    #[error("the HTTP server failed: {0}")]
    Http(#[from] std::io::Error),
}

enum GrpcListener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// Both servers, listening but not yet serving: their addresses are known.
pub struct Listening {
    http: TcpListener,
    grpc: GrpcListener,
    /// Address of REST, with the port that the system chose where 0 was asked for.
    pub http_address: SocketAddr,
    /// Address of gRPC.
    pub grpc_address: Address,
}

/// Starts to listen.
///
/// # Errors
/// Where an address cannot be used.
pub async fn listen(http: SocketAddr, grpc: &Address) -> Result<Listening, ServerError> {
    let failed = |address: String| move |error| ServerError::Listen { address, error };
    let http_listener = TcpListener::bind(http).await.map_err(failed(http.to_string()))?;
    let grpc_listener = match grpc {
        Address::Tcp(address) => {
            let bound = TcpListener::bind(address).await;
            GrpcListener::Tcp(bound.map_err(failed(address.to_string()))?)
        }
        Address::Unix(path) => {
            // A socket that a killed process left behind; one that is in use is not removed.
            if tokio::net::UnixStream::connect(path).await.is_err() {
                let _ = std::fs::remove_file(path);
            }
            let bound = UnixListener::bind(path).map_err(failed(grpc.to_string()))?;
            GrpcListener::Unix(bound, path.clone())
        }
    };
    let grpc_address = match &grpc_listener {
        GrpcListener::Tcp(listener) => Address::Tcp(listener.local_addr()?),
        GrpcListener::Unix(_, path) => Address::Unix(path.clone()),
    };
    let http_address = http_listener.local_addr()?;
    Ok(Listening { http: http_listener, grpc: grpc_listener, http_address, grpc_address })
}

impl Listening {
    /// Serves until `stop`, then lets open requests end.
    ///
    /// # Errors
    /// Where a server fails.
    pub async fn serve(
        self,
        catalogue: Handle,
        metrics: Arc<Metrics>,
        shown: Shown,
        watches_per_client: usize,
        stop: CancellationToken,
    ) -> Result<(), ServerError> {
        let api = Api::new(catalogue.clone(), Arc::clone(&metrics), shown);
        let rest = axum::serve(
            axum::serve::ListenerExt::tap_io(self.http, |stream| {
                // Answers are small: do not wait for more.
                let _ = stream.set_nodelay(true);
            }),
            api.router(),
        )
        .with_graceful_shutdown(stop.clone().cancelled_owned());

        let (health_reporter, health) = tonic_health::server::health_reporter();
        health_reporter.set_serving::<PublisherServiceServer<Receiver>>().await;
        health_reporter.set_serving::<CatalogueServiceServer<Consumer>>().await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(waymark_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let receiver = Receiver::new(catalogue.clone(), Arc::clone(&metrics), stop.clone());
        let consumer = Consumer::new(catalogue, metrics, watches_per_client, stop.clone());
        let router = Server::builder()
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .tcp_nodelay(true)
            .add_service(health)
            .add_service(reflection)
            .add_service(
                PublisherServiceServer::new(receiver).max_decoding_message_size(MAX_MESSAGE_BYTES),
            )
            .add_service(
                CatalogueServiceServer::new(consumer).max_decoding_message_size(MAX_MESSAGE_BYTES),
            );
        let stopped = stop.clone().cancelled_owned();
        let grpc = async {
            match self.grpc {
                GrpcListener::Tcp(listener) => {
                    router
                        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped)
                        .await
                }
                GrpcListener::Unix(listener, path) => {
                    let incoming = UnixListenerStream::new(listener);
                    let served = router.serve_with_incoming_shutdown(incoming, stopped).await;
                    let _ = std::fs::remove_file(path);
                    served
                }
            }
        };
        let both = async {
            tokio::try_join!(async { rest.await.map_err(ServerError::from) }, async {
                grpc.await.map_err(ServerError::from)
            })
        };
        let late = async {
            stop.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            served = both => served.map(|_| ()),
            () = late => {
                tracing::warn!("some requests did not end within {DRAIN:?}; closing them");
                Ok(())
            }
        }
    }
}
