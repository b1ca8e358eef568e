//! Which server is published at which host and path.

use std::sync::Arc;

use imbl::{HashMap, OrdMap};
use serde::Deserialize;
use smol_str::SmolStr;
use url::Url;
use waymark_catalogue::server::SSE;

use crate::catalogue::{Key, Served, Snapshot};

/// A published endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name and version of the server.
    pub key: Key,
    /// Scheme, host and port of the URL: `https://mcp.example.com`.
    pub origin: SmolStr,
    /// The entry.
    pub served: Arc<Served>,
}

/// The published endpoints of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Host {
    /// By path, without a slash at its end; of several at one path the first in the order of names,
    /// and of one server's the newest version, decides.
    paths: HashMap<SmolStr, Vec<Target>>,
    /// By server name, in order; of one server https and the newest version come first.
    names: OrdMap<SmolStr, Vec<Target>>,
}

/// See the module's documentation.
#[derive(Debug, Clone, Default)]
pub struct GatewayIndex {
    hosts: HashMap<SmolStr, Host>,
    /// Where each entry stands: host and path.
    places: HashMap<Key, Vec<(SmolStr, SmolStr)>>,
    epoch: Arc<str>,
    revision: u64,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    remotes: Vec<Remote>,
}

#[derive(Deserialize)]
struct Remote {
    #[serde(rename = "type")]
    kind: String,
    url: Option<String>,
}

/// A host as it is compared: in lower case, without a port, a dot at its end, or brackets.
#[must_use]
pub(crate) fn host_of(authority: &str) -> Option<SmolStr> {
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    (!host.is_empty() && host.len() <= 255).then(|| host.to_ascii_lowercase().into())
}

