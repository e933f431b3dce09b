//! The server side: answers exchanges from one thread, as thinly as epoll allows.
//!
//! Edge-triggered, each socket registered once, no read that could find nothing.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, recv, send};

use crate::exchange::{ANSWER_MAX, Exchange, HEADER, answer};

/// Bytes that one call discards of a request's body: never copied, so only a number.
const DISCARD: usize = 1 << 20;
/// Bytes of the buffer that headers (and the start of bodies) are read into.
const SCRATCH: usize = 16 << 10;
const EVENTS: usize = 256;
const BACKLOG: i32 = 4096;

/// Serves until killed; prints its address first.
///
/// # Errors
/// It cannot listen, or epoll fails.
pub(crate) fn serve(number: u8, bind: IpAddr) -> io::Result<()> {
    let listener = listen(bind)?;
    let mut output = io::stdout().lock();
    writeln!(output, "{}", listener.local_addr()?)?;
    output.flush()?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let own = u64::try_from(listener.as_raw_fd()).map_err(io::Error::other)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, own))?;
    let mut responder = Responder {
        payload: answer(number, ANSWER_MAX),
        scratch: vec![0; SCRATCH],
        discard: vec![0; DISCARD],
        connections: Vec::new(),
    };
    let mut events = vec![EpollEvent::empty(); EVENTS];
    loop {
        let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        for event in &events[..ready] {
            if event.data() == own {
                responder.accept(&listener, &epoll)?;
            } else {
                responder.advance(event);
            }
        }
    }
}

fn listen(bind: IpAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::IPV4,
        socket2::Type::STREAM.nonblocking(),
        Some(socket2::Protocol::TCP),
    )?;
    // Accepted sockets inherit it, which saves a call for each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SocketAddr::from((bind, 0)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

struct Responder {
    payload: Vec<u8>,
    scratch: Vec<u8>,
    discard: Vec<u8>,
    /// By descriptor.
    connections: Vec<Option<Connection>>,
}

impl Responder {
    fn accept(&mut self, listener: &TcpListener, epoll: &Epoll) -> io::Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let index = usize::try_from(stream.as_raw_fd()).map_err(io::Error::other)?;
            let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
            let interest = edges | EpollFlags::EPOLLRDHUP;
            epoll.add(&stream, EpollEvent::new(interest, index as u64))?;
            if self.connections.len() <= index {
                self.connections.resize_with(index + 1, || None);
            }
            self.connections[index] = Some(Connection {
                stream,
                header: [0; HEADER],
                header_read: 0,
                exchange: Exchange { up: 0, down: 0, last: false },
                up_left: 0,
                down_left: 0,
                ended: false,
            });
        }
    }

    fn advance(&mut self, event: &EpollEvent) {
        let Ok(index) = usize::try_from(event.data()) else { return };
        let Some(slot) = self.connections.get_mut(index) else { return };
        let Some(connection) = slot else { return };
        if connection.down_left == 0 && event.events() == EpollFlags::EPOLLOUT {
            return; // writable, as it was from the start, and nothing to write
        }
        let (scratch, discard) = (&mut self.scratch, &mut self.discard);
        // An end that comes with the last bytes has no edge of its own.
        connection.ended |= event.events().contains(EpollFlags::EPOLLRDHUP);
        // A peer that resets has had its say: whoever drives it reports the error.
        let left = connection.step(&self.payload, scratch, discard);
        let is_over = connection.ended && connection.down_left == 0;
        if is_over || !matches!(left, Ok(Left::Open)) {
            *slot = None;
        }
    }
}

enum Left {
    Open,
    Closed,
}

struct Connection {
    stream: TcpStream,
    header: [u8; HEADER],
    header_read: usize,
    exchange: Exchange,
    up_left: usize,
    down_left: usize,
    /// The peer says no more.
    ended: bool,
}

impl Connection {
    /// Goes on until the socket has nothing more to read or no room to write.
    fn step(
        &mut self,
        payload: &[u8],
        scratch: &mut [u8],
        discard: &mut [u8],
    ) -> nix::Result<Left> {
        let descriptor = self.stream.as_raw_fd();
        if self.down_left == 0 {
            if !self.receive(descriptor, scratch, discard)? {
                return Ok(Left::Closed);
            }
            if self.header_read < HEADER || self.up_left > 0 {
                return Ok(Left::Open);
            }
            self.down_left = (self.exchange.down as usize).min(payload.len());
        }
        let whole = (self.exchange.down as usize).min(payload.len());
        while self.down_left > 0 {
            let rest = &payload[whole - self.down_left..whole];
            match send(descriptor, rest, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(sent) => self.down_left -= sent,
                Err(Errno::EAGAIN) => return Ok(Left::Open),
                Err(error) => return Err(error),
            }
        }
        self.header_read = 0;
        Ok(if self.exchange.last { Left::Closed } else { Left::Open })
    }

    /// Reads until the request is whole or the socket empty; false at the end of the stream.
    fn receive(
        &mut self,
        descriptor: RawFd,
        scratch: &mut [u8],
        discard: &mut [u8],
    ) -> nix::Result<bool> {
        while self.header_read < HEADER || self.up_left > 0 {
            let in_body = self.header_read == HEADER;
            let asked = if in_body { self.up_left.min(discard.len()) } else { scratch.len() };
            let got = if in_body {
                // TCP with MSG_TRUNC drops the bytes without copying them (tcp(7)).
                let flags = MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
                recv(descriptor, &mut discard[..asked], flags)
            } else {
                recv(descriptor, scratch, MsgFlags::MSG_DONTWAIT)
            };
            let got = match got {
                Err(Errno::EAGAIN) => return Ok(true),
                other => other?,
            };
            if got == 0 {
                return Ok(false);
            }
            if in_body {
                self.up_left -= got;
            } else {
                self.take_header(&scratch[..got])?;
            }
            if got < asked {
                return Ok(true); // a short read has emptied it, and the next byte is a new edge
            }
        }
        Ok(true)
    }

    fn take_header(&mut self, bytes: &[u8]) -> nix::Result<()> {
        let taken = bytes.len().min(HEADER - self.header_read);
        self.header[self.header_read..self.header_read + taken].copy_from_slice(&bytes[..taken]);
        self.header_read += taken;
        if self.header_read == HEADER {
            self.exchange = Exchange::parse(self.header);
            let rest = bytes.len() - taken;
            // More than one request at a time is not of this protocol.
            self.up_left = (self.exchange.up as usize).checked_sub(rest).ok_or(Errno::EPROTO)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{Ipv4Addr, Shutdown, TcpStream};
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_asks_and_ends_at_once_is_answered_and_left() {
        let listener = listen(Ipv4Addr::LOCALHOST.into()).unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let exchange = Exchange { up: 128, down: 128, last: false };
        peer.write_all(&exchange.request()).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();

        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let (payload, scratch, discard) = (answer(1, 128), vec![0; SCRATCH], vec![0; DISCARD]);
        let mut responder = Responder { payload, scratch, discard, connections: Vec::new() };
        responder.accept(&listener, &epoll).unwrap();
        let mut events = [EpollEvent::empty()];
        assert_eq!(epoll.wait(&mut events, EpollTimeout::from(20_000_u16)).unwrap(), 1);
        responder.advance(&events[0]);
        let mut got = Vec::new();
        assert_eq!(peer.read_to_end(&mut got).unwrap(), 128, "then the end");
    }
}
