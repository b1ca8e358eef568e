//! Kubernetes JSON to compact objects.
//!
//! Lenient where newer APIs may say more (unknown fields, unknown enum values), strict where a
//! field that the rules read has the wrong type: then the object is refused with its path.

use serde::Deserialize;
use serde_json::Value;
use smol_str::SmolStr;
use std::collections::BTreeMap;

use super::{
    Address, AllowedListeners, BackendRef, Condition, GATEWAY_GROUP, Gateway, HttpRoute, Key, Kind,
    Listener, ListenerSet, ListenerStatus, McpResource, Meta, Namespace, Object, ParentGateway,
    ParentKind, ParentRef, ParentStatus, PathMatch, PathType, ReferenceGrant, Rewrite, RouteMatch,
    Rule, Service, Transport, Verdict,
};
use crate::annotation::{Annotations, Carrier};

/// An object that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A field has the wrong type.
    #[error("{key}: {message}")]
    Field {
        /// The object.
        key: String,
        /// What is wrong with which field.
        message: String,
    },
    /// No name.
    #[error("{0} without metadata.name")]
    Nameless(Kind),
}

/// A document read as a Kubernetes object.
#[derive(Debug, Clone, PartialEq)]
pub enum Parsed {
    /// An object that the rules read.
    Object(Object),
    /// An HTTPRoute or MCP resource that is not opted in: nothing to do but to forget an earlier
    /// state of it.
    NotAnnotated(Key),
    /// Of a kind that the rules do not read.
    Other,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawMeta {
    namespace: Option<SmolStr>,
    name: SmolStr,
    uid: Box<str>,
    generation: i64,
    creation_timestamp: Option<jiff::Timestamp>,
    deletion_timestamp: Option<SmolStr>,
    labels: Option<BTreeMap<SmolStr, SmolStr>>,
    annotations: Option<BTreeMap<SmolStr, String>>,
    owner_references: Vec<RawOwner>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawOwner {
    api_version: SmolStr,
    kind: SmolStr,
    name: SmolStr,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "Spec: Deserialize<'de>, Status: Deserialize<'de>"))]
struct Raw<Spec, Status> {
    #[serde(default)]
    metadata: RawMeta,
    #[serde(default)]
    spec: Option<Spec>,
    #[serde(default)]
    status: Option<Status>,
}

impl RawMeta {
    fn compact(&self, namespaced: bool) -> Meta {
        let namespace = self.namespace.clone().filter(|n| !n.is_empty());
        Meta {
            // kubectl's own default, for manifests that leave it to the context.
            namespace: if namespaced {
                namespace.unwrap_or_else(|| SmolStr::new_static("default"))
            } else {
                SmolStr::default()
            },
            name: self.name.clone(),
            uid: self.uid.clone(),
            generation: self.generation,
            created: self.creation_timestamp.map(jiff::Timestamp::as_second),
            deleting: self.deletion_timestamp.is_some(),
        }
    }

    fn annotations(&self, prefix: &str, carrier: Carrier) -> Annotations {
        let empty = BTreeMap::new();
        let annotations = self.annotations.as_ref().unwrap_or(&empty);
        Annotations::parse(prefix, carrier, annotations, self.labels.as_ref())
    }
}

/// Reads a Kubernetes object, its annotations under `prefix`.
///
/// # Errors
/// Where the object has no name, or a field that the rules read has the wrong type.
pub fn object(value: &Value, prefix: &str) -> Result<Parsed, ParseError> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let group = group_of(text("apiVersion"));
    let Some(kind) = Kind::of(group, text("kind")) else {
        return Ok(Parsed::Other);
    };
    match kind {
        Kind::HttpRoute => http_route(read(kind, value)?, prefix),
        Kind::Gateway => {
            Ok(Parsed::Object(Object::Gateway(gateway(read(kind, value)?, prefix).into())))
        }
        Kind::ListenerSet => {
            Ok(Parsed::Object(Object::ListenerSet(listener_set(read(kind, value)?).into())))
        }
        Kind::ReferenceGrant => {
            Ok(Parsed::Object(Object::ReferenceGrant(grant(read(kind, value)?))))
        }
        Kind::Namespace => Ok(Parsed::Object(Object::Namespace(namespace(read(kind, value)?)))),
        Kind::Service => Ok(Parsed::Object(Object::Service(service(read(kind, value)?)))),
        _ => Ok(Parsed::Object(Object::Mcp(mcp(kind, &read(kind, value)?, prefix).into()))),
    }
}

