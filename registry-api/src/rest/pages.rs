//! Pages that were made of the current snapshot, kept while it is current: most clients ask for
//! the same few pages.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use axum::http::HeaderValue;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use smol_str::SmolStr;

/// Most bytes of all kept bodies of a registry and their queries, compressed forms aside.
const MOST_BYTES: usize = 32 * 1024 * 1024;
/// Longer query strings are not kept.
const MOST_QUERY: usize = 512;

/// An answer, ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Rendered {
    pub(super) tag: HeaderValue,
    pub(super) body: Bytes,
    /// The body compressed, made when a client first wants it so, shared by all copies.
    gzip: Arc<OnceLock<Bytes>>,
}

impl Rendered {
    pub(super) fn new(tag: HeaderValue, body: Bytes) -> Self {
        Self { tag, body, gzip: Arc::default() }
    }

    /// The body compressed; `None` where that does not make it smaller.
    pub(super) fn gzip(&self) -> Option<Bytes> {
        let made = self.gzip.get_or_init(|| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            // Writing into memory does not fail; an empty result counts as none.
            let written = encoder.write_all(&self.body).and_then(|()| encoder.finish());
            written.map(Bytes::from).unwrap_or_default()
        });
        (!made.is_empty() && made.len() < self.body.len()).then(|| made.clone())
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Pages(RwLock<HashMap<SmolStr, Kept>>);

#[derive(Debug, Default)]
struct Kept {
    generation: u64,
    bytes: usize,
    by_query: HashMap<Box<str>, Rendered>,
}

impl Pages {
    /// The page of a query string of a registry's generation, made by `make` where it is not there
    /// yet.
    pub(super) fn get<E>(
        &self,
        registry: &SmolStr,
        generation: u64,
        query: &str,
        make: impl FnOnce() -> Result<Rendered, E>,
    ) -> Result<Rendered, E> {
        {
            let kept = self.0.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(kept) = kept.get(registry)
                && kept.generation == generation
                && let Some(rendered) = kept.by_query.get(query)
            {
                return Ok(rendered.clone());
            }
        }
        let rendered = make()?;
        let size = rendered.body.len() + query.len();
        if query.len() <= MOST_QUERY {
            let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
            let kept = kept.entry(registry.clone()).or_default();
            // A reader of an older snapshot leaves the newer one's pages alone.
            if kept.generation < generation {
                *kept = Kept { generation, ..Kept::default() };
            }
            if kept.generation == generation && kept.bytes + size <= MOST_BYTES {
                kept.bytes += size;
                kept.by_query.insert(query.into(), rendered.clone());
            }
        }
        Ok(rendered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Result<Rendered, ()> {
        let tag = HeaderValue::from_static("t");
        Ok(Rendered::new(tag, Bytes::copy_from_slice(text.as_bytes())))
    }

    #[test]
    fn pages_are_kept_for_one_generation() {
        let pages = Pages::default();
        let body = |generation, query: &str, text: &str| {
            let registry = SmolStr::new_static("r");
            pages.get(&registry, generation, query, || page(text)).unwrap().body
        };
        assert_eq!(body(1, "q", "one"), "one");
        assert_eq!(body(1, "q", "again"), "one");
        assert_eq!(body(1, "other", "two"), "two");
        assert_eq!(body(2, "q", "newer"), "newer");
        assert_eq!(body(1, "q", "older"), "older");
        assert_eq!(body(2, "q", "again"), "newer");
        assert!(pages.get(&"r".into(), 3, "bad", || Err::<Rendered, ()>(())).is_err());
        let long = "x".repeat(MOST_QUERY + 1);
        body(2, &long, "first");
        assert_eq!(body(2, &long, "second"), "second");
    }
}
