//! How the contributions of several sources become the entries of one server name.
//!
//! A contribution either is an entry of its own, or is linked to an entry that another source
//! has: then its remotes join that entry. Of two entries with one name and version, the one of
//! the source with the lower precedence number is served and the other is shadowed. The result
//! depends on the set of contributions only, never on the order in which they came.

use std::cmp::Reverse;
use std::sync::Arc;

use smol_str::SmolStr;

use crate::meta;
use crate::server::ServerDetail;
use crate::version;

/// The entry that a contribution is linked to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Link {
    /// Server name of the entry.
    pub name: SmolStr,
    /// Its version; the latest where none is named.
    pub version: Option<SmolStr>,
}

/// What one source says of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contribution {
    /// Lower wins.
    pub precedence: u32,
    /// The source's name; the second key of the order.
    pub source: SmolStr,
    /// Identifier within the source; the third key of the order.
    pub id: SmolStr,
    /// Version of the entry; unused for a linked one.
    pub version: SmolStr,
    /// The server.json document, as JSON text that is valid by [`crate::validate`].
    pub server: Arc<str>,
    /// Where its remotes go, for a linked one.
    pub link: Option<Link>,
}

/// What became of a contribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is the entry that is served.
    Served,
    /// Its remotes joined the entry that it is linked to.
    Joined,
    /// Another contribution, at this index, has the same name and version and goes first.
    Shadowed {
        /// Index of the contribution that is served.
        by: usize,
    },
    /// There is no entry to link to.
    Unlinked,
}

/// One version of the server, merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedEntry {
    /// The version.
    pub version: SmolStr,
    /// Index of the contribution that it is made from.
    pub from: usize,
    /// The server.json document as JSON text.
    pub server: Arc<str>,
}

/// The merge of all contributions to one server name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    /// One per version.
    pub entries: Vec<MergedEntry>,
    /// One per contribution, in the order they were given.
    pub outcomes: Vec<Outcome>,
}

/// Merges all contributions whose name, or whose link's name, is one and the same.
#[must_use]
pub fn merge(contributions: &[&Contribution]) -> Merged {
    let mut order: Vec<(usize, &Contribution)> =
        contributions.iter().copied().enumerate().collect();
    order.sort_by(|(_, a), (_, b)| {
        (a.precedence, &a.source, &a.id).cmp(&(b.precedence, &b.source, &b.id))
    });
    let mut merged =
        Merged { entries: Vec::new(), outcomes: vec![Outcome::Unlinked; contributions.len()] };
    let mut set = |at: usize, outcome| {
        if let Some(slot) = merged.outcomes.get_mut(at) {
            *slot = outcome;
        }
    };
    for (at, own) in order.iter().filter(|(_, c)| c.link.is_none()) {
        match merged.entries.iter().find(|e: &&MergedEntry| e.version == own.version) {
            Some(winner) => set(*at, Outcome::Shadowed { by: winner.from }),
            None => {
                set(*at, Outcome::Served);
                merged.entries.push(MergedEntry {
                    version: own.version.clone(),
                    from: *at,
                    server: own.server.clone(),
                });
            }
        }
    }
    let latest = merged
        .entries
        .iter()
        .enumerate()
        .max_by(|(i, a), (j, b)| {
            version::compare((&a.version, Reverse(i)), (&b.version, Reverse(j)))
        })
        .map(|(i, _)| i);
    let mut joining: Vec<Vec<&Contribution>> = vec![Vec::new(); merged.entries.len()];
    for (at, linked) in &order {
        let Some(link) = &linked.link else { continue };
        let target = match &link.version {
            Some(version) => merged.entries.iter().position(|e| e.version == *version),
            None => latest,
        };
        if let Some(list) = target.and_then(|target| joining.get_mut(target)) {
            set(*at, Outcome::Joined);
            list.push(linked);
        }
    }
    for (entry, joining) in merged.entries.iter_mut().zip(joining) {
        if let Some(joined) = join(&entry.server, &joining) {
            entry.server = joined;
        }
    }
    merged
}

