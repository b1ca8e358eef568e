//! What is published for one server: a server.json document and what goes beside it.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value, json};
use smol_str::SmolStr;
use waymark_catalogue::merge::Link;
use waymark_catalogue::meta;
use waymark_catalogue::server::{Icon, SCHEMA, ServerDetail, Transport};
use waymark_catalogue::validate::MAX_TEXT;
use waymark_catalogue::version;

use crate::annotation::{Annotations, Description};
use crate::finding::Finding;
use crate::object::{Key, Kind, McpResource, Meta};
use crate::resolver::Endpoint;

/// One entry as it goes to the registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Unique within the publisher, and the same for as long as the entry is the same.
    pub id: SmolStr,
    /// Version of the server.
    pub version: SmolStr,
    /// The server.json document.
    pub server: String,
    /// Type and URL of remotes that only clients inside the cluster reach.
    pub in_cluster: Vec<(SmolStr, SmolStr)>,
    /// The entry whose remotes these are, for a linked one.
    pub link: Option<Link>,
    /// Target registry; the default one where `None`.
    pub registry: Option<SmolStr>,
    /// Who may see the entry, as a JSON object.
    pub claims: Option<std::sync::Arc<str>>,
    /// The objects that it was made from.
    pub sources: Vec<Key>,
}

/// One object's share in an entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share<'o> {
    /// The object that offers.
    pub(crate) source: &'o Key,
    /// Its metadata.
    pub(crate) meta: &'o Meta,
    /// Its annotations.
    pub(crate) annotations: &'o Annotations,
    /// The MCP resource behind it (the object itself for a direct URL).
    pub(crate) resource: Option<&'o McpResource>,
    /// The endpoints it offers.
    pub(crate) endpoints: &'o [Endpoint],
}

impl<'o> Share<'o> {
    /// The annotations that count, the object's own before its resource's.
    fn annotations(self) -> impl Iterator<Item = &'o Annotations> {
        let own = self.annotations;
        let resource = self.resource.map(|resource| &resource.annotations);
        [own].into_iter().chain(resource.filter(move |of| !std::ptr::eq(*of, own)))
    }
}

/// What probes found out, by URL.
pub(crate) type Findings = ahash::HashMap<SmolStr, Finding>;

