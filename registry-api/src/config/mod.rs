//! The configuration file: sources, registries, who may write. Its fields are those of ToolHive's
//! registry server, so that its files carry over; `discovery`, `url`, `configmap` and `remotes` are
//! additions.

mod database;
mod reader;
mod sections;
mod sources;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};
use smol_str::SmolStr;
use waymark_catalogue::filter::{Filter, FilterConfig};

use crate::catalogue::{Layout, Origins, RegistryRule, SourceRule};
use crate::source::{
    ConfigMapOrigin, Expected, GitOrigin, RegistryOrigin, Retry, SyncPolicy, UrlOrigin,
};
pub use database::{Database, DatabaseParts};
pub use reader::Fault;
use reader::Reader;
pub(crate) use reader::go_duration;
pub(crate) use sources::{DEFAULT_FILE, backoff_multiplier, git_reference, git_remote_url};

/// How often a source is read again where nothing says that it changed.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(1800);

/// Where a file source takes its catalogue from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileOrigin {
    /// A file.
    Path(PathBuf),
    /// The configuration itself.
    Data(String),
}

/// What a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// A catalogue in a file.
    File(FileOrigin),
    /// A catalogue at a URL.
    Url(UrlOrigin),
    /// A catalogue in a git repository.
    Git(GitOrigin),
    /// A catalogue in ConfigMaps.
    ConfigMap(ConfigMapOrigin),
    /// Another registry.
    Registry(RegistryOrigin),
    /// Entries that are written through the API.
    Managed,
    /// What publishers discover.
    Discovery(Discovered),
}

/// Which discovered entries a source takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Discovered {
    /// Those made of objects in these namespaces; all where empty.
    pub namespaces: Vec<SmolStr>,
    /// Only those whose labels name the registry.
    pub labelled: bool,
}

impl SourceKind {
    /// The type in the configuration.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Url(_) => "url",
            Self::Git(_) => "git",
            Self::ConfigMap(_) => "configmap",
            Self::Registry(_) => "api",
            Self::Managed => "managed",
            Self::Discovery(_) => "kubernetes",
        }
    }

    /// Whether it is read now and again, and not written to.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        !matches!(self, Self::Managed | Self::Discovery(_))
    }
}

/// A source.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Its name.
    pub name: SmolStr,
    /// What it is.
    pub kind: SourceKind,
    /// The format that its catalogue must have; any known one where `None`.
    pub expected: Option<Expected>,
    /// When it is read.
    pub policy: SyncPolicy,
    /// Which entries it lets through.
    pub filter: FilterConfig,
}

impl Source {
    /// A source of any format, read at the usual interval, that lets everything through.
    #[must_use]
    pub fn new(name: impl Into<SmolStr>, kind: SourceKind) -> Self {
        let policy = SyncPolicy { interval: Some(DEFAULT_INTERVAL), retry: Retry::default() };
        let filter = FilterConfig::default();
        Self { name: name.into(), kind, expected: None, policy, filter }
    }

    /// How its entries are routed.
    #[must_use]
    pub fn rule(&self) -> SourceRule {
        let origins = match &self.kind {
            SourceKind::Discovery(Discovered { namespaces, labelled }) => {
                Origins::Publishers { namespaces: namespaces.clone(), labelled: *labelled }
            }
            _ => Origins::Own,
        };
        // Reading has checked the globs.
        SourceRule { origins, filter: Filter::new(&self.filter).unwrap_or_default() }
    }
}

/// A whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Configuration {
    /// The sources, in order.
    pub sources: Vec<Source>,
    /// The registries; never empty.
    pub registries: Vec<RegistryRule>,
    /// The database; where none is given, the registry is kept in a folder.
    pub database: Option<Database>,
    /// A file of tokens whose bearers may write managed entries: `token,name` a line.
    pub static_token_file: Option<PathBuf>,
    /// Parts that are passed over, and why.
    pub ignored: Vec<Fault>,
}

impl Configuration {
    /// Reads a configuration.
    ///
    /// # Errors
    /// Every mistake, with its path.
    pub fn read(value: &Value) -> Result<Self, Vec<Fault>> {
        let mut reader = Reader::default();
        let known =
            ["sources", "registries", "auth", "database", "telemetry", "audit", "registryName"];
        let empty = Map::new();
        let root = reader.object(value, "", &known).unwrap_or(&empty);
        let mut ignored = Vec::new();
        for part in ["telemetry", "audit", "registryName"] {
            if root.contains_key(part) {
                let message = "is passed over: there is nothing here that it would change".into();
                ignored.push(Fault { path: part.into(), message });
            }
        }
        let database = root.get("database").and_then(|database| reader.database(database));
        let sources = reader.sources(root.get("sources"));
        let registries = reader.registries(root.get("registries"), &sources);
        let static_token_file = root.get("auth").and_then(|auth| reader.auth(auth));
        if reader.faults.is_empty() {
            Ok(Self { sources, registries, database, static_token_file, ignored })
        } else {
            Err(reader.faults)
        }
    }

