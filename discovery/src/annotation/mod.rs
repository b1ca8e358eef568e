//! What annotations and labels say: parsed once, when an object arrives.
//!
//! All of it is hostile input: every value is bounded, checked, and quoted only in part. A value
//! that cannot be used gives a problem; where it would change what is published and under which
//! name ([`Annotations::blocked`]), the object publishes nothing until it is mended, else only
//! that value is left out.

mod values;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use serde_json::Value;
use smol_str::{SmolStr, StrExt, format_smolstr};
use waymark_catalogue::merge::Link;
use waymark_catalogue::name::{MAX_NAME, ServerName};
use waymark_catalogue::validate::{MAX_ICON_SRC, MAX_TEXT, http_url_fault};
use waymark_catalogue::version;

use crate::host;
use crate::object::{Overrides, Transport};
use crate::problem::{Code, Problem, excerpt};
use values::{Fault, claims, items, link, name, path, text, tool_definitions, unique};
pub use values::{MAX_CLAIMS, MAX_ITEM, MAX_ITEMS, MAX_PATH, MAX_TOOL_DEFINITIONS};

/// Prefixes of the labels that are read.
const LABEL_PREFIXES: [&str; 2] = ["toolhive.stacklok.io/", "toolhive.stacklok.dev/"];

/// The kind of object that carries the annotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// An HTTPRoute.
    Route,
    /// A Gateway: only the overrides count.
    Gateway,
    /// An MCP resource.
    McpResource,
}

/// What an object's annotations and labels say. What few objects say is boxed: there are many
/// objects.
#[derive(Debug, Clone, Default, PartialEq, Hash)]
pub struct Annotations {
    /// `registry-export`; `None` where absent.
    pub export: Option<bool>,
    /// Whether a value that cannot be used stands in the way of publishing.
    pub blocked: bool,
    /// `registry-name`, or the label `server-name`: bare, or a full server name.
    pub name: Option<SmolStr>,
    /// What only describes the server; absent where nothing does.
    pub description: Option<Box<Description>>,
    /// Everything else; absent where there is nothing else.
    rest: Option<Box<Rest>>,
}

/// What few objects say.
#[derive(Debug, Clone, Default, PartialEq, Hash)]
pub struct Rest {
    /// `registry-url`.
    pub url: Option<SmolStr>,
    /// `registry-version`.
    pub version: Option<SmolStr>,
    /// `registry-transport`.
    pub transport: Option<Transport>,
    /// `registry-path`, with its leading slash and without a trailing one.
    pub path: Option<SmolStr>,
    /// `registry-host`, `registry-scheme`, `registry-port`.
    pub overrides: Overrides,
    /// `registry-server`.
    pub link: Option<Link>,
    /// The target registry: label `registry-name`, or `NAMESPACE.NAME` where the label
    /// `registry-namespace` is there, too.
    pub registry: Option<SmolStr>,
    /// `authz-claims`, as compact JSON.
    pub claims: Option<Arc<str>>,
    /// Values that cannot be used.
    pub problems: Vec<Problem>,
}

static NOTHING: LazyLock<Rest> = LazyLock::new(Rest::default);

impl Deref for Annotations {
    type Target = Rest;

    fn deref(&self) -> &Rest {
        self.rest.as_deref().unwrap_or(&NOTHING)
    }
}

/// Annotations that describe a server without deciding where it is or what it is called.
#[derive(Debug, Clone, Default, PartialEq, Hash)]
pub struct Description {
    /// `registry-description`.
    pub text: Option<SmolStr>,
    /// `registry-title`.
    pub title: Option<SmolStr>,
    /// `registry-icon`.
    pub icon: Option<SmolStr>,
    /// `registry-tier`, or the label `tier`.
    pub tier: Option<&'static str>,
    /// `registry-tools` or `tools`.
    pub tools: Box<[SmolStr]>,
    /// `registry-tags` and `registry-category`, or the label `category`.
    pub tags: Box<[SmolStr]>,
    /// `tool-definitions`: a JSON array of MCP tool definitions.
    pub tool_definitions: Option<Arc<Value>>,
}

impl Annotations {
    /// Whether the object is to be looked at: it opts in, or tries to.
    #[must_use]
    pub fn is_opted_in(&self) -> bool {
        match self.export {
            Some(export) => export,
            None => {
                self.blocked && self.problems.iter().any(|p| p.about.contains("registry-export"))
            }
        }
    }

