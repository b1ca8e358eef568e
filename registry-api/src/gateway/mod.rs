//! The gateway plugin: the catalogue at the gateway's own hosts, and Envoy's external authorization,
//! by which the gateway refuses what is not registered.
//!
//! ```text
//!  registry's snapshot ──changes──► index (host → path → server) ──► Check      (gRPC, check.rs)
//!                                                                └──► documents (REST, documents.rs)
//! ```
//!
//! The index is immutable and follows the snapshot change by change, so neither a decision nor a
//! document waits for a writer, and a change costs the entry and not the catalogue.

mod check;
mod documents;
mod index;
mod path;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;

use crate::catalogue::Handle;
pub use check::{Authorizer, Decision, decide};
pub use documents::{AI_CATALOG, MCP_CATALOG, SERVER_CARD};
pub(crate) use documents::{ai_catalog, mcp_catalog, server_card};
pub(crate) use index::host_of;
pub use index::{GatewayIndex, Target};

/// How long to wait for a registry that is not there.
const AGAIN: Duration = Duration::from_secs(1);

/// What is done where nothing can be told: the catalogue is empty, or may be old.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FailMode {
    /// Everything is refused.
    #[default]
    Closed,
    /// Everything passes.
    Open,
}

/// What the admin decides about the plugin.
#[derive(Debug, Clone, Default)]
pub struct GatewayConfig {
    /// The registry that counts; the default one where empty.
    pub registry: String,
    /// What is done where nothing can be told.
    pub fail_mode: FailMode,
    /// Whether what would be refused passes, and is only logged and counted.
    pub dry_run: bool,
    /// URL of the registry, which is told to who is refused.
    pub registry_url: Option<String>,
    /// Peers whose `X-Forwarded-Host` is believed.
    pub trusted: Vec<IpNet>,
}

/// The plugin, as handlers read it.
#[derive(Debug, Clone, Default)]
pub struct Gateway(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    config: GatewayConfig,
    index: ArcSwap<GatewayIndex>,
}

impl Gateway {
    /// Has seen nothing yet.
    #[must_use]
    pub fn new(config: GatewayConfig) -> Self {
        Self(Arc::new(Shared { config, index: ArcSwap::default() }))
    }

    /// What is published where, as of now.
    #[must_use]
    pub fn index(&self) -> Arc<GatewayIndex> {
        self.0.index.load_full()
    }

    /// What the admin has decided.
    #[must_use]
    pub fn config(&self) -> &GatewayConfig {
        &self.0.config
    }

    /// Whether a peer's word about the host that was asked is believed.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        self.0.config.trusted.iter().any(|network| network.contains(&peer.to_canonical()))
    }

    /// Follows the registry until `stop`.
    pub async fn follow(self, catalogue: Handle, stop: CancellationToken) {
        let mut index = GatewayIndex::default();
        loop {
            let Some(registry) = catalogue.registry(&self.0.config.registry) else {
                // Not configured, or not any more.
                if !index.is_empty() {
                    index = GatewayIndex::default();
                    self.0.index.store(Arc::new(index.clone()));
                }
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => continue,
                    () = stop.cancelled() => return,
                }
            };
            let mut revisions = registry.revisions();
            revisions.mark_unchanged();
            if index.follow(&registry.snapshot()) {
                self.0.index.store(Arc::new(index.clone()));
            }
            tokio::select! {
                changed = revisions.changed() => if changed.is_err() {
                    tokio::time::sleep(AGAIN).await;
                },
                // A new configuration may have put another registry in its place.
                () = tokio::time::sleep(AGAIN) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}