/// The entry with the remotes of `joining` after its own, each URL once. `None` where nothing
/// changes.
fn join(server: &str, joining: &[&Contribution]) -> Option<Arc<str>> {
    if joining.is_empty() {
        return None;
    }
    let mut server: ServerDetail = serde_json::from_str(server).ok()?;
    let extension = meta::toolhive(&server).map(|(_, extension)| extension.clone());
    let remoteless = server.remotes.is_empty();
    for linked in joining {
        let Ok(linked) = serde_json::from_str::<ServerDetail>(&linked.server) else {
            continue;
        };
        for remote in linked.remotes {
            if !server.remotes.iter().any(|known| known.url == remote.url) {
                server.remotes.push(remote);
            }
        }
    }
    // ToolHive's clients read the extension under the URL of `remotes[0]`.
    let first = server.remotes.first().and_then(|remote| remote.url.clone());
    if let (true, Some(key), Some(extension)) = (remoteless, first, extension) {
        meta::set_toolhive(&mut server, &key, extension);
    }
    serde_json::to_string(&server).ok().map(Arc::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn own(source: &str, precedence: u32, version: &str, remotes: &[&str]) -> Contribution {
        let remotes: Vec<_> = remotes.iter().map(|u| json!({"type": "sse", "url": u})).collect();
        let server = json!({
            "name": "a.b/c", "description": source, "version": version, "remotes": remotes,
            "_meta": {meta::PUBLISHER_PROVIDED: {meta::TOOLHIVE: {"image": {"tags": ["x"]}}}}
        });
        Contribution {
            precedence,
            source: source.into(),
            id: "i".into(),
            version: version.into(),
            server: server.to_string().into(),
            link: None,
        }
    }

    fn linked(source: &str, version: Option<&str>, remote: &str) -> Contribution {
        let link = Link { name: "a.b/c".into(), version: version.map(Into::into) };
        Contribution { link: Some(link), ..own(source, 9, "1.0.0", &[remote]) }
    }

    fn urls(entry: &MergedEntry) -> Vec<String> {
        let server: ServerDetail = serde_json::from_str(&entry.server).unwrap();
        server.remotes.into_iter().filter_map(|r| r.url).collect()
    }

    #[test]
    fn the_first_source_wins_per_version() {
        let all = [own("b", 1, "1.0.0", &[]), own("a", 0, "1.0.0", &[]), own("b", 1, "2.0.0", &[])];
        let merged = merge(&all.iter().collect::<Vec<_>>());
        use Outcome::{Served, Shadowed};
        assert_eq!(merged.outcomes, [Shadowed { by: 1 }, Served, Served]);
        let from: Vec<_> = merged.entries.iter().map(|e| (e.version.as_str(), e.from)).collect();
        assert_eq!(from, [("1.0.0", 1), ("2.0.0", 2)]);
    }

    #[test]
    fn links_join_the_version_they_name_or_the_latest() {
        let all = [
            own("a", 0, "1.9.0", &["https://own/"]),
            own("a", 0, "1.10.0", &[]),
            linked("z", None, "https://z/"),
            linked("y", None, "https://y/"),
            linked("y2", None, "https://z/"),
            linked("x", Some("1.9.0"), "https://x/"),
            linked("w", Some("3.0.0"), "https://w/"),
        ];
        let merged = merge(&all.iter().collect::<Vec<_>>());
        assert_eq!(urls(&merged.entries[0]), ["https://own/", "https://x/"]);
        assert_eq!(urls(&merged.entries[1]), ["https://y/", "https://z/"]);
        assert_eq!(merged.outcomes[6], Outcome::Unlinked);
        let latest: ServerDetail = serde_json::from_str(&merged.entries[1].server).unwrap();
        assert_eq!(meta::toolhive(&latest).unwrap().0, "https://y/", "one key, the first remote's");
    }

    #[test]
    fn order_of_arrival_does_not_matter() {
        let all = [
            own("a", 0, "1.0.0", &["https://a/"]),
            own("b", 0, "1.0.0", &[]),
            linked("z", None, "https://z/"),
            linked("y", None, "https://y/"),
        ];
        let texts = |order: &[usize]| -> Vec<Arc<str>> {
            let picked: Vec<_> = order.iter().map(|i| &all[*i]).collect();
            merge(&picked).entries.into_iter().map(|e| e.server).collect()
        };
        assert_eq!(texts(&[0, 1, 2, 3]), texts(&[3, 2, 1, 0]));
        assert_eq!(texts(&[0, 1, 2, 3]), texts(&[2, 1, 3, 0]));
    }
}
