//! The write side of the MCP registry API, for managed entries.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use smol_str::SmolStr;
use waymark_catalogue::meta::Status;
use waymark_catalogue::validate;

use super::error::ApiError;
use super::target::Target;
use super::{Api, json_response};
use crate::catalogue::{Edit, EditError, Prepared, Refusal, Registry, prepare_own};
use crate::running::bearer;

/// Most characters of a status message (upstream's limit).
const MAX_MESSAGE: usize = 500;

impl From<EditError> for ApiError {
    fn from(error: EditError) -> Self {
        let sentence = error.to_string();
        match error {
            EditError::Exists(_) | EditError::Overtaken => Self::Conflict(sentence),
            EditError::NotFound(_) => Self::NoSuch(sentence),
            EditError::NoChange(_) | EditError::TooMany(_) => Self::BadRequest(sentence),
            EditError::Unavailable(_) => Self::Unavailable(sentence),
        }
    }
}

/// The managed source of a registry, for who may write there.
fn managed(api: &Api, registry: &Registry, headers: &HeaderMap) -> Result<SmolStr, ApiError> {
    let running = api.0.shown.running.load();
    let managed = running.managed.as_ref();
    let Some((source, _)) = managed.filter(|(name, _)| registry.rule.sources.contains(name)) else {
        return Err(ApiError::NotImplemented("This registry has no managed source to write to"));
    };
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = given.and_then(bearer);
    let name =
        token.and_then(|token| running.tokens.bearer(token)).ok_or(ApiError::Unauthorized)?;
    tracing::info!(writer = %name, registry = %registry.name, "a managed entry is written");
    Ok(source.clone())
}

fn id(name: &str, version: &str) -> String {
    format!("{name}@{version}")
}

fn document(api: &Api, body: &Bytes) -> Result<Prepared, ApiError> {
    let bad = |sentence: String| ApiError::BadRequest(sentence);
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| bad(format!("The body is not JSON: {error}")))?;
    // As it came: a typed reader would take null for a field that is absent.
    let server = validate::server(&value).map_err(|v| bad(Refusal::invalid(&v).message))?;
    let running = api.0.shown.running.load();
    if running.managed.as_ref().is_some_and(|(_, filter)| !filter.takes(&server)) {
        return Err(bad("The filter of the managed source keeps this server out".to_owned()));
    }
    prepare_own(&id(&server.name, &server.version), &server).map_err(|refusal| bad(refusal.message))
}

fn is(name: &str, version: &str, entry: &Prepared) -> Result<(), ApiError> {
    if entry.name == name && entry.version == version {
        return Ok(());
    }
    let sentence =
        format!("The body is {} {}, the path another server or version", entry.name, entry.version);
    Err(ApiError::BadRequest(sentence))
}

/// A version as the registry serves it now.
fn served(registry: &Registry, name: &str, version: &str) -> Result<Response<Body>, ApiError> {
    let snapshot = registry.snapshot();
    // Written, but to a registry that a new configuration has replaced meanwhile.
    let replaced =
        || "It is stored; the configuration has changed meanwhile, look again".to_owned();
    let served = snapshot.get(name, version).ok_or_else(|| ApiError::Unavailable(replaced()))?;
    let mut response = Response::new(Body::from(served.json.clone()));
    response.headers_mut().insert(header::CONTENT_TYPE, super::servers::JSON);
    Ok(response)
}

pub(super) async fn publish(
    State(api): State<Api>,
    target: Target,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, ApiError> {
    let source = managed(&api, &target.registry, &headers)?;
    let entry = document(&api, &body)?;
    let (name, version) = (entry.name.clone(), entry.version.clone());
    // Of several sources the first serves a version: publishing below it would change nothing.
    let shadowed = target.registry.snapshot().get(&name, &version).is_some_and(|s| !s.is_deleted());
    if shadowed {
        return Err(EditError::Exists(format!("{name} {version}")).into());
    }
    api.0.catalogue.edit(source, Edit::Publish(Box::new(entry))).await?;
    served(&target.registry, &name, &version)
}

pub(super) async fn replace(
    State(api): State<Api>,
    target: Target,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, ApiError> {
    let source = managed(&api, &target.registry, &headers)?;
    let (name, version) = (target.name()?, target.version()?);
    let entry = document(&api, &body)?;
    is(name, version, &entry)?;
    api.0.catalogue.edit(source, Edit::Replace(Box::new(entry))).await?;
    served(&target.registry, name, version)
}

/// Sets the status of one version.
async fn set(
    api: &Api,
    target: &Target,
    source: SmolStr,
    (status, message): (Status, Option<String>),
) -> Result<Response<Body>, ApiError> {
    let (name, version) = (target.name()?.clone(), target.version()?.clone());
    let edit =
        Edit::SetStatus { name: name.clone(), version: Some(version.clone()), status, message };
    match api.0.catalogue.edit(source, edit).await {
        Ok(()) => served(&target.registry, &name, &version),
        // Deleted is deleted.
        Err(EditError::NoChange(_)) if status == Status::Deleted => {
            served(&target.registry, &name, &version)
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn delete(
    State(api): State<Api>,
    target: Target,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let source = managed(&api, &target.registry, &headers)?;
    set(&api, &target, source, (Status::Deleted, None)).await
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StatusUpdate {
    status: String,
    #[serde(default)]
    status_message: Option<String>,
}

fn update(body: &Bytes) -> Result<(Status, Option<String>), ApiError> {
    let update: StatusUpdate = serde_json::from_slice(body)
        .map_err(|error| ApiError::BadRequest(format!("The body is no status update: {error}")))?;
    let status = Status::parse(&update.status).ok_or_else(|| {
        ApiError::BadRequest("status must be active, deprecated or deleted".to_owned())
    })?;
    let message = update.status_message.filter(|message| !message.is_empty());
    if message.as_ref().is_some_and(|message| message.chars().count() > MAX_MESSAGE) {
        let sentence = format!("statusMessage has more than {MAX_MESSAGE} characters");
        return Err(ApiError::BadRequest(sentence));
    }
    Ok((status, message))
}

pub(super) async fn status(
    State(api): State<Api>,
    target: Target,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, ApiError> {
    let source = managed(&api, &target.registry, &headers)?;
    set(&api, &target, source, update(&body)?).await
}

pub(super) async fn all_statuses(
    State(api): State<Api>,
    target: Target,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, ApiError> {
    let source = managed(&api, &target.registry, &headers)?;
    let name = target.name()?.clone();
    let (status, message) = update(&body)?;
    let edit = Edit::SetStatus { name: name.clone(), version: None, status, message };
    api.0.catalogue.edit(source, edit).await?;
    let versions = target.registry.snapshot().versions(&name, true);
    let servers: Vec<Value> =
        versions.iter().filter_map(|served| serde_json::from_slice(&served.json).ok()).collect();
    let body = json!({"updatedCount": servers.len(), "servers": servers});
    Ok(json_response(StatusCode::OK, &body))
}
