//! A real kube-apiserver on a real etcd, on free loopback ports, with RBAC on.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, oneshot};
use kube::{Client, Config};
use serde_json::{Value, json};
use waymark_discovery::source::manifest::yaml;

use crate::common::{self, Registry, Waymark, eventually, get};

/// An API server's first start on a small machine takes a while.
const START: Duration = Duration::from_secs(180);
const TOKEN: &str = "test-admin";
/// The namespace of discovery in the shipped manifests.
pub(crate) const SYSTEM: &str = "waymark-system";

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn folder_of(variable: &str) -> PathBuf {
    std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} is set; run these tests by `cargo xtask test`"))
        .into()
}

/// A process that is killed when dropped, and also when this process ends without dropping it: a
/// shell waits for the end of its stdin.
struct Running(Child);

impl Running {
    fn start(program: &str, args: &[String], log: &Path) -> Self {
        const GUARD: &str = r#""$@" <&- & child=$!; read -r _; kill -9 $child; wait $child"#;
        let child = Command::new("sh")
            .args(["-c", GUARD, "sh"])
            .arg(folder_of("KUBEBUILDER_ASSETS").join(program))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(log).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        Self(child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The processes of a cluster.
pub(crate) struct Server {
    apiserver: std::sync::Mutex<Option<Running>>,
    _etcd: Running,
    folder: tempfile::TempDir,
    pub(crate) etcd_port: u16,
    pub(crate) port: u16,
    more_args: Vec<String>,
}

/// A cluster, and its admin.
pub(crate) struct Cluster {
    pub(crate) server: Arc<Server>,
    pub(crate) client: Client,
}

static SHARED: tokio::sync::OnceCell<Arc<Server>> = tokio::sync::OnceCell::const_new();

impl Cluster {
    /// A cluster of the test's own, without any CRD.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same, with more arguments for the API server.
    pub(crate) async fn start_with(more_args: &[&str]) -> Self {
        let server = Arc::new(Server::start(more_args));
        let cluster = Self { client: client(&server.admin()).await, server };
        cluster.start_apiserver().await;
        cluster
    }

    /// The cluster that all tests share, with all CRDs; each test has its own namespaces.
    pub(crate) async fn shared() -> Self {
        let server = SHARED.get_or_init(|| async {
            let cluster = Self::start().await;
            cluster.install_all().await;
            cluster.server
        });
        let server = Arc::clone(server.await);
        Self { client: client(&server.admin()).await, server }
    }

    /// Starts the API server, again after [`Self::kill_apiserver`].
    pub(crate) async fn start_apiserver(&self) {
        self.server.start_apiserver();
        let deadline = Instant::now() + START;
        let ready = http::Request::get("/readyz").body(Vec::new()).unwrap();
        while self.client.request_text(ready.clone()).await.is_err() {
            assert!(
                Instant::now() < deadline,
                "the API server is not ready: {}",
                self.server.log()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub(crate) fn kill_apiserver(&self) {
        *self.server.apiserver.lock().unwrap() = None;
    }

    /// Installs every CRD that discovery reads.
    pub(crate) async fn install_all(&self) {
        for plural in ["gateways", "httproutes", "referencegrants", "listenersets"] {
            self.install(&gateway_api(plural)).await;
        }
        for plural in ["mcpservers", "mcpremoteproxies", "virtualmcpservers", "mcpserverentries"] {
            let file = format!(
                "deploy/charts/operator-crds/files/crds/toolhive.stacklok.dev_{plural}.yaml"
            );
            self.install(&folder_of("TOOLHIVE_DIR").join(file)).await;
        }
        for file in ["mcpremoteendpoint.yaml", "mcpserver-lifecycle.yaml"] {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/envtest/toolhive");
            self.install(&Path::new(folder).join(file)).await;
        }
    }

    /// Installs the CRD of a file and waits until it is served.
    pub(crate) async fn install(&self, file: &Path) {
        let text =
            std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        // Helm's conditions stand around ToolHive's.
        let plain = |line: &&str| !line.trim_start().starts_with("{{");
        let text: Vec<&str> = text.lines().filter(plain).collect();
        let mut crd: Value = yaml(&text.join("\n")).unwrap();
        // What the apiserver fills in, a file may hold as null.
        crd.as_object_mut().unwrap().remove("status");
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
        let (resource, capabilities) = oneshot::pinned_kind(&self.client, &gvk)
            .await
            .unwrap_or_else(|error| panic!("{gvk:?}: {error}"));
        match capabilities.scope {
            Scope::Cluster => Api::all_with(self.client.clone(), &resource),
            Scope::Namespaced => {
                let namespace = value["metadata"]["namespace"].as_str().unwrap();
                Api::namespaced_with(self.client.clone(), namespace, &resource)
            }
        }
    }

    /// Server-side apply; a status is written as its controller would.
    pub(crate) async fn apply(&self, value: &Value) {
        let api = self.api(value).await;
        let name = value["metadata"]["name"].as_str().unwrap();
        let params = PatchParams::apply("test").force();
        let mut object = value.clone();
        let status = object.as_object_mut().unwrap().remove("status");
        api.patch(name, &params, &Patch::Apply(&object))
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        if let Some(status) = status {
            let patch = json!({"status": status});
            let written =
                api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
            written.unwrap();
        }
    }

    /// All objects of a kind, as `kubectl get -A -o json` gives them.
    pub(crate) async fn list(&self, group: &str, version: &str, kind: &str) -> Vec<Value> {
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

    pub(crate) async fn delete(&self, value: &Value) {
        let name = value["metadata"]["name"].as_str().unwrap();
        self.api(value).await.delete(name, &Default::default()).await.unwrap();
    }

    /// A kubeconfig of the ServiceAccount `waymark-discovery` of a namespace, which is created.
    pub(crate) async fn account(&self, namespace: &str) -> PathBuf {
        self.account_of(namespace, "waymark-discovery").await
    }

    /// The same of another ServiceAccount.
    pub(crate) async fn account_of(&self, namespace: &str, name: &str) -> PathBuf {
        let token = self.token_of(namespace, name).await;
        let file = self.server.folder.path().join(format!("{namespace}.{name}.kubeconfig"));
        self.server.kubeconfig(&file, self.server.port, namespace, &json!({"token": token}));
        file
    }

    /// A token of the same, fresh.
    pub(crate) async fn token(&self, namespace: &str) -> String {
        self.token_of(namespace, "waymark-discovery").await
    }

    async fn token_of(&self, namespace: &str, name: &str) -> String {
        self.apply(&object("v1", "Namespace", "", namespace)).await;
        self.apply(&object("v1", "ServiceAccount", namespace, name)).await;
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let request = TokenRequest::default();
        let token = api.create_token_request(name, &PostParams::default(), &request).await.unwrap();
        token.status.unwrap().token.unwrap()
    }

    /// Applies the documents of a file of `deploy/gateway/rbac`, after `change`.
    pub(crate) async fn apply_shipped(&self, file: &str, change: impl Fn(&mut Value)) {
        for mut document in shipped(file) {
            change(&mut document);
            self.apply(&document).await;
        }
    }

    /// A kubeconfig of a ServiceAccount that may do what the shipped ClusterRole allows.
    pub(crate) async fn cluster_account(&self) -> PathBuf {
        let kubeconfig = self.account(SYSTEM).await;
        self.apply_shipped("cluster.yaml", |_| {}).await;
        self.apply_shipped("own-namespace.yaml", |_| {}).await;
        kubeconfig
    }

    /// Events of a namespace as `kubectl get events` orders them: type, reason, object, note.
    pub(crate) async fn events(&self, namespace: &str) -> Vec<[String; 4]> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let mut events = api.list(&Default::default()).await.unwrap().items;
        events.sort_by_key(|event| event.event_time.clone().map(|time| time.0));
        let shown = |event: Event| {
            let regarding = event.regarding.unwrap_or_default();
            let name = regarding.name.unwrap_or_default();
            let object = format!("{}/{name}", regarding.kind.unwrap_or_default());
            let [kind, reason, note] =
                [event.type_, event.reason, event.note].map(Option::unwrap_or_default);
            let count =
                event.series.map_or(String::new(), |series| format!(" (x{})", series.count));
            [kind, reason, object, format!("{note}{count}")]
        };
        events.into_iter().map(shown).collect()
    }

    /// Waits for an Event of a reason about an object, whose note holds a text.
    pub(crate) async fn event(&self, namespace: &str, object: &str, reason: &str, text: &str) {
        let deadline = Instant::now() + common::PATIENCE;
        loop {
            let events = self.events(namespace).await;
            let is = |e: &&[String; 4]| e[1] == reason && e[2] == object && e[3].contains(text);
            if events.iter().any(|event| is(&event)) {
                return;
            }
            assert!(Instant::now() < deadline, "no {reason} with {text:?} in {events:#?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Server {
    fn start(more_args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (etcd_port, peer_port, port) = (free_port(), free_port(), free_port());
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let args = [
            format!("--data-dir={}", path("etcd")),
            "--name=test".to_owned(),
            "--unsafe-no-fsync".to_owned(),
            "--log-level=error".to_owned(),
            format!("--listen-client-urls={}", url(etcd_port)),
            format!("--advertise-client-urls={}", url(etcd_port)),
            format!("--listen-peer-urls={}", url(peer_port)),
            format!("--initial-advertise-peer-urls={}", url(peer_port)),
            format!("--initial-cluster=test={}", url(peer_port)),
        ];
        let etcd = Running::start("etcd", &args, &folder.path().join("etcd.log"));
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(path("sa.key"), key.serialize_pem()).unwrap();
        std::fs::write(path("sa.pub"), key.public_key_pem()).unwrap();
        std::fs::write(path("tokens.csv"), format!("{TOKEN},admin,admin,system:masters\n"))
            .unwrap();
        let server = Self {
            apiserver: None.into(),
            _etcd: etcd,
            folder,
            etcd_port,
            port,
            more_args: more_args.iter().map(|arg| (*arg).to_owned()).collect(),
        };
        server.kubeconfig(&server.admin(), port, "default", &json!({"token": TOKEN}));
        server
    }

    /// The admin's kubeconfig.
    pub(crate) fn admin(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("apiserver.log")).unwrap_or_default()
    }

    /// Writes a kubeconfig for a port, with a user.
    pub(crate) fn kubeconfig(&self, file: &Path, port: u16, namespace: &str, user: &Value) {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{port}"), "insecure-skip-tls-verify": true}}],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": "test",
                "context": {"cluster": "test", "user": "user", "namespace": namespace}}]
        });
        std::fs::write(file, config.to_string()).unwrap();
    }

    fn start_apiserver(&self) {
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let mut args = vec![
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", self.port),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--cert-dir={}", path("certs")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", path("sa.pub")),
            format!("--service-account-signing-key-file={}", path("sa.key")),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            format!("--token-auth-file={}", path("tokens.csv")),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--v=1".to_owned(),
        ];
        args.extend(self.more_args.iter().cloned());
        let log = self.folder.path().join("apiserver.log");
        *self.apiserver.lock().unwrap() = Some(Running::start("kube-apiserver", &args, &log));
    }
}

async fn client(kubeconfig: &Path) -> Client {
    let config = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(config, &Default::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// A CRD file of Gateway API's standard channel.
pub(crate) fn gateway_api(plural: &str) -> PathBuf {
    let file = format!("config/crd/standard/gateway.networking.k8s.io_{plural}.yaml");
    folder_of("GATEWAY_API_DIR").join(file)
}

/// The documents of a file of `deploy/gateway/rbac`.
pub(crate) fn shipped(file: &str) -> Vec<Value> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/gateway/rbac");
    let text = std::fs::read_to_string(Path::new(folder).join(file)).unwrap();
    text.split("\n---\n").map(|document| yaml(document).unwrap()).collect()
}

/// An object without a spec.
pub(crate) fn object(version: &str, kind: &str, namespace: &str, name: &str) -> Value {
    let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}});
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = json!(namespace);
    }
    object
}

pub(crate) fn namespace(name: &str, labels: &Value) -> Value {
    let mut namespace = object("v1", "Namespace", "", name);
    namespace["metadata"]["labels"] = labels.clone();
    namespace
}

/// A running `waymark discovery`, and its admin port.
pub(crate) struct Discovery {
    pub(crate) waymark: Waymark,
    pub(crate) admin: String,
}

impl Discovery {
    pub(crate) fn start(kubeconfig: &Path, registry: &str, more: &[&str]) -> Self {
        let mut command = common::binary();
        command.env("KUBECONFIG", kubeconfig).env_remove("POD_NAMESPACE");
        command.args(["discovery", "--registry", registry, "--admin-addr", "127.0.0.1:0"]);
        let mut waymark = Waymark::spawn({
            command.args(more);
            command
        });
        let line = waymark.line(&["the admin port is listening"]);
        let admin = format!("http://{}", line.rsplit_once("admin=").unwrap().1.trim());
        Self { waymark, admin }
    }

