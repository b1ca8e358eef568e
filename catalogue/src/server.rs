//! The `server.json` document, typed: schema 2025-12-11 of the MCP registry, field for field.
//!
//! Optional fields stay absent when they are absent, and fields that the schema does not know
//! are kept in `extra`, so that a document survives a round trip. Limits are not enforced here
//! but in [`crate::validate`], which reports all violations at once.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The JSON Schema URI that Waymark writes into `$schema`.
pub const SCHEMA: &str =
    "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json";

/// `streamable-http`, the default transport of a remote.
pub const STREAMABLE_HTTP: &str = "streamable-http";
/// `sse`, the older HTTP transport.
pub const SSE: &str = "sse";
/// `stdio`, a local process; only for packages.
pub const STDIO: &str = "stdio";

/// `ServerDetail` of the schema: one version of one MCP server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerDetail {
    /// JSON Schema URI of the document's format.
    #[serde(rename = "$schema", skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Reverse-DNS name; see [`crate::ServerName`].
    pub name: String,
    /// Display name, 1 to 100 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What the server does, 1 to 100 characters.
    pub description: String,
    /// A specific version; see [`crate::version::check`].
    pub version: String,
    /// Where the source code is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    /// The server's home page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub website_url: Option<String>,
    /// Icons in several sizes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub icons: Vec<Icon>,
    /// How to run the server locally.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<Package>,
    /// Where the server is served, the preferred remote first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remotes: Vec<Transport>,
    /// Extension metadata by reverse-DNS key; see [`crate::meta`].
    #[serde(rename = "_meta", skip_serializing_if = "Option::is_none")]
    pub meta: Option<Map<String, Value>>,
    /// Fields that the schema does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// `Repository` of the schema.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Repository {
    /// URL for browsing and cloning.
    pub url: String,
    /// Hosting service, for example `github`.
    pub source: String,
    /// The hosting service's own identifier of the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Path of the server inside the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subfolder: Option<String>,
    /// Fields that the schema does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// `Icon` of the schema.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Icon {
    /// HTTPS URL of the picture, at most 255 characters.
    pub src: String,
    /// `image/png`, `image/jpeg`, `image/jpg`, `image/svg+xml` or `image/webp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    /// Sizes as `WxH`, or `any`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<String>,
    /// `light` or `dark`: the background it is meant for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub theme: Option<String>,
    /// Fields that the schema does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// `Package` of the schema: how to get and run a server locally.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Package {
    /// `npm`, `pypi`, `cargo`, `oci`, `nuget`, `mcpb` …
    pub registry_type: String,
    /// Base URL of the package registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_base_url: Option<String>,
    /// Package name, image reference or download URL.
    pub identifier: String,
    /// A specific version; never `latest`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// SHA-256 of the package file, lower-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_sha256: Option<String>,
    /// `npx`, `uvx`, `docker`, `dnx` …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_hint: Option<String>,
    /// How the running package is spoken to.
    pub transport: Transport,
    /// Arguments of the runtime command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runtime_arguments: Vec<Argument>,
    /// Arguments of the package itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub package_arguments: Vec<Argument>,
    /// Environment variables to set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment_variables: Vec<KeyValueInput>,
    /// Fields that the schema does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// `LocalTransport` and `RemoteTransport` of the schema.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Transport {
    /// [`STDIO`] (packages only), [`STREAMABLE_HTTP`] or [`SSE`].
    pub r#type: String,
    /// The URL, for the HTTP transports; may hold `{variables}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// HTTP headers to send.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<KeyValueInput>,
    /// Variables of the URL template (remotes only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variables: Option<IndexMap<String, Input>>,
    /// Fields that the schema does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Transport {
    /// A remote of a type at a URL.
    #[must_use]
    pub fn remote(kind: &str, url: &str) -> Self {
        Self { r#type: kind.to_owned(), url: Some(url.to_owned()), ..Self::default() }
    }
}

/// `Input` of the schema: a value that a user may have to give.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// What the value is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether it must be given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_required: Option<bool>,
    /// `string`, `number`, `boolean` or `filepath`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// A fixed value, `{variables}` replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Whether it must be kept secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_secret: Option<bool>,
    /// The value when none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// An example to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placeholder: Option<String>,
    /// The only values allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choices: Option<Vec<String>>,
    /// Fields that the schema does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// `KeyValueInput` of the schema: an HTTP header or an environment variable.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KeyValueInput {
    /// The header's or variable's name.
    pub name: String,
    /// Variables that the value may refer to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variables: Option<IndexMap<String, Input>>,
    /// The value itself.
    #[serde(flatten)]
    pub input: Input,
}

/// `PositionalArgument` and `NamedArgument` of the schema.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Argument {
    /// `positional` or `named`.
    pub r#type: String,
    /// The flag with its dashes, for a named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What a positional value stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_hint: Option<String>,
    /// Whether it may be repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_repeated: Option<bool>,
    /// Variables that the value may refer to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variables: Option<IndexMap<String, Input>>,
    /// The value itself.
    #[serde(flatten)]
    pub input: Input,
}

impl Argument {
    /// A positional argument with a fixed value.
    #[must_use]
    pub fn positional(value: &str) -> Self {
        Self {
            r#type: "positional".to_owned(),
            input: Input { value: Some(value.to_owned()), ..Input::default() },
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_survive_at_every_level() {
        let document = serde_json::json!({
            "$schema": SCHEMA, "name": "a.b/c", "description": "d", "version": "1.0.0", "future": 1,
            "repository": {"url": "https://github.com/a/b", "source": "github", "future": 2},
            "icons": [{"src": "https://a.b/c.png", "theme": "dark", "future": 3}],
            "packages": [{
                "registryType": "oci", "identifier": "a/b:1", "future": 4,
                "transport": {"type": "stdio", "future": 5},
                "runtimeArguments": [{"type": "named", "name": "-e", "isRepeated": true, "value": "A={a}",
                    "variables": {"a": {"isSecret": true, "future": 6}}, "future": 7}],
                "environmentVariables": [{"name": "A", "isRequired": false, "choices": ["x"], "future": 8}]
            }],
            "remotes": [{"type": "sse", "url": "https://a.b/{x}", "variables": {"x": {"default": "1"}},
                "headers": [{"name": "H", "placeholder": "p"}]}],
            "_meta": {"k": {"v": [1, 2]}}
        });
        let typed: ServerDetail = serde_json::from_value(document.clone()).unwrap();
        assert_eq!(typed.packages.first().unwrap().runtime_arguments.len(), 1);
        assert_eq!(serde_json::to_value(&typed).unwrap(), document);
    }
}
