//! What was told about each object: the difference to how it stands now is what there is to tell.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use waymark_kubernetes::event::Notice;
use xxhash_rust::xxh3::xxh3_64;

use crate::explanation::Explanation;
use crate::object::{Key, Kind};
use crate::problem::{Problem, Severity};

/// How an object stood when it was last told of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// UID of the object.
    pub uid: String,
    /// Notices so far.
    count: u32,
    /// Server name and URL of what is published.
    published: Vec<(SmolStr, SmolStr)>,
    /// Fingerprints of its problems.
    problems: Vec<u64>,
}

/// What was told, by object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told(BTreeMap<Key, Record>);

impl Told {
    /// All objects of which something was told that still stands.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.0.keys()
    }

    /// What was told of an object.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Record> {
        self.0.get(key)
    }

    /// Notes how an object stands, after it was told.
    pub fn set(&mut self, key: Key, record: Option<Record>) {
        match record {
            Some(record) => self.0.insert(key, record),
            None => self.0.remove(&key),
        };
    }

    /// Every record whose object a test takes, in the form in which it is kept.
    pub(super) fn to_stored(&self, test: impl Fn(&Key) -> bool) -> BTreeMap<String, &Record> {
        let chosen = self.0.iter().filter(|(key, _)| test(key));
        chosen.map(|(key, record)| (stored_key(key), record)).collect()
    }

    /// Takes in records that were kept. Keys that cannot be read are passed over.
    pub(super) fn extend_stored(&mut self, stored: BTreeMap<String, Record>) {
        let read = |(key, record): (String, Record)| Some((read_key(&key)?, record));
        self.0.extend(stored.into_iter().filter_map(read));
    }

    /// What there is to tell of an object, and how it stands then. `uid` is empty, and
    /// `explanation` `None`, where the object is gone or not opted in any more.
    #[must_use]
    pub fn news(
        &self,
        key: &Key,
        uid: &str,
        explanation: Option<&Explanation>,
    ) -> (Vec<Notice>, Option<Record>) {
        // An object of the same name that was created anew is another one.
        let same = |record: &&Record| uid.is_empty() || record.uid == uid;
        let old = self.0.get(key).filter(same).cloned().unwrap_or_default();
        let mut notices = Notices { count: old.count, all: Vec::new() };
        let Some(explanation) = explanation else {
            if !old.published.is_empty() {
                let why = format!("the {} is gone or not opted in any more", key.kind);
                notices.removed(&old, &why);
            }
            return (notices.all, None);
        };
        let published: Vec<(SmolStr, SmolStr)> =
            explanation.published.iter().map(|p| (p.server.clone(), p.url.clone())).collect();
        if published.is_empty() && !old.published.is_empty() {
            let first = explanation.problems.iter().find(|p| p.severity == Severity::Error);
            let why =
                first.map_or("nothing is left to publish", |p| p.message.trim_end_matches('.'));
            notices.removed(&old, why);
        } else if old.published.is_empty() && !published.is_empty() {
            notices.discovered(explanation);
        } else if old.published != published {
            let (now, was) = (listed(&published), listed(&old.published));
            notices.add("EndpointUpdated", &format!("Now published: {now}. Before: {was}."), false);
        }
        let counted = |p: &&Problem| p.severity != Severity::Note;
        let mut problems = Vec::new();
        for problem in explanation.problems.iter().filter(counted) {
            let fingerprint = fingerprint(problem);
            if !old.problems.contains(&fingerprint) && !problems.contains(&fingerprint) {
                let Problem { about, message, remedy, .. } = problem;
                let note = format!("{about}: {message} {remedy}");
                notices.add(problem.code.as_str(), &note, true);
            }
            problems.push(fingerprint);
        }
        let uid = if uid.is_empty() { old.uid } else { uid.to_owned() };
        let record = Record { uid, count: notices.count, published, problems };
        (notices.all, Some(record))
    }
}

struct Notices {
    count: u32,
    all: Vec<Notice>,
}

impl Notices {
    fn add(&mut self, reason: &'static str, note: &str, warning: bool) {
        self.count = self.count.wrapping_add(1);
        self.all.push(Notice::new(reason, note, warning, self.count));
    }

