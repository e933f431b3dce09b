//! What fuzzing checks of the preface: in whatever pieces its bytes come, the outcome is the same,
//! no wait is for more than is needed, and other parsers read the same.

#![expect(
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "what does not hold is found by a panic"
)]

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};

use tls_parser::{
    TlsExtension, TlsMessage, TlsMessageHandshake, parse_tls_client_hello_extensions,
    parse_tls_plaintext,
};

use crate::proxy::preface::{Progress, header, hello};
use crate::shared::proxy_header::{self, ProxyTlvs, ProxyVersion};
use crate::shared::routes::ClientHello;

/// A PROXY header. The first byte chooses how many bytes come at a time.
pub fn proxy_header(input: &[u8]) {
    let Some((step, bytes)) = split(input) else { return };
    let whole = in_pieces(bytes, step, header::read);
    let by_line = line(bytes);
    let Progress::Complete(header, length) = &whole else {
        assert_eq!(by_line, None, "a line that is valid");
        return;
    };
    assert!(*length <= bytes.len() && *length > 0);
    let Some((source, destination)) = header.addresses else { return };
    if bytes.starts_with(b"PROXY") {
        assert_eq!(by_line, Some((source, destination)));
    }
    let theirs = match ppp::HeaderResult::parse(&bytes[..*length]) {
        ppp::HeaderResult::V1(Ok(header)) => of_v1(&header.addresses),
        ppp::HeaderResult::V2(Ok(header)) => of_v2(&header.addresses),
        other => panic!("{other:?}"),
    };
    assert_eq!(Some((source, destination)), theirs.map(canonical));
    // What we send to a server is what we read.
    let (from, to) = (Some(source), Some(destination));
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let sent = proxy_header::header(version, from, to, &header.tlvs);
        let Progress::Complete(read, end) = header::read(&sent) else { panic!("{sent:?}") };
        assert_eq!((read.addresses, end), (header.addresses, sent.len()));
        let is_binary = version == ProxyVersion::V2;
        let kept = if is_binary { header.tlvs.clone() } else { ProxyTlvs::default() };
        assert_eq!(read.tlvs, kept);
    }
}

/// A `ClientHello`. The first byte chooses how many bytes come at a time, the second one the length
/// of the records that the rest is put in (0: the rest has its records).
pub fn client_hello(input: &[u8]) {
    let Some((step, rest)) = split(input) else { return };
    let Some((fragment, bytes)) = rest.split_first() else { return };
    if *fragment > 0 {
        let bytes = &bytes[..bytes.len().min(hello::BYTES_MAX / 24)];
        let single = read(&records(bytes, bytes.len().max(1)), usize::MAX);
        let several = read(&records(bytes, usize::from(*fragment)), step);
        assert_eq!(outcome(&single), outcome(&several), "in records of {fragment} bytes");
        return;
    }
    let whole = read(bytes, step);
    let Progress::Complete(hello, 0) = whole else { return };
    if let Some(name) = &hello.server_name {
        assert!(!name.is_empty() && name.len() <= 255);
        assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase()));
    }
    if let Some(theirs) = theirs(bytes) {
        assert_eq!(hello, theirs);
    }
}

/// Bytes that come at a time, and all bytes, of which a worker looks at no more.
fn split(input: &[u8]) -> Option<(usize, &[u8])> {
    let (step, bytes) = input.split_first()?;
    let bytes = &bytes[..bytes.len().min(hello::BYTES_MAX)];
    // Few looks at many bytes, so that an input is not read 24,576 times.
    Some((usize::from(*step).max(bytes.len() / 256).max(1), bytes))
}

/// Reads `bytes` as they come: `step` at a time, as many as the last look asked for, and at once.
fn in_pieces<T: Debug + PartialEq>(
    bytes: &[u8],
    step: usize,
    read: impl Fn(&[u8]) -> Progress<T>,
) -> Progress<T> {
    let whole = read(bytes);
    let (mut end, mut wanted) = (0, 0);
    let stepwise = loop {
        match read(&bytes[..end]) {
            Progress::Incomplete(needed) => {
                assert!(end < needed && needed <= hello::BYTES_MAX, "{end}: {needed}");
                wanted = wanted.max(needed);
                if end == bytes.len() {
                    break Progress::Incomplete(needed);
                }
                end = (end + step).min(bytes.len());
            }
            decided => {
                // With SO_RCVLOWAT above what comes, the worker would never look again.
                assert!(wanted <= end, "{end}: waited for {wanted}");
                break decided;
            }
        }
    };
    assert_eq!(stepwise, whole);
    let mut end = 0;
    let asked = loop {
        match read(&bytes[..end]) {
            Progress::Incomplete(needed) if needed <= bytes.len() => end = needed,
            decided => break decided,
        }
    };
    match (asked, &whole) {
        (Progress::Incomplete(_), whole) => assert!(matches!(whole, Progress::Incomplete(_))),
        (asked, whole) => assert_eq!(&asked, whole),
    }
    whole
}

