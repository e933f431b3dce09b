//! What goes over a connection: a request that says how long it is and how long its answer is.
//!
//! A request is a header of 12 bytes, then `up` bytes of body; the answer is `down` bytes. One
//! exchange at a time. It is not HTTP because a Layer-4 balancer does not look, and parsing would
//! cost the same core that is measured.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Bytes of a request before its body.
pub(crate) const HEADER: usize = 12;

/// The shape of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exchange {
    /// Bytes of the request's body.
    pub(crate) up: u32,
    /// Bytes of the answer.
    pub(crate) down: u32,
    /// The responder closes after the answer, as a web server does that is told to.
    pub(crate) last: bool,
}

impl Exchange {
    /// All bytes that it moves, both directions.
    pub(crate) fn bytes(self) -> u64 {
        HEADER as u64 + u64::from(self.up) + u64::from(self.down)
    }

    /// The request: header and a body of zeros.
    pub(crate) fn request(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.up as usize);
        bytes.extend_from_slice(&self.up.to_le_bytes());
        bytes.extend_from_slice(&self.down.to_le_bytes());
        bytes.extend_from_slice(&u32::from(self.last).to_le_bytes());
        bytes.resize(HEADER + self.up as usize, 0);
        bytes
    }

    /// Reads a header back.
    pub(crate) fn parse(header: [u8; HEADER]) -> Self {
        let [a, b, c, d, e, f, g, h, last, ..] = header;
        Self {
            up: u32::from_le_bytes([a, b, c, d]),
            down: u32::from_le_bytes([e, f, g, h]),
            last: last != 0,
        }
    }
}

/// The longest answer.
pub(crate) const ANSWER_MAX: usize = 4 << 20;

/// The bytes that a responder answers with: its number, then a pattern that shifts show in.
pub(crate) fn answer(number: u8, length: usize) -> Vec<u8> {
    let pattern = (0..251u8).cycle();
    std::iter::once(number).chain(pattern).take(length).collect()
}

/// Opens a connection, does one exchange, and compares every byte of the answer; gives the
/// connection and the number of the responder that answered.
///
/// # Errors
/// Of the connection, or an answer that is not the expected one.
pub(crate) fn verified(address: SocketAddr, exchange: Exchange) -> io::Result<(TcpStream, u8)> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    connection.write_all(&exchange.request())?;
    let mut received = vec![0; exchange.down as usize];
    connection.read_exact(&mut received)?;
    let number = received.first().copied().unwrap_or(0);
    if received != answer(number, received.len()) {
        return Err(io::Error::other("the answer was changed on its way"));
    }
    if exchange.last && connection.read(&mut [0])? != 0 {
        return Err(io::Error::other("bytes after the end of the answer"));
    }
    Ok((connection, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        let exchange = Exchange { up: 116, down: 1 << 20, last: true };
        let request = exchange.request();
        assert_eq!(request.len(), 128);
        assert_eq!(Exchange::parse(request[..HEADER].try_into().unwrap()), exchange);
    }
}
