//! Errors as the upstream API writes them: `{"error": "one sentence"}`.

use std::any::Any;

use axum::http::{HeaderValue, StatusCode, header};
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
    /// There is nothing of that name: 404.
    #[error("{0}")]
    NoSuch(String),
    /// It is there already: 409.
    #[error("{0}")]
    Conflict(String),
    /// No token, or one that nobody has: 401.
    #[error("Writing needs an Authorization header with a valid bearer token")]
    Unauthorized,
    /// The registry does not offer it: 501.
    #[error("{0}")]
    NotImplemented(&'static str),
    /// The body is too large: 413.
    #[error("The body has more than {0} bytes")]
    TooLarge(usize),
    /// The headers are too large: 431.
    #[error("The headers have more than {0} bytes")]
    HeadersTooLarge(usize),
    /// The registry cannot do it now: 503.
    #[error("{0}")]
    Unavailable(String),
    /// Another method is needed: 405.
    #[error("This path does not answer this method; see /openapi.yaml")]
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

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        Self::BadRequest(error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) | Self::NoSuch(_) => StatusCode::NOT_FOUND,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::NotImplemented(_) => StatusCode::NOT_IMPLEMENTED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadersTooLarge(_) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut response = json_response(status, &json!({"error": self.to_string()}));
        if self == Self::Unauthorized {
            let challenge = HeaderValue::from_static("Bearer realm=\"mcp-registry\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
