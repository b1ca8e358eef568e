//! TLS of what is served: certificates that are read again when they change, and, where it is asked
//! for, certificates of clients.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// How often it is looked whether the files changed: a mounted Secret changes seldom.
const LOOK: Duration = Duration::from_secs(5);
/// Longest that a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes that may be under way.
const PENDING: usize = 256;

/// Where the certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and its chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Certificates of the authorities of clients, PEM: with them a client must show one.
    pub client_ca: Option<PathBuf>,
}

/// Files that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        error: rustls::pki_types::pem::Error,
    },
    /// A file holds no certificate.
    #[error("{0} holds no certificate in PEM")]
    Empty(String),
    /// They do not fit together.
    #[error("the certificate and the key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// The authorities of clients cannot be used.
    #[error("the authorities of clients in {0} cannot be used: {1}")]
    ClientCa(String, String),
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let shown = || path.display().to_string();
    let read = |error| TlsError::Read { path: shown(), error };
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(read)?.collect();
    let all = all.map_err(read)?;
    if all.is_empty() { Err(TlsError::Empty(shown())) } else { Ok(all) }
}

/// TLS that can be served with.
#[derive(Clone)]
pub struct Tls {
    files: TlsFiles,
    config: Arc<ArcSwap<ServerConfig>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.files.fmt(f)
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Where they cannot be used.
    pub fn read(files: TlsFiles) -> Result<Self, TlsError> {
        let config = ArcSwap::from_pointee(config(&files)?);
        Ok(Self { files, config: Arc::new(config) })
    }

    /// Reads the files again whenever they change, until `stop`. Files that cannot be used change
    /// nothing.
    pub async fn follow(self, stop: CancellationToken) {
        let mut seen = stamps(&self.files);
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => return,
            }
            let now = stamps(&self.files);
            if now == seen {
                continue;
            }
            match config(&self.files) {
                Ok(config) => {
                    self.config.store(Arc::new(config));
                    tracing::info!("the TLS certificate was read again");
                    seen = now;
                }
                // The certificate may have changed, and its key not yet: it is tried again.
                Err(error) => tracing::error!("the TLS certificate stays as it was: {error}"),
            }
        }
    }

    /// Accepts connections in TLS. A client that is slow, or does not speak TLS, keeps no other
    /// waiting.
    #[must_use]
    pub fn accept(self, listener: TcpListener, stop: CancellationToken) -> TlsListener {
        let address = listener.local_addr();
        let (sender, accepted) = mpsc::channel(PENDING);
        tokio::spawn(async move {
            let handshakes = Arc::new(tokio::sync::Semaphore::new(PENDING));
            loop {
                let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
                let stream = tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => stream,
                        Err(_) => {
                            // No more file descriptors, for example: they come back.
                            tokio::time::sleep(Duration::from_millis(100)).await;
                            continue;
                        }
                    },
                    () = stop.cancelled() => return,
                };
                let _ = stream.set_nodelay(true);
                let acceptor = TlsAcceptor::from(self.config.load_full());
                let sender = sender.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => drop(sender.send(TlsConnection(Box::new(stream))).await),
                        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                        Err(_) => tracing::debug!("a TLS handshake took too long"),
                    }
                });
            }
        });
        TlsListener { accepted, address }
    }
}

fn config(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| TlsError::Read { path: files.key.display().to_string(), error })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let unusable = |why: String| TlsError::ClientCa(path.display().to_string(), why);
            let mut roots = rustls::RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|e| unusable(e.to_string()))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn stamps(files: &TlsFiles) -> Vec<Option<(SystemTime, u64)>> {
    let all = [Some(&files.certificate), Some(&files.key), files.client_ca.as_ref()];
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    all.into_iter().flatten().map(stamp).collect()
}

/// A connection in TLS.
pub struct TlsConnection(Box<TlsStream<TcpStream>>);

/// A listener whose connections are in TLS.
pub struct TlsListener {
    accepted: mpsc::Receiver<TlsConnection>,
    address: io::Result<std::net::SocketAddr>,
}

impl TlsListener {
    /// The connections as a stream, which ends when nothing is accepted any more.
    pub(crate) fn into_stream(
        self,
    ) -> impl futures::Stream<Item = Result<TlsConnection, io::Error>> + Send {
        futures::stream::unfold(self.accepted, async |mut accepted| {
            accepted.recv().await.map(|connection| (Ok(connection), accepted))
        })
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsConnection;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (TlsConnection, std::net::SocketAddr) {
        match self.accepted.recv().await {
            Some(connection) => {
                let peer = connection.0.get_ref().0.peer_addr();
                let unknown = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
                (connection, peer.unwrap_or(unknown))
            }
            // The process is shutting down.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<std::net::SocketAddr> {
        self.address.as_ref().copied().map_err(|error| error.kind().into())
    }
}

impl Connected for TlsConnection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.0.get_ref().0.connect_info()
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}
