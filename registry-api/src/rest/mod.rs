//! REST: the MCP registry API v0.1 to the letter, health, version, metrics, OpenAPI.

mod admin;
mod error;
mod pages;
mod params;
mod servers;
mod target;
mod toolhive;
mod well_known;
mod write;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::HttpBody;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use serde_json::json;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::{
    CompressionLayer, DefaultPredicate, Predicate, predicate::SizeAbove,
};
use tower_http::cors::{Any, CorsLayer};

use crate::catalogue::{Handle, MAX_ENTRY_BYTES};
use crate::gateway::{AI_CATALOG, Gateway, MCP_CATALOG, SERVER_CARD};
use crate::metrics::Metrics;
use crate::running::Shown;
use crate::source::{MAX_PATH, PATH_HEADER};

pub use error::ApiError;
use pages::Pages;
use target::Target;

/// The served OpenAPI document.
pub const OPENAPI: &str = include_str!("../../openapi.yaml");

/// Smaller answers are not worth compressing.
const COMPRESS_FROM: u64 = 1024;
/// Most bytes of all headers of a request.
const MAX_HEADERS: usize = 16 * 1024;
/// How long browsers may remember what CORS allows.
const CORS_MAX_AGE: Duration = Duration::from_secs(3600);

/// What all handlers read. Every request clones it, so it is one pointer.
#[derive(Debug, Clone)]
pub struct Api(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    catalogue: Handle,
    metrics: Arc<Metrics>,
    shown: Shown,
    gateway: Gateway,
    pages: Pages,
}

impl Api {
    /// An API over `catalogue`.
    #[must_use]
    pub fn new(catalogue: Handle, metrics: Arc<Metrics>, shown: Shown, gateway: Gateway) -> Self {
        Self(Arc::new(Shared { catalogue, metrics, shown, gateway, pages: Pages::default() }))
    }

    /// All routes.
    pub fn router(self) -> Router {
        let registry = Router::new()
            .route("/servers", get(servers::list))
            .route("/servers/{name}/versions", get(servers::versions))
            .route(
                "/servers/{name}/versions/{version}",
                get(servers::version).put(write::replace).delete(write::delete),
            )
            .route("/servers/{name}/versions/{version}/status", patch(write::status))
            .route("/servers/{name}/status", patch(write::all_statuses))
            .route("/publish", post(write::publish))
            .route("/health", get(health))
            .route("/ping", get(ping))
            .route("/version", get(version));
        let toolhive = Router::new()
            .route("/info", get(toolhive::info))
            .route("/servers", get(toolhive::servers))
            .route("/servers/deployed", get(toolhive::deployed))
            .route("/servers/deployed/{name}", get(toolhive::deployed_one))
            .route("/servers/{name}", get(toolhive::server));
        // The default registry is served at the root too.
        let mut router = Router::new()
            .nest("/api/v1/registry", toolhive.clone())
            .nest("/registry/{registry}/api/v1/registry", toolhive)
            .route("/v0/servers/deployed", get(toolhive::deployed))
            .route("/v1/sources", get(admin::sources))
            .route("/v1/registries", get(admin::registries));
        for version in ["/v0.1", "/v0"] {
            router = router.nest(version, registry.clone());
            router = router.nest(&format!("/registry/{{registry}}{version}"), registry.clone());
        }
        let cors = CorsLayer::new()
            .allow_origin(Any)
            // Reads only: nothing in a browser writes.
            .allow_methods([Method::GET, Method::HEAD, Method::OPTIONS])
            .allow_headers([
                header::ACCEPT,
                header::CONTENT_TYPE,
                header::IF_NONE_MATCH,
                header::AUTHORIZATION,
            ])
            .expose_headers([header::ETAG, HeaderName::from_static("retry-after")])
            .max_age(CORS_MAX_AGE);
        let compress = CompressionLayer::new()
            .compress_when(DefaultPredicate::new().and(SizeAbove::new(COMPRESS_FROM)));
        router
            .route(AI_CATALOG, get(well_known::ai_catalog))
            .route(MCP_CATALOG, get(well_known::mcp_catalog))
            .route(&format!("{SERVER_CARD}/{{namespace}}/{{name}}"), get(well_known::server_card))
            .route("/health", get(health))
            .route("/readiness", get(readiness))
            .route("/version", get(version))
            .route("/openapi.yaml", get(openapi))
            .route("/metrics", get(metrics))
            .fallback(ApiError::unknown_path)
            .method_not_allowed_fallback(ApiError::method_not_allowed)
            .layer(compress)
            .layer(cors)
            .layer(CatchPanicLayer::custom(ApiError::panicked))
            .layer(middleware::from_fn_with_state(self.clone(), count))
            .with_state(self)
    }
}

