//! ToolHive's older native registry: `servers` (images) and `remote_servers` (URLs) as maps.
//!
//! Mapping as ToolHive's own converters do it: name put under `io.github.stacklok/`, version
//! `1.0.0`, the image or URL as the one package or remote; all that server.json has no room for
//! goes into ToolHive's extension, so that the way back loses nothing.

use serde_json::{Map, Value, json};

use super::{Catalogue, FormatError, Rejected, reject, without};
use crate::meta::{self, TOOLHIVE};
use crate::server::{KeyValueInput, STDIO, ServerDetail};
use crate::validate::{MAX_TEXT, quoted};
use crate::version::DEFAULT_VERSION;

type Fields = Map<String, Value>;

/// Fields that have a place of their own in server.json.
const IMAGE_FIELDS: [&str; 6] =
    ["title", "image", "transport", "target_port", "repository_url", "env_vars"];
const REMOTE_FIELDS: [&str; 5] = ["title", "url", "transport", "headers", "repository_url"];
/// Where a description too long for server.json is kept whole.
const FULL_DESCRIPTION: &str = "description";

pub(super) fn read(document: &Value) -> Result<Catalogue, FormatError> {
    let mut catalogue = Catalogue::default();
    for (section, path) in [("servers", "$.servers"), ("remote_servers", "$.remote_servers")] {
        let Some(servers) = document.get(section) else {
            continue;
        };
        let servers =
            servers.as_object().ok_or(FormatError::Shape { path, expected: "a map by name" })?;
        for (key, value) in servers {
            let path = format!("{path}[{}]", quoted(key));
            match value.as_object() {
                Some(fields) => {
                    let server = to_server(key, fields, section == "servers");
                    catalogue.take(&path, &server, None);
                }
                None => catalogue.reject(&path, "must be an object"),
            }
        }
    }
    if let Some(fields) = document.as_object() {
        catalogue.envelope = without(fields, &["servers", "remote_servers"]);
    }
    Ok(catalogue)
}

/// One native entry as server.json. Fields of the wrong type are handed on as they are, for the
/// validation to name them.
fn to_server(key: &str, fields: &Fields, image: bool) -> Value {
    let name = if key.contains('/') { key.to_owned() } else { format!("{TOOLHIVE}/{key}") };
    let get = |field: &str| fields.get(field);
    let mut server = Fields::new();
    server.insert("$schema".into(), crate::server::SCHEMA.into());
    server.insert("name".into(), name.into());
    if let Some(title) = get("title") {
        server.insert("title".into(), title.clone());
    }
    let mut extension = without(fields, if image { &IMAGE_FIELDS } else { &REMOTE_FIELDS });
    let description = get("description").cloned().unwrap_or_default();
    let short = match description.as_str() {
        Some(text) => shortened(text).map(Value::from),
        None => None,
    };
    if short.is_none() {
        extension.shift_remove(FULL_DESCRIPTION);
    }
    server.insert("description".into(), short.unwrap_or(description));
    server.insert("version".into(), DEFAULT_VERSION.into());
    if let Some(url) = get("repository_url") {
        server.insert("repository".into(), json!({"url": url, "source": "github"}));
    }
    extension.entry("status").or_insert_with(|| "active".into());
    let transport = get("transport").cloned().unwrap_or_else(|| STDIO.into());
    let identifier;
    if image {
        identifier = get("image").cloned().unwrap_or_default();
        let mut spoken = Fields::from_iter([("type".to_owned(), transport.clone())]);
        match (transport.as_str(), get("target_port")) {
            (Some(STDIO), Some(port)) => {
                extension.insert("target_port".into(), port.clone());
            }
            (Some(STDIO), None) => {}
            (_, Some(port)) => {
                spoken.insert("url".into(), format!("http://localhost:{port}").into());
            }
            (_, None) => {
                spoken.insert("url".into(), "http://localhost".into());
            }
        }
        let mut package = Fields::new();
        package.insert("registryType".into(), "oci".into());
        package.insert("identifier".into(), identifier.clone());
        package.insert("transport".into(), spoken.into());
        if let Some(variables) = get("env_vars") {
            package.insert("environmentVariables".into(), to_inputs(variables));
        }
        server.insert("packages".into(), json!([package]));
    } else {
        identifier = get("url").cloned().unwrap_or_default();
        let mut remote = Fields::new();
        remote.insert("type".into(), transport);
        remote.insert("url".into(), identifier.clone());
        if let Some(headers) = get("headers") {
            remote.insert("headers".into(), to_inputs(headers));
        }
        server.insert("remotes".into(), json!([remote]));
    }
    let key = identifier.as_str().unwrap_or_default();
    server.insert("_meta".into(), json!({meta::PUBLISHER_PROVIDED: {TOOLHIVE: {key: extension}}}));
    server.into()
}

