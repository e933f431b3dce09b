//! The addresses of this machine, and which listening sockets accept a connection to an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use crate::sys::socket_place::SocketPlace;

/// The addresses of the interfaces of this network namespace, and where unix sockets are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalAddresses {
    ips: Vec<IpAddr>,
    /// Whether paths are looked up in the file system.
    finds_paths: bool,
}

impl LocalAddresses {
    /// The present ones. If the kernel does not list them (no netlink in a sandbox), loopback alone
    /// is known.
    #[must_use]
    pub fn now() -> Self {
        let found = getifaddrs().into_iter().flatten();
        let of = Self::of(found.filter_map(|interface| ip_of(&interface.address?)));
        Self { finds_paths: true, ..of }
    }

    /// These addresses, and those of loopback, which every machine has. Paths are as written.
    #[must_use]
    pub fn of(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { ips: addresses.into_iter().collect(), finds_paths: false }
    }

    /// Where the unix socket of a path is.
    #[must_use]
    pub fn place_of(&self, path: &Path) -> SocketPlace {
        if self.finds_paths { SocketPlace::find(path) } else { SocketPlace::as_written(path) }
    }

    /// The addresses whose listening socket accepts a connection to `address`: that address, and
    /// the wildcard of its family if it is an address of this machine. A socket for IPv6 accepts no
    /// IPv4 (`IPV6_V6ONLY`).
    pub fn accepting(&self, address: SocketAddr) -> impl Iterator<Item = SocketAddr> {
        // "::ffff:127.0.0.1" is reached over IPv4, and connect(2) takes the unspecified address for
        // loopback (Linux: `ip_route_output_key`, `tcp_v6_connect`).
        let ip = match address.ip().to_canonical() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let wildcard: IpAddr = match ip {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let own = ip.is_loopback() || self.ips.contains(&ip);
        let port = address.port();
        // As it is: with the zone of a link-local address.
        let exact = [address, (ip, port).into()];
        exact.into_iter().chain(own.then(|| SocketAddr::new(wildcard, port)))
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

    fn accepts(listened: &str, address: &str) -> bool {
        let local = ["192.0.2.7", "2001:db8::7"].map(|text| text.parse().unwrap());
        let listened = listened.parse().unwrap();
        LocalAddresses::of(local).accepting(address.parse().unwrap()).any(|bind| bind == listened)
    }

    #[test]
    fn a_wildcard_listener_accepts_every_local_address_of_its_family() {
        let v4 = ["192.0.2.7:80", "127.0.0.5:80", "0.0.0.0:80", "[::ffff:192.0.2.7]:80"];
        for address in v4.into_iter().chain(["[::ffff:0.0.0.0]:80"]) {
            assert!(accepts("0.0.0.0:80", address) && !accepts("[::]:80", address), "{address}");
        }
        for address in ["[2001:db8::7]:80", "[::1]:80", "[::]:80"] {
            assert!(accepts("[::]:80", address) && !accepts("0.0.0.0:80", address), "{address}");
        }
        assert!(!accepts("0.0.0.0:80", "192.0.2.8:80") && !accepts("0.0.0.0:80", "192.0.2.7:81"));
    }

    #[test]
    fn a_listener_on_one_address_accepts_that_address_alone() {
        assert!(accepts("198.51.100.1:80", "198.51.100.1:80"));
        assert!(!accepts("127.0.0.1:80", "192.0.2.7:80"));
        assert!(accepts("[fe80::1%2]:80", "[fe80::1%2]:80"));
        assert!(!accepts("[fe80::1%2]:80", "[fe80::1%3]:80"));
    }

    #[test]
    fn the_unspecified_address_is_loopback() {
        for (listened, address) in [
            ("127.0.0.1:80", "0.0.0.0:80"),
            ("127.0.0.1:80", "[::ffff:0.0.0.0]:80"),
            ("[::1]:80", "[::]:80"),
        ] {
            assert!(accepts(listened, address), "{listened} {address}");
        }
        assert!(!accepts("192.0.2.7:80", "0.0.0.0:80") && !accepts("127.0.0.1:80", "[::]:80"));
    }

    #[test]
    fn every_local_address_can_be_bound() {
        let local = LocalAddresses::now();
        assert!(!local.ips.is_empty(), "there is at least loopback");
        for ip in local.ips.iter().filter(|ip| ip.is_ipv4()) {
            UdpSocket::bind((*ip, 0)).unwrap();
        }
    }
}
