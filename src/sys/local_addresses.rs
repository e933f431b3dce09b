//! The addresses of this machine, and whether a connection to one of them reaches a listener here.

use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

/// The addresses of the interfaces of this network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalAddresses(Vec<IpAddr>);

impl LocalAddresses {
    /// The present ones. If the kernel does not list them (no netlink in a sandbox), loopback alone
    /// is known.
    #[must_use]
    pub fn now() -> Self {
        let found = getifaddrs().into_iter().flatten();
        Self::of(found.filter_map(|interface| ip_of(&interface.address?)))
    }

    /// These addresses, and those of loopback, which every machine has.
    #[must_use]
    pub fn of(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self(addresses.into_iter().collect())
    }

    /// Whether a connection to `address` would be accepted by a socket that listens on `listened`.
    /// A socket for IPv6 accepts no IPv4 (`IPV6_V6ONLY`).
    #[must_use]
    pub fn leads_to(&self, address: SocketAddr, listened: SocketAddr) -> bool {
        // "::ffff:127.0.0.1" is reached over IPv4; the unspecified address is this machine
        // (connect(2)).
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
        let local = ["192.0.2.7", "2001:db8::7"].map(|text| text.parse().unwrap());
        let local = LocalAddresses::of(local);
        local.leads_to(address.parse().unwrap(), listened.parse().unwrap())
    }

    #[test]
    fn a_wildcard_listener_accepts_every_local_address_of_its_family() {
        for address in ["192.0.2.7:80", "127.0.0.5:80", "0.0.0.0:80", "[::ffff:192.0.2.7]:80"] {
            assert!(leads(address, "0.0.0.0:80") && !leads(address, "[::]:80"), "{address}");
        }
        for address in ["[2001:db8::7]:80", "[::1]:80"] {
            assert!(leads(address, "[::]:80") && !leads(address, "0.0.0.0:80"), "{address}");
        }
        assert!(!leads("192.0.2.8:80", "0.0.0.0:80") && !leads("192.0.2.7:81", "0.0.0.0:80"));
    }

    #[test]
    fn a_listener_on_one_address_accepts_that_address_alone() {
        assert!(leads("198.51.100.1:80", "198.51.100.1:80"));
        assert!(!leads("192.0.2.7:80", "127.0.0.1:80"));
    }

    #[test]
    fn every_local_address_can_be_bound() {
        let local = LocalAddresses::now();
        assert!(!local.0.is_empty(), "there is at least loopback");
        for ip in local.0.iter().filter(|ip| ip.is_ipv4()) {
            UdpSocket::bind((*ip, 0)).unwrap();
        }
    }
}
