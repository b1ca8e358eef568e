//! Entries from publishers, checked before they reach the writer.

use std::sync::Arc;

use prost::{DecodeError, Message};
use serde_json::Value;
use smol_str::SmolStr;
use waymark_catalogue::merge::Link;
use waymark_catalogue::meta::{self, Status};
use waymark_catalogue::server::{ServerDetail, Transport};
use waymark_catalogue::validate::{self, Violation};
use waymark_catalogue::{ServerName, version};
use waymark_proto::v1;

use super::layout::{Remotes, is_publisher};

/// Most bytes of an entry's server.json.
pub const MAX_ENTRY_BYTES: usize = 256 * 1024;
/// Most bytes of an entry's id.
pub const MAX_ID_BYTES: usize = 512;

/// An entry that can be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// Its id within its source.
    pub id: SmolStr,
    /// Its server name.
    pub name: SmolStr,
    /// Its version.
    pub version: SmolStr,
    /// The entry that its remotes go to, for a linked one.
    pub link: Option<Link>,
    /// The server.json document as compact JSON; its remotes are the external ones.
    pub server: Arc<str>,
    /// Whether the document has remotes, and whether packages.
    has: (bool, bool),
    /// Type and URL of remotes that only clients inside the cluster reach.
    pub in_cluster: Vec<(SmolStr, SmolStr)>,
    /// The registry that its labels name.
    pub registry: Option<SmolStr>,
    /// Namespaces of the objects that it was made of.
    pub namespaces: Vec<SmolStr>,
    /// The status that its author gives it, and why.
    pub status: (Status, Option<String>),
    /// The entry as it is stored; empty once it is.
    pub encoded: Vec<u8>,
}

/// An entry of a source that is no publisher, as it is stored.
#[derive(Clone, PartialEq, Message)]
struct Kept {
    #[prost(message, optional, tag = "1")]
    entry: Option<v1::Entry>,
    #[prost(string, tag = "2")]
    status: String,
    #[prost(string, tag = "3")]
    status_message: String,
}

impl Prepared {
    /// The server name that it contributes to.
    #[must_use]
    pub fn target(&self) -> &SmolStr {
        self.link.as_ref().map_or(&self.name, |link| &link.name)
    }

    /// The document, typed.
    pub(super) fn detail(&self) -> Option<ServerDetail> {
        serde_json::from_str(&self.server).ok()
    }

    /// The document as a registry shows it, and whether it does: not one whose only remotes are those
    /// of the other side. One without remotes and packages (upstream's schema has both optional) is
    /// shown.
    pub(super) fn shown(&self, remotes: Remotes) -> (Arc<str>, bool) {
        let (own, packages) = self.has;
        let inner = !self.in_cluster.is_empty();
        let beside = self.link.is_none() && (packages || !(own || inner));
        match remotes {
            Remotes::External => (self.server.clone(), own || beside),
            Remotes::Both if !inner => (self.server.clone(), own || beside),
            Remotes::InCluster if !inner && !own => (self.server.clone(), beside),
            Remotes::InCluster => (self.with_in_cluster(false), inner || beside),
            Remotes::Both => (self.with_in_cluster(true), true),
        }
    }

    /// The document with the remotes inside the cluster, after its own or in their place.
    fn with_in_cluster(&self, external: bool) -> Arc<str> {
        let Some(mut server) = self.detail() else { return self.server.clone() };
        let extension = meta::toolhive(&server).map(|(_, extension)| extension.clone());
        if !external {
            server.remotes.clear();
        }
        server
            .remotes
            .extend(self.in_cluster.iter().map(|(kind, url)| Transport::remote(kind, url)));
        if let (Some(extension), Some(first)) = (extension, server.remotes.first()) {
            let url = first.url.clone().unwrap_or_default();
            meta::set_toolhive(&mut server, &url, extension);
        }
        serde_json::to_string(&server).map_or_else(|_| self.server.clone(), Arc::from)
    }

    /// The same entry with another status, as an author of managed entries sets it.
    #[must_use]
    pub fn with_status(mut self, status: Status, message: Option<String>) -> Self {
        let kept = Kept {
            entry: self.to_entry(),
            status: status.as_str().to_owned(),
            status_message: message.clone().unwrap_or_default(),
        };
        self.encoded = kept.encode_to_vec();
        self.status = (status, message);
        self
    }

