//! Every kind of object that the rules read: a change of it alone reaches the registry. In two
//! namespaces, with the shipped Role.
#![allow(clippy::needless_pass_by_value)] // JSON literals read better without &.

use serde_json::{Value, json};

use crate::common::{Registry, eventually, get};
use crate::harness::{Cluster, Discovery, blocking, namespace, object, served};

const APPS: &str = "kinds-apps";
const INFRA: &str = "kinds-infra";
const SYSTEM: &str = "kinds-system";

fn with(mut object: Value, fields: Value) -> Value {
    for (field, value) in fields.as_object().unwrap() {
        match (field.as_str(), object.get_mut(field)) {
            ("metadata", Some(metadata)) => {
                metadata.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
            }
            _ => object[field] = value.clone(),
        }
    }
    object
}

fn gateway(name: &str, spec: Value, address: &str) -> Value {
    let gateway = object("gateway.networking.k8s.io/v1", "Gateway", INFRA, name);
    let mut spec = spec;
    spec["gatewayClassName"] = json!("any");
    with(
        gateway,
        json!({"spec": spec, "status": {
            "addresses": [{"type": "IPAddress", "value": address}],
            "conditions": [{"type": "Programmed", "status": "True", "reason": "Programmed",
                "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
        }}),
    )
}

/// A route of a host to a Service, by the Gateway `open` or another parent.
fn route(name: &str, parent: &Value, backend: &Value) -> Value {
    let route = object("gateway.networking.k8s.io/v1", "HTTPRoute", APPS, name);
    with(
        route,
        json!({
            "metadata": {"annotations": {"toolhive.stacklok.dev/registry-export": "true"}},
            "spec": {
                "parentRefs": [parent],
                "hostnames": [format!("{name}.example.com")],
                "rules": [{"backendRefs": [backend]}]
            },
            "status": {"parents": [{
                "parentRef": parent, "controllerName": "example.com/controller",
                "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted",
                    "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
            }]}
        }),
    )
}

fn toolhive(kind: &str, name: &str, spec: Value) -> Value {
    let version = if kind == "MCPRemoteEndpoint" { "v1alpha1" } else { "v1beta1" };
    let resource = object(&format!("toolhive.stacklok.dev/{version}"), kind, APPS, name);
    with(resource, json!({ "spec": spec }))
}

fn at_url(resource: Value, url: &str) -> Value {
    with(
        resource,
        json!({"metadata": {"annotations": {"toolhive.stacklok.dev/registry-url": url}}}),
    )
}

fn service(name: &str, owner: Option<(&str, &str, &str)>) -> Value {
    let service = object("v1", "Service", APPS, name);
    let owner = owner.map(|(version, kind, name)| {
        json!({"apiVersion": version, "kind": kind, "name": name, "uid": "0-0", "controller": true})
    });
    with(
        service,
        json!({
            "metadata": {"ownerReferences": owner.into_iter().collect::<Vec<Value>>()},
            "spec": {"ports": [{"port": 8080}]}
        }),
    )
}

/// What there is, how the object is then explained, the one change, and how it is explained then.
struct Case {
    of: &'static str,
    given: Vec<Value>,
    before: (&'static [&'static str], &'static [&'static str]),
    change: Value,
    after: (&'static [&'static str], &'static [&'static str]),
}

