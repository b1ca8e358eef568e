//! Validation of `server.json` documents: every violation at once, each with its JSON path.
//!
//! The rules are those of the JSON Schema 2025-12-11 and, where the schema cannot say it, of the
//! registry's validators (no version ranges, no user information in URLs).

use std::fmt;

use serde_json::{Map, Value};

use crate::name::ServerName;
use crate::server::{SSE, STDIO, STREAMABLE_HTTP, ServerDetail};
use crate::version;

/// Most characters of a description or a title.
pub const MAX_TEXT: usize = 100;
/// Most characters of an icon's URL.
pub const MAX_ICON_SRC: usize = 255;
/// Most characters of any other URL.
pub const MAX_URL: usize = 2048;
/// Most violations reported of one document.
pub const MAX_VIOLATIONS: usize = 50;

/// One rule that a document breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where: a JSON path, `$` being the document.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Checks a JSON value against `ServerDetail` and types it.
///
/// # Errors
/// Every violation, in document order, at most [`MAX_VIOLATIONS`].
pub fn server(value: &Value) -> Result<ServerDetail, Vec<Violation>> {
    let violations = check(value);
    if !violations.is_empty() {
        return Err(violations);
    }
    serde_json::from_value(value.clone())
        .map_err(|error| vec![Violation { path: "$".into(), message: error.to_string() }])
}

/// All violations of a JSON value against `ServerDetail`; empty where it is valid.
#[must_use]
pub fn check(value: &Value) -> Vec<Violation> {
    let mut checker = Checker { path: "$".into(), violations: Vec::new() };
    checker.server(value);
    checker.violations.truncate(MAX_VIOLATIONS);
    checker.violations
}

/// Why `text` is no URL that a client could be sent to; `None` where it is one.
/// Absolute http or https, a host, no user information, no fragment, no white space.
#[must_use]
pub fn http_url_fault(text: &str) -> Option<&'static str> {
    if text.len() > MAX_URL {
        return Some("is longer than 2048 characters");
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Some("holds white space or control characters");
    }
    let Ok(url) = url::Url::parse(text) else {
        return Some("is not an absolute URL");
    };
    if !matches!(url.scheme(), "http" | "https") {
        return Some("is neither http nor https");
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Some("has no host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("carries user information (user:password@)");
    }
    if url.fragment().is_some() {
        return Some("carries a fragment (#…)");
    }
    None
}

/// A key from a document as it stands in a path: quoted, escaped, and cut to 60 characters.
pub(crate) fn quoted(key: &str) -> String {
    let cut: String = key.chars().take(60).collect();
    let more = if cut.len() < key.len() { "…" } else { "" };
    format!("{cut:?}{more}")
}

struct Checker {
    path: String,
    violations: Vec<Violation>,
}

type Fields = Map<String, Value>;

