//! Reads the server name and the protocols of a `ClientHello` (RFC 8446, 4.1.2), which may be split
//! over several TLS records. Nothing is decrypted: it is the part of TLS that is not encrypted.

use tls_parser::{
    SNIType, TlsExtension, parse_tls_extension_alpn_content, parse_tls_extension_sni_content,
    parse_tls_handshake_client_hello,
};

use crate::proxy::preface::Progress;
use crate::shared::routes::ClientHello;

/// The longest `ClientHello`, with its header. Browsers send up to 2 KiB, with a post-quantum key.
const HELLO_MAX: usize = 16 * 1024;

/// Bytes that are looked at: `HELLO_MAX`, and the headers of 1,600 records.
pub(super) const BYTES_MAX: usize = 24 * 1024;

/// Type, version and length of a record (RFC 8446, 5.1).
const RECORD_HEADER: usize = 5;

/// The longest fragment in a record that is not encrypted (RFC 8446, 5.1).
const FRAGMENT_MAX: usize = 1 << 14;

/// Type and length of a handshake message (RFC 8446, 4).
const MESSAGE_HEADER: usize = 4;

/// `ContentType.handshake`, `HandshakeType.client_hello`
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// `server_name` (RFC 6066) and `application_layer_protocol_negotiation` (RFC 7301).
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// The longest host name (RFC 1035, 2.3.4).
const NAME_MAX: usize = 255;

/// Reads the `ClientHello` at the beginning of `bytes`, and chooses the first protocol in it that
/// `is_routed`. What is not TLS has no names.
pub(super) fn read(bytes: &[u8], is_routed: impl Fn(&[u8]) -> bool) -> Progress<ClientHello> {
    if !is_tls(bytes) {
        return Progress::Complete(ClientHello::default(), 0);
    }
    let message = match message(bytes) {
        Progress::Complete(message, _) => message,
        Progress::Incomplete(needed) if bytes.len() <= RECORD_HEADER => {
            // The byte that may show that it is not TLS: the second one, or the message's type.
            let telling = if bytes.len() < 2 { bytes.len() + 1 } else { RECORD_HEADER + 1 };
            return Progress::Incomplete(needed.min(telling));
        }
        Progress::Incomplete(needed) if needed <= BYTES_MAX => return Progress::Incomplete(needed),
        Progress::Incomplete(_) | Progress::Invalid => return Progress::Invalid,
    };
    match names(&message, is_routed) {
        Some(hello) => Progress::Complete(hello, 0),
        None => Progress::Invalid,
    }
}

/// Whether bytes are the beginning of a record with a `ClientHello`, or may be. A header of a
/// record that has no fragment, or one that is too long, is that of invalid TLS, whatever follows.
fn is_tls(bytes: &[u8]) -> bool {
    let at = |index: usize, expected: u8| bytes.get(index).is_none_or(|byte| *byte == expected);
    let has_fragment = bytes.first_chunk::<RECORD_HEADER>().is_none_or(|[.., high, low]| {
        (1..=FRAGMENT_MAX).contains(&usize::from(u16::from_be_bytes([*high, *low])))
    });
    at(0, HANDSHAKE) && at(1, 3) && (!has_fragment || at(RECORD_HEADER, CLIENT_HELLO))
}

/// The body of the first handshake message, joined from its records.
fn message(bytes: &[u8]) -> Progress<Vec<u8>> {
    let (mut joined, mut start): (Vec<u8>, usize) = (Vec::new(), 0);
    loop {
        let Some(record) = bytes.get(start..start + RECORD_HEADER) else {
            return Progress::Incomplete(start + RECORD_HEADER);
        };
        let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
        if record[0] != HANDSHAKE || record[1] != 3 || !(1..=FRAGMENT_MAX).contains(&length) {
            return Progress::Invalid;
        }
        start += RECORD_HEADER;
        let end = bytes.len().min(start + length);
        joined.extend_from_slice(&bytes[start..end]);
        let wanted = match joined.first_chunk::<MESSAGE_HEADER>() {
            None => MESSAGE_HEADER,
            Some([_, high, middle, low]) => {
                MESSAGE_HEADER + u32::from_be_bytes([0, *high, *middle, *low]) as usize
            }
        };
        if wanted > HELLO_MAX {
            return Progress::Invalid;
        }
        if joined.len() >= wanted {
            joined.truncate(wanted);
            joined.drain(..MESSAGE_HEADER);
            return Progress::Complete(joined, end);
        }
        if end < start + length {
            // Of this record as much as belongs to the message, and at least one byte more.
            let missing = wanted.saturating_sub(joined.len()).max(1);
            return Progress::Incomplete((end + missing).min(start + length));
        }
        start = end;
    }
}

