//! The configuration of MCP clients: `{"mcpServers": {name: {command, args, env} | {type, url}}}`.
//!
//! A name that is no reverse-DNS name is put under the reverse DNS of its URL's host, or under
//! `local/` for a command. Of commands, those are read that name a package: `npx`, `uvx`, `dnx`
//! and `docker run`.

use serde_json::{Map, Value};

use super::{Catalogue, FormatError, Rejected, reject, without};
use crate::name::{self, ServerName};
use crate::server::{
    Argument, Input, KeyValueInput, Package, SCHEMA, SSE, STDIO, STREAMABLE_HTTP, ServerDetail,
    Transport,
};
use crate::validate::quoted;
use crate::version::DEFAULT_VERSION;

type Fields = Map<String, Value>;

pub(super) fn read(document: &Value) -> Result<Catalogue, FormatError> {
    let servers = document.get("mcpServers").and_then(Value::as_object);
    let servers = servers
        .ok_or(FormatError::Shape { path: "$.mcpServers", expected: "a map of servers by name" })?;
    let mut catalogue = Catalogue::default();
    for (key, value) in servers {
        let path = format!("$.mcpServers[{}]", quoted(key));
        let read = match value.as_object() {
            Some(fields) if fields.contains_key("url") => from_url(key, fields),
            Some(fields) if fields.contains_key("command") => from_command(key, fields),
            _ => Err("must be an object with `url` or with `command`".to_owned()),
        };
        match read {
            Ok(server) => catalogue.take(&path, &super::serialized(&server), None),
            Err(why) => catalogue.reject(&path, why),
        }
    }
    if let Some(fields) = document.as_object() {
        catalogue.envelope = without(fields, &["mcpServers"]);
    }
    Ok(catalogue)
}

fn entry(key: &str, namespace: &str) -> ServerDetail {
    let name = match ServerName::parse(key) {
        Ok(name) => name.to_string(),
        Err(_) => {
            let own = key.chars().map(|c| if c.is_whitespace() { '-' } else { c });
            format!("{namespace}/{}", own.collect::<String>())
        }
    };
    let own = name.rsplit('/').next().unwrap_or(&name);
    let description: String = format!("MCP server {own}").chars().take(100).collect();
    ServerDetail {
        schema: Some(SCHEMA.into()),
        description,
        name,
        version: DEFAULT_VERSION.into(),
        ..ServerDetail::default()
    }
}

/// A map of fixed values (`headers`, `env`) as inputs.
fn inputs(fields: &Fields, key: &str) -> Vec<KeyValueInput> {
    let Some(map) = fields.get(key).and_then(Value::as_object) else {
        return Vec::new();
    };
    let input = |(name, value): (&String, &Value)| KeyValueInput {
        name: name.clone(),
        input: Input { value: value.as_str().map(str::to_owned), ..Input::default() },
        ..KeyValueInput::default()
    };
    map.iter().map(input).collect()
}

fn from_url(key: &str, fields: &Fields) -> Result<ServerDetail, String> {
    let url = fields.get("url").and_then(Value::as_str).ok_or("`url` must be a string")?;
    let kind = match fields.get("type").map(|kind| kind.as_str().unwrap_or_default()) {
        None | Some("http" | "streamable-http" | "streamableHttp") => STREAMABLE_HTTP,
        Some("sse") => SSE,
        Some(_) => return Err("`type` must be http, streamable-http or sse".into()),
    };
    let host = url::Url::parse(url).ok().and_then(|u| u.host_str().map(str::to_owned));
    let namespace = host.as_deref().and_then(name::reverse_dns).unwrap_or_else(|| "local".into());
    let mut server = entry(key, &namespace);
    let headers = inputs(fields, "headers");
    server.remotes = vec![Transport { headers, ..Transport::remote(kind, url) }];
    Ok(server)
}

