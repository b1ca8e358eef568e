//! What stands under `_meta`: the registry's own record, and ToolHive's extension.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::server::ServerDetail;

/// Key under which only the registry writes, in the `_meta` beside `server`.
pub const OFFICIAL: &str = "io.modelcontextprotocol.registry/official";
/// Key under which publishers write, in the server's own `_meta`.
pub const PUBLISHER_PROVIDED: &str = "io.modelcontextprotocol.registry/publisher-provided";
/// ToolHive's key inside [`PUBLISHER_PROVIDED`].
pub const TOOLHIVE: &str = "io.github.stacklok";

/// Lifecycle status of one version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Served and recommended.
    #[default]
    Active,
    /// Served, not recommended.
    Deprecated,
    /// Withdrawn: only shown to those who ask for deleted ones.
    Deleted,
}

impl Status {
    /// The wire form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Deprecated => "deprecated",
            Self::Deleted => "deleted",
        }
    }

    /// Reads the wire form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Active, Self::Deprecated, Self::Deleted].into_iter().find(|s| s.as_str() == text)
    }
}

/// `RegistryExtensions` of the upstream API: what the registry knows of one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Official {
    /// Lifecycle status.
    pub status: Status,
    /// When the status last changed.
    pub status_changed_at: Timestamp,
    /// Why it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_message: Option<String>,
    /// When this version was first published.
    pub published_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Whether it is the newest version of its server.
    pub is_latest: bool,
}

/// The ToolHive extension of an entry, `{status, tier, tools, tags, …}`, whatever key it stands
/// under. The key of the preferred remote or package wins where there are several.
#[must_use]
pub fn toolhive(server: &ServerDetail) -> Option<(&str, &Map<String, Value>)> {
    let all = server.meta.as_ref()?.get(PUBLISHER_PROVIDED)?.get(TOOLHIVE)?.as_object()?;
    let preferred = server
        .remotes
        .iter()
        .filter_map(|r| r.url.as_deref())
        .chain(server.packages.iter().map(|p| p.identifier.as_str()));
    let mut found = preferred.filter_map(|key| all.get_key_value(key));
    let (key, value) = found.next().or_else(|| all.iter().next())?;
    Some((key, value.as_object()?))
}

/// Puts the ToolHive extension under exactly one key: its clients read one key at random.
pub fn set_toolhive(server: &mut ServerDetail, key: &str, extension: Map<String, Value>) {
    let meta = server.meta.get_or_insert_default();
    let provided = meta.entry(PUBLISHER_PROVIDED).or_insert_with(|| Value::Object(Map::new()));
    if !provided.is_object() {
        *provided = Value::Object(Map::new());
    }
    if let Some(provided) = provided.as_object_mut() {
        let keyed = Map::from_iter([(key.to_owned(), Value::Object(extension))]);
        provided.insert(TOOLHIVE.to_owned(), Value::Object(keyed));
    }
}

/// The tags of an entry, as every `publisher-provided.*.*.tags` names them (ToolHive's rule).
pub fn tags(server: &ServerDetail) -> impl Iterator<Item = &str> {
    server
        .meta
        .iter()
        .filter_map(|meta| meta.get(PUBLISHER_PROVIDED)?.as_object())
        .flat_map(Map::values)
        .filter_map(Value::as_object)
        .flat_map(Map::values)
        .filter_map(|extension| extension.get("tags")?.as_array())
        .flatten()
        .filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Transport;
    use serde_json::json;

    #[test]
    fn one_key_is_written_and_the_first_remotes_is_read() {
        let mut server = ServerDetail {
            remotes: vec![
                Transport::remote("sse", "https://b"),
                Transport::remote("sse", "https://a"),
            ],
            ..ServerDetail::default()
        };
        assert!(toolhive(&server).is_none());
        let extension = |tag: &str| json!({"tags": [tag]}).as_object().unwrap().clone();
        set_toolhive(&mut server, "https://a", extension("old"));
        set_toolhive(&mut server, "https://b", extension("new"));
        assert_eq!(toolhive(&server).unwrap().0, "https://b");
        assert_eq!(tags(&server).collect::<Vec<_>>(), ["new"]);
    }
}
