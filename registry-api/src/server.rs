//! Listening, draining: REST on one address, gRPC on another or on a Unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use envoy_types::ext_authz::v3::pb::AuthorizationServer;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use waymark_proto::v1::catalogue_service_server::CatalogueServiceServer;
use waymark_proto::v1::publisher_service_server::PublisherServiceServer;

use crate::catalogue::Handle;
use crate::gateway::{Authorizer, Gateway};
use crate::grpc::{Consumer, MAX_MESSAGE_BYTES, Receiver};
use crate::metrics::Metrics;
use crate::rest::Api;
use crate::running::Shown;
use crate::tls::{Tls, TlsListener};

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

/// What each server speaks TLS with; in the clear where it is `None`.
#[derive(Debug, Clone, Default)]
pub struct Transport {
    /// REST.
    pub http: Option<Tls>,
    /// gRPC, where it is not a Unix socket.
    pub grpc: Option<Tls>,
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

/// What is served, and how.
#[derive(Debug)]
pub struct Served {
    /// The catalogue.
    pub catalogue: Handle,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// What the process runs with.
    pub shown: Shown,
    /// The gateway plugin.
    pub gateway: Gateway,
    /// TLS.
    pub transport: Transport,
    /// A file of tokens that publishers have to show, but over a Unix socket.
    pub publisher_tokens: Option<PathBuf>,
    /// Most gRPC watches from one address at a time.
    pub watches_per_client: usize,
}

/// Who a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Connections in the clear.
struct PlainListener(TcpListener);

impl axum::serve::Listener for PlainListener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let (stream, peer) = axum::serve::Listener::accept(&mut self.0).await;
        // Answers are small: do not wait for more.
        let _ = stream.set_nodelay(true);
        (stream, peer)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, PlainListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, PlainListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        Self(*stream.remote_addr())
    }
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
    pub async fn serve(self, served: Served, stop: CancellationToken) -> Result<(), ServerError> {
        let Served { catalogue, metrics, shown, gateway, transport, .. } = served;
        let (tokens, watches) = (served.publisher_tokens, served.watches_per_client);
        for tls in [&transport.http, &transport.grpc].into_iter().flatten() {
            tokio::spawn(tls.clone().follow(stop.clone()));
        }
        tokio::spawn(gateway.clone().follow(catalogue.clone(), stop.clone()));
        let authorizer = Authorizer::new(
            gateway.clone(),
            catalogue.clone(),
            shown.clone(),
            Arc::clone(&metrics),
        );
        let api = Api::new(catalogue.clone(), Arc::clone(&metrics), shown, gateway);
        let service = api.router().into_make_service_with_connect_info::<Peer>();
        let stopped = stop.clone().cancelled_owned();
        let http_stop = stop.clone();
        let rest = async move {
            match transport.http {
                None => {
                    let listener = PlainListener(self.http);
                    axum::serve(listener, service).with_graceful_shutdown(stopped).await
                }
                Some(tls) => {
                    let listener = tls.accept(self.http, http_stop);
                    axum::serve(listener, service).with_graceful_shutdown(stopped).await
                }
            }
        };

        let (health_reporter, health) = tonic_health::server::health_reporter();
        health_reporter.set_serving::<PublisherServiceServer<Receiver>>().await;
        health_reporter.set_serving::<CatalogueServiceServer<Consumer>>().await;
        health_reporter.set_serving::<AuthorizationServer<Authorizer>>().await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(waymark_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let receiver = Receiver::new(catalogue.clone(), Arc::clone(&metrics), tokens, stop.clone());
        let consumer = Consumer::new(catalogue, metrics, watches, stop.clone());
        let router = Server::builder()
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .tcp_nodelay(true)
            .add_service(health)
            .add_service(reflection)
            .add_service(AuthorizationServer::new(authorizer))
            .add_service(
                PublisherServiceServer::new(receiver).max_decoding_message_size(MAX_MESSAGE_BYTES),
            )
            .add_service(
                CatalogueServiceServer::new(consumer).max_decoding_message_size(MAX_MESSAGE_BYTES),
            );
        let stopped = stop.clone().cancelled_owned();
        let grpc = async {
            match (self.grpc, transport.grpc) {
                (GrpcListener::Tcp(listener), Some(tls)) => {
                    let incoming = tls.accept(listener, stop.clone()).into_stream();
                    router.serve_with_incoming_shutdown(incoming, stopped).await
                }
                (GrpcListener::Tcp(listener), None) => {
                    router
                        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped)
                        .await
                }
                (GrpcListener::Unix(listener, path), _) => {
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
