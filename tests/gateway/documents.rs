//! The catalogues and Server Cards of hosts.

use serde_json::{Value, json};

use crate::common::{self, Answer, eventually, request};
use crate::{Published, route};

const AI: &str = "/.well-known/ai-catalog.json";
const MCP: &str = "/.well-known/mcp/catalog.json";

fn at(published: &Published, host: &str, path: &str, more: &[(&str, &str)]) -> Answer {
    let headers = [&[("host", host)][..], more].concat();
    request("GET", &format!("{}{path}", published.registry.rest), &headers)
}

/// A document's faults against the rules of the specification that it follows.
fn faults(document: &Value, required: &[&str], allowed: &[&str]) -> Vec<String> {
    let fields = document.as_object().unwrap();
    let missing = required.iter().filter(|field| !fields.contains_key(**field));
    let unknown = fields.keys().filter(|field| !allowed.contains(&field.as_str()));
    missing
        .map(|f| format!("{f} is missing"))
        .chain(unknown.map(|f| format!("{f} is unknown")))
        .collect()
}

fn is_card(card: &Value) {
    let allowed = [
        "$schema",
        "name",
        "version",
        "description",
        "title",
        "websiteUrl",
        "repository",
        "icons",
        "remotes",
        "_meta",
    ];
    assert_eq!(faults(card, &["$schema", "name", "version", "description"], &allowed), [""; 0]);
    // A card is what a server.json is, without packages: the same rules hold for its fields.
    let mut server = card.clone();
    server.as_object_mut().unwrap().remove("$schema");
    assert_eq!(waymark_catalogue::validate::check(&server), []);
    let schema = card["$schema"].as_str().unwrap();
    assert_eq!(schema, "https://static.modelcontextprotocol.io/schemas/v1/server-card.schema.json");
}

fn is_catalog(catalog: &Value, version: &str, named: bool) {
    assert_eq!(
        faults(catalog, &["specVersion", "entries"], &["specVersion", "entries", "host"]),
        [""; 0]
    );
    assert_eq!(catalog["specVersion"], version);
    let required: &[&str] = if named {
        &["identifier", "type", "url", "displayName"]
    } else {
        &["identifier", "type", "url"]
    };
    let allowed = ["identifier", "type", "url", "displayName", "updatedAt"];
    for entry in catalog["entries"].as_array().unwrap() {
        assert_eq!(faults(entry, required, &allowed), [""; 0]);
        assert_eq!(entry["type"], "application/mcp-server-card+json");
        let identifier = entry["identifier"].as_str().unwrap();
        let parts: Vec<&str> = identifier.split(':').collect();
        assert!(
            matches!(parts.as_slice(), ["urn", "air", domain, "mcp", _] if domain.contains('.')),
            "{identifier}"
        );
        if let Some(updated) = entry.get("updatedAt") {
            updated.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        }
    }
}

#[test]
fn each_host_tells_of_its_own() {
    let routes = [
        route("one", "a.example.com", "/one"),
        route("two", "a.example.com", "/two"),
        route("three", "b.example.com", "/three"),
    ];
    let published = Published::start(&routes, &["--trusted-proxy", "127.0.0.0/8"]);
    eventually("the catalogue", || {
        let answer = at(&published, "a.example.com", AI, &[]);
        (answer.status == 200 && answer.json()["entries"].as_array().unwrap().len() == 2)
            .then_some(())
    });
    let answer = at(&published, "A.Example.Com:8443", AI, &[]);
    assert_eq!(answer.header("content-type"), Some("application/ai-catalog+json"));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=60"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let catalog = answer.json();
    is_catalog(&catalog, "1.0", false);
    assert_eq!(
        catalog["host"],
        json!({"displayName": "a.example.com", "identifier": "a.example.com"})
    );
    let tag = answer.header("etag").unwrap().to_owned();
    assert_eq!(at(&published, "a.example.com", AI, &[("if-none-match", &tag)]).status, 304);
    let mcp = at(&published, "a.example.com", MCP, &[]);
    assert_eq!(mcp.header("content-type"), Some("application/json"));
    is_catalog(&mcp.json(), "draft", true);
    let entry = &mcp.json()["entries"][0];
    assert_eq!(entry["identifier"], "urn:air:a.example.com:mcp:one");
    let card = "/.well-known/mcp/server-cards/com.example.a/one";
    assert_eq!(entry["url"], format!("http://a.example.com{card}"));
    let answer = at(&published, "a.example.com", card, &[]);
    assert_eq!(answer.header("content-type"), Some("application/mcp-server-card+json"));
    is_card(&answer.json());
    assert_eq!(answer.json()["remotes"][0]["url"], "http://a.example.com/one");
    assert!(!answer.json().to_string().contains("kubernetes"), "{}", answer.json());

    // The other host knows nothing of it, nor does a host of nobody.
    assert_eq!(at(&published, "b.example.com", card, &[]).status, 404);
    let other = at(&published, "b.example.com", AI, &[]).json();
    assert_eq!(other["entries"].as_array().unwrap().len(), 1);
    assert!(!other.to_string().contains("a.example.com"));
    for path in [AI, MCP, card] {
        let answer = at(&published, "c.example.com", path, &[]);
        assert_eq!((answer.status, answer.json()["error"].is_string()), (404, true), "{path}");
    }
    // A trusted peer says which host was asked.
    let forwarded = [("x-forwarded-host", "b.example.com")];
    let answer = at(&published, "waymark.internal", AI, &forwarded).json();
    assert_eq!(answer["host"]["displayName"], "b.example.com");
    // A route that is withdrawn goes from its host.
    published.publish(&routes[1..]);
    eventually("the withdrawal", || {
        (at(&published, "a.example.com", AI, &[]).json()["entries"].as_array().unwrap().len() == 1)
            .then_some(())
    });
    published.registry.waymark.stop();

    // Nobody else is believed.
    let published = Published::start(&routes, &[]);
    eventually("the catalogue", || {
        (at(&published, "b.example.com", AI, &[]).status == 200).then_some(())
    });
    let answer = at(&published, "b.example.com", AI, &[("x-forwarded-host", "a.example.com")]);
    assert_eq!(answer.json()["host"]["displayName"], "b.example.com");
    common::get(&published.registry.rest);
}
