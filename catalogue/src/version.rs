//! Versions: what is one, which is newer.

use std::cmp::Ordering;

/// Most characters of a version (server.json schema, `version.maxLength`).
pub const MAX_VERSION: usize = 255;

/// The version an entry gets where nothing tells one.
pub const DEFAULT_VERSION: &str = "1.0.0";

/// Why a text is not a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// No characters at all.
    #[error("a version may not be empty")]
    Empty,
    /// More than [`MAX_VERSION`] characters.
    #[error("a version has at most {MAX_VERSION} characters, this one has {0}")]
    Length(usize),
    /// `latest` means something else in the API.
    #[error("`latest` is reserved: name a specific version")]
    Latest,
    /// A range or wildcard.
    #[error("a version range is not a version: name a specific one")]
    Range,
    /// Control characters or white space at an end.
    #[error("a version may not hold control characters, or white space at its ends")]
    Character,
}

/// Checks a version by the rules of server.json: 1 to 255 characters, specific, no range.
///
/// # Errors
/// The first rule that `text` breaks.
pub fn check(text: &str) -> Result<(), VersionError> {
    if text.is_empty() {
        return Err(VersionError::Empty);
    }
    let length = text.chars().count();
    if length > MAX_VERSION {
        return Err(VersionError::Length(length));
    }
    if text.chars().any(char::is_control) || text.trim() != text {
        return Err(VersionError::Character);
    }
    if text == "latest" {
        return Err(VersionError::Latest);
    }
    if is_range(text) {
        return Err(VersionError::Range);
    }
    Ok(())
}

fn is_range(text: &str) -> bool {
    if text.starts_with(['^', '~', '>', '<', '=']) || text.contains("||") || text.contains(" - ") {
        return true;
    }
    // A wildcard counts only in a dotted number: `1.x` is a range, `x-ray` and `1.0.0-x` are not.
    let bare = text.strip_prefix('v').unwrap_or(text);
    let core = bare.split(['-', '+']).next().unwrap_or(bare);
    let wild = |s: &str| matches!(s, "x" | "X" | "*");
    let numeric = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let wildcard = core.split('.').any(wild) && core.split('.').all(|s| wild(s) || numeric(s));
    wildcard && (core.contains('.') || core == bare)
}

/// The semantic version in `text`, an initial `v` allowed; `None` where it is not one.
#[must_use]
pub fn semantic(text: &str) -> Option<semver::Version> {
    semver::Version::parse(text.strip_prefix('v').unwrap_or(text)).ok()
}

/// Orders two versions, older first: semantic versions by precedence, and after any that is not
/// semantic; two that are not by their publish time (upstream's rule for `latest`). Equal
/// precedence (build metadata) falls back to publish time too, then to the text, so that the
/// order is total.
#[must_use]
pub fn compare<T: Ord>(left: (&str, T), right: (&str, T)) -> Ordering {
    let by_time = |l: (&str, T), r: (&str, T)| l.1.cmp(&r.1).then_with(|| l.0.cmp(r.0));
    match (semantic(left.0), semantic(right.0)) {
        (Some(l), Some(r)) => l.cmp_precedence(&r).then_with(|| by_time(left, right)),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => by_time(left, right),
    }
}

/// The version that a container image's tag names, where the tag is a semantic version:
/// `ghcr.io/acme/gh:v1.4.2` → `v1.4.2`. A digest after the tag is passed over.
#[must_use]
pub fn of_image(image: &str) -> Option<&str> {
    let image = image.split('@').next().unwrap_or(image);
    let last = image.rsplit('/').next().unwrap_or(image);
    let (_, tag) = last.split_once(':')?;
    semantic(tag).map(|_| tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks() {
        let long = "1".repeat(256);
        for (text, expected) in [
            ("1.0.0", None),
            ("v2.1.0-alpha+build", None),
            ("2024-01-05", None),
            ("1.0.0-x", None),
            ("x-ray", None),
            ("xenial", None),
            ("", Some(VersionError::Empty)),
            (long.as_str(), Some(VersionError::Length(256))),
            ("latest", Some(VersionError::Latest)),
            ("^1.2.3", Some(VersionError::Range)),
            ("~1.2", Some(VersionError::Range)),
            (">=1.2.3", Some(VersionError::Range)),
            ("1.x", Some(VersionError::Range)),
            ("1.*", Some(VersionError::Range)),
            ("*", Some(VersionError::Range)),
            ("1.0.0 - 2.0.0", Some(VersionError::Range)),
            ("1.0 || 2.0", Some(VersionError::Range)),
            (" 1.0.0", Some(VersionError::Character)),
            ("1.0\n", Some(VersionError::Character)),
        ] {
            assert_eq!(check(text).err(), expected, "{text:?}");
        }
    }

    #[test]
    fn order() {
        for (older, newer) in [
            (("1.2.0", 9), ("1.10.0", 1)),
            (("1.0.0-rc.1", 9), ("1.0.0", 1)),
            (("v1.0.0", 9), ("1.0.1", 1)),
            (("nightly", 9), ("0.0.1", 1)),
            (("b", 1), ("a", 2)),
            (("a", 1), ("b", 1)),
            (("1.0.0+a", 1), ("1.0.0+b", 2)),
        ] {
            assert_eq!(compare(older, newer), Ordering::Less, "{older:?} {newer:?}");
            assert_eq!(compare(newer, older), Ordering::Greater, "{older:?} {newer:?}");
        }
    }

    #[test]
    fn image_tags() {
        for (image, expected) in [
            ("ghcr.io/acme/gh:1.4.2", Some("1.4.2")),
            ("ghcr.io/acme/gh:v1.4.2@sha256:00", Some("v1.4.2")),
            ("registry:5000/gh", None),
            ("gh:latest", None),
            ("gh:1.4", None),
            ("gh", None),
        ] {
            assert_eq!(of_image(image), expected, "{image}");
        }
    }
}
