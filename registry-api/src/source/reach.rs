//! Which addresses a source may be fetched from.
//!
//! Who may write an MCPRegistry shall not reach, through this process, what only the cluster can
//! reach: neither its services nor the cloud's metadata. Names are judged by the addresses that they
//! resolve to at the moment of connecting, so a name that changes its address gains nothing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Networks that are not of the public Internet: IANA's special-purpose address registries.
static SPECIAL: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "::1/128",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    ]
    .into_iter()
    .filter_map(|network| network.parse().ok())
    .collect()
});

/// Which addresses may be connected to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Reach {
    /// All: the admin has named the source.
    #[default]
    Anywhere,
    /// Those of the public Internet, and of networks that the admin allows.
    Public(Arc<[IpNet]>),
}

/// The IPv4 address inside an IPv6 address that leads to one: mapped, compatible, 6to4 or NAT64.
fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let [g1, g2] = g.to_be_bytes();
    let [h1, h2] = h.to_be_bytes();
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0 | 0xffff) | (0x64, 0xff9b, 0, 0, 0, 0) => {
            Some(Ipv4Addr::new(g1, g2, h1, h2))
        }
        (0x2002, b, c, ..) => {
            let ([b1, b2], [c1, c2]) = (b.to_be_bytes(), c.to_be_bytes());
            Some(Ipv4Addr::new(b1, b2, c1, c2))
        }
        _ => None,
    }
}

impl Reach {
    /// Whether an address may be connected to.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        let Self::Public(allowed) = self else { return true };
        let within = |networks: &[IpNet], address| networks.iter().any(|n| n.contains(&address));
        if within(allowed, address) {
            return true;
        }
        let inner = embedded(address).map(IpAddr::V4);
        inner.is_none_or(|inner| within(allowed, inner) || !within(&SPECIAL, inner))
            && !within(&SPECIAL, address)
    }

    /// The addresses of a host that may be connected to.
    ///
    /// # Errors
    /// Where it has none.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Refused> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found: Vec<SocketAddr> = match bare.parse::<IpAddr>() {
            Ok(address) => vec![(address, port).into()],
            Err(_) => {
                let found = tokio::net::lookup_host((bare, port)).await;
                found.map_err(|error| Refused::Unknown(error.to_string()))?.collect()
            }
        };
        let allowed: Vec<SocketAddr> =
            found.into_iter().filter(|address| self.allows(address.ip())).collect();
        if allowed.is_empty() { Err(Refused::NotAllowed) } else { Ok(allowed) }
    }
}

/// Why a host is not connected to.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It has no address.
    #[error("its name cannot be resolved: {0}")]
    Unknown(String),
    /// It has only such addresses as are not allowed.
    #[error(
        "its address is not one of the public Internet; the admin may allow its network with --allow-source-network"
    )]
    NotAllowed,
}

impl Resolve for Reach {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.clone();
        Box::pin(async move {
            let found = Self::resolve(&reach, name.as_str(), 0).await?;
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let reach = Reach::Public(Arc::from(["10.1.0.0/16".parse().unwrap()]));
        for (address, allowed) in [
            ("93.184.216.34", true),
            ("2606:2800:220:1::1", true),
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.0.1", false),
            ("127.0.0.1", false),
            ("0.0.0.0", false),
            ("169.254.169.254", false),
            ("100.100.100.200", false),
            ("192.168.1.1", false),
            ("255.255.255.255", false),
            ("::", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("::127.0.0.1", false),
            ("64:ff9b::7f00:1", false),
            ("64:ff9b::5db8:d822", true),
            ("2002:7f00:1::", false),
            ("2002:5db8:d822::", true),
            ("fd00::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("2001:db8::1", false),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(reach.allows(address), allowed, "{address}");
            assert!(Reach::Anywhere.allows(address));
        }
        assert_eq!(SPECIAL.len(), 27);
    }

    #[tokio::test]
    async fn names_are_judged_by_their_addresses() {
        let reach = Reach::Public(Arc::default());
        for host in ["localhost", "127.0.0.1", "[::1]"] {
            let refused = reach.resolve(host, 80).await;
            assert!(matches!(refused, Err(Refused::NotAllowed)), "{host}");
            assert!(Reach::Anywhere.resolve(host, 80).await.is_ok());
        }
    }
}
