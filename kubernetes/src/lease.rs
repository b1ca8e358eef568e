//! Leader election by a Lease (`coordination.k8s.io/v1`): of several replicas one acts.
//!
//! The rules are those of client-go's leader election, which tolerate clocks that are set
//! differently: a lease is taken over when it was *seen* unchanged for its duration, measured by
//! the own monotonic clock; and a leader counts itself as one only for [`LeaseConfig::deadline`],
//! which is shorter, from the moment it *began* to renew. Writes carry the resource version, so of
//! two that grasp for it one fails.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Longest that a request for the Lease may take.
const REQUEST: Duration = Duration::from_secs(5);

/// Which Lease, and for how long it is held.
#[derive(Debug, Clone)]
pub struct LeaseConfig {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Who this process is; no other may have the same identity.
    pub identity: String,
    /// After how long without renewal another may take over; whole seconds, at least 3.
    pub duration: Duration,
}

impl LeaseConfig {
    /// How long a leader counts itself as one after it began to renew.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.duration * 2 / 3
    }

    /// How often it is renewed, and how often others look.
    #[must_use]
    pub fn period(&self) -> Duration {
        self.duration / 8
    }
}

/// How this process stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Standing {
    /// The Lease was not read yet.
    #[default]
    Unknown,
    /// This process leads.
    Leading,
    /// Another one leads.
    Following {
        /// Its identity, as the Lease says it.
        holder: String,
    },
    /// The Lease cannot be read or written, and this process does not lead.
    Failing(String),
}

#[derive(Debug)]
struct State {
    /// Until when this process leads; without an election for ever.
    until: Mutex<Option<Instant>>,
    always: bool,
    standing: watch::Sender<Standing>,
}

/// Whether this process leads.
#[derive(Debug, Clone)]
pub struct Leadership(Arc<State>);

impl Leadership {
    /// The only process there is.
    #[must_use]
    pub fn alone() -> Self {
        let standing = watch::Sender::new(Standing::Leading);
        Self(Arc::new(State { until: Mutex::new(None), always: true, standing }))
    }

    fn elected() -> Self {
        let standing = watch::Sender::default();
        Self(Arc::new(State { until: Mutex::new(None), always: false, standing }))
    }

    /// Whether this process leads at this very moment: what must be asked before anything is done
    /// that only a leader may do, because a paused process wakes up with an old [`Standing`].
    #[must_use]
    pub fn holds(&self) -> bool {
        self.0.always || self.until().is_some_and(|until| Instant::now() < until)
    }

    /// How this process stands, now and in future.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.0.standing.subscribe()
    }

    /// Waits until this process leads.
    pub async fn begins(&self) {
        // The sender lives as long as `self`, so waiting never fails.
        let _ = self.standing().wait_for(|standing| *standing == Standing::Leading).await;
    }

    /// Waits until this process does not lead.
    pub async fn ends(&self) {
        let _ = self.standing().wait_for(|standing| *standing != Standing::Leading).await;
    }

    fn until(&self) -> Option<Instant> {
        *self.0.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, until: Option<Instant>, standing: Standing) {
        *self.0.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
        self.0.standing.send_if_modified(|old| {
            let changed = *old != standing;
            *old = standing;
            changed
        });
    }
}

/// What an attempt came to.
enum Attempt {
    Held,
    HeldBy(String),
}

/// A Lease that this process tries to hold.
pub struct Lease {
    api: Api<Object>,
    config: LeaseConfig,
    leadership: Leadership,
    /// The Lease as this process wrote it last.
    own: Option<Object>,
    /// The resource version that another's Lease was last seen in, and since when.
    seen: Option<(String, Instant)>,
}

impl Lease {
    /// A Lease that is not held yet; [`Self::run`] tries to.
    #[must_use]
    pub fn new(client: Client, config: LeaseConfig) -> Self {
        let api = Api::namespaced(client, &config.namespace);
        Self { api, config, leadership: Leadership::elected(), own: None, seen: None }
    }

