//! HTTPRoutes, from JSON.

use serde::Deserialize;
use serde_json::Value;
use smol_str::SmolStr;

use super::{ParseError, Parsed, Raw, from_status, has_status};
use crate::annotation::Carrier;
use crate::object::{
    BackendRef, Condition, GATEWAY_GROUP, HttpRoute, Key, Kind, Object, ParentKind, ParentRef,
    ParentStatus, PathMatch, PathType, Rewrite, RouteMatch, Rule, Verdict,
};

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawRouteSpec {
    parent_refs: Option<Box<[RawParentRef]>>,
    hostnames: Option<Box<[SmolStr]>>,
    rules: Option<Box<[RawRule]>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawRouteStatus {
    parents: Box<[RawParentStatus]>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawParentRef {
    group: Option<SmolStr>,
    kind: Option<SmolStr>,
    namespace: Option<SmolStr>,
    name: SmolStr,
    section_name: Option<SmolStr>,
    port: Option<u16>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawParentStatus {
    parent_ref: RawParentRef,
    conditions: Box<[Condition]>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawBackendRef {
    group: Option<SmolStr>,
    kind: Option<SmolStr>,
    namespace: Option<SmolStr>,
    name: SmolStr,
    weight: Option<u32>,
}

fn parent_ref(raw: RawParentRef, namespace: &SmolStr) -> ParentRef {
    let ours = raw.group.as_deref().unwrap_or(GATEWAY_GROUP) == GATEWAY_GROUP;
    ParentRef {
        kind: match raw.kind.as_deref().unwrap_or("Gateway") {
            "Gateway" if ours => ParentKind::Gateway,
            "ListenerSet" if ours => ParentKind::ListenerSet,
            _ => ParentKind::Other,
        },
        namespace: raw.namespace.unwrap_or_else(|| namespace.clone()),
        name: raw.name,
        section_name: raw.section_name,
        port: raw.port,
    }
}

/// The status of one controller for each parentRef that the spec has: what it wrote for others is
/// left over from an earlier spec.
fn parent_status(
    raw: RawParentStatus,
    parents: &[ParentRef],
    namespace: &SmolStr,
) -> Option<ParentStatus> {
    let reference = parent_ref(raw.parent_ref, namespace);
    let parent = parents.iter().position(|parent| *parent == reference)?;
    let verdict = |kind: &str| raw.conditions.iter().find(|c| c.r#type == kind).map(Verdict::new);
    Some(ParentStatus {
        parent: u16::try_from(parent).ok()?,
        accepted: verdict("Accepted"),
        resolved_refs: verdict("ResolvedRefs"),
    })
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawRule {
    matches: Option<Box<[RawMatch]>>,
    filters: Option<Box<[RawFilter]>>,
    backend_refs: Option<Box<[RawBackendRef]>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawMatch {
    path: Option<RawPath>,
    headers: Option<Vec<Value>>,
    query_params: Option<Vec<Value>>,
    method: Option<Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawPath {
    r#type: Option<SmolStr>,
    value: Option<SmolStr>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawFilter {
    r#type: SmolStr,
    url_rewrite: Option<RawRewrite>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawRewrite {
    path: Option<RawPathModifier>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawPathModifier {
    replace_prefix_match: Option<SmolStr>,
    replace_full_path: Option<SmolStr>,
}

pub(super) fn http_route(
    raw: Raw<RawRouteSpec, Value>,
    prefix: &str,
) -> Result<Parsed, ParseError> {
    let meta = raw.metadata.compact(true);
    let annotations = raw.metadata.annotations(prefix, Carrier::Route);
    if !annotations.is_opted_in() {
        return Ok(Parsed::NotAnnotated(Key::new(Kind::HttpRoute, meta.namespace, meta.name)));
    }
    let spec = raw.spec.unwrap_or_default();
    let status: RawRouteStatus = from_status(raw.status.as_ref());
    let rules = spec.rules.unwrap_or_default();
    let namespace = meta.namespace.clone();
    let parents: Box<[ParentRef]> = spec
        .parent_refs
        .unwrap_or_default()
        .into_iter()
        .map(|raw| parent_ref(raw, &namespace))
        .collect();
    let parent_statuses = status.parents.into_iter();
    let parent_statuses =
        parent_statuses.filter_map(|raw| parent_status(raw, &parents, &namespace)).collect();
    Ok(Parsed::Object(Object::HttpRoute(Box::new(HttpRoute {
        meta,
        annotations,
        hostnames: spec.hostnames.unwrap_or_default(),
        rules: rules.into_iter().map(rule).collect(),
        has_status: has_status(raw.status.as_ref()),
        status: parent_statuses,
        parents,
    }))))
}

fn rule(raw: RawRule) -> Rule {
    let filters = raw.filters.unwrap_or_default();
    let rewrite = filters.iter().find_map(|f| f.url_rewrite.as_ref()?.path.as_ref());
    let rewrite = rewrite.and_then(|path| {
        let full = path.replace_full_path.clone().map(Rewrite::Full);
        full.or_else(|| path.replace_prefix_match.clone().map(Rewrite::Prefix))
    });
    let has = |kind: &str| filters.iter().any(|f| f.r#type == kind);
    Rule {
        matches: raw.matches.unwrap_or_default().into_iter().map(route_match).collect(),
        redirects: has("RequestRedirect"),
        extended: has("ExtensionRef"),
        rewrite,
        backends: raw.backend_refs.unwrap_or_default().into_iter().map(backend_ref).collect(),
    }
}

fn backend_ref(raw: RawBackendRef) -> BackendRef {
    let kind = raw.kind.as_deref().unwrap_or("Service");
    BackendRef {
        is_service: Kind::of(raw.group.as_deref().unwrap_or_default(), kind) == Some(Kind::Service),
        namespace: raw.namespace,
        name: raw.name,
        weight: raw.weight.unwrap_or(1),
    }
}

fn route_match(raw: RawMatch) -> RouteMatch {
    let some = |list: &Option<Vec<Value>>| list.as_ref().is_some_and(|list| !list.is_empty());
    RouteMatch {
        special: some(&raw.headers) || some(&raw.query_params) || raw.method.is_some(),
        path: raw.path.map(|path| PathMatch {
            kind: match path.r#type.as_deref() {
                None | Some("PathPrefix") => PathType::Prefix,
                Some("Exact") => PathType::Exact,
                Some(_) => PathType::Other,
            },
            value: path.value.unwrap_or_else(|| SmolStr::new_static("/")),
        }),
    }
}
