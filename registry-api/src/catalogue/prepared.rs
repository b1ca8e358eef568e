//! Entries from publishers, checked before they reach the writer.

use std::sync::Arc;

use prost::Message;
use serde_json::Value;
use smol_str::SmolStr;
use waymark_catalogue::merge::{Contribution, Link};
use waymark_catalogue::{ServerName, validate, version};
use waymark_proto::v1;

use crate::DEFAULT_REGISTRY;

/// Most bytes of an entry's server.json.
pub const MAX_ENTRY_BYTES: usize = 256 * 1024;
/// Most bytes of an entry's id.
pub const MAX_ID_BYTES: usize = 512;

/// An entry that can be stored.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Its id.
    pub id: SmolStr,
    /// The server name it contributes to.
    pub target: SmolStr,
    /// The entry as it goes into the merge; its source and precedence are set by the writer.
    pub contribution: Contribution,
    /// Whether clients may see it: it has a remote or package that they can use.
    pub visible: bool,
    /// The entry as it is stored.
    pub encoded: Vec<u8>,
}

/// Why an entry is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Stable code; see `Rejection.code` in the contract.
    pub code: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Refusal {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Checks an entry of a publisher.
///
/// # Errors
/// Why it is not taken.
pub fn prepare(entry: &v1::Entry) -> Result<Prepared, Refusal> {
    if entry.server_json.len() > MAX_ENTRY_BYTES {
        return Err(Refusal::new(
            "EntryTooLarge",
            format!(
                "The entry has {} bytes, {MAX_ENTRY_BYTES} at most are taken. Shorten its annotations.",
                entry.server_json.len()
            ),
        ));
    }
    if !(entry.registry.is_empty() || entry.registry == DEFAULT_REGISTRY) {
        return Err(Refusal::new(
            "RegistryNotFound",
            format!(
                "This server has no registry {:.100?}. Correct the label registry-name, or remove it.",
                entry.registry
            ),
        ));
    }
    if !entry.authz_claims_json.is_empty() {
        // Fail closed: nobody sees what not everybody may see.
        return Err(Refusal::new(
            "ClaimsNotEnforced",
            "The entry is restricted by authz-claims, which this registry cannot enforce yet, so it is withheld. Remove authz-claims to publish it to everybody.",
        ));
    }
    let invalid = |what: String| Refusal::new("InvalidEntry", what);
    let value: Value = serde_json::from_slice(&entry.server_json)
        .map_err(|error| invalid(format!("The entry is not JSON: {error}.")))?;
    let violations = validate::check(&value);
    if let Some(first) = violations.first() {
        let more = match violations.len() {
            1 => String::new(),
            n => format!(" (and {} more)", n - 1),
        };
        return Err(invalid(format!("The entry is not valid: {first}{more}.")));
    }
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let listed =
        |key: &str| value.get(key).and_then(Value::as_array).is_some_and(|l| !l.is_empty());
    let link = entry.link.as_ref().map(|link| Link {
        name: link.name.as_str().into(),
        version: Some(link.version.as_str()).filter(|v| !v.is_empty()).map(Into::into),
    });
    if let Some(link) = &link {
        let version = link.version.as_deref().map_or(Ok(()), version::check);
        if ServerName::parse(&link.name).is_err() || version.is_err() {
            return Err(invalid("The link names no valid server name and version.".into()));
        }
    }
    let target = link.as_ref().map_or_else(|| text("name").into(), |link| link.name.clone());
    let visible = listed("remotes") || (link.is_none() && listed("packages"));
    Ok(Prepared {
        id: entry.id.as_str().into(),
        target,
        contribution: Contribution {
            precedence: 0,
            source: SmolStr::default(),
            id: entry.id.as_str().into(),
            version: text("version").into(),
            server: Arc::from(value.to_string()),
            link,
        },
        visible,
        encoded: entry.encode_to_vec(),
    })
}
