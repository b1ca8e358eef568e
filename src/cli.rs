//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ipnet::IpNet;
use smol_str::SmolStr;
use waymark_discovery::Kind;
use waymark_discovery::gateway_name::{GatewayName, is_label};
use waymark_discovery::settings::{DEFAULT_PREFIX, DirectUrlPolicy};
use waymark_registry_api::server::Address;

/// Finds the MCP servers that Gateway API exposes and serves them as an MCP registry.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    max_term_width = 100,
    after_help = "\
Examples:
  waymark dev                              the examples, served at http://127.0.0.1:8080
  waymark dev path/to/manifests            your own manifests, followed as they change
  waymark plan path/to/manifests           what would be published and what would not, and why
  kubectl get httproutes,gateways,services -A -o yaml | waymark plan --assume-accepted=false -
  waymark plan -o json manifests | jq '.objects[] | select(.problems != [])'

The log level is set by RUST_LOG, for example RUST_LOG=debug or RUST_LOG=waymark_discovery=debug."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Format of the log, which goes to stderr.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "WAYMARK_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs everything in one process: manifests in, registry out.
    ///
    /// Prints what is published and what is not, and why; then serves the registry and follows
    /// changes of the manifests.
    #[command(after_help = "\
Examples:
  waymark dev
  curl http://127.0.0.1:8080/v0.1/servers
  waymark dev --data ./data --catalogue registry.json manifests/")]
    Dev(DevArgs),
    /// Prints what would be published and what would not, and why. Serves nothing.
    ///
    /// Exits with 1 when an annotated object has an error, so that it can stand in CI, and with 2
    /// when the manifests cannot be read at all.
    #[command(after_help = "\
Examples:
  waymark plan manifests/
  waymark plan -o upstream manifests/ > registry.json
  kubectl get httproutes,gateways,services -A -o yaml | waymark plan --assume-accepted=false -")]
    Plan(PlanArgs),
    /// Serves the registry: takes entries over gRPC, serves them over gRPC and REST.
    #[command(after_help = "\
Examples:
  waymark registry-api --data ./data
  waymark registry-api --config registry.yaml --check-config
  waymark registry-api --grpc-addr unix:/run/waymark/registry.sock --http-addr 0.0.0.0:8080
  waymark registry-api --mcpregistries --api-url https://registry.example.com")]
    RegistryApi(RegistryArgs),
    /// Resolves annotated routes and publishes them to a registry.
    ///
    /// Without --manifests it watches the cluster that KUBECONFIG or the Pod's ServiceAccount
    /// leads to. Kinds whose CRD is not installed are waited for. The roles that it needs are in
    /// deploy/gateway/rbac. Of several replicas one publishes, by a Lease.
    #[command(after_help = "\
Examples:
  waymark discovery --registry http://127.0.0.1:9090
  waymark discovery --namespace team-a --namespace team-b --gateway infra/public --registry …
  curl http://127.0.0.1:8081/explain/httproute/team-a/github
  waymark discovery --manifests manifests/ --registry http://127.0.0.1:9090
  waymark discovery --manifests manifests/ --registry unix:/run/waymark/registry.sock")]
    Discovery(DiscoveryArgs),
    /// Says of one object what is published for it and why something is not.
    ///
    /// Of a route or MCP resource that is opted in: its own outcome. Of anything else (a Gateway, a
    /// Namespace, a Service …): the outcome of every opted-in object that depends on it. Asks the
    /// cluster that KUBECONFIG leads to, or reads --manifests. Exits with 1 when there is an error,
    /// or nothing to say.
    #[command(after_help = "\
Examples:
  waymark explain httproute apps/github
  waymark explain gateway infra/public -o json
  waymark explain namespace apps --manifests manifests/")]
    Explain(ExplainArgs),
    /// Prints the CustomResourceDefinition of MCPRegistry, which the registry's controller serves.
    #[command(after_help = "\
Example:
  waymark crds | kubectl apply --server-side -f -")]
    Crds,
    /// Prints a completion script for a shell.
    #[command(after_help = "\
Example:
  waymark completions bash > ~/.local/share/bash-completion/completions/waymark")]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Where the demo's manifests are.
const EXAMPLES: &str = "examples/httproutes";

