//! A real kube-apiserver on a real etcd, on free loopback ports, with RBAC on.
#![allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, oneshot};
use kube::{Client, Config};
use serde_json::{Value, json};

/// An API server's first start on a small machine takes a while.
const START: Duration = Duration::from_secs(180);
const TOKEN: &str = "test-admin";

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("KUBEBUILDER_ASSETS")
        .expect("KUBEBUILDER_ASSETS is set; run these tests by `cargo xtask test`");
    Path::new(&folder).join(name)
}

/// A process, killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Cluster {
    apiserver: Option<Running>,
    _etcd: Running,
    folder: tempfile::TempDir,
    etcd_port: u16,
    port: u16,
    pub client: Client,
    pub kubeconfig: PathBuf,
}

impl Cluster {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (etcd_port, peer_port, port) = (free_port(), free_port(), free_port());
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let etcd = Command::new(program("etcd"))
            .args(["--name", "test", "--unsafe-no-fsync", "--log-level", "error"])
            .args(["--data-dir", folder.path().join("etcd").to_str().unwrap()])
            .args([
                "--listen-client-urls",
                &url(etcd_port),
                "--advertise-client-urls",
                &url(etcd_port),
            ])
            .args([
                "--listen-peer-urls",
                &url(peer_port),
                "--initial-advertise-peer-urls",
                &url(peer_port),
            ])
            .args(["--initial-cluster", &format!("test={}", url(peer_port))])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd starts");
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(folder.path().join("sa.key"), key.serialize_pem()).unwrap();
        std::fs::write(folder.path().join("sa.pub"), key.public_key_pem()).unwrap();
        std::fs::write(
            folder.path().join("tokens.csv"),
            format!("{TOKEN},admin,admin,system:masters\n"),
        )
        .unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{port}"), "insecure-skip-tls-verify": true}}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}]
        });
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        let client = client(&kubeconfig).await;
        let mut cluster = Self {
            apiserver: None,
            _etcd: Running(etcd),
            folder,
            etcd_port,
            port,
            client,
            kubeconfig,
        };
        cluster.start_apiserver().await;
        cluster
    }

    /// Starts the API server, again after [`Self::kill_apiserver`].
    pub async fn start_apiserver(&mut self) {
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let log = std::fs::File::create(self.folder.path().join("apiserver.log")).unwrap();
        let child = Command::new(program("kube-apiserver"))
            .args(["--etcd-servers", &format!("http://127.0.0.1:{}", self.etcd_port)])
            .args(["--bind-address", "127.0.0.1", "--secure-port", &self.port.to_string()])
            .args(["--advertise-address", "127.0.0.1", "--cert-dir", &path("certs")])
            .args(["--service-account-issuer", "https://kubernetes.default.svc"])
            .args(["--service-account-key-file", &path("sa.pub")])
            .args(["--service-account-signing-key-file", &path("sa.key")])
            .args(["--service-cluster-ip-range", "10.0.0.0/24", "--authorization-mode", "RBAC"])
            .args(["--token-auth-file", &path("tokens.csv")])
            .args(["--disable-admission-plugins", "ServiceAccount", "--v", "1"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("kube-apiserver starts");
        self.apiserver = Some(Running(child));
        let deadline = Instant::now() + START;
        let ready = http::Request::get("/readyz").body(Vec::new()).unwrap();
        while self.client.request_text(ready.clone()).await.is_err() {
            let log = self.folder.path().join("apiserver.log");
            assert!(
                Instant::now() < deadline,
                "the API server is not ready: {}",
                std::fs::read_to_string(log).unwrap_or_default()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub fn kill_apiserver(&mut self) {
        self.apiserver = None;
    }

    /// Installs the CRDs of a file and waits until they are served.
    pub async fn install(&self, file: &Path) {
        let text =
            std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let crd: Value = waymark_discovery::source::manifest::yaml(&text).unwrap();
        self.apply(&crd).await;
        let (group, kind) = (&crd["spec"]["group"], &crd["spec"]["names"]["kind"]);
        let versions = crd["spec"]["versions"].as_array().unwrap();
        let served = versions.iter().find(|v| v["served"] == true).unwrap();
        let gvk = GroupVersionKind::gvk(
            group.as_str().unwrap(),
            served["name"].as_str().unwrap(),
            kind.as_str().unwrap(),
        );
        let deadline = Instant::now() + START;
        while oneshot::pinned_kind(&self.client, &gvk).await.is_err() {
            assert!(Instant::now() < deadline, "{gvk:?} is not served");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn api(&self, value: &Value) -> Api<DynamicObject> {
        let (group, version) =
            value["apiVersion"].as_str().unwrap().rsplit_once('/').unwrap_or(("", "v1"));
        let gvk = GroupVersionKind::gvk(group, version, value["kind"].as_str().unwrap());
        let (resource, capabilities) = oneshot::pinned_kind(&self.client, &gvk).await.unwrap();
        match capabilities.scope {
            Scope::Cluster => Api::all_with(self.client.clone(), &resource),
            Scope::Namespaced => {
                let namespace = value["metadata"]["namespace"].as_str().unwrap();
                Api::namespaced_with(self.client.clone(), namespace, &resource)
            }
        }
    }

    /// Server-side apply; a status is written as its controller would.
    pub async fn apply(&self, value: &Value) {
        let api = self.api(value).await;
        let name = value["metadata"]["name"].as_str().unwrap();
        let params = PatchParams::apply("test").force();
        let mut object = value.clone();
        let status = object.as_object_mut().unwrap().remove("status");
        api.patch(name, &params, &Patch::Apply(&object)).await.unwrap();
        if let Some(status) = status {
            let patch = json!({"status": status});
            let written =
                api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
            written.unwrap();
        }
    }

    /// All objects of a kind, as `kubectl get -A -o json` gives them.
    pub async fn list(&self, group: &str, version: &str, kind: &str) -> Vec<Value> {
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let (resource, _) = oneshot::pinned_kind(&self.client, &gvk).await.unwrap();
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let items = api.list(&Default::default()).await.unwrap().items;
        let item = |object: DynamicObject| {
            let mut value = serde_json::to_value(object).unwrap();
            value["apiVersion"] = json!(resource.api_version);
            value["kind"] = json!(resource.kind);
            value
        };
        items.into_iter().map(item).collect()
    }

    pub async fn delete(&self, value: &Value) {
        let name = value["metadata"]["name"].as_str().unwrap();
        self.api(value).await.delete(name, &Default::default()).await.unwrap();
    }
}

async fn client(kubeconfig: &Path) -> Client {
    let config = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(config, &Default::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// A CRD file of Gateway API's standard channel.
pub fn gateway_api(plural: &str) -> PathBuf {
    let folder = std::env::var_os("GATEWAY_API_DIR")
        .expect("GATEWAY_API_DIR is set; run these tests by `cargo xtask test`");
    let file = format!("config/crd/standard/gateway.networking.k8s.io_{plural}.yaml");
    Path::new(&folder).join(file)
}
