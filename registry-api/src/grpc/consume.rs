//! `CatalogueService`: the catalogue for controllers, gateways and agents.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use waymark_catalogue::ServerName;
use waymark_proto::v1::catalogue_service_server::CatalogueService;
use waymark_proto::v1::watch_servers_response::Event;
use waymark_proto::v1::{
    GetServerRequest, ListServersRequest, ListServersResponse, ListVersionsRequest,
    ListVersionsResponse, Removed, Server, SnapshotBegin, SnapshotEnd, WatchServersRequest,
    WatchServersResponse,
};

use super::mask::Mask;
use super::watches::{Watch, Watches};
use crate::catalogue::{Cursor, Handle, Query, QueryError, Registry, Served, Snapshot};
use crate::metrics::Metrics;

/// Serves the catalogue.
#[derive(Debug, Clone)]
pub struct Consumer {
    catalogue: Handle,
    metrics: Arc<Metrics>,
    watches: Watches,
    stop: CancellationToken,
}

impl Consumer {
    /// A service over `catalogue`; its watches end at `stop`. A client, known by its address, may
    /// have `watches` of them at a time.
    #[must_use]
    pub fn new(
        catalogue: Handle,
        metrics: Arc<Metrics>,
        watches: usize,
        stop: CancellationToken,
    ) -> Self {
        Self { catalogue, metrics, watches: Watches::new(watches), stop }
    }

    fn counted<T>(&self, method: &'static str, result: Result<T, Status>) -> Result<T, Status> {
        let code = result.as_ref().map_or_else(Status::code, |_| tonic::Code::Ok);
        self.metrics.grpc("waymark.registry.v1.CatalogueService", method, code);
        result
    }

    fn registry(&self, name: &str) -> Result<Arc<Registry>, Status> {
        self.catalogue.registry(name).ok_or_else(|| Status::not_found("registry not found"))
    }

    fn list(&self, request: &ListServersRequest) -> Result<ListServersResponse, Status> {
        let mask = Mask::of(request.read_mask.as_ref())?;
        let snapshot = self.registry(&request.registry)?.snapshot();
        let page =
            snapshot.list(&query(request).map_err(|e| Status::invalid_argument(e.to_string()))?);
        Ok(ListServersResponse {
            servers: page.items.iter().map(|served| mask.server(served)).collect(),
            next_page_token: page.next.map(|cursor| cursor.encode()).unwrap_or_default(),
            revision: snapshot.revision,
        })
    }

    fn get(&self, request: &GetServerRequest) -> Result<Server, Status> {
        let registry = self.registry(&request.registry)?;
        check_name(&request.name)?;
        let snapshot = registry.snapshot();
        let found = match request.version.as_str() {
            "" | "latest" => snapshot.latest(&request.name, request.include_deleted),
            version => snapshot
                .get(&request.name, version)
                .filter(|served| request.include_deleted || !served.is_deleted()),
        };
        let mask = Mask::of(request.read_mask.as_ref())?;
        found.map(|served| mask.server(served)).ok_or_else(|| Status::not_found("server not found"))
    }

    fn versions(&self, request: &ListVersionsRequest) -> Result<ListVersionsResponse, Status> {
        let registry = self.registry(&request.registry)?;
        check_name(&request.name)?;
        let versions = registry.snapshot().versions(&request.name, request.include_deleted);
        if versions.is_empty() {
            return Err(Status::not_found("server not found"));
        }
        let mask = Mask::of(request.read_mask.as_ref())?;
        Ok(ListVersionsResponse { versions: versions.iter().map(|v| mask.server(v)).collect() })
    }
}

fn check_name(name: &str) -> Result<(), Status> {
    match ServerName::parse(name) {
        Ok(_) => Ok(()),
        Err(error) => Err(Status::invalid_argument(format!("name: {error}"))),
    }
}

fn query(request: &ListServersRequest) -> Result<Query, QueryError> {
    let mut query = Query { include_deleted: request.include_deleted, ..Query::default() };
    if request.page_size > 0 {
        query.limit(usize::try_from(request.page_size).map_err(|_| QueryError::Limit)?)?;
    }
    if !request.page_token.is_empty() {
        query.after = Some(Cursor::decode(&request.page_token)?.0);
    }
    query.search(&request.search)?;
    query.version(&request.version)?;
    if let Some(since) = &request.updated_since {
        let since = Timestamp::new(since.seconds, since.nanos);
        query.updated_since = Some(since.map_err(|_| QueryError::UpdatedSince)?);
    }
    Ok(query)
}

type Events = Pin<Box<dyn Stream<Item = Result<WatchServersResponse, Status>> + Send>>;

#[tonic::async_trait]
impl CatalogueService for Consumer {
    type WatchServersStream = Events;

