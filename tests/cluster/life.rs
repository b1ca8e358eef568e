//! The life of a route, step by step: after each, the registry, the Events and `explain` are right.

use serde_json::{Value, json};

use crate::common::{self, Registry, get, names};
use crate::harness::{Cluster, Discovery, blocking, gateway_api, namespace, serves};

fn gateway(name: &str, hostname: Option<&str>, address: Option<&str>) -> Value {
    let mut gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": name, "namespace": "infra"},
        "spec": {"gatewayClassName": "any", "listeners": [{
            "name": "web", "protocol": "HTTP", "port": 80,
            "allowedRoutes": {"namespaces": {"from": "Selector", "selector": {"matchLabels": {"mcp": "yes"}}}}
        }]},
        "status": {"addresses": [], "conditions": [{
            "type": "Programmed", "status": "True", "reason": "Programmed", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"
        }]}
    });
    if let Some(hostname) = hostname {
        gateway["spec"]["listeners"][0]["hostname"] = json!(hostname);
    }
    if let Some(address) = address {
        gateway["status"]["addresses"] = json!([{"type": "IPAddress", "value": address}]);
    }
    gateway
}

fn route(hostname: Option<&str>, export: Option<&str>, parent: &str) -> Value {
    let mut route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "github", "namespace": "apps"},
        "spec": {
            "parentRefs": [{"name": parent, "namespace": "infra"}],
            "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/mcp"}}],
                       "backendRefs": [{"name": "github", "port": 8080}]}]
        }
    });
    if let Some(hostname) = hostname {
        route["spec"]["hostnames"] = json!([hostname]);
    }
    if let Some(export) = export {
        route["metadata"]["annotations"] = json!({"toolhive.stacklok.dev/registry-export": export});
    }
    route
}

fn accepted(mut route: Value) -> Value {
    let parent = route["spec"]["parentRefs"][0].clone();
    route["status"] = json!({"parents": [{
        "parentRef": parent,
        "controllerName": "example.com/controller",
        "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]
    }]});
    route
}

const ROUTE: &str = "HTTPRoute/github";
const EXPLAINED: &str = "httproute/apps/github";