    /// Reads the annotations under `prefix`, and the labels.
    #[must_use]
    pub fn parse(
        prefix: &str,
        carrier: Carrier,
        annotations: &BTreeMap<SmolStr, String>,
        labels: Option<&BTreeMap<SmolStr, SmolStr>>,
    ) -> Self {
        let mut parser = Parser {
            prefix,
            annotations,
            parsed: Self::default(),
            rest: Rest::default(),
            description: Description::default(),
        };
        parser.overrides();
        if carrier != Carrier::Gateway {
            parser.identity(carrier);
            parser.description();
            if let Some(labels) = labels {
                parser.labels(labels);
            }
        }
        let Parser { mut parsed, rest, description, .. } = parser;
        if rest != Rest::default() {
            parsed.rest = Some(Box::new(rest));
        }
        if description != Description::default() {
            parsed.description = Some(Box::new(description));
        }
        parsed
    }
}

struct Parser<'a> {
    prefix: &'a str,
    annotations: &'a BTreeMap<SmolStr, String>,
    parsed: Annotations,
    rest: Rest,
    description: Description,
}

impl Parser<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let mut full = String::with_capacity(self.prefix.len() + key.len());
        full.push_str(self.prefix);
        full.push_str(key);
        self.annotations.get(full.as_str()).map(|value| value.trim())
    }

    fn fault(&mut self, key: &str, (what, remedy): Fault) {
        let about = format!("annotation {}{key}", self.prefix);
        let message = format!("{key} {what}.");
        self.rest.problems.push(Problem::error(Code::InvalidAnnotation, about, message, remedy));
    }

    /// The value of a key that decides what is published: a bad one blocks the object.
    fn deciding<T>(&mut self, key: &str, read: impl FnOnce(&str) -> Result<T, Fault>) -> Option<T> {
        let value = self.describing(key, read);
        if value.is_none() && self.get(key).is_some() {
            self.parsed.blocked = true;
        }
        value
    }

    /// The value of a key that only describes: a bad one is left out.
    fn describing<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        match read(self.get(key)?) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.fault(key, fault);
                None
            }
        }
    }

    fn overrides(&mut self) {
        let host = self.deciding("registry-host", |text| {
            host::for_url(text).ok_or_else(|| {
                let what =
                    format!("is {}, which is neither a DNS name nor an IP address", excerpt(text));
                (what, "Set it to the host alone: no scheme, no port, no path, no wildcard.")
            })
        });
        let https = self.deciding("registry-scheme", |text| match text {
            "https" => Ok(true),
            "http" => Ok(false),
            _ => Err((format!("is {}", excerpt(text)), "Set it to http or https.")),
        });
        let port = self.deciding("registry-port", |text| match text.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err((format!("is {}", excerpt(text)), "Set it to a number from 1 to 65535.")),
        });
        self.rest.overrides = Overrides { host, https, port };
    }

    fn identity(&mut self, carrier: Carrier) {
        self.parsed.export = self.deciding("registry-export", |text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err((
                format!("is {}, which is neither \"true\" nor \"false\"", excerpt(text)),
                "Set it to \"true\" to publish, or \"false\" (or remove it) not to.",
            )),
        });
        self.parsed.name = self.deciding("registry-name", name);
        self.rest.version = self.deciding("registry-version", |text| match version::check(text) {
            Ok(()) => Ok(text.into()),
            Err(error) => Err((
                format!("cannot be used: {error}"),
                "Set it to one specific version, for example 1.4.2.",
            )),
        });
        self.rest.link = self.deciding("registry-server", link);
        self.rest.claims = self.deciding("authz-claims", claims);
        if carrier == Carrier::McpResource {
            self.rest.url = self.deciding("registry-url", |text| match http_url_fault(text) {
                None => Ok(text.into()),
                Some(fault) => Err((
                    fault.to_owned(),
                    "Set it to an absolute http or https URL without user information and fragment.",
                )),
            });
            return;
        }
        self.rest.transport = self.deciding("registry-transport", |text| match text {
            "streamable-http" => Ok(Transport::StreamableHttp),
            "sse" => Ok(Transport::Sse),
            _ => Err((format!("is {}", excerpt(text)), "Set it to streamable-http or sse.")),
        });
        self.rest.path = self.deciding("registry-path", path);
    }

    fn description(&mut self) {
        self.description.text = self.describing("registry-description", |t| text(t, MAX_TEXT));
        self.description.title = self.describing("registry-title", |t| text(t, MAX_TEXT));
        self.description.icon = self.describing("registry-icon", |text| {
            let fault = http_url_fault(text)
                .or((!text.starts_with("https://")).then_some("is not https"))
                .or((text.len() > MAX_ICON_SRC).then_some("is longer than 255 characters"));
            match fault {
                None => Ok(text.into()),
                Some(fault) => Err((fault.to_owned(), "Set it to the https URL of a picture.")),
            }
        });
        self.description.tier = self.describing("registry-tier", |text| {
            let tier = ["Official", "Community", "Partner"].into_iter().find(|tier| *tier == text);
            tier.ok_or_else(|| {
                (format!("is {}", excerpt(text)), "Set it to Official, Community or Partner.")
            })
        });
        let key = if self.get("registry-tools").is_some() { "registry-tools" } else { "tools" };
        self.description.tools = self.describing(key, items).unwrap_or_default();
        let tags = self.describing("registry-tags", items).unwrap_or_default();
        let category = self.describing("registry-category", items).unwrap_or_default();
        self.description.tags = unique(tags.into_iter().chain(category));
        self.description.tool_definitions = self.describing("tool-definitions", tool_definitions);
    }

    fn labels(&mut self, labels: &BTreeMap<SmolStr, SmolStr>) {
        let get = |key: &str| {
            LABEL_PREFIXES
                .iter()
                .find_map(|prefix| labels.get(&format_smolstr!("{prefix}{key}")))
                .filter(|value| !value.is_empty())
                .cloned()
        };
        self.rest.registry = get("registry-name").map(|name| match get("registry-namespace") {
            Some(namespace) => format_smolstr!("{namespace}.{name}"),
            None => name,
        });
        if self.parsed.name.is_none() && self.get("registry-name").is_none() {
            // Label values are a subset of what a name may hold.
            self.parsed.name = get("server-name");
        }
        if self.description.tier.is_none() {
            let known = ["Official", "Community", "Partner"];
            self.description.tier = get("tier")
                .and_then(|tier| known.into_iter().find(|k| k.eq_ignore_ascii_case(&tier)));
        }
        if let Some(category) = get("category") {
            let tags = std::mem::take(&mut self.description.tags);
            self.description.tags = unique(tags.into_iter().chain([category]));
        }
    }
}

