//! What a gateway's host says of the MCP servers behind it: the AI Catalog, the MCP Catalog, and a
//! Server Card (SEP-2127) for each server.
//!
//! A host tells of the servers that are published at it, and of their endpoints at it; of other hosts
//! it does not know.

use serde_json::{Map, Value, json};
use waymark_catalogue::server::ServerDetail;

use super::index::{Host, Target, host_of};

/// Path of the AI Catalog (AI Catalog 1.0, well-known URI).
pub const AI_CATALOG: &str = "/.well-known/ai-catalog.json";
/// Path of the MCP Catalog (Server Card extension, discovery).
pub const MCP_CATALOG: &str = "/.well-known/mcp/catalog.json";
/// Path of Server Cards, to which the server's name is appended.
pub const SERVER_CARD: &str = "/.well-known/mcp/server-cards";

/// Media type of a Server Card.
const CARD_TYPE: &str = "application/mcp-server-card+json";
/// The JSON Schema URI of a Server Card.
const CARD_SCHEMA: &str =
    "https://static.modelcontextprotocol.io/schemas/v1/server-card.schema.json";

/// Whether a path is one of these documents'.
pub(super) fn is_document(path: &str) -> bool {
    let card = path.strip_prefix(SERVER_CARD);
    path == AI_CATALOG || path == MCP_CATALOG || card.is_some_and(|rest| rest.starts_with('/'))
}

/// `urn:air:{publisher's domain}:mcp:{name}`: the domain is the namespace of the name, turned round.
fn identifier(name: &str) -> String {
    let (namespace, own) = name.split_once('/').unwrap_or(("", name));
    let domain: Vec<&str> = namespace.rsplit('.').collect();
    format!("urn:air:{}:mcp:{own}", domain.join("."))
}

fn title(target: &Target) -> Option<String> {
    let document: Value = serde_json::from_str(target.served.server_text()).ok()?;
    document.get("title")?.as_str().map(str::to_owned)
}

fn own_name(target: &Target) -> &str {
    target.key.name.split_once('/').map_or(target.key.name.as_str(), |(_, own)| own)
}

fn entry(target: &Target, display_name: Option<String>) -> Value {
    let mut entry = json!({
        "identifier": identifier(&target.key.name),
        "type": CARD_TYPE,
        "url": format!("{}{SERVER_CARD}/{}", target.origin, target.key.name),
        "updatedAt": target.served.official.updated_at.to_string(),
    });
    if let (Some(entry), Some(name)) = (entry.as_object_mut(), display_name) {
        entry.insert("displayName".to_owned(), name.into());
    }
    entry
}

/// The AI Catalog of a host. A name stands in an entry only where the card has none of its own.
pub(crate) fn ai_catalog(name: &str, host: &Host) -> Value {
    let entries = host.servers().into_iter().map(|target| {
        let own = title(target).is_none().then(|| own_name(target).to_owned());
        entry(target, own)
    });
    json!({
        "specVersion": "1.0",
        "host": {"displayName": name, "identifier": name},
        "entries": entries.collect::<Vec<Value>>(),
    })
}

/// The MCP Catalog of a host.
pub(crate) fn mcp_catalog(host: &Host) -> Value {
    let entries = host.servers().into_iter().map(|target| {
        entry(target, Some(title(target).unwrap_or_else(|| own_name(target).to_owned())))
    });
    json!({"specVersion": "draft", "entries": entries.collect::<Vec<Value>>()})
}

/// The Server Card of a server, as far as a host knows it.
pub(crate) fn server_card(name: &str, host: &Host, server: &str) -> Option<Value> {
    let target = host.server(server)?;
    let mut detail: ServerDetail = serde_json::from_str(target.served.server_text()).ok()?;
    detail.remotes.retain(|remote| {
        let url = remote.url.as_deref().and_then(|url| url::Url::parse(url).ok());
        url.and_then(|url| host_of(url.host_str()?)).is_some_and(|host| host == name)
    });
    let Ok(Value::Object(mut fields)) = serde_json::to_value(&detail) else { return None };
    // The fields of a card: packages are the registry's matter, and what stands under `_meta` may
    // tell of the cluster's inside.
    let mut card = Map::from_iter([("$schema".to_owned(), Value::from(CARD_SCHEMA))]);
    for field in
        ["name", "version", "description", "title", "websiteUrl", "repository", "icons", "remotes"]
    {
        if let Some(value) = fields.remove(field) {
            card.insert(field.to_owned(), value);
        }
    }
    Some(card.into())
}

#[cfg(test)]
mod tests {
    use super::super::index::tests::{index, served};
    use super::*;

    #[test]
    fn identifiers() {
        for (name, identifier_of) in [
            ("com.example.mcp/weather", "urn:air:mcp.example.com:mcp:weather"),
            ("io.github.user/tool_x", "urn:air:user.github.io:mcp:tool_x"),
        ] {
            assert_eq!(identifier(name), identifier_of);
        }
    }

    #[test]
    fn a_host_tells_of_itself_only() {
        const HTTP: &str = "streamable-http";
        let index = index(&[
            served(
                "com.example/both",
                "1.0.0",
                (1, false),
                &[(HTTP, "https://a.example.com:8443/both"), (HTTP, "https://b.example.com/both")],
            ),
            served("com.example/one", "1.0.0", (2, false), &[(HTTP, "http://b.example.com/one")]),
        ]);
        let (a, b) = (index.host("a.example.com").unwrap(), index.host("b.example.com").unwrap());
        let urls = |catalog: &Value| -> Vec<String> {
            let entries = catalog["entries"].as_array().unwrap();
            entries.iter().map(|entry| entry["url"].as_str().unwrap().to_owned()).collect()
        };
        let card = "/.well-known/mcp/server-cards/com.example";
        assert_eq!(
            urls(&ai_catalog("a.example.com", a)),
            [format!("https://a.example.com:8443{card}/both")]
        );
        assert_eq!(
            urls(&mcp_catalog(b)),
            [
                format!("https://b.example.com{card}/both"),
                format!("http://b.example.com{card}/one")
            ]
        );
        let both = server_card("a.example.com", a, "com.example/both").unwrap();
        let fields: Vec<&String> = both.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["$schema", "name", "version", "description", "title", "remotes"]);
        assert_eq!(both["remotes"].as_array().unwrap().len(), 1);
        assert_eq!(both["remotes"][0]["url"], "https://a.example.com:8443/both");
        assert!(server_card("a.example.com", a, "com.example/one").is_none());
    }

    #[test]
    fn paths_of_documents() {
        for (path, is) in [
            (AI_CATALOG, true),
            (MCP_CATALOG, true),
            ("/.well-known/mcp/server-cards/a.b/c", true),
            ("/.well-known/mcp/server-cards", false),
            ("/.well-known/mcp/server-cardsx/a", false),
            ("/.well-known/mcp", false),
        ] {
            assert_eq!(is_document(path), is, "{path}");
        }
    }
}