fn group_of(api_version: &str) -> &str {
    api_version.rsplit_once('/').map_or("", |(group, _)| group)
}

fn read<'v, Spec: Deserialize<'v>, Status: Deserialize<'v>>(
    kind: Kind,
    value: &'v Value,
) -> Result<Raw<Spec, Status>, ParseError> {
    let raw = Raw::<Spec, Status>::deserialize(value).map_err(|error| {
        // Once more, slowly, for the path of the field.
        let message = match serde_path_to_error::deserialize::<_, Raw<Spec, Status>>(value) {
            Err(error) => error.to_string(),
            Ok(_) => error.to_string(),
        };
        let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("?");
        let name: String = name.chars().take(253).collect();
        ParseError::Field { key: format!("{kind} {name}"), message }
    })?;
    if raw.metadata.name.is_empty() {
        return Err(ParseError::Nameless(kind));
    }
    Ok(raw)
}

/// A status that says nothing is no status: GitOps manifests and `kubectl create --dry-run`
/// write `status: {}`.
fn has_status(status: Option<&Value>) -> bool {
    status.and_then(Value::as_object).is_some_and(|status| !status.is_empty())
}

fn from_status<T: Default + for<'v> Deserialize<'v>>(status: Option<&Value>) -> T {
    // A status is a controller's word: one that cannot be read counts as one that says nothing.
    status.and_then(|status| T::deserialize(status).ok()).unwrap_or_default()
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawRouteSpec {
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

fn http_route(raw: Raw<RawRouteSpec, Value>, prefix: &str) -> Result<Parsed, ParseError> {
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

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawGatewaySpec {
    listeners: Option<Box<[Listener]>>,
    addresses: Option<Box<[Address]>>,
    allowed_listeners: Option<AllowedListeners>,
    parent_ref: ParentGateway,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawGatewayStatus {
    conditions: Box<[Condition]>,
    listeners: Box<[ListenerStatus]>,
    addresses: Box<[Address]>,
}

fn gateway(raw: Raw<RawGatewaySpec, Value>, prefix: &str) -> Gateway {
    let annotations = raw.metadata.annotations(prefix, Carrier::Gateway);
    let spec = raw.spec.unwrap_or_default();
    let status: RawGatewayStatus = from_status(raw.status.as_ref());
    let has_status = has_status(raw.status.as_ref());
    let addresses = if has_status { status.addresses } else { spec.addresses.unwrap_or_default() };
    Gateway {
        meta: raw.metadata.compact(true),
        overrides: annotations.overrides.clone(),
        problems: annotations.problems.clone(),
        listeners: spec.listeners.unwrap_or_default(),
        allowed_listeners: spec.allowed_listeners.unwrap_or_default(),
        has_status,
        conditions: status.conditions,
        listener_status: status.listeners,
        addresses,
    }
}

fn listener_set(raw: Raw<RawGatewaySpec, Value>) -> ListenerSet {
    let spec = raw.spec.unwrap_or_default();
    let status: RawGatewayStatus = from_status(raw.status.as_ref());
    ListenerSet {
        meta: raw.metadata.compact(true),
        parent: spec.parent_ref,
        listeners: spec.listeners.unwrap_or_default(),
        has_status: has_status(raw.status.as_ref()),
        conditions: status.conditions,
        listener_status: status.listeners,
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawGrantSpec {
    from: Vec<RawGrantFrom>,
    to: Vec<RawGrantTo>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawGrantFrom {
    group: SmolStr,
    kind: SmolStr,
    namespace: SmolStr,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawGrantTo {
    group: SmolStr,
    kind: SmolStr,
    name: Option<SmolStr>,
}

fn grant(raw: Raw<RawGrantSpec, Value>) -> ReferenceGrant {
    let meta = raw.metadata.compact(true);
    let spec = raw.spec.unwrap_or_default();
    let is_route = |f: &RawGrantFrom| Kind::of(&f.group, &f.kind) == Some(Kind::HttpRoute);
    let is_service = |t: &RawGrantTo| Kind::of(&t.group, &t.kind) == Some(Kind::Service);
    ReferenceGrant {
        namespace: meta.namespace,
        name: meta.name,
        from: spec.from.into_iter().filter(is_route).map(|f| f.namespace).collect(),
        to: spec
            .to
            .into_iter()
            .filter(is_service)
            .map(|t| t.name.filter(|name| !name.is_empty()))
            .collect(),
    }
}

fn namespace(raw: Raw<Value, Value>) -> Namespace {
    let labels = raw.metadata.labels.unwrap_or_default();
    Namespace { name: raw.metadata.name, labels: labels.into_iter().collect() }
}

fn service(raw: Raw<Value, Value>) -> Service {
    let meta = raw.metadata.compact(true);
    let owner = raw.metadata.owner_references.into_iter().find_map(|owner| {
        let kind = Kind::of(group_of(&owner.api_version), &owner.kind)?;
        kind.is_mcp().then_some((kind, owner.name))
    });
    Service { namespace: meta.namespace, name: meta.name, owner }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawMcpSpec {
    image: Option<SmolStr>,
    transport: Option<SmolStr>,
    proxy_mode: Option<SmolStr>,
    endpoint_prefix: Option<SmolStr>,
    r#type: Option<SmolStr>,
    // MCPRemoteProxy and MCPServerEntry write `remoteUrl`, MCPRemoteEndpoint `remoteURL`.
    #[serde(alias = "remoteURL")]
    remote_url: Option<SmolStr>,
    oidc_config: Option<Value>,
    oidc_config_ref: Option<Value>,
    auth_server_ref: Option<Value>,
    incoming_auth: Option<RawIncomingAuth>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawIncomingAuth {
    r#type: Option<SmolStr>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawMcpStatus {
    phase: SmolStr,
    url: Option<SmolStr>,
    address: Option<RawAddress>,
    server_info: Option<RawServerInfo>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawAddress {
    url: Option<SmolStr>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawServerInfo {
    name: Option<SmolStr>,
    version: Option<SmolStr>,
}

fn mcp(kind: Kind, raw: &Raw<Value, Value>, prefix: &str) -> McpResource {
    // Specs of these kinds are many-shaped across operators and versions; fields of an
    // unexpected type count as absent.
    let spec: RawMcpSpec = from_status(raw.spec.as_ref());
    let status: RawMcpStatus = from_status(raw.status.as_ref());
    let named = spec.transport.as_deref();
    let spoken = match kind {
        Kind::McpServer if !matches!(named, Some("sse" | "streamable-http")) => {
            spec.proxy_mode.as_deref()
        }
        Kind::VirtualMcpServer | Kind::LifecycleMcpServer => None,
        _ => named,
    };
    let transport = if spoken == Some("sse") { Transport::Sse } else { Transport::StreamableHttp };
    let backend_transport = match kind {
        Kind::McpServer => SmolStr::new(named.unwrap_or("stdio")),
        _ => SmolStr::new_static(transport.as_str()),
    };
    let address = status.address.and_then(|a| a.url).or(status.url).filter(|url| !url.is_empty());
    let path_of = |url: Option<&SmolStr>| {
        url::Url::parse(url?).ok().map(|url| SmolStr::new(url.path().trim_end_matches('/')))
    };
    let path = match kind {
        Kind::McpServer | Kind::VirtualMcpServer => Some(SmolStr::new_static(match transport {
            Transport::Sse => "/sse",
            Transport::StreamableHttp => "/mcp",
        })),
        Kind::LifecycleMcpServer => path_of(address.as_ref()).filter(|path| !path.is_empty()),
        _ => path_of(spec.remote_url.as_ref()),
    };
    let direct = match kind {
        Kind::McpServerEntry => true,
        Kind::McpRemoteEndpoint => spec.r#type.as_deref() == Some("direct"),
        _ => false,
    };
    let stripped = spec.endpoint_prefix.map(|p| SmolStr::new(p.trim_end_matches('/')));
    let info = status.server_info.unwrap_or_default();
    McpResource {
        kind,
        meta: raw.metadata.compact(true),
        annotations: raw.metadata.annotations(prefix, Carrier::McpResource),
        transport,
        backend_transport,
        path,
        stripped_prefix: stripped.filter(|p| p.starts_with('/')),
        remote_url: spec.remote_url,
        direct,
        image: spec.image,
        server_name: info.name,
        server_version: info.version,
        in_cluster_url: address,
        not_ready: Some(status.phase).filter(|p| p == "Failed" || p == "Stopped"),
        authenticated: spec.oidc_config.is_some()
            || spec.oidc_config_ref.is_some()
            || spec.auth_server_ref.is_some()
            || spec.incoming_auth.and_then(|auth| auth.r#type).is_some_and(|t| t != "anonymous"),
    }
}
