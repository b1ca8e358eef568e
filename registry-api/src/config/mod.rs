//! The configuration file: sources, registries, who may write. Its fields are those of ToolHive's
//! registry server, so that its files carry over; `discovery`, `url`, `configmap` and `remotes` are
//! additions.

mod reader;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};
use smol_str::SmolStr;
use waymark_catalogue::filter::{Filter, FilterConfig, Lists};

use crate::catalogue::{Layout, Origins, RegistryRule, Remotes, SourceRule};
pub use reader::Fault;
use reader::{Reader, join, quoted};

/// Types of sources that there are.
const TYPES: [&str; 9] =
    ["api", "configmap", "discovery", "file", "git", "kubernetes", "managed", "registry", "url"];
const INTERVALS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30 * 86_400));
/// How often a file is read again where nothing says that it changed.
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
    /// Entries that are written through the API.
    Managed,
    /// What publishers discover, in these namespaces (all where empty).
    Discovery(Vec<SmolStr>),
}

impl SourceKind {
    /// The type in the configuration.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Managed => "managed",
            Self::Discovery(_) => "kubernetes",
        }
    }
}

/// A source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub name: SmolStr,
    /// What it is.
    pub kind: SourceKind,
    /// How often it is read again.
    pub interval: Duration,
    /// Which entries it lets through.
    pub filter: FilterConfig,
}

/// Where a PostgreSQL database is.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// `postgres://user:password@host:port/database?sslmode=verify-full`, as libpq has it.
    Url(String),
    /// In parts.
    Parts(DatabaseParts),
}

/// A PostgreSQL database in parts.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseParts {
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User.
    pub user: String,
    /// Password.
    pub password: Option<String>,
    /// A file that holds it.
    pub password_file: Option<PathBuf>,
    /// Name of the database.
    pub database: String,
    /// `disable`, `prefer`, `require`, `verify-ca` or `verify-full`.
    pub ssl_mode: Option<String>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Both may hold a password.
        match self {
            Self::Url(_) => f.write_str("Url"),
            Self::Parts(parts) => write!(f, "{}:{}/{}", parts.host, parts.port, parts.database),
        }
    }
}

/// A whole configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        let rule = |source: &Source| {
            let origins = match &source.kind {
                SourceKind::Discovery(namespaces) => {
                    Origins::Publishers { namespaces: namespaces.clone() }
                }
                _ => Origins::Own,
            };
            // Reading has checked the globs.
            let filter = Filter::new(&source.filter).unwrap_or_default();
            (source.name.clone(), SourceRule { origins, filter })
        };
        Layout {
            sources: self.sources.iter().map(rule).collect::<BTreeMap<_, _>>(),
            registries: self.registries.clone(),
        }
    }

    /// Name of the managed source, where there is one.
    #[must_use]
    pub fn managed(&self) -> Option<&SmolStr> {
        let managed = self.sources.iter().find(|source| source.kind == SourceKind::Managed);
        managed.map(|source| &source.name)
    }
}

impl Reader {
    fn sources(&mut self, value: Option<&Value>) -> Vec<Source> {
        let Some(value) = value else {
            self.fault("sources", "is missing: there must be one at least");
            return Vec::new();
        };
        let items = self.list(value, "sources");
        if items.is_empty() {
            self.fault("sources", "there must be one at least");
        }
        let mut names = BTreeSet::new();
        let mut managed = false;
        let mut sources = Vec::new();
        for (path, item) in items {
            let Some(source) = self.source(item, &path) else { continue };
            if !names.insert(source.name.clone()) {
                let message = format!("another source is called {} too", source.name);
                self.fault(&join(&path, "name"), message);
            }
            if source.kind == SourceKind::Managed && std::mem::replace(&mut managed, true) {
                self.fault(&join(&path, "managed"), "there can be one managed source only");
            }
            sources.push(source);
        }
        sources
    }

    fn source(&mut self, value: &Value, path: &str) -> Option<Source> {
        let known = [&TYPES[..], &["name", "syncPolicy", "filter", "claims", "format"]].concat();
        let object = self.object(value, path, &known)?;
        let name = self.name(object, path);
        self.no_claims(object, path);
        let types: Vec<&str> =
            TYPES.into_iter().filter(|kind| object.contains_key(*kind)).collect();
        let kind = match types.as_slice() {
            [kind] => self.kind(kind, object.get(*kind)?, &join(path, kind)),
            [] => {
                self.fault(path, format!("needs a type, one of: {}", TYPES.join(", ")));
                None
            }
            several => {
                self.fault(
                    path,
                    format!("has several types: {}; one is allowed", several.join(", ")),
                );
                None
            }
        };
        let mut interval = DEFAULT_INTERVAL;
        if let Some(policy) = object.get("syncPolicy") {
            let at = join(path, "syncPolicy");
            if let Some(policy) = self.object(policy, &at, &["interval"])
                && let Some(value) = policy.get("interval")
                && let Some(duration) = self.duration(value, &join(&at, "interval"), INTERVALS)
            {
                interval = duration;
            }
        }
        let filter = object.get("filter").map(|filter| self.filter(filter, &join(path, "filter")));
        Some(Source { name: name?, kind: kind?, interval, filter: filter.unwrap_or_default() })
    }