    async fn list_servers(
        &self,
        request: Request<ListServersRequest>,
    ) -> Result<Response<ListServersResponse>, Status> {
        self.counted("ListServers", self.list(&request.into_inner())).map(Response::new)
    }

    async fn get_server(
        &self,
        request: Request<GetServerRequest>,
    ) -> Result<Response<Server>, Status> {
        self.counted("GetServer", self.get(&request.into_inner())).map(Response::new)
    }

    async fn list_versions(
        &self,
        request: Request<ListVersionsRequest>,
    ) -> Result<Response<ListVersionsResponse>, Status> {
        self.counted("ListVersions", self.versions(&request.into_inner())).map(Response::new)
    }

    async fn watch_servers(
        &self,
        request: Request<WatchServersRequest>,
    ) -> Result<Response<Events>, Status> {
        let client = request.remote_addr().map(|address| address.ip());
        let request = request.into_inner();
        let checked = self.registry(&request.registry).and_then(|registry| {
            if request.resume_token.len() > 256 {
                return Err(Status::invalid_argument("resume_token is none of this service's"));
            }
            let mask = Mask::of(request.read_mask.as_ref())?.with_key();
            Ok((registry, mask, self.watches.open(client)?))
        });
        let (registry, mask, watch) = self.counted("WatchServers", checked)?;
        Ok(Response::new(Box::pin(self.watch(registry, request.resume_token, mask, watch))))
    }
}

impl Consumer {
    /// Sends a snapshot or a catch-up, then every later state. Nothing is queued: each round
    /// sends what changed since the last one, read from the snapshot of that moment, when the
    /// client is ready to take it.
    fn watch(
        &self,
        registry: Arc<Registry>,
        resume_token: String,
        mask: Mask,
        watch: Watch,
    ) -> impl Stream<Item = Result<WatchServersResponse, Status>> + Send + use<> {
        let catalogue = self.catalogue.clone();
        let mut revisions = registry.revisions();
        let stop = self.stop.clone();
        let watching = self.metrics.watcher();
        async_stream::stream! {
            let _watching = (watching, watch);
            revisions.mark_unchanged();
            let snapshot = registry.snapshot();
            let mut seen = match resumable(&resume_token, &snapshot) {
                Some(revision) => revision,
                None => {
                    yield Ok(response(Event::SnapshotBegin(SnapshotBegin {}), String::new()));
                    for served in snapshot.live() {
                        yield Ok(response(Event::Upserted(mask.server(served)), String::new()));
                    }
                    snapshot.revision
                }
            };
            for served in snapshot.since(seen) {
                yield Ok(response(change(served, mask), token(&snapshot, served.revision)));
            }
            seen = seen.max(snapshot.revision);
            yield Ok(response(Event::SnapshotEnd(SnapshotEnd {}), token(&snapshot, seen)));
            drop(snapshot);
            loop {
                tokio::select! {
                    changed = revisions.changed() => if changed.is_err() { break },
                    () = stop.cancelled() => break,
                }
                // A new configuration puts another object in its place.
                let Some(registry) = catalogue.registry(&registry.name) else { break };
                let snapshot = registry.snapshot();
                if seen < snapshot.compacted {
                    // Deletions that this client has not seen are forgotten.
                    yield Ok(response(Event::SnapshotBegin(SnapshotBegin {}), String::new()));
                    for served in snapshot.live() {
                        yield Ok(response(Event::Upserted(mask.server(served)), String::new()));
                    }
                    yield Ok(response(Event::SnapshotEnd(SnapshotEnd {}), token(&snapshot, snapshot.revision)));
                } else {
                    for served in snapshot.since(seen) {
                        yield Ok(response(change(served, mask), token(&snapshot, served.revision)));
                    }
                }
                seen = seen.max(snapshot.revision);
            }
            yield Err(Status::unavailable("the registry is shutting down; resume with the last token"));
        }
    }
}

/// The revision from which a token can be resumed; `None` where a fresh snapshot is needed.
fn resumable(token: &str, snapshot: &Snapshot) -> Option<u64> {
    let (epoch, revision) = token.rsplit_once(':')?;
    let revision: u64 = revision.parse().ok()?;
    let known = (snapshot.compacted..=snapshot.revision).contains(&revision);
    (epoch == &*snapshot.epoch && known).then_some(revision)
}

fn token(snapshot: &Snapshot, revision: u64) -> String {
    format!("{}:{revision}", snapshot.epoch)
}

fn change(served: &Served, mask: Mask) -> Event {
    if served.is_deleted() {
        Event::Removed(Removed {
            name: served.key.name.to_string(),
            version: served.key.version.to_string(),
        })
    } else {
        Event::Upserted(mask.server(served))
    }
}

fn response(event: Event, resume_token: String) -> WatchServersResponse {
    WatchServersResponse { event: Some(event), resume_token }
}
