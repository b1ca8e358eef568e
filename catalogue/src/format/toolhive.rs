//! ToolHive's `upstream-registry` file: `{"$schema", "version", "meta", "data": {"servers": […]}}`.

use serde_json::{Map, Value, json};

use super::{Catalogue, FormatError, serialized, without};

const SCHEMA: &str = "https://raw.githubusercontent.com/stacklok/toolhive-core/main/registry/types/data/upstream-registry.schema.json";

pub(super) fn read(document: &Value) -> Result<Catalogue, FormatError> {
    let data = document.get("data").and_then(Value::as_object);
    let data = data.ok_or(FormatError::Shape { path: "$.data", expected: "an object" })?;
    let servers = data.get("servers").and_then(Value::as_array);
    let servers =
        servers.ok_or(FormatError::Shape { path: "$.data.servers", expected: "a list" })?;
    let mut catalogue = Catalogue::default();
    for (at, server) in servers.iter().enumerate() {
        catalogue.take(&format!("$.data.servers[{at}]"), server, None);
    }
    if let Some(fields) = document.as_object() {
        catalogue.envelope = fields.clone();
        catalogue.envelope.insert("data".into(), without(data, &["servers"]).into());
    }
    Ok(catalogue)
}

pub(super) fn write(catalogue: &Catalogue) -> Value {
    let mut document = catalogue.envelope.clone();
    let newest = catalogue.entries.iter().filter_map(|e| Some(e.official.as_ref()?.updated_at));
    let newest = newest.max().unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    document.entry("$schema").or_insert_with(|| SCHEMA.into());
    document.entry("version").or_insert_with(|| "1.0.0".into());
    document.entry("meta").or_insert_with(|| json!({"last_updated": newest}));
    let servers: Vec<Value> = catalogue.entries.iter().map(|e| serialized(&e.server)).collect();
    let mut data = match document.shift_remove("data") {
        Some(Value::Object(data)) => data,
        _ => Map::new(),
    };
    data.insert("servers".into(), servers.into());
    document.insert("data".into(), data.into());
    document.into()
}
