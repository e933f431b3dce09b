//! The addresses of this machine, and whether a connection to one of them would come back to us.

use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

/// The addresses that the interfaces of this network namespace have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Here(Vec<IpAddr>);

impl Here {
    /// As the kernel has them now. If it does not say (no netlink in a sandbox), loopback alone is
    /// known.
    #[must_use]
    pub fn now() -> Self {
        let found = getifaddrs().into_iter().flatten();
        Self::of(found.filter_map(|interface| ip_of(&interface.address?)))
    }

    /// These, and loopback, which every machine has.
    #[must_use]
    pub fn of(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self(addresses.into_iter().collect())
    }

    /// Whether a connection to `address` would come in at a socket that listens on `listened`,
    /// which takes no IPv4 if it is IPv6 (`IPV6_V6ONLY`).
    #[must_use]
    pub fn leads_to(&self, address: SocketAddr, listened: SocketAddr) -> bool {
        // "::ffff:127.0.0.1" is reached over IPv4; no address at all is this machine (connect(2)).
        let ip = address.ip().to_canonical();
        let own = || ip.is_loopback() || ip.is_unspecified() || self.0.contains(&ip);
        let every = || listened.ip().is_unspecified() && listened.is_ipv4() == ip.is_ipv4();
        address.port() == listened.port() && (ip == listened.ip() || (every() && own()))
    }
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn leads(address: &str, listened: &str) -> bool {
        let here = Here::of(["192.0.2.7", "2001:db8::7"].map(|text| text.parse().unwrap()));
        here.leads_to(address.parse().unwrap(), listened.parse().unwrap())
    }

    #[test]
    fn a_wildcard_is_every_address_of_the_machine_in_its_family() {
        for address in ["192.0.2.7:80", "127.0.0.5:80", "0.0.0.0:80", "[::ffff:192.0.2.7]:80"] {
            assert!(leads(address, "0.0.0.0:80") && !leads(address, "[::]:80"), "{address}");
        }
        for address in ["[2001:db8::7]:80", "[::1]:80"] {
            assert!(leads(address, "[::]:80") && !leads(address, "0.0.0.0:80"), "{address}");
        }
        assert!(!leads("192.0.2.8:80", "0.0.0.0:80") && !leads("192.0.2.7:81", "0.0.0.0:80"));
    }

    #[test]
    fn one_address_is_itself_alone() {
        assert!(leads("198.51.100.1:80", "198.51.100.1:80"));
        assert!(!leads("192.0.2.7:80", "127.0.0.1:80"));
    }

    #[test]
    fn what_can_be_bound_is_here() {
        let here = Here::now();
        assert!(!here.0.is_empty(), "there is at least loopback");
        for ip in here.0.iter().filter(|ip| ip.is_ipv4()) {
            UdpSocket::bind((*ip, 0)).unwrap();
        }
    }
}
