//! `waymark plan`: its outputs, and its exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::io::Write;
use std::process::Stdio;

use common::{EXAMPLES, binary};
use serde_json::Value;

fn plan(args: &[&str], stdin: &str) -> (i32, String, String) {
    let mut child = binary()
        .arg("plan")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

const GOOD: &str = r#"
apiVersion: v1
kind: List
items:
- apiVersion: gateway.networking.k8s.io/v1
  kind: Gateway
  metadata: {name: g, namespace: n}
  spec: {listeners: [{name: l, protocol: HTTPS, port: 443, hostname: a.example.com}]}
- apiVersion: gateway.networking.k8s.io/v1
  kind: HTTPRoute
  metadata: {name: r, namespace: n, annotations: {toolhive.stacklok.dev/registry-export: "true"}}
  spec: {parentRefs: [{name: g}], rules: [{backendRefs: [{name: s}]}]}
"#;

#[test]
fn json_and_yaml_have_the_documented_shape() {
    let (code, json, _) = plan(&["-o", "json", EXAMPLES], "");
    assert_eq!(code, 1, "one example is refused");
    let json: Value = serde_json::from_str(&json).unwrap();
    let objects = json["objects"].as_array().unwrap();
    let of = |name: &str| objects.iter().find(|o| o["name"] == name).unwrap();
    let published = &of("search")["published"][0];
    assert_eq!(published["server"], "com.example.mcp/search");
    assert_eq!(published["type"], "streamable-http");
    assert_eq!(published["via"]["parent"], "Gateway infra/shared");
    assert_eq!(published["via"]["listener"], "https");
    let problem = &of("shop")["problems"][0];
    assert_eq!(
        (&problem["code"], &problem["severity"]),
        (&"NameNotPermitted".into(), &"error".into())
    );
    for key in ["about", "message", "remedy"] {
        assert!(problem[key].as_str().is_some_and(|text| !text.is_empty()), "{key}");
    }
    assert_eq!(json["summary"]["published"], 15);
    assert_eq!(json["summary"]["problems"], 1);
    assert_eq!(json["summary"]["assumed"], 23);
    let (_, yaml, _) = plan(&["-o", "yaml", EXAMPLES], "");
    let yaml: Value = waymark_discovery::source::manifest::yaml(&yaml).unwrap();
    assert_eq!(yaml, json);
}

#[test]
fn upstream_is_a_list_that_upstream_reads() {
    let (_, text, _) = plan(&["-o", "upstream", EXAMPLES], "");
    let catalogue = waymark_catalogue::format::read(&text).unwrap();
    assert_eq!((catalogue.entries.len(), catalogue.rejected.len()), (14, 0));
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["metadata"]["count"], 14);
}

#[test]
fn exit_codes() {
    let (code, table, _) = plan(&["-"], GOOD);
    assert_eq!(code, 0, "{table}");
    assert!(table.contains("https://a.example.com/"), "{table}");
    let (code, table, _) = plan(&["--assume-accepted=false", "-"], GOOD);
    assert_eq!(code, 1);
    assert!(table.contains("RouteNotAccepted") && !table.contains("assumed"), "{table}");
    let (code, table, _) = plan(&["-"], &format!("{GOOD}---\nkind: [\n"));
    assert_eq!(code, 1, "a broken document is an error");
    assert!(table.contains("https://a.example.com/") && table.contains("-:14"), "{table}");
    let (code, _, error) = plan(&["/no/such/folder"], "");
    assert_eq!(code, 2);
    assert!(error.contains("cannot read /no/such/folder"), "{error}");
    let (code, _, error) = plan(&["--delegations", "/no/such/file", "-"], GOOD);
    assert_eq!(code, 2);
    assert!(error.contains("/no/such/file"), "{error}");
    let (code, _, error) = plan(&["--annotation-prefix", "a b", "-"], GOOD);
    assert_eq!(code, 2);
    assert!(error.contains("annotation-prefix"), "{error}");
}

#[test]
fn settings_reach_the_rules() {
    let (code, table, _) = plan(&["--require-mcp-backend", "-"], GOOD);
    assert!(code == 1 && table.contains("BackendNotMcp"), "{table}");
    let other = GOOD.replace("toolhive.stacklok.dev", "example.com");
    let (_, table, _) = plan(&["--annotation-prefix", "example.com", "-"], &other);
    assert!(table.contains("https://a.example.com/"), "{table}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("delegations.yaml");
    std::fs::write(&file, "- {namespaceSelector: {}, namePrefixes: [io.github.someone-else]}\n")
        .unwrap();
    let (code, table, _) = plan(&["--delegations", file.to_str().unwrap(), EXAMPLES], "");
    assert!(code == 0 && table.contains("io.github.someone-else/shop"), "{table}");
    std::fs::write(&file, "- {namespaceSelector: {}, prefixes: []}\n").unwrap();
    let (code, _, error) = plan(&["--delegations", file.to_str().unwrap(), EXAMPLES], "");
    assert!(code == 2 && error.contains("prefixes"), "{error}");
}

#[test]
fn a_catalogue_file_of_any_format_and_what_is_wrong_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("servers.json");
    std::fs::write(
        &file,
        r#"{"mcpServers": {"good": {"url": "https://x.example.com/mcp"}, "bad": {}}}"#,
    )
    .unwrap();
    let (code, table, _) = plan(&["--catalogue", file.to_str().unwrap(), "-"], GOOD);
    assert!(code == 1 && table.contains("InvalidDocument") && table.contains("bad"), "{table}");
    let (_, upstream, _) =
        plan(&["-o", "upstream", "--catalogue", file.to_str().unwrap(), "-"], GOOD);
    assert!(upstream.contains("com.example.x/good"), "{upstream}");
}

#[test]
fn explain_tells_of_one_object() {
    let explain = |args: &[&str]| {
        let output =
            binary().arg("explain").args(args).args(["--manifests", EXAMPLES]).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), text)
    };
    let (code, text) = explain(&["httproute", "shop/shop"]);
    assert!(code == 1 && text.contains("NameNotPermitted") && !text.contains("weather"), "{text}");
    let (code, text) = explain(&["httproute", "search/search"]);
    assert!(code == 0 && text.contains("https://mcp.example.com/search"), "{text}");
    // What depends on a Gateway, a Namespace, an MCP resource.
    let (code, text) = explain(&["gateway", "tools/tools", "-o", "json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &json["objects"][0]["name"]), (0, &"tools".into()));
    assert_eq!(json["summary"]["published"], 2);
    for (kind, name) in [
        ("namespace", "search"),
        ("mcpserver", "tools/jira"),
        ("referencegrant", "search-servers/any"),
    ] {
        let (code, text) = explain(&[kind, name]);
        assert!(code == 0 && text.contains("HTTPRoute"), "{kind} {name}: {text}");
    }
    let (code, text) = explain(&["httproute", "no/such"]);
    assert!(code == 1 && text.contains("is not opted in"), "{text}");
    let (code, text) = explain(&["httproute", "nothing"]);
    assert!(code == 2 && text.contains("NAMESPACE/NAME"), "{text}");
    let (code, text) = explain(&["pod", "a/b"]);
    assert!(code == 2 && text.contains("httproute, gateway"), "{text}");
}

#[test]
fn completions_and_help_teach() {
    let output = binary().args(["completions", "bash"]).output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("_waymark"));
    let output = binary().args(["plan", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for part in ["Examples:", "kubectl get httproutes", "--assume-accepted", "Exits with 1"] {
        assert!(help.contains(part), "{part} in\n{help}");
    }
}
