//! Server names: `namespace/name`, the namespace in reverse DNS.

use std::fmt;
use std::net::IpAddr;

use smol_str::SmolStr;

/// Fewest characters of a server name (server.json schema, `name.minLength`).
pub const MIN_NAME: usize = 3;
/// Most characters of a server name (server.json schema, `name.maxLength`).
pub const MAX_NAME: usize = 200;

/// Why a text is not a server name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Shorter or longer than the schema allows.
    #[error("a name has {MIN_NAME} to {MAX_NAME} characters, this one has {0}")]
    Length(usize),
    /// Not exactly one slash.
    #[error("a name has exactly one `/` between its namespace and its own part")]
    Slash,
    /// Nothing before or after the slash.
    #[error("neither the namespace nor the part after `/` may be empty")]
    Empty,
    /// A character outside the schema's pattern.
    #[error(
        "the character {0:?} is not allowed: a namespace has letters, digits, `.` and `-`, the part after `/` also `_`"
    )]
    Character(char),
}

/// A valid server name: `^[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+$`, 3 to 200 characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerName(SmolStr);

impl ServerName {
    /// Checks `text` against the schema's rules.
    ///
    /// # Errors
    /// The first rule that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if !(MIN_NAME..=MAX_NAME).contains(&text.len()) {
            return Err(NameError::Length(text.chars().count()));
        }
        let (namespace, own) = text.split_once('/').ok_or(NameError::Slash)?;
        if own.contains('/') {
            return Err(NameError::Slash);
        }
        if namespace.is_empty() || own.is_empty() {
            return Err(NameError::Empty);
        }
        let namespace_char = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        let bad = namespace
            .chars()
            .find(|c| !namespace_char(*c))
            .or_else(|| own.chars().find(|c| !namespace_char(*c) && *c != '_'));
        match bad {
            Some(c) => Err(NameError::Character(c)),
            None => Ok(Self(text.into())),
        }
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the slash.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The part after the slash.
    #[must_use]
    pub fn own(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, own)| own)
    }
}

impl fmt::Debug for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The reverse DNS of a host name (`mcp.company.com` → `com.company.mcp`), lower-cased.
/// `None` where there is none: an IP address, or a text that is no host name.
#[must_use]
pub fn reverse_dns(host: &str) -> Option<String> {
    let host = host.trim_end_matches('.');
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || bare.parse::<IpAddr>().is_ok() {
        return None;
    }
    let mut labels: Vec<&str> = host.split('.').collect();
    let valid = |label: &&str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if !labels.iter().all(valid) {
        return None;
    }
    labels.reverse();
    Some(labels.join(".").to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let long = format!("a/{}", "b".repeat(199));
        for (text, expected) in [
            ("com.company.mcp/github", None),
            ("A-1.b/c_d.e-F", None),
            ("a/b", None),
            ("ab", Some(NameError::Length(2))),
            (long.as_str(), Some(NameError::Length(201))),
            ("nothing", Some(NameError::Slash)),
            ("a/b/c", Some(NameError::Slash)),
            ("/abc", Some(NameError::Empty)),
            ("abc/", Some(NameError::Empty)),
            ("a_b/c", Some(NameError::Character('_'))),
            ("a.b/c d", Some(NameError::Character(' '))),
            ("a.b/ü", Some(NameError::Character('ü'))),
        ] {
            assert_eq!(ServerName::parse(text).err(), expected, "{text}");
        }
    }

    #[test]
    fn reverse_dns_of_hosts() {
        for (host, expected) in [
            ("mcp.company.com", Some("com.company.mcp")),
            ("MCP.Company.com.", Some("com.company.mcp")),
            ("localhost", Some("localhost")),
            ("10.0.0.1", None),
            ("[2001:db8::1]", None),
            ("2001:db8::1", None),
            ("*.company.com", None),
            ("a..b", None),
            ("", None),
        ] {
            assert_eq!(reverse_dns(host).as_deref(), expected, "{host}");
        }
    }
}