/// Waits until all three say it: URLs, codes of problems, and an Event with a text.
async fn is_so(
    (cluster, discovery, registry): (&Cluster, &Discovery, &Registry),
    urls: &[&str],
    codes: &[&str],
    (reason, text): (&str, &str),
) {
    blocking(|| {
        discovery.explains(EXPLAINED, urls, codes);
        serves(registry, urls);
    });
    cluster.event("apps", ROUTE, reason, text).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn of_a_route_and_of_the_api_server() {
    let cluster = Cluster::start().await;
    let account = cluster.cluster_account().await;
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path(), "127.0.0.1:0", &[]);
    // Gateway API is not installed yet: that is waited for, not an error.
    let mut discovery = Discovery::start(&account, &registry.grpc, &[]);
    discovery.waymark.line(&["the cluster was listed"]);
    for plural in ["gateways", "httproutes", "referencegrants", "listenersets"] {
        cluster.install(&gateway_api(plural)).await;
    }
    cluster.apply(&namespace("infra", &json!({}))).await;
    cluster.apply(&namespace("apps", &json!({}))).await;
    cluster.apply(&gateway("public", None, None)).await;

    // Created; nobody asked for it to be published.
    cluster.apply(&route(None, None, "public")).await;
    blocking(|| discovery.explains(EXPLAINED, &[], &["404"]));
    // Annotated; accepted, but of a namespace that may not; then of one that may.
    cluster.apply(&route(None, Some("true"), "public")).await;
    is_so(
        (&cluster, &discovery, &registry),
        &[],
        &["RouteNotAccepted"],
        ("RouteNotAccepted", "No controller"),
    )
    .await;
    cluster.apply(&accepted(route(None, Some("true"), "public"))).await;
    is_so(
        (&cluster, &discovery, &registry),
        &[],
        &["NamespaceNotAllowed"],
        ("NamespaceNotAllowed", "apps"),
    )
    .await;
    cluster.apply(&namespace("apps", &json!({"mcp": "yes"}))).await;
    is_so((&cluster, &discovery, &registry), &[], &["NoAddress"], ("NoAddress", "infra/public"))
        .await;
    // The Gateway gets its address.
    cluster.apply(&gateway("public", None, Some("203.0.113.7"))).await;
    let discovered = (
        "EndpointDiscovered",
        "http://203.0.113.7/mcp (streamable-http) as com.toolhive.k8s.apps/github 1.0.0, by Gateway infra/public listener web",
    );
    is_so((&cluster, &discovery, &registry), &["http://203.0.113.7/mcp"], &[], discovered).await;
    // The hostname changes: another URL and, with it, another name.
    cluster.apply(&accepted(route(Some("a.example.com"), Some("true"), "public"))).await;
    let updated = (
        "EndpointUpdated",
        "Now published: http://a.example.com/mcp as com.example.a/github. Before: http://203.0.113.7/mcp",
    );
    is_so((&cluster, &discovery, &registry), &["http://a.example.com/mcp"], &[], updated).await;
    blocking(|| assert_eq!(names(&registry.rest, ""), ["com.example.a/github"]));
    let explained = blocking(|| {
        let mut command = common::binary();
        command.env("KUBECONFIG", &account);
        command.args(["explain", "gateway", "infra/public"]).output().unwrap()
    });
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(explained.status.success() && text.contains("http://a.example.com/mcp"), "{text}");
    blocking(|| discovery.explains("gateways/infra/public", &["http://a.example.com/mcp"], &[]));
    // The Gateway alone: its listener serves other hosts, then these again.
    cluster.apply(&gateway("public", Some("*.other.com"), None)).await;
    let removed = ("EndpointRemoved", "Not published any more: http://a.example.com/mcp");
    is_so((&cluster, &discovery, &registry), &[], &["HostnameMismatch"], removed).await;
    cluster.event("apps", ROUTE, "HostnameMismatch", "other.com").await;
    cluster.apply(&gateway("public", Some("*.example.com"), None)).await;
    let discovered = ("EndpointDiscovered", "Published: http://a.example.com/mcp");
    is_so((&cluster, &discovery, &registry), &["http://a.example.com/mcp"], &[], discovered).await;
    // The route moves to another Gateway.
    let mut other = gateway("other", Some("*.example.org"), None);
    other["spec"]["listeners"][0]["port"] = json!(8080);
    cluster.apply(&other).await;
    cluster.apply(&accepted(route(Some("a.example.org"), Some("true"), "other"))).await;
    let updated = ("EndpointUpdated", "Now published: http://a.example.org:8080/mcp");
    is_so((&cluster, &discovery, &registry), &["http://a.example.org:8080/mcp"], &[], updated)
        .await;
    cluster.apply(&accepted(route(Some("a.example.com"), Some("true"), "public"))).await;
    let updated = ("EndpointUpdated", "Now published: http://a.example.com/mcp");
    is_so((&cluster, &discovery, &registry), &["http://a.example.com/mcp"], &[], updated).await;

    // The API server dies: what is published stays, and what happens later is seen.
    cluster.kill_apiserver();
    discovery.waymark.line(&["a watch broke"]);
    blocking(|| serves(&registry, &["http://a.example.com/mcp"]));
    cluster.start_apiserver().await;
    cluster.apply(&accepted(route(Some("c.example.com"), Some("true"), "public"))).await;
    let updated = ("EndpointUpdated", "Now published: http://c.example.com/mcp");
    is_so((&cluster, &discovery, &registry), &["http://c.example.com/mcp"], &[], updated).await;

    // A restart tells nothing again.
    let told = cluster.events("apps").await;
    discovery.waymark.stop();
    let discovery = Discovery::start(&account, &registry.grpc, &[]);
    blocking(|| discovery.until_ready());
    // What comes after is told, so what came before would have been.
    cluster.apply(&accepted(route(Some("d.example.com"), Some("true"), "public"))).await;
    let updated =
        ("EndpointUpdated", "http://d.example.com/mcp as com.example.d/github. Before: http://c");
    is_so((&cluster, &discovery, &registry), &["http://d.example.com/mcp"], &[], updated).await;
    let now = cluster.events("apps").await;
    assert_eq!(now.len(), told.len() + 1, "{now:#?}");

    // The annotation is removed; set again; the route is deleted.
    let api: kube::Api<kube::api::DynamicObject> = kube::Api::namespaced_with(
        cluster.client.clone(),
        "apps",
        &kube::discovery::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(
            "gateway.networking.k8s.io",
            "v1",
            "HTTPRoute",
        )),
    );
    let annotate = |value: Value| {
        let patch =
            json!({"metadata": {"annotations": {"toolhive.stacklok.dev/registry-export": value}}});
        let api = api.clone();
        async move {
            let params = kube::api::PatchParams::default();
            api.patch("github", &params, &kube::api::Patch::Merge(&patch)).await.unwrap();
        }
    };
    annotate(Value::Null).await;
    let removed = (
        "EndpointRemoved",
        "http://d.example.com/mcp as com.example.d/github; the HTTPRoute is gone or not opted in any more",
    );
    is_so((&cluster, &discovery, &registry), &[], &["404"], removed).await;
    annotate(json!("yes")).await;
    is_so(
        (&cluster, &discovery, &registry),
        &[],
        &["InvalidAnnotation"],
        ("InvalidAnnotation", "registry-export"),
    )
    .await;
    annotate(json!("true")).await;
    let discovered = ("EndpointDiscovered", "Published: http://d.example.com/mcp");
    is_so((&cluster, &discovery, &registry), &["http://d.example.com/mcp"], &[], discovered).await;
    let metrics = blocking(|| get(&format!("{}/metrics", discovery.admin)));
    let metrics = String::from_utf8(metrics.body).unwrap();
    for line in [
        "waymark_discovery_objects 1",
        "waymark_discovery_endpoints 1",
        "waymark_discovery_leader 1",
        "waymark_publish_synced 1",
        "waymark_discovery_events_total{reason=\"EndpointDiscovered\"} 1",
        "waymark_discovery_watch_listed{resource=\"httproutes.gateway.networking.k8s.io\"} 1",
    ] {
        assert!(metrics.lines().any(|l| l == line), "no {line} in\n{metrics}");
    }
    cluster.delete(&route(None, None, "public")).await;
    is_so((&cluster, &discovery, &registry), &[], &["404"], removed).await;
    discovery.waymark.stop();
    registry.waymark.stop();
}
