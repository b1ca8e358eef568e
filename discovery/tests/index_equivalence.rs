//! For any sequence of events, the index's outcome equals that of a new index which is given the
//! final objects only; and who follows its changes has the same in the end.

#![allow(
    clippy::needless_pass_by_value,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::Config;
use serde_json::{Value, json};
use waymark_discovery::explanation::Published;
use waymark_discovery::settings::{DEFAULT_PREFIX, Delegation};
use waymark_discovery::{Code, Index, Key, Kind, Settings, object};

/// Something that happens.
#[derive(Debug, Clone)]
enum Event {
    Upsert(Value),
    Delete(Kind, &'static str, &'static str),
    Commit,
}

const NAMESPACES: [&str; 2] = ["a", "b"];
const NAMES: [&str; 4] = ["w", "x", "y", "z"];

fn namespace() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&NAMESPACES[..])
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&NAMES[..])
}

fn created() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(&[None, Some("2026-01-01T00:00:00Z"), Some("2026-01-02T00:00:00Z")][..])
}

fn hostname() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(
        &[None, Some("m.co"), Some("m.co"), Some("*.co"), Some("n.co"), Some("*.m.co")][..],
    )
}

fn metadata(namespace: &str, name: &str, created: Option<&str>, annotations: Value) -> Value {
    let annotations: BTreeMap<String, &Value> = annotations
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (format!("{DEFAULT_PREFIX}{key}"), value))
        .collect();
    json!({"namespace": namespace, "name": name, "creationTimestamp": created, "annotations": annotations})
}

fn listeners() -> impl Strategy<Value = Value> {
    let from = prop::sample::select(vec![
        json!({"from": "All"}),
        json!({"from": "All"}),
        json!({"from": "Same"}),
        json!({"from": "Selector", "selector": {"matchLabels": {"l": "1"}}}),
    ]);
    let listener = (hostname(), any::<bool>(), from).prop_map(|(hostname, https, from)| {
        let (protocol, port) = if https { ("HTTPS", 443) } else { ("HTTP", 80) };
        json!({"name": protocol, "protocol": protocol, "port": port, "hostname": hostname,
               "allowedRoutes": {"namespaces": from}})
    });
    prop::collection::vec(listener, 1..3).prop_map(Value::from)
}

fn gateway() -> impl Strategy<Value = Value> {
    let host = prop::sample::select(&[None, None, Some("gw.co")][..]);
    let sets = prop::sample::select(&["All", "Same", "None"][..]);
    (namespace(), name(), listeners(), prop::bool::weighted(0.8), host, sets).prop_map(
        |(namespace, name, listeners, programmed, host, sets)| {
            let programmed = if programmed { "True" } else { "False" };
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
                "metadata": metadata(namespace, name, None, json!({"registry-host": host})),
                "spec": {"listeners": listeners, "allowedListeners": {"namespaces": {"from": sets}}},
                "status": {"conditions": [{"type": "Programmed", "status": programmed}],
                           "addresses": [{"value": "203.0.113.1"}]}
            })
        },
    )
}

fn listener_set() -> impl Strategy<Value = Value> {
    (namespace(), name(), listeners(), namespace(), name()).prop_map(
        |(namespace, name, listeners, of, parent)| {
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "ListenerSet",
                "metadata": metadata(namespace, name, None, json!({})),
                "spec": {"parentRef": {"namespace": of, "name": parent}, "listeners": listeners},
                "status": {"conditions": [{"type": "Accepted", "status": "True"}]}
            })
        },
    )
}

