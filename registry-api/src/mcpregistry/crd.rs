//! The types of the resource. The CRD is generated from them (`waymark crds`), so what is said here
//! is what `kubectl explain` shows.
// The derives say each type a second time, where nothing reaches it.
#![allow(unreachable_pub, clippy::duplicated_attributes)]

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// API group.
pub const GROUP: &str = "toolhive.stacklok.dev";
/// API version.
pub const VERSION: &str = "v1alpha1";
/// Annotation of the CRD that tells whose it is.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// A registry of MCP servers: where its catalogue comes from, what of it is shown, and how it is
/// served.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "toolhive.stacklok.dev",
    version = "v1alpha1",
    kind = "MCPRegistry",
    plural = "mcpregistries",
    shortname = "mcpreg",
    namespaced,
    status = "MCPRegistryStatus",
    derive = "PartialEq",
    doc = "A registry of MCP servers.",
    label("app.kubernetes.io/managed-by", "waymark"),
    printcolumn(json_path = ".status.phase", name = "Phase", type_ = "string"),
    printcolumn(json_path = ".spec.source.type", name = "Source", type_ = "string"),
    printcolumn(json_path = ".status.serverCount", name = "Servers", type_ = "integer"),
    printcolumn(json_path = ".status.deployedServerCount", name = "Deployed", type_ = "integer"),
    printcolumn(json_path = ".status.lastSyncTime", name = "Last Sync", type_ = "date"),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date"),
    printcolumn(json_path = ".status.message", name = "Message", type_ = "string", priority = 1),
    printcolumn(
        json_path = ".status.apiEndpoint",
        name = "Endpoint",
        type_ = "string",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[kube(validation = Rule::new("size(self.metadata.name) <= 63").message("the name must have 63 characters at most"))]
pub struct MCPRegistrySpec {
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub display_name: Option<String>,
    /// Where the catalogue comes from.
    pub source: SourceSpec,
    /// When the source is read.
    #[serde(default)]
    pub sync_policy: SyncPolicySpec,
    /// Which servers of the source are shown; all where nothing is said.
    #[serde(default)]
    pub filter: FilterSpec,
    /// Where the controller keeps what it has read.
    #[serde(default)]
    pub storage_ref: StorageRefSpec,
    /// What serves the registry.
    #[serde(default)]
    pub deployment: DeploymentSpec,
    /// Whose discovered servers may join the registry by their labels.
    #[serde(default)]
    pub allowed_servers: AllowedServers,
    /// Which remotes of discovered servers are shown.
    #[serde(default)]
    pub remotes: RemotesSpec,
    /// How much the controller logs of this registry, beyond what the process logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,
}

/// Type of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceType {
    /// One or several ConfigMaps.
    Configmap,
    /// A file of a git repository.
    Git,
    /// A document at an HTTP(S) URL.
    Url,
    /// Another registry, by the MCP registry API.
    Registry,
    /// None: only servers that are deployed and name this registry.
    Discovery,
}

/// Where a catalogue comes from.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.configmap) == (self.type == 'configmap')")
        .message("configmap must be set for the type configmap, and for no other"),
    validation = Rule::new("has(self.git) == (self.type == 'git')")
        .message("git must be set for the type git, and for no other"),
    validation = Rule::new("has(self.url) == (self.type == 'url')")
        .message("url must be set for the type url, and for no other"),
    validation = Rule::new("has(self.registry) == (self.type == 'registry')")
        .message("registry must be set for the type registry, and for no other"),
    validation = Rule::new("!has(self.format) || self.type in ['configmap', 'git', 'url']")
        .message("format can be set for the types configmap, git and url only")
)]
pub struct SourceSpec {
    /// What the source is.
    #[serde(rename = "type")]
    pub kind: SourceType,
    /// The catalogue's format; any known one where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<FormatSpec>,
    /// For the type configmap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configmap: Option<ConfigMapSpec>,
    /// For the type git.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitSpec>,
    /// For the type url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<UrlSpec>,
    /// For the type registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistrySpec>,
}

