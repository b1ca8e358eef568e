//! From an MCPRegistry to a source and a registry of this process. Pure: no cluster is needed.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;
use smol_str::{SmolStr, format_smolstr};
use url::Url;
use waymark_catalogue::filter::{Filter, FilterConfig, Lists};
use waymark_catalogue::validate::http_url_fault;

use super::crd::{
    AllowedServers, ConfigMapSpec, FilterSpec, FormatSpec, From, GitSpec, HttpSpec, KeyRef,
    MCPRegistrySpec, RegistrySpec, RemotesSpec, SourceType, SyncPolicySpec, SyncType, UrlSpec,
};
use crate::catalogue::{RegistryRule, Remotes};
use crate::config::{
    Discovered, Fault, Source, SourceKind, backoff_multiplier, git_reference, git_remote_url,
    go_duration,
};
use crate::source::{
    Access, ConfigMapOrigin, Expected, GitOrigin, Origin, Reach, Reference, RegistryOrigin, Remote,
    Retry, Selection, SyncPolicy, UrlOrigin,
};

/// What a process makes of an MCPRegistry.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// Its source, unless it is of the type discovery.
    pub(super) source: Option<Source>,
    /// The source of its deployed servers.
    pub(super) deployed: Source,
    /// The registry.
    pub(super) registry: RegistryRule,
}

/// The name of the registry of an MCPRegistry, and of its source.
pub(super) fn registry_name(namespace: &str, name: &str) -> SmolStr {
    format_smolstr!("{namespace}.{name}")
}

/// Makes a plan.
///
/// # Errors
/// Every mistake, with its path in the spec.
pub(super) fn plan(
    namespace: &str,
    name: &str,
    spec: &MCPRegistrySpec,
    reach: &Reach,
) -> Result<Plan, Vec<Fault>> {
    let mut planner = Planner { namespace, reach, faults: Vec::new() };
    let kind = planner.source(spec);
    let policy = planner.policy(&spec.sync_policy);
    let filter = planner.filter(&spec.filter);
    if !planner.faults.is_empty() {
        return Err(planner.faults);
    }
    let own = registry_name(namespace, name);
    let source = kind.map(|kind| Source {
        expected: spec.source.format.map(|format| match format {
            FormatSpec::Toolhive => Expected::ToolHive,
            FormatSpec::Upstream => Expected::Upstream,
            FormatSpec::McpClient => Expected::McpClient,
        }),
        policy,
        filter: filter.clone(),
        ..Source::new(own.clone(), kind)
    });
    let AllowedServers { namespaces } = spec.allowed_servers;
    let namespaces = match namespaces.from {
        From::Same => vec![namespace.into()],
        From::All => Vec::new(),
    };
    let discovered = SourceKind::Discovery(Discovered { namespaces, labelled: true });
    let deployed = Source { filter, ..Source::new(format!("{own}:deployed"), discovered) };
    let sources = source.iter().map(|source| source.name.clone());
    let registry = RegistryRule {
        sources: sources.chain([deployed.name.clone()]).collect(),
        name: own,
        remotes: match spec.remotes {
            RemotesSpec::External => Remotes::External,
            RemotesSpec::InCluster => Remotes::InCluster,
            RemotesSpec::Both => Remotes::Both,
        },
    };
    Ok(Plan { source, deployed, registry })
}

struct Planner<'p> {
    namespace: &'p str,
    reach: &'p Reach,
    faults: Vec<Fault>,
}

