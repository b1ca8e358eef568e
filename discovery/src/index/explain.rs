//! What became of the objects, for people.

use std::collections::BTreeSet;

use smol_str::SmolStr;

use super::names::Claim;
use super::{Index, Standing};
use crate::explanation::{Explanation, Outcome, Published, PublishedVia};
use crate::object::{Key, Kind};
use crate::problem::{Code, Problem, Severity};
use crate::resolver::{Naming, Offer};

impl Index {
    /// Notes what the registry says against an entry, or that it says nothing any more. It goes
    /// into the explanations of the entry's objects, and is dropped when the entry is gone.
    pub fn set_rejection(&mut self, id: &str, rejection: Option<Problem>) {
        match rejection {
            Some(problem) if self.committed.contains_key(id) => {
                self.rejections.insert(id.into(), problem);
            }
            _ => {
                self.rejections.remove(id);
            }
        }
    }

    /// Forgets all that the registry said: another session begins.
    pub fn clear_rejections(&mut self) {
        self.rejections.clear();
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
