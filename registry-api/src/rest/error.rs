//! Errors as the upstream API writes them: `{"error": "one sentence"}`.

use std::any::Any;

use axum::extract::rejection::PathRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::json_response;
use crate::catalogue::QueryError;

/// A request that cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// A parameter cannot be used: 400.
    #[error("{0}")]
    BadRequest(String),
    /// There is nothing of that name: 404.
    #[error("{0}")]
    NotFound(&'static str),
    /// Another method is needed: 405.
    #[error("This path answers GET and HEAD only")]
    MethodNotAllowed,
    /// A fault of the registry: 500.
    #[error("Internal error")]
    Internal,
}

impl ApiError {
    pub(super) async fn unknown_path() -> Self {
        Self::NotFound("There is nothing at this path; see /openapi.yaml")
    }

    pub(super) async fn method_not_allowed() -> Self {
        Self::MethodNotAllowed
    }

    pub(super) fn panicked(_: Box<dyn Any + Send>) -> Response {
        Self::Internal.into_response()
    }
}

impl From<PathRejection> for ApiError {
    fn from(_: PathRejection) -> Self {
        Self::BadRequest("The path is not percent-encoded UTF-8".to_owned())
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        Self::BadRequest(error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        json_response(status, &json!({"error": self.to_string()}))
    }
}