#[derive(Debug, Args)]
pub(crate) struct ManifestArgs {
    /// Files and folders of Kubernetes manifests (YAML or JSON), or - for stdin.
    ///
    /// A document of a catalogue format among them (an upstream list, a ToolHive registry, an
    /// mcpServers configuration) is taken as the curated catalogue.
    #[arg(value_name = "PATH", default_value = EXAMPLES)]
    pub(crate) paths: Vec<PathBuf>,
    /// A file with the curated catalogue, in any known format. May be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) catalogue: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) assume: AssumeArg,
    #[command(flatten)]
    pub(crate) rules: RuleArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AssumeArg {
    /// Count a route without any status as accepted, and a Gateway or ListenerSet without any as
    /// programmed. An object that carries a status is always judged by it.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_value_t = true, default_missing_value = "true")]
    pub(crate) assume_accepted: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RuleArgs {
    /// Prefix of all annotations.
    #[arg(long, value_name = "PREFIX", default_value = DEFAULT_PREFIX, value_parser = prefix)]
    pub(crate) annotation_prefix: String,
    /// Publish only routes that lead to an MCP resource.
    #[arg(long)]
    pub(crate) require_mcp_backend: bool,
    /// Whether MCP resources may name their own URL (annotation registry-url).
    #[arg(long, value_enum, default_value_t = PolicyArg::Allow)]
    pub(crate) direct_url_policy: PolicyArg,
    /// A YAML file that delegates name prefixes and hosts to namespaces:
    /// a list of {namespaceSelector, namePrefixes, hosts}.
    #[arg(long, value_name = "FILE")]
    pub(crate) delegations: Option<PathBuf>,
}

fn prefix(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    if text.is_empty() || text.len() > 253 || !text.chars().all(plain) {
        return Err("must be a DNS name, for example toolhive.stacklok.dev/".into());
    }
    Ok(format!("{text}/"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PolicyArg {
    /// Any URL; the entry's name goes under the URL's host.
    Allow,
    /// Only URLs on hosts that are delegated to the namespace.
    Delegated,
    /// None.
    Deny,
}

impl From<PolicyArg> for DirectUrlPolicy {
    fn from(policy: PolicyArg) -> Self {
        match policy {
            PolicyArg::Allow => Self::Allow,
            PolicyArg::Delegated => Self::Delegated,
            PolicyArg::Deny => Self::Deny,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanFormat {
    /// For people.
    Table,
    /// What is published and what is not, as JSON.
    Json,
    /// The same as YAML.
    Yaml,
    /// The registry's list in the upstream format, as JSON.
    Upstream,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) manifests: ManifestArgs,
    /// Format of the output.
    #[arg(short, long, value_enum, default_value_t = PlanFormat::Table)]
    pub(crate) output: PlanFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExplainFormat {
    /// For people.
    Table,
    /// As `plan -o json`.
    Json,
    /// The same as YAML.
    Yaml,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Kind of the object, for example httproute, gateway or mcpserver.
    pub(crate) kind: Kind,
    /// The object: NAMESPACE/NAME, or NAME of a Namespace.
    #[arg(value_name = "NAMESPACE/NAME")]
    pub(crate) name: String,
    /// Instead of a cluster: files and folders of Kubernetes manifests, or - for stdin.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(crate) manifests: Vec<PathBuf>,
    /// Format of the output.
    #[arg(short, long, value_enum, default_value_t = ExplainFormat::Table)]
    pub(crate) output: ExplainFormat,
    /// Count routes and Gateways without any status as accepted. Default: for manifests only.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    pub(crate) assume_accepted: Option<bool>,
    #[command(flatten)]
    pub(crate) rules: RuleArgs,
    #[command(flatten)]
    pub(crate) scope: ScopeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ListenArgs {
    /// Address of REST.
    #[arg(
        long,
        value_name = "IP:PORT",
        default_value = "127.0.0.1:8080",
        env = "WAYMARK_HTTP_ADDR"
    )]
    pub(crate) http_addr: SocketAddr,
    /// Address of gRPC: IP:PORT, or unix:/path for a socket.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9090",
        env = "WAYMARK_GRPC_ADDR"
    )]
    pub(crate) grpc_addr: Address,
    /// Take entries only of publishers that show a token of this file: lines of token,cluster, of
    /// 16 characters at least. A token is good for its cluster's entries only. A Unix socket needs
    /// none. Read for each session.
    #[arg(long, value_name = "FILE", env = "WAYMARK_PUBLISHER_TOKENS")]
    pub(crate) publisher_tokens: Option<PathBuf>,
    /// Take entries from anybody who reaches the gRPC address, though it is neither a loopback
    /// address nor a socket, and no tokens are asked for over TLS.
    #[arg(long)]
    pub(crate) allow_unauthenticated_publish: bool,
    /// Most gRPC watches that are open from one address at a time.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) max_watches_per_client: usize,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    #[command(flatten)]
    pub(crate) gateway: GatewayArgs,
}

/// TLS of REST and gRPC.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct TlsArgs {
    /// Speak TLS with this certificate (and its chain), PEM. Read again when it changes.
    #[arg(long, value_name = "FILE", requires = "tls_key", env = "WAYMARK_TLS_CERT")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "WAYMARK_TLS_KEY")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Take gRPC connections only of clients whose certificate is signed by one of these, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "WAYMARK_TLS_CLIENT_CA")]
    pub(crate) tls_client_ca: Option<PathBuf>,
    /// Which servers speak TLS. A Unix socket never does.
    #[arg(long, value_enum, default_value_t = TlsFor::Both)]
    pub(crate) tls_for: TlsFor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TlsFor {
    /// REST and gRPC.
    Both,
    /// gRPC only: a gateway ends the TLS of REST.
    Grpc,
    /// REST only.
    Http,
}

/// The gateway plugin: external authorization, and the catalogue at the gateway's hosts.
#[derive(Debug, Args)]
#[command(next_help_heading = "Gateway plugin")]
pub(crate) struct GatewayArgs {
    /// The registry that the gateway goes by; the default one where not given.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) gateway_registry: String,
    /// What external authorization does where the catalogue is empty, incomplete or may be old.
    /// What is registered passes in any case.
    #[arg(long, value_enum, default_value_t = FailModeArg::Closed)]
    pub(crate) gateway_fail_mode: FailModeArg,
    /// Let pass what would be refused, and only log and count it.
    #[arg(long)]
    pub(crate) gateway_dry_run: bool,
    /// URL of the registry, which is told to who is refused.
    #[arg(long, value_name = "URL")]
    pub(crate) gateway_registry_url: Option<String>,
    /// Believe the X-Forwarded-Host of peers in this network, such as the gateway. May be given
    /// several times.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub(crate) trusted_proxy: Vec<IpNet>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailModeArg {
    /// Everything passes.
    Open,
    /// Everything else is refused.
    Closed,
}

#[derive(Debug, Args)]
pub(crate) struct RetentionArgs {
    /// Mark a publisher's entries stale when it has been away for this long.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration)]
    pub(crate) stale_after: Duration,
    /// Remove a publisher's entries when it has been away for this long.
    #[arg(long, value_name = "DURATION", default_value = "30days", value_parser = humantime::parse_duration)]
    pub(crate) publisher_retention: Duration,
    /// Remember deleted entries for this long, for clients that ask with updated_since.
    #[arg(long, value_name = "DURATION", default_value = "30days", value_parser = humantime::parse_duration)]
    pub(crate) deleted_retention: Duration,
    /// Most entries of one publisher.
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    pub(crate) max_entries: usize,
}

#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    #[command(flatten)]
    pub(crate) manifests: ManifestArgs,
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
    /// Keep the registry in this folder; in memory where not given.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) retention: RetentionArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RegistryArgs {
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
    /// Keep the registry in this folder.
    #[arg(long, value_name = "DIR", default_value = "waymark-data", env = "WAYMARK_DATA")]
    pub(crate) data: PathBuf,
    /// Keep the registry in this PostgreSQL database instead, which several replicas may share:
    /// postgres://user@host/database?sslmode=verify-full. The password is better kept in PGPASSFILE.
    #[arg(long, value_name = "URL", env = "WAYMARK_DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: Option<String>,
    /// A configuration file: sources, registries, who may write. Read again when it changes and at
    /// SIGHUP. Without it there is one registry, default, of --catalogue and what is discovered.
    #[arg(long, value_name = "FILE", conflicts_with = "catalogue", env = "WAYMARK_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Read the configuration, say every mistake in it, and end.
    #[arg(long)]
    pub(crate) check_config: bool,
    /// A file with the curated catalogue, in any known format. May be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) catalogue: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) retention: RetentionArgs,
    #[command(flatten)]
    pub(crate) controller: ControllerArgs,
    #[command(flatten)]
    pub(crate) election: ElectionArgs,
}

/// Whether and how MCPRegistries are served.
#[derive(Debug, Args)]
#[command(next_help_heading = "MCPRegistry")]
pub(crate) struct ControllerArgs {
    /// Serve the MCPRegistry resources of the cluster that KUBECONFIG or the Pod's ServiceAccount
    /// leads to, each as the registry NAMESPACE.NAME. The CRD is printed by `waymark crds`, the role
    /// is in deploy/gateway/rbac. Of several replicas one reads the sources, by a Lease.
    #[arg(long)]
    pub(crate) mcpregistries: bool,
    /// Serve those of this namespace only. May be given several times; a Role in each is then enough.
    #[arg(long, value_name = "NAMESPACE", value_parser = namespace, value_delimiter = ',', env = "WAYMARK_MCPREGISTRY_NAMESPACE")]
    pub(crate) mcpregistry_namespace: Vec<SmolStr>,
    /// URL under which clients reach REST, for status.apiEndpoint; where not given, the listening
    /// address, if that is a loopback address.
    #[arg(long, value_name = "URL", env = "WAYMARK_API_URL")]
    pub(crate) api_url: Option<String>,
    /// Let sources of MCPRegistries be fetched from this network, though it is not of the public
    /// Internet. May be given several times. Who may write an MCPRegistry can reach it then.
    #[arg(long, value_name = "CIDR", env = "WAYMARK_ALLOW_SOURCE_NETWORK", value_delimiter = ',')]
    pub(crate) allow_source_network: Vec<IpNet>,
    /// Image of the Deployments of MCPRegistries whose deployment.mode is dedicated.
    #[arg(long, value_name = "IMAGE", env = "WAYMARK_IMAGE", requires = "dedicated_upstream")]
    pub(crate) dedicated_image: Option<String>,
    /// URL under which these Deployments reach REST here, which is that of a Service.
    #[arg(long, value_name = "URL", env = "WAYMARK_DEDICATED_UPSTREAM")]
    pub(crate) dedicated_upstream: Option<String>,
    /// Prefix of the annotation sync-trigger.
    #[arg(long = "sync-annotation-prefix", value_name = "PREFIX", default_value = DEFAULT_PREFIX, value_parser = prefix)]
    pub(crate) annotation_prefix: String,
}

/// Which part of a cluster counts.
#[derive(Debug, Args)]
#[command(next_help_heading = "Scope")]
pub(crate) struct ScopeArgs {
    /// Watch only this namespace. May be given several times; a Role in each is then enough.
    #[arg(short, long, value_name = "NAMESPACE", value_parser = namespace, env = "WAYMARK_NAMESPACE", value_delimiter = ',')]
    pub(crate) namespace: Vec<SmolStr>,
    /// Publish only by this Gateway, in whatever namespace. May be given several times.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub(crate) gateway: Vec<GatewayName>,
    /// Publish only by Gateways of this class. May be given several times.
    #[arg(long, value_name = "NAME")]
    pub(crate) gateway_class: Vec<SmolStr>,
    /// Watch only HTTPRoutes whose labels match, for example team=payments,tier!=internal.
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) route_selector: Option<String>,
    /// Take a connection to the API server as broken when nothing came for this long. A watch hears
    /// from the API server each minute.
    #[arg(long, value_name = "DURATION", default_value = "100s", value_parser = humantime::parse_duration)]
    pub(crate) api_timeout: Duration,
}

fn namespace(text: &str) -> Result<SmolStr, String> {
    if is_label(text) {
        Ok(text.into())
    } else {
        Err("a namespace is a DNS label: lower-case letters, digits and hyphens".into())
    }
}

#[derive(Debug, Args)]
pub(crate) struct DiscoveryArgs {
    /// Instead of a cluster: files and folders of Kubernetes manifests, followed as they change;
    /// - for stdin.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(crate) manifests: Vec<PathBuf>,
    /// The registry: http://host:port, https://host:port or unix:/path.
    #[arg(long, value_name = "URL", env = "WAYMARK_REGISTRY")]
    pub(crate) registry: String,
    /// A file with the bearer token that the registry wants of publishers. Read for each session.
    #[arg(long, value_name = "FILE", env = "WAYMARK_REGISTRY_TOKEN_FILE")]
    pub(crate) registry_token_file: Option<PathBuf>,
    /// Trust the registry's https certificate by these authorities, PEM, instead of the system's.
    #[arg(long, value_name = "FILE", env = "WAYMARK_REGISTRY_CA")]
    pub(crate) registry_ca: Option<PathBuf>,
    /// Name of the cluster, unique among those that publish to the registry.
    #[arg(long, default_value = "default", env = "WAYMARK_CLUSTER")]
    pub(crate) cluster: String,
    /// Count routes and Gateways without any status as accepted.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub(crate) assume_accepted: bool,
    /// Address of the admin port: IP:PORT, or off. It serves /explain, /healthz, /readyz and
    /// /metrics, in plain HTTP.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8081",
        env = "WAYMARK_ADMIN_ADDR"
    )]
    pub(crate) admin_addr: AdminAddress,
    #[command(flatten)]
    pub(crate) rules: RuleArgs,
    #[command(flatten)]
    pub(crate) scope: ScopeArgs,
    #[command(flatten)]
    pub(crate) election: ElectionArgs,
    #[command(flatten)]
    pub(crate) probe: ProbeArgs,
}

/// Whether and how published endpoints are probed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Probing")]
pub(crate) struct ProbeArgs {
    /// Speak MCP to the published streamable HTTP endpoints: learn the tools that no annotation
    /// gives, and mark endpoints that do not answer. Nothing is withdrawn because of it.
    ///
    /// Probes send no credentials and follow redirects to the same host only.
    #[arg(long)]
    pub(crate) probe: bool,
    /// How often an endpoint is probed.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    pub(crate) probe_interval: Duration,
    /// Longest that one probe may take.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) probe_timeout: Duration,
    /// Most probes at a time.
    #[arg(long, value_name = "N", default_value = "8")]
    pub(crate) probe_concurrency: NonZeroUsize,
    /// Probe loopback and link-local addresses too.
    #[arg(long)]
    pub(crate) probe_allow_local: bool,
    /// Probe a host at this address, where it is reached elsewhere from within the cluster than by
    /// clients. May be given several times.
    #[arg(long, value_name = "HOST=IP", value_parser = host_address)]
    pub(crate) probe_resolve: Vec<(String, IpAddr)>,
}

fn host_address(text: &str) -> Result<(String, IpAddr), String> {
    let pair = text.split_once('=').and_then(|(host, ip)| Some((host, ip.parse().ok()?)));
    let (host, address) =
        pair.ok_or("HOST=IP is expected, for example mcp.company.com=10.0.0.7")?;
    Ok((host.to_ascii_lowercase(), address))
}

/// Where the admin port is, if anywhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdminAddress(pub(crate) Option<SocketAddr>);

impl std::str::FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self(None)),
            _ => text
                .parse()
                .map(|address| Self(Some(address)))
                .map_err(|_| "IP:PORT is expected, for example 127.0.0.1:8081, or off".to_owned()),
        }
    }
}

/// What replicas share.
#[derive(Debug, Args)]
#[command(next_help_heading = "Replicas and Events")]
pub(crate) struct ElectionArgs {
    /// Act only while this process holds the Lease, so that several replicas may run.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_value_t = true, default_missing_value = "true")]
    pub(crate) leader_elect: bool,
    /// Name of the Lease; by default waymark-discovery or waymark-registry-api. Discovery keeps what
    /// Events it has posted in ConfigMaps whose names begin with it.
    #[arg(long, value_name = "NAME")]
    pub(crate) lease_name: Option<String>,
    /// Namespace of the Lease and of these ConfigMaps; by default that of the Pod or the kubeconfig.
    #[arg(long, value_name = "NAMESPACE", value_parser = namespace, env = "POD_NAMESPACE")]
    pub(crate) lease_namespace: Option<SmolStr>,
    /// After how long a leader that does not renew the Lease is replaced.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = humantime::parse_duration)]
    pub(crate) lease_duration: Duration,
    /// Post Kubernetes Events on the annotated objects, or on MCPRegistries.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_value_t = true, default_missing_value = "true")]
    pub(crate) events: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
