//! The resolver's table: every rule with cases that publish and cases that do not.
//!
//! The cases are in `tests/resolver/*.yaml`. A case names what is different from the base (below)
//! as JSON merge patches, and what is expected:
//!
//! ```yaml
//! - case: the listener's port stands in the URL when it is not the scheme's own
//!   gateway: {spec: {listeners: [{name: web, protocol: HTTPS, port: 8443}]}}
//!   urls: ["https://203.0.113.7:8443/mcp"]
//! ```
//!
//! `route`, `gateway`: patches of the base objects (`null` removes a field; `gateway: null` the
//! object). `annotations`: the route's, without their prefix, beside `registry-export`.
//! `also`: further objects; `apiVersion` and `namespace: apps` may be left out. `settings`:
//! `assume-accepted`, `require-mcp-backend`, `direct-url-policy`, `delegations`.
//!
//! Expected, of all objects together: `urls` in order (none where left out), `codes` of all
//! problems (`Code` for an error, `Code:note`, `Code:warning`), and where given `server`,
//! `version`, `transport`, `in-cluster`, `message` (a part of some problem's message).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use smol_str::SmolStr;
use waymark_discovery::settings::{DEFAULT_PREFIX, Delegation, DirectUrlPolicy};
use waymark_discovery::source::manifest::yaml;
use waymark_discovery::{Index, Settings, Severity, object};

const BASE: &str = r#"
gateway:
  apiVersion: gateway.networking.k8s.io/v1
  kind: Gateway
  metadata: {name: public, namespace: apps, generation: 1}
  spec:
    gatewayClassName: any
    listeners:
    - {name: web, protocol: HTTPS, port: 443, hostname: mcp.company.com}
  status:
    conditions: [{type: Programmed, status: "True", observedGeneration: 1}]
    addresses: [{type: IPAddress, value: 203.0.113.7}]
route:
  apiVersion: gateway.networking.k8s.io/v1
  kind: HTTPRoute
  metadata: {name: github, namespace: apps, generation: 1, annotations: {toolhive.stacklok.dev/registry-export: "true"}}
  spec:
    parentRefs: [{name: public}]
    rules:
    - matches: [{path: {type: PathPrefix, value: /mcp}}]
      backendRefs: [{name: github, port: 8080}]
  status:
    parents:
    - parentRef: {name: public}
      controllerName: example.com/controller
      conditions: [{type: Accepted, status: "True", observedGeneration: 1}]
"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Case {
    case: String,
    #[serde(default)]
    route: Value,
    #[serde(default, deserialize_with = "present")]
    gateway: Option<Value>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    also: Vec<Value>,
    #[serde(default)]
    settings: CaseSettings,
    #[serde(default)]
    urls: Vec<String>,
    #[serde(default)]
    codes: Vec<String>,
    server: Option<String>,
    version: Option<String>,
    transport: Option<String>,
    in_cluster: Option<Vec<String>>,
    message: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct CaseSettings {
    assume_accepted: bool,
    require_mcp_backend: bool,
    direct_url_policy: Option<String>,
    delegations: Vec<Delegation>,
    gateways: Vec<String>,
    gateway_classes: Vec<SmolStr>,
}

/// Tells `gateway: null` from no gateway.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(target.as_object_mut().unwrap().entry(key).or_insert(Value::Null), value);
        }
    }
}

fn api_version(kind: &str) -> &'static str {
    match kind {
        "HTTPRoute" | "Gateway" | "ListenerSet" => "gateway.networking.k8s.io/v1",
        "ReferenceGrant" => "gateway.networking.k8s.io/v1beta1",
        "Namespace" | "Service" => "v1",
        _ => "toolhive.stacklok.dev/v1beta1",
    }
}

impl Case {
    fn objects(&self, base: &Value) -> Vec<Value> {
        let mut route = base["route"].clone();
        if !self.route.is_null() {
            merge(&mut route, &self.route);
        }
        for (key, value) in &self.annotations {
            route["metadata"]["annotations"][format!("{DEFAULT_PREFIX}{key}")] = json!(value);
        }
        let mut objects = vec![route];
        match &self.gateway {
            Some(Value::Null) => {}
            patch => {
                let mut gateway = base["gateway"].clone();
                if let Some(patch) = patch {
                    merge(&mut gateway, patch);
                }
                objects.push(gateway);
            }
        }
        for also in &self.also {
            let mut object = also.clone();
            let kind = object["kind"].as_str().expect("kind").to_owned();
            let fields = object.as_object_mut().unwrap();
            fields.entry("apiVersion").or_insert_with(|| json!(api_version(&kind)));
            if kind != "Namespace" {
                let meta = fields["metadata"].as_object_mut().unwrap();
                meta.entry("namespace").or_insert_with(|| json!("apps"));
            }
            objects.push(object);
        }
        objects
    }

