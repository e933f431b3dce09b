//! A client or a server of a scenario: one end of a TCP connection, which can do what peers do to
//! each other. Every stream has bytes of its own, so that a lost, doubled or foreign byte is found.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Type};

use crate::common::client::{Ending, is_reset, unacknowledged};
use crate::common::wait::pause;

/// Between two pieces of a slow peer.
pub(crate) const PAUSE: Duration = Duration::from_millis(5);

/// Bytes that are sent ahead of a reader that does not read: more than its kernel takes, and less
/// than the kernel and the pipe of the balancer hold for it.
pub(crate) const AHEAD: u64 = 1 << 20;

/// The receive buffer of a peer that is to be a late reader.
pub(crate) const SMALL: usize = 16 * 1024;

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    /// None: this end is closed.
    stream: Option<TcpStream>,
    /// Of this end.
    pub(crate) address: SocketAddr,
    /// What distinguishes the bytes that it sends.
    letter: char,
    /// Bytes sent and received so far.
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// It has read until the stream ended.
    pub(crate) has_read_all: bool,
    /// A send has told that the connection was reset.
    was_reset: bool,
    deadline: Duration,
}

/// The byte at this place of the stream of the peer `letter`.
fn byte_at(letter: char, offset: u64) -> u8 {
    u8::try_from((offset + u64::from(u32::from(letter)) * 31) % 251).unwrap_or(0)
}

fn bytes_of(letter: char, offset: u64, count: u64) -> Vec<u8> {
    (offset..offset + count).map(|offset| byte_at(letter, offset)).collect()
}

impl Peer {
    /// Takes over a connection. No operation lasts longer than `deadline`.
    pub(crate) fn new(letter: char, stream: TcpStream, deadline: Duration) -> io::Result<Self> {
        stream.set_read_timeout(Some(deadline))?;
        stream.set_write_timeout(Some(deadline))?;
        stream.set_nodelay(true)?;
        let address = stream.local_addr()?;
        let (sent, received, has_read_all, was_reset) = (0, 0, false, false);
        let stream = Some(stream);
        Ok(Self { stream, address, letter, sent, received, has_read_all, was_reset, deadline })
    }

