//! A catalogue at a URL.

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use url::Url;

use super::http::{Access, Fetcher};
use super::origin::Cluster;
use super::{Expected, Fetched, MAX_BYTES, Source, SourceError, compressed, parse};

/// Where a URL source reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlOrigin {
    /// The URL of the catalogue.
    pub url: Url,
    /// How its server is spoken to.
    pub access: Access,
}

/// See the module's documentation.
pub struct UrlSource {
    origin: UrlOrigin,
    expected: Option<Expected>,
    cluster: Cluster,
    /// What tells the catalogue from an earlier state of it (RFC 9110, section 13.1).
    known: HeaderMap,
}

impl UrlSource {
    /// A source that was not read yet.
    #[must_use]
    pub fn new(origin: UrlOrigin, expected: Option<Expected>, cluster: Cluster) -> Self {
        Self { origin, expected, cluster, known: HeaderMap::new() }
    }
}

impl Source for UrlSource {
    async fn fetch(&mut self) -> Result<Fetched, SourceError> {
        let fetcher = Fetcher::new(&self.origin.access, &self.cluster).await?;
        let mut headers = self.known.clone();
        let accept = "application/json, application/yaml;q=0.9, */*;q=0.5";
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        let answer = fetcher.get(&self.origin.url, &headers, MAX_BYTES).await?;
        if answer.status == StatusCode::NOT_MODIFIED && !self.known.is_empty() {
            return Ok(Fetched::Unchanged);
        }
        let validators = [
            (header::ETAG, header::IF_NONE_MATCH),
            (header::LAST_MODIFIED, header::IF_MODIFIED_SINCE),
        ];
        self.known = validators
            .into_iter()
            .filter_map(|(from, to)| Some((to, answer.headers.get(from)?.clone())))
            .collect();
        let text = compressed::text(&answer.body, MAX_BYTES)?;
        parse(text, self.expected).await
    }

    fn reset(&mut self) {
        self.known.clear();
    }
}
