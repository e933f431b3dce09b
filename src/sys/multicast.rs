//! The links of this machine that have multicast, with a socket on each to send to a group.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sys::socket::SockaddrStorage;
use socket2::{Domain, Protocol, Socket, Type};

/// Interfaces that are used, those with an IPv4 address first: a machine that runs containers has
/// hundreds without one, and each takes descriptors.
pub const INTERFACES_MAX: usize = 8;

/// Packets stay on the link: no router forwards to 224.0.0.0/24 and `ff02::/16`. The value is the
/// one that multicast DNS asks for (RFC 6762, 11).
const HOPS: u32 = 255;

/// A link, in one address family.
#[derive(Debug)]
pub struct Link {
    /// The group, on this interface.
    pub group: SocketAddr,
    /// The index of the interface.
    pub zone: u32,
    /// The networks of the interface: an address, and its mask.
    networks: Vec<(IpAddr, IpAddr)>,
}

impl Link {
    /// Whether a host with that address is on the link, by the networks of its interface.
    #[must_use]
    pub fn is_on_link(&self, address: IpAddr) -> bool {
        let mut networks = self.networks.iter();
        networks.any(|(own, mask)| match (own, mask, address) {
            (IpAddr::V4(own), IpAddr::V4(mask), IpAddr::V4(other)) => *own & *mask == other & *mask,
            (IpAddr::V6(own), IpAddr::V6(mask), IpAddr::V6(other)) => *own & *mask == other & *mask,
            _ => false,
        })
    }
}

/// The links of every interface that is up and has multicast, without loopback, each with a socket
/// to send to the group of its family at that port: it is bound to an address of the interface and
/// to a port of its own, and does not block. An interface that fails is left out.
///
/// # Errors
/// The kernel does not list the interfaces.
pub fn links((v4, v6, port): (Ipv4Addr, Ipv6Addr, u16)) -> io::Result<Vec<(UdpSocket, Link)>> {
    let mut interfaces: BTreeMap<String, Vec<(IpAddr, IpAddr)>> = BTreeMap::new();
    for found in getifaddrs()? {
        if let Some(network) = network_of(&found) {
            interfaces.entry(found.interface_name).or_default().push(network);
        }
    }
    let mut interfaces: Vec<_> = interfaces.into_iter().collect();
    interfaces.sort_by_key(|(_, networks)| !networks.iter().any(|(own, _)| own.is_ipv4()));
    let mut links = Vec::new();
    for (name, networks) in interfaces.into_iter().take(INTERFACES_MAX) {
        let Ok(zone) = if_nametoindex(name.as_str()) else { continue };
        let own_v4 = networks.iter().find_map(|(own, _)| match own {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        });
        let own_v6 = networks.iter().find_map(|(own, _)| match own {
            IpAddr::V6(ip) if ip.is_unicast_link_local() => Some(*ip),
            _ => None,
        });
        let sockets = [
            own_v4.map(|own| (socket_v4(own), SocketAddr::from((v4, port)))),
            own_v6.map(|own| (socket_v6(own, zone), SocketAddrV6::new(v6, port, 0, zone).into())),
        ];
        for (socket, group) in sockets.into_iter().flatten() {
            let Ok(socket) = socket else { continue };
            links.push((socket, Link { group, zone, networks: networks.clone() }));
        }
    }
    Ok(links)
}

/// An address of an interface that is used, and its mask.
fn network_of(found: &InterfaceAddress) -> Option<(IpAddr, IpAddr)> {
    let wanted = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_MULTICAST;
    if !found.flags.contains(wanted) || found.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
        return None;
    }
    Some((ip_of(found.address.as_ref()?)?, ip_of(found.netmask.as_ref()?)?))
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

fn socket_v4(own: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_multicast_if_v4(&own)?;
    socket.set_multicast_ttl_v4(HOPS)?;
    ready(socket, (own, 0).into())
}

fn socket_v6(own: Ipv6Addr, zone: u32) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(true)?;
    socket.set_multicast_if_v6(zone)?;
    socket.set_multicast_hops_v6(HOPS)?;
    ready(socket, SocketAddrV6::new(own, 0, 0, zone).into())
}

fn ready(socket: Socket, own: SocketAddr) -> io::Result<UdpSocket> {
    socket.set_nonblocking(true)?;
    socket.bind(&own.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_the_networks_of_an_interface_are_on_its_link() {
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let networks = [("192.0.2.7", "255.255.255.0"), ("fe80::7", "ffff:ffff:ffff:ffff::")];
        let link = Link {
            group: "224.0.0.251:5353".parse().unwrap(),
            zone: 2,
            networks: networks.map(|(own, mask)| (ip(own), ip(mask))).to_vec(),
        };
        for (address, expected) in [
            ("192.0.2.200", true),
            ("192.0.3.1", false),
            ("fe80::8", true),
            ("2001:db8::8", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(link.is_on_link(ip(address)), expected, "{address}");
        }
    }
}
