//! Names of Gateways and namespaces, as people write them.

use std::fmt;
use std::str::FromStr;

use smol_str::SmolStr;

/// A Gateway by namespace and name, written `NAMESPACE/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GatewayName {
    /// Its namespace.
    pub namespace: SmolStr,
    /// Its name.
    pub name: SmolStr,
}

/// A text that is no `NAMESPACE/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a Gateway is named by NAMESPACE/NAME, for example infra/public")]
pub struct GatewayNameError;

impl FromStr for GatewayName {
    type Err = GatewayNameError;

    fn from_str(text: &str) -> Result<Self, GatewayNameError> {
        let (namespace, name) = text.split_once('/').ok_or(GatewayNameError)?;
        if !is_label(namespace) || !name.split('.').all(is_label) {
            return Err(GatewayNameError);
        }
        Ok(Self { namespace: namespace.into(), name: name.into() })
    }
}

impl fmt::Display for GatewayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Whether a text is a DNS label (RFC 1123), as names of namespaces are.
#[must_use]
pub fn is_label(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len())
        && text.chars().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_names() {
        for (text, good) in [
            ("infra/public", true),
            ("infra/public.example", true),
            ("public", false),
            ("infra/", false),
            ("/public", false),
            ("Infra/public", false),
            ("a/b/c", false),
        ] {
            assert_eq!(text.parse::<GatewayName>().is_ok(), good, "{text}");
        }
    }
}
