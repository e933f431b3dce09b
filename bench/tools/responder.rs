//! The server side: answers exchanges from one thread, as cheaply as epoll allows.
//!
//! Edge-triggered; each socket is registered once, and no read is tried that could find nothing.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, recv, send};

use crate::exchange::{ANSWER_MAX, Exchange, HEADER, answer};

/// Bytes of a request's body that one call discards: they are never copied.
const DISCARD: usize = 1 << 20;
/// Bytes of the buffer for headers and the start of bodies.
const SCRATCH: usize = 16 << 10;
const EVENTS: usize = 256;
const BACKLOG: i32 = 4096;

/// Prints its address, then serves until it is killed.
pub(crate) fn serve(number: u8, bind: IpAddr) -> io::Result<()> {
    let mut responder = Responder::new(number, bind)?;
    let mut output = io::stdout().lock();
    writeln!(output, "{}", responder.listener.local_addr()?)?;
    output.flush()?;
    loop {
        responder.wait()?;
    }
}

struct Responder {
    listener: TcpListener,
    epoll: Epoll,
    payload: Vec<u8>,
    buffers: Buffers,
    /// By descriptor; that of the listener is none.
    connections: Vec<Option<Connection>>,
}

struct Buffers {
    scratch: Vec<u8>,
    discard: Vec<u8>,
}

impl Responder {
    fn new(number: u8, bind: IpAddr) -> io::Result<Self> {
        let domain = socket2::Domain::for_address((bind, 0).into());
        let kind = socket2::Type::STREAM.nonblocking();
        let socket = socket2::Socket::new(domain, kind, Some(socket2::Protocol::TCP))?;
        // Accepted sockets inherit it, which saves a call for each.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&SocketAddr::from((bind, 0)).into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, token(&listener)?))?;
        let buffers = Buffers { scratch: vec![0; SCRATCH], discard: vec![0; DISCARD] };
        let payload = answer(number, ANSWER_MAX);
        Ok(Self { listener, epoll, payload, buffers, connections: Vec::new() })
    }

    /// Waits for events and handles them.
    fn wait(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let ready = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => 0,
            other => other?,
        };
        let own = token(&self.listener)?;
        for event in &events[..ready] {
            if event.data() == own {
                self.accept()?;
            } else {
                self.advance(event);
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
            let interest = EpollEvent::new(edges | EpollFlags::EPOLLRDHUP, token(&stream)?);
            self.epoll.add(&stream, interest)?;
            let index = usize::try_from(stream.as_raw_fd()).map_err(io::Error::other)?;
            if self.connections.len() <= index {
                self.connections.resize_with(index + 1, || None);
            }
            self.connections[index] = Some(Connection::new(stream));
        }
    }

    fn advance(&mut self, event: &EpollEvent) {
        let index = usize::try_from(event.data()).ok();
        let slot = index.and_then(|index| self.connections.get_mut(index));
        let Some(slot) = slot else { return };
        let Some(connection) = slot else { return };
        if connection.down_left == 0 && event.events() == EpollFlags::EPOLLOUT {
            return; // writable from the start, and nothing to write
        }
        // A FIN that comes with the last bytes has no edge of its own.
        connection.ended |= event.events().contains(EpollFlags::EPOLLRDHUP);
        // The generator reports a failed connection, not the responder.
        let open = connection.step(&self.payload, &mut self.buffers).unwrap_or(false);
        if !open || (connection.ended && connection.down_left == 0) {
            *slot = None;
        }
    }
}

fn token(socket: &impl AsRawFd) -> io::Result<u64> {
    u64::try_from(socket.as_raw_fd()).map_err(io::Error::other)
}

