//! MCP resources of every kind, reduced to what routes and entries need of them.

use smol_str::SmolStr;

use super::{Key, Kind, Meta, Transport};
use crate::annotation::Annotations;

/// An MCP resource.
#[derive(Debug, Clone, PartialEq)]
pub struct McpResource {
    /// Its kind.
    pub kind: Kind,
    /// Metadata.
    pub meta: Meta,
    /// What its annotations and labels say.
    pub annotations: Annotations,
    /// Transport that its endpoint speaks.
    pub transport: Transport,
    /// The transport that the server behind the proxy speaks, as the resource says it.
    pub backend_transport: SmolStr,
    /// The path at which it answers (S in the rules); `None` where that cannot be told.
    pub path: Option<SmolStr>,
    /// `endpointPrefix`: what an ingress that strips a prefix has stripped.
    pub stripped_prefix: Option<SmolStr>,
    /// URL of the remote server, for kinds that stand for one.
    pub remote_url: Option<SmolStr>,
    /// Whether `remote_url` is meant to be used by clients directly.
    pub direct: bool,
    /// Container image.
    pub image: Option<SmolStr>,
    /// Name by which the server calls itself (`status.serverInfo.name`).
    pub server_name: Option<SmolStr>,
    /// Version that the server reports (`status.serverInfo.version`).
    pub server_version: Option<SmolStr>,
    /// Address inside the cluster (`status.address.url`, `status.url`).
    pub in_cluster_url: Option<SmolStr>,
    /// `status.phase`, where it is Failed or Stopped.
    pub not_ready: Option<SmolStr>,
    /// Whether clients have to authenticate (`oidcConfigRef`, `incomingAuth.type: oidc` …).
    pub authenticated: bool,
}

impl McpResource {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::new(self.kind, self.meta.namespace.clone(), self.meta.name.clone())
    }

    /// Whether it is published by itself, by a URL of its own.
    #[must_use]
    pub fn is_exported(&self) -> bool {
        match self.annotations.export {
            Some(export) => export,
            None => self.annotations.url.is_some(),
        }
    }
}
