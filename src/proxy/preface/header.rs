//! Reads a PROXY header of version 1 or 2
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use ppp::v2::{Addresses, Command, Protocol, Type};
use ppp::{PartialResult, v1, v2};

use crate::proxy::preface::Progress;
use crate::shared::proxy_header::ProxyTlvs;

/// The longest header of version 1, with its end (2.1).
const LINE_MAX: usize = 107;

/// Whatever follows in the line is ignored (2.1).
const UNKNOWN: &[u8] = b"PROXY UNKNOWN ";

/// The longest header of version 2 that is accepted. Its length has 16 bits, but proxies send less
/// than 1 KiB.
const BINARY_MAX: usize = 16 * 1024;

/// The part of a header of version 2 that every header has, with the length of the rest.
const FIXED: usize = 16;

/// What a header says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ProxyHeader {
    /// The address of the client, and the one that it connected to. None: those of the connection
    /// itself ("UNKNOWN", LOCAL, and protocols that are not TCP).
    pub(super) addresses: Option<(SocketAddr, SocketAddr)>,
    pub(super) tlvs: ProxyTlvs,
}

/// Reads the header at the beginning of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Progress<ProxyHeader> {
    if begins(bytes, v2::PROTOCOL_PREFIX) {
        binary(bytes)
    } else if begins(bytes, b"PROXY ") {
        line(bytes)
    } else {
        Progress::Invalid
    }
}

/// Whether bytes begin with `prefix`, or may once more have come.
fn begins(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.iter().zip(prefix).all(|(byte, expected)| byte == expected)
}

fn line(bytes: &[u8]) -> Progress<ProxyHeader> {
    let head = &bytes[..bytes.len().min(LINE_MAX)];
    if !is_strict(head) {
        return Progress::Invalid;
    }
    if let Some(end) = head.windows(2).position(|pair| pair == b"\r\n") {
        let line = &head[..end + 2];
        if line == b"PROXY UNKNOWN\r\n" || line.starts_with(UNKNOWN) {
            return Progress::Complete(ProxyHeader::default(), line.len());
        }
        return match v1::Header::try_from(line).map(|header| header.addresses) {
            Ok(v1::Addresses::Tcp4(it)) => {
                let from = (it.source_address, it.source_port).into();
                complete(from, (it.destination_address, it.destination_port).into(), line.len())
            }
            Ok(v1::Addresses::Tcp6(it)) => {
                let from = (it.source_address, it.source_port).into();
                complete(from, (it.destination_address, it.destination_port).into(), line.len())
            }
            Ok(v1::Addresses::Unknown) | Err(_) => Progress::Invalid,
        };
    }
    if head.len() < LINE_MAX { Progress::Incomplete(head.len() + 1) } else { Progress::Invalid }
}

/// Whether what has come of a line may become a valid one (2.1). A word is judged when it is
/// complete, so that the outcome does not depend on the pieces in which the line comes. The parser
/// accepts more than the specification: other families, signs in front of a port, and a carriage
/// return inside the line.
fn is_strict(head: &[u8]) -> bool {
    let family = head.get(b"PROXY ".len()..).unwrap_or_default();
    let is_family = |known: &&str| begins(family, known.as_bytes());
    if !["TCP4 ", "TCP6 ", "UNKNOWN ", "UNKNOWN\r\n"].iter().any(is_family) {
        return false;
    }
    if head.starts_with(b"PROXY UNKNOWN") {
        // What follows is ignored.
        return true;
    }
    let end = head.iter().position(|byte| *byte == b'\r').unwrap_or(head.len());
    if head.get(end + 1).is_some_and(|byte| *byte != b'\n') {
        return false;
    }
    let is_v6 = head.starts_with(b"PROXY TCP6");
    let is_ended = end < head.len();
    let words = head[..end].split(|byte| *byte == b' ').skip(2);
    let count = words.clone().count();
    let is_valid = |(index, word): (usize, &[u8])| {
        let is_complete = index + 1 < count || is_ended;
        match index {
            0 | 1 => is_address(word, is_v6, is_complete),
            2 | 3 => is_port(word, is_complete),
            _ => false,
        }
    };
    words.enumerate().all(is_valid) && (count == 4 || !is_ended)
}

fn is_address(word: &[u8], is_v6: bool, is_complete: bool) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_hexdigit() || matches!(*byte, b'.' | b':');
    let text = str::from_utf8(word).unwrap_or_default();
    match (is_complete, is_v6) {
        (false, _) => word.iter().all(is_part),
        (true, false) => text.parse::<Ipv4Addr>().is_ok(),
        (true, true) => text.parse::<Ipv6Addr>().is_ok(),
    }
}

fn is_port(word: &[u8], is_complete: bool) -> bool {
    let text = str::from_utf8(word).unwrap_or_default();
    word.iter().all(u8::is_ascii_digit) && (!is_complete || text.parse::<u16>().is_ok())
}