    /// Whether this process leads.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Holds the Lease whenever it can, until `stop`; then releases it.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let pause = self.turn().await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => break,
            }
        }
        self.release().await;
    }

    /// One attempt; tells when to make the next.
    async fn turn(&mut self) -> Duration {
        let started = Instant::now();
        let held = self.leadership.until();
        let left = held.map(|until| until.saturating_duration_since(started));
        let patience = left.unwrap_or(REQUEST).min(REQUEST);
        let attempt = match tokio::time::timeout(patience, self.attempt()).await {
            Ok(attempt) => attempt.map_err(|error| error.to_string()),
            Err(_) => Err("the API server does not answer".to_owned()),
        };
        match attempt {
            Ok(Attempt::Held) => {
                if held.is_none() {
                    tracing::info!(lease = self.config.name, "this process leads now");
                }
                self.leadership.set(Some(started + self.config.deadline()), Standing::Leading);
            }
            Ok(Attempt::HeldBy(holder)) => {
                if held.is_some() {
                    tracing::warn!(lease = self.config.name, %holder, "the lease was lost");
                } else if !matches!(
                    *self.leadership.0.standing.borrow(),
                    Standing::Following { .. }
                ) {
                    tracing::info!(lease = self.config.name, %holder, "another process leads; standing by");
                }
                self.leadership.set(None, Standing::Following { holder });
            }
            Err(error) => {
                self.own = None;
                if held.is_none_or(|until| Instant::now() >= until) {
                    let standing = Standing::Failing(error.clone());
                    if *self.leadership.0.standing.borrow() != standing {
                        let Self { config: LeaseConfig { namespace, name, .. }, .. } = self;
                        tracing::error!(
                            "the lease {namespace}/{name} cannot be held: {error}; this process stands by until it can"
                        );
                    }
                    self.leadership.set(None, standing);
                }
            }
        }
        // A leader wakes up at the latest when it has to stop being one.
        let left = self.leadership.until().map(|u| u.saturating_duration_since(Instant::now()));
        self.config.period().min(left.unwrap_or(Duration::MAX)).max(Duration::from_millis(50))
    }

    async fn attempt(&mut self) -> Result<Attempt, kube::Error> {
        if let Some(own) = self.own.take() {
            match self.write(own).await {
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                written => return written,
            }
        }
        let Some(lease) = self.api.get_opt(&self.config.name).await? else {
            return self.create().await;
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
        if let Some(holder) = holder.filter(|holder| *holder != self.config.identity) {
            let version = lease.resource_version().unwrap_or_default();
            let duration = u64::try_from(spec.lease_duration_seconds.unwrap_or_default());
            let duration = Duration::from_secs(duration.unwrap_or_default());
            let expired = match &self.seen {
                Some((seen, since)) if *seen == version => {
                    since.elapsed() >= duration.max(self.config.duration)
                }
                _ => {
                    self.seen = Some((version, Instant::now()));
                    false
                }
            };
            if !expired {
                return Ok(Attempt::HeldBy(holder));
            }
            tracing::warn!(lease = self.config.name, %holder, "the lease ran out; taking over");
        }
        match self.write(lease).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Ok(Attempt::HeldBy("another process".to_owned()))
            }
            written => written,
        }
    }

    async fn create(&mut self) -> Result<Attempt, kube::Error> {
        let lease = Object {
            metadata: ObjectMeta { name: Some(self.config.name.clone()), ..ObjectMeta::default() },
            spec: Some(self.spec(&LeaseSpec::default())),
        };
        match self.api.create(&PostParams::default(), &lease).await {
            Ok(lease) => {
                self.own = Some(lease);
                Ok(Attempt::Held)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Ok(Attempt::HeldBy("another process".to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    async fn write(&mut self, mut lease: Object) -> Result<Attempt, kube::Error> {
        lease.spec = Some(self.spec(&lease.spec.unwrap_or_default()));
        lease.metadata.managed_fields = None;
        let written = self.api.replace(&self.config.name, &PostParams::default(), &lease).await?;
        self.own = Some(written);
        Ok(Attempt::Held)
    }

    /// The spec of a Lease that this process holds from now on.
    fn spec(&self, old: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(jiff::Timestamp::now());
        let renewed = old.holder_identity.as_ref() == Some(&self.config.identity);
        let transitions = old.lease_transitions.unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: i32::try_from(self.config.duration.as_secs()).ok(),
            acquire_time: old.acquire_time.clone().filter(|_| renewed).or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions.saturating_add(i32::from(!renewed))),
            ..LeaseSpec::default()
        }
    }

    /// Gives the Lease back, so that another need not wait for it to run out.
    async fn release(mut self) {
        let held = self.leadership.holds();
        self.leadership.set(None, Standing::Unknown);
        let Some(mut lease) = self.own.take().filter(|_| held) else { return };
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        lease.metadata.managed_fields = None;
        let params = PostParams::default();
        let released = self.api.replace(&self.config.name, &params, &lease);
        match tokio::time::timeout(REQUEST, released).await {
            Ok(Ok(_)) => tracing::info!(lease = self.config.name, "the lease is released"),
            Ok(Err(error)) => tracing::warn!(%error, "the lease was not released"),
            Err(_) => tracing::warn!("the lease was not released: the API server does not answer"),
        }
    }
}
