//! HTTPRoutes.

use serde::Deserialize;
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
    /// `status.parents`.
    pub status: Box<[ParentStatus]>,
}

/// `ParentReference`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentRef {
    /// API group; Gateway API's by default.
    pub group: Option<SmolStr>,
    /// Kind; Gateway by default.
    pub kind: Option<SmolStr>,
    /// Namespace; the route's own by default.
    pub namespace: Option<SmolStr>,
    /// Name.
    pub name: SmolStr,
    /// Only this listener.
    pub section_name: Option<SmolStr>,
    /// Only listeners of this port.
    pub port: Option<u16>,
}

/// `RouteParentStatus`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentStatus {
    /// The parent it is about.
    pub parent_ref: ParentRef,
    /// The controller that wrote it.
    pub controller_name: SmolStr,
    /// Its conditions.
    pub conditions: Box<[Condition]>,
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

/// `HTTPBackendRef`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct BackendRef {
    /// API group; the core group by default.
    pub group: Option<SmolStr>,
    /// Kind; Service by default.
    pub kind: Option<SmolStr>,
    /// Namespace; the route's own by default.
    pub namespace: Option<SmolStr>,
    /// Name.
    pub name: SmolStr,
    /// Weight; 1 by default.
    pub weight: Option<u32>,
}