fn from_command(key: &str, fields: &Fields) -> Result<ServerDetail, String> {
    let command = fields.get("command").and_then(Value::as_str).unwrap_or_default();
    let args: Vec<&str> = match fields.get("args") {
        Some(args) => args
            .as_array()
            .and_then(|args| args.iter().map(Value::as_str).collect())
            .ok_or("`args` must be a list of strings")?,
        None => Vec::new(),
    };
    let runtime = command.rsplit(['/', '\\']).next().unwrap_or(command);
    let (registry_type, separator) = match runtime {
        "npx" => ("npm", "@"),
        "uvx" => ("pypi", "=="),
        "dnx" => ("nuget", "@"),
        "docker" | "podman" => ("oci", ""),
        _ => {
            return Err(
                "only npx, uvx, dnx and docker name a package; publish others by `url`".to_owned()
            );
        }
    };
    let takes_value = |flag: &str| {
        registry_type == "oci"
            && matches!(
                flag,
                "-e" | "--env" | "-v" | "--volume" | "-p" | "--name" | "--network" | "--mount"
            )
    };
    let mut at = usize::from(registry_type == "oci" && args.first() == Some(&"run"));
    while let Some(flag) = args.get(at).filter(|arg| arg.starts_with('-')) {
        at += if takes_value(flag) { 2 } else { 1 };
    }
    let identifier = *args.get(at).ok_or("`args` names no package")?;
    let (identifier, version) = match identifier.rsplit_once(separator) {
        Some((package, version)) if !separator.is_empty() && !package.is_empty() => {
            (package, (version != "latest").then(|| version.to_owned()))
        }
        _ => (identifier, None),
    };
    let positional = |args: &[&str]| args.iter().map(|a| Argument::positional(a)).collect();
    let mut server = entry(key, "local");
    server.packages = vec![Package {
        registry_type: registry_type.into(),
        identifier: identifier.into(),
        version,
        runtime_hint: Some(runtime.into()),
        transport: Transport { r#type: STDIO.into(), ..Transport::default() },
        runtime_arguments: positional(args.get(..at).unwrap_or_default()),
        package_arguments: positional(args.get(at + 1..).unwrap_or_default()),
        environment_variables: inputs(fields, "env"),
        ..Package::default()
    }];
    Ok(server)
}

pub(super) fn write(catalogue: &Catalogue) -> (Value, Vec<Rejected>) {
    let mut servers = Fields::new();
    let mut rejected = Vec::new();
    for entry in &catalogue.entries {
        match server_config(&entry.server) {
            Some(config) => {
                servers.insert(entry.server.name.clone(), config);
            }
            None => rejected.push(reject(
                &entry.server.name,
                "a client needs a remote, or a package of npm, PyPI, NuGet or OCI",
            )),
        }
    }
    let mut document = catalogue.envelope.clone();
    document.insert("mcpServers".into(), servers.into());
    (document.into(), rejected)
}

/// How a client configures one server, ready to paste: its first remote, else its first package
/// of a known kind. `None` where it has neither.
#[must_use]
pub fn server_config(server: &ServerDetail) -> Option<Value> {
    if let Some(remote) = server.remotes.first() {
        let kind = if remote.r#type == SSE { "sse" } else { "http" };
        let mut config = Fields::new();
        config.insert("type".into(), kind.into());
        config.insert("url".into(), remote.url.clone().into());
        if !remote.headers.is_empty() {
            config.insert("headers".into(), values(&remote.headers));
        }
        return Some(config.into());
    }
    server.packages.iter().find_map(package_config)
}

fn package_config(package: &Package) -> Option<Value> {
    let id = &package.identifier;
    let versioned = |separator: &str| match &package.version {
        Some(version) => format!("{id}{separator}{version}"),
        None => id.clone(),
    };
    let names = package.environment_variables.iter().map(|v| v.name.as_str());
    let (command, default_args, identifier) = match package.registry_type.as_str() {
        "npm" => ("npx", vec!["-y"], versioned("@")),
        "pypi" => ("uvx", vec![], versioned("==")),
        "nuget" => ("dnx", vec!["--yes"], versioned("@")),
        "oci" => {
            let flags = names.flat_map(|name| ["-e", name]);
            ("docker", ["run", "-i", "--rm"].into_iter().chain(flags).collect(), id.clone())
        }
        _ => return None,
    };
    let mut args: Vec<String> = if package.runtime_arguments.is_empty() {
        default_args.into_iter().map(str::to_owned).collect()
    } else {
        package.runtime_arguments.iter().flat_map(argument).collect()
    };
    args.push(identifier);
    args.extend(package.package_arguments.iter().flat_map(argument));
    let command = package.runtime_hint.as_deref().unwrap_or(command);
    let mut config = Fields::new();
    config.insert("command".into(), command.into());
    config.insert("args".into(), args.into());
    if !package.environment_variables.is_empty() {
        config.insert("env".into(), values(&package.environment_variables));
    }
    Some(config.into())
}

fn argument(argument: &Argument) -> Vec<String> {
    let input = &argument.input;
    let value = input.value.clone().or_else(|| input.default.clone());
    let value = value.or_else(|| argument.value_hint.as_ref().map(|hint| format!("<{hint}>")));
    argument.name.clone().into_iter().chain(value).collect()
}

/// Fixed and default values as they are, others as a placeholder of the variable's own name.
fn values(inputs: &[KeyValueInput]) -> Value {
    let value = |i: &KeyValueInput| {
        let known = i.input.value.clone().or_else(|| i.input.default.clone());
        (i.name.clone(), Value::from(known.unwrap_or_else(|| format!("${{{}}}", i.name))))
    };
    inputs.iter().map(value).collect::<Fields>().into()
}