/// A catalogue's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FormatSpec {
    /// ToolHive's registry file.
    Toolhive,
    /// The upstream API's list, or ToolHive's file that wraps one.
    Upstream,
    /// A client's configuration (`mcpServers`).
    McpClient,
}

/// ConfigMaps that hold a catalogue.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.name) != has(self.selector)")
    .message("either name or selector must be set"))]
pub struct ConfigMapSpec {
    /// Name of the ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Labels of several ConfigMaps that together hold the catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Their namespace; that of the MCPRegistry where it is not said. For another one a
    /// ReferenceGrant there must allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// The key in `data`, or in `binaryData`, where it may be compressed with gzip.
    #[serde(default = "registry_json")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn registry_json() -> String {
    crate::config::DEFAULT_FILE.to_owned()
}

/// A key of a Secret or ConfigMap in the namespace of the MCPRegistry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KeyRef {
    /// Name of the Secret or ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A header of HTTP requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretHeader {
    /// Name of the header.
    #[schemars(length(min = 1, max = 100), regex(pattern = r"^[A-Za-z0-9-]+$"))]
    pub name: String,
    /// Where its value is.
    pub secret_key_ref: KeyRef,
}

/// User name and password.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BasicAuth {
    /// The user name; for a token any.
    #[schemars(length(min = 1, max = 200))]
    pub username: String,
    /// Where the password or token is.
    pub password_secret_ref: KeyRef,
}

/// How an HTTP server is spoken to.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.bearerTokenSecretRef) && has(self.basicAuth))")
    .message("bearerTokenSecretRef and basicAuth cannot both be set"))]
pub struct HttpSpec {
    /// Headers of each request that are no secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 20))]
    pub headers: BTreeMap<String, String>,
    /// Headers of each request whose values are in Secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub headers_from: Vec<SecretHeader>,
    /// A bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_token_secret_ref: Option<KeyRef>,
    /// User name and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
    /// A ConfigMap with the certificates (PEM) of the authorities that are trusted, instead of the
    /// system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<KeyRef>,
    /// Longest that one request may take, as a Go duration; 5m at most.
    #[serde(default = "thirty_seconds")]
    #[schemars(extend("pattern" = DURATION))]
    pub timeout: String,
}

impl Default for HttpSpec {
    fn default() -> Self {
        Self {
            headers: BTreeMap::new(),
            headers_from: Vec::new(),
            bearer_token_secret_ref: None,
            basic_auth: None,
            ca_bundle_ref: None,
            timeout: thirty_seconds(),
        }
    }
}

/// A Go duration.
const DURATION: &str = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$";

fn thirty_seconds() -> String {
    "30s".to_owned()
}

/// A catalogue at a URL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UrlSpec {
    /// The URL. Addresses that are not of the public Internet are refused, unless the admin allows
    /// their network.
    #[schemars(length(max = 2048), regex(pattern = r"^https?://"))]
    pub url: String,
    /// How the server is spoken to.
    #[serde(default)]
    pub http: HttpSpec,
}

/// Another registry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistrySpec {
    /// Its URL, to which `/v0.1/servers` is appended. Addresses that are not of the public Internet
    /// are refused, unless the admin allows their network.
    #[schemars(length(max = 2048), regex(pattern = r"^https?://"))]
    pub url: String,
    /// How the server is spoken to.
    #[serde(default)]
    pub http: HttpSpec,
    /// How often all of it is read, and not only what changed.
    #[serde(default = "six_hours")]
    #[schemars(extend("pattern" = DURATION))]
    pub full_sync_interval: String,
}

fn six_hours() -> String {
    "6h".to_owned()
}

