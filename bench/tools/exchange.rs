//! The protocol between generator and responder.
//!
//! A request is a header of 12 bytes and a body of `up` bytes; the answer is `down` bytes. A
//! connection has one exchange at a time. It is not HTTP: a Layer-4 balancer does not read it, and
//! parsing would use the core that is measured.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

/// Bytes of a request before its body.
pub(crate) const HEADER: usize = 12;

/// The longest answer.
pub(crate) const ANSWER_MAX: usize = 4 << 20;

/// The sizes of an exchange.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Exchange {
    /// Bytes of the request's body.
    pub(crate) up: u32,
    /// Bytes of the answer.
    pub(crate) down: u32,
    /// The responder closes the connection after the answer.
    pub(crate) last: bool,
}

impl Exchange {
    /// All bytes of the exchange, in both directions.
    pub(crate) fn bytes(self) -> u64 {
        HEADER as u64 + u64::from(self.up) + u64::from(self.down)
    }

    /// The request: a header and a body of zeros.
    pub(crate) fn request(self) -> Vec<u8> {
        let header = [self.up, self.down, u32::from(self.last)];
        let mut bytes: Vec<u8> = header.into_iter().flat_map(u32::to_le_bytes).collect();
        bytes.resize(HEADER + self.up as usize, 0);
        bytes
    }

    /// Reads a header.
    pub(crate) fn parse(header: [u8; HEADER]) -> Self {
        let [a, b, c, d, e, f, g, h, last, ..] = header;
        let [up, down] = [[a, b, c, d], [e, f, g, h]].map(u32::from_le_bytes);
        Self { up, down, last: last != 0 }
    }
}

/// The bytes of an answer: the responder's number, then a pattern that reveals lost bytes.
pub(crate) fn answer(responder: u8, length: usize) -> Vec<u8> {
    std::iter::once(responder).chain((0..251u8).cycle()).take(length).collect()
}

/// Opens a connection, performs one exchange behind `hello`, and compares every byte of the answer.
/// Returns the connection and the number of the responder.
pub(crate) fn verified(
    address: SocketAddr,
    hello: &[u8],
    exchange: Exchange,
) -> io::Result<(TcpStream, u8)> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    connection.write_all(&[hello, &exchange.request()].concat())?;
    let mut received = vec![0; exchange.down as usize];
    connection.read_exact(&mut received)?;
    let responder = received.first().copied().unwrap_or(0);
    if received != answer(responder, received.len()) {
        return Err(io::Error::other("the answer is not what the responder sent"));
    }
    if exchange.last && connection.read(&mut [0])? != 0 {
        return Err(io::Error::other("bytes after the end of the answer"));
    }
    Ok((connection, responder))
}

/// Adds connections that perform one exchange and stay open, until there are `count`. Closing them
/// sends a reset, so none is left in `TIME_WAIT`.
pub(crate) fn open_idle(
    connections: &mut Vec<TcpStream>,
    count: usize,
    address: SocketAddr,
) -> io::Result<()> {
    while connections.len() < count {
        let exchange = Exchange { up: 116, down: 128, last: false };
        let (connection, _) = verified(address, &[], exchange).map_err(|error| {
            io::Error::other(format!("idle session {}: {error}", connections.len() + 1))
        })?;
        SockRef::from(&connection).set_linger(Some(Duration::ZERO))?;
        connections.push(connection);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_parsed_as_it_was_written() {
        let exchange = Exchange { up: 116, down: 1 << 20, last: true };
        let request = exchange.request();
        assert_eq!(request.len(), 128);
        assert_eq!(Exchange::parse(request[..HEADER].try_into().unwrap()), exchange);
    }
}
