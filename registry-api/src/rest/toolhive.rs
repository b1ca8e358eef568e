//! ToolHive's own REST API (`/api/v1/registry`), over the same snapshots.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};
use smol_str::SmolStr;
use waymark_catalogue::format::{self, Catalogue, Format, server_config};
use waymark_catalogue::meta;
use waymark_catalogue::server::ServerDetail;

use super::error::ApiError;
use super::target::Target;
use super::{Api, json_response};
use crate::catalogue::{Registry, Served};

/// In which form servers are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    ToolHive,
    Upstream,
    McpClient,
}

/// The parameters `format` and `registry`.
fn parameters(
    api: &Api,
    target: Target,
    raw: Option<&str>,
) -> Result<(Arc<Registry>, Form), ApiError> {
    let (mut form, mut registry) = (Form::ToolHive, target.registry);
    for (key, value) in url::form_urlencoded::parse(raw.unwrap_or_default().as_bytes()) {
        match (&*key, &*value) {
            ("format", "toolhive") => form = Form::ToolHive,
            ("format", "upstream") => form = Form::Upstream,
            ("format", "mcp-client") => form = Form::McpClient,
            ("format", _) => {
                let sentence = "format must be toolhive, upstream or mcp-client";
                return Err(ApiError::BadRequest(sentence.to_owned()));
            }
            ("registry", name) => {
                let named = api.0.catalogue.registry(name);
                registry = named.ok_or(ApiError::NotFound("Registry not found"))?;
            }
            _ => {}
        }
    }
    Ok((registry, form))
}

fn detail(served: &Served) -> Option<ServerDetail> {
    serde_json::from_str(served.server_text()).ok()
}

/// A server in ToolHive's format, with its name in it.
fn native(server: ServerDetail) -> Option<Value> {
    let name = server.name.clone();
    let entry = format::Entry { server, official: None };
    let catalogue = Catalogue { entries: vec![entry], ..Catalogue::default() };
    let (document, _) = format::write(&catalogue, Format::ToolHiveNative);
    let groups = ["servers", "remote_servers"].iter().filter_map(|group| document.get(group));
    let (_, found) = groups.filter_map(Value::as_object).flat_map(Map::iter).next()?;
    let mut item = json!({ "name": name });
    if let (Some(fields), Some(found)) = (item.as_object_mut(), found.as_object()) {
        fields.extend(found.clone());
    }
    Some(item)
}

fn show(all: &[Arc<Served>], form: Form) -> Value {
    match form {
        Form::Upstream => {
            let servers: Vec<Value> =
                all.iter().filter_map(|served| serde_json::from_slice(&served.json).ok()).collect();
            json!({"metadata": {"count": servers.len()}, "servers": servers})
        }
        Form::ToolHive => {
            let servers: Vec<Value> =
                all.iter().filter_map(|served| native(detail(served)?)).collect();
            json!({"total": servers.len(), "servers": servers})
        }
        Form::McpClient => {
            let config = |served: &Arc<Served>| {
                let server = detail(served)?;
                Some((server.name.clone(), server_config(&server)?))
            };
            json!({"mcpServers": all.iter().filter_map(config).collect::<Map<String, Value>>()})
        }
    }
}

fn latest(registry: &Registry) -> Vec<Arc<Served>> {
    let snapshot = registry.snapshot();
    snapshot.live().filter(|served| served.official.is_latest).cloned().collect()
}

/// One server by its full name; by its own part alone where only one has it.
fn find(registry: &Registry, name: &str) -> Result<Arc<Served>, ApiError> {
    let snapshot = registry.snapshot();
    if let Some(served) = snapshot.latest(name, false) {
        return Ok(Arc::clone(served));
    }
    let own = |served: &&Arc<Served>| {
        served.key.name.rsplit_once('/').is_some_and(|(_, own)| own == name)
    };
    let all = latest(registry);
    let mut found = all.iter().filter(own);
    match (found.next(), found.next()) {
        (Some(served), None) => Ok(Arc::clone(served)),
        (Some(_), Some(_)) => Err(ApiError::BadRequest(
            "Several servers have this name; use the full one, its slash as %2F".to_owned(),
        )),
        _ => Err(ApiError::NotFound("Server not found")),
    }
}

pub(super) async fn info(
    State(api): State<Api>,
    target: Target,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let (registry, _) = parameters(&api, target, raw.as_deref())?;
    let snapshot = registry.snapshot();
    let updated = snapshot.since(0).map(|served| served.official.updated_at).max();
    let body = json!({
        "version": "1.0.0",
        "last_updated": updated.map(|time| time.to_string()).unwrap_or_default(),
        "source": registry.name,
        "total_servers": snapshot.servers(),
    });
    Ok(json_response(StatusCode::OK, &body))
}

pub(super) async fn servers(
    State(api): State<Api>,
    target: Target,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let (registry, form) = parameters(&api, target, raw.as_deref())?;
    Ok(json_response(StatusCode::OK, &show(&latest(&registry), form)))
}

pub(super) async fn server(
    State(api): State<Api>,
    target: Target,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let name = target.raw_name()?.clone();
    let (registry, form) = parameters(&api, target, raw.as_deref())?;
    let found = find(&registry, &name)?;
    let body = match form {
        Form::ToolHive => detail(&found).and_then(native).ok_or(ApiError::NotFound(
            "The server has no form in ToolHive's format; ask with format=upstream",
        ))?,
        Form::Upstream => serde_json::from_slice(&found.json).map_err(|_| ApiError::Internal)?,
        Form::McpClient => show(&[found], form),
    };
    Ok(json_response(StatusCode::OK, &body))
}

/// A server that runs in a cluster, as its discovery described it.
fn deployed_server(served: &Served) -> Option<(SmolStr, Value)> {
    let server = detail(served)?;
    let (_, extension) = meta::toolhive(&server)?;
    let kubernetes = extension.get("metadata")?.get("kubernetes")?;
    let text = |key: &str| kubernetes.get(key).and_then(Value::as_str).unwrap_or_default();
    let urls: Vec<&str> =
        server.remotes.iter().filter_map(|remote| remote.url.as_deref()).collect();
    let name = SmolStr::from(text("name"));
    let body = json!({
        "name": name,
        "namespace": text("namespace"),
        "kind": text("kind"),
        "server": server.name,
        "version": server.version,
        "image": text("image"),
        "transport": text("transport"),
        "endpoint_url": urls.first(),
        "urls": urls,
        "stale": served.stale,
    });
    Some((name, body))
}

pub(super) async fn deployed(
    State(api): State<Api>,
    target: Target,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let (registry, _) = parameters(&api, target, raw.as_deref())?;
    let all = latest(&registry);
    let servers: Vec<Value> =
        all.iter().filter_map(|served| deployed_server(served)).map(|(_, body)| body).collect();
    Ok(json_response(StatusCode::OK, &json!({"total": servers.len(), "servers": servers})))
}

pub(super) async fn deployed_one(
    State(api): State<Api>,
    target: Target,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let wanted = target.raw_name()?.clone();
    let (registry, _) = parameters(&api, target, raw.as_deref())?;
    let all = latest(&registry);
    let named = |served: &Arc<Served>| {
        let (name, body) = deployed_server(served)?;
        (name == wanted || served.key.name == wanted).then_some(body)
    };
    // Servers of one name may run in several namespaces.
    let servers: Vec<Value> = all.iter().filter_map(named).collect();
    if servers.is_empty() {
        return Err(ApiError::NotFound("No server of this name is deployed"));
    }
    Ok(json_response(StatusCode::OK, &json!({"total": servers.len(), "servers": servers})))
}
