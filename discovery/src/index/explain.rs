//! What became of the objects, for people.

use std::collections::{BTreeMap, BTreeSet};

use smol_str::SmolStr;

use super::names::Claim;
use super::{Index, Standing};
use crate::explanation::{Explanation, Outcome, Published, PublishedVia};
use crate::finding::Finding;
use crate::object::{Key, Kind};
use crate::problem::{Code, Problem, Severity};
use crate::resolver::{Naming, Offer};

/// Numbers over all objects, for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Opted-in objects.
    pub opted_in: usize,
    /// Endpoints that they offer.
    pub endpoints: usize,
    /// Entries.
    pub entries: usize,
    /// Entries that the registry rejects.
    pub rejections: usize,
    /// Problems by code and severity.
    pub problems: BTreeMap<(Code, Severity), usize>,
}

impl Index {
    /// Notes what the registry says against an entry, or that it says nothing any more. It goes
    /// into the explanations of the entry's objects, which are returned, and is dropped when the
    /// entry is gone.
    pub fn set_rejection(&mut self, id: &str, rejection: Option<Problem>) -> Vec<Key> {
        match rejection {
            Some(problem) if self.committed.contains_key(id) => {
                self.rejections.insert(id.into(), problem);
            }
            _ => {
                self.rejections.remove(id);
            }
        }
        self.entry(id).map(|entry| entry.sources).unwrap_or_default()
    }

    /// Forgets all that the registry said: another session begins. Returns the objects that it was
    /// about.
    pub fn clear_rejections(&mut self) -> Vec<Key> {
        let ids = std::mem::take(&mut self.rejections);
        ids.keys().filter_map(|id| self.entry(id)).flat_map(|entry| entry.sources).collect()
    }

    /// UID of an opted-in object; `None` where it is unknown or not opted in.
    #[must_use]
    pub fn uid(&self, key: &Key) -> Option<&str> {
        self.id(key)?;
        Some(&super::meta(self.store.get(key)?)?.uid)
    }

    /// Keys of all opted-in objects.
    pub fn source_keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.sources.iter().flatten().map(|source| source.rank.key.clone())
    }

    /// How many objects are opted in, how many endpoints they offer, and how many problems of each
    /// code they have, names aside.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { rejections: self.rejections.len(), ..Counts::default() };
        for source in self.sources.iter().flatten() {
            counts.opted_in += 1;
            counts.endpoints +=
                source.resolution.offers.iter().map(|offer| offer.endpoints.len()).sum::<usize>();
            for problem in &source.resolution.problems {
                *counts.problems.entry((problem.code, problem.severity)).or_default() += 1;
            }
        }
        counts.entries = self.committed.len();
        counts
    }

    /// What became of an object; `None` where it is unknown or not opted in.
    #[must_use]
    pub fn explain(&self, key: &Key) -> Option<Explanation> {
        let source = self.source(self.id(key)?)?;
        let mut explanation = Explanation {
            kind: key.kind.as_str().into(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            published: Vec::new(),
            problems: source.resolution.problems.clone(),
        };
        for (offer, standing) in source.resolution.offers.iter().zip(&source.shares) {
            self.explain_offer(offer, standing, &mut explanation);
        }
        let mut seen = BTreeSet::new();
        explanation.problems.retain(|problem| seen.insert(problem.clone()));
        explanation.problems.sort_by_key(|problem| problem.severity);
        Some(explanation)
    }

    fn explain_offer(&self, offer: &Offer, standing: &Standing, explanation: &mut Explanation) {
        let id = match standing {
            Standing::Linked(id) => id.clone(),
            Standing::Claim(claim) => {
                let Some(claim) = self.names.claim(*claim) else {
                    return;
                };
                explanation.problems.extend(self.name_problem(claim));
                match claim.held() {
                    Some((name, _)) => name,
                    None => return,
                }
            }
        };
        if let Some(rejection) = self.rejections.get(&id) {
            explanation.problems.push(rejection.clone());
            return;
        }
        let (server, version) = match &offer.naming {
            Naming::Linked(link) => {
                let latest = || SmolStr::new_static("latest");
                (link.name.clone(), link.version.clone().unwrap_or_else(latest))
            }
            Naming::Named { .. } => {
                let Some(entry) = self.entry(&id) else { return };
                (id, entry.version)
            }
        };
        for endpoint in &offer.endpoints {
            if let Some(Finding::Silent(reason)) = self.findings.get(&endpoint.url) {
                let problem = Problem::error(
                    Code::EndpointNotAnswering,
                    endpoint.url.as_str(),
                    format!("{} does not answer a probe: {reason}.", endpoint.url),
                    "See that the server runs and that its route leads to it; it stays published.",
                );
                explanation.problems.push(problem.with(Severity::Warning));
            }
        }
        let external = offer.endpoints.iter().filter(|endpoint| endpoint.external);
        explanation.published.extend(external.map(|endpoint| Published {
            server: server.clone(),
            version: version.clone(),
            r#type: endpoint.transport.as_str().into(),
            url: endpoint.url.clone(),
            via: PublishedVia {
                parent: endpoint.via.parent.to_string(),
                listener: endpoint.via.listener.clone(),
            },
        }));
    }

    fn name_problem(&self, claim: &Claim) -> Option<Problem> {
        let wanted = claim.wanted();
        let holder = self.names.holder(wanted).and_then(|holder| holder.members().next());
        let holder = holder.and_then(|member| self.source(member.source));
        let holder = holder.map_or_else(|| "another object".to_owned(), |s| s.rank.key.to_string());
        match claim.held() {
            Some((_, true)) => None,
            Some((held, false)) => Some(
                Problem::error(
                    Code::NameSuffixed,
                    holder.clone(),
                    format!("The name {wanted} belongs to {holder}, which is older, so this server is {held}."),
                    "Set the annotation registry-name to give it a name of its own.",
                )
                .with(Severity::Note),
            ),
            None => Some(Problem::error(
                Code::NameConflict,
                holder.clone(),
                format!("The name {wanted} belongs to {holder}, which is older."),
                "Set the annotation registry-name to another name.",
            )),
        }
    }

    /// The opted-in objects whose outcome depends on an object: those that read it, or looked for
    /// it in vain, when they were resolved.
    #[must_use]
    pub fn dependents(&self, key: &Key) -> Vec<Key> {
        let read = if key.kind == Kind::ReferenceGrant {
            super::store::grants_key(&key.namespace)
        } else {
            key.clone()
        };
        let readers = self.edges.readers(&read).filter_map(|id| self.source(id));
        readers.map(|source| source.rank.key.clone()).collect()
    }

    /// What became of an object where it is opted in; else of every opted-in object whose outcome
    /// depends on it.
    #[must_use]
    pub fn explain_related(&self, key: &Key) -> Vec<Explanation> {
        match self.explain(key) {
            Some(explanation) => vec![explanation],
            None => self.dependents(key).iter().filter_map(|key| self.explain(key)).collect(),
        }
    }

    /// What became of every opted-in object.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome::new(
            self.sources
                .iter()
                .flatten()
                .filter_map(|source| self.explain(&source.rank.key))
                .collect(),
        )
    }
}