fn complete(source: SocketAddr, destination: SocketAddr, length: usize) -> Progress<ProxyHeader> {
    let addresses = Some((canonical(source), canonical(destination)));
    Progress::Complete(ProxyHeader { addresses, tlvs: ProxyTlvs::default() }, length)
}

/// As IPv4 if it is an IPv4-mapped address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn binary(bytes: &[u8]) -> Progress<ProxyHeader> {
    if bytes.len() < v2::PROTOCOL_PREFIX.len() {
        // The shortest line is shorter than the fixed part.
        return Progress::Incomplete(bytes.len() + 1);
    }
    let Some(&[.., high, low]) = bytes.get(..FIXED) else { return Progress::Incomplete(FIXED) };
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
    let header = match v2::Header::try_from(bytes) {
        _ if length > BINARY_MAX => return Progress::Invalid,
        Err(error) if error.is_incomplete() => return Progress::Incomplete(length),
        Err(_) => return Progress::Invalid,
        Ok(header) => header,
    };
    let (source, destination): (SocketAddr, SocketAddr) = match header.addresses {
        _ if header.command != Command::Proxy || header.protocol != Protocol::Stream => {
            return Progress::Complete(ProxyHeader::default(), length);
        }
        Addresses::IPv4(it) => (
            (it.source_address, it.source_port).into(),
            (it.destination_address, it.destination_port).into(),
        ),
        Addresses::IPv6(it) => (
            (it.source_address, it.source_port).into(),
            (it.destination_address, it.destination_port).into(),
        ),
        Addresses::Unspecified | Addresses::Unix(_) => {
            return Progress::Complete(ProxyHeader::default(), length);
        }
    };
    let Some(tlvs) = tlvs(&header) else { return Progress::Invalid };
    let addresses = Some((canonical(source), canonical(destination)));
    Progress::Complete(ProxyHeader { addresses, tlvs }, length)
}

/// The TLVs that are kept. None: they are cut off, or the checksum is wrong.
fn tlvs(header: &v2::Header<'_>) -> Option<ProxyTlvs> {
    let (mut tlvs, mut start) = (ProxyTlvs::default(), header.len() - header.tlv_bytes().len());
    for tlv in header.tlvs() {
        let tlv = tlv.ok()?;
        let (kind, value) = (tlv.kind, &*tlv.value);
        let fits = |max| (1..=max).contains(&value.len());
        start += 3;
        if kind == u8::from(Type::Authority) && fits(ProxyTlvs::AUTHORITY_MAX) {
            tlvs.authority = Some(value.into());
        } else if kind == u8::from(Type::UniqueId) && fits(ProxyTlvs::UNIQUE_ID_MAX) {
            tlvs.unique_id = Some(value.into());
        } else if kind == u8::from(Type::CRC32C) {
            let written = u32::from_be_bytes(value.try_into().ok()?);
            if written != checksum(header.as_bytes(), start) {
                return None;
            }
        }
        start += value.len();
    }
    Some(tlvs)
}

