//! The gateway plugin: a real Envoy, configured as the shipped example is, in front of real HTTP
//! servers; and the documents at the gateway's hosts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;
mod documents;
mod envoy;
#[path = "../common/session.rs"]
mod session;
#[path = "../common/web.rs"]
mod web;

use std::path::Path;

use serde_json::{Value, json};

use common::{Registry, Waymark};

/// A registry, and a discovery that publishes routes of a folder to it.
struct Published {
    folder: tempfile::TempDir,
    registry: Registry,
    _discovery: Waymark,
}

/// An annotated route at a host and a path.
fn route(name: &str, host: &str, path: &str) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "apps",
            "annotations": {"toolhive.stacklok.dev/registry-export": "true"}},
        "spec": {"parentRefs": [{"name": "gw", "namespace": "infra"}], "hostnames": [host],
            "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": path}}],
                "backendRefs": [{"name": "backend", "port": 80}]}]}})
}

fn write(folder: &Path, routes: &[Value]) {
    let gateway = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "gw", "namespace": "infra"},
        "spec": {"gatewayClassName": "x", "listeners": [
            {"name": "http", "protocol": "HTTP", "port": 80,
                "allowedRoutes": {"namespaces": {"from": "All"}}}]}});
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "backend", "namespace": "apps"}, "spec": {"ports": [{"port": 80}]}});
    let all: Vec<String> =
        [gateway, service].iter().chain(routes).map(ToString::to_string).collect();
    let new = folder.join("new");
    std::fs::write(&new, all.join("\n---\n")).unwrap();
    std::fs::rename(new, folder.join("all.yaml")).unwrap();
}

impl Published {
    fn start(routes: &[Value], more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let manifests = folder.path().join("manifests");
        std::fs::create_dir(&manifests).unwrap();
        write(&manifests, routes);
        // Publishing is over the socket, so that gRPC may speak TLS to others.
        let registry = Registry::start(&folder.path().join("data"), "127.0.0.1:0", more);
        let discovery = Waymark::start(&[
            "discovery",
            "--assume-accepted",
            "--admin-addr",
            "off",
            "--registry",
            &registry.grpc,
            "--manifests",
            manifests.to_str().unwrap(),
        ]);
        Self { folder, registry, _discovery: discovery }
    }

    fn publish(&self, routes: &[Value]) {
        write(&self.folder.path().join("manifests"), routes);
    }
}
