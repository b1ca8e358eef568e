//! What became of one object: what is published where, and each reason why something is not.

use serde::Serialize;
use smol_str::SmolStr;

use crate::problem::{Problem, Severity};

/// One URL that is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Published {
    /// Server name of the entry.
    pub server: SmolStr,
    /// Version of the entry; for a link without a version, `latest`.
    pub version: SmolStr,
    /// `streamable-http` or `sse`.
    pub r#type: SmolStr,
    /// The URL.
    pub url: SmolStr,
    /// By which way clients come.
    pub via: PublishedVia,
}

/// The way to a URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublishedVia {
    /// The Gateway or ListenerSet, as `Kind namespace/name`.
    pub parent: String,
    /// The listener's name; empty for a direct URL.
    pub listener: SmolStr,
}

/// What became of one opted-in object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Its kind; `Document` for a part of a manifest that is no object.
    pub kind: SmolStr,
    /// Its namespace.
    pub namespace: SmolStr,
    /// Its name.
    pub name: SmolStr,
    /// What is published for it.
    pub published: Vec<Published>,
    /// Why something is not, or not as one might think.
    pub problems: Vec<Problem>,
}

impl Explanation {
    /// Whether one of the problems is an error.
    #[must_use]
    pub fn has_error(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }
}

/// Numbers over all objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// URLs that are published.
    pub published: usize,
    /// Problems that are no notes.
    pub problems: usize,
    /// Objects without any status that count as accepted or programmed.
    pub assumed: usize,
}

/// The machine-readable outcome of `plan`, `explain` and the admin port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Every opted-in object, by kind, namespace and name.
    pub objects: Vec<Explanation>,
    /// Numbers over all of them.
    pub summary: Summary,
}

impl Outcome {
    /// Sorts the explanations and counts.
    #[must_use]
    pub fn new(mut objects: Vec<Explanation>) -> Self {
        objects.sort_by(|a, b| {
            (&a.kind, &a.namespace, &a.name).cmp(&(&b.kind, &b.namespace, &b.name))
        });
        let counted = |problem: &&Problem| problem.severity != Severity::Note;
        let summary = Summary {
            published: objects.iter().map(|o| o.published.len()).sum(),
            problems: objects.iter().flat_map(|o| &o.problems).filter(counted).count(),
            assumed: 0,
        };
        Self { objects, summary }
    }

    /// The same, with the number of objects whose status was assumed.
    #[must_use]
    pub fn assuming(mut self, objects: usize) -> Self {
        self.summary.assumed = objects;
        self
    }

    /// Whether any object has an error.
    #[must_use]
    pub fn has_error(&self) -> bool {
        self.objects.iter().any(Explanation::has_error)
    }
}
