//! Kubernetes JSON to compact objects.
//!
//! Lenient where newer APIs may say more (unknown fields, unknown enum values), strict where a
//! field that the rules read has the wrong type: then the object is refused with its path.

mod mcp;
mod route;

use serde::Deserialize;
use serde_json::Value;
use smol_str::SmolStr;
use std::collections::BTreeMap;

use super::{
    Address, AllowedListeners, Condition, Gateway, Key, Kind, Listener, ListenerSet,
    ListenerStatus, Meta, Namespace, Object, ParentGateway, ReferenceGrant, Service,
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
        Kind::HttpRoute => route::http_route(read(kind, value)?, prefix),
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
        _ => {
            Ok(Parsed::Object(Object::Mcp(mcp::resource(kind, &read(kind, value)?, prefix).into())))
        }
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
        // Names and values are hostile: no more of them than a message needs.
        let plain = |text: &str, most: usize| -> String {
            text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect()
        };
        let (name, message) = (plain(name, 253), plain(&message, 300));
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
struct RawGatewaySpec {
    gateway_class_name: SmolStr,
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
        class: spec.gateway_class_name,
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