/// A fingerprint of all that [`build`] makes an entry from: an entry whose fingerprint is the same
/// is the same. Much cheaper than making it.
pub(crate) fn fingerprint(link: Option<&Link>, shares: &[Share<'_>], findings: &Findings) -> u64 {
    let mut hasher = DefaultHasher::new();
    link.hash(&mut hasher);
    for share in shares {
        share.source.hash(&mut hasher);
        share.meta.uid.hash(&mut hasher);
        share.annotations.hash(&mut hasher);
        share.endpoints.hash(&mut hasher);
        if !findings.is_empty() {
            for endpoint in share.endpoints {
                findings.get(&endpoint.url).hash(&mut hasher);
            }
        }
        if let Some(resource) = share.resource {
            resource.kind.hash(&mut hasher);
            resource.meta.namespace.hash(&mut hasher);
            resource.meta.name.hash(&mut hasher);
            resource.meta.uid.hash(&mut hasher);
            resource.annotations.hash(&mut hasher);
            resource.transport.hash(&mut hasher);
            resource.backend_transport.hash(&mut hasher);
            resource.image.hash(&mut hasher);
            resource.server_version.hash(&mut hasher);
            resource.in_cluster_url.hash(&mut hasher);
            resource.authenticated.hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// Makes the entry of a server: `name` is its server name, `shares` its objects, oldest first.
/// Of what annotations say, the oldest object's word counts.
pub(crate) fn build(
    id: &str,
    name: &str,
    link: Option<&Link>,
    shares: &[Share<'_>],
    findings: &Findings,
) -> Entry {
    let annotations = || shares.iter().copied().flat_map(Share::annotations);
    let described: Vec<&Description> =
        annotations().filter_map(|a| a.description.as_deref()).collect();
    let resource = shares.iter().find_map(|share| share.resource);

    let mut endpoints: Vec<&Endpoint> = shares.iter().flat_map(|share| share.endpoints).collect();
    endpoints.sort_by(|a, b| a.order().cmp(&b.order()));
    endpoints.dedup_by(|later, first| later.url == first.url);
    let (external, internal): (Vec<&Endpoint>, Vec<&Endpoint>) =
        endpoints.into_iter().partition(|endpoint| endpoint.external);
    let mut in_cluster: Vec<(SmolStr, SmolStr)> =
        internal.iter().map(|e| (e.transport.as_str().into(), e.url.clone())).collect();
    if let Some(resource) = resource.filter(|r| r.kind == Kind::LifecycleMcpServer)
        && let Some(url) = &resource.in_cluster_url
        && waymark_catalogue::validate::http_url_fault(url).is_none()
        && !in_cluster.iter().any(|(_, known)| known == url)
    {
        in_cluster.push((resource.transport.as_str().into(), url.clone()));
    }

    let version = annotations().find_map(|a| a.version.clone());
    let version = version.or_else(|| resource.and_then(own_version));
    let version = version.unwrap_or_else(|| SmolStr::new_static(version::DEFAULT_VERSION));
    let text = described.iter().find_map(|d| d.text.as_ref().map(ToString::to_string));
    let mut server = ServerDetail {
        schema: Some(SCHEMA.to_owned()),
        name: name.to_owned(),
        title: described.iter().find_map(|d| d.title.as_ref().map(ToString::to_string)),
        description: text.unwrap_or_else(|| default_description(shares)),
        version: version.to_string(),
        icons: described
            .iter()
            .find_map(|d| d.icon.as_ref())
            .map(|src| Icon { src: src.to_string(), ..Icon::default() })
            .into_iter()
            .collect(),
        remotes: external.iter().map(|e| Transport::remote(e.transport.as_str(), &e.url)).collect(),
        ..ServerDetail::default()
    };
    if let Some(first) = external.first().or(internal.first()) {
        let mut extension = extension(shares, resource, &described);
        add_findings(&mut extension, &external, findings);
        meta::set_toolhive(&mut server, &first.url, extension);
    }
    Entry {
        id: id.into(),
        version,
        // Serializing these types cannot fail: no map has a key that is not a string.
        server: serde_json::to_string(&server).unwrap_or_default(),
        in_cluster,
        link: link.cloned(),
        registry: annotations().find_map(|a| a.registry.clone()),
        claims: annotations().find_map(|a| a.claims.clone()),
        sources: sources(shares),
    }
}

fn own_version(resource: &McpResource) -> Option<SmolStr> {
    let reported = resource.server_version.as_ref().filter(|v| version::check(v).is_ok());
    reported.cloned().or_else(|| version::of_image(resource.image.as_ref()?).map(SmolStr::new))
}

fn default_description(shares: &[Share<'_>]) -> String {
    let Some(share) = shares.first() else {
        return "MCP server".to_owned();
    };
    let (kind, meta) = match share.resource {
        Some(resource) => (resource.kind, &resource.meta),
        None => (share.source.kind, share.meta),
    };
    let sentence = format!("MCP server of {kind} {} in namespace {}", meta.name, meta.namespace);
    if sentence.chars().count() <= MAX_TEXT { sentence } else { format!("MCP server of a {kind}") }
}

fn extension(
    shares: &[Share<'_>],
    resource: Option<&McpResource>,
    described: &[&Description],
) -> Map<String, Value> {
    let mut extension = Map::new();
    extension.insert("status".into(), "active".into());
    if let Some(tier) = described.iter().find_map(|d| d.tier) {
        extension.insert("tier".into(), tier.into());
    }
    let mut list = |key: &str, items: Option<&[SmolStr]>| {
        if let Some(items) = items {
            let items: Vec<&str> = items.iter().map(SmolStr::as_str).collect();
            extension.insert(key.into(), items.into());
        }
    };
    list("tools", described.iter().map(|d| &d.tools[..]).find(|tools| !tools.is_empty()));
    list("tags", described.iter().map(|d| &d.tags[..]).find(|tags| !tags.is_empty()));
    if let Some(tools) = described.iter().find_map(|d| d.tool_definitions.as_ref()) {
        extension.insert("tool_definitions".into(), Value::clone(tools));
    }
    let Some(share) = shares.first() else {
        return extension;
    };
    let mut kubernetes = Map::new();
    let mut put = |key: &str, value: &str| {
        if !value.is_empty() {
            kubernetes.insert(key.into(), value.into());
        }
    };
    match resource {
        Some(resource) => {
            put("kind", resource.kind.as_str());
            put("namespace", &resource.meta.namespace);
            put("name", &resource.meta.name);
            put("uid", &resource.meta.uid);
            put("image", resource.image.as_deref().unwrap_or_default());
            put("transport", &resource.backend_transport);
        }
        None => {
            put("kind", share.source.kind.as_str());
            put("namespace", &share.meta.namespace);
            put("name", &share.meta.name);
            put("uid", &share.meta.uid);
            put("transport", share.endpoints.first().map_or("", |e| e.transport.as_str()));
        }
    }
    extension.insert("metadata".into(), json!({ "kubernetes": kubernetes }));
    if resource.is_some_and(|resource| resource.authenticated) {
        extension.insert("custom_metadata".into(), json!({"authentication": "required"}));
    }
    extension
}

/// Adds what probes found out: tools that no annotation gave, and which endpoints do not answer.
fn add_findings(extension: &mut Map<String, Value>, external: &[&Endpoint], findings: &Findings) {
    let found = || external.iter().filter_map(|e| Some((&e.url, findings.get(&e.url)?)));
    if !extension.contains_key("tools") {
        let tools = found().find_map(|(_, finding)| match finding {
            Finding::Answers { tools } if !tools.is_empty() => Some(tools),
            _ => None,
        });
        if let Some(tools) = tools {
            let tools: Vec<&str> = tools.iter().map(SmolStr::as_str).collect();
            extension.insert("tools".into(), tools.into());
        }
    }
    let silent = found().filter(|(_, finding)| matches!(finding, Finding::Silent(_)));
    let silent: Vec<&str> = silent.map(|(url, _)| url.as_str()).collect();
    if !silent.is_empty() {
        let custom = extension.entry("custom_metadata").or_insert_with(|| json!({}));
        if let Some(custom) = custom.as_object_mut() {
            custom.insert("unanswered".into(), silent.into());
        }
    }
}

fn sources(shares: &[Share<'_>]) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    let of_resources = shares.iter().filter_map(|share| share.resource.map(McpResource::key));
    for key in shares.iter().map(|share| share.source.clone()).chain(of_resources) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}