    fn settings(&self) -> Settings {
        Settings {
            assume_accepted: self.settings.assume_accepted,
            require_mcp_backend: self.settings.require_mcp_backend,
            direct_url_policy: match self.settings.direct_url_policy.as_deref() {
                None | Some("allow") => DirectUrlPolicy::Allow,
                Some("delegated") => DirectUrlPolicy::Delegated,
                Some("deny") => DirectUrlPolicy::Deny,
                Some(other) => panic!("policy {other}"),
            },
            delegations: self.settings.delegations.clone(),
            gateways: self.settings.gateways.iter().map(|name| name.parse().unwrap()).collect(),
            gateway_classes: self.settings.gateway_classes.clone(),
            ..Settings::default()
        }
    }

    fn check(&self, base: &Value) -> Result<(), String> {
        let mut index = Index::new(self.settings());
        for object in self.objects(base) {
            let parsed = object::parse(&object, DEFAULT_PREFIX).map_err(|e| e.to_string())?;
            index.apply(parsed);
        }
        index.commit();
        let outcome = index.outcome();
        let problems: Vec<_> = outcome.objects.iter().flat_map(|o| &o.problems).collect();
        let published: Vec<_> = outcome.objects.iter().flat_map(|o| &o.published).collect();
        let mut codes: Vec<String> = problems
            .iter()
            .map(|p| match p.severity {
                Severity::Error => p.code.to_string(),
                severity => format!("{}:{}", p.code, severity.as_str()),
            })
            .collect();
        codes.sort();
        let mut expected = self.codes.clone();
        expected.sort();
        let urls: Vec<&str> = published.iter().map(|p| p.url.as_str()).collect();
        let same = |what: &str, is: String, should: String| {
            if is == should { Ok(()) } else { Err(format!("{what}: {is}, expected {should}")) }
        };
        let all = || format!("\n{problems:#?}");
        same("urls", format!("{urls:?}"), format!("{:?}", self.urls)).map_err(|e| e + &all())?;
        same("codes", format!("{codes:?}"), format!("{expected:?}")).map_err(|e| e + &all())?;
        let first = |is: Option<&str>, should: &Option<String>, what| match should {
            Some(should) => same(what, is.unwrap_or("-").into(), should.clone()),
            None => Ok(()),
        };
        let head = published.first();
        first(head.map(|p| p.server.as_str()), &self.server, "server")?;
        first(head.map(|p| p.version.as_str()), &self.version, "version")?;
        first(head.map(|p| p.r#type.as_str()), &self.transport, "transport")?;
        if let Some(expected) = &self.in_cluster {
            let entries = index.entries();
            let urls: Vec<_> =
                entries.values().flat_map(|e| &e.in_cluster).map(|(_, url)| url.as_str()).collect();
            same("in-cluster", format!("{urls:?}"), format!("{expected:?}"))?;
        }
        if let Some(part) = &self.message
            && !problems.iter().any(|p| p.message.contains(part.as_str()))
        {
            return Err(format!("no message holds {part:?}{}", all()));
        }
        // Whatever the case: what is published is valid, and every problem helps.
        for entry in index.entries().values() {
            let server: Value = serde_json::from_str(&entry.server).map_err(|e| e.to_string())?;
            let violations = waymark_catalogue::validate::check(&server);
            same("violations", format!("{violations:?}"), "[]".into())?;
        }
        for problem in problems {
            let helps = problem.severity == Severity::Note || !problem.remedy.is_empty();
            if !helps || !problem.message.ends_with('.') || problem.about.is_empty() {
                return Err(format!("not helpful: {problem:?}"));
            }
        }
        Ok(())
    }
}

#[test]
fn table() {
    let base: Value = yaml(BASE).unwrap();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/resolver");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut cases, mut failures) = (0, Vec::new());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let table: Vec<Case> =
            yaml(&text).unwrap_or_else(|(line, e)| panic!("{}:{line}: {e}", file.display()));
        for case in table {
            cases += 1;
            if let Err(failure) = case.check(&base) {
                let file = file.file_name().unwrap().to_string_lossy().into_owned();
                failures.push(format!("{file}: {}: {failure}", case.case));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {cases} cases:\n{}", failures.len(), failures.join("\n"));
    assert!(cases >= 150, "only {cases} cases were found");
}