fn route() -> impl Strategy<Value = Value> {
    let export = prop::sample::select(
        &["true", "true", "true", "true", "true", "true", "false", "maybe"][..],
    );
    let explicit = prop::sample::select(
        &[None, None, None, Some("w"), Some("x"), Some("co.m/w"), Some("co.m/free"), Some("x-w")][..],
    );
    let version = prop::sample::select(&[None, None, Some("2.0.0")][..]);
    let link = prop::sample::select(&[None, None, None, None, Some("cat.alogue/s")][..]);
    let kind = prop::sample::select(&["Gateway", "Gateway", "Gateway", "ListenerSet"][..]);
    let parent = (kind, namespace(), name());
    let backend = (
        prop::sample::select(&["svc-w", "mcp-w-proxy", "mcp-x-proxy", "mcp-y-proxy"][..]),
        prop::option::weighted(0.3, namespace()),
        prop::sample::select(&["/", "/mcp", "/p"][..]),
    );
    (
        (namespace(), name(), created()),
        (export, explicit, version, link),
        prop::collection::vec(parent, 1..3),
        prop::collection::vec(backend, 1..3),
        hostname(),
    )
        .prop_map(|((namespace, name, created), annotations, parents, backends, hostname)| {
            let (export, explicit, version, link) = annotations;
            let parents: Vec<Value> = parents
                .into_iter()
                .map(|(kind, ns, name)| json!({"kind": kind, "namespace": ns, "name": name}))
                .collect();
            let status: Vec<Value> = parents
                .iter()
                .map(|p| json!({"parentRef": p, "conditions": [{"type": "Accepted", "status": "True"}]}))
                .collect();
            let rules: Vec<Value> = backends
                .into_iter()
                .map(|(service, ns, path)| {
                    json!({"matches": [{"path": {"value": path}}], "backendRefs": [{"name": service, "namespace": ns}]})
                })
                .collect();
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
                "metadata": metadata(namespace, name, created, json!({
                    "registry-export": export, "registry-name": explicit,
                    "registry-version": version, "registry-server": link
                })),
                "spec": {"parentRefs": parents, "rules": rules,
                         "hostnames": hostname.map(|hostname| json!([hostname]))},
                "status": {"parents": status}
            })
        })
}

fn mcp_server() -> impl Strategy<Value = Value> {
    let url = prop::sample::select(&[None, None, None, Some("https://m.co/direct")][..]);
    let transport = prop::sample::select(&["stdio", "sse"][..]);
    let named = prop::sample::select(&[None, None, Some("w")][..]);
    (namespace(), name(), created(), url, transport, named).prop_map(
        |(namespace, name, created, url, transport, named)| {
            json!({
                "apiVersion": "toolhive.stacklok.dev/v1beta1", "kind": "MCPServer",
                "metadata": metadata(namespace, name, created, json!({"registry-url": url, "registry-name": named})),
                "spec": {"image": "i:1.2.3", "transport": transport}
            })
        },
    )
}

fn other() -> impl Strategy<Value = Value> {
    let labelled = (namespace(), any::<bool>()).prop_map(|(name, labelled)| {
        let labels = if labelled { json!({"l": "1"}) } else { json!({}) };
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    });
    let service = (namespace(), prop::option::of(name())).prop_map(|(namespace, owner)| {
        let owner = owner.map(|name| {
            json!([{"apiVersion": "toolhive.stacklok.dev/v1beta1", "kind": "MCPServer", "name": name}])
        });
        json!({"apiVersion": "v1", "kind": "Service",
               "metadata": {"namespace": namespace, "name": "svc-w", "ownerReferences": owner.unwrap_or(json!([]))}})
    });
    let grant = (namespace(), name(), namespace()).prop_map(|(namespace, name, from)| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": from}],
                     "to": [{"group": "", "kind": "Service"}]}
        })
    });
    prop_oneof![labelled, service, grant]
}

fn event() -> impl Strategy<Value = Event> {
    let kinds = [
        Kind::HttpRoute,
        Kind::HttpRoute,
        Kind::Gateway,
        Kind::ListenerSet,
        Kind::McpServer,
        Kind::ReferenceGrant,
    ];
    prop_oneof![
        6 => route().prop_map(Event::Upsert),
        4 => gateway().prop_map(Event::Upsert),
        1 => listener_set().prop_map(Event::Upsert),
        3 => mcp_server().prop_map(Event::Upsert),
        2 => other().prop_map(Event::Upsert),
        3 => (prop::sample::select(kinds.to_vec()), namespace(), name())
            .prop_map(|(kind, namespace, name)| Event::Delete(kind, namespace, name)),
        3 => Just(Event::Commit),
    ]
}

