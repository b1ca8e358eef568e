//! Leader election, as the command line asks for it.

use anyhow::{Context, bail};
use kube::Client;
use tokio::task::JoinHandle;
use waymark_kubernetes::lease::{Leadership, Lease, LeaseConfig};

use crate::cli::ElectionArgs;
use crate::run::Stop;

/// Whether this process leads, and who it is.
pub(crate) struct Election {
    pub(crate) leadership: Leadership,
    pub(crate) identity: String,
    /// Namespace of the Lease.
    pub(crate) namespace: String,
    /// Name of the Lease.
    pub(crate) name: String,
    holding: Option<(Stop, JoinHandle<()>)>,
}

impl Election {
    /// Takes part in the election, where there is one.
    pub(crate) fn start(
        client: &Client,
        args: &ElectionArgs,
        default_name: &str,
    ) -> anyhow::Result<Self> {
        let namespace = match &args.lease_namespace {
            Some(namespace) => namespace.to_string(),
            None => client.default_namespace().to_owned(),
        };
        let name = args.lease_name.clone().unwrap_or_else(|| default_name.to_owned());
        let identity = identity();
        let (leadership, holding) = if args.leader_elect {
            if args.lease_duration.as_secs() < 3 {
                bail!("--lease-duration must be 3s at least");
            }
            let config = LeaseConfig {
                namespace: namespace.clone(),
                name: name.clone(),
                identity: identity.clone(),
                duration: args.lease_duration,
            };
            let lease = Lease::new(client.clone(), config);
            let leadership = lease.leadership();
            let release = Stop::new();
            (leadership, Some((release.clone(), tokio::spawn(lease.run(release)))))
        } else {
            (Leadership::alone(), None)
        };
        Ok(Self { leadership, identity, namespace, name, holding })
    }

    /// Gives the Lease back, when nothing is done any more that only a leader may do.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        if let Some((release, holding)) = self.holding {
            release.cancel();
            holding.await.context("holding the lease failed")?;
        }
        Ok(())
    }
}

/// Who this process is, unlike any other: the Pod or host, and something random.
fn identity() -> String {
    let host = ["POD_NAME", "HOSTNAME"].iter().find_map(|name| std::env::var(name).ok());
    let host = host.or_else(|| std::fs::read_to_string("/etc/hostname").ok());
    let host = host.unwrap_or_default();
    let host = if host.trim().is_empty() { "waymark" } else { host.trim() };
    format!("{host}_{}", uuid::Uuid::new_v4())
}