    fn kind(&mut self, kind: &str, value: &Value, path: &str) -> Option<SourceKind> {
        match kind {
            "managed" => {
                if !value.is_null() {
                    self.object(value, path, &[])?;
                }
                Some(SourceKind::Managed)
            }
            "kubernetes" | "discovery" if value.is_null() => {
                Some(SourceKind::Discovery(Vec::new()))
            }
            "kubernetes" | "discovery" => {
                let object = self.object(value, path, &["namespaces"])?;
                let namespaces = self.texts(object.get("namespaces"), &join(path, "namespaces"));
                Some(SourceKind::Discovery(namespaces.into_iter().map(SmolStr::from).collect()))
            }
            "file" => self.file(value, path),
            other => {
                let message = format!(
                    "sources of type {other} are not there yet; there are file, managed, kubernetes (or discovery)"
                );
                self.fault(path, message);
                None
            }
        }
    }

    fn file(&mut self, value: &Value, path: &str) -> Option<SourceKind> {
        let object = self.object(value, path, &["path", "data", "url", "timeout"])?;
        if object.contains_key("url") {
            self.fault(&join(path, "url"), "catalogues from a URL are not there yet; use path");
            return None;
        }
        match (object.get("path"), object.get("data")) {
            (Some(file), None) => {
                let file = self.text(file, &join(path, "path"))?;
                Some(SourceKind::File(FileOrigin::Path(file.into())))
            }
            (None, Some(data)) => {
                let data = self.text(data, &join(path, "data"))?;
                Some(SourceKind::File(FileOrigin::Data(data.to_owned())))
            }
            _ => {
                self.fault(path, "needs either path or data");
                None
            }
        }
    }

    fn filter(&mut self, value: &Value, path: &str) -> FilterConfig {
        let Some(object) = self.object(value, path, &["names", "tags"]) else {
            return FilterConfig::default();
        };
        let mut lists = |key: &str| {
            let at = join(path, key);
            let Some(value) = object.get(key) else { return Lists::default() };
            let Some(lists) = self.object(value, &at, &["include", "exclude"]) else {
                return Lists::default();
            };
            Lists {
                include: self.texts(lists.get("include"), &join(&at, "include")),
                exclude: self.texts(lists.get("exclude"), &join(&at, "exclude")),
            }
        };
        let config = FilterConfig { names: lists("names"), tags: lists("tags") };
        if let Err(errors) = Filter::new(&config) {
            for error in errors {
                self.fault(path, error.to_string());
            }
        }
        config
    }

    fn registries(&mut self, value: Option<&Value>, sources: &[Source]) -> Vec<RegistryRule> {
        let Some(value) = value else {
            self.fault("registries", "is missing: there must be one at least");
            return Vec::new();
        };
        let items = self.list(value, "registries");
        if items.is_empty() {
            self.fault("registries", "there must be one at least");
        }
        let mut names = BTreeSet::new();
        let mut registries = Vec::new();
        for (path, item) in items {
            let Some(object) = self.object(item, &path, &["name", "sources", "claims", "remotes"])
            else {
                continue;
            };
            self.no_claims(object, &path);
            let at = join(&path, "sources");
            let wanted = self.texts(object.get("sources"), &at);
            if wanted.is_empty() {
                self.fault(&at, "must name one source at least");
            }
            let mut seen = BTreeSet::new();
            for (n, name) in wanted.iter().enumerate() {
                let at = format!("{at}[{n}]");
                if !sources.iter().any(|source| source.name == *name) {
                    self.fault(&at, format!("there is no source {}", quoted(name)));
                } else if !seen.insert(name) {
                    self.fault(&at, format!("names {} again", quoted(name)));
                }
            }
            let remotes = self.remotes(object.get("remotes"), &join(&path, "remotes"));
            let Some(name) = self.name(object, &path) else { continue };
            if !names.insert(name.clone()) {
                self.fault(&join(&path, "name"), format!("another registry is called {name} too"));
            }
            let sources = wanted.into_iter().map(SmolStr::from).collect();
            registries.push(RegistryRule { name, sources, remotes });
        }
        registries
    }