/// A file of a git repository.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.branch), has(self.tag), has(self.commit)].filter(x, x).size() <= 1")
        .message("one of branch, tag and commit can be set only"),
    validation = Rule::new("self.repository.startsWith('http') || (has(self.sshKeySecretRef) && has(self.knownHostsSecretRef))")
        .message("a repository over SSH needs sshKeySecretRef and knownHostsSecretRef")
)]
pub struct GitSpec {
    /// The repository: `https://…`, `ssh://…` or `user@host:path`.
    #[schemars(length(max = 2048), regex(pattern = r"^(https?://|ssh://|[A-Za-z0-9._-]+@)"))]
    pub repository: String,
    /// A branch; what HEAD points to where neither branch, tag nor commit is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub branch: Option<String>,
    /// A tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub tag: Option<String>,
    /// A commit, in 40 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-fA-F]{40}$"))]
    pub commit: Option<String>,
    /// Path of the file in the repository.
    #[serde(default = "registry_json")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// How the server is spoken to over HTTP.
    #[serde(default)]
    pub http: HttpSpec,
    /// A private key (Ed25519 or ECDSA, in OpenSSH's format, without a passphrase), for SSH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_key_secret_ref: Option<KeyRef>,
    /// The server's public keys, as `ssh-keyscan` prints them, for SSH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_hosts_secret_ref: Option<KeyRef>,
}

/// Whether a source is read by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SyncType {
    /// At each interval, and when it is known to have changed.
    #[default]
    Automatic,
    /// When the annotation `toolhive.stacklok.dev/sync-trigger` changes, and when the MCPRegistry is
    /// new or changed.
    Manual,
}

/// When a source is read.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.interval) >= duration('1s') && duration(self.interval) <= duration('720h')")
    .message("interval must be from 1s to 720h"))]
pub struct SyncPolicySpec {
    /// Whether it is read by itself.
    #[serde(rename = "type", default)]
    pub kind: SyncType,
    /// How often it is read, as a Go duration.
    #[serde(default = "one_hour")]
    #[schemars(extend("pattern" = DURATION))]
    pub interval: String,
    /// What happens after an attempt that failed.
    #[serde(default)]
    pub retry_policy: RetryPolicySpec,
}

impl Default for SyncPolicySpec {
    fn default() -> Self {
        let (kind, retry_policy) = (SyncType::default(), RetryPolicySpec::default());
        Self { kind, interval: one_hour(), retry_policy }
    }
}

fn one_hour() -> String {
    "1h".to_owned()
}

/// What happens after an attempt that failed.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("double(self.backoffMultiplier) >= 1.0 && double(self.backoffMultiplier) <= 10.0")
        .message("backoffMultiplier must be from 1 to 10"),
    validation = Rule::new("duration(self.backoffInterval) >= duration('1s') && duration(self.backoffInterval) <= duration('1h')")
        .message("backoffInterval must be from 1s to 1h")
)]
pub struct RetryPolicySpec {
    /// Most attempts in a row, the first one included.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: u32,
    /// Pause after the first attempt, as a Go duration.
    #[serde(default = "thirty_seconds")]
    #[schemars(extend("pattern" = DURATION))]
    pub backoff_interval: String,
    /// How much longer each further pause is.
    #[serde(default = "two")]
    #[schemars(regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
    pub backoff_multiplier: String,
}

impl Default for RetryPolicySpec {
    fn default() -> Self {
        let (max_attempts, backoff_interval) = (three(), thirty_seconds());
        Self { max_attempts, backoff_interval, backoff_multiplier: two() }
    }
}

const fn three() -> u32 {
    3
}

fn two() -> String {
    "2.0".to_owned()
}

/// Which servers of a source are shown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FilterSpec {
    /// Globs over server names; `*` crosses `/`. Where there are some, one must match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 200)))]
    pub include: Vec<String>,
    /// Globs over server names of which none may match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 200)))]
    pub exclude: Vec<String>,
    /// The same for tags, which are compared as they are.
    #[serde(default)]
    pub tags: TagsSpec,
}

/// Tags that a server must have, or must not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TagsSpec {
    /// Where there are some, a server must have one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 200)))]
    pub include: Vec<String>,
    /// A server must have none of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 200)))]
    pub exclude: Vec<String>,
}

/// Where the controller keeps what it has read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StorageType {
    /// The process's own database.
    #[default]
    Database,
    /// There, and in ConfigMaps beside the MCPRegistry, from which it is read where the database
    /// was lost and the source is away.
    Configmap,
}

