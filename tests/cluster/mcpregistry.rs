//! MCPRegistry against a real API server, with the shipped role.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use waymark_discovery::source::manifest::yaml;

use crate::common::{self, PATIENCE, Registry, get, names};
use crate::harness::{Cluster, SYSTEM, blocking, gateway_api, namespace, object};
use crate::postgres::Postgres;
use crate::web::{Reply, Web};

pub(crate) const VERSION: &str = "toolhive.stacklok.dev/v1alpha1";
const TRIGGER: &str = "toolhive.stacklok.dev/sync-trigger";

/// The shipped CRD.
pub(crate) fn crd() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/gateway/crds/mcpregistries.yaml").into()
}

/// A catalogue in the upstream format.
fn catalogue(names: &[&str]) -> String {
    let server = |name: &&str| {
        json!({"name": name, "description": "d", "version": "1.0.0",
            "remotes": [{"type": "streamable-http", "url": "https://x.example.com/mcp"}]})
    };
    json!({"servers": names.iter().map(server).collect::<Vec<_>>()}).to_string()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn configmap(namespace: &str, name: &str, text: &str) -> Value {
    let mut map = object("v1", "ConfigMap", namespace, name);
    map["data"] = json!({"registry.json": text});
    map
}

fn registry(namespace: &str, name: &str, spec: &Value) -> Value {
    let mut registry = object(VERSION, "MCPRegistry", namespace, name);
    registry["spec"] = spec.clone();
    registry
}

/// A spec that reads the ConfigMap `data` often.
fn spec(more: &Value) -> Value {
    let mut spec = json!({
        "source": {"type": "configmap", "configmap": {"name": "data"}},
        "syncPolicy": {"interval": "1s",
            "retryPolicy": {"backoffInterval": "1s", "backoffMultiplier": "1"}},
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

/// A cluster of the test's own with what the controller watches.
pub(crate) async fn cluster() -> Cluster {
    let cluster = Cluster::start().await;
    cluster.install(&crd()).await;
    cluster.install(&gateway_api("referencegrants")).await;
    cluster.apply(&namespace("team-a", &json!({}))).await;
    cluster
}

/// `waymark registry-api --mcpregistries`.
pub(crate) fn start(kubeconfig: &Path, data: &Path, more: &[&str]) -> Registry {
    let mut command = common::binary();
    command.env("KUBECONFIG", kubeconfig).env_remove("POD_NAMESPACE");
    let args = [&["--mcpregistries", "--lease-duration", "4s"][..], more].concat();
    Registry::spawn(command, data, "127.0.0.1:0", &args)
}

/// A running controller with the shipped role.
struct Controller {
    cluster: Cluster,
    data: tempfile::TempDir,
    account: PathBuf,
    args: Vec<String>,
    registry: Registry,
}

impl Controller {
    async fn start(args: &[&str]) -> Self {
        let cluster = cluster().await;
        let account = cluster.account_of(SYSTEM, "waymark-registry-api").await;
        cluster.apply_shipped("registry-api.yaml", |_| {}).await;
        cluster.apply_shipped("registry-api-own-namespace.yaml", |_| {}).await;
        Self::with(cluster, account, args)
    }

    fn with(cluster: Cluster, account: PathBuf, args: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let registry = blocking(|| start(&account, data.path(), args));
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self { cluster, data, account, args, registry }
    }

    /// kill -9, and a new process on the same data, or without them.
    fn restart(&mut self, keep: bool) {
        self.registry.waymark.signal("-KILL");
        if !keep {
            self.data = tempfile::tempdir().unwrap();
        }
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        self.registry = blocking(|| start(&self.account, self.data.path(), &args));
    }

    async fn get(&self, name: &str) -> Value {
        self.cluster
            .list("toolhive.stacklok.dev", "v1alpha1", "MCPRegistry")
            .await
            .into_iter()
            .find(|registry| registry["metadata"]["name"] == name)
            .unwrap_or_default()
    }

    /// Waits until the status is of this phase, and its conditions `status/reason`.
    async fn is(&self, name: &str, phase: &str, conditions: [&str; 3]) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.get(name).await["status"].clone();
            let all = status["conditions"].as_array().cloned().unwrap_or_default();
            let text = |v: &Value| v.as_str().unwrap().to_owned();
            let found: Vec<String> = all
                .iter()
                .map(|c| format!("{}/{}", text(&c["status"]), text(&c["reason"])))
                .collect();
            if status["phase"] == phase && found == conditions {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "{name} is not {phase} {conditions:?}: {status:#}\n{}",
                self.registry.waymark.seen.join("\n")
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn ready(&self, name: &str) -> Value {
        let good = ["True/SourceFound", "True/DataValid", "True/SyncSuccessful"];
        self.is(name, "Ready", good).await
    }

    fn rest(&self, name: &str) -> String {
        format!("{}/registry/team-a.{name}", self.registry.rest)
    }

    /// Waits until the registry serves just these.
    fn serves(&self, name: &str, expected: &[&str]) {
        blocking(|| {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let rest = self.rest(name);
                let there = get(&format!("{rest}/v0.1/servers")).status == 200;
                let found = if there { names(&rest, "") } else { vec!["404".to_owned()] };
                if found == expected {
                    return;
                }
                assert!(Instant::now() < deadline, "{name} serves {found:?}, not {expected:?}");
                std::thread::sleep(Duration::from_millis(20));
            }
        });
    }

    /// How often a status was written by this process.
    fn writes(&self) -> u64 {
        let metrics = blocking(|| get(&format!("{}/metrics", self.registry.rest)).body);
        let metrics = String::from_utf8(metrics).unwrap();
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("waymark_mcpregistry_status_writes_total "));
        line.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap()
    }

    async fn event(&self, name: &str, reason: &str, text: &str) {
        self.cluster.event("team-a", &format!("MCPRegistry/{name}"), reason, text).await;
    }

    async fn put(&self, text: &str) {
        self.cluster.apply(&configmap("team-a", "data", text)).await;
    }

    async fn register(&self, name: &str, spec: &Value) {
        self.cluster.apply(&registry("team-a", name, spec)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn of_a_configmap() {
    let mut it = Controller::start(&["--api-url", "https://registry.example.com/"]).await;
    // Created before its ConfigMap.
    it.register("prod", &spec(&json!({"displayName": "Production"}))).await;
    let missing = ["False/ConfigMapNotFound", "Unknown/NotRead", "False/ConfigMapNotFound"];
    let status = it.is("prod", "Failed", missing).await;
    assert_eq!(status["message"], "there is no ConfigMap data in team-a");
    it.event("prod", "ConfigMapNotFound", "there is no ConfigMap data").await;
    it.put(&catalogue(&["a.b/one", "a.b/two"])).await;
    let status = it.ready("prod").await;
    it.serves("prod", &["a.b/one", "a.b/two"]);
    it.event("prod", "SyncSuccessful", "Serving 2 servers").await;
    assert_eq!(status["serverCount"], 2);
    assert_eq!(status["lastSyncHash"].as_str().unwrap().len(), 64);
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!(status["apiEndpoint"], "https://registry.example.com/registry/team-a.prod");
    it.columns().await;

    // A change is served without a sync being due; faults keep what was there.
    it.register("prod", &spec(&json!({"syncPolicy": {"interval": "1h"}}))).await;
    it.put(&catalogue(&["a.b/three"])).await;
    it.serves("prod", &["a.b/three"]);
    let data = |reason: &str| format!("False/{reason}");
    let thousand: Vec<String> = (0..1010)
        .map(|n| if n % 101 == 0 { format!("bad {n}") } else { format!("a.b/{n:04}") })
        .collect();
    let thousand: Vec<&str> = thousand.iter().map(String::as_str).collect();
    for (text, reason) in [
        ("", "Empty"),
        ("no catalogue", "InvalidFormat"),
        ("{\"servers\": [{}]}", "NoValidEntries"),
    ] {
        it.put(text).await;
        let status =
            it.is("prod", "Failed", ["True/SourceFound", &data(reason), &data(reason)]).await;
        let message = status["message"].as_str().unwrap();
        assert!(message.contains("still serving 1 server as of 20"), "{message}");
        it.event("prod", reason, "still serving").await;
        it.serves("prod", &["a.b/three"]);
    }
    it.put(&catalogue(&thousand)).await;
    let rejected = ["True/SourceFound", "True/EntriesRejected", "True/SyncSuccessful"];
    let status = it.is("prod", "Ready", rejected).await;
    assert_eq!((&status["serverCount"], &status["rejectedCount"]), (&json!(1000), &json!(10)));
    assert_eq!(status["message"], "Serving 1000 servers; 10 invalid entries left out");
    let left_out = status["conditions"][1]["message"].as_str().unwrap();
    assert!(left_out.starts_with("Left out: $.servers[0]: "), "{left_out}");
    assert!(left_out.ends_with("and 7 more"), "{left_out}");

    // Another key, compressed; a format that it is not; a filter.
    let mut packed = object("v1", "ConfigMap", "team-a", "data");
    packed["data"] = Value::Null;
    packed["binaryData"] =
        json!({"x.gz": ByteString(gzip(&catalogue(&["a.b/one", "a.b/old-two", "c.d/x"])))});
    let source = |more: Value| {
        let mut configmap = json!({"name": "data", "key": "x.gz"});
        configmap.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"type": "configmap", "configmap": configmap})
    };
    it.cluster.apply(&packed).await;
    let key = ["True/SourceFound", "False/KeyNotFound", "False/KeyNotFound"];
    let status = it.is("prod", "Failed", key).await;
    assert!(status["message"].as_str().unwrap().contains("its keys are: x.gz"), "{status}");
    it.register("prod", &spec(&json!({"source": source(json!({}))}))).await;
    it.serves("prod", &["a.b/old-two", "a.b/one", "c.d/x"]);
    let filter = json!({"include": ["a.b/*"], "exclude": ["*/old-*"]});
    let filtered = spec(&json!({"source": source(json!({})), "filter": filter}));
    it.register("prod", &filtered).await;
    it.serves("prod", &["a.b/one"]);
    let deadline = Instant::now() + PATIENCE;
    while it.get("prod").await["status"]["serverCount"] != 1 {
        assert!(Instant::now() < deadline, "{:#}", it.get("prod").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut wrong = source(json!({}));
    wrong["format"] = json!("toolhive");
    it.register("prod", &spec(&json!({"source": wrong, "filter": filter}))).await;
    let format = ["True/SourceFound", "False/InvalidFormat", "False/InvalidFormat"];
    let status = it.is("prod", "Failed", format).await;
    assert!(status["message"].as_str().unwrap().contains("its format is upstream"), "{status}");
    it.serves("prod", &["a.b/one"]);

    // Several ConfigMaps as one catalogue.
    for (name, text) in [("part-1", catalogue(&["a.b/one"])), ("part-2", catalogue(&["a.b/two"]))] {
        let mut part = configmap("team-a", name, &text);
        part["metadata"]["labels"] = json!({"catalogue": "all"});
        it.cluster.apply(&part).await;
    }
    let parts = json!({"type": "configmap",
        "configmap": {"selector": {"matchLabels": {"catalogue": "all"}}}});
    it.register("prod", &spec(&json!({ "source": parts }))).await;
    it.serves("prod", &["a.b/one", "a.b/two"]);
    let mut part = configmap("team-a", "part-3", &catalogue(&["a.b/three"]));
    part["metadata"]["labels"] = json!({"catalogue": "all"});
    it.cluster.apply(&part).await;
    it.serves("prod", &["a.b/one", "a.b/three", "a.b/two"]);
    it.cluster.delete(&part).await;
    it.serves("prod", &["a.b/one", "a.b/two"]);
    it.ready("prod").await;

    // Nothing changes: nothing is written, however often it is read.
    it.register("prod", &spec(&json!({ "source": parts }))).await;
    it.ready("prod").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, writes) = (it.get("prod").await, it.writes());
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!((it.get("prod").await, it.writes()), (before.clone(), writes));
    // The controller is killed in the middle, and begins anew: neither does that.
    it.restart(true);
    it.serves("prod", &["a.b/one", "a.b/two"]);
    blocking(|| it.registry.waymark.line(&["the source is in step"]));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((it.get("prod").await, it.writes()), (before, 0));

    // Deleted, and at once another one of the same name: that counts.
    it.cluster.delete(&registry("team-a", "prod", &json!({}))).await;
    let deadline = Instant::now() + PATIENCE;
    while !it.get("prod").await.is_null() {
        assert!(Instant::now() < deadline, "{:#}", it.get("prod").await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    it.register("prod", &spec(&json!({"source": {"type": "discovery"}}))).await;
    it.ready("prod").await;
    it.serves("prod", &[]);

    // Deleted: first it is not served, then it is gone.
    it.cluster.delete(&registry("team-a", "prod", &json!({}))).await;
    it.serves("prod", &["404"]);
    let deadline = Instant::now() + PATIENCE;
    while !it.get("prod").await.is_null() {
        assert!(Instant::now() < deadline, "{:#}", it.get("prod").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    it.registry.waymark.drain();
    let log = it.registry.waymark.seen.join("\n");
    assert!(!log.contains("forbidden"), "{log}");
    it.registry.waymark.stop();
}

impl Controller {
    /// What `kubectl get mcpreg` prints.
    async fn columns(&self) {
        let request =
            http::Request::get(format!("/apis/{VERSION}/namespaces/team-a/mcpregistries"))
                .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
                .body(Vec::new())
                .unwrap();
        let table: Value = self.cluster.client.request(request).await.unwrap();
        let shown = |column: &&Value| column["priority"] == 0;
        let columns = table["columnDefinitions"].as_array().unwrap();
        let columns: Vec<&str> =
            columns.iter().filter(shown).map(|c| c["name"].as_str().unwrap()).collect();
        assert_eq!(columns, ["Name", "Phase", "Source", "Servers", "Deployed", "Last Sync", "Age"]);
        let cells = &table["rows"][0]["cells"];
        let cells: Vec<String> =
            cells.as_array().unwrap()[..5].iter().map(ToString::to_string).collect();
        assert_eq!(cells, ["\"prod\"", "\"Ready\"", "\"configmap\"", "2", "0"]);
        let names: Value = self
            .cluster
            .client
            .request(http::Request::get(format!("/apis/{VERSION}")).body(Vec::new()).unwrap())
            .await
            .unwrap();
        let kind =
            names["resources"].as_array().unwrap().iter().find(|r| r["kind"] == "MCPRegistry");
        assert_eq!(kind.unwrap()["shortNames"], json!(["mcpreg"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn manual_sync_and_other_namespaces() {
    let it = Controller::start(&[]).await;
    it.put(&catalogue(&["a.b/one"])).await;
    // Read once by itself, then only when it is asked for.
    let manual = spec(&json!({"syncPolicy": {"type": "manual"}}));
    it.register("manual", &manual).await;
    let first = it.ready("manual").await;
    it.serves("manual", &["a.b/one"]);
    it.register("automatic", &spec(&json!({}))).await;
    it.ready("automatic").await;
    it.put(&catalogue(&["a.b/two"])).await;
    it.serves("automatic", &["a.b/two"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    it.serves("manual", &["a.b/one"]);
    let mut asked = registry("team-a", "manual", &manual);
    asked["metadata"]["annotations"] = json!({TRIGGER: "now"});
    it.cluster.apply(&asked).await;
    it.serves("manual", &["a.b/two"]);
    let deadline = Instant::now() + PATIENCE;
    while it.get("manual").await["status"]["lastSyncTrigger"] != "now" {
        assert!(Instant::now() < deadline, "{:#}", it.get("manual").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let second = it.get("manual").await["status"].clone();
    assert_ne!(first["lastSyncHash"], second["lastSyncHash"]);

    // The ConfigMap of another namespace: only with its word.
    it.cluster.apply(&namespace("team-b", &json!({}))).await;
    it.cluster.apply(&configmap("team-b", "data", &catalogue(&["b.c/one"]))).await;
    let other = json!({"type": "configmap",
        "configmap": {"name": "data", "namespace": "team-b"}});
    let copied = json!({"type": "configmap"});
    it.register("other", &spec(&json!({ "source": other, "storageRef": copied }))).await;
    let refused = ["False/ReferenceNotGranted", "Unknown/NotRead", "False/ReferenceNotGranted"];
    it.is("other", "Failed", refused).await;
    let mut grant =
        object("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", "team-b", "catalogue");
    grant["spec"] = json!({
        "from": [{"group": "toolhive.stacklok.dev", "kind": "MCPRegistry", "namespace": "team-a"}],
        "to": [{"group": "", "kind": "ConfigMap", "name": "data"}]});
    it.cluster.apply(&grant).await;
    it.serves("other", &["b.c/one"]);
    it.ready("other").await;
    let deadline = Instant::now() + PATIENCE;
    while it.get("other").await["status"]["storageRef"]["configMapRef"].is_null() {
        assert!(Instant::now() < deadline, "{:#}", it.get("other").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Taken back, it is taken away, and the copy does not bring it back.
    it.cluster.delete(&grant).await;
    it.serves("other", &[]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    it.serves("other", &[]);
    let status =
        it.is("other", "Failed", ["False/ReferenceNotGranted", "True/DataValid", refused[2]]).await;
    assert!(status["message"].as_str().unwrap().ends_with("is taken away"), "{status}");
    it.registry.waymark.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn of_urls_repositories_and_registries() {
    let mut it = Controller::start(&["--allow-source-network", "127.0.0.0/8,::1/128"]).await;
    let web = Web::start(Reply::Document(catalogue(&["a.b/url"]).into_bytes()));
    let url = |url: &str, http: Value| {
        spec(&json!({"source": {"type": "url", "url": {"url": url, "http": http}}}))
    };
    it.register("url", &url(&web.url("/"), json!({}))).await;
    it.serves("url", &["a.b/url"]);
    it.ready("url").await;

    // Credentials of a Secret, certificates of a ConfigMap.
    let document = catalogue(&["a.b/secret"]).into_bytes();
    let tls = Web::tls(Reply::Guarded("authorization", "Bearer s3cret".into(), document));
    let http = json!({"bearerTokenSecretRef": {"name": "token", "key": "value"},
        "caBundleRef": {"name": "ca", "key": "ca.crt"}});
    it.register("tls", &url(&tls.url("/"), http)).await;
    let credentials =
        ["False/CredentialsUnavailable", "Unknown/NotRead", "False/CredentialsUnavailable"];
    it.is("tls", "Failed", credentials).await;
    let mut secret = object("v1", "Secret", "team-a", "token");
    secret["stringData"] = json!({"value": "s3cret"});
    it.cluster.apply(&secret).await;
    let mut ca = object("v1", "ConfigMap", "team-a", "ca");
    ca["data"] = json!({"ca.crt": tls.certificate});
    it.cluster.apply(&ca).await;
    it.serves("tls", &["a.b/secret"]);
    it.ready("tls").await;
    it.register("untrusted", &url(&tls.url("/"), json!({}))).await;
    let untrusted = ["False/CertificateInvalid", "Unknown/NotRead", "False/CertificateInvalid"];
    it.is("untrusted", "Failed", untrusted).await;

    // A git repository, and another registry: this one.
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let done = std::process::Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
            .args(["-c", "init.defaultBranch=main"])
            .args(args)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "{args:?} {}", String::from_utf8_lossy(&done.stderr));
    };
    run(&["init", "-q", "."]);
    std::fs::write(folder.path().join("registry.json"), catalogue(&["a.b/git"])).unwrap();
    run(&["add", "-A"]);
    run(&["commit", "-q", "-m", "first"]);
    let git = Web::start(Reply::Git(folder.path().to_owned()));
    let source = json!({"type": "git", "git": {"repository": git.url("/.git"), "branch": "main"}});
    it.register("git", &spec(&json!({ "source": source }))).await;
    it.serves("git", &["a.b/git"]);
    std::fs::write(folder.path().join("registry.json"), catalogue(&["a.b/git-2"])).unwrap();
    run(&["commit", "-q", "-a", "-m", "second"]);
    it.serves("git", &["a.b/git-2"]);
    let source = json!({"type": "registry", "registry": {"url": it.rest("git")}});
    it.register("mirror", &spec(&json!({ "source": source }))).await;
    it.serves("mirror", &["a.b/git-2"]);
    for name in ["git", "mirror"] {
        it.ready(name).await;
    }
    // Its own mirror.
    let source = json!({"type": "registry", "registry": {"url": it.rest("circle")}});
    it.register("circle", &spec(&json!({ "source": source }))).await;
    let circle = ["False/RegistryLoop", "Unknown/NotRead", "False/RegistryLoop"];
    it.is("circle", "Failed", circle).await;

    // Without the admin's word nothing inside is reached, neither by name nor by address.
    it.args.clear();
    it.restart(true);
    it.serves("url", &["a.b/url"]);
    let address = format!("http://{}/", web.address);
    it.register("address", &url(&address, json!({}))).await;
    for name in ["url", "git", "mirror"] {
        let refused = ["False/AddressNotAllowed", "True/DataValid", "False/AddressNotAllowed"];
        it.is(name, "Failed", refused).await;
    }
    let refused = ["False/AddressNotAllowed", "Unknown/NotRead", "False/AddressNotAllowed"];
    it.is("address", "Failed", refused).await;
    it.registry.waymark.drain();
    let log = it.registry.waymark.seen.join("\n");
    assert!(!log.contains("s3cret"), "{log}");
    it.registry.waymark.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn contradictions_are_refused_by_the_api_server() {
    let it = Controller::start(&[]).await;
    let configmap = json!({"type": "configmap", "configmap": {"name": "data"}});
    let api: kube::Api<kube::api::DynamicObject> = kube::Api::namespaced_with(
        it.cluster.client.clone(),
        "team-a",
        &kube::core::ApiResource::from_gvk_with_plural(
            &kube::core::GroupVersionKind::gvk("toolhive.stacklok.dev", "v1alpha1", "MCPRegistry"),
            "mcpregistries",
        ),
    );
    for (spec, says) in [
        (json!({}), "spec.source: Required value"),
        (json!({"source": {"type": "ftp"}}), "spec.source.type: Unsupported value"),
        (json!({"source": {"type": "git"}}), "git must be set for the type git"),
        (
            json!({"source": {"type": "url", "url": {"url": "https://a.b"}, "configmap": {"name": "x"}}}),
            "configmap must be set for the type configmap, and for no other",
        ),
        (
            json!({"source": {"type": "configmap", "configmap": {}}}),
            "either name or selector must be set",
        ),
        (
            json!({"source": {"type": "git", "git": {"repository": "https://a.b/c",
                "branch": "x", "tag": "y"}}}),
            "one of branch, tag and commit can be set only",
        ),
        (
            json!({"source": {"type": "git", "git": {"repository": "git@a.b:c"}}}),
            "a repository over SSH needs",
        ),
        (
            json!({"source": {"type": "git", "git": {"repository": "file:///etc"}}}),
            "spec.source.git.repository: Invalid value",
        ),
        (
            json!({"source": {"type": "url", "url": {"url": "https://a.b", "http": {
                "bearerTokenSecretRef": {"name": "a", "key": "b"},
                "basicAuth": {"username": "u", "passwordSecretRef": {"name": "a", "key": "b"}}}}}}),
            "bearerTokenSecretRef and basicAuth cannot both be set",
        ),
        (
            json!({"source": configmap, "syncPolicy": {"interval": "0s"}}),
            "interval must be from 1s to 720h",
        ),
        (
            json!({"source": configmap, "syncPolicy": {"interval": "soon"}}),
            "spec.syncPolicy.interval",
        ),
        (
            json!({"source": configmap, "syncPolicy": {"retryPolicy": {"backoffMultiplier": "0.5"}}}),
            "backoffMultiplier must be from 1 to 10",
        ),
        (json!({"source": configmap, "filters": {}}), "field not declared in schema"),
    ] {
        let wrong = registry("team-a", "wrong", &spec);
        let params = kube::api::PatchParams::apply("test").validation_strict();
        let refused = api.patch("wrong", &params, &kube::api::Patch::Apply(&wrong)).await;
        let Err(kube::Error::Api(status)) = refused else { panic!("{spec} was taken") };
        assert!(status.message.contains(says), "{spec}: {}", status.message);
    }
    // The examples are right, to the last field.
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/mcpregistries");
    for file in std::fs::read_dir(examples).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for document in text.split("\n---\n") {
            let object: Value = yaml(document).unwrap();
            if object["kind"] == "MCPRegistry" {
                let params = kube::api::PatchParams::apply("test").validation_strict();
                let name = object["metadata"]["name"].as_str().unwrap();
                api.patch(name, &params, &kube::api::Patch::Apply(&object)).await.unwrap();
            } else {
                it.cluster.apply(&object).await;
            }
        }
    }
    it.serves("production", &["com.example/weather"]);
    // What the schema cannot say, the controller does.
    it.put(&catalogue(&["a.b/one", "a.b/two"])).await;
    it.register("late", &spec(&json!({"filter": {"exclude": ["a.b/two"]}}))).await;
    it.serves("late", &["a.b/one"]);
    it.register("late", &spec(&json!({"filter": {"exclude": ["a.b/two"], "include": ["["]}})))
        .await;
    let invalid = ["Unknown/InvalidSpec", "Unknown/InvalidSpec", "False/InvalidSpec"];
    let status = it.is("late", "Failed", invalid).await;
    assert!(status["message"].as_str().unwrap().contains("spec.filter"), "{status}");
    it.serves("late", &["a.b/one"]);
    it.event("late", "InvalidSpec", "spec.filter").await;
    let defaults = it.get("late").await["spec"].clone();
    assert_eq!(defaults["syncPolicy"]["retryPolicy"]["maxAttempts"], 3);
    assert_eq!(defaults["storageRef"]["type"], "database");
    assert_eq!(defaults["deployment"]["mode"], "shared");
    assert_eq!(defaults["allowedServers"]["namespaces"]["from"], "Same");
    it.registry.waymark.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn copies_in_configmaps() {
    let mut it = Controller::start(&[]).await;
    it.put(&catalogue(&["a.b/one", "a.b/two"])).await;
    let stored = |kind: &str| spec(&json!({"storageRef": {"type": kind}}));
    it.register("prod", &stored("configmap")).await;
    it.ready("prod").await;
    let copies = async |it: &Controller| {
        let all = it.cluster.list("", "v1", "ConfigMap").await;
        let is =
            |m: &&Value| m["metadata"]["labels"]["toolhive.stacklok.dev/mcpregistry"] == "prod";
        all.iter().filter(is).cloned().collect::<Vec<Value>>()
    };
    let deadline = Instant::now() + PATIENCE;
    while it.get("prod").await["status"]["storageRef"]["configMapRef"].is_null() {
        assert!(Instant::now() < deadline, "{:#}", it.get("prod").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let prod = it.get("prod").await;
    assert_eq!(
        prod["status"]["storageRef"],
        json!({"type": "configmap", "configMapRef": {
            "name": "prod-storage", "namespace": "team-a", "key": "data", "parts": 1}})
    );
    let copy = &copies(&it).await[0];
    assert_eq!(copy["metadata"]["ownerReferences"][0]["uid"], prod["metadata"]["uid"]);
    let text: Value = serde_json::from_str(copy["data"]["data"].as_str().unwrap()).unwrap();
    assert_eq!(text["servers"].as_array().unwrap().len(), 2);

    // The database is lost, and the source is gone: the copy is what there is.
    it.cluster.delete(&configmap("team-a", "data", "")).await;
    it.is(
        "prod",
        "Failed",
        ["False/ConfigMapNotFound", "True/DataValid", "False/ConfigMapNotFound"],
    )
    .await;
    it.restart(false);
    it.serves("prod", &["a.b/one", "a.b/two"]);

    // More than one ConfigMap has room for: descriptions that cannot be compressed much.
    let mut seed = 7_u64;
    let mut letters = |n: usize| -> String {
        (0..n)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                char::from(b'!' + u8::try_from((seed >> 33) % 90).unwrap())
            })
            .filter(|c| !matches!(c, '"' | '\\'))
            .collect()
    };
    for part in 0..4 {
        let servers: Vec<Value> = (0..3000)
            .map(|n| {
                json!({"name": format!("a.b/{part}-{n}"), "description": letters(90),
                    "version": "1.0.0"})
            })
            .collect();
        let mut map = object("v1", "ConfigMap", "team-a", &format!("part-{part}"));
        map["metadata"]["labels"] = json!({"catalogue": "all"});
        let text = json!({ "servers": servers }).to_string();
        map["binaryData"] = json!({"registry.json": ByteString(gzip(&text))});
        it.cluster.apply(&map).await;
    }
    let parts = json!({"type": "configmap",
        "configmap": {"selector": {"matchLabels": {"catalogue": "all"}}}});
    let large = spec(&json!({"source": parts, "storageRef": {"type": "configmap"}}));
    it.register("prod", &large).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = it.get("prod").await["status"].clone();
        let count = status["storageRef"]["configMapRef"]["parts"].as_i64().unwrap_or_default();
        if count > 1 && status["serverCount"] == 12_000 {
            assert_eq!(i64::try_from(copies(&it).await.len()).unwrap(), count);
            break;
        }
        assert!(Instant::now() < deadline, "{status:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Not wanted any more, they go.
    it.put(&catalogue(&["a.b/one"])).await;
    it.register("prod", &stored("database")).await;
    let deadline = Instant::now() + PATIENCE;
    while !copies(&it).await.is_empty() {
        assert!(Instant::now() < deadline, "{:#}", it.get("prod").await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // A ConfigMap of somebody else is left alone.
    it.cluster.apply(&configmap("team-a", "other-storage", "mine")).await;
    it.register("other", &stored("configmap")).await;
    let taken = ["True/SourceFound", "True/DataValid", "False/StorageFailed"];
    let status = it.is("other", "Failed", taken).await;
    assert!(status["message"].as_str().unwrap().contains("other-storage"), "{status}");
    it.serves("other", &["a.b/one"]);
    it.registry.waymark.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn dedicated_deployments() {
    let cluster = cluster().await;
    let account = cluster.account_of(SYSTEM, "waymark-registry-api").await;
    cluster.apply_shipped("registry-api.yaml", |_| {}).await;
    cluster.apply_shipped("registry-api-own-namespace.yaml", |_| {}).await;
    cluster.apply_shipped("registry-api-dedicated.yaml", |_| {}).await;
    let args = [
        "--dedicated-image",
        "waymark:test",
        "--dedicated-upstream",
        "http://waymark.waymark-system:8080",
    ];
    let it = Controller::with(cluster, account, &args);
    it.put(&catalogue(&["a.b/one"])).await;
    let dedicated = json!({"mode": "dedicated", "replicas": 2,
        "resources": {"requests": {"cpu": "50m"}, "limits": {"memory": "64Mi"}}});
    it.register("prod", &spec(&json!({ "deployment": dedicated }))).await;
    it.ready("prod").await;
    let one = async |group: &str, kind: &str| {
        let all = it.cluster.list(group, "v1", kind).await;
        all.into_iter().find(|o| o["metadata"]["name"] == "prod-api").unwrap_or_default()
    };
    let deadline = Instant::now() + PATIENCE;
    while one("apps", "Deployment").await.is_null() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let uid = it.get("prod").await["metadata"]["uid"].clone();
    for (group, kind) in
        [("", "ServiceAccount"), ("", "ConfigMap"), ("", "Service"), ("apps", "Deployment")]
    {
        assert_eq!(one(group, kind).await["metadata"]["ownerReferences"][0]["uid"], uid, "{kind}");
    }
    let deployment = one("apps", "Deployment").await;
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(
        (&deployment["spec"]["replicas"], &container["image"]),
        (&json!(2), &json!("waymark:test"))
    );
    assert_eq!(container["resources"], dedicated["resources"]);
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(pod["automountServiceAccountToken"], false);
    // The configuration that it is given is one that the program takes.
    let map = one("", "ConfigMap").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.json");
    let text = map["data"]["registry.json"].as_str().unwrap();
    assert!(text.contains("http://waymark.waymark-system:8080/registry/team-a.prod"), "{text}");
    std::fs::write(&file, text).unwrap();
    let check = common::binary()
        .args(["registry-api", "--check-config", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    // And with it, pointed here, the program serves the registry.
    let here = text.replace("http://waymark.waymark-system:8080", &it.registry.rest);
    std::fs::write(&file, here).unwrap();
    let args = ["--config", file.to_str().unwrap()];
    let own = blocking(|| Registry::start(&folder.path().join("data"), "127.0.0.1:0", &args));
    assert_eq!(blocking(|| names(&own.rest, "")), ["a.b/one"]);
    own.waymark.stop();
    // When its Pods are there, it is where clients are sent.
    let mut available = deployment.clone();
    available["metadata"] = json!({"name": "prod-api", "namespace": "team-a"});
    available["status"] =
        json!({"replicas": 2, "availableReplicas": 2, "readyReplicas": 2, "updatedReplicas": 2});
    available.as_object_mut().unwrap().remove("spec");
    let api: kube::Api<k8s_openapi::api::apps::v1::Deployment> =
        kube::Api::namespaced(it.cluster.client.clone(), "team-a");
    let status = json!({"status": available["status"]});
    api.patch_status("prod-api", &Default::default(), &kube::api::Patch::Merge(&status))
        .await
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    while it.get("prod").await["status"]["apiEndpoint"]
        != "http://prod-api.team-a.svc.cluster.local"
    {
        assert!(Instant::now() < deadline, "{:#}", it.get("prod").await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Shared again, its objects go.
    it.register("prod", &spec(&json!({"deployment": {"mode": "shared"}}))).await;
    let deadline = Instant::now() + PATIENCE;
    while !one("apps", "Deployment").await.is_null() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for kind in ["ServiceAccount", "ConfigMap", "Service"] {
        assert!(one("", kind).await.is_null(), "{kind}");
    }
    it.registry.waymark.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn deployed_servers_join_by_their_labels() {
    let it = Controller::start(&[]).await;
    it.put(&catalogue(&["a.b/one"])).await;
    it.register("prod", &spec(&json!({}))).await;
    it.register("own", &json!({"source": {"type": "discovery"}})).await;
    let open = json!({"source": {"type": "discovery"},
        "allowedServers": {"namespaces": {"from": "All"}}});
    it.register("open", &open).await;
    it.ready("prod").await;
    let folder = tempfile::tempdir().unwrap();
    let route = |namespace: &str, name: &str, labels: Value| {
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": name, "namespace": namespace, "labels": labels,
                "annotations": {"toolhive.stacklok.dev/registry-export": "true"}},
            "spec": {"parentRefs": [{"name": "gw", "namespace": "infra"}], "hostnames": ["mcp.example.com"],
                "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": format!("/{name}")}}],
                    "backendRefs": [{"name": name, "port": 80}]}]}})
    };
    let gateway = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "gw", "namespace": "infra"},
        "spec": {"gatewayClassName": "x", "listeners": [{"name": "web", "protocol": "HTTP", "port": 80,
            "allowedRoutes": {"namespaces": {"from": "All"}}}]}});
    let service = |namespace: &str, name: &str| {
        let mut service = object("v1", "Service", namespace, name);
        service["spec"] = json!({"ports": [{"port": 80}]});
        service
    };
    let label = |name: &str, namespace: Option<&str>| {
        let mut labels = json!({"toolhive.stacklok.io/registry-name": name});
        if let Some(namespace) = namespace {
            labels["toolhive.stacklok.io/registry-namespace"] = json!(namespace);
        }
        labels
    };
    let manifests = [
        gateway,
        service("team-a", "x"),
        service("team-a", "y"),
        service("team-b", "z"),
        service("team-b", "q"),
        route("team-a", "x", label("prod", None)),
        route("team-a", "y", label("own", Some("team-a"))),
        route("team-b", "z", label("own", Some("team-a"))),
        route("team-b", "q", label("open", Some("team-a"))),
    ];
    let text: Vec<String> = manifests.iter().map(ToString::to_string).collect();
    std::fs::write(folder.path().join("all.yaml"), text.join("\n---\n")).unwrap();
    let mut command = common::binary();
    command.args(["discovery", "--assume-accepted", "--admin-addr", "off"]);
    command.args(["--registry", &it.registry.grpc, "--manifests"]).arg(folder.path());
    let discovery = common::Waymark::spawn(command);
    it.serves("prod", &["a.b/one", "com.example.mcp/x"]);
    it.serves("own", &["com.example.mcp/y"]);
    it.serves("open", &["com.example.mcp/q"]);
    let deadline = Instant::now() + PATIENCE;
    while it.get("prod").await["status"]["deployedServerCount"] != 1 {
        assert!(Instant::now() < deadline, "{:#}", it.get("prod").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    it.event("prod", "EndpointDiscovered", "Deployed servers: 1, before: 0").await;
    let deployed =
        blocking(|| get(&format!("{}/api/v1/registry/servers/deployed", it.rest("prod"))).json());
    assert_eq!(deployed["total"], 1);
    let metrics = blocking(|| get(&format!("{}/metrics", it.registry.rest)).body);
    let metrics = String::from_utf8(metrics).unwrap();
    for line in [
        "mcpregistry_deployed_servers_total{registry=\"team-a.prod\"} 1",
        "mcpregistry_servers_total{registry=\"team-a.prod\"} 2",
        "mcpregistry_sync_errors_total{source=\"team-a.prod\"} 0",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    std::fs::remove_file(folder.path().join("all.yaml")).unwrap();
    it.serves("prod", &["a.b/one"]);
    it.event("prod", "EndpointRemoved", "Deployed servers: 0, before: 1").await;
    discovery.stop();
    it.registry.waymark.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn whose_crd_it_is() {
    let cluster = Cluster::start().await;
    let account = cluster.account_of(SYSTEM, "waymark-registry-api").await;
    cluster.apply_shipped("registry-api.yaml", |_| {}).await;
    cluster.apply_shipped("registry-api-own-namespace.yaml", |_| {}).await;
    cluster.apply(&namespace("team-a", &json!({}))).await;
    let mut it = Controller::with(cluster, account, &[]);
    // None, then the ToolHive operator's, then Waymark's.
    blocking(|| it.registry.waymark.line(&["is not installed; waiting for it"]));
    blocking(|| {
        let ready = || get(&format!("{}/readiness", it.registry.rest)).status == 200;
        common::eventually("readiness", || ready().then_some(()));
    });
    let toolhive = std::env::var("TOOLHIVE_DIR").unwrap();
    let foreign = Path::new(&toolhive)
        .join("deploy/charts/operator-crds/files/crds/toolhive.stacklok.dev_mcpregistries.yaml");
    it.cluster.install(&foreign).await;
    blocking(|| it.registry.waymark.line(&["is not Waymark's", "MCPRegistries are not served"]));
    let mut theirs = object("toolhive.stacklok.dev/v1beta1", "MCPRegistry", "team-a", "theirs");
    theirs["spec"] = json!({"configYAML": "sources: []"});
    it.cluster.apply(&theirs).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let found = it.cluster.list("toolhive.stacklok.dev", "v1beta1", "MCPRegistry").await;
    assert_eq!(found[0]["status"], Value::Null);
    assert_eq!(found[0]["metadata"]["finalizers"], Value::Null);
    it.serves("theirs", &["404"]);
    it.cluster.delete(&theirs).await;
    let crd_object = object(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "",
        "mcpregistries.toolhive.stacklok.dev",
    );
    it.cluster.delete(&crd_object).await;
    let deadline = Instant::now() + PATIENCE;
    let kind = ("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let gone = async |it: &Controller| {
        let all = it.cluster.list(kind.0, kind.1, kind.2).await;
        !all.iter().any(|crd| crd["metadata"]["name"] == crd_object["metadata"]["name"])
    };
    while !gone(&it).await {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    it.cluster.install(&crd()).await;
    it.put(&catalogue(&["a.b/one"])).await;
    it.register("prod", &spec(&json!({}))).await;
    it.serves("prod", &["a.b/one"]);
    it.ready("prod").await;
    it.registry.waymark.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn more_is_logged_of_one_registry() {
    let mut it = Controller::start(&[]).await;
    it.put(&catalogue(&["a.b/one"])).await;
    it.register("quiet", &spec(&json!({}))).await;
    it.register("loud", &spec(&json!({"logLevel": "debug"}))).await;
    it.ready("quiet").await;
    it.ready("loud").await;
    blocking(|| it.registry.waymark.line(&["reading the source", "team-a.loud"]));
    tokio::time::sleep(Duration::from_secs(3)).await;
    it.registry.waymark.drain();
    let log = &it.registry.waymark.seen;
    let of = |name: &str| {
        log.iter().filter(|l| l.contains("reading the source") && l.contains(name)).count()
    };
    assert!(of("team-a.loud") > 1, "{}", log.join("\n"));
    assert_eq!(of("team-a.quiet"), 0, "{}", log.join("\n"));
    // And less again.
    it.register("loud", &spec(&json!({}))).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    it.registry.waymark.drain();
    it.registry.waymark.seen.clear();
    tokio::time::sleep(Duration::from_secs(3)).await;
    it.registry.waymark.drain();
    assert!(!it.registry.waymark.seen.iter().any(|line| line.contains("reading the source")));
    it.registry.waymark.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn of_several_replicas_one_reads_and_all_serve() {
    let database = blocking(Postgres::start);
    let url = database.url();
    let args = ["--database-url", url.as_str(), "--api-url", "https://registry.example.com"];
    let mut first = Controller::start(&args).await;
    blocking(|| first.registry.waymark.line(&["this process leads now"]));
    let folder = tempfile::tempdir().unwrap();
    let mut second = blocking(|| start(&first.account, folder.path(), &args));
    blocking(|| second.waymark.line(&["another process leads"]));
    first.put(&catalogue(&["a.b/one"])).await;
    first.register("prod", &spec(&json!({}))).await;
    first.ready("prod").await;
    first.serves("prod", &["a.b/one"]);
    let rest = format!("{}/registry/team-a.prod", second.rest);
    let serves = |expected: &[&str]| {
        blocking(|| {
            common::eventually("the other replica's serving", || {
                let there = get(&format!("{rest}/v0.1/servers")).status == 200;
                (there && names(&rest, "") == expected).then_some(())
            });
        });
    };
    serves(&["a.b/one"]);
    first.put(&catalogue(&["a.b/two"])).await;
    serves(&["a.b/two"]);
    let metric = |rest: &str| {
        let text = String::from_utf8(blocking(|| get(&format!("{rest}/metrics"))).body).unwrap();
        let writes = "waymark_mcpregistry_status_writes_total ";
        let syncs = "mcpregistry_sync_total{source=\"team-a.prod\"}";
        let writes = text.lines().find_map(|line| line.strip_prefix(writes)).unwrap().to_owned();
        (writes, text.contains(syncs))
    };
    assert_eq!(metric(&second.rest), ("0".to_owned(), false));
    assert!(metric(&first.registry.rest).1);
    // The leader is killed; the other one takes over, and writes nothing that has not changed.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = first.get("prod").await;
    first.registry.waymark.signal("-KILL");
    blocking(|| second.waymark.line(&["this process leads now"]));
    blocking(|| second.waymark.line(&["the source is in step"]));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(first.get("prod").await, before);
    first.put(&catalogue(&["a.b/three"])).await;
    serves(&["a.b/three"]);
    second.waymark.stop();
}
