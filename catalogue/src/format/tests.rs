use super::*;
use serde_json::json;

fn server(name: &str) -> Value {
    json!({"name": name, "description": "d", "version": "1.0.0"})
}

#[test]
fn detection() {
    for (document, expected) in [
        (json!({"servers": []}), Some(Format::Upstream)),
        (json!({"data": {"servers": []}}), Some(Format::ToolHive)),
        (json!({"servers": {}}), Some(Format::ToolHiveNative)),
        (json!({"remote_servers": {}}), Some(Format::ToolHiveNative)),
        (json!({"mcpServers": {}}), Some(Format::ClientConfig)),
        (json!({"kind": "ConfigMap", "data": "x"}), None),
        (json!([]), None),
    ] {
        assert_eq!(detect(&document), expected, "{document}");
    }
}

#[test]
fn upstream_round_trip_keeps_the_official_record() {
    let official = json!({
        "status": "deprecated", "statusChangedAt": "2026-01-02T00:00:00Z", "statusMessage": "m",
        "publishedAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-02T00:00:00Z", "isLatest": true
    });
    let document = json!({
        "servers": [{"server": server("a.b/c"), "_meta": {crate::meta::OFFICIAL: official}}],
        "metadata": {"count": 1}
    });
    let catalogue = read(&document.to_string()).unwrap();
    assert_eq!(write(&catalogue, Format::Upstream), (document, vec![]));
}

#[test]
fn toolhive_round_trip_keeps_what_stands_beside_the_servers() {
    let document = json!({
        "$schema": "s", "version": "1.0.3", "meta": {"last_updated": "2026-01-01T00:00:00Z"},
        "data": {"skills": [{"name": "x"}], "servers": [server("a.b/c"), server("a.b/d")]}
    });
    let catalogue = read(&document.to_string()).unwrap();
    assert_eq!(write(&catalogue, Format::ToolHive), (document, vec![]));
}

#[test]
fn native_round_trip_loses_nothing() {
    let document = json!({
        "version": "1.0.0", "last_updated": "2025-10-13T12:00:00Z", "groups": [],
        "servers": {
            "fetch": {
                "title": "Fetch", "description": "Fetch web content", "status": "Active",
                "image": "ghcr.io/stackloklabs/gofetch/server:1.0.0", "tier": "Official",
                "transport": "streamable-http", "target_port": 8080, "tools": ["fetch"],
                "tags": ["web"], "repository_url": "https://github.com/StacklokLabs/gofetch",
                "env_vars": [{"name": "X", "description": "five chars", "required": false, "secret": true}],
                "permissions": {"network": {"outbound": {"insecure_allow_all": true}}},
                "args": ["--x"], "provenance": {"sigstore_url": "u"}
            },
            "long": {
                "description": "x".repeat(300), "image": "a/b:1", "status": "Deprecated",
                "tier": "Community", "transport": "stdio", "target_port": 9, "tools": ["t"]
            },
            "portless": {
                "description": "no port", "image": "a/c:1", "status": "Active", "transport": "sse"
            },
            "default-port": {
                "description": "port 80", "image": "a/d:1", "status": "Active", "transport": "sse",
                "target_port": 80
            }
        },
        "remote_servers": {
            "example": {
                "description": "Remote", "url": "https://api.example.com/mcp", "transport": "sse",
                "status": "Active", "tier": "Community", "tools": ["get_data"],
                "headers": [{"name": "Authorization", "required": true, "secret": true, "choices": ["a"]}],
                "oauth_config": {"issuer": "https://auth.example.com", "scopes": ["openid"]},
                "env_vars": [{"name": "E"}]
            }
        }
    });
    let catalogue = read(&document.to_string()).unwrap();
    assert_eq!(catalogue.rejected, []);
    let names: Vec<&str> = catalogue.entries.iter().map(|e| e.server.name.as_str()).collect();
    assert!(names.contains(&"io.github.stacklok/fetch"), "{names:?}");
    assert!(catalogue.entries.iter().all(|e| e.server.description.chars().count() <= 100));
    assert_eq!(write(&catalogue, Format::ToolHiveNative), (document.clone(), vec![]));
    // … and by way of the upstream format too.
    let (upstream, _) = write(&catalogue, Format::Upstream);
    let again = read(&upstream.to_string()).unwrap();
    assert_eq!(write(&again, Format::ToolHiveNative).0["servers"], document["servers"]);
}

#[test]
fn client_configuration_round_trip() {
    let document = json!({"mcpServers": {
        "com.example/remote": {"type": "http", "url": "https://api.example.com/mcp",
            "headers": {"Authorization": "Bearer x"}},
        "com.example/old": {"type": "sse", "url": "https://api.example.com/sse"},
        "com.example/npm": {"command": "npx", "args": ["-y", "@scope/pkg@1.2.3", "--flag"]},
        "com.example/pypi": {"command": "uvx", "args": ["mcp-git==2.0.0"], "env": {"A": "b"}},
        "com.example/oci": {"command": "docker", "args": ["run", "-i", "-e", "A", "ghcr.io/a/b:1", "serve"]}
    }});
    let catalogue = read(&document.to_string()).unwrap();
    assert_eq!(catalogue.rejected, []);
    assert_eq!(write(&catalogue, Format::ClientConfig), (document, vec![]));
}

#[test]
fn client_configuration_names_and_refusals() {
    let document = json!({"mcpServers": {
        "git hub": {"url": "https://api.example.com/mcp"},
        "files": {"command": "/usr/bin/npx", "args": ["files"]},
        "binary": {"command": "./server"},
        "empty": {},
        "bad": {"url": "https://u:p@a.b/"}
    }});
    let catalogue = read(&document.to_string()).unwrap();
    let names: Vec<&str> = catalogue.entries.iter().map(|e| e.server.name.as_str()).collect();
    assert_eq!(names, ["com.example.api/git-hub", "local/files"]);
    let rejected: Vec<&str> = catalogue.rejected.iter().map(|r| r.path.as_str()).collect();
    let path = |name: &str| format!("$.mcpServers[{name:?}]");
    assert_eq!(rejected, [path("binary"), path("empty"), path("bad")]);
}

#[test]
fn a_bad_entry_leaves_its_neighbours_alone() {
    for document in [
        json!({"servers": [{"server": server("a.b/c")}, {"server": server("bad")}, 7]}),
        json!({"data": {"servers": [server("a.b/c"), server("bad"), 7]}}),
        json!({"remote_servers": {
            "good": {"url": "https://a.b", "transport": "sse", "description": "d"},
            "bad": {"url": "nonsense", "transport": "sse", "description": "d"},
            "worse": 7
        }}),
    ] {
        let catalogue = read(&document.to_string()).unwrap();
        assert_eq!((catalogue.entries.len(), catalogue.rejected.len()), (1, 2), "{document}");
    }
}

#[test]
fn no_catalogue_at_all() {
    for (text, expected) in [
        ("{", "not JSON"),
        ("[]", "unknown catalogue format"),
        (r#"{"data": {"servers": {}}}"#, "$.data.servers must be a list"),
        (r#"{"mcpServers": []}"#, "$.mcpServers must be"),
        (r#"{"servers": {}, "remote_servers": 1}"#, "$.remote_servers must be"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}