/// Where the controller keeps what it has read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StorageRefSpec {
    /// Type of the storage.
    #[serde(rename = "type", default)]
    pub kind: StorageType,
}

/// What serves a registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeploymentMode {
    /// The process that has the controller.
    #[default]
    Shared,
    /// That, and a Deployment of the registry's own, which follows it.
    Dedicated,
}

/// What serves a registry.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeploymentSpec {
    /// How it is served.
    #[serde(default)]
    pub mode: DeploymentMode,
    /// Replicas of a dedicated Deployment.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 10))]
    pub replicas: i32,
    /// Resources of a dedicated Deployment's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesSpec>,
}

/// What a container asks for, and what it may take at most.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResourcesSpec {
    /// What it asks for: `cpu` and `memory` as Kubernetes quantities, for example `100m` and `128Mi`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 10))]
    pub requests: BTreeMap<String, String>,
    /// What it may take at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 10))]
    pub limits: BTreeMap<String, String>,
}

impl Default for DeploymentSpec {
    fn default() -> Self {
        Self { mode: DeploymentMode::default(), replicas: one(), resources: None }
    }
}

const fn one() -> i32 {
    1
}

/// Namespaces whose servers may join.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum From {
    /// That of the MCPRegistry.
    #[default]
    Same,
    /// All.
    All,
}

/// Whose discovered servers may join a registry by their labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AllowedServers {
    /// Their namespaces.
    #[serde(default)]
    pub namespaces: AllowedNamespaces,
}

/// Namespaces whose servers may join.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AllowedNamespaces {
    /// Which of them.
    #[serde(default)]
    pub from: From,
}

/// Which remotes of discovered servers are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RemotesSpec {
    /// Those that clients outside the cluster reach.
    #[default]
    External,
    /// Those that only clients inside the cluster reach.
    InCluster,
    /// Both.
    Both,
}

/// How much is logged.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Errors.
    Error,
    /// And warnings.
    Warn,
    /// And what happens.
    Info,
    /// And how.
    Debug,
    /// And all the rest.
    Trace,
}

/// How far a registry is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Nothing was done yet.
    #[default]
    Pending,
    /// The source is being read for the first time, or as it was asked for.
    Syncing,
    /// The last sync was good.
    Ready,
    /// The last sync failed; what was there before is served.
    Failed,
    /// The MCPRegistry is being deleted.
    Terminating,
}

/// How a registry stands. It is written when something in it changed, and not else.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MCPRegistryStatus {
    /// The generation that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How far it is.
    pub phase: Phase,
    /// The same in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When the source was last read with a result that was new, or after a failure, or as it was
    /// asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sync_time: Option<Time>,
    /// Fingerprint of what the source had then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sync_hash: Option<String>,
    /// The value of the annotation `sync-trigger` that was last followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sync_trigger: Option<String>,
    /// Server versions that are served.
    pub server_count: i64,
    /// Those of them that run in a cluster.
    pub deployed_server_count: i64,
    /// Entries of the source that are not valid and were left out.
    pub rejected_count: i64,
    /// Failed attempts since the last good one.
    pub sync_attempts: i64,
    /// Where the registry is served: the URL to give to clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_endpoint: Option<String>,
    /// Where the copy of what was read is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_ref: Option<StorageRefStatus>,
    /// SourceAvailable, DataValid, SyncSuccessful.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Where the copy of what was read is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageRefStatus {
    /// Type of the storage.
    #[serde(rename = "type")]
    pub kind: StorageType,
    /// The ConfigMap, for the type configmap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ConfigMapRef>,
}

/// A ConfigMap that holds a copy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ConfigMapRef {
    /// Its name; of several parts that of the first.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The key in it.
    pub key: String,
    /// How many ConfigMaps there are.
    pub parts: i64,
}

/// The CRD.
#[must_use]
pub fn definition() -> CustomResourceDefinition {
    MCPRegistry::crd()
}