    fn to_entry(&self) -> Option<v1::Entry> {
        Some(v1::Entry {
            id: self.id.to_string(),
            server_json: self.server.as_bytes().to_vec().into(),
            ..v1::Entry::default()
        })
    }
}

/// Reads an entry as it was stored.
pub(super) fn decode(
    source: &str,
    encoded: &[u8],
) -> Result<Result<Prepared, Refusal>, DecodeError> {
    if is_publisher(source) {
        return v1::Entry::decode(encoded).map(|entry| prepare(&entry));
    }
    let kept = Kept::decode(encoded)?;
    let status = Status::parse(&kept.status).unwrap_or(Status::Active);
    let message = Some(kept.status_message).filter(|message| !message.is_empty());
    Ok(prepare(&kept.entry.unwrap_or_default()).map(|entry| entry.with_status(status, message)))
}

/// Checks an entry of a source that is no publisher.
///
/// # Errors
/// Why it is not taken.
pub fn prepare_own(id: &str, server: &ServerDetail) -> Result<Prepared, Refusal> {
    let entry = v1::Entry {
        id: id.to_owned(),
        server_json: serde_json::to_vec(server).unwrap_or_default().into(),
        ..v1::Entry::default()
    };
    Ok(prepare(&entry)?.with_status(Status::Active, None))
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

    /// The refusal of a document that breaks rules.
    pub(crate) fn invalid(violations: &[Violation]) -> Self {
        let first = violations.first().map(ToString::to_string).unwrap_or_default();
        let more = match violations.len() {
            0 | 1 => String::new(),
            n => format!(" (and {} more)", n - 1),
        };
        Self::new("InvalidEntry", format!("The entry is not valid: {first}{more}."))
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
    if !violations.is_empty() {
        return Err(Refusal::invalid(&violations));
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
    let mut namespaces: Vec<SmolStr> =
        entry.sources.iter().map(|source| source.namespace.as_str().into()).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    let remote =
        |remote: &v1::Remote| (SmolStr::from(&*remote.r#type), SmolStr::from(&*remote.url));
    Ok(Prepared {
        id: entry.id.as_str().into(),
        name: text("name").into(),
        version: text("version").into(),
        link,
        server: Arc::from(value.to_string()),
        has: (listed("remotes"), listed("packages")),
        in_cluster: entry.in_cluster_remotes.iter().map(remote).collect(),
        registry: Some(entry.registry.as_str()).filter(|name| !name.is_empty()).map(Into::into),
        namespaces,
        status: (Status::Active, None),
        encoded: entry.encode_to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_entry_is_hidden_only_where_its_remotes_are_all_of_the_other_side() {
        let remote = v1::Remote {
            r#type: "streamable-http".into(),
            url: "https://in.example.com/mcp".into(),
        };
        // Own remotes, packages, remotes inside; seen by external, in-cluster, both.
        for (own, packages, inside, seen) in [
            (true, false, false, [true, false, true]),
            (false, false, true, [false, true, true]),
            (true, false, true, [true, true, true]),
            (false, true, false, [true, true, true]),
            (false, true, true, [true, true, true]),
            (false, false, false, [true, true, true]),
        ] {
            let mut server = json!({"name": "a.b/c", "description": "d", "version": "1.0.0"});
            if own {
                server["remotes"] =
                    json!([{"type": "streamable-http", "url": "https://out.example.com/mcp"}]);
            }
            if packages {
                server["packages"] = json!([{"registryType": "npm", "identifier": "x",
                    "version": "1.0.0", "transport": {"type": "stdio"}}]);
            }
            let entry = v1::Entry {
                id: "1".into(),
                server_json: server.to_string().into_bytes().into(),
                in_cluster_remotes: inside.then(|| remote.clone()).into_iter().collect(),
                ..v1::Entry::default()
            };
            let entry = prepare(&entry).unwrap();
            let views = [Remotes::External, Remotes::InCluster, Remotes::Both];
            let visible = views.map(|view| entry.shown(view).1);
            assert_eq!(visible, seen, "{own} {packages} {inside}");
        }
    }
}
