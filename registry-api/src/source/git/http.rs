//! Git's smart HTTP protocol over the one HTTP client of all sources, with its bounds.

use std::any::Any;
use std::io::{self, BufRead, Cursor, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use gix_transport::client::blocking_io::http::{GetResponse, Http, PostBodyDataKind, PostResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::runtime::Handle;
use url::Url;

use super::super::http::Fetcher;
use super::{Failure, MAX_PACK};

/// An HTTP client for git.
pub(super) struct Client {
    fetcher: Fetcher,
    runtime: Handle,
    failure: Failure,
    /// The base URL after a redirect.
    moved: Arc<Mutex<Option<String>>>,
}

/// One request and its answer; sent when the answer is first asked for.
struct Exchange {
    fetcher: Fetcher,
    runtime: Handle,
    failure: Failure,
    moved: Arc<Mutex<Option<String>>>,
    method: Method,
    url: String,
    tail: String,
    headers: HeaderMap,
    sent: Vec<u8>,
    answer: Option<(Bytes, Bytes)>,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<Exchange>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Exchange> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The headers and the body of the answer.
    fn answer(&self) -> io::Result<(Bytes, Bytes)> {
        let mut exchange = self.lock();
        if let Some(answer) = &exchange.answer {
            return Ok(answer.clone());
        }
        let url = Url::parse(&exchange.url).map_err(io::Error::other)?;
        let (body, method) = (std::mem::take(&mut exchange.sent), exchange.method.clone());
        let sent = exchange.fetcher.send(method, &url, &exchange.headers, body.into(), MAX_PACK);
        let answer = exchange.runtime.block_on(sent);
        let answer = answer.map_err(|error| exchange.failure.note(error))?;
        if answer.url != url {
            let base = answer.url.as_str().strip_suffix(exchange.tail.as_str()).map(str::to_owned);
            *exchange.moved.lock().unwrap_or_else(PoisonError::into_inner) = base;
        }
        let mut headers = Vec::new();
        for (name, value) in &answer.headers {
            headers.extend_from_slice(name.as_str().as_bytes());
            headers.extend_from_slice(b": ");
            headers.extend_from_slice(value.as_bytes());
            headers.push(b'\n');
        }
        let answer = (Bytes::from(headers), answer.body);
        exchange.answer = Some(answer.clone());
        Ok(answer)
    }
}

/// What is posted.
pub(super) struct Posted(Shared);

impl Write for Posted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().sent.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The headers or the body of an answer.
pub(super) struct Part {
    shared: Shared,
    body: bool,
    read: Option<Cursor<Bytes>>,
}

impl Part {
    fn cursor(&mut self) -> io::Result<&mut Cursor<Bytes>> {
        if self.read.is_none() {
            let (headers, body) = self.shared.answer()?;
            self.read = Some(Cursor::new(if self.body { body } else { headers }));
        }
        self.read.as_mut().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cursor()?.read(buffer)
    }
}

impl BufRead for Part {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.cursor()?.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        if let Some(cursor) = &mut self.read {
            cursor.consume(amount);
        }
    }
}

impl Client {
    pub(super) fn new(fetcher: Fetcher, runtime: Handle, failure: Failure) -> Self {
        Self { fetcher, runtime, failure, moved: Arc::default() }
    }

    fn exchange(
        &self,
        method: Method,
        url: &str,
        base_url: &str,
        lines: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Shared {
        let mut headers = HeaderMap::new();
        for line in lines {
            let Some((name, value)) = line.as_ref().split_once(':') else { continue };
            let name = HeaderName::from_bytes(name.trim().as_bytes());
            let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value.trim())) else {
                continue;
            };
            // The fetcher says its own, and how it takes bodies.
            if name != http::header::USER_AGENT && name != http::header::EXPECT {
                headers.append(name, value);
            }
        }
        Shared(Arc::new(Mutex::new(Exchange {
            fetcher: self.fetcher.clone(),
            runtime: self.runtime.clone(),
            failure: self.failure.clone(),
            moved: Arc::clone(&self.moved),
            method,
            url: url.to_owned(),
            tail: url.strip_prefix(base_url).unwrap_or_default().to_owned(),
            headers,
            sent: Vec::new(),
            answer: None,
        })))
    }
}

impl Http for Client {
    type Headers = Part;
    type ResponseBody = Part;
    type PostBody = Posted;

    fn get(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> gix::error::Result<GetResponse<Part, Part>> {
        let shared = self.exchange(Method::GET, url, base_url, headers);
        let part = |body| Part { shared: shared.clone(), body, read: None };
        Ok(GetResponse { headers: part(false), body: part(true) })
    }

    fn post(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        _: PostBodyDataKind,
    ) -> gix::error::Result<PostResponse<Part, Part, Posted>> {
        let shared = self.exchange(Method::POST, url, base_url, headers);
        let part = |body| Part { shared: shared.clone(), body, read: None };
        let (headers, body) = (part(false), part(true));
        Ok(PostResponse { post_body: Posted(shared), headers, body })
    }

    fn configure(&mut self, _: &dyn Any) -> gix::error::Result {
        Ok(())
    }

    fn redirected_base_url(&self) -> Option<String> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
