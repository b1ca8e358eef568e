//! Git over SSH, without a program to start: one session, one `git-upload-pack` at its other end.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use gix_transport::Protocol;
use gix_transport::client::git::{ConnectMode, blocking_io::Connection};
use russh::client::{self, Handle, Msg};
use russh::keys::PublicKeyOrCertificate;
use russh::keys::known_hosts::check_known_hosts_path;
use russh::keys::{PrivateKeyWithHashAlg, decode_secret_key};
use russh::{Channel, ChannelStream};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_util::io::SyncIoBridge;
use url::Url;

use super::super::{Reach, SourceError};
use super::{Failure, MAX_PACK};

/// SSH's port.
const PORT: u16 = 22;

/// Judges the server's key by those that are known.
struct Keys {
    host: String,
    port: u16,
    known_hosts: tempfile::NamedTempFile,
}

impl client::Handler for Keys {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else { return Ok(false) };
        let path = self.known_hosts.path();
        Ok(check_known_hosts_path(&self.host, self.port, key, path).unwrap_or(false))
    }
}

/// A session in which the repository can be fetched.
pub(super) struct Session {
    /// Ends when it is dropped.
    handle: Handle<Keys>,
    channel: Channel<Msg>,
    path: String,
    runtime: tokio::runtime::Handle,
}

/// A transport over a session.
pub(super) type SshTransport = Connection<
    Bounded<SyncIoBridge<ReadHalf<ChannelStream<Msg>>>>,
    SyncIoBridge<WriteHalf<ChannelStream<Msg>>>,
>;

impl Session {
    /// Connects, checks the server, and authenticates by the key.
    pub(super) async fn open(
        url: &Url,
        key: &str,
        known_hosts: &str,
        reach: &Reach,
        timeout: Duration,
    ) -> Result<Self, SourceError> {
        let opened = Self::connect(url, key, known_hosts, reach);
        match tokio::time::timeout(timeout, opened).await {
            Ok(opened) => opened,
            Err(_) => Err(SourceError::unavailable(
                "TimedOut",
                format!("{url} does not answer within {timeout:?}"),
            )),
        }
    }

    async fn connect(
        url: &Url,
        key: &str,
        known_hosts: &str,
        reach: &Reach,
    ) -> Result<Self, SourceError> {
        let fail = |reason, why: String| SourceError::unavailable(reason, format!("{url} {why}"));
        let host = url.host_str().unwrap_or_default().to_owned();
        let port = url.port().unwrap_or(PORT);
        let key = decode_secret_key(key, None).map_err(|error| {
            let why = format!("cannot be read: the SSH key cannot be used: {error} (Ed25519 and ECDSA keys can, without a passphrase)");
            fail("CredentialsUnavailable", why)
        })?;
        let addresses = reach.resolve(&host, port).await.map_err(|error| match error {
            super::super::reach::Refused::NotAllowed => {
                fail("AddressNotAllowed", format!("is not fetched: {error}"))
            }
            error => fail("Unreachable", format!("cannot be reached: {error}")),
        })?;
        let stream = TcpStream::connect(addresses.as_slice()).await;
        let stream = stream.map_err(|e| fail("Unreachable", format!("cannot be reached: {e}")))?;
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), format!("{known_hosts}\n"))?;
        let keys = Keys { host, port, known_hosts: file };
        let config = Arc::new(client::Config::default());
        let mut handle =
            client::connect_stream(config, stream, keys).await.map_err(|error| match error {
                russh::Error::UnknownKey | russh::Error::WrongServerSig => fail(
                    "HostKeyUnknown",
                    "has a host key that is not among the known hosts".into(),
                ),
                error => fail("Unreachable", format!("cannot be reached: {error}")),
            })?;
        let user = if url.username().is_empty() { "git" } else { url.username() };
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
        let authenticated = handle.authenticate_publickey(user, key).await;
        let failed = |error: russh::Error| fail("Unreachable", format!("cannot be read: {error}"));
        if !authenticated.map_err(failed)?.success() {
            return Err(fail("Unauthorized", format!("does not take the SSH key of {user}")));
        }
        let channel = handle.channel_open_session().await.map_err(failed)?;
        // A server may refuse it: then it speaks the older protocol.
        channel.set_env(false, "GIT_PROTOCOL", "version=2").await.map_err(failed)?;
        let command = format!("git-upload-pack {}", quoted(url.path()));
        channel.exec(true, command).await.map_err(failed)?;
        let path = url.path().to_owned();
        Ok(Self { handle, channel, path, runtime: tokio::runtime::Handle::current() })
    }

    /// The transport, for threads that may block.
    pub(super) fn transport(self, failure: Failure) -> SshTransport {
        let (read, write) = tokio::io::split(self.channel.into_stream());
        let bridge = |half| SyncIoBridge::new_with_handle(half, self.runtime.clone());
        let read = Bounded { inner: bridge(read), left: MAX_PACK, failure, _session: self.handle };
        let write = SyncIoBridge::new_with_handle(write, self.runtime);
        let none = None::<(&str, _)>;
        Connection::new(read, write, Protocol::V2, self.path, none, ConnectMode::Process, false)
    }
}

/// The path as the server's shell reads it: one word.
fn quoted(path: &str) -> String {
    let path = percent_decoded(path);
    format!("'{}'", path.replace('\'', r"'\''"))
}

fn percent_decoded(path: &str) -> String {
    // The query is the one place where the library decodes; a plus stands for itself here.
    let escaped = format!("p={}", path.replace('+', "%2B").replace('&', "%26"));
    let decoded = url::form_urlencoded::parse(escaped.as_bytes()).next();
    decoded.map_or_else(|| path.to_owned(), |(_, path)| path.into_owned())
}

/// Reads no more than is allowed.
pub(super) struct Bounded<R> {
    inner: R,
    left: u64,
    failure: Failure,
    _session: Handle<Keys>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| self.failure.note(SourceError::too_large("the repository", MAX_PACK)))?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_one_word() {
        for (path, word) in [
            ("/a/b.git", "'/a/b.git'"),
            ("/a%20b", "'/a b'"),
            ("/a'; rm -rf /", r"'/a'\''; rm -rf /'"),
            ("/a+b&c=d", "'/a+b&c=d'"),
            ("/$(x)", "'/$(x)'"),
        ] {
            assert_eq!(quoted(path), word);
        }
    }
}