/// Refuses headers that are too large, and bodies that are larger than an entry may be.
async fn bounded(request: Request) -> Result<Request, ApiError> {
    let headers = request.headers().iter();
    let size: usize = headers.map(|(name, value)| name.as_str().len() + value.len()).sum();
    if size > MAX_HEADERS {
        return Err(ApiError::HeadersTooLarge(MAX_HEADERS));
    }
    if request.body().is_end_stream() {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
    let read = axum::body::to_bytes(body, MAX_ENTRY_BYTES).await;
    let bytes = read.map_err(|_| ApiError::TooLarge(MAX_ENTRY_BYTES))?;
    Ok(Request::from_parts(parts, bytes.into()))
}

/// Bounds and counts requests: one layer, because each costs every request.
async fn count(State(api): State<Api>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    };
    let route = route(request.extensions().get::<MatchedPath>().map(MatchedPath::as_str));
    let response = match bounded(request).await {
        Ok(request) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    api.0.metrics.http(method, route, response.status().as_u16(), started.elapsed());
    response
}

/// A route as a label: one of a fixed set.
fn route(matched: Option<&str>) -> &'static str {
    match matched {
        Some(path) if path.ends_with("/versions/{version}") => "/servers/{name}/versions/{version}",
        Some(path) if path.ends_with("/versions") => "/servers/{name}/versions",
        Some(path) if path.ends_with("/servers") => "/servers",
        Some(path) if path.ends_with("/health") => "/health",
        Some(path) if path.ends_with("/version") => "/version",
        Some(path) if path.ends_with("/status") => "/servers/{name}/status",
        Some(path) if path.ends_with("/publish") => "/publish",
        Some("/v1/sources") => "/v1/sources",
        Some("/v1/registries") => "/v1/registries",
        Some(path) if path.contains("/api/v1/registry") => "/api/v1/registry",
        Some("/readiness") => "/readiness",
        Some(path) if path.starts_with("/.well-known/") => "/.well-known",
        Some("/metrics") => "/metrics",
        Some("/openapi.yaml") => "/openapi.yaml",
        _ => "other",
    }
}

fn json_response(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

async fn health() -> Response {
    json_response(StatusCode::OK, &json!({"status": "ok"}))
}

async fn ping() -> Response {
    json_response(StatusCode::OK, &json!({"pong": true}))
}

async fn readiness(State(api): State<Api>) -> Response {
    let snapshot = api.0.catalogue.snapshot();
    let not_ready = api.0.shown.not_ready.load();
    let store = api.0.catalogue.health().store_error;
    let store = store.map(|error| format!("the store cannot be written: {error}"));
    match store.or_else(|| not_ready.map(str::to_owned)) {
        None => json_response(
            StatusCode::OK,
            &json!({"status": "ready", "revision": snapshot.revision, "servers": snapshot.len()}),
        ),
        Some(error) => json_response(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({"status": "not ready", "error": error}),
        ),
    }
}

/// The process's version; in a header, the registries that the entries of this one come from.
async fn version(State(api): State<Api>, target: Target) -> Response {
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "git_commit": option_env!("WAYMARK_COMMIT").unwrap_or("unknown"),
        "build_time": option_env!("WAYMARK_BUILD_TIME").unwrap_or("unknown"),
    });
    let mut response = json_response(StatusCode::OK, &body);
    let mut path = vec![target.registry.snapshot().epoch.to_string()];
    path.extend(api.0.shown.statuses.paths(&target.registry.rule.sources));
    path.truncate(MAX_PATH);
    if let Ok(path) = path.join(", ").parse() {
        response.headers_mut().insert(HeaderName::from_static(PATH_HEADER), path);
    }
    response
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/yaml")], OPENAPI).into_response()
}

async fn metrics(State(api): State<Api>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], api.0.metrics.render()).into_response()
}