impl Planner<'_> {
    fn fault(&mut self, path: &str, message: impl Into<String>) {
        self.faults.push(Fault { path: format!("spec.{path}"), message: message.into() });
    }

    /// What the source is; `None` for none, or where it is not right.
    fn source(&mut self, spec: &MCPRegistrySpec) -> Option<SourceKind> {
        let source = &spec.source;
        let set = [
            (SourceType::Configmap, source.configmap.is_some(), "configmap"),
            (SourceType::Git, source.git.is_some(), "git"),
            (SourceType::Url, source.url.is_some(), "url"),
            (SourceType::Registry, source.registry.is_some(), "registry"),
        ];
        // The API server checks the same, unless the CRD is an older one.
        for (kind, set, field) in set {
            if set != (source.kind == kind) {
                let what = if set { "is set, but the type is another" } else { "is missing" };
                self.fault(&format!("source.{field}"), what);
            }
        }
        match source.kind {
            SourceType::Configmap => source.configmap.as_ref().and_then(|c| self.configmap(c)),
            SourceType::Git => source.git.as_ref().and_then(|git| self.git(git)),
            SourceType::Url => source.url.as_ref().and_then(|url| self.url_source(url)),
            SourceType::Registry => source.registry.as_ref().and_then(|r| self.registry(r)),
            SourceType::Discovery => None,
        }
    }

    fn configmap(&mut self, spec: &ConfigMapSpec) -> Option<SourceKind> {
        let path = "source.configmap";
        let selection = match (&spec.name, &spec.selector) {
            (Some(name), None) => Selection::Name(name.clone()),
            (None, Some(selector)) => Selection::Labels(self.labels(selector)?),
            _ => {
                self.fault(path, "needs either name or selector");
                return None;
            }
        };
        let namespace = spec.namespace.as_deref().unwrap_or(self.namespace);
        let reader = (namespace != self.namespace).then(|| self.namespace.to_owned());
        let (namespace, key) = (Some(namespace.to_owned()), spec.key.clone());
        Some(SourceKind::ConfigMap(ConfigMapOrigin { namespace, selection, key, reader }))
    }

    fn labels(&mut self, selector: &LabelSelector) -> Option<String> {
        let path = "source.configmap.selector";
        let read: Result<Selector, _> = selector.clone().try_into();
        match read {
            Ok(selector) if selector.selects_all() => {
                self.fault(path, "would select all ConfigMaps of the namespace; name a label");
                None
            }
            Ok(selector) => Some(selector.to_string()),
            Err(error) => {
                self.fault(path, error.to_string());
                None
            }
        }
    }

    fn git(&mut self, spec: &GitSpec) -> Option<SourceKind> {
        let named = [("branch", &spec.branch), ("tag", &spec.tag), ("commit", &spec.commit)];
        let named: Vec<(&str, &String)> =
            named.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?))).collect();
        let reference = match named.as_slice() {
            [] => Some(Reference::Head),
            [(key, value)] => git_reference(key, (*value).clone())
                .map_err(|fault| self.fault(&format!("source.git.{key}"), fault))
                .ok(),
            _ => {
                self.fault("source.git", "needs one of branch, tag and commit only");
                None
            }
        };
        let remote = self.git_remote(spec);
        let path = spec.path.clone();
        Some(SourceKind::Git(GitOrigin { remote: remote?, reference: reference?, path }))
    }

    fn git_remote(&mut self, spec: &GitSpec) -> Option<Remote> {
        let path = "source.git.repository";
        let access = self.access("source.git.http", &spec.http);
        let Some(url) = git_remote_url(&spec.repository) else {
            self.fault(path, "is no repository: write https://…, ssh://… or user@host:path");
            return None;
        };
        if url.scheme() != "ssh" {
            let url = self.url(path, &spec.repository)?;
            return Some(Remote::Http { url, access: Box::new(access?) });
        }
        let (Some(key), Some(known_hosts)) =
            (&spec.ssh_key_secret_ref, &spec.known_hosts_secret_ref)
        else {
            self.fault(path, "over SSH needs sshKeySecretRef and knownHostsSecretRef");
            return None;
        };
        Some(Remote::Ssh {
            url,
            key: self.secret(key),
            known_hosts: self.secret(known_hosts),
            reach: self.reach.clone(),
            timeout: access?.timeout,
        })
    }

    fn url_source(&mut self, spec: &UrlSpec) -> Option<SourceKind> {
        let url = self.url("source.url.url", &spec.url);
        let access = self.access("source.url.http", &spec.http);
        Some(SourceKind::Url(UrlOrigin { url: url?, access: access? }))
    }

    fn registry(&mut self, spec: &RegistrySpec) -> Option<SourceKind> {
        let endpoint = self.url("source.registry.url", &spec.url);
        let access = self.access("source.registry.http", &spec.http);
        let path = "source.registry.fullSyncInterval";
        let full_interval = self.duration(path, &spec.full_sync_interval, INTERVAL);
        let (endpoint, access, full_interval) = (endpoint?, access?, full_interval?);
        Some(SourceKind::Registry(RegistryOrigin { endpoint, access, full_interval }))
    }

    fn url(&mut self, path: &str, text: &str) -> Option<Url> {
        if let Some(fault) = http_url_fault(text) {
            self.fault(path, fault);
            return None;
        }
        Url::parse(text).ok()
    }

    fn access(&mut self, path: &str, spec: &HttpSpec) -> Option<Access> {
        let timeout = self.duration(&format!("{path}.timeout"), &spec.timeout, TIMEOUT);
        if spec.bearer_token_secret_ref.is_some() && spec.basic_auth.is_some() {
            self.fault(path, "cannot have both bearerTokenSecretRef and basicAuth");
        }
        let plain = spec.headers.iter().map(|(n, v)| (n.clone(), Origin::Value(v.clone())));
        let secret =
            spec.headers_from.iter().map(|h| (h.name.clone(), self.secret(&h.secret_key_ref)));
        let headers: Vec<(String, Origin)> = plain.chain(secret).collect();
        for (name, _) in &headers {
            if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
                self.fault(&format!("{path}.headers"), format!("{name:?} is no name of a header"));
            }
        }
        Some(Access {
            reach: self.reach.clone(),
            headers,
            bearer: spec.bearer_token_secret_ref.as_ref().map(|key| self.secret(key)),
            basic: spec
                .basic_auth
                .as_ref()
                .map(|basic| (basic.username.clone(), self.secret(&basic.password_secret_ref))),
            ca: spec.ca_bundle_ref.as_ref().map(|key| Origin::ConfigMap {
                namespace: self.namespace.to_owned(),
                name: key.name.clone(),
                key: key.key.clone(),
            }),
            timeout: timeout?,
        })
    }

    fn secret(&self, key: &KeyRef) -> Origin {
        Origin::Secret {
            namespace: self.namespace.to_owned(),
            name: key.name.clone(),
            key: key.key.clone(),
        }
    }

    fn policy(&mut self, spec: &SyncPolicySpec) -> SyncPolicy {
        let interval = self.duration("syncPolicy.interval", &spec.interval, INTERVAL);
        let retry = &spec.retry_policy;
        let path = "syncPolicy.retryPolicy";
        let pause =
            self.duration(&format!("{path}.backoffInterval"), &retry.backoff_interval, INTERVAL);
        let multiplier = backoff_multiplier(&retry.backoff_multiplier);
        if multiplier.is_none() {
            self.fault(&format!("{path}.backoffMultiplier"), "must be a number from 1 to 10");
        }
        let usual = Retry::default();
        SyncPolicy {
            interval: interval.filter(|_| spec.kind == SyncType::Automatic),
            retry: Retry {
                attempts: retry.max_attempts.max(1),
                pause: pause.unwrap_or(usual.pause),
                multiplier: multiplier.unwrap_or(usual.multiplier),
            },
        }
    }

    fn duration(
        &mut self,
        path: &str,
        text: &str,
        (least, most): (Duration, Duration),
    ) -> Option<Duration> {
        let duration = go_duration(text).filter(|duration| (least..=most).contains(duration));
        if duration.is_none() {
            self.fault(
                path,
                format!("must be a Go duration (as 30s or 1h30m are) from {least:?} to {most:?}"),
            );
        }
        duration
    }

    fn filter(&mut self, spec: &FilterSpec) -> FilterConfig {
        let filter = config_of(spec);
        for error in Filter::new(&filter).err().into_iter().flatten() {
            self.fault("filter", error.to_string());
        }
        filter
    }
}