    /// Connects; `small`: as one that will be a late reader.
    pub(crate) fn connect(
        letter: char,
        address: SocketAddr,
        small: bool,
        deadline: Duration,
    ) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if small {
            socket.set_recv_buffer_size(SMALL)?;
        }
        socket.connect_timeout(&address.into(), deadline)?;
        Self::new(letter, socket.into(), deadline)
    }

    fn stream(&self) -> Result<&TcpStream, String> {
        self.stream.as_ref().ok_or_else(|| format!("{} has closed", self.letter))
    }

    /// Sends the next `count` bytes, at most `piece` at a time.
    pub(crate) fn send(&mut self, count: u64, piece: u64) -> Result<(), String> {
        let end = self.sent + count;
        while self.sent < end {
            let bytes = bytes_of(self.letter, self.sent, piece.min(end - self.sent));
            let written = self.stream()?.write_all(&bytes);
            written.map_err(|why| format!("{} sends byte {}: {why}", self.letter, self.sent))?;
            self.sent += bytes.len() as u64;
        }
        Ok(())
    }

    /// Sends `count` single bytes with pauses.
    pub(crate) fn drip(&mut self, count: u64) -> Result<(), String> {
        for _ in 0..count {
            self.send(1, 1)?;
            pause(PAUSE);
        }
        Ok(())
    }

    /// Sends `count` bytes, and waits until the kernel at the other end has all of them: a reset
    /// destroys what it has not.
    pub(crate) fn send_ahead(&mut self, count: u64, piece: u64) -> Result<(), String> {
        self.send(count, piece)?;
        let stream = self.stream()?;
        self.poll("everything is acknowledged", self.deadline, || unacknowledged(stream) == 0)
    }

    /// Sends bytes that are no part of the stream that is checked.
    pub(crate) fn send_raw(&self, bytes: &[u8]) -> Result<(), String> {
        let sent = self.stream()?.write_all(bytes);
        sent.map_err(|why| format!("{} sends: {why}", self.letter))
    }

    /// Sends `count` bytes that are no part of the stream that is checked, until one is refused: a
    /// peer that is about to be reset.
    pub(crate) fn flood(&mut self, count: usize) -> Result<(), String> {
        let stream = self.stream.as_ref().ok_or("has closed")?;
        let end = Instant::now() + Duration::from_millis(300);
        let mut left = count;
        stream.set_nonblocking(true).map_err(|why| why.to_string())?;
        while left > 0 && Instant::now() < end {
            match { stream }.write(&vec![b'~'; left.min(16 * 1024)]) {
                Ok(sent) => {
                    left -= sent;
                    self.sent += sent as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => pause(PAUSE),
                Err(error) if is_reset(&error) => {
                    self.was_reset = true;
                    break;
                }
                Err(error) => return Err(format!("{} sends: {error}", self.letter)),
            }
        }
        stream.set_nonblocking(false).map_err(|why| why.to_string())
    }

    /// Sends an urgent byte (RFC 6093), which is no part of the stream.
    pub(crate) fn urgent(&self) -> Result<(), String> {
        let sent = SockRef::from(self.stream()?).send_out_of_band(b"!");
        sent.map(drop).map_err(|why| format!("{} sends an urgent byte: {why}", self.letter))
    }

    /// Reads the next `count` bytes of `from`, at most `piece` at a time; with pauses, if `slowly`.
    pub(crate) fn read(
        &mut self,
        from: char,
        count: u64,
        piece: usize,
        slowly: bool,
    ) -> Result<(), String> {
        let end = self.received + count;
        while self.received < end {
            let room = usize::try_from(end - self.received).unwrap_or(piece).min(piece);
            if self.read_piece(from, room)?.is_some() {
                return Err(format!(
                    "{} reads: the stream ends after {} of {end} bytes",
                    self.letter, self.received
                ));
            }
            if slowly {
                pause(PAUSE);
            }
        }
        Ok(())
    }

    /// Reads until the stream of `from` ends: how it ended.
    pub(crate) fn read_to_end(&mut self, from: char) -> Result<Ending, String> {
        loop {
            if let Some(ending) = self.read_piece(from, 64 * 1024)? {
                self.has_read_all = true;
                return Ok(ending);
            }
        }
    }

    fn read_piece(&mut self, from: char, room: usize) -> Result<Option<Ending>, String> {
        let mut room = vec![0; room];
        let mut stream = self.stream()?;
        let read = loop {
            match stream.read(&mut room) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let count = match read {
            Ok(0) => return Ok(Some(Ending::Orderly)),
            Ok(count) => count,
            Err(error) if is_reset(&error) => return Ok(Some(Ending::Reset)),
            Err(why) => {
                return Err(format!("{} reads byte {}: {why}", self.letter, self.received));
            }
        };
        if room[..count] != bytes_of(from, self.received, count as u64) {
            return Err(format!(
                "{} reads other bytes than {from} sent, from byte {} on",
                self.letter, self.received
            ));
        }
        self.received += count as u64;
        Ok(None)
    }

    /// Whether nothing can be read for `time`.
    pub(crate) fn hears_nothing(&self, time: Duration) -> Result<bool, String> {
        let stream = self.stream()?;
        stream.set_read_timeout(Some(time)).map_err(|why| why.to_string())?;
        let heard = stream.peek(&mut [0]);
        stream.set_read_timeout(Some(self.deadline)).map_err(|why| why.to_string())?;
        Ok(heard.is_err_and(|error| error.kind() == ErrorKind::WouldBlock))
    }

    /// Waits until the connection has been reset, which a read does not show after the end (FIN).
    pub(crate) fn until_reset(&self) -> Result<(), String> {
        self.until_reset_within(self.deadline)
    }

    /// As `until_reset`, for so long at most.
    pub(crate) fn until_reset_within(&self, deadline: Duration) -> Result<(), String> {
        let stream = self.stream()?;
        let is_reset = || self.was_reset || stream.take_error().is_ok_and(|error| error.is_some());
        self.poll("it is reset", deadline, is_reset)
    }

    /// Whether an urgent byte has come.
    pub(crate) fn has_urgent_byte(&self) -> bool {
        let mut room = [std::mem::MaybeUninit::uninit()];
        let stream = self.stream.as_ref();
        stream.is_some_and(|stream| {
            SockRef::from(stream).recv_out_of_band(&mut room).is_ok_and(|count| count == 1)
        })
    }

    /// Shuts down (FIN).
    pub(crate) fn fin(&self) -> Result<(), String> {
        let done = self.stream()?.shutdown(Shutdown::Write);
        done.map_err(|why| format!("{} shuts down: {why}", self.letter))
    }

    /// Aborts (RST).
    pub(crate) fn rst(&mut self) -> Result<(), String> {
        let stream = self.stream()?;
        let done = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        self.stream = None;
        done.map_err(|why| format!("{} resets: {why}", self.letter))
    }

    /// Closes, as a process that exits does: a reset, if bytes are unread.
    pub(crate) fn close(&mut self) {
        self.stream = None;
    }

    fn poll(
        &self,
        what: &str,
        deadline: Duration,
        condition: impl Fn() -> bool,
    ) -> Result<(), String> {
        let end = Instant::now() + deadline;
        while !condition() {
            if Instant::now() > end {
                return Err(format!("{}: not within {deadline:?}: {what}", self.letter));
            }
            pause(PAUSE);
        }
        Ok(())
    }
}