    /// How entries get to registries.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let rule = |source: &Source| (source.name.clone(), source.rule());
        Layout {
            sources: self.sources.iter().map(rule).collect::<BTreeMap<_, _>>(),
            registries: self.registries.clone(),
            complete: true,
        }
    }

    /// The managed source, where there is one, and what it lets through.
    #[must_use]
    pub fn managed_rule(&self) -> Option<(SmolStr, Filter)> {
        let managed = self.sources.iter().find(|source| source.kind == SourceKind::Managed)?;
        Some((managed.name.clone(), managed.rule().filter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Remotes;
    use serde_json::json;

    #[test]
    fn a_whole_configuration() {
        let config = Configuration::read(&json!({
            "sources": [
                {"name": "cat", "file": {"path": "registry.json"}, "syncPolicy": {"interval": "10m"},
                 "filter": {"names": {"include": ["com.example/*"]}, "tags": {"exclude": ["old"]}}},
                {"name": "own", "managed": {}},
                {"name": "k8s", "kubernetes": {"namespaces": ["a", "b"]}},
                {"name": "inline", "file": {"data": "{}"}, "claims": {}},
            ],
            "registries": [
                {"name": "team", "sources": ["own", "k8s"], "remotes": "both"},
                {"name": "default", "sources": ["cat"], "claims": {}},
            ],
            "auth": {"mode": "anonymous", "staticTokenFile": "/etc/tokens"},
            "database": {"host": "db", "user": "app", "database": "registry", "password": "secret"},
            "telemetry": {"enabled": true},
        }))
        .unwrap();
        assert_eq!(config.sources.len(), 4);
        assert_eq!(config.sources[0].policy.interval, Some(Duration::from_secs(600)));
        assert_eq!(config.managed_rule().map(|(name, _)| name).as_deref(), Some("own"));
        assert_eq!(config.registries[0].remotes, Remotes::Both);
        assert_eq!(config.static_token_file, Some("/etc/tokens".into()));
        assert_eq!(config.ignored[0].path, "telemetry");
        assert_eq!(format!("{:?}", config.database), "Some(db:5432/registry)");
        let layout = config.layout();
        assert_eq!(layout.default_registry(), "default");
        let expected =
            Origins::Publishers { namespaces: vec!["a".into(), "b".into()], labelled: false };
        assert_eq!(layout.sources["k8s"].origins, expected);
    }

    #[test]
    fn every_mistake_at_once_with_its_path() {
        let faults = Configuration::read(&json!({
            "source": [],
            "sources": [
                {"name": "Bad Name", "file": {}},
                {"name": "two", "file": {"path": "x"}, "managed": {}},
                {"name": "none"},
                {"name": "git", "git": {"repository": "x", "branch": "a", "tag": "b"}},
                {"name": "m", "managed": {}, "syncPolicy": {"interval": "soon"}},
                {"name": "m", "managed": {"x": 1}, "filter": {"names": {"include": ["[", 3]}}},
                {"name": "claims", "managed": {}, "claims": {"org": "acme"}},
                7,
            ],
            "registries": [
                {"name": "r", "sources": ["m", "m", "unknown"], "remotes": "all"},
                {"sources": []},
            ],
            "database": {"host": "x", "port": 0.5, "sslMode": "maybe"},
            "auth": {"mode": "oauth"},
        }))
        .unwrap_err();
        let paths: Vec<&str> = faults.iter().map(|fault| fault.path.as_str()).collect();
        for path in [
            "source",
            "database.user",
            "database.database",
            "database.port",
            "database.sslMode",
            "sources[0].name",
            "sources[0].file",
            "sources[1]",
            "sources[2]",
            "sources[3].git.repository",
            "sources[3].git",
            "sources[4].syncPolicy.interval",
            "sources[5].managed.x",
            "sources[5].filter.names.include[1]",
            "sources[5].filter",
            "sources[5].name",
            "sources[5].managed",
            "sources[6].claims",
            "sources[7]",
            "registries[0].sources[1]",
            "registries[0].sources[2]",
            "registries[0].remotes",
            "registries[1].sources",
            "registries[1].name",
            "auth.mode",
        ] {
            assert!(paths.contains(&path), "{path} is not among {paths:#?}");
        }
        assert!(Configuration::read(&json!("text")).is_err());
        assert!(Configuration::read(&json!({})).is_err_and(|faults| faults.len() == 2));
    }
}
