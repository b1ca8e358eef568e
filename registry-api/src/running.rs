//! What the process runs with, as the API shows it and asks for it.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use smol_str::SmolStr;
use subtle::ConstantTimeEq;
use waymark_catalogue::filter::Filter;

use crate::config::Source;
use crate::source::Statuses;

/// Most bytes of a token file.
const MAX_TOKENS: u64 = 1 << 20;
/// Fewest characters of a token: a shorter one can be guessed.
const MIN_TOKEN: usize = 16;

/// A token file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("cannot read the token file {path}: {error}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// A line is not `token,name`.
    #[error("{path}:{line}: {why}")]
    Line {
        /// The file.
        path: String,
        /// The line, the first being 1.
        line: usize,
        /// What is wrong with it; never the token itself.
        why: String,
    },
}

/// Who may write managed entries, by bearer token.
#[derive(Default, PartialEq, Eq)]
pub struct Tokens(Vec<(String, SmolStr)>);

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Tokens are secrets.
        f.debug_tuple("Tokens").field(&self.0.len()).finish()
    }
}

impl Tokens {
    /// Reads a file of lines `token,name`; empty lines and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// Where it cannot be read, or a line is not of that form.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let shown = || path.display().to_string();
        let read = || {
            let size = std::fs::metadata(path)?.len();
            if size > MAX_TOKENS {
                return Err(std::io::Error::other("it is larger than 1 MiB"));
            }
            std::fs::read_to_string(path)
        };
        let text = read().map_err(|error| TokenError::Read { path: shown(), error })?;
        let mut tokens = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = |why: &str| TokenError::Line { path: shown(), line: at + 1, why: why.into() };
            let (token, name) = line.split_once(',').ok_or_else(|| bad("a line is token,name"))?;
            let (token, name) = (token.trim(), name.trim());
            if token.len() < MIN_TOKEN {
                return Err(bad("the token has less than 16 characters"));
            }
            if name.is_empty() {
                return Err(bad("the name is empty"));
            }
            tokens.push((token.to_owned(), SmolStr::from(name)));
        }
        Ok(Self(tokens))
    }

    /// The name of a token's bearer. Every token is compared, in constant time.
    #[must_use]
    pub fn bearer(&self, token: &str) -> Option<&SmolStr> {
        let mut found = None;
        for (known, name) in &self.0 {
            if bool::from(known.as_bytes().ct_eq(token.as_bytes())) {
                found = Some(name);
            }
        }
        found
    }
}

/// The token of an `Authorization` header of the scheme Bearer (RFC 6750).
pub(crate) fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// What a configuration comes to, beside the registries.
#[derive(Debug, Default)]
pub struct Running {
    /// The sources.
    pub sources: Vec<Source>,
    /// The source that managed entries go to, where there is one, and what it lets through.
    pub managed: Option<(SmolStr, Filter)>,
    /// Who may write them.
    pub tokens: Arc<Tokens>,
}

/// The same, replaced as a whole when the configuration changes, and how its sources stand.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// What the process runs with.
    pub running: Arc<ArcSwap<Running>>,
    /// How its sources stand.
    pub statuses: Statuses,
    /// Why the process is not ready, though it could serve.
    pub not_ready: Arc<ArcSwap<Option<&'static str>>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Tokens::read(&path)
        };
        let tokens =
            read("# who may write\n\n0123456789abcdef,ci\nanother-long-token-,  ops \n").unwrap();
        assert_eq!(tokens.bearer("0123456789abcdef").map(SmolStr::as_str), Some("ci"));
        assert_eq!(tokens.bearer("another-long-token-").map(SmolStr::as_str), Some("ops"));
        for wrong in ["", "0123456789abcde", "0123456789abcdeF", "0123456789abcdef0"] {
            assert_eq!(tokens.bearer(wrong), None, "{wrong}");
        }
        for (text, says) in [
            ("0123456789abcdef", "tokens:1: a line is token,name"),
            ("\nshort,ci", "tokens:2: the token has less than 16 characters"),
            ("0123456789abcdef,", "tokens:1: the name is empty"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.ends_with(says), "{error}");
            assert!(!error.contains("0123456789abcdef"), "{error}");
        }
        assert!(Tokens::read(&folder.path().join("none")).is_err());
        assert_eq!(format!("{tokens:?}"), "Tokens(2)");
    }
}