fn read(bytes: &[u8], step: usize) -> Progress<ClientHello> {
    let step = step.min(bytes.len()).max(1);
    in_pieces(bytes, step, |seen| hello::read(seen, is_routed))
}

fn is_routed(protocol: &[u8]) -> bool {
    protocol.len() > 1
}

/// Without the number of bytes, which depends on the records.
fn outcome(read: &Progress<ClientHello>) -> Option<Option<&ClientHello>> {
    match read {
        Progress::Complete(hello, _) => Some(Some(hello)),
        Progress::Invalid => Some(None),
        Progress::Incomplete(_) => None,
    }
}

/// A message in records of this length.
fn records(message: &[u8], length: usize) -> Vec<u8> {
    let mut joined = Vec::new();
    for part in message.chunks(length) {
        let length = u16::try_from(part.len()).unwrap_or_default().to_be_bytes();
        joined.extend_from_slice(&[22, 3, 1]);
        joined.extend_from_slice(&length);
        joined.extend_from_slice(part);
    }
    joined
}

/// The same by the whole parser of the crate, which reads messages of one record.
fn theirs(bytes: &[u8]) -> Option<ClientHello> {
    let (_, record) = parse_tls_plaintext(bytes).ok().filter(|_| bytes[1] == 3)?;
    let TlsMessage::Handshake(TlsMessageHandshake::ClientHello(contents)) = record.msg.first()?
    else {
        return None;
    };
    let extensions = contents.ext.unwrap_or_default();
    let (rest, extensions) = parse_tls_client_hello_extensions(extensions).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let mut hello = ClientHello::default();
    for extension in &extensions {
        match extension {
            TlsExtension::SNI(names) => {
                let name = names.iter().find(|(kind, _)| kind.0 == 0).map(|(_, name)| *name);
                let name = name.and_then(|name| str::from_utf8(name).ok());
                let name = name.filter(|name| name.len() <= 255);
                let name = name.map(|name| name.strip_suffix('.').unwrap_or(name));
                let name = name.filter(|name| !name.is_empty());
                hello.server_name = name.map(|name| name.to_ascii_lowercase().into());
            }
            TlsExtension::ALPN(protocols) => {
                let first = protocols.iter().find(|protocol| is_routed(protocol));
                hello.protocol = first.map(|protocol| (*protocol).into());
            }
            _ => {}
        }
    }
    Some(hello)
}

/// The addresses of a line of version 1, by its words.
fn line(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let end = bytes.windows(2).take(106).position(|pair| pair == b"\r\n")?;
    let words: Vec<&str> = str::from_utf8(&bytes[..end]).ok()?.split(' ').collect();
    let ["PROXY", family @ ("TCP4" | "TCP6"), source, destination, from, to] = *words else {
        return None;
    };
    let address = |ip: &str, port: &str| -> Option<SocketAddr> {
        let ip: IpAddr = ip.parse().ok()?;
        let fits = ip.is_ipv4() == (family == "TCP4");
        let is_plain = port == "0" || (!port.starts_with('0') && !port.starts_with('+'));
        Some(SocketAddr::new(ip, port.parse().ok()?)).filter(|_| fits && is_plain)
    };
    Some(canonical((address(source, from)?, address(destination, to)?)))
}

fn canonical((source, destination): (SocketAddr, SocketAddr)) -> (SocketAddr, SocketAddr) {
    let one = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    (one(source), one(destination))
}

fn of_v1(addresses: &ppp::v1::Addresses) -> Option<(SocketAddr, SocketAddr)> {
    match addresses {
        ppp::v1::Addresses::Tcp4(it) => Some((
            (it.source_address, it.source_port).into(),
            (it.destination_address, it.destination_port).into(),
        )),
        ppp::v1::Addresses::Tcp6(it) => Some((
            (it.source_address, it.source_port).into(),
            (it.destination_address, it.destination_port).into(),
        )),
        ppp::v1::Addresses::Unknown => None,
    }
}

fn of_v2(addresses: &ppp::v2::Addresses) -> Option<(SocketAddr, SocketAddr)> {
    match addresses {
        ppp::v2::Addresses::IPv4(it) => Some((
            (it.source_address, it.source_port).into(),
            (it.destination_address, it.destination_port).into(),
        )),
        ppp::v2::Addresses::IPv6(it) => Some((
            (it.source_address, it.source_port).into(),
            (it.destination_address, it.destination_port).into(),
        )),
        ppp::v2::Addresses::Unspecified | ppp::v2::Addresses::Unix(_) => None,
    }
}
