//! A Deployment of a registry's own.
//!
//! It follows the registry of the controller's process, by the API that everybody has: so it needs
//! no right in the cluster and no credential of the source, and goes on with what it has while that
//! process is away.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::Resource as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::controller::{LABEL, MANAGER};
use super::crd::DeploymentSpec;
use super::storage::Owner;
use crate::source::digest;

/// Port of REST in the Pods.
const PORT: u16 = 8080;
/// How often a dedicated registry asks for what changed.
const INTERVAL: &str = "10s";

/// How dedicated Deployments are made.
#[derive(Debug, Clone)]
pub struct Dedicated {
    /// The image of their container: this program's.
    pub image: String,
    /// Where the controller's process serves REST, for other Pods: `http://service.namespace:port`.
    pub upstream: String,
}

fn own_name(owner: &Owner) -> String {
    format!("{}-api", owner.name)
}

/// Where a dedicated registry is served.
pub(super) fn endpoint(owner: &Owner) -> String {
    format!("http://{}.{}.svc.cluster.local", own_name(owner), owner.namespace)
}

/// The objects: ServiceAccount, ConfigMap, Service, Deployment.
fn objects(
    owner: &Owner,
    spec: &DeploymentSpec,
    dedicated: &Dedicated,
    registry: &str,
) -> [Value; 4] {
    let name = own_name(owner);
    let labels = json!({
        "app.kubernetes.io/name": "waymark",
        "app.kubernetes.io/component": "registry-api",
        "app.kubernetes.io/instance": owner.name,
        "app.kubernetes.io/managed-by": "waymark",
        LABEL: owner.name,
    });
    let metadata = json!({
        "name": name, "namespace": owner.namespace, "labels": labels,
        "ownerReferences": [owner.reference],
    });
    let endpoint = format!("{}/registry/{registry}", dedicated.upstream.trim_end_matches('/'));
    let config = json!({
        "sources": [{"name": "upstream", "api": {"endpoint": endpoint},
            "syncPolicy": {"interval": INTERVAL,
                "retryPolicy": {"maxAttempts": 100, "backoffInterval": "1s", "backoffMultiplier": "1.2"}}}],
        "registries": [{"name": "default", "sources": ["upstream"]}],
    })
    .to_string();
    let resources = spec.resources.as_ref().map_or_else(
        || {
            json!({"requests": {"cpu": "10m", "memory": "32Mi"},
                "limits": {"cpu": "1", "memory": "256Mi"}})
        },
        |resources| json!(resources),
    );
    let selector = json!({LABEL: owner.name, "app.kubernetes.io/component": "registry-api"});
    let probe = |path: &str, period: u32| json!({"httpGet": {"path": path, "port": "http"}, "periodSeconds": period});
    let container = json!({
        "name": "registry-api",
        "image": dedicated.image,
        "args": ["registry-api", "--config", "/config/registry.json", "--data", "/data",
            "--http-addr", format!("0.0.0.0:{PORT}"), "--grpc-addr", "unix:/data/registry.sock"],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "livenessProbe": probe("/health", 10),
        "readinessProbe": probe("/readiness", 5),
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
        },
        "volumeMounts": [{"name": "config", "mountPath": "/config", "readOnly": true},
            {"name": "data", "mountPath": "/data"}],
    });
    let pod = json!({
        "serviceAccountName": name,
        "automountServiceAccountToken": false,
        "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532,
            "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": name}},
            {"name": "data", "emptyDir": {"sizeLimit": "1Gi"}}],
    });
    // Another configuration is another Pod.
    let hash = digest(config.as_bytes());
    [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata,
            "automountServiceAccountToken": false}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata,
            "data": {"registry.json": config}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {
            "selector": selector,
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {
            "replicas": spec.replicas,
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {"labels": labels, "annotations": {"waymark.dev/config": hash}},
                "spec": pod}}}),
    ]
}

/// Why a Deployment could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum DedicatedError {
    /// The API server says so.
    #[error("the dedicated {kind} cannot be applied: {error}")]
    Kube {
        kind: &'static str,
        #[source]
        error: kube::Error,
    },
    /// The name is taken.
    #[error("there is a {kind} {name} that is not the controller's; rename or delete it")]
    Taken { kind: &'static str, name: String },
}

/// What the objects' kinds have in common.
trait Kind:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + k8s_openapi::Resource
    + DeserializeOwned
    + Clone
    + std::fmt::Debug
{
}

impl Kind for ServiceAccount {}
impl Kind for ConfigMap {}
impl Kind for Service {}
impl Kind for Deployment {}

struct Applier<'a> {
    client: &'a Client,
    owner: &'a Owner,
}

impl Applier<'_> {
    fn api<K: Kind>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.owner.namespace)
    }

    fn is_owned<K: Kind>(&self, object: &K) -> bool {
        let uid = &self.owner.reference.uid;
        object.meta().owner_references.iter().flatten().any(|reference| reference.uid == *uid)
    }

    async fn apply<K: Kind>(&self, object: &Value) -> Result<K, DedicatedError> {
        let kind = K::KIND;
        let failed = |error| DedicatedError::Kube { kind, error };
        let (api, name) = (self.api::<K>(), own_name(self.owner));
        let there = api.get_opt(&name).await.map_err(failed)?;
        if there.is_some_and(|there| !self.is_owned(&there)) {
            return Err(DedicatedError::Taken { kind, name });
        }
        let params = PatchParams::apply(MANAGER).force();
        api.patch(&name, &params, &Patch::Apply(object)).await.map_err(failed)
    }

    async fn remove<K: Kind>(&self) -> Result<(), DedicatedError> {
        let kind = K::KIND;
        let failed = |error| DedicatedError::Kube { kind, error };
        let api = self.api::<K>();
        let there = api.get_opt(&own_name(self.owner)).await.map_err(failed)?;
        let Some(there) = there.filter(|there| self.is_owned(there)) else { return Ok(()) };
        match api.delete(&there.name_any(), &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            deleted => deleted.map(|_| ()).map_err(failed),
        }
    }
}

/// Applies the objects; tells how many replicas are available.
pub(super) async fn apply(
    client: &Client,
    owner: &Owner,
    spec: &DeploymentSpec,
    dedicated: &Dedicated,
    registry: &str,
) -> Result<i32, DedicatedError> {
    let [account, config, service, deployment] = objects(owner, spec, dedicated, registry);
    let applier = Applier { client, owner };
    applier.apply::<ServiceAccount>(&account).await?;
    applier.apply::<ConfigMap>(&config).await?;
    applier.apply::<Service>(&service).await?;
    let deployment = applier.apply::<Deployment>(&deployment).await?;
    Ok(deployment.status.and_then(|status| status.available_replicas).unwrap_or_default())
}

/// Removes the objects, where there are any. The Deployment is the last: where it is gone, all are.
pub(super) async fn remove(client: &Client, owner: &Owner) -> Result<(), DedicatedError> {
    let applier = Applier { client, owner };
    let failed = |error| DedicatedError::Kube { kind: Deployment::KIND, error };
    if applier.api::<Deployment>().get_opt(&own_name(owner)).await.map_err(failed)?.is_none() {
        return Ok(());
    }
    applier.remove::<Service>().await?;
    applier.remove::<ConfigMap>().await?;
    applier.remove::<ServiceAccount>().await?;
    applier.remove::<Deployment>().await
}