/// Whether a text could be the own part of a server name, as it is or lower-cased.
#[must_use]
pub fn is_own_name(text: &str) -> bool {
    text.len() <= MAX_NAME
        && ServerName::parse(&format!("x/{}", text.to_lowercase_smolstr())).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(carrier: Carrier, pairs: &[(&str, &str)]) -> Annotations {
        let annotations =
            pairs.iter().map(|(k, v)| (format_smolstr!("p/{k}"), (*v).to_owned())).collect();
        Annotations::parse("p/", carrier, &annotations, None)
    }

    #[test]
    fn bad_values_that_decide_block_and_others_do_not() {
        let long = "x".repeat(101);
        let many = "a,".repeat(300);
        let huge = format!("[{}]", "1,".repeat(100_000));
        for (key, value, blocked) in [
            ("registry-export", "yes", true),
            ("registry-export", "True", true),
            ("registry-name", "a b", true),
            ("registry-name", "a/b/c", true),
            ("registry-name", "", true),
            ("registry-version", "^1", true),
            ("registry-version", "latest", true),
            ("registry-transport", "stdio", true),
            ("registry-path", "mcp", true),
            ("registry-path", "/a/../b", true),
            ("registry-path", "/a?b", true),
            ("registry-host", "https://a.com", true),
            ("registry-host", "*.a.com", true),
            ("registry-scheme", "ftp", true),
            ("registry-port", "0", true),
            ("registry-port", "65536", true),
            ("registry-server", "github", true),
            ("registry-server", "a.b/c@^1", true),
            ("authz-claims", "[]", true),
            ("authz-claims", "{", true),
            ("authz-claims", r#"{"a": 1}"#, true),
            ("registry-description", long.as_str(), false),
            ("registry-description", "", false),
            ("registry-title", long.as_str(), false),
            ("registry-title", "a\u{7}b", false),
            ("registry-icon", "http://a.com/x.png", false),
            ("registry-icon", "nonsense", false),
            ("registry-tier", "official", false),
            ("registry-tools", "[1]", false),
            ("registry-tools", many.as_str(), false),
            ("tools", "[", false),
            ("registry-tags", many.as_str(), false),
            ("tool-definitions", "{}", false),
            ("tool-definitions", huge.as_str(), false),
        ] {
            let parsed = parse(Carrier::Route, &[(key, value)]);
            let codes: Vec<Code> = parsed.problems.iter().map(|p| p.code).collect();
            let shown = excerpt(value);
            assert_eq!(codes, [Code::InvalidAnnotation], "{key} {shown}");
            assert_eq!(parsed.blocked, blocked, "{key} {shown}");
            assert!(parsed.problems.iter().all(|p| p.message.len() < 400), "{key} {shown}");
        }
        for url in ["https://u:p@a.com", "ftp://a.com", "/mcp", "https://a.com/#x", "https://"] {
            let parsed = parse(Carrier::McpResource, &[("registry-url", url)]);
            assert!(parsed.blocked && parsed.problems.len() == 1, "{url}");
            assert!(!parsed.problems[0].message.contains("u:p"), "no credentials in messages");
        }
    }

    #[test]
    fn good_values() {
        let parsed = parse(
            Carrier::Route,
            &[
                ("registry-export", " true "),
                ("registry-name", "com.company/github"),
                ("registry-path", "/mcp/"),
                ("registry-host", "MCP.company.com"),
                ("registry-server", "a.b/c@1.0.0"),
                ("tools", r#"["a", "b", "a"]"#),
                ("registry-tags", "x, y,,x"),
                ("registry-category", "z"),
                ("authz-claims", r#"{ "team": ["a"] }"#),
            ],
        );
        assert_eq!(parsed.problems, []);
        assert!(parsed.is_opted_in());
        assert_eq!(parsed.path.as_deref(), Some("/mcp"));
        assert_eq!(parsed.overrides.host.as_deref(), Some("mcp.company.com"));
        assert_eq!(parsed.claims.as_deref(), Some(r#"{"team":["a"]}"#));
        let described = parsed.description.unwrap();
        assert_eq!(described.tools.join(" "), "a b");
        assert_eq!(described.tags.join(" "), "x y z");
        let root = parse(Carrier::Route, &[("registry-path", "/")]);
        assert_eq!((root.path.as_deref(), root.problems.len()), (Some(""), 0));
    }

    #[test]
    fn labels_stand_in_for_annotations() {
        let labels: BTreeMap<SmolStr, SmolStr> = [
            ("toolhive.stacklok.io/server-name", "github"),
            ("toolhive.stacklok.dev/registry-name", "team"),
            ("toolhive.stacklok.io/tier", "official"),
            ("toolhive.stacklok.io/category", "dev"),
        ]
        .into_iter()
        .map(|(k, v)| (k.into(), v.into()))
        .collect();
        let own = BTreeMap::from([("p/registry-tags".into(), "a".to_owned())]);
        let parsed = Annotations::parse("p/", Carrier::Route, &own, Some(&labels));
        assert_eq!(parsed.name.as_deref(), Some("github"));
        assert_eq!(parsed.registry.as_deref(), Some("team"));
        let mut both = labels;
        both.insert("toolhive.stacklok.io/registry-namespace".into(), "system".into());
        let both = Annotations::parse("p/", Carrier::Route, &own, Some(&both));
        assert_eq!(both.registry.as_deref(), Some("system.team"));
        let described = parsed.description.unwrap();
        assert_eq!(
            (described.tier, described.tags.join(" ").as_str()),
            (Some("Official"), "a dev")
        );
    }

    #[test]
    fn only_export_opts_in() {
        for (pairs, opted) in [
            (&[][..], false),
            (&[("registry-export", "true")], true),
            (&[("registry-export", "false")], false),
            (&[("registry-export", "yes")], true),
            (&[("registry-name", "a b")], false),
        ] {
            assert_eq!(parse(Carrier::Route, pairs).is_opted_in(), opted, "{pairs:?}");
        }
    }
}