fn cases() -> Vec<Case> {
    let open = json!({"name": "open", "namespace": INFRA});
    let http = json!({"name": "web", "protocol": "HTTP", "port": 80});
    let to = |name: &str| json!({"name": name, "port": 8080});
    let listener = |from: Value| {
        let mut listener = http.clone();
        listener["allowedRoutes"] = json!({ "namespaces": from });
        json!({ "listeners": [listener] })
    };
    let mut addressed = route("gw", &json!({"name": "addressed", "namespace": INFRA}), &to("x"));
    addressed["spec"].as_object_mut().unwrap().remove("hostnames");
    let all = listener(json!({"from": "All"}));
    let set = |host: &str| {
        let set = object("gateway.networking.k8s.io/v1", "ListenerSet", APPS, "set");
        with(
            set,
            json!({
                "spec": {
                    "parentRef": {"name": "sets", "namespace": INFRA},
                    "listeners": [{"name": "team", "protocol": "HTTP", "port": 80, "hostname": host}]
                },
                "status": {"conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted",
                    "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
            }),
        )
    };
    let mut sets = gateway("sets", all.clone(), "203.0.113.1");
    sets["spec"]["allowedListeners"] = json!({"namespaces": {"from": "All"}});
    let grant = object("gateway.networking.k8s.io/v1", "ReferenceGrant", INFRA, "grant");
    let grant = with(
        grant,
        json!({"spec": {
            "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": APPS}],
            "to": [{"group": "", "kind": "Service"}]
        }}),
    );
    let server = |name: &str, transport: &str| {
        toolhive("MCPServer", name, json!({"image": "example.com/x:2.0.0", "transport": transport}))
    };
    let proxy = |url: &str| toolhive("MCPRemoteProxy", "proxied", json!({ "remoteUrl": url }));
    let entry = toolhive(
        "MCPServerEntry",
        "entry",
        json!({"remoteUrl": "https://remote.example.org/mcp", "transport": "sse", "groupRef": {"name": "g"}}),
    );
    let endpoint = toolhive(
        "MCPRemoteEndpoint",
        "endpoint",
        json!({"type": "direct", "remoteURL": "https://remote.example.org/mcp"}),
    );
    let virtual_server = toolhive(
        "VirtualMCPServer",
        "virtual",
        json!({"groupRef": {"name": "g"}, "incomingAuth": {"type": "anonymous"}, "config": {}}),
    );
    let lifecycle = with(
        object("mcp.x-k8s.io/v1alpha1", "MCPServer", APPS, "managed"),
        json!({"status": {"serverInfo": {"name": "managed", "version": "3.1.4"}}}),
    );
    vec![
        Case {
            of: "httproute/kinds-apps/ns",
            given: vec![
                gateway(
                    "selective",
                    listener(
                        json!({"from": "Selector", "selector": {"matchLabels": {"mcp": "yes"}}}),
                    ),
                    "203.0.113.1",
                ),
                route("ns", &json!({"name": "selective", "namespace": INFRA}), &to("x")),
            ],
            before: (&[], &["NamespaceNotAllowed"]),
            change: namespace(APPS, &json!({"mcp": "yes"})),
            after: (&["http://ns.example.com/"], &[]),
        },
        Case {
            of: "httproute/kinds-apps/gw",
            given: vec![gateway("addressed", all.clone(), "203.0.113.2"), addressed],
            before: (&["http://203.0.113.2/"], &[]),
            change: gateway("addressed", all.clone(), "203.0.113.3"),
            after: (&["http://203.0.113.3/"], &[]),
        },
        Case {
            of: "httproute/kinds-apps/granted",
            given: vec![
                gateway("open", all, "203.0.113.1"),
                route("granted", &open, &json!({"name": "x", "namespace": INFRA, "port": 8080})),
            ],
            before: (&[], &["ReferenceNotGranted"]),
            change: grant,
            after: (&["http://granted.example.com/"], &[]),
        },
        Case {
            of: "httproute/kinds-apps/by-set",
            given: vec![sets, set("by-set.example.com"), {
                let parent = json!({"group": "gateway.networking.k8s.io", "kind": "ListenerSet", "name": "set"});
                route("by-set", &parent, &to("x"))
            }],
            before: (&["http://by-set.example.com/"], &[]),
            change: set("other.example.com"),
            after: (&[], &["HostnameMismatch"]),
        },
        Case {
            of: "httproute/kinds-apps/owned",
            given: vec![
                server("owner", "sse"),
                service("plain", None),
                route("owned", &open, &to("plain")),
            ],
            before: (&["http://owned.example.com/"], &[]),
            change: service("plain", Some(("toolhive.stacklok.dev/v1beta1", "MCPServer", "owner"))),
            after: (&["http://owned.example.com/sse"], &[]),
        },
        Case {
            of: "httproute/kinds-apps/transport",
            given: vec![
                server("transport", "streamable-http"),
                route("transport", &open, &to("mcp-transport-proxy")),
            ],
            before: (&["http://transport.example.com/mcp"], &[]),
            change: server("transport", "sse"),
            after: (&["http://transport.example.com/sse"], &[]),
        },
        Case {
            of: "httproute/kinds-apps/proxied",
            given: vec![
                proxy("https://remote.example.org/v1/mcp"),
                route("proxied", &open, &to("mcp-proxied-remote-proxy")),
            ],
            before: (&["http://proxied.example.com/v1/mcp"], &[]),
            change: proxy("https://remote.example.org/v2/mcp"),
            after: (&["http://proxied.example.com/v2/mcp"], &[]),
        },
        Case {
            of: "httproute/kinds-apps/virtual",
            given: vec![route("virtual", &open, &to("vmcp-virtual"))],
            before: (&["http://virtual.example.com/"], &[]),
            change: virtual_server,
            after: (&["http://virtual.example.com/mcp"], &[]),
        },
        Case {
            of: "mcpserverentry/kinds-apps/entry",
            given: vec![at_url(entry.clone(), "https://entry.example.org/a")],
            before: (&["https://entry.example.org/a"], &[]),
            change: at_url(entry, "https://entry.example.org/b"),
            after: (&["https://entry.example.org/b"], &[]),
        },
        Case {
            of: "mcpremoteendpoint/kinds-apps/endpoint",
            given: vec![at_url(endpoint.clone(), "https://endpoint.example.org/a")],
            before: (&["https://endpoint.example.org/a"], &[]),
            change: at_url(endpoint, "https://endpoint.example.org/b"),
            after: (&["https://endpoint.example.org/b"], &[]),
        },
        Case {
            of: "httproute/kinds-apps/managed",
            given: vec![
                service("managed", Some(("mcp.x-k8s.io/v1alpha1", "MCPServer", "managed"))),
                route("managed", &open, &to("managed")),
            ],
            before: (&["http://managed.example.com/"], &[]),
            change: lifecycle,
            // Only its version changes.
            after: (&["http://managed.example.com/"], &[]),
        },
    ]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: cargo xtask test"]
