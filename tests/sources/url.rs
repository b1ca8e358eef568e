//! Catalogues at a URL.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::web::{Reply, Web};
use crate::{Process, catalogue, often};

fn document(names: &[&str]) -> Reply {
    Reply::Document(catalogue(names).into_bytes())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn source(url: &str, more: &Value) -> Value {
    let mut url = json!({"url": url, "timeout": "2s"});
    url.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"url": url, "syncPolicy": often()})
}

#[test]
fn every_fault_keeps_the_last_good_data() {
    let web = Web::start(document(&["a.b/one", "a.b/two"]));
    let process = Process::start(&source(&web.url("/registry.json"), &json!({})));
    process.serves(&["a.b/one", "a.b/two"]);
    let bad = catalogue(&["bad", "worse"]);
    let loops = web.url("/again");
    let bomb = gzip(&vec![b' '; 80 << 20]);
    assert!(bomb.len() < 100_000);
    for (reply, reason, says) in [
        (Reply::Status(404), "NotFound", "404"),
        (Reply::Status(403), "Unauthorized", "403"),
        (Reply::Status(429), "RateLimited", "429"),
        (Reply::Status(500), "UnexpectedStatus", "500"),
        (Reply::Redirect(loops), "TooManyRedirects", "more than 5 times"),
        (Reply::Redirect("ftp://localhost/".into()), "InvalidRedirect", "neither http nor https"),
        (Reply::Endless, "TooLarge", "more than 67108864 bytes"),
        (Reply::Announced(10 << 30), "TooLarge", "more than 67108864 bytes"),
        (Reply::Nothing, "TimedOut", "within 2s"),
        (Reply::Document(Vec::new()), "Empty", "it is empty"),
        (Reply::Document(b"<html>".to_vec()), "InvalidFormat", "unknown catalogue format"),
        (Reply::Document(vec![0xff; 100]), "InvalidFormat", "no UTF-8"),
        (Reply::Document(bomb), "TooLarge", "more than 67108864 bytes"),
        (Reply::Document(bad.into_bytes()), "NoValidEntries", "none of its 2 entries"),
    ] {
        web.set(reply);
        process.fails(reason, says);
        assert_eq!(process.names(), ["a.b/one", "a.b/two"], "{reason}");
    }
    web.set(document(&["a.b/three"]));
    process.serves(&["a.b/three"]);
    process.recovers();
    // The server is gone for good; what it had survives a restart.
    drop(web);
    process.fails("Unreachable", "cannot be reached");
    let process = process.restart();
    assert_eq!(process.names(), ["a.b/three"]);
    process.registry.waymark.stop();
}

#[test]
fn ten_bad_entries_among_a_thousand() {
    let names: Vec<String> = (0..1010)
        .map(|n| if n % 101 == 0 { format!("bad {n}") } else { format!("a.b/{n:04}") })
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let web = Web::start(document(&names));
    let process = Process::start(&source(&web.url("/"), &json!({})));
    assert_eq!(process.names().len(), 1000);
    let status = process.status();
    assert_eq!(status["rejected"]["count"], 10);
    assert_eq!(status["rejected"]["first"][0]["entry"], "$.servers[0]");
    process.registry.waymark.stop();
}

#[test]
fn nothing_is_read_twice() {
    let web = Web::start(document(&["a.b/one"]));
    let process = Process::start(&source(&web.url("/"), &json!({})));
    process.serves(&["a.b/one"]);
    let published = process.status()["syncStatus"]["lastChange"].clone();
    web.forget();
    crate::eventually("some requests", || (web.asked().len() > 3).then_some(()));
    assert!(web.asked().iter().all(|asked| asked.status == 304), "{:?}", web.asked());
    assert_eq!(process.status()["syncStatus"]["lastChange"], published);
    // One that was not good is not good when it comes again.
    web.set(Reply::Document(b"{}".to_vec()));
    process.fails("InvalidFormat", "");
    let attempts = || process.status()["syncStatus"]["attemptCount"].as_u64().unwrap();
    crate::eventually("more attempts", || (attempts() > 2).then_some(()));
    process.fails("InvalidFormat", "");
    // And what was good before it is.
    web.set(document(&["a.b/one"]));
    process.recovers();
    assert_eq!(process.status()["syncStatus"]["lastChange"], published);
    process.registry.waymark.stop();
}

