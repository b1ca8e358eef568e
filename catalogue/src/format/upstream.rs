//! The upstream API's list of `{"server": …, "_meta": …}`.

use serde_json::{Value, json};

use super::{Catalogue, FormatError, serialized, without};
use crate::meta::{OFFICIAL, Official};

pub(super) fn read(document: &Value) -> Result<Catalogue, FormatError> {
    let servers = document.get("servers").and_then(Value::as_array);
    let servers = servers.ok_or(FormatError::Shape { path: "$.servers", expected: "a list" })?;
    let mut catalogue = Catalogue::default();
    for (at, item) in servers.iter().enumerate() {
        let path = format!("$.servers[{at}]");
        // A bare server.json in the list is taken too: several registries write it so.
        let (server, meta) = match item.get("server") {
            Some(server) => (server, item.get("_meta")),
            None => (item, None),
        };
        let official = meta
            .and_then(|meta| meta.get(OFFICIAL))
            .and_then(|official| serde_json::from_value::<Official>(official.clone()).ok());
        catalogue.take(&path, server, official);
    }
    if let Some(fields) = document.as_object() {
        catalogue.envelope = without(fields, &["servers", "metadata"]);
    }
    Ok(catalogue)
}

pub(super) fn write(catalogue: &Catalogue) -> Value {
    let servers: Vec<Value> = catalogue
        .entries
        .iter()
        .map(|entry| {
            let meta = match &entry.official {
                Some(official) => json!({ OFFICIAL: official }),
                None => json!({}),
            };
            json!({"server": serialized(&entry.server), "_meta": meta})
        })
        .collect();
    let mut document = catalogue.envelope.clone();
    document.insert("metadata".into(), json!({"count": servers.len()}));
    document.insert("servers".into(), servers.into());
    document.into()
}