async fn a_change_of_each_kind_alone_reaches_the_registry() {
    let cluster = Cluster::shared().await;
    let account = cluster.account(SYSTEM).await;
    for name in [APPS, INFRA] {
        cluster.apply(&namespace(name, &json!({}))).await;
        cluster
            .apply_shipped("watched-namespace.yaml", |document| {
                document["metadata"]["namespace"] = json!(name);
                if let Some(subjects) = document.get_mut("subjects") {
                    subjects[0]["namespace"] = json!(SYSTEM);
                }
            })
            .await;
    }
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path(), "127.0.0.1:0", &[]);
    let discovery = Discovery::start(
        &account,
        &registry.grpc,
        &["-n", APPS, "-n", INFRA, "--leader-elect=false", "--events=false"],
    );
    for case in cases() {
        for given in &case.given {
            cluster.apply(given).await;
        }
        blocking(|| discovery.explains(case.of, case.before.0, case.before.1));
        let old: Vec<String> = case.before.0.iter().map(|url| (*url).to_owned()).collect();
        let new: Vec<String> = case.after.0.iter().map(|url| (*url).to_owned()).collect();
        let has = |urls: &[String]| {
            let served = served(&registry);
            urls.iter().all(|url| served.contains(url))
        };
        blocking(|| eventually(case.of, || has(&old).then_some(())));
        cluster.apply(&case.change).await;
        blocking(|| discovery.explains(case.of, case.after.0, case.after.1));
        blocking(|| {
            eventually(case.of, || {
                let gone =
                    old.iter().all(|url| new.contains(url) || !has(std::slice::from_ref(url)));
                (has(&new) && gone).then_some(())
            });
        });
    }
    // What the last case changed.
    let versions =
        format!("{}/v0.1/servers/com.example.managed%2Fmanaged/versions/3.1.4", registry.rest);
    blocking(|| eventually("the new version", || (get(&versions).status == 200).then_some(())));
    discovery.waymark.stop();
    registry.waymark.stop();
}