/// CRC-32C (RFC 3720, B.4) of a header, in which the checksum itself, the four bytes from `start`
/// on, counts as zero (2.2.3).
fn checksum(header: &[u8], start: usize) -> u32 {
    let is_own = |index: &usize| (start..start + 4).contains(index);
    let bytes = header.iter().enumerate();
    let bytes = bytes.map(|(index, byte)| if is_own(&index) { 0 } else { *byte });
    !bytes.fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::proxy_header::{ProxyVersion, header};

    fn addresses(source: &str, destination: &str) -> Option<(SocketAddr, SocketAddr)> {
        source.parse().ok().zip(destination.parse().ok())
    }

    /// Reads every beginning of `whole`, and `whole` with bytes behind it.
    fn read_in_pieces(whole: &[u8], expected: &ProxyHeader) {
        for length in 0..whole.len() {
            match read(&whole[..length]) {
                Progress::Incomplete(needed) => {
                    assert!(length < needed && needed <= whole.len(), "{length}: {needed}");
                }
                other => panic!("{length} bytes of {whole:?}: {other:?}"),
            }
        }
        for rest in [b"".as_slice(), b"\r\n", b"PROXY ", &[0; 300]] {
            let found = read(&[whole, rest].concat());
            let Progress::Complete(found, length) = found else { panic!("{whole:?}: {found:?}") };
            assert_eq!((&found, length), (expected, whole.len()));
        }
    }

    #[test]
    fn both_versions_are_read_when_their_last_byte_has_come() {
        let tlvs = ProxyTlvs {
            authority: Some(b"a.test".as_slice().into()),
            unique_id: Some(b"\0\x01".as_slice().into()),
        };
        for (source, destination) in [
            ("192.0.2.1:40000", "198.51.100.2:443"),
            ("255.255.255.255:65535", "255.255.255.255:65535"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("[2001:db8::1]:1", "[::1]:65535"),
            (
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe]:65535",
            ),
        ] {
            let addresses = addresses(source, destination);
            let (from, to) = addresses.unzip();
            let whole = header(ProxyVersion::V1, from, to, &tlvs);
            read_in_pieces(&whole, &ProxyHeader { addresses, tlvs: ProxyTlvs::default() });
            let whole = header(ProxyVersion::V2, from, to, &tlvs);
            read_in_pieces(&whole, &ProxyHeader { addresses, tlvs: tlvs.clone() });
        }
    }

    #[test]
    fn a_header_without_addresses_keeps_those_of_the_connection() {
        let signature = v2::PROTOCOL_PREFIX;
        let long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(LINE_MAX - 16));
        for whole in [
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN 1 2 3 4 5 6 7 8\r\n".to_vec(),
            long.into_bytes(),
            [signature, &[0x20, 0, 0, 0]].concat(),
            [signature, &[0x20, 0x11, 0, 12], &[1; 12]].concat(),
            [signature, &[0x21, 0, 0, 5], &[1; 5]].concat(),
            [signature, &[0x21, 0x12, 0, 12], &[1; 12]].concat(),
            [signature, &[0x21, 0x31, 0, 216], &[1; 216]].concat(),
        ] {
            read_in_pieces(&whole, &ProxyHeader::default());
        }
    }

    #[test]
    fn an_ipv4_address_that_is_mapped_to_ipv6_is_an_ipv4_address() {
        let whole = b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n";
        let Progress::Complete(header, _) = read(whole) else { panic!() };
        assert_eq!(header.addresses, addresses("192.0.2.1:1", "[::1]:2"));
    }

    #[test]
    fn what_is_no_header_is_invalid_as_soon_as_that_is_certain() {
        let signature = v2::PROTOCOL_PREFIX;
        for bytes in [
            b"G".to_vec(),
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00\x01".to_vec(),
            b"PROXX".to_vec(),
            b"PROXY\r\n".to_vec(),
            b"PROXY TCP5 ".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 +2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 00\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2  1 2\r\n".to_vec(),
            b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n".to_vec(),
            b"PROXY TCP4\t192.0.2.1 192.0.2.2 1 2\r\n".to_vec(),
            b"PROXY TCP4\r192.0.2.1 192.0.2.2 1 2\r\n".to_vec(),
            b"PROXY TCP6 ::1%1 ::1 1 2\r\n".to_vec(),
            b"PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 +".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 +2".to_vec(),
            b"PROXY TCP4\rGET".to_vec(),
            b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\nGET".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rGET".to_vec(),
            b"PROXY TCP4 \xff\xfe 192.0.2.2 1 2\r\n".to_vec(),
            [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 93]].concat(),
            b"\r\n\r\n\0\r\nQUIT!".to_vec(),
            [signature, &[0x31, 0x11, 0, 12], &[0; 12]].concat(),
            [signature, &[0x22, 0x11, 0, 12], &[0; 12]].concat(),
            [signature, &[0x21, 0x41, 0, 12], &[0; 12]].concat(),
            [signature, &[0x21, 0x13, 0, 12], &[0; 12]].concat(),
            [signature, &[0x21, 0x11, 0, 11], &[0; 11]].concat(),
            [signature, &[0x21, 0x11, 0xff, 0xff]].concat(),
            [signature, &[0x21, 0x11, 0, 14], &[0; 14]].concat(),
            [signature, &[0x21, 0x11, 0, 16], &[0; 12], &[2, 0, 9, b'x']].concat(),
        ] {
            assert_eq!(read(&bytes), Progress::Invalid, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_checksum_is_verified() {
        // The check value of CRC-32C: "123456789" has 0xe3069283.
        assert_eq!(checksum(b"123456789", 9), 0xe306_9283);
        let head = [v2::PROTOCOL_PREFIX, &[0x21, 0x11, 0, 19], &[9; 12], &[3, 0, 4]].concat();
        let sum = checksum(&[head.as_slice(), &[0; 4]].concat(), head.len());
        let good = [head.as_slice(), &sum.to_be_bytes()].concat();
        assert!(matches!(read(&good), Progress::Complete(..)));
        let bad = [head.as_slice(), &(sum ^ 1).to_be_bytes()].concat();
        assert_eq!(read(&bad), Progress::Invalid);
    }

    #[test]
    fn a_tlv_that_is_too_long_is_not_kept() {
        let value = [b'x'; 129];
        let length = [0x21, 0x11, 0, 12 + 3 + 129];
        let whole = [v2::PROTOCOL_PREFIX, &length, &[0; 12], &[5, 0, 129], &value].concat();
        let Progress::Complete(header, _) = read(&whole) else { panic!() };
        assert_eq!(header.tlvs, ProxyTlvs::default());
    }
}