impl Checker {
    fn fail(&mut self, message: impl Into<String>) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(Violation { path: self.path.clone(), message: message.into() });
        }
    }

    fn within(&mut self, step: &str, check: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push_str(step);
        check(self);
        self.path.truncate(length);
    }

    fn object<'v>(&mut self, value: &'v Value) -> Option<&'v Fields> {
        let object = value.as_object();
        if object.is_none() {
            self.fail(format!("must be an object, not {}", kind(value)));
        }
        object
    }

    /// Checks the field `key` where it is present; says so where it is required and is not.
    fn field(
        &mut self,
        fields: &Fields,
        key: &str,
        required: bool,
        check: impl FnOnce(&mut Self, &Value),
    ) {
        match fields.get(key) {
            Some(value) => self.within(&format!(".{key}"), |c| check(c, value)),
            None if required => {
                self.within(&format!(".{key}"), |c| c.fail("is required"));
            }
            None => {}
        }
    }

    fn text(&mut self, value: &Value, check: impl FnOnce(&mut Self, &str)) {
        match value.as_str() {
            Some(text) => check(self, text),
            None => self.fail(format!("must be a string, not {}", kind(value))),
        }
    }

    fn any_text(&mut self, value: &Value) {
        self.text(value, |_, _| {});
    }

    fn bounded(&mut self, value: &Value, min: usize, max: usize) {
        self.text(value, |c, text| {
            let length = text.chars().count();
            if !(min..=max).contains(&length) {
                c.fail(format!("has {length} characters, {min} to {max} are allowed"));
            }
        });
    }

    fn one_of(&mut self, value: &Value, allowed: &[&str]) {
        self.text(value, |c, text| {
            if !allowed.contains(&text) {
                c.fail(format!("must be one of {}", allowed.join(", ")));
            }
        });
    }

    fn boolean(&mut self, value: &Value) {
        if !value.is_boolean() {
            self.fail(format!("must be true or false, not {}", kind(value)));
        }
    }

    fn uri(&mut self, value: &Value) {
        self.text(value, |c, text| {
            if url::Url::parse(text).is_err() {
                c.fail("is not an absolute URI");
            }
        });
    }

    fn each(&mut self, value: &Value, mut check: impl FnMut(&mut Self, &Value)) {
        match value.as_array() {
            Some(items) => {
                for (at, item) in items.iter().enumerate() {
                    self.within(&format!("[{at}]"), |c| check(c, item));
                }
            }
            None => self.fail(format!("must be a list, not {}", kind(value))),
        }
    }

    fn server(&mut self, value: &Value) {
        let Some(fields) = self.object(value) else {
            return;
        };
        self.field(fields, "$schema", false, Self::uri);
        self.field(fields, "name", true, |c, v| {
            c.text(v, |c, text| {
                if let Err(error) = ServerName::parse(text) {
                    c.fail(error.to_string());
                }
            });
        });
        self.field(fields, "title", false, |c, v| c.bounded(v, 1, MAX_TEXT));
        self.field(fields, "description", true, |c, v| c.bounded(v, 1, MAX_TEXT));
        self.field(fields, "version", true, Self::version);
        self.field(fields, "repository", false, Self::repository);
        self.field(fields, "websiteUrl", false, Self::uri);
        self.field(fields, "icons", false, |c, v| c.each(v, Self::icon));
        self.field(fields, "packages", false, |c, v| c.each(v, Self::package));
        self.field(fields, "remotes", false, |c, v| c.each(v, Self::remote));
        self.field(fields, "_meta", false, |c, v| {
            let Some(meta) = c.object(v) else { return };
            c.field(meta, crate::meta::PUBLISHER_PROVIDED, false, |c, v| {
                c.object(v);
            });
        });
    }

    fn version(&mut self, value: &Value) {
        self.text(value, |c, text| {
            if let Err(error) = version::check(text) {
                c.fail(error.to_string());
            }
        });
    }

    fn repository(&mut self, value: &Value) {
        let Some(fields) = self.object(value) else {
            return;
        };
        self.field(fields, "url", true, Self::uri);
        self.field(fields, "source", true, Self::any_text);
        self.field(fields, "id", false, Self::any_text);
        self.field(fields, "subfolder", false, Self::any_text);
    }

    fn icon(&mut self, value: &Value) {
        let Some(fields) = self.object(value) else {
            return;
        };
        self.field(fields, "src", true, |c, v| {
            c.bounded(v, 1, MAX_ICON_SRC);
            c.uri(v);
        });
        self.field(fields, "mimeType", false, |c, v| {
            c.one_of(v, &["image/png", "image/jpeg", "image/jpg", "image/svg+xml", "image/webp"]);
        });
        self.field(fields, "sizes", false, |c, v| {
            c.each(v, |c, v| {
                c.text(v, |c, text| {
                    if !is_icon_size(text) {
                        c.fail("must be WxH, for example 48x48, or any");
                    }
                });
            });
        });
        self.field(fields, "theme", false, |c, v| c.one_of(v, &["light", "dark"]));
    }

    fn package(&mut self, value: &Value) {
        let Some(fields) = self.object(value) else {
            return;
        };
        self.field(fields, "registryType", true, Self::any_text);
        self.field(fields, "registryBaseUrl", false, Self::uri);
        self.field(fields, "identifier", true, Self::any_text);
        self.field(fields, "version", false, Self::version);
        self.field(fields, "fileSha256", false, |c, v| {
            c.text(v, |c, text| {
                let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
                if text.len() != 64 || !text.bytes().all(hex) {
                    c.fail("must be 64 lower-case hexadecimal digits");
                }
            });
        });
        self.field(fields, "runtimeHint", false, Self::any_text);
        self.field(fields, "transport", true, |c, v| {
            c.transport(v, &[STDIO, STREAMABLE_HTTP, SSE], false);
        });
        self.field(fields, "runtimeArguments", false, |c, v| c.each(v, Self::argument));
        self.field(fields, "packageArguments", false, |c, v| c.each(v, Self::argument));
        self.field(fields, "environmentVariables", false, |c, v| c.each(v, Self::key_value));
    }

    fn remote(&mut self, value: &Value) {
        self.transport(value, &[STREAMABLE_HTTP, SSE], true);
    }

    fn transport(&mut self, value: &Value, types: &[&str], remote: bool) {
        let Some(fields) = self.object(value) else {
            return;
        };
        self.field(fields, "type", true, |c, v| c.one_of(v, types));
        let http =
            matches!(fields.get("type").and_then(Value::as_str), Some(STREAMABLE_HTTP | SSE));
        self.field(fields, "url", http, |c, v| {
            c.text(v, |c, text| {
                if let Some(fault) = transport_url_fault(text, remote) {
                    c.fail(fault);
                }
            });
        });
        self.field(fields, "headers", false, |c, v| c.each(v, Self::key_value));
        self.field(fields, "variables", false, Self::variables);
    }

    fn variables(&mut self, value: &Value) {
        let Some(fields) = self.object(value) else {
            return;
        };
        for (key, input) in fields {
            self.within(&format!("[{}]", quoted(key)), |c| {
                if let Some(fields) = c.object(input) {
                    c.input(fields);
                }
            });
        }
    }

    fn input(&mut self, fields: &Fields) {
        for key in ["description", "value", "default", "placeholder"] {
            self.field(fields, key, false, Self::any_text);
        }
        for key in ["isRequired", "isSecret"] {
            self.field(fields, key, false, Self::boolean);
        }
        self.field(fields, "format", false, |c, v| {
            c.one_of(v, &["string", "number", "boolean", "filepath"]);
        });
        self.field(fields, "choices", false, |c, v| c.each(v, Self::any_text));
    }

    fn key_value(&mut self, value: &Value) {
        let Some(fields) = self.object(value) else {
            return;
        };
        self.field(fields, "name", true, Self::any_text);
        self.field(fields, "variables", false, Self::variables);
        self.input(fields);
    }

    fn argument(&mut self, value: &Value) {
        let Some(fields) = self.object(value) else {
            return;
        };
        self.field(fields, "type", true, |c, v| c.one_of(v, &["positional", "named"]));
        match fields.get("type").and_then(Value::as_str) {
            Some("named") => self.field(fields, "name", true, Self::any_text),
            Some("positional")
                if !fields.contains_key("value") && !fields.contains_key("valueHint") =>
            {
                self.fail("a positional argument needs value or valueHint");
            }
            _ => {}
        }
        self.field(fields, "valueHint", false, Self::any_text);
        self.field(fields, "isRepeated", false, Self::boolean);
        self.field(fields, "variables", false, Self::variables);
        self.input(fields);
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// `^(\d+x\d+|any)$` of the schema.
fn is_icon_size(text: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    text == "any" || text.split_once('x').is_some_and(|(w, h)| digits(w) && digits(h))
}

/// `^(https?://[^\s]+|\{[a-zA-Z_][a-zA-Z0-9_]*\}[^\s]*)$` of the schema, and no credentials.
fn transport_url_fault(text: &str, remote: bool) -> Option<String> {
    if text.contains('{') {
        let template = text.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let variable = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        let absolute = ["http://", "https://"].iter().any(|s| text.starts_with(s));
        let templated = template.is_some_and(|(name, _)| variable(name));
        if text.chars().any(char::is_whitespace) || !(absolute || templated) {
            return Some("must start with http://, https:// or a {variable}".into());
        }
        return None;
    }
    match http_url_fault(text) {
        // A package's transport runs on the user's own machine; only its shape matters.
        Some(fault) if remote || !text.starts_with("http") => Some(fault.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn valid() -> Value {
        json!({"name": "a.b/c", "description": "d", "version": "1.0.0",
               "remotes": [{"type": "sse", "url": "https://a.b/mcp"}]})
    }

    #[test]
    fn one_fault_each() {
        let package = |extra: Value| {
            let mut p =
                json!({"registryType": "oci", "identifier": "x", "transport": {"type": "stdio"}});
            p.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            json!([p])
        };
        for (field, value, path) in [
            ("name", json!("nothing"), "$.name"),
            ("name", json!(7), "$.name"),
            ("description", json!(""), "$.description"),
            ("description", json!("x".repeat(101)), "$.description"),
            ("title", json!("x".repeat(101)), "$.title"),
            ("version", json!("^1.0"), "$.version"),
            ("version", json!("latest"), "$.version"),
            ("$schema", json!("no uri"), "$.$schema"),
            ("websiteUrl", json!("no uri"), "$.websiteUrl"),
            ("repository", json!({"url": "https://a.b"}), "$.repository.source"),
            ("repository", json!("https://a.b"), "$.repository"),
            ("icons", json!([{"src": "https://a.b/c.png", "theme": "blue"}]), "$.icons[0].theme"),
            (
                "icons",
                json!([{"src": "https://a.b/c", "sizes": ["4x4", "big"]}]),
                "$.icons[0].sizes[1]",
            ),
            (
                "icons",
                json!([{"src": "https://a.b/c", "mimeType": "text/html"}]),
                "$.icons[0].mimeType",
            ),
            ("icons", json!([{}]), "$.icons[0].src"),
            ("remotes", json!([{"type": "stdio", "url": "https://a.b"}]), "$.remotes[0].type"),
            ("remotes", json!([{"type": "sse"}]), "$.remotes[0].url"),
            ("remotes", json!([{"type": "sse", "url": "ftp://a.b"}]), "$.remotes[0].url"),
            ("remotes", json!([{"type": "sse", "url": "https://u:p@a.b"}]), "$.remotes[0].url"),
            ("remotes", json!([{"type": "sse", "url": "https://a.b/#x"}]), "$.remotes[0].url"),
            ("remotes", json!([{"type": "sse", "url": "{1x}/mcp"}]), "$.remotes[0].url"),
            ("remotes", json!({}), "$.remotes"),
            ("packages", package(json!({"version": "latest"})), "$.packages[0].version"),
            ("packages", package(json!({"fileSha256": "AB"})), "$.packages[0].fileSha256"),
            (
                "packages",
                package(json!({"transport": {"type": "http"}})),
                "$.packages[0].transport.type",
            ),
            (
                "packages",
                package(json!({"runtimeArguments": [{"type": "named"}]})),
                "$.packages[0].runtimeArguments[0].name",
            ),
            (
                "packages",
                package(json!({"packageArguments": [{"type": "positional"}]})),
                "$.packages[0].packageArguments[0]",
            ),
            (
                "packages",
                package(json!({"environmentVariables": [{"name": "A", "isSecret": "yes"}]})),
                "$.packages[0].environmentVariables[0].isSecret",
            ),
            (
                "packages",
                json!([{"registryType": "oci", "transport": {"type": "stdio"}}]),
                "$.packages[0].identifier",
            ),
            ("_meta", json!([]), "$._meta"),
        ] {
            let mut document = valid();
            document.as_object_mut().unwrap().insert(field.into(), value.clone());
            let paths: Vec<String> = check(&document).into_iter().map(|v| v.path).collect();
            assert_eq!(paths, [path], "{field} = {value}");
        }
        assert_eq!(check(&valid()), []);
    }

    #[test]
    fn hostile_keys_do_not_get_into_messages_whole() {
        let key = format!("a\n{}", "x".repeat(10_000));
        let mut document = valid();
        document["remotes"][0]["variables"] = json!({ key: 7 });
        let faults = check(&document);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].path.len() < 120 && !faults[0].path.contains('\n'), "{}", faults[0].path);
    }

    #[test]
    fn all_at_once() {
        let faults = server(&json!({"name": "x", "description": 1, "icons": [{}]})).unwrap_err();
        let paths: Vec<&str> = faults.iter().map(|v| v.path.as_str()).collect();
        assert_eq!(paths, ["$.name", "$.description", "$.version", "$.icons[0].src"]);
    }

    #[test]
    fn templated_and_local_urls_are_allowed() {
        for url in ["https://{tenant}.a.b/mcp", "{base_url}/mcp", "http://localhost:8080"] {
            let mut document = valid();
            document["remotes"][0]["url"] = json!(url);
            assert_eq!(check(&document), [], "{url}");
        }
    }
}
