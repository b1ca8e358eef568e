//! The sections of the file: sources, registries, who may write.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Map, Value};
use smol_str::SmolStr;
use waymark_catalogue::filter::{Filter, FilterConfig, Lists};

use super::reader::{Reader, join, quoted};
use super::{Source, SourceKind};
use crate::catalogue::{RegistryRule, Remotes};
use crate::source::Expected;

/// Types of sources that there are.
const TYPES: [&str; 9] =
    ["api", "configmap", "discovery", "file", "git", "kubernetes", "managed", "registry", "url"];

impl Reader {
    pub(super) fn sources(&mut self, value: Option<&Value>) -> Vec<Source> {
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
        let policy = self.policy(object.get("syncPolicy"), &join(path, "syncPolicy"));
        let expected = object.get("format").and_then(|value| {
            let found = Expected::ALL.into_iter().find(|e| Some(e.as_str()) == value.as_str());
            if found.is_none() {
                self.fault(&join(path, "format"), "must be upstream, toolhive or mcp-client");
            }
            found
        });
        let filter = object.get("filter").map(|filter| self.filter(filter, &join(path, "filter")));
        Some(Source {
            name: name?,
            kind: kind?,
            expected,
            policy,
            filter: filter.unwrap_or_default(),
        })
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

    pub(super) fn registries(
        &mut self,
        value: Option<&Value>,
        sources: &[Source],
    ) -> Vec<RegistryRule> {
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

    pub(super) fn auth(&mut self, value: &Value) -> Option<PathBuf> {
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
