//! The admin port: why something is published or not, health, readiness, metrics. Plain HTTP, read
//! only.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::explanation::Outcome;
use crate::metrics::{Metrics, Readings};
use crate::object::{Key, Kind};
use crate::publisher::Status;
use crate::shared::SharedIndex;
use crate::source::cluster::Watches;
use waymark_kubernetes::lease::{Leadership, Standing};

const INDEX: &str = "\
/explain                            every opted-in object: what is published, and what is not and why
/explain/KIND/NAMESPACE/NAME        one object, or all that depend on it; /explain/namespace/NAME
/healthz                            the process runs
/readyz                             everything was published once, or another replica leads
/metrics                            for Prometheus
";

/// What the admin port shows.
#[derive(Clone)]
pub struct Admin {
    /// The index.
    pub shared: Arc<SharedIndex>,
    /// How publishing stands.
    pub published: watch::Receiver<Status>,
    /// Whether every watch has listed.
    pub listed: watch::Receiver<bool>,
    /// How the watches stand.
    pub watches: Watches,
    /// Whether this process leads.
    pub leadership: Leadership,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Admin {
    /// Serves until `stop`.
    ///
    /// # Errors
    /// Where the listener fails.
    pub async fn serve(
        self,
        listener: tokio::net::TcpListener,
        stop: CancellationToken,
    ) -> std::io::Result<()> {
        let router = Router::new()
            .route("/", get(|| async { INDEX }))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .route("/explain", get(explain_all))
            .route("/explain/{kind}/{name}", get(explain_cluster))
            .route("/explain/{kind}/{namespace}/{name}", get(explain_one))
            .with_state(self);
        axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
    }

    /// Why this process is not ready, if it is not; and every check, one a line.
    fn readiness(&self) -> (bool, String) {
        let listed = *self.listed.borrow();
        let waiting = |(watch, state): (String, crate::source::cluster::WatchState)| {
            let why = state.error.unwrap_or_else(|| "not listed yet".to_owned());
            (!state.listed).then(|| format!("{watch}: {why}"))
        };
        let waiting: Vec<String> = self.watches.all().into_iter().filter_map(waiting).collect();
        let status = self.published.borrow().clone();
        let standing = self.leadership.standing().borrow().clone();
        let (leads, lease) = match standing {
            Standing::Leading if self.leadership.holds() => (true, Ok("this process leads".into())),
            Standing::Leading => (true, Err("the lease was lost".to_owned())),
            Standing::Following { holder } => (false, Ok(format!("standing by for {holder}"))),
            Standing::Failing(error) => (false, Err(error)),
            Standing::Unknown => (false, Err("not read yet".into())),
        };
        let published = if status.synced_updates.is_some() {
            Ok(if status.connected { "published" } else { "published, now disconnected" }.into())
        } else if leads {
            Err(status.last_error.unwrap_or_else(|| "not everything was published yet".into()))
        } else {
            Ok("the leader publishes".into())
        };
        let checks = [
            ("cluster", if listed { Ok("listed".to_owned()) } else { Err(waiting.join("; ")) }),
            ("lease", lease),
            ("publish", published),
        ];
        let ready = checks.iter().all(|(_, check)| check.is_ok());
        let line = |(name, check): &(&str, Result<String, String>)| match check {
            Ok(text) => format!("[+] {name}: {text}\n"),
            Err(text) => format!("[-] {name}: {text}\n"),
        };
        (ready, checks.iter().map(line).collect())
    }
}

async fn ready(State(admin): State<Admin>) -> Response {
    let (ready, text) = admin.readiness();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, text).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let readings = Readings {
        counts: admin.shared.read().counts(),
        leader: admin.leadership.holds(),
        status: admin.published.borrow().clone(),
        watches: admin.watches.clone(),
    };
    let text = admin.metrics.render(&readings);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

fn json(status: StatusCode, body: &impl serde::Serialize) -> Response {
    let body = serde_json::to_vec_pretty(body).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn explain_all(State(admin): State<Admin>) -> Response {
    json(StatusCode::OK, &admin.shared.read().outcome())
}

async fn explain_cluster(
    State(admin): State<Admin>,
    Path((kind, name)): Path<(String, String)>,
) -> Response {
    explain(&admin, &kind, "", &name)
}

async fn explain_one(
    State(admin): State<Admin>,
    Path((kind, namespace, name)): Path<(String, String, String)>,
) -> Response {
    explain(&admin, &kind, &namespace, &name)
}

fn explain(admin: &Admin, kind: &str, namespace: &str, name: &str) -> Response {
    let kind = match kind.parse::<Kind>() {
        Ok(kind) => kind,
        Err(error) => return json(StatusCode::NOT_FOUND, &json!({"error": error.to_string()})),
    };
    let explained = admin.shared.read().explain_related(&Key::new(kind, namespace, name));
    if explained.is_empty() {
        let error = "not opted in, or there is no such object, or nothing depends on it";
        return json(StatusCode::NOT_FOUND, &json!({ "error": error }));
    }
    json(StatusCode::OK, &Outcome::new(explained))
}
