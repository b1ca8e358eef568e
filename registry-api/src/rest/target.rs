//! What a path is about: the registry, and perhaps a server and a version.

use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use smol_str::SmolStr;

use super::error::ApiError;
use super::{Api, params};
use crate::catalogue::Registry;

/// The registry of a path; the default one where the path names none.
pub(super) struct Target {
    pub(super) registry: Arc<Registry>,
    name: Option<SmolStr>,
    version: Option<SmolStr>,
}

impl Target {
    /// The server name, checked.
    pub(super) fn name(&self) -> Result<&SmolStr, ApiError> {
        let name = self.name.as_ref().ok_or(ApiError::Internal)?;
        params::server_name(name)?;
        Ok(name)
    }

    /// The server name as it stands in the path.
    pub(super) fn raw_name(&self) -> Result<&SmolStr, ApiError> {
        self.name.as_ref().ok_or(ApiError::Internal)
    }

    /// The version.
    pub(super) fn version(&self) -> Result<&SmolStr, ApiError> {
        self.version.as_ref().ok_or(ApiError::Internal)
    }
}

impl FromRequestParts<Api> for Target {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let encoding = |_| ApiError::BadRequest("The path is not percent-encoded UTF-8".into());
        let params = RawPathParams::from_request_parts(parts, api).await.map_err(encoding)?;
        let get = |key: &str| {
            params.iter().find(|(name, _)| *name == key).map(|(_, value)| SmolStr::from(value))
        };
        let registry = api.0.catalogue.registry(&get("registry").unwrap_or_default());
        let registry = registry.ok_or(ApiError::NotFound("Registry not found"))?;
        Ok(Self { registry, name: get("name"), version: get("version") })
    }
}
