//! The examples of the documentation, run as they stand there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::path::Path;
use std::process::Command;

use common::{Registry, Waymark, binary, eventually, get, server};

/// The blocks of a language in a page.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
    let text = std::fs::read_to_string(path).unwrap();
    let mut parts = text.split("```");
    let mut blocks = Vec::new();
    while let (Some(_), Some(block)) = (parts.next(), parts.next()) {
        if let Some(block) = block.strip_prefix(&format!("{language}\n")) {
            blocks.push(block.to_owned());
        }
    }
    blocks
}

#[test]
fn the_configuration_is_good() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = blocks("configuration.md", "yaml");
    let [whole, database] = &blocks[..] else { panic!("{} blocks", blocks.len()) };
    std::fs::write(folder.path().join("tokens"), "0123456789abcdef,ci\n").unwrap();
    std::fs::write(folder.path().join("registry.yaml"), format!("{whole}{database}")).unwrap();
    let mut command = binary();
    command.args(["registry-api", "--config", "registry.yaml", "--check-config"]);
    let output = command.current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_calls_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokens"), "0123456789abcdef,ci\n").unwrap();
    std::fs::write(folder.path().join("server.json"), server("com.example/mine", "1.0.0", "d"))
        .unwrap();
    let config = folder.path().join("registry.yaml");
    let text = format!(
        "sources: [{{name: own, managed: {{}}}}, {{name: k8s, kubernetes: {{}}}}]\n\
         registries: [{{name: default, sources: [own, k8s]}}, {{name: team-a, sources: [own]}}]\n\
         auth: {{staticTokenFile: '{}/tokens'}}\n",
        folder.path().display()
    );
    std::fs::write(&config, text).unwrap();
    let data = folder.path().join("data");
    let registry = Registry::start(&data, "127.0.0.1:0", &["--config", config.to_str().unwrap()]);
    let args = [
        "discovery",
        "--registry",
        &registry.grpc,
        "--manifests",
        common::EXAMPLES,
        "--assume-accepted",
        "--admin-addr",
        "off",
    ];
    let discovery = Waymark::start(&args);
    eventually("the examples", || {
        let url =
            format!("{}/v0.1/servers/com.example.tools%2Fgithub/versions/latest", registry.rest);
        (get(&url).status == 200).then_some(())
    });
    let mut calls = 0;
    for block in blocks("api.md", "sh").iter().filter(|block| block.contains("$REST")) {
        calls += block.matches("curl").count();
        // Every call must succeed.
        let script = format!("set -eu\ncurl() {{ command curl -fsS \"$@\" >/dev/null; }}\n{block}");
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(folder.path())
            .env("REST", &registry.rest)
            .env("TOKEN", "0123456789abcdef")
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{block}\n{error}");
    }
    assert!(calls > 10, "{calls}");
    discovery.stop();
    registry.waymark.stop();
}

#[test]
fn the_shipped_crd_is_the_programs() {
    let output = binary().arg("crds").output().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/gateway/crds");
    let shipped = std::fs::read(folder.join("mcpregistries.yaml")).unwrap();
    let same = output.stdout == shipped;
    assert!(same, "run: waymark crds > deploy/gateway/crds/mcpregistries.yaml");
}

#[test]
fn every_reason_is_explained() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/mcpregistry.md");
    let text = std::fs::read_to_string(page).unwrap();
    let (_, table) = text.split_once("## Reasons").unwrap();
    let explained: Vec<&str> =
        table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(explained, waymark_registry_api::mcpregistry::REASONS);
    // Every reason that the code has is among them.
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("registry-api/src/source");
    let mut folders = vec![sources];
    let mut found = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let code = std::fs::read_to_string(&path).unwrap();
            let calls = ["unavailable(", "invalid(", "denied(", "fail("];
            for call in calls.iter().flat_map(|call| code.split(*call).skip(1)) {
                let Some(reason) = call.trim_start().strip_prefix('"') else { continue };
                let reason = reason.split('"').next().unwrap();
                assert!(explained.contains(&reason), "{reason} of {}", path.display());
                found += 1;
            }
        }
    }
    assert!(found > 40, "{found}");
}
