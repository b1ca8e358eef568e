//! Values of annotations: each with its bounds.

use std::sync::Arc;

use serde_json::Value;
use smol_str::SmolStr;
use waymark_catalogue::merge::Link;
use waymark_catalogue::name::ServerName;
use waymark_catalogue::version;

use crate::problem::excerpt;

/// Most bytes of `tool-definitions`.
pub const MAX_TOOL_DEFINITIONS: usize = 128 * 1024;
/// Most bytes of `authz-claims`.
pub const MAX_CLAIMS: usize = 8 * 1024;
/// Most tools, and most tags.
pub const MAX_ITEMS: usize = 256;
/// Most characters of one tool's or tag's name.
pub const MAX_ITEM: usize = 128;
/// Most characters of `registry-path`.
pub const MAX_PATH: usize = 1024;

/// What is wrong with a value, and what would be right.
pub(super) type Fault = (String, &'static str);

pub(super) fn unique(items: impl Iterator<Item = SmolStr>) -> Box<[SmolStr]> {
    let mut seen: Vec<SmolStr> = Vec::new();
    for item in items {
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    seen.into()
}

pub(super) fn text(text: &str, most: usize) -> Result<SmolStr, Fault> {
    let length = text.chars().count();
    if length == 0 {
        return Err(("is empty".to_owned(), "Give it a text or remove it."));
    }
    if length > most {
        let what = format!("has {length} characters, {most} at most are allowed");
        return Err((what, "Shorten it."));
    }
    if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return Err(("holds control characters".to_owned(), "Remove them."));
    }
    Ok(text.into())
}

/// A full server name, or one part that can follow a namespace.
pub(super) fn name(text: &str) -> Result<SmolStr, Fault> {
    let full = if text.contains('/') { text.to_owned() } else { format!("x/{text}") };
    match ServerName::parse(&full) {
        Ok(_) => Ok(text.into()),
        Err(error) => Err((
            format!("is {}: {error}", excerpt(text)),
            "Use letters, digits, `.`, `-` and `_`; a namespace in reverse DNS may stand before `/`.",
        )),
    }
}

pub(super) fn link(text: &str) -> Result<Link, Fault> {
    const REMEDY: &str =
        "Set it to the server name of an entry of the catalogue, `name` or `name@version`.";
    let (name, version) = match text.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (text, None),
    };
    if let Err(error) = ServerName::parse(name) {
        return Err((format!("is {}: {error}", excerpt(text)), REMEDY));
    }
    // `latest` is what no version means.
    let version = version.filter(|version| *version != "latest");
    if let Some(Err(error)) = version.map(version::check) {
        return Err((format!("cannot be used: {error}"), REMEDY));
    }
    Ok(Link { name: name.into(), version: version.map(Into::into) })
}

pub(super) fn claims(text: &str) -> Result<Arc<str>, Fault> {
    const REMEDY: &str = "Set it to a JSON object of claims, each a string or a list of strings.";
    if text.len() > MAX_CLAIMS {
        return Err((
            format!("has {} bytes, {MAX_CLAIMS} at most are allowed", text.len()),
            REMEDY,
        ));
    }
    let parsed: Value = serde_json::from_str(text).map_err(|error| {
        (format!("is not JSON (line {}, column {})", error.line(), error.column()), REMEDY)
    })?;
    let value = |v: &Value| {
        v.is_string() || v.as_array().is_some_and(|list| list.iter().all(Value::is_string))
    };
    match parsed.as_object() {
        Some(claims) if claims.values().all(value) => Ok(parsed.to_string().into()),
        _ => Err(("is not a JSON object of strings and lists of strings".to_owned(), REMEDY)),
    }
}

pub(super) fn path(text: &str) -> Result<SmolStr, Fault> {
    const REMEDY: &str = "Set it to a path, for example /mcp.";
    let bad = |c: char| {
        c.is_whitespace() || c.is_control() || "?#\\\"<>{}|^`".contains(c) || !c.is_ascii()
    };
    if !text.starts_with('/') {
        return Err((format!("is {}, which does not start with /", excerpt(text)), REMEDY));
    }
    if text.len() > MAX_PATH {
        return Err((
            format!("has {} characters, {MAX_PATH} at most are allowed", text.len()),
            REMEDY,
        ));
    }
    if text.contains(bad) {
        return Err((
            format!("is {}, which holds characters that a path cannot hold", excerpt(text)),
            REMEDY,
        ));
    }
    if text.split('/').any(|segment| segment == "." || segment == "..") || text.contains("//") {
        return Err((format!("is {}, which is not a plain path", excerpt(text)), REMEDY));
    }
    Ok(text.trim_end_matches('/').into())
}

/// Comma-separated, or a JSON array of strings.
pub(super) fn items(text: &str) -> Result<Box<[SmolStr]>, Fault> {
    const REMEDY: &str = "Set it to names separated by commas, or to a JSON array of strings.";
    let list: Vec<SmolStr> = if text.starts_with('[') {
        if text.len() > MAX_ITEMS * (MAX_ITEM + 8) {
            return Err((format!("has {} bytes, which is too long", text.len()), REMEDY));
        }
        serde_json::from_str(text)
            .map_err(|_| ("is not a JSON array of strings".to_owned(), REMEDY))?
    } else {
        text.split(',').take(MAX_ITEMS + 1).map(|item| item.trim().into()).collect()
    };
    let list: Vec<SmolStr> = list.into_iter().filter(|item| !item.is_empty()).collect();
    if list.len() > MAX_ITEMS {
        return Err((format!("has more than {MAX_ITEMS} items"), REMEDY));
    }
    if let Some(bad) = list
        .iter()
        .find(|item| item.chars().count() > MAX_ITEM || item.chars().any(char::is_control))
    {
        let what = format!("holds {}, which is too long or has control characters", excerpt(bad));
        return Err((what, REMEDY));
    }
    Ok(unique(list.into_iter()))
}

pub(super) fn tool_definitions(text: &str) -> Result<Arc<Value>, Fault> {
    const REMEDY: &str = "Set it to a JSON array of MCP tool definitions, each with a `name`.";
    if text.len() > MAX_TOOL_DEFINITIONS {
        let what = format!("has {} bytes, {MAX_TOOL_DEFINITIONS} at most are allowed", text.len());
        return Err((what, REMEDY));
    }
    let parsed: Value = serde_json::from_str(text).map_err(|error| {
        (format!("is not JSON (line {}, column {})", error.line(), error.column()), REMEDY)
    })?;
    let named = |tool: &Value| tool.get("name").is_some_and(Value::is_string);
    match parsed.as_array() {
        Some(tools) if tools.len() <= MAX_ITEMS && tools.iter().all(named) => Ok(Arc::new(parsed)),
        Some(tools) if tools.len() > MAX_ITEMS => {
            Err((format!("has more than {MAX_ITEMS} tools"), REMEDY))
        }
        _ => Err(("is not a JSON array of objects with a `name`".to_owned(), REMEDY)),
    }
}
