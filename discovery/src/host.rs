//! Hostnames as Gateway API compares them.

use std::net::{IpAddr, Ipv6Addr};

use smol_str::{SmolStr, StrExt};

/// Most characters of a DNS name.
const MAX_HOST: usize = 253;

/// The hostname that both sides admit (Gateway API, `HTTPRouteSpec.hostnames`): exact against
/// wildcard gives the exact one, two wildcards the narrower. `None` where they have nothing in
/// common. Lower-cased.
pub(crate) fn intersect(left: &str, right: &str) -> Option<SmolStr> {
    let (left, right) = (left.to_ascii_lowercase_smolstr(), right.to_ascii_lowercase_smolstr());
    match (left.strip_prefix("*."), right.strip_prefix("*.")) {
        (None, None) => (left == right).then_some(left),
        (Some(suffix), None) => below(&right, suffix).then_some(right),
        (None, Some(suffix)) => below(&left, suffix).then_some(left),
        (Some(l), Some(r)) if l == r || below(l, r) => Some(left),
        (Some(l), Some(r)) => below(r, l).then_some(right),
    }
}

/// Whether `host` has one or more labels before `.suffix`; the apex itself does not count.
fn below(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix)
        .and_then(|rest| rest.strip_suffix('.'))
        .is_some_and(|labels| !labels.is_empty())
}

/// Whether a hostname or wildcard pattern admits an exact host, case aside.
pub(crate) fn matches(pattern: &str, host: &str) -> bool {
    intersect(pattern, host).is_some_and(|both| both.eq_ignore_ascii_case(host))
}

/// Whether it begins with `*.`.
pub(crate) fn is_wildcard(host: &str) -> bool {
    host.starts_with("*.") || host == "*"
}

/// A host as a URL holds it: a DNS name lower-cased, an IPv6 address in brackets. `None` where
/// the text is neither a DNS name nor an IP address.
pub(crate) fn for_url(text: &str) -> Option<SmolStr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    if bare.parse::<Ipv6Addr>().is_ok() {
        return Some(smol_str::format_smolstr!("[{bare}]"));
    }
    let name = text.trim_end_matches('.');
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let valid = !name.is_empty() && name.len() <= MAX_HOST && name.split('.').all(label);
    // A name of digits and dots only is an IPv4 address or nothing.
    let digits = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (valid && (!digits || name.parse::<IpAddr>().is_ok()))
        .then(|| name.to_ascii_lowercase_smolstr())
}

/// Whether only clients inside the cluster can resolve the name.
pub(crate) fn is_cluster_internal(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    host == "localhost"
        || host.ends_with(".svc")
        || host.ends_with(".cluster.local")
        || host.contains(".svc.")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intersections() {
        for (left, right, expected) in [
            ("a.com", "a.com", Some("a.com")),
            ("A.com", "a.COM", Some("a.com")),
            ("a.com", "b.com", None),
            ("*.a.com", "x.a.com", Some("x.a.com")),
            ("x.a.com", "*.a.com", Some("x.a.com")),
            ("*.a.com", "x.y.a.com", Some("x.y.a.com")),
            ("*.a.com", "a.com", None),
            ("*.a.com", "xa.com", None),
            ("*.a.com", ".a.com", None),
            ("*.a.com", "*.a.com", Some("*.a.com")),
            ("*.a.com", "*.x.a.com", Some("*.x.a.com")),
            ("*.x.a.com", "*.a.com", Some("*.x.a.com")),
            ("*.a.com", "*.b.com", None),
            ("*.com", "*.a.com", Some("*.a.com")),
        ] {
            assert_eq!(intersect(left, right).as_deref(), expected, "{left} {right}");
        }
    }

    #[test]
    fn hosts_for_urls() {
        for (text, expected) in [
            ("MCP.Company.com", Some("mcp.company.com")),
            ("lb.example.com.", Some("lb.example.com")),
            ("10.0.0.1", Some("10.0.0.1")),
            ("2001:db8::1", Some("[2001:db8::1]")),
            ("[2001:db8::1]", Some("[2001:db8::1]")),
            ("10.0.0", None),
            ("a_b.com", None),
            ("-a.com", None),
            ("a b", None),
            ("a.com/x", None),
            ("u@a.com", None),
            ("a.com:80", None),
            ("*.a.com", None),
            ("", None),
        ] {
            assert_eq!(for_url(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn internal_names() {
        for (host, internal) in [
            ("gw-istio.infra.svc.cluster.local", true),
            ("gw.infra.svc", true),
            ("gw.infra.svc.k8s.company.internal", true),
            ("127.0.0.1", true),
            ("10.0.0.1", false),
            ("svc.example.com", false),
        ] {
            assert_eq!(is_cluster_internal(host), internal, "{host}");
        }
    }
}