    /// What the admin port says of one object: URLs and codes of problems.
    pub(crate) fn explain(&self, path: &str) -> (Vec<String>, Vec<String>) {
        let answer = get(&format!("{}/explain/{path}", self.admin));
        if answer.status == 404 {
            return (Vec::new(), vec!["404".to_owned()]);
        }
        let outcome = answer.json();
        let of = |list: &str, field: &str| -> Vec<String> {
            let objects = outcome["objects"].as_array().unwrap();
            let items = objects.iter().flat_map(|object| object[list].as_array().unwrap());
            items.map(|item| item[field].as_str().unwrap().to_owned()).collect()
        };
        (of("published", "url"), of("problems", "code"))
    }

    /// Waits until the admin port explains an object just so.
    pub(crate) fn explains(&self, path: &str, urls: &[&str], codes: &[&str]) {
        let mut last = Default::default();
        let deadline = Instant::now() + common::PATIENCE;
        while Instant::now() < deadline {
            last = self.explain(path);
            if last.0 == urls && last.1 == codes {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{path}: {last:?}, expected {urls:?} {codes:?}");
    }

    /// Status and text of `/readyz`.
    pub(crate) fn ready(&self) -> (u16, String) {
        let answer = get(&format!("{}/readyz", self.admin));
        (answer.status, String::from_utf8(answer.body).unwrap())
    }

    pub(crate) fn until_ready(&self) {
        eventually("readiness", || (self.ready().0 == 200).then_some(()));
    }
}

/// URLs of the first remotes of all servers, in the order of their names.
pub(crate) fn served(registry: &Registry) -> Vec<String> {
    let page = get(&format!("{}/v0.1/servers?limit=100", registry.rest)).json();
    let url = |s: &Value| s["server"]["remotes"][0]["url"].as_str().unwrap().to_owned();
    page["servers"].as_array().unwrap().iter().map(url).collect()
}

/// Waits until the registry serves just these URLs.
pub(crate) fn serves(registry: &Registry, urls: &[&str]) {
    let mut last = Vec::new();
    let deadline = Instant::now() + common::PATIENCE;
    while Instant::now() < deadline {
        last = served(registry);
        if last == urls {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{last:?}, expected {urls:?}");
}

/// Runs what blocks without stopping the runtime, which the clients of the cluster need.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}