    fn discovered(&mut self, explanation: &Explanation) {
        let way = |p: &crate::explanation::Published| {
            let way = if p.via.listener.is_empty() {
                String::new()
            } else {
                format!(", by {} listener {}", p.via.parent, p.via.listener)
            };
            format!("{} ({}) as {} {}{way}", p.url, p.r#type, p.server, p.version)
        };
        let all: Vec<String> = explanation.published.iter().map(way).collect();
        self.add("EndpointDiscovered", &format!("Published: {}.", all.join("; ")), false);
    }

    fn removed(&mut self, old: &Record, why: &str) {
        let was = listed(&old.published);
        self.add("EndpointRemoved", &format!("Not published any more: {was}; {why}."), false);
    }
}

fn listed(published: &[(SmolStr, SmolStr)]) -> String {
    let all: Vec<String> =
        published.iter().map(|(server, url)| format!("{url} as {server}")).collect();
    all.join(", ")
}

/// What makes a problem another one. The generation that a stale status names does not.
fn fingerprint(problem: &Problem) -> u64 {
    let message: String = problem.message.chars().filter(|c| !c.is_ascii_digit()).collect();
    let message =
        if problem.code == crate::Code::StaleStatus { &message } else { &problem.message };
    xxh3_64(format!("{}\n{}\n{message}", problem.code, problem.about).as_bytes())
}

fn stored_key(key: &Key) -> String {
    format!("{}/{}/{}", key.kind.resource(), key.namespace, key.name)
}

fn read_key(text: &str) -> Option<Key> {
    let mut parts = text.splitn(3, '/');
    let (resource, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
    let kind = Kind::ALL.into_iter().find(|kind| kind.resource() == resource)?;
    Some(Key::new(kind, namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;
    use crate::explanation::{Published, PublishedVia};

    fn explanation(urls: &[&str], problems: &[(Code, &str)]) -> Explanation {
        let published = |url: &&str| Published {
            server: "com.example/x".into(),
            version: "1.0.0".into(),
            r#type: "sse".into(),
            url: (*url).into(),
            via: PublishedVia { parent: "Gateway infra/public".into(), listener: "web".into() },
        };
        let problem = |(code, message): &(Code, &str)| {
            Problem::error(*code, "Gateway infra/public", *message, "Do this.")
        };
        Explanation {
            kind: "HTTPRoute".into(),
            namespace: "apps".into(),
            name: "x".into(),
            published: urls.iter().map(published).collect(),
            problems: problems.iter().map(problem).collect(),
        }
    }

    #[test]
    fn the_life_of_an_object() {
        const NONE: &[(Code, &str)] = &[];
        let refused: &[(Code, &str)] = &[(Code::HostnameMismatch, "No.")];
        let stale: &[(Code, &str)] = &[(Code::StaleStatus, "generation 3.")];
        let later: &[(Code, &str)] = &[(Code::StaleStatus, "generation 4.")];
        // UID, what is so, and what is told.
        let steps: Vec<(&str, Option<Explanation>, &[&str])> = vec![
            (
                "1",
                Some(explanation(&[], refused)),
                &["Warning HostnameMismatch Gateway infra/public: No. Do this."],
            ),
            ("1", Some(explanation(&[], refused)), &[]),
            (
                "1",
                Some(explanation(&["https://a/x"], NONE)),
                &[
                    "Normal EndpointDiscovered Published: https://a/x (sse) as com.example/x 1.0.0, by Gateway infra/public listener web.",
                ],
            ),
            ("1", Some(explanation(&["https://a/x"], NONE)), &[]),
            (
                "1",
                Some(explanation(&["https://b/x"], refused)),
                &[
                    "Normal EndpointUpdated Now published: https://b/x as com.example/x. Before: https://a/x as com.example/x.",
                    "Warning HostnameMismatch Gateway infra/public: No. Do this.",
                ],
            ),
            (
                "1",
                Some(explanation(&[], stale)),
                &[
                    "Normal EndpointRemoved Not published any more: https://b/x as com.example/x; generation 3.",
                    "Warning StaleStatus Gateway infra/public: generation 3. Do this.",
                ],
            ),
            ("1", Some(explanation(&[], later)), &[]),
            ("1", Some(explanation(&["https://b/x"], NONE)), &["Normal EndpointDiscovered"]),
            // Deleted and created anew, unseen in between.
            ("2", Some(explanation(&["https://b/x"], NONE)), &["Normal EndpointDiscovered"]),
            (
                "",
                None,
                &[
                    "Normal EndpointRemoved Not published any more: https://b/x as com.example/x; the HTTPRoute is gone or not opted in any more.",
                ],
            ),
            ("", None, &[]),
        ];
        let key = Key::new(Kind::HttpRoute, "apps", "x");
        let mut told = Told::default();
        for (at, (uid, now, expected)) in steps.into_iter().enumerate() {
            let (notices, record) = told.news(&key, uid, now.as_ref());
            let shown: Vec<String> = notices
                .iter()
                .map(|n| {
                    let kind = if n.warning { "Warning" } else { "Normal" };
                    format!("{kind} {} {}", n.reason, n.note)
                })
                .collect();
            assert_eq!(shown.len(), expected.len(), "step {at}: {shown:#?}");
            for (shown, expected) in shown.iter().zip(expected) {
                assert!(shown.starts_with(expected), "step {at}: {shown}\n{expected}");
            }
            told.set(key.clone(), record);
        }
        assert_eq!(told, Told::default());
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let mut told = Told::default();
        for kind in [Kind::McpServer, Kind::LifecycleMcpServer] {
            let key = Key::new(kind, "apps", "x");
            let (_, record) = told.news(&key, "u", Some(&explanation(&["https://a"], &[])));
            told.set(key, record);
        }
        let stored = serde_json::to_string(&told.to_stored(|_| true)).unwrap();
        let mut again = Told::default();
        again.extend_stored(serde_json::from_str(&stored).unwrap());
        assert_eq!(again, told);
    }
}
