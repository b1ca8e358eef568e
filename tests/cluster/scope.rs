//! Narrow scopes, with no more permissions than they need.

use serde_json::{Value, json};

use crate::common::Registry;
use crate::harness::{Cluster, Discovery, blocking, namespace, object, serves};

fn accepted(parents: &[(&str, &str)]) -> Value {
    let parent = |(namespace, name): &(&str, &str)| {
        json!({
            "parentRef": {"name": name, "namespace": namespace},
            "controllerName": "example.com/controller",
            "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]
        })
    };
    json!({"parents": parents.iter().map(parent).collect::<Vec<Value>>()})
}

fn route(namespace: &str, name: &str, team: &str, parents: &[(&str, &str)]) -> Value {
    let mut route = object("gateway.networking.k8s.io/v1", "HTTPRoute", namespace, name);
    route["metadata"]["labels"] = json!({ "team": team });
    route["metadata"]["annotations"] = json!({"toolhive.stacklok.dev/registry-export": "true"});
    let refs = |(namespace, name): &(&str, &str)| json!({"name": name, "namespace": namespace});
    route["spec"] = json!({
        "parentRefs": parents.iter().map(refs).collect::<Vec<Value>>(),
        "hostnames": [format!("{name}.example.com")],
        "rules": [{"backendRefs": [{"name": "x", "port": 8080}]}]
    });
    route["status"] = accepted(parents);
    route
}

fn gateway(namespace: &str, name: &str, class: &str, port: u16) -> Value {
    let mut gateway = object("gateway.networking.k8s.io/v1", "Gateway", namespace, name);
    gateway["spec"] = json!({"gatewayClassName": class, "listeners": [{
        "name": "web", "protocol": "HTTP", "port": port, "allowedRoutes": {"namespaces": {"from": "All"}}
    }]});
    gateway["status"] = json!({"conditions": [{"type": "Programmed", "status": "True",
        "reason": "Programmed", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    gateway
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn namespaces_gateways_classes_and_selectors() {
    const APPS: &str = "scope-apps";
    const OTHER: &str = "scope-other";
    const INFRA: &str = "scope-infra";
    const SYSTEM: &str = "scope-system";
    let cluster = Cluster::shared().await;
    let account = cluster.account(SYSTEM).await;
    for name in [APPS, OTHER, INFRA] {
        cluster.apply(&namespace(name, &json!({}))).await;
    }
    let bind = |document: &mut Value, name: &str| {
        document["metadata"]["namespace"] = json!(name);
        if let Some(subjects) = document.get_mut("subjects") {
            subjects[0]["namespace"] = json!(SYSTEM);
        }
    };
    cluster.apply_shipped("watched-namespace.yaml", |document| bind(document, APPS)).await;
    // Of the Gateway's namespace it may see the one Gateway, and nothing else.
    cluster
        .apply_shipped("watched-namespace.yaml", |document| {
            bind(document, INFRA);
            if document["kind"] == "Role" {
                document["rules"] = json!([{
                    "apiGroups": ["gateway.networking.k8s.io"], "resources": ["gateways"],
                    "resourceNames": ["public"], "verbs": ["list", "watch"]
                }]);
            }
        })
        .await;
    cluster.apply(&gateway(INFRA, "public", "edge", 80)).await;
    cluster.apply(&gateway(INFRA, "private", "mesh", 8080)).await;
    cluster.apply(&gateway(APPS, "own", "mesh", 9090)).await;
    let both = [(INFRA, "public"), (INFRA, "private"), (APPS, "own")];
    cluster.apply(&route(APPS, "a", "red", &both)).await;
    cluster.apply(&route(APPS, "b", "blue", &both)).await;
    cluster.apply(&route(OTHER, "c", "red", &both)).await;

    let public = format!("{INFRA}/public");
    let cases: [(&[&str], &[&str]); 4] = [
        (&["-n", APPS, "--gateway", &public], &["http://a.example.com/", "http://b.example.com/"]),
        (
            &["-n", APPS, "--gateway", &public, "--route-selector", "team=red"],
            &["http://a.example.com/"],
        ),
        (&["-n", APPS, "--gateway", &public, "--gateway-class", "mesh"], &[]),
        (
            &["-n", APPS, "--gateway-class", "mesh"],
            &["http://a.example.com:9090/", "http://b.example.com:9090/"],
        ),
    ];
    for (args, urls) in cases {
        let data = tempfile::tempdir().unwrap();
        let registry = Registry::start(data.path(), "127.0.0.1:0", &[]);
        let args = [args, &["--leader-elect=false", "--events=false"]].concat();
        let mut discovery = Discovery::start(&account, &registry.grpc, &args);
        blocking(|| discovery.until_ready());
        blocking(|| serves(&registry, urls));
        if args.contains(&"--gateway") {
            let (_, codes) = blocking(|| discovery.explain("httproute/scope-apps/a"));
            assert!(codes.contains(&"GatewayNotSelected".to_owned()), "{codes:?}");
        }
        discovery.waymark.drain();
        let log = discovery.waymark.seen.join("\n");
        assert!(!log.contains("RBAC does not allow"), "{log}");
        discovery.waymark.stop();
        registry.waymark.stop();
    }
}