#[test]
fn compressed_and_elsewhere() {
    let there = Web::start(Reply::Document(gzip(catalogue(&["a.b/one"]).as_bytes())));
    let here = Web::start(Reply::Redirect(there.url("/registry.json.gz")));
    let process = Process::start(&source(
        &here.url("/"),
        &json!({"headers": {"x-team": "a"}, "bearerTokenFile": "/etc/hostname"}),
    ));
    process.serves(&["a.b/one"]);
    // Credentials go to the origin, and to nobody that it names.
    let (first, second) = (here.asked()[0].clone(), there.asked()[0].clone());
    assert_eq!(first.headers["x-team"], "a");
    assert!(first.headers["authorization"].to_str().unwrap().starts_with("Bearer "));
    assert!(!second.headers.contains_key("x-team"), "{second:?}");
    assert!(!second.headers.contains_key("authorization"), "{second:?}");
    process.registry.waymark.stop();
}

#[test]
fn credentials() {
    let document = catalogue(&["a.b/one"]).into_bytes();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "wrong\n").unwrap();
    let expected = "Basic dXNlcjpzZWNyZXQ=".to_owned();
    let web = Web::start(Reply::Guarded("authorization", expected, document));
    let auth = json!({"auth": {"username": "user", "passwordFile": file}});
    let mut process = Process::start(&source(&web.url("/"), &auth));
    process.fails("Unauthorized", "401");
    // The file is read anew each time.
    std::fs::write(&file, "secret\n").unwrap();
    process.serves(&["a.b/one"]);
    std::fs::remove_file(&file).unwrap();
    process.fails("CredentialsUnavailable", "password");
    process.registry.waymark.drain();
    let log = process.registry.waymark.seen.join("\n");
    assert!(!log.contains("secret") && !log.contains("dXNl"), "{log}");
    process.registry.waymark.stop();
}

#[test]
fn certificates() {
    let web = Web::tls(document_of("a.b/one"));
    let process = Process::start(&source(&web.url("/"), &json!({})));
    process.fails("CertificateInvalid", "cannot be trusted");
    process.registry.waymark.stop();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.crt");
    std::fs::write(&ca, &web.certificate).unwrap();
    let process = Process::start(&source(&web.url("/"), &json!({"caFile": ca})));
    process.serves(&["a.b/one"]);
    process.registry.waymark.stop();
}

fn document_of(name: &str) -> Reply {
    document(&[name])
}

#[test]
fn one_slow_source_delays_no_other() {
    let (slow, quick) = (Web::start(Reply::Nothing), Web::start(document(&["a.b/quick"])));
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "sources": [
            {"name": "slow", "url": {"url": slow.url("/"), "timeout": "5m"}},
            {"name": "quick", "url": {"url": quick.url("/")}, "syncPolicy": often()},
        ],
        "registries": [{"name": "default", "sources": ["slow", "quick"]}],
    });
    let path = folder.path().join("registry.yaml");
    std::fs::write(&path, config.to_string()).unwrap();
    let args = ["--config", path.to_str().unwrap()];
    let registry = crate::Registry::start(folder.path(), "127.0.0.1:0", &args);
    assert_eq!(crate::common::names(&registry.rest, ""), ["a.b/quick"]);
    quick.set(document(&["a.b/quicker"]));
    crate::eventually("the change", || {
        (crate::common::names(&registry.rest, "") == ["a.b/quicker"]).then_some(())
    });
    registry.waymark.stop();
}
