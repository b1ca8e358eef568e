//! A web server that does as a test says.
#![allow(unreachable_pub, dead_code)]

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use axum::serve::Listener;
use http::{HeaderMap, Method, StatusCode, Uri};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

type Function = Arc<dyn Fn(&Uri) -> (StatusCode, String) + Send + Sync>;

/// What the server answers with.
#[derive(Clone)]
pub enum Reply {
    /// A document, with an ETag.
    Document(Vec<u8>),
    /// A status alone.
    Status(u16),
    /// A redirect.
    Redirect(String),
    /// A body without an end.
    Endless,
    /// A length that is not sent.
    Announced(u64),
    /// An answer that does not come.
    Nothing,
    /// A document for who sends this header only.
    Guarded(&'static str, String, Vec<u8>),
    /// What `git http-backend` says of the repositories of a folder.
    Git(PathBuf),
    /// What a function says of the request.
    By(Function),
}

/// One request that came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub path: String,
    pub headers: HeaderMap,
    pub status: u16,
}

pub struct Web {
    pub address: SocketAddr,
    scheme: &'static str,
    reply: Arc<Mutex<Reply>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    runtime: Option<tokio::runtime::Runtime>,
    /// The certificate of the server, PEM.
    pub certificate: String,
}

/// TLS in front of a listener.
struct Tls(TcpListener, TlsAcceptor);

impl Listener for Tls {
    type Io = tokio_rustls::server::TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, address) = self.0.accept().await.unwrap();
            // Who does not trust the certificate goes away.
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Web {
    pub fn start(reply: Reply) -> Self {
        Self::serve(reply, false)
    }

    /// The same behind TLS, with a certificate for `localhost` that nobody else has signed.
    pub fn tls(reply: Reply) -> Self {
        Self::serve(reply, true)
    }

    fn serve(reply: Reply, tls: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (reply, asked) = (Arc::new(Mutex::new(reply)), Arc::new(Mutex::new(Vec::new())));
        let app = {
            let (reply, asked) = (Arc::clone(&reply), Arc::clone(&asked));
            axum::Router::new().fallback(move |request: Request| {
                let reply = reply.lock().unwrap().clone();
                let asked = Arc::clone(&asked);
                async move {
                    let (path, headers) = (request.uri().to_string(), request.headers().clone());
                    let response = answer(reply, request).await;
                    let status = response.status().as_u16();
                    asked.lock().unwrap().push(Asked { path, headers, status });
                    response
                }
            })
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener).unwrap()
        };
        let address = listener.local_addr().unwrap();
        let mut certificate = String::new();
        if tls {
            let generated = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            certificate = generated.cert.pem();
            let key = PrivatePkcs8KeyDer::from(generated.signing_key.serialize_der());
            let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
            let config = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![generated.cert.der().clone()], PrivateKeyDer::from(key))
                .unwrap();
            let listener = Tls(listener, TlsAcceptor::from(Arc::new(config)));
            runtime.spawn(async move { axum::serve(listener, app).await });
        } else {
            runtime.spawn(async move { axum::serve(listener, app).await });
        }
        let scheme = if tls { "https" } else { "http" };
        Self { address, scheme, reply, asked, runtime: Some(runtime), certificate }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://localhost:{}{path}", self.scheme, self.address.port())
    }

    pub fn set(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    /// The requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub fn forget(&self) {
        self.asked.lock().unwrap().clear();
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn answer(reply: Reply, request: Request) -> Response {
    let status = |status: u16| Response::builder().status(status);
    match reply {
        Reply::Document(bytes) => document(&bytes, request.headers()),
        Reply::Status(code) => status(code).body(Body::empty()).unwrap(),
        Reply::Redirect(to) => status(302).header("location", to).body(Body::empty()).unwrap(),
        Reply::Endless => {
            let chunk = Bytes::from(vec![b' '; 1 << 16]);
            let endless =
                futures::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
            status(200).body(Body::from_stream(endless)).unwrap()
        }
        Reply::Announced(length) => {
            let nothing = futures::stream::pending::<Result<Bytes, std::io::Error>>();
            let body = Body::from_stream(nothing);
            status(200).header("content-length", length).body(body).unwrap()
        }
        Reply::Nothing => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            status(200).body(Body::empty()).unwrap()
        }
        Reply::Guarded(header, value, bytes) => {
            match request.headers().get(header).is_some_and(|given| *given == value) {
                true => document(&bytes, request.headers()),
                false => status(401).body(Body::empty()).unwrap(),
            }
        }
        Reply::Git(folder) => git(&folder, request).await,
        Reply::By(function) => {
            let (code, text) = function(request.uri());
            let json = Response::builder().status(code).header("content-type", "application/json");
            json.body(Body::from(text)).unwrap()
        }
    }
}

fn document(bytes: &[u8], headers: &HeaderMap) -> Response {
    let sum: u64 =
        bytes.iter().fold(7, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    let etag = format!("\"{sum:x}\"");
    let known = headers.get("if-none-match").is_some_and(|known| *known == etag);
    let response = Response::builder().status(if known { 304 } else { 200 }).header("etag", etag);
    response.body(if known { Body::empty() } else { Body::from(bytes.to_vec()) }).unwrap()
}

/// The CGI that git brings.
async fn git(folder: &Path, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 30).await.unwrap();
    let header = |name: &str| {
        parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    let mut command = std::process::Command::new("git");
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", folder)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if parts.method == Method::POST {
        command.env("CONTENT_LENGTH", body.len().to_string());
    }
    let output = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &body));
        let mut output = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
        let _ = writer.join();
        child.wait().unwrap();
        output
    });
    let output = output.await.unwrap();
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(output.len());
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let mut response = Response::builder();
    for line in head.lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        response = match name {
            "Status" => response.status(value[..3].parse::<u16>().unwrap()),
            name => response.header(name, value),
        };
    }
    let body = output.get(end + 4..).unwrap_or_default().to_vec();
    response.body(Body::from(body)).unwrap()
}