/// The names in the body of a `ClientHello`; none: it is invalid. One with two of what must be
/// there once (RFC 8446, 4.2; RFC 6066, 3) is invalid: the server may read the other one.
fn names(message: &[u8], is_routed: impl Fn(&[u8]) -> bool) -> Option<ClientHello> {
    let (behind, contents) = parse_tls_handshake_client_hello(message).ok()?;
    if !behind.is_empty() {
        return None;
    }
    let mut hello = ClientHello::default();
    let (mut has_server_name, mut has_protocols) = (false, false);
    let mut rest = contents.ext.unwrap_or_default();
    while !rest.is_empty() {
        let ([kind_high, kind_low, high, low], behind) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let content;
        (content, rest) = behind.split_at_checked(length)?;
        match u16::from_be_bytes([*kind_high, *kind_low]) {
            SERVER_NAME => {
                let (_, TlsExtension::SNI(names)) =
                    parse_tls_extension_sni_content(content).ok()?
                else {
                    return None;
                };
                let mut names = names.iter().filter(|(kind, _)| *kind == SNIType::HostName);
                let name = names.next();
                if std::mem::replace(&mut has_server_name, true) || names.next().is_some() {
                    return None;
                }
                hello.server_name = name.and_then(|(_, name)| comparable(name));
            }
            ALPN if std::mem::replace(&mut has_protocols, true) => return None,
            ALPN => {
                let (_, TlsExtension::ALPN(protocols)) =
                    parse_tls_extension_alpn_content(content).ok()?
                else {
                    return None;
                };
                let first = protocols.into_iter().find(|protocol| is_routed(protocol));
                hello.protocol = first.map(Into::into);
            }
            _ => {}
        }
    }
    Some(hello)
}