struct Connection {
    stream: TcpStream,
    /// Nothing was received yet.
    is_new: bool,
    /// Bytes of a PROXY header or a `ClientHello` still to come.
    skip: usize,
    header: [u8; HEADER],
    header_read: usize,
    exchange: Exchange,
    up_left: usize,
    down_left: usize,
    /// The peer has sent FIN.
    ended: bool,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        let (header, exchange) = ([0; HEADER], Exchange::default());
        Self {
            stream,
            is_new: true,
            skip: 0,
            header,
            header_read: 0,
            exchange,
            up_left: 0,
            down_left: 0,
            ended: false,
        }
    }

    /// Continues until the socket has nothing to read or no room to write; false if the connection
    /// is to be closed.
    fn step(&mut self, payload: &[u8], buffers: &mut Buffers) -> nix::Result<bool> {
        let whole = |exchange: Exchange| (exchange.down as usize).min(payload.len());
        if self.down_left == 0 {
            if !self.receive(buffers)? {
                return Ok(false);
            }
            if self.header_read < HEADER || self.up_left > 0 {
                return Ok(true);
            }
            self.down_left = whole(self.exchange);
        }
        let whole = whole(self.exchange);
        while self.down_left > 0 {
            let rest = &payload[whole - self.down_left..whole];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.stream.as_raw_fd(), rest, flags) {
                Err(Errno::EAGAIN) => return Ok(true),
                sent => self.down_left -= sent?,
            }
        }
        self.header_read = 0;
        Ok(!self.exchange.last)
    }

    /// Reads until the request is complete or the socket is empty; false at the end of stream.
    fn receive(&mut self, buffers: &mut Buffers) -> nix::Result<bool> {
        while self.header_read < HEADER || self.up_left > 0 {
            let in_body = self.header_read == HEADER;
            // With MSG_TRUNC, TCP drops the bytes without copying them (tcp(7)).
            let (buffer, flags) = if in_body {
                let asked = self.up_left.min(DISCARD);
                (&mut buffers.discard[..asked], MsgFlags::MSG_TRUNC)
            } else {
                (&mut buffers.scratch[..], MsgFlags::empty())
            };
            let asked = buffer.len();
            let got = match recv(self.stream.as_raw_fd(), buffer, flags | MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) => return Ok(true),
                got => got?,
            };
            if got == 0 {
                return Ok(false);
            }
            if in_body {
                self.up_left -= got;
            } else {
                self.take_header(&buffers.scratch[..got])?;
            }
            if got < asked {
                return Ok(true); // a short read has emptied it, and the next byte is a new edge
            }
        }
        Ok(true)
    }

    fn take_header(&mut self, mut bytes: &[u8]) -> nix::Result<()> {
        if std::mem::take(&mut self.is_new) {
            self.skip = prefix(bytes);
        }
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        bytes = &bytes[skipped..];
        let taken = bytes.len().min(HEADER - self.header_read);
        self.header[self.header_read..self.header_read + taken].copy_from_slice(&bytes[..taken]);
        self.header_read += taken;
        if self.header_read == HEADER {
            self.exchange = Exchange::parse(self.header);
            let rest = bytes.len() - taken;
            // The protocol has one request at a time.
            self.up_left = (self.exchange.up as usize).checked_sub(rest).ok_or(Errno::EPROTO)?;
        }
        Ok(())
    }
}

/// The length of a PROXY header of version 2 or of a TLS record that these bytes begin with. It is
/// there in one piece: both are the first bytes of a connection, and shorter than a segment.
fn prefix(bytes: &[u8]) -> usize {
    let length = |at: [u8; 2]| usize::from(u16::from_be_bytes(at));
    match *bytes {
        [b'\r', b'\n', b'\r', b'\n', 0, ..] if bytes.len() >= 16 => {
            16 + length([bytes[14], bytes[15]])
        }
        [0x16, 3, _, first, second, ..] => 5 + length([first, second]),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{Ipv4Addr, Shutdown};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_client_that_half_closes_after_its_request_is_answered_and_then_closed() {
        let mut responder = Responder::new(1, Ipv4Addr::LOCALHOST.into()).unwrap();
        let mut client = TcpStream::connect(responder.listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let exchange = Exchange { up: 128, down: 128, last: false };
        // Behind a TLS record of three bytes, which is skipped.
        client
            .write_all(&[&[0x16, 3, 1, 0, 3, 9, 9, 9], &exchange.request()[..]].concat())
            .unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        responder.wait().unwrap();
        responder.wait().unwrap();
        let mut answer = Vec::new();
        assert_eq!(client.read_to_end(&mut answer).unwrap(), 128);
    }
}
