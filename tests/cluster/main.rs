//! `waymark discovery` against a real API server. All but the first test need one: they are run by
//! `cargo xtask test`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;
mod faults;
mod harness;
mod kinds;
mod leader;
mod life;
mod mcpregistry;
#[path = "../common/postgres.rs"]
mod postgres;
mod rbac;
mod registry_rbac;
mod scope;
mod storm;
mod toolhive;
#[path = "../common/web.rs"]
mod web;

#[test]
fn without_a_cluster_it_says_what_to_do() {
    let mut command = common::binary();
    command.env("KUBECONFIG", "/no/such/kubeconfig").env_remove("KUBERNETES_SERVICE_HOST");
    command.args(["discovery", "--registry", "http://127.0.0.1:1", "--admin-addr", "off"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("set KUBECONFIG"), "{error}");
}
