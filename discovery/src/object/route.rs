//! HTTPRoutes.

use smol_str::SmolStr;

use super::{Condition, Meta};
use crate::annotation::Annotations;

/// An annotated HTTPRoute.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HttpRoute {
    /// Metadata.
    pub meta: Meta,
    /// What its annotations and labels say.
    pub annotations: Annotations,
    /// `spec.hostnames`.
    pub hostnames: Box<[SmolStr]>,
    /// `spec.parentRefs`.
    pub parents: Box<[ParentRef]>,
    /// `spec.rules`.
    pub rules: Box<[Rule]>,
    /// Whether it has any status at all.
    pub has_status: bool,
    /// What controllers wrote into `status.parents` of the parentRefs that the spec has.
    pub status: Box<[ParentStatus]>,
}

/// What a parentRef refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParentKind {
    /// A Gateway.
    Gateway,
    /// A ListenerSet.
    ListenerSet,
    /// Something through which no client comes: a Service (mesh), or an unknown kind.
    Other,
}

/// `ParentReference`, defaults applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentRef {
    /// What it refers to.
    pub kind: ParentKind,
    /// Namespace.
    pub namespace: SmolStr,
    /// Name.
    pub name: SmolStr,
    /// Only this listener.
    pub section_name: Option<SmolStr>,
    /// Only listeners of this port.
    pub port: Option<u16>,
}

/// `RouteParentStatus` of one controller, as far as the rules read it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParentStatus {
    /// Index of the parentRef in the spec.
    pub parent: u16,
    /// Condition `Accepted`.
    pub accepted: Option<Verdict>,
    /// Condition `ResolvedRefs`.
    pub resolved_refs: Option<Verdict>,
}

/// A condition, reduced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Its status.
    pub state: State,
    /// Generation it was made for; 0 where the controller does not say.
    pub observed_generation: i64,
    /// The whole condition, where it is not `True` and has to be explained.
    pub condition: Option<Box<Condition>>,
}

/// Status of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// `True`.
    True,
    /// `False`.
    False,
    /// `Unknown`, or anything else.
    Unknown,
}

impl Verdict {
    /// Reduces a condition.
    #[must_use]
    pub fn new(condition: &Condition) -> Self {
        let state = match condition.status.as_str() {
            "True" => State::True,
            "False" => State::False,
            _ => State::Unknown,
        };
        Self {
            state,
            observed_generation: condition.observed_generation,
            condition: (state != State::True).then(|| Box::new(condition.clone())),
        }
    }

    /// Whether it was made for `generation` or a later one, or does not say.
    #[must_use]
    pub fn is_current(&self, generation: i64) -> bool {
        self.observed_generation == 0 || self.observed_generation >= generation
    }
}

/// `HTTPRouteRule`, as far as the rules read it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// What requests it is for; all where empty.
    pub matches: Box<[RouteMatch]>,
    /// Whether it redirects (filter RequestRedirect).
    pub redirects: bool,
    /// Whether it has a filter of the implementation's own, which may answer by itself.
    pub extended: bool,
    /// How it rewrites the path (filter URLRewrite).
    pub rewrite: Option<Rewrite>,
    /// Where it sends requests.
    pub backends: Box<[BackendRef]>,
}

/// `HTTPRouteMatch`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteMatch {
    /// Path; the prefix `/` where absent.
    pub path: Option<PathMatch>,
    /// Whether it also asks for headers, query parameters or a method.
    pub special: bool,
}

/// `HTTPPathMatch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathMatch {
    /// Its type.
    pub kind: PathType,
    /// Its value, as it stands.
    pub value: SmolStr,
}

/// `PathMatchType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathType {
    /// The whole path.
    Exact,
    /// Whole segments from the start.
    Prefix,
    /// A regular expression, or a type that this version does not know.
    Other,
}

/// `HTTPPathModifier` of a URLRewrite filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewrite {
    /// `ReplacePrefixMatch`.
    Prefix(SmolStr),
    /// `ReplaceFullPath`.
    Full(SmolStr),
}

/// `HTTPBackendRef`, defaults applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendRef {
    /// Whether it refers to a Service; backends of other kinds are an implementation's own.
    pub is_service: bool,
    /// Namespace; `None` for the route's own.
    pub namespace: Option<SmolStr>,
    /// Name.
    pub name: SmolStr,
    /// Weight.
    pub weight: u32,
}
