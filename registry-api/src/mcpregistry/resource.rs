//! An MCPRegistry as the API server has it, and what is written of it.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Map, Value};
use smol_str::SmolStr;

use super::crd::{GROUP, MCPRegistrySpec, MCPRegistryStatus, VERSION};
use super::plan::registry_name;
use super::storage::Owner;

/// The finalizer: what a registry has is removed before its MCPRegistry is gone.
pub(super) const FINALIZER: &str = "toolhive.stacklok.dev/waymark-registry";

/// The kind of MCPRegistries.
pub(super) fn kind() -> ApiResource {
    let gvk = GroupVersionKind::gvk(GROUP, VERSION, "MCPRegistry");
    ApiResource::from_gvk_with_plural(&gvk, "mcpregistries")
}

/// An MCPRegistry as the API server has it.
#[derive(Debug)]
pub(super) struct Resource {
    /// The name of its registry.
    pub(super) registry: SmolStr,
    pub(super) object: DynamicObject,
    /// Its spec, or why it cannot be read.
    pub(super) spec: Result<MCPRegistrySpec, String>,
    pub(super) status: MCPRegistryStatus,
}

impl Resource {
    pub(super) fn of(object: DynamicObject) -> Self {
        let spec = object.data.get("spec").cloned().unwrap_or_default();
        let spec = serde_json::from_value(spec).map_err(|error| error.to_string());
        let status = object.data.get("status").cloned().unwrap_or_default();
        let status = serde_json::from_value(status).unwrap_or_default();
        let namespace = object.namespace().unwrap_or_default();
        let registry = registry_name(&namespace, &object.name_any());
        Self { registry, object, spec, status }
    }

    pub(super) fn is_deleting(&self) -> bool {
        self.object.metadata.deletion_timestamp.is_some()
    }

    pub(super) fn has_finalizer(&self) -> bool {
        self.object.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
    }

    pub(super) fn owner(&self) -> Owner {
        Owner {
            namespace: self.object.namespace().unwrap_or_default(),
            name: self.object.name_any(),
            reference: OwnerReference {
                api_version: format!("{GROUP}/{VERSION}"),
                kind: "MCPRegistry".to_owned(),
                name: self.object.name_any(),
                uid: self.object.uid().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(false),
            },
        }
    }

    /// It, as an Event names it.
    pub(super) fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(format!("{GROUP}/{VERSION}")),
            kind: Some("MCPRegistry".to_owned()),
            namespace: self.object.namespace(),
            name: Some(self.object.name_any()),
            uid: self.object.uid(),
            ..ObjectReference::default()
        }
    }
}

/// Whether one state of an object is older than another: resource versions of one object are numbers
/// that grow (Kubernetes 1.35 says so for all of its own).
pub(super) fn is_older(object: &DynamicObject, than: &DynamicObject) -> bool {
    let number = |object: &DynamicObject| object.resource_version()?.parse::<u64>().ok();
    let same = object.uid() == than.uid();
    same && matches!((number(object), number(than)), (Some(a), Some(b)) if a < b)
}

/// The merge patch that makes one status of another; `None` where they are the same.
pub(super) fn difference(old: Option<&Value>, new: &MCPRegistryStatus) -> Option<Value> {
    let Ok(Value::Object(new)) = serde_json::to_value(new) else { return None };
    let empty = Map::new();
    let old = old.and_then(Value::as_object).unwrap_or(&empty);
    let mut patch: Map<String, Value> = new
        .iter()
        .filter(|(key, value)| old.get(*key) != Some(value))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    // A part that is gone within an object has to be said, too.
    for (key, value) in &mut patch {
        if let (Some(Value::Object(old)), Value::Object(new)) = (old.get(key), value) {
            for key in old.keys() {
                if !new.contains_key(key) {
                    new.insert(key.clone(), Value::Null);
                }
            }
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences() {
        let status = MCPRegistryStatus {
            message: Some("m".into()),
            api_endpoint: Some("http://x".into()),
            ..MCPRegistryStatus::default()
        };
        let written = serde_json::to_value(&status).unwrap();
        assert_eq!(difference(Some(&written), &status), None);
        let other = MCPRegistryStatus { api_endpoint: None, server_count: 1, ..status };
        assert_eq!(
            difference(Some(&written), &other),
            Some(json!({"apiEndpoint": null, "serverCount": 1}))
        );
        assert!(difference(None, &other).is_some());
    }
}
