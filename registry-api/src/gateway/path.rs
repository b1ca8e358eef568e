//! What a request's path may be taken for.
//!
//! Between the gateway and the server, each hop may decode percent signs, resolve dots, merge
//! slashes, take a backslash for a slash, or drop `;parameters`, once or again. A path that is covered
//! as one of them reads it, and leads elsewhere as another does, would get past the check. So a path
//! is judged by everything that it can be taken for: all of it must be covered by the same server.

use std::collections::BTreeSet;

/// Longest path that is judged, in bytes.
pub(super) const MAX: usize = 8 * 1024;
/// Most different readings that are judged.
const MAX_READINGS: usize = 64;

/// Everything that a path may be taken for, itself included; `None` where it is no path, or one that
/// nobody honest sends.
pub(super) fn readings(raw: &str) -> Option<BTreeSet<String>> {
    let path = raw.split(['?', '#']).next().unwrap_or_default();
    if !path.starts_with('/') || path.len() > MAX {
        return None;
    }
    if path.bytes().any(|byte| byte.is_ascii_control() || byte == b' ' || byte == 0x7f) {
        return None;
    }
    let mut all = BTreeSet::from([path.to_owned()]);
    // Until nothing new comes of it: what is decoded twice is decoded as often as it can be.
    let mut fresh: Vec<String> = vec![path.to_owned()];
    while let Some(path) = fresh.pop() {
        let steps: [fn(&str) -> Option<String>; 5] = [
            decoded,
            |p| Some(resolved(p)),
            |p| Some(merged(p)),
            |p| Some(p.replace('\\', "/")),
            |p| Some(without_parameters(p)),
        ];
        for step in steps {
            let reading = step(&path)?;
            if !all.contains(&reading) {
                if all.len() >= MAX_READINGS {
                    return None;
                }
                all.insert(reading.clone());
                fresh.push(reading);
            }
        }
    }
    Some(all)
}

/// Percent signs decoded once; `None` where that gives control characters, or no text.
fn decoded(path: &str) -> Option<String> {
    if !path.contains('%') {
        return Some(path.to_owned());
    }
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = (byte == b'%')
            .then(|| path.get(at + 1..at + 3))
            .flatten()
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match hex {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    let text = String::from_utf8(out).ok()?;
    (!text.chars().any(char::is_control)).then_some(text)
}

/// Dot segments resolved (RFC 3986, section 5.2.4), also where slashes are doubled.
fn resolved(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let all: Vec<&str> = path.split('/').skip(1).collect();
    let last = all.len().saturating_sub(1);
    for (at, segment) in all.into_iter().enumerate() {
        match segment {
            "." | ".." => {
                if segment == ".." {
                    segments.pop();
                }
                if at == last {
                    segments.push("");
                }
            }
            segment => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

fn merged(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if !(c == '/' && out.ends_with('/')) {
            out.push(c);
        }
    }
    out
}

fn without_parameters(path: &str) -> String {
    let segments: Vec<&str> =
        path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).collect();
    segments.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_have_one_reading() {
        for path in ["/", "/a", "/a/b", "/a/b/", "/a.b/c..d", "/ü", "/a-b_c~d", "/a?b=/../c"] {
            assert_eq!(readings(path).unwrap().len(), 1, "{path}");
        }
    }

    #[test]
    fn tricks_are_read_through() {
        for (path, leads_to) in [
            ("/a/../b", "/b"),
            ("/a/./b", "/a/b"),
            ("/a/%2e%2e/b", "/b"),
            ("/a/%2E%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/..%2fb", "/b"),
            ("/a/%252e%252e/b", "/b"),
            ("/a/%25252e%25252e%25252fb", "/b"),
            ("/a\\..\\b", "/b"),
            ("/a/..%5cb", "/b"),
            ("/a/..;/b", "/b"),
            ("/a/..;x=y/b", "/b"),
            ("/a/%2e%2e%3b/b", "/b"),
            ("/a//../b", "/b"),
            ("//b", "/b"),
            ("/a/..//b", "/b"),
            ("/a/b/..", "/a/"),
            ("/%61", "/a"),
            ("/a%2fb", "/a/b"),
        ] {
            let all = readings(path).unwrap();
            assert!(all.contains(leads_to), "{path}: {all:?}");
        }
    }

    #[test]
    fn what_nobody_honest_sends() {
        for path in ["", "a", "*", "http://x/y", "/a b", "/a\tb", "/a%00b", "/a%0ab", "/%ff%fe"] {
            assert_eq!(readings(path), None, "{path:?}");
        }
        assert_eq!(readings(&format!("/{}", "a".repeat(MAX))), None);
        // Few bytes that can be taken for many paths.
        let many = "/%252e;a/".repeat(40);
        let _ = readings(&many);
    }
}