/// Origin, host and paths of a remote's URL. An SSE endpoint has a second one for messages beside it,
/// which the server names when it is connected to: `/messages` of ToolHive's and the SDKs' servers.
fn places(remote: &Remote) -> Option<(SmolStr, SmolStr, Vec<SmolStr>)> {
    let text = remote.url.as_deref()?;
    // What a client fills in is nowhere in particular.
    if text.contains('{') {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let host = host_of(url.host_str()?)?;
    let path = url.path().trim_end_matches('/');
    let mut paths = vec![SmolStr::from(path)];
    if remote.kind == SSE
        && let Some(prefix) = path.strip_suffix("/sse")
    {
        paths.extend(["messages", "message"].map(|own| SmolStr::from(format!("{prefix}/{own}"))));
    }
    Some((url.origin().ascii_serialization().into(), host, paths))
}

impl GatewayIndex {
    /// Whether nothing is published.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Whether anything is published at a host.
    pub(crate) fn host(&self, host: &str) -> Option<&Host> {
        self.hosts.get(host)
    }

    /// Makes it what a snapshot shows; tells whether anything has changed.
    pub fn follow(&mut self, snapshot: &Snapshot) -> bool {
        if self.epoch != snapshot.epoch || snapshot.compacted > self.revision {
            // Another history, or too old to know what was deleted.
            *self = Self { epoch: Arc::clone(&snapshot.epoch), ..Self::default() };
            for served in snapshot.live() {
                self.insert(served);
            }
            self.revision = snapshot.revision.max(snapshot.compacted);
            return true;
        }
        if snapshot.revision == self.revision {
            return false;
        }
        for served in snapshot.since(self.revision) {
            self.remove(&served.key);
            if !served.is_deleted() {
                self.insert(served);
            }
        }
        self.revision = snapshot.revision;
        true
    }

    fn insert(&mut self, served: &Arc<Served>) {
        let Ok(document) = serde_json::from_str::<Document>(served.server_text()) else { return };
        let mut stands = Vec::new();
        let newest = |target: &Target| !target.served.official.is_latest;
        for (origin, host, paths) in document.remotes.iter().filter_map(places) {
            let (key, served) = (served.key.clone(), Arc::clone(served));
            let target = Target { key, origin, served };
            let at = self.hosts.entry(host.clone()).or_default();
            let named = at.names.entry(target.key.name.clone()).or_default();
            named.push(target.clone());
            named.sort_by_cached_key(|target| {
                let plain = !target.origin.starts_with("https:");
                (newest(target), plain, target.origin.clone(), target.key.version.clone())
            });
            for path in paths {
                let targets = at.paths.entry(path.clone()).or_default();
                targets.push(target.clone());
                targets.sort_by(|a, b| {
                    let order = (&a.key.name, newest(a), &a.key.version);
                    order.cmp(&(&b.key.name, newest(b), &b.key.version))
                });
                stands.push((host.clone(), path));
            }
        }
        if !stands.is_empty() {
            self.places.insert(served.key.clone(), stands);
        }
    }

    fn remove(&mut self, key: &Key) {
        for (host, path) in self.places.remove(key).into_iter().flatten() {
            let Some(at) = self.hosts.get_mut(&host) else { continue };
            if let Some(targets) = at.paths.get_mut(&path) {
                targets.retain(|target| target.key != *key);
                if targets.is_empty() {
                    at.paths.remove(&path);
                }
            }
            if let Some(named) = at.names.get_mut(&key.name) {
                named.retain(|target| target.key != *key);
                if named.is_empty() {
                    at.names.remove(&key.name);
                }
            }
            if at.paths.is_empty() {
                self.hosts.remove(&host);
            }
        }
    }
}

impl Host {
    /// The endpoint that covers a path: the longest one that is the path, or stands above it at a
    /// slash. Letters are compared as they are, as Envoy does.
    pub(super) fn covering(&self, path: &str) -> Option<&Target> {
        let mut rest = path.trim_end_matches('/');
        loop {
            if let Some(found) = self.paths.get(rest).and_then(|targets| targets.first()) {
                return Some(found);
            }
            rest = rest.get(..rest.rfind('/')?)?;
        }
    }

    /// Each server of the host once, by its newest version, in the order of names.
    pub(super) fn servers(&self) -> Vec<&Target> {
        self.names.values().filter_map(|named| named.first()).collect()
    }

    /// One server of the host, by its newest version.
    pub(super) fn server(&self, name: &str) -> Option<&Target> {
        self.names.get(name)?.first()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;
    use waymark_catalogue::meta::{Official, Status};

    use super::*;

    pub(in crate::gateway) fn served(
        name: &str,
        version: &str,
        (revision, deleted): (u64, bool),
        urls: &[(&str, &str)],
    ) -> Arc<Served> {
        let remotes: Vec<_> =
            urls.iter().map(|(kind, url)| json!({"type": kind, "url": url})).collect();
        let server = json!({"name": name, "description": "d", "version": version,
            "title": "T", "remotes": remotes,
            "_meta": {"io.modelcontextprotocol.registry/publisher-provided": {"x": 1}}});
        let now = jiff::Timestamp::UNIX_EPOCH;
        let official = Official {
            status: if deleted { Status::Deleted } else { Status::Active },
            status_changed_at: now,
            status_message: None,
            published_at: now,
            updated_at: now,
            is_latest: true,
        };
        let key = Key { name: name.into(), version: version.into() };
        Arc::new(Served::new(key, &server.to_string(), official, revision, false))
    }

    pub(in crate::gateway) fn index(entries: &[Arc<Served>]) -> GatewayIndex {
        let mut snapshot = Snapshot::new("e".into(), 0, 0);
        for entry in entries {
            snapshot.insert(Arc::clone(entry));
        }
        let mut index = GatewayIndex::default();
        index.follow(&snapshot);
        index
    }

    const HTTP: &str = "streamable-http";

    #[test]
    fn hosts() {
        for (authority, host) in [
            ("mcp.example.com", Some("mcp.example.com")),
            ("MCP.Example.com:8443", Some("mcp.example.com")),
            ("mcp.example.com.", Some("mcp.example.com")),
            ("user@mcp.example.com", Some("mcp.example.com")),
            ("[2001:DB8::1]:443", Some("2001:db8::1")),
            ("203.0.113.7:80", Some("203.0.113.7")),
            ("", None),
            (":80", None),
            ("[::1", None),
        ] {
            assert_eq!(host_of(authority).as_deref(), host, "{authority}");
        }
    }

    #[test]
    fn the_longest_path_covers() {
        let index = index(&[
            served("a.b/root", "1.0.0", (1, false), &[(HTTP, "https://root.example.com/")]),
            served("a.b/one", "1.0.0", (2, false), &[(HTTP, "https://mcp.example.com/one/mcp")]),
            served(
                "a.b/deep",
                "1.0.0",
                (3, false),
                &[(HTTP, "https://mcp.example.com/one/mcp/deep/")],
            ),
            served(
                "a.b/old",
                "1.0.0",
                (4, false),
                &[("sse", "http://mcp.example.com:8080/old/sse")],
            ),
            served("a.b/any", "1.0.0", (5, false), &[(HTTP, "https://{tenant}.example.com/mcp")]),
        ]);
        for (host, path, name) in [
            ("mcp.example.com", "/one/mcp", Some("a.b/one")),
            ("mcp.example.com", "/one/mcp/", Some("a.b/one")),
            ("mcp.example.com", "/one/mcp/session", Some("a.b/one")),
            ("mcp.example.com", "/one/mcp/deep", Some("a.b/deep")),
            ("mcp.example.com", "/one/mcp/deep/er", Some("a.b/deep")),
            ("mcp.example.com", "/one/mcpx", None),
            ("mcp.example.com", "/one/MCP", None),
            ("mcp.example.com", "/one", None),
            ("mcp.example.com", "/", None),
            ("mcp.example.com", "/old/sse", Some("a.b/old")),
            ("mcp.example.com", "/old/messages", Some("a.b/old")),
            ("mcp.example.com", "/old", None),
            ("root.example.com", "/", Some("a.b/root")),
            ("root.example.com", "/anything", Some("a.b/root")),
        ] {
            let found = index.host(host).and_then(|at| at.covering(path));
            assert_eq!(found.map(|t| t.key.name.as_str()), name, "{host}{path}");
        }
        assert!(index.host("tenant.example.com").is_none());
    }

    #[test]
    fn changes_are_followed() {
        let at = |url: &'static str| [(HTTP, url)];
        let one = "https://x.example.com/one";
        let mut snapshot = Snapshot::new("e".into(), 0, 0);
        snapshot.insert(served("a.b/one", "1.0.0", (1, false), &at(one)));
        snapshot.insert(served("a.b/two", "1.0.0", (2, false), &at("https://y.example.com/two")));
        let mut index = GatewayIndex::default();
        assert!(index.follow(&snapshot));
        assert!(!index.follow(&snapshot));
        // One moves, one goes.
        snapshot.insert(served("a.b/one", "1.0.0", (3, false), &at("https://x.example.com/moved")));
        snapshot.insert(served("a.b/two", "1.0.0", (4, true), &at("https://y.example.com/two")));
        assert!(index.follow(&snapshot));
        let covers = |index: &GatewayIndex, host: &str, path: &str| {
            index.host(host).and_then(|at| at.covering(path)).is_some()
        };
        assert!(
            covers(&index, "x.example.com", "/moved") && !covers(&index, "x.example.com", "/one")
        );
        assert!(index.host("y.example.com").is_none());
        // Deletions that were forgotten meanwhile.
        let mut later = Snapshot::new("e".into(), 9, 9);
        later.insert(served("a.b/new", "1.0.0", (10, false), &at("https://z.example.com/new")));
        assert!(index.follow(&later));
        assert!(
            covers(&index, "z.example.com", "/new") && !covers(&index, "x.example.com", "/moved")
        );
        // Another history.
        let other = Snapshot::new("f".into(), 10, 0);
        assert!(index.follow(&other) && index.is_empty());
    }
}