fn settings() -> Settings {
    let delegation =
        Delegation { name_prefixes: vec!["co.m/free".into()], ..Delegation::default() };
    Settings { delegations: vec![delegation], ..Settings::default() }
}

type Standing = (Vec<Published>, Vec<Code>);

/// One who only reads what changed.
#[derive(Default)]
struct Follower {
    entries: BTreeMap<String, String>,
    standings: BTreeMap<Key, Standing>,
}

impl Follower {
    fn follow(&mut self, index: &mut Index) {
        let changes = index.commit();
        for id in &changes.entries {
            match index.entry(id) {
                Some(entry) => self.entries.insert(id.to_string(), format!("{entry:?}")),
                None => self.entries.remove(id.as_str()),
            };
        }
        for key in &changes.objects {
            match index.explain(key) {
                Some(explained) => {
                    let codes = explained.problems.iter().map(|p| p.code).collect();
                    self.standings.insert(key.clone(), (explained.published, codes))
                }
                None => self.standings.remove(key),
            };
        }
    }
}

proptest! {
    #![proptest_config(Config { cases: 3000, failure_persistence: None, ..Config::default() })]
    #[test]
    fn any_order_of_events_ends_the_same(events in prop::collection::vec(event(), 1..60)) {
        let mut index = Index::new(settings());
        let mut follower = Follower::default();
        let mut finally: BTreeMap<Key, Value> = BTreeMap::new();
        for event in events {
            match event {
                Event::Upsert(value) => {
                    let kind = Kind::ALL.into_iter().find(|k| *k == kind_of(&value)).unwrap();
                    let meta = &value["metadata"];
                    let namespace = meta["namespace"].as_str().unwrap_or_default();
                    let key = Key::new(kind, namespace, meta["name"].as_str().unwrap());
                    index.apply(object::parse(&value, DEFAULT_PREFIX).unwrap());
                    finally.insert(key, value);
                }
                Event::Delete(kind, namespace, name) => {
                    let key = Key::new(kind, namespace, name);
                    index.remove(&key);
                    finally.remove(&key);
                }
                Event::Commit => follower.follow(&mut index),
            }
        }
        follower.follow(&mut index);

        let mut anew = Index::new(settings());
        for value in finally.values() {
            anew.apply(object::parse(value, DEFAULT_PREFIX).unwrap());
        }
        let mut newcomer = Follower::default();
        newcomer.follow(&mut anew);

        prop_assert_eq!(index.outcome(), anew.outcome());
        prop_assert_eq!(index.entries(), anew.entries());
        prop_assert_eq!(&follower.entries, &newcomer.entries);
        prop_assert_eq!(&follower.standings, &newcomer.standings);
    }
}

fn kind_of(value: &Value) -> Kind {
    let group = value["apiVersion"].as_str().unwrap().rsplit_once('/').map_or("", |(g, _)| g);
    Kind::of(group, value["kind"].as_str().unwrap()).unwrap()
}

/// The sequences above are worth something only if they reach what they are meant to prove.
#[test]
fn the_events_reach_conflicts_suffixes_and_links() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..300 {
        let events = prop::collection::vec(event(), 60).new_tree(&mut runner).unwrap().current();
        let mut index = Index::new(settings());
        for event in events {
            if let Event::Upsert(value) = event {
                index.apply(object::parse(&value, DEFAULT_PREFIX).unwrap());
            }
        }
        index.commit();
        for object in index.outcome().objects {
            for problem in &object.problems {
                *seen.entry(problem.code.as_str()).or_default() += 1;
            }
            *seen.entry("published").or_default() += object.published.len();
        }
        *seen.entry("links").or_default() +=
            index.entry_ids().filter(|id| id.starts_with("link:")).count();
    }
    for wanted in [
        "published",
        "links",
        "NameConflict",
        "NameSuffixed",
        "NameNotPermitted",
        "DirectUrlConflict",
        "HttpsPreferred",
        "ReferenceNotGranted",
        "NamespaceNotAllowed",
        "ListenerSetNotAllowed",
        "WildcardHost",
        "InvalidAnnotation",
    ] {
        assert!(seen.get(wanted).is_some_and(|n| *n >= 10), "{wanted} is too rare: {seen:?}");
    }
}