/// A server name in lower case and without the dot at its end, as the routes have it. A name that
/// no route can have is none.
fn comparable(name: &[u8]) -> Option<Box<str>> {
    let name = str::from_utf8(name).ok().filter(|name| name.len() <= NAME_MAX)?;
    let name = name.strip_suffix('.').unwrap_or(name);
    (!name.is_empty()).then(|| name.to_ascii_lowercase().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_length(bytes: &[u8]) -> Vec<u8> {
        [u16::try_from(bytes.len()).unwrap().to_be_bytes().as_slice(), bytes].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [kind.to_be_bytes().to_vec(), with_length(content)].concat()
    }

    fn sni(name: &str) -> Vec<u8> {
        let name = [vec![0], with_length(name.as_bytes())].concat();
        extension(SERVER_NAME, &with_length(&name))
    }

    fn alpn(protocols: &[&str]) -> Vec<u8> {
        let list = protocols.iter().flat_map(|name| {
            [[u8::try_from(name.len()).unwrap()].as_slice(), name.as_bytes()].concat()
        });
        extension(ALPN, &with_length(&list.collect::<Vec<u8>>()))
    }

    /// A handshake message with these extensions.
    fn hello(extensions: &[u8]) -> Vec<u8> {
        let body = [
            [3, 3].as_slice(),
            &[7; 32],
            &[0],
            &with_length(&[0x13, 1]),
            &[1, 0],
            &with_length(extensions),
        ]
        .concat();
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [[CLIENT_HELLO].as_slice(), &length[1..], &body].concat()
    }

    /// A message in records of this length.
    fn records(message: &[u8], length: usize) -> Vec<u8> {
        let record = |part: &[u8]| [[HANDSHAKE, 3, 1].to_vec(), with_length(part)].concat();
        message.chunks(length).flat_map(record).collect()
    }

    fn read(bytes: &[u8]) -> Progress<ClientHello> {
        super::read(bytes, |protocol| protocol != b"http/1.1")
    }

    fn names(bytes: &[u8]) -> (Option<String>, Option<Vec<u8>>) {
        let read = read(bytes);
        let Progress::Complete(hello, _) = read else { panic!("{read:?}") };
        (hello.server_name.map(Into::into), hello.protocol.map(Into::into))
    }

    #[test]
    fn names_are_read_whatever_the_records_are() {
        let extensions =
            [extension(0x0a0a, b""), sni("WWW.Example.org."), alpn(&["http/1.1", "h2"])];
        let message = hello(&extensions.concat());
        for length in [1, 2, 3, 4, 5, 40, message.len() - 1, message.len()] {
            let bytes = records(&message, length);
            let expected = (Some("www.example.org".to_owned()), Some(b"h2".to_vec()));
            assert_eq!(names(&bytes), expected, "{length}");
            let more = [bytes.as_slice(), &[20, 3, 3, 0, 1, 1]].concat();
            assert_eq!(names(&more), expected, "{length}");
            for end in 0..bytes.len() {
                match read(&bytes[..end]) {
                    Progress::Incomplete(needed) => {
                        assert!(end < needed && needed <= bytes.len(), "{length} {end}: {needed}");
                    }
                    other => panic!("{length} {end}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn a_hello_without_names_is_one() {
        assert_eq!(names(&records(&hello(b""), 100)), (None, None));
        let no_extensions = {
            let mut message = hello(b"");
            message.truncate(message.len() - 2);
            message[3] -= 2;
            message
        };
        assert_eq!(names(&records(&no_extensions, 100)), (None, None));
        assert_eq!(names(&records(&hello(&sni("")), 100)), (None, None));
        assert_eq!(names(&records(&hello(&sni(".")), 100)), (None, None));
        assert_eq!(names(&records(&hello(&sni(&"x".repeat(256))), 1000)), (None, None));
        assert_eq!(names(&records(&hello(&alpn(&["http/1.1"])), 100)), (None, None));
    }

    #[test]
    fn what_is_not_tls_has_no_names_at_once() {
        for bytes in [
            b"G".as_slice(),
            b"\x80\x2e\x01\x03\x01",
            b"\x17\x03\x03\x00\x01",
            b"\x16\x02",
            b"\x16\x03\x01\x00\x10\x02",
            b"\0",
        ] {
            assert_eq!(read(bytes), Progress::Complete(ClientHello::default(), 0), "{bytes:?}");
        }
    }

    #[test]
    fn a_hello_of_16_kib_is_read_and_a_longer_one_is_invalid() {
        let padded = |length: usize| {
            let rest = hello(&[sni("a.test"), extension(21, b"")].concat()).len();
            hello(&[extension(21, &vec![0; length - rest]), sni("a.test")].concat())
        };
        let message = padded(HELLO_MAX);
        assert_eq!(message.len(), HELLO_MAX);
        for length in [FRAGMENT_MAX, 4096, 100] {
            let bytes = records(&message, length);
            assert!(bytes.len() <= BYTES_MAX);
            assert_eq!(names(&bytes).0.as_deref(), Some("a.test"));
        }
        assert_eq!(read(&records(&padded(HELLO_MAX + 1), 4096)), Progress::Invalid);
        assert_eq!(read(&records(&message, 1)[..BYTES_MAX]), Progress::Invalid, "too many records");
    }

    #[test]
    fn what_begins_as_a_hello_and_is_none_is_invalid() {
        let good = records(&hello(&sni("a.test")), 20);
        let broken = |index: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[index] = byte;
            bytes
        };
        let cut = {
            let mut message = hello(&sni("a.test"));
            let last = message.len() - 10;
            message.truncate(last);
            message[3] = u8::try_from(last - MESSAGE_HEADER).unwrap();
            records(&message, 1000)
        };
        for bytes in [
            broken(25, 23),
            broken(26, 2),
            broken(6, 1),
            b"\x16\x03\x01\x00\x00".to_vec(),
            b"\x16\x03\x01\x00\x00G".to_vec(),
            b"\x16\x03\x01\x00\x00\x01".to_vec(),
            b"\x16\x03\x01\x40\x01".to_vec(),
            b"\x16\x03\x01\x40\x01G".to_vec(),
            b"\x16\x03\x01\x00\x04\x01\x00\x00\x00\x16\x03\x01\x00\x01\x00".to_vec(),
            records(&hello(&extension(SERVER_NAME, b"\0\x09x")), 1000),
            records(&hello(b"\0\0\0"), 1000),
            records(&hello(&[sni("a.test"), sni("b.test")].concat()), 1000),
            records(&hello(&[sni("a.test"), sni("a.test")].concat()), 1000),
            records(&hello(&[alpn(&["h2"]), alpn(&["h2"])].concat()), 1000),
            records(&hello(&extension(SERVER_NAME, b"\0\x08\0\0\x01a\0\0\x01b")), 1000),
            cut,
        ] {
            assert_eq!(read(&bytes), Progress::Invalid, "{bytes:?}");
        }
    }
}
