//! The client side: keeps a number of connections busy, in the thread that asks it to.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, recv, send};
use socket2::{Domain, Protocol, Socket, Type};

use crate::work::Load;

/// Bytes that one call discards of an answer: never copied, so only a number.
const DISCARD: usize = 1 << 20;
const EVENTS: usize = 256;

/// A closed loop: each connection has one exchange under way, always.
pub(crate) struct Generator {
    load: Load,
    addresses: Vec<SocketAddr>,
    next_address: usize,
    epoll: Epoll,
    connections: Vec<Connection>,
    request: Vec<u8>,
    discard: Vec<u8>,
    bytes: u64,
}

struct Connection {
    socket: Socket,
    phase: Phase,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Bytes of the request that are still to be sent (the first wait for the connection too).
    Sending(usize),
    /// Bytes of the answer that are still to come.
    Receiving(usize),
    /// The answer is whole; the peer's end of stream is still to come.
    Ending,
}

enum Step {
    /// Nothing to do until the socket is ready again.
    Wait,
    /// The exchange was the connection's last.
    Over,
}

impl Generator {
    /// Opens the connections, to the addresses in turn.
    ///
    /// # Errors
    /// A connection is refused, or there are no descriptors.
    pub(crate) fn open(addresses: &[SocketAddr], load: Load) -> io::Result<Self> {
        let mut generator = Self {
            load,
            addresses: addresses.to_vec(),
            next_address: 0,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            connections: Vec::with_capacity(load.connections),
            request: load.exchange.request(),
            discard: vec![0; DISCARD],
            bytes: 0,
        };
        for index in 0..load.connections {
            let connection = generator.connect(index)?;
            generator.connections.push(connection);
        }
        Ok(generator)
    }

    /// Exchanges so far; those under way count with the part of their bytes that was moved.
    #[expect(clippy::cast_precision_loss, reason = "2^53 bytes are not reached")]
    pub(crate) fn exchanges(&self) -> f64 {
        self.bytes as f64 / self.load.exchange.bytes() as f64
    }

    /// Drives for this long.
    ///
    /// # Errors
    /// Any connection fails or is ended early: a subject that drops work must not look fast.
    pub(crate) fn drive(&mut self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        let mut events = vec![EpollEvent::empty(); EVENTS];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let patience = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
            let ready = match self.epoll.wait(&mut events, EpollTimeout::from(patience)) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            for event in &events[..ready] {
                self.advance(usize::try_from(event.data()).map_err(io::Error::other)?)?;
            }
        }
    }

    fn connect(&mut self, index: usize) -> io::Result<Connection> {
        let address = self.addresses[self.next_address % self.addresses.len()];
        self.next_address += 1;
        let kind = Type::STREAM.nonblocking();
        let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
        if !self.load.exchange.last {
            socket.set_tcp_nodelay(true)?;
        }
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => {
                return Err(io::Error::new(error.kind(), format!("connect {address}: {error}")));
            }
            _ => {}
        }
        let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        self.epoll.add(&socket, EpollEvent::new(interest, index as u64))?;
        Ok(Connection { socket, phase: Phase::Sending(self.request.len()) })
    }

    fn advance(&mut self, index: usize) -> io::Result<()> {
        match self.step(index) {
            Ok(Step::Wait) => Ok(()),
            Ok(Step::Over) => {
                self.connections[index] = self.connect(index)?;
                Ok(())
            }
            Err(error) => {
                let phase = match self.connections[index].phase {
                    Phase::Sending(_) => "sending a request",
                    Phase::Receiving(_) => "waiting for an answer",
                    Phase::Ending => "waiting for the end of stream",
                };
                Err(io::Error::other(format!("a connection failed, {phase}: {error}")))
            }
        }
    }

    /// Goes on until the socket has nothing more to read or no room to write.
    fn step(&mut self, index: usize) -> nix::Result<Step> {
        let connection = &mut self.connections[index];
        let descriptor = connection.socket.as_raw_fd();
        loop {
            match connection.phase {
                Phase::Sending(left) => {
                    let rest = &self.request[self.request.len() - left..];
                    let sent = match send(descriptor, rest, MsgFlags::MSG_NOSIGNAL) {
                        Err(Errno::EAGAIN) => return Ok(Step::Wait),
                        other => other?,
                    };
                    self.bytes += sent as u64;
                    if sent == left {
                        connection.phase = Phase::Receiving(self.load.exchange.down as usize);
                        return Ok(Step::Wait); // the answer is an edge of its own
                    }
                    connection.phase = Phase::Sending(left - sent);
                }
                Phase::Receiving(left) => {
                    let asked = left.min(self.discard.len());
                    // TCP with MSG_TRUNC drops the bytes without copying them (tcp(7)).
                    let buffer = &mut self.discard[..asked];
                    let got = match recv(descriptor, buffer, MsgFlags::MSG_TRUNC) {
                        Err(Errno::EAGAIN) => return Ok(Step::Wait),
                        Ok(0) => return Err(Errno::ECONNRESET),
                        other => other?,
                    };
                    self.bytes += got as u64;
                    connection.phase = if got < left {
                        Phase::Receiving(left - got)
                    } else if self.load.exchange.last {
                        Phase::Ending
                    } else {
                        Phase::Sending(self.request.len())
                    };
                    if got < asked {
                        return Ok(Step::Wait); // a short read has emptied it
                    }
                }
                Phase::Ending => {
                    return match recv(descriptor, &mut self.discard[..1], MsgFlags::empty()) {
                        Ok(0) => Ok(Step::Over),
                        Ok(_) => Err(Errno::EPROTO),
                        Err(Errno::EAGAIN) => Ok(Step::Wait),
                        Err(error) => Err(error),
                    };
                }
            }
        }
    }
}