    fn remotes(&mut self, value: Option<&Value>, path: &str) -> Remotes {
        let all = [Remotes::External, Remotes::InCluster, Remotes::Both];
        let Some(value) = value else { return Remotes::External };
        let found = all.into_iter().find(|remotes| Some(remotes.as_str()) == value.as_str());
        found.unwrap_or_else(|| {
            self.fault(path, "must be external, in-cluster or both");
            Remotes::External
        })
    }

    fn database(&mut self, value: &Value) -> Option<Database> {
        const MODES: [&str; 6] =
            ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
        // Those without a meaning here are of ToolHive's pool and of its migrations.
        let known = [
            "host",
            "port",
            "user",
            "password",
            "passwordFile",
            "database",
            "sslMode",
            "migrationUser",
            "migrationPassword",
            "maxOpenConns",
            "maxIdleConns",
            "connMaxLifetime",
            "maxMetaSize",
        ];
        let path = "database";
        let object = self.object(value, path, &known)?;
        let host = self.required(object, "host", path).map(str::to_owned);
        let user = self.required(object, "user", path).map(str::to_owned);
        let database = self.required(object, "database", path).map(str::to_owned);
        let port = match object.get("port") {
            None => Some(5432),
            Some(port) => port.as_u64().and_then(|port| u16::try_from(port).ok()),
        };
        if port.is_none() {
            self.fault("database.port", "must be a number from 1 to 65535");
        }
        let mut text = |key: &str| {
            let value = object.get(key)?;
            self.text(value, &join(path, key)).map(str::to_owned)
        };
        let (password, password_file) = (text("password"), text("passwordFile"));
        let ssl_mode = text("sslMode");
        if ssl_mode.as_ref().is_some_and(|mode| !MODES.contains(&mode.as_str())) {
            self.fault("database.sslMode", format!("must be one of {}", MODES.join(", ")));
        }
        Some(Database::Parts(DatabaseParts {
            host: host?,
            port: port?,
            user: user?,
            password,
            password_file: password_file.map(PathBuf::from),
            database: database?,
            ssl_mode,
        }))
    }

    fn auth(&mut self, value: &Value) -> Option<PathBuf> {
        let known = ["mode", "staticTokenFile", "publicPaths", "oauth", "authz"];
        let object = self.object(value, "auth", &known)?;
        match object.get("mode").map(Value::as_str) {
            None | Some(Some("anonymous")) => {}
            Some(Some("oauth")) => self.fault(
                "auth.mode",
                "oauth is not there yet; say anonymous, and staticTokenFile for who may write",
            ),
            Some(_) => self.fault("auth.mode", "must be anonymous (oauth is not there yet)"),
        }
        let file = object.get("staticTokenFile")?;
        self.text(file, "auth.staticTokenFile").map(PathBuf::from)
    }

    /// A name as RFC 1123 has labels.
    fn name(&mut self, object: &Map<String, Value>, path: &str) -> Option<SmolStr> {
        let name = self.required(object, "name", path)?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let good = name.len() <= 63
            && name.chars().all(plain)
            && !name.starts_with('-')
            && !name.ends_with('-');
        if good {
            return Some(name.into());
        }
        self.fault(
            &join(path, "name"),
            format!(
                "{} must have lower-case letters, digits and hyphens only, 63 at most",
                quoted(name)
            ),
        );
        None
    }

    /// Fails closed: what not everybody may see is not served to everybody.
    fn no_claims(&mut self, object: &Map<String, Value>, path: &str) {
        let claims = object.get("claims").and_then(Value::as_object);
        if claims.is_some_and(|claims| !claims.is_empty()) {
            self.fault(&join(path, "claims"), "claims are not enforced yet; remove them");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert_eq!(config.sources[0].interval, Duration::from_secs(600));
        assert_eq!(config.managed().map(SmolStr::as_str), Some("own"));
        assert_eq!(config.registries[0].remotes, Remotes::Both);
        assert_eq!(config.static_token_file, Some("/etc/tokens".into()));
        assert_eq!(config.ignored[0].path, "telemetry");
        assert_eq!(format!("{:?}", config.database), "Some(db:5432/registry)");
        let layout = config.layout();
        assert_eq!(layout.default_registry(), "default");
        let expected = Origins::Publishers { namespaces: vec!["a".into(), "b".into()] };
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
                {"name": "git", "git": {"repository": "x"}},
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