/// The first [`MAX_TEXT`] characters with an ellipsis, where `text` has more.
fn shortened(text: &str) -> Option<String> {
    (text.chars().count() > MAX_TEXT)
        .then(|| text.chars().take(MAX_TEXT - 1).chain(['…']).collect())
}

const INPUT_NAMES: [(&str, &str); 2] = [("required", "isRequired"), ("secret", "isSecret")];

fn to_inputs(list: &Value) -> Value {
    renamed(list, |key| INPUT_NAMES.iter().find(|(native, _)| *native == key).map(|(_, to)| *to))
}

fn from_inputs(inputs: &[KeyValueInput]) -> Value {
    let list = super::serialized(&inputs);
    renamed(&list, |key| INPUT_NAMES.iter().find(|(_, to)| *to == key).map(|(native, _)| *native))
}

fn renamed(list: &Value, rename: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Some(items) = list.as_array() else {
        return list.clone();
    };
    let item = |item: &Value| match item.as_object() {
        Some(fields) => fields
            .iter()
            .map(|(key, value)| (rename(key).unwrap_or(key).to_owned(), value.clone()))
            .collect::<Fields>()
            .into(),
        None => item.clone(),
    };
    items.iter().map(item).collect()
}

pub(super) fn write(catalogue: &Catalogue) -> (Value, Vec<Rejected>) {
    let (mut images, mut remotes) = (Fields::new(), Fields::new());
    let mut rejected = Vec::new();
    for entry in &catalogue.entries {
        let server = &entry.server;
        let prefix = format!("{TOOLHIVE}/");
        let key = server.name.strip_prefix(&prefix).unwrap_or(&server.name).to_owned();
        // ToolHive's own choice: remotes win, and only the first counts.
        if !server.remotes.is_empty() {
            remotes.insert(key, from_remote(server).into());
        } else if let Some(fields) = from_image(server) {
            images.insert(key, fields.into());
        } else {
            let why =
                "the native format holds an entry with a remote or with exactly one OCI package";
            rejected.push(reject(&server.name, why));
        }
    }
    let mut document = catalogue.envelope.clone();
    document.entry("version").or_insert_with(|| DEFAULT_VERSION.into());
    document.insert("servers".into(), images.into());
    document.insert("remote_servers".into(), remotes.into());
    (document.into(), rejected)
}

fn common(server: &ServerDetail) -> Fields {
    let mut fields = Fields::new();
    if let Some(title) = &server.title {
        fields.insert("title".into(), title.as_str().into());
    }
    fields.insert("description".into(), server.description.as_str().into());
    if let Some(repository) = &server.repository {
        fields.insert("repository_url".into(), repository.url.as_str().into());
    }
    if let Some((_, extension)) = meta::toolhive(server) {
        fields.extend(extension.clone());
    }
    fields.entry("status").or_insert_with(|| "active".into());
    fields
}

fn from_remote(server: &ServerDetail) -> Fields {
    let mut fields = common(server);
    if let Some(remote) = server.remotes.first() {
        fields.insert("transport".into(), remote.r#type.as_str().into());
        fields.insert("url".into(), remote.url.clone().into());
        if !remote.headers.is_empty() {
            fields.insert("headers".into(), from_inputs(&remote.headers));
        }
    }
    fields
}

fn from_image(server: &ServerDetail) -> Option<Fields> {
    let [package] = server.packages.as_slice() else {
        return None;
    };
    if package.registry_type != "oci" {
        return None;
    }
    let mut fields = common(server);
    fields.insert("image".into(), package.identifier.as_str().into());
    fields.insert("transport".into(), package.transport.r#type.as_str().into());
    // Not by way of `Url`: it drops a port that is the scheme's default.
    let port = package.transport.url.as_deref().and_then(|url| url.rsplit_once(':'));
    if let Some(port) = port.and_then(|(_, port)| port.trim_end_matches('/').parse::<u16>().ok()) {
        fields.insert("target_port".into(), port.into());
    }
    if !package.environment_variables.is_empty() {
        fields.insert("env_vars".into(), from_inputs(&package.environment_variables));
    }
    Some(fields)
}
