//! The header of the PROXY protocol, by which a server learns the address of a client
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>).

use std::io;
use std::net::{IpAddr, SocketAddr};

use ppp::v1;
use ppp::v2::{Builder, Command, Protocol, Type, Version};

use crate::config::SendProxy;

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary, and with TLVs.
    V2,
}

impl ProxyVersion {
    /// The version that a backend sends, if it sends one.
    #[must_use]
    pub const fn of(setting: SendProxy) -> Option<Self> {
        match setting {
            SendProxy::Off => None,
            SendProxy::V1 => Some(Self::V1),
            SendProxy::V2 => Some(Self::V2),
        }
    }
}

/// What a header of version 2 says besides addresses (type-length-value).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyTlvs {
    /// `PP2_TYPE_AUTHORITY`: the host name that the client asked for.
    pub authority: Option<Box<[u8]>>,
    /// `PP2_TYPE_UNIQUE_ID`: what the first proxy calls this connection.
    pub unique_id: Option<Box<[u8]>>,
}

impl ProxyTlvs {
    /// The longest host name (RFC 1035, 2.3.4).
    pub const AUTHORITY_MAX: usize = 255;
    /// As the protocol limits it (2.2.5).
    pub const UNIQUE_ID_MAX: usize = 128;
}

/// The header of a connection from `source` to `destination`. Of two families, the IPv4 address is
/// written as an IPv4-mapped one, as HAProxy does. If one of them is not known, the header says so
/// ("UNKNOWN", or LOCAL), and the server uses the address that it sees: so does the header of a
/// health check.
#[must_use]
pub fn header(
    version: ProxyVersion,
    source: Option<SocketAddr>,
    destination: Option<SocketAddr>,
    tlvs: &ProxyTlvs,
) -> Vec<u8> {
    let canonical =
        |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let addresses = source.map(canonical).zip(destination.map(canonical));
    let addresses = addresses.map(|(source, to)| {
        if source.is_ipv4() == to.is_ipv4() { (source, to) } else { (mapped(source), mapped(to)) }
    });
    match version {
        ProxyVersion::V1 => addresses.map_or(v1::Addresses::Unknown, Into::into).to_string().into(),
        // It is far below the length that the builder refuses.
        ProxyVersion::V2 => binary(addresses, tlvs).unwrap_or_default(),
    }
}

/// As IPv6: an IPv4 address as an IPv4-mapped one.
const fn mapped(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    SocketAddr::new(IpAddr::V6(ip), address.port())
}

fn binary(addresses: Option<(SocketAddr, SocketAddr)>, tlvs: &ProxyTlvs) -> io::Result<Vec<u8>> {
    let Some(addresses) = addresses else {
        return Builder::new(Version::Two | Command::Local, 0).build();
    };
    let mut builder =
        Builder::with_addresses(Version::Two | Command::Proxy, Protocol::Stream, addresses);
    let all = [
        (Type::Authority, &tlvs.authority, ProxyTlvs::AUTHORITY_MAX),
        (Type::UniqueId, &tlvs.unique_id, ProxyTlvs::UNIQUE_ID_MAX),
    ];
    for (kind, value, max) in all {
        if let Some(value) = value.as_deref().filter(|value| value.len() <= max) {
            builder = builder.write_tlv(kind, value)?;
        }
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(source: &str, destination: &str) -> String {
        let tlvs = ProxyTlvs::default();
        let (source, destination) = (source.parse().ok(), destination.parse().ok());
        String::from_utf8(header(ProxyVersion::V1, source, destination, &tlvs)).unwrap()
    }

    fn bytes(source: &str, destination: &str, tlvs: &ProxyTlvs) -> Vec<u8> {
        header(ProxyVersion::V2, source.parse().ok(), destination.parse().ok(), tlvs)
    }

    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

    #[test]
    fn version_1_is_a_line_with_both_addresses() {
        let line = "PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\r\n";
        assert_eq!(text("192.0.2.1:40000", "198.51.100.2:443"), line);
        assert_eq!(text("[::ffff:192.0.2.1]:40000", "198.51.100.2:443"), line);
        let line = "PROXY TCP6 2001:db8::1 ::1 1 65535\r\n";
        assert_eq!(text("[2001:db8::1]:1", "[::1]:65535"), line);
    }

    #[test]
    fn addresses_of_two_families_are_both_written_as_ipv6() {
        let line = "PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 1 2\r\n";
        assert_eq!(text("[2001:db8::1]:1", "192.0.2.1:2"), line);
        let line = "PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n";
        assert_eq!(text("192.0.2.1:1", "[::1]:2"), line);
        let tlvs = ProxyTlvs { authority: Some(b"a".as_slice().into()), unique_id: None };
        let [client, mapped] = ["2001:db8::1", "::ffff:192.0.2.1"]
            .map(|ip| ip.parse::<std::net::Ipv6Addr>().unwrap().octets());
        let ports = [0, 1, 0, 2];
        let tlv = [2, 0, 1, b'a'];
        let whole = [SIGNATURE, &[0x21, 0x21, 0, 40], &client, &mapped, &ports, &tlv].concat();
        assert_eq!(bytes("[2001:db8::1]:1", "192.0.2.1:2", &tlvs), whole);
    }

    #[test]
    fn addresses_that_are_not_known_are_not_named() {
        let known = "192.0.2.1:1";
        for (source, destination) in [("", known), (known, ""), ("", "")] {
            assert_eq!(text(source, destination), "PROXY UNKNOWN\r\n");
            let tlvs = ProxyTlvs { authority: Some(b"a".as_slice().into()), unique_id: None };
            let local = [SIGNATURE, &[0x20, 0, 0, 0]].concat();
            assert_eq!(bytes(source, destination, &tlvs), local);
        }
    }

    #[test]
    fn version_2_has_both_addresses_and_the_tlvs() {
        let tlvs = ProxyTlvs {
            authority: Some(b"a.test".as_slice().into()),
            unique_id: Some([7; 128].as_slice().into()),
        };
        let addresses = [192, 0, 2, 1, 198, 51, 100, 2, 0x9c, 0x40, 1, 187];
        let none = [SIGNATURE, &[0x21, 0x11, 0, 12], &addresses].concat();
        let found = bytes("192.0.2.1:40000", "198.51.100.2:443", &ProxyTlvs::default());
        assert_eq!(found, none);
        let found = bytes("192.0.2.1:40000", "198.51.100.2:443", &tlvs);
        let length = [0x21, 0x11, 0, 12 + 3 + 6 + 3 + 128];
        let values = [[2, 0, 6].as_slice(), b"a.test", &[5, 0, 128], &[7; 128]].concat();
        assert_eq!(found, [SIGNATURE, &length, &addresses, &values].concat());
        let found = bytes("[2001:db8::1]:1", "[::1]:2", &ProxyTlvs::default());
        assert_eq!(found[..16], [SIGNATURE, &[0x21, 0x21, 0, 36]].concat());
        assert_eq!((found.len(), &found[48..]), (52, [0, 1, 0, 2].as_slice()));
    }

    #[test]
    fn a_tlv_that_is_too_long_is_left_out() {
        let long = |length: usize| Some(vec![b'x'; length].into_boxed_slice());
        let tlvs = ProxyTlvs { authority: long(256), unique_id: long(129) };
        assert_eq!(bytes("192.0.2.1:1", "192.0.2.2:2", &tlvs).len(), 28);
    }
}
