//! Megabytes that are no request, or more than one.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

use socket2::{SockAddr, Socket, Type};

use crate::common::wait::TIMEOUT;

const MIB: usize = 1 << 20;

/// Clients that send the same at once.
pub(super) const CLIENTS: usize = 12;

/// Bytes of a client, and the statuses of which it may get one.
pub(super) struct Sent {
    pub(super) what: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) answers: &'static [&'static str],
}

/// What is sent to `observe.bind`.
pub(super) fn http() -> Vec<Sent> {
    const REFUSED: &[&str] = &["400 ", "414 ", "431 "];
    let sent = |what, parts: &[&[u8]], answers| Sent { what, bytes: parts.concat(), answers };
    let many = |text: &str| text.repeat(MIB / text.len()).into_bytes();
    let head = b"GET /healthz HTTP/1.1\r\nHost: a\r\n";
    let post = b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: ";
    vec![
        sent("a request line", &[b"GET /", &many("x"), b" HTTP/1.1\r\n\r\n"], REFUSED),
        sent("a method", &[&many("GET"), b" / HTTP/1.1\r\n\r\n"], REFUSED),
        sent("a header", &[head, b"A: ", &many("x"), b"\r\n\r\n"], REFUSED),
        sent("a header name", &[head, &many("x"), b": a\r\n\r\n"], REFUSED),
        sent("headers", &[head, &many("A: b\r\n"), b"\r\n"], REFUSED),
        sent("line breaks", &[&many("\r\n"), head, b"\r\n"], REFUSED),
        sent("zeros", &[&many("\0")], REFUSED),
        sent("a ClientHello", &[b"\x16\x03\x01\xff\xff\x01", &many("\x03")], REFUSED),
        sent("HTTP/2", &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &many("\0\0\0\x04")], REFUSED),
        sent("a body", &[post, b"9223372036854775807\r\n\r\n", &many("x")], &["405 "]),
        sent("a body beyond 64 bits", &[post, b"99999999999999999999\r\n\r\n"], REFUSED),
        sent(
            "a chunk without end",
            &[head, b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n", &many("x")],
            &["200 "],
        ),
        sent("requests", &[&many("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")], &["200 "]),
        sent("a request and zeros", &[head, b"\r\n", &many("\0")], &["200 "]),
    ]
}

/// What is sent to the control socket; its answers begin with these texts.
pub(super) fn control() -> Vec<Sent> {
    const REFUSED: &[&str] = &["{\"error\":\"no request: a line is at most 4096 bytes"];
    const INVALID: &[&str] = &["{\"error\":\"invalid request: "];
    let sent = |what, parts: &[&[u8]], answers| Sent { what, bytes: parts.concat(), answers };
    let many = |text: &str| text.repeat(MIB / text.len()).into_bytes();
    vec![
        sent("a line", &[&many("x"), b"\n"], REFUSED),
        sent("a name", &[b"{\"do\":\"kill\",\"id\":\"", &many("0-"), b"\"}\n"], REFUSED),
        sent("a line without end", &[&many("\0")], REFUSED),
        sent("line breaks", &[&many("\n")], INVALID),
        sent("lists", &[&[b'['; 4095], b"\n", &many("]")], INVALID),
        sent("requests", &[&many("{\"do\":\"reload\",\"dry_run\":true}\n")], &["{\"ok\":"]),
        sent("a request and zeros", &[b"{\"do\":\"sessions\"}\n", &many("\0")], &["{\"ok\":["]),
        sent("an HTTP request", &[&many("GET /metrics HTTP/1.1\r\n")], INVALID),
    ]
}

/// Has [`CLIENTS`] clients send these bytes at the same time, and returns what each received.
pub(super) fn all_at_once(address: &SockAddr, bytes: &[u8]) -> Vec<Vec<u8>> {
    let client = || {
        let mut stream = Socket::new(address.domain(), Type::STREAM, None).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        stream.connect(address).unwrap();
        // It may be closed before all was sent, with a reset.
        drop(stream.write_all(bytes));
        drop(stream.shutdown(Shutdown::Write));
        let mut received = Vec::new();
        drop(stream.read_to_end(&mut received));
        received
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    })
}
