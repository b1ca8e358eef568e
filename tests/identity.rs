//! Who may publish: by a token over TLS, by reaching the socket, and nobody else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::path::Path;

use common::{EXAMPLES, Registry, Waymark, eventually, get, names};

const OWN: &str = "token-of-the-own-cluster";
const OTHER: &str = "token-of-another-cluster";

/// A certificate for `localhost`, its key and its own authority.
fn certify(folder: &Path) -> [String; 2] {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    [file("tls.crt", made.cert.pem()), file("tls.key", made.signing_key.serialize_pem())]
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn discovery(registry: &str, more: &[&str]) -> Waymark {
    let args = ["discovery", "--assume-accepted", "--admin-addr", "off", "--cluster", "own"];
    let from = ["--manifests", EXAMPLES, "--registry", registry];
    Waymark::start(&[&args[..], &from, more].concat())
}

#[test]
fn publishers_show_a_token_of_their_cluster_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let [cert, key] = certify(at);
    let tokens = write(at, "tokens", &format!("{OWN},own\n{OTHER},other\n"));
    let args = [
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
        "--tls-for",
        "grpc",
        "--publisher-tokens",
        &tokens,
    ];
    let mut registry = Registry::start(&at.join("data"), "127.0.0.1:0", &args);
    let port = registry.grpc.rsplit_once(':').unwrap().1.to_owned();
    let https = format!("https://localhost:{port}");
    let own = write(at, "own", &format!("{OWN}\n"));
    let other = write(at, "other", OTHER);
    let unknown = write(at, "unknown", "token-that-nobody-has");
    let short = write(at, "short", "x");
    let empty = write(at, "empty", "\n\u{1}");
    // What is shown, and what the publisher is told.
    for (more, says) in [
        (vec!["--registry-ca", &*cert], "needs a bearer token"),
        (vec!["--registry-ca", &*cert, "--registry-token-file", &*unknown], "needs a bearer token"),
        (vec!["--registry-ca", &*cert, "--registry-token-file", &*short], "needs a bearer token"),
        (vec!["--registry-ca", &*cert, "--registry-token-file", &*empty], "it holds no token"),
        (vec!["--registry-ca", &*cert, "--registry-token-file", "/no/such"], "cannot be read from"),
        (
            vec!["--registry-ca", &*cert, "--registry-token-file", &*other],
            "not one of this cluster",
        ),
        (vec!["--registry-token-file", &*own], "invalid peer certificate"),
    ] {
        let mut refused = discovery(&https, &more);
        refused.line(&["publishing stopped", says]);
        assert!(names(&registry.rest, "").is_empty(), "{more:?}");
        refused.kill();
    }
    // In the clear it is not spoken to at all.
    let mut clear =
        discovery(&format!("http://localhost:{port}"), &["--registry-token-file", &own]);
    clear.line(&["publishing stopped"]);
    clear.kill();
    assert!(names(&registry.rest, "").is_empty());

    let good = discovery(&https, &["--registry-ca", &cert, "--registry-token-file", &own]);
    eventually("the entries", || (!names(&registry.rest, "").is_empty()).then_some(()));
    good.stop();
    // Taken out of the file, the token is good for nothing, without a restart.
    write(at, "tokens", &format!("{OTHER},other\n"));
    let mut late = discovery(&https, &["--registry-ca", &cert, "--registry-token-file", &own]);
    late.line(&["publishing stopped", "needs a bearer token"]);
    late.kill();
    // Refusals are counted and logged, tokens never.
    let metrics = String::from_utf8(get(&format!("{}/metrics", registry.rest)).body).unwrap();
    for code in ["Unauthenticated", "PermissionDenied"] {
        assert!(metrics.contains(&format!("grpc_code=\"{code}\"")), "{metrics}");
    }
    registry.waymark.drain();
    let log = registry.waymark.seen.join("\n");
    assert!(log.contains("it showed no token") && log.contains("another cluster"), "{log}");
    for secret in [OWN, OTHER, "token-that-nobody-has"] {
        assert!(!log.contains(secret), "{log}");
    }
    registry.waymark.stop();
}

#[test]
fn who_reaches_the_socket_needs_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = write(folder.path(), "tokens", &format!("{OTHER},other\n"));
    let socket = format!("unix:{}", folder.path().join("socket").display());
    let args = ["--publisher-tokens", &*tokens];
    let registry = Registry::start(&folder.path().join("data"), &socket, &args);
    let good = discovery(&registry.grpc, &[]);
    eventually("the entries", || (!names(&registry.rest, "").is_empty()).then_some(()));
    good.stop();
    registry.waymark.stop();
}

#[test]
fn an_open_write_side_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let [cert, key] = certify(folder.path());
    let tokens = write(folder.path(), "tokens", &format!("{OWN},own\n"));
    let bad = write(folder.path(), "bad", "short,own\n");
    let data = folder.path().join("data");
    let open = ["registry-api", "--grpc-addr", "0.0.0.0:0", "--data", data.to_str().unwrap()];
    for (more, says) in [
        (vec![], "--allow-unauthenticated-publish"),
        (vec!["--tls-cert", &*cert, "--tls-key", &*key], "would take entries from anybody"),
        (vec!["--publisher-tokens", &*tokens], "in the clear: give --tls-cert"),
        (
            vec![
                "--publisher-tokens",
                &*tokens,
                "--tls-cert",
                &*cert,
                "--tls-key",
                &*key,
                "--tls-for",
                "http",
            ],
            "in the clear",
        ),
        (
            vec!["--publisher-tokens", &*bad, "--tls-cert", &*cert, "--tls-key", &*key],
            "bad:1: the token has less than 16 characters",
        ),
        (
            vec!["--tls-cert", &*cert, "--tls-key", &*cert, "--allow-unauthenticated-publish"],
            "cannot read",
        ),
    ] {
        let output = common::binary().args([&open[..], &more].concat()).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{more:?}");
        assert!(error.contains(says), "{more:?}: {error}");
    }
}

#[tokio::test]
async fn clients_show_a_certificate_where_that_is_asked_for() {
    use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    let folder = tempfile::tempdir().unwrap();
    let [cert, key] = certify(folder.path());
    let make = || rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
    let (known, unknown) = (make(), make());
    let ca = write(folder.path(), "clients.crt", &known.cert.pem());
    let args = ["--tls-cert", &*cert, "--tls-key", &key, "--tls-client-ca", &ca];
    let data = folder.path().join("data");
    let registry = tokio::task::spawn_blocking({
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        move || {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            Registry::start(&data, "127.0.0.1:0", &args)
        }
    });
    let registry = registry.await.unwrap();
    let port = registry.grpc.rsplit_once(':').unwrap().1.to_owned();
    let trusted = Certificate::from_pem(std::fs::read(&cert).unwrap());
    for (shown, good) in [(None, false), (Some(&unknown), false), (Some(&known), true)] {
        let mut tls = ClientTlsConfig::new().ca_certificate(trusted.clone());
        if let Some(client) = shown {
            let identity =
                Identity::from_pem(client.cert.pem(), client.signing_key.serialize_pem());
            tls = tls.identity(identity);
        }
        let endpoint = Endpoint::from_shared(format!("https://localhost:{port}")).unwrap();
        let channel = endpoint.tls_config(tls).unwrap().connect_lazy();
        let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
        assert_eq!(answer.is_ok(), good, "{answer:?}");
    }
    tokio::task::spawn_blocking(|| registry.waymark.stop()).await.unwrap();
}