fn config_of(spec: &FilterSpec) -> FilterConfig {
    FilterConfig {
        names: Lists { include: spec.include.clone(), exclude: spec.exclude.clone() },
        tags: Lists { include: spec.tags.include.clone(), exclude: spec.tags.exclude.clone() },
    }
}

/// A filter, where it is right.
pub(super) fn filter(spec: &FilterSpec) -> Option<FilterConfig> {
    Some(config_of(spec)).filter(|filter| Filter::new(filter).is_ok())
}

const INTERVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(720 * 3600));
const TIMEOUT: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(300));

/// What is served of a registry whose spec never was right in this process's life: what is stored of
/// it, as far as its filter can be read.
pub(super) fn stored(namespace: &str, name: &str, spec: &Result<MCPRegistrySpec, String>) -> Plan {
    let own = registry_name(namespace, name);
    let nothing = FilterConfig {
        names: Lists { include: Vec::new(), exclude: vec!["*".to_owned()] },
        ..FilterConfig::default()
    };
    let filter = spec.as_ref().ok().and_then(|spec| filter(&spec.filter));
    let mut source = Source::new(own.clone(), SourceKind::Managed);
    source.filter = filter.unwrap_or(nothing);
    let labelled = Discovered { namespaces: vec![namespace.into()], labelled: true };
    let mut deployed = Source::new(format!("{own}:deployed"), SourceKind::Discovery(labelled));
    deployed.filter = source.filter.clone();
    let sources = vec![source.name.clone(), deployed.name.clone()];
    let registry = RegistryRule { name: own, sources, remotes: Remotes::External };
    Plan { source: Some(source), deployed, registry }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn planned(spec: &Value) -> Result<Plan, Vec<String>> {
        let spec: MCPRegistrySpec = serde_json::from_value(spec.clone()).unwrap();
        let plan = plan("team-a", "prod", &spec, &Reach::Public(Arc::default()));
        plan.map_err(|faults| faults.into_iter().map(|fault| fault.path).collect())
    }

    #[test]
    fn a_configmap() {
        let plan = planned(&json!({
            "source": {"type": "configmap", "format": "toolhive", "configmap": {"name": "data"}},
            "syncPolicy": {"type": "automatic", "interval": "30m",
                "retryPolicy": {"maxAttempts": 5, "backoffInterval": "10s", "backoffMultiplier": "1.5"}},
            "filter": {"include": ["a*"], "tags": {"exclude": ["old"]}},
            "remotes": "both",
        }))
        .unwrap();
        let source = plan.source.unwrap();
        assert_eq!(
            (source.name.as_str(), source.expected),
            ("team-a.prod", Some(Expected::ToolHive))
        );
        let origin = ConfigMapOrigin {
            namespace: Some("team-a".into()),
            selection: Selection::Name("data".into()),
            key: "registry.json".into(),
            reader: None,
        };
        assert_eq!(source.kind, SourceKind::ConfigMap(origin));
        let retry = Retry { attempts: 5, pause: Duration::from_secs(10), multiplier: 1.5 };
        let interval = Some(Duration::from_secs(1800));
        assert_eq!(source.policy, SyncPolicy { interval, retry });
        assert_eq!(source.filter.names.include, ["a*"]);
        assert_eq!(plan.registry.sources, ["team-a.prod", "team-a.prod:deployed"]);
        assert_eq!(plan.registry.remotes, Remotes::Both);
        let discovered = Discovered { namespaces: vec!["team-a".into()], labelled: true };
        assert_eq!(plan.deployed.kind, SourceKind::Discovery(discovered));
    }

    #[test]
    fn what_a_tenant_may_not() {
        let kind =
            |source: Value| planned(&json!({ "source": source })).unwrap().source.unwrap().kind;
        // Another namespace must grant it.
        let SourceKind::ConfigMap(origin) = kind(json!({"type": "configmap", "configmap": {
            "namespace": "team-b", "selector": {"matchLabels": {"a": "b"}}}}))
        else {
            panic!("another kind");
        };
        assert_eq!(origin.reader.as_deref(), Some("team-a"));
        assert_eq!(origin.selection, Selection::Labels("a=b".into()));
        // Addresses inside the cluster are not reached, and secrets are of the own namespace.
        let SourceKind::Url(origin) = kind(json!({"type": "url", "url": {"url": "https://a.b/c",
            "http": {"bearerTokenSecretRef": {"name": "s", "key": "k"}}}}))
        else {
            panic!("another kind");
        };
        assert_eq!(origin.access.reach, Reach::Public(Arc::default()));
        let secret =
            Origin::Secret { namespace: "team-a".into(), name: "s".into(), key: "k".into() };
        assert_eq!(origin.access.bearer, Some(secret));
        // The process's own files are not read.
        for repository in ["/etc", "file:///etc", "../x"] {
            let faults = planned(&json!({"source": {"type": "git", "git": {
                "repository": repository}}}));
            assert_eq!(faults.unwrap_err(), ["spec.source.git.repository"], "{repository}");
        }
    }

    #[test]
    fn discovery_alone_and_from_everywhere() {
        let plan = planned(&json!({"source": {"type": "discovery"},
            "allowedServers": {"namespaces": {"from": "All"}}}))
        .unwrap();
        assert_eq!((plan.source, plan.registry.sources.len()), (None, 1));
        let discovered = Discovered { namespaces: Vec::new(), labelled: true };
        assert_eq!(plan.deployed.kind, SourceKind::Discovery(discovered));
    }

    #[test]
    fn contradictions() {
        let ssh = "git@example.com:a.git";
        for (spec, paths) in [
            (json!({"source": {"type": "url"}}), vec!["spec.source.url"]),
            (
                json!({"source": {"type": "discovery", "git": {"repository": "https://a.b/c"}}}),
                vec!["spec.source.git"],
            ),
            (
                json!({"source": {"type": "configmap", "configmap": {}}}),
                vec!["spec.source.configmap"],
            ),
            (
                json!({"source": {"type": "configmap", "configmap": {"selector": {}}}}),
                vec!["spec.source.configmap.selector"],
            ),
            (
                json!({"source": {"type": "git", "git": {"repository": ssh}}}),
                vec!["spec.source.git.repository"],
            ),
            (
                json!({"source": {"type": "git", "git": {
                    "repository": "https://a.b/c", "branch": "a", "tag": "b"}}}),
                vec!["spec.source.git"],
            ),
            (
                json!({"source": {"type": "url", "url": {"url": "https://u:p@a.b"}}}),
                vec!["spec.source.url.url"],
            ),
            (
                json!({"source": {"type": "discovery"},
                    "syncPolicy": {"interval": "0s", "retryPolicy": {"backoffMultiplier": "0"}},
                    "filter": {"include": ["["]}}),
                vec![
                    "spec.syncPolicy.interval",
                    "spec.syncPolicy.retryPolicy.backoffMultiplier",
                    "spec.filter",
                ],
            ),
        ] {
            assert_eq!(planned(&spec).unwrap_err(), paths, "{spec}");
        }
    }

    #[test]
    fn what_is_stored_is_shown_only_through_its_filter() {
        let spec = |filter: Value| {
            serde_json::from_value(json!({"source": {"type": "url"}, "filter": filter}))
                .map_err(|error| error.to_string())
        };
        let exclude = |spec| {
            let plan = stored("a", "b", &spec);
            (plan.source.unwrap().filter.names.exclude, plan.deployed.filter.names.exclude)
        };
        let all = || vec!["*".to_owned()];
        assert_eq!(exclude(spec(json!({"exclude": ["x*"]}))).0, ["x*"]);
        assert_eq!(exclude(spec(json!({"exclude": ["["]}))), (all(), all()));
        assert_eq!(exclude(spec(json!({"exclude": 7}))), (all(), all()));
    }
}
