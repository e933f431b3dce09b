//! The client side: keeps a number of connections busy, in the calling thread.
//!
//! In a closed loop each connection always has an exchange under way. In an open loop exchanges
//! start at a given rate, on any connection without one (or on a new one), and a latency counts
//! from the time at which its exchange was due: a slow subject pays for the wait (no coordinated
//! omission).

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, recv, send};
use socket2::{Domain, Protocol, Socket, Type};

use crate::latencies::Latencies;
use crate::pace::Pace;
use crate::report::Turn;
use crate::work::Load;

/// Bytes of an answer that one call discards: they are never copied.
const DISCARD: usize = 1 << 20;
const EVENTS: usize = 256;

/// Connections and their loads.
pub(crate) struct Generator {
    addresses: Vec<SocketAddr>,
    connected: usize,
    epoll: Epoll,
    connections: Vec<Connection>,
    parts: Vec<Part>,
    pace: Option<Pace>,
    discard: Vec<u8>,
}

/// All connections of one load.
struct Part {
    load: Load,
    request: Vec<u8>,
    bytes: u64,
    latencies: Option<Latencies>,
}

struct Connection {
    socket: Socket,
    phase: Phase,
    part: usize,
    /// When the exchange started or was due; only while latencies are recorded.
    due: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Bytes of the request still to send; the first wait for the connect as well.
    Sending(usize),
    /// Bytes of the answer still to receive.
    Receiving(usize),
    /// The answer is complete; the FIN is still to come.
    Ending,
    /// No exchange is under way.
    Idle,
}

impl Generator {
    /// Opens the connections of all loads, to the addresses in turn.
    pub(crate) fn open(addresses: &[SocketAddr], loads: &[Load]) -> io::Result<Self> {
        let part = |load: &Load| Part {
            load: *load,
            request: [load.hello, &load.exchange.request()].concat(),
            bytes: 0,
            latencies: None,
        };
        let mut generator = Self {
            addresses: addresses.to_vec(),
            connected: 0,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            connections: Vec::new(),
            parts: loads.iter().map(part).collect(),
            pace: None,
            discard: vec![0; DISCARD],
        };
        for (part, load) in loads.iter().enumerate() {
            for _ in 0..load.connections {
                let connection = generator.connect(generator.connections.len(), part)?;
                generator.connections.push(connection);
            }
        }
        Ok(generator)
    }

    /// Makes a part an open loop of so many exchanges a second: at equal distances, or random ones
    /// that are the same for the same seed.
    pub(crate) fn pace(&mut self, part: usize, rate: f64, seed: Option<u64>) {
        self.pace = Some(Pace::new(part, rate, seed));
    }

    /// Exchanges of a part so far; those under way count by the bytes that were transferred.
    #[expect(clippy::cast_precision_loss, reason = "2^53 bytes are not reached")]
    pub(crate) fn exchanges(&self, part: usize) -> f64 {
        let part = &self.parts[part];
        part.bytes as f64 / (part.load.exchange.bytes() + part.load.hello.len() as u64) as f64
    }

    /// Drives for this long and returns the rate of each part in exchanges a second.
    pub(crate) fn rates(&mut self, time: Duration) -> io::Result<Vec<f64>> {
        let exchanges = |generator: &Self| -> Vec<f64> {
            (0..generator.parts.len()).map(|part| generator.exchanges(part)).collect()
        };
        let (before, start) = (exchanges(self), Instant::now());
        self.drive(time)?;
        let took = start.elapsed().as_secs_f64();
        let pairs = exchanges(self).into_iter().zip(before);
        Ok(pairs.map(|(after, before)| (after - before) / took).collect())
    }

    /// Starts to record the latencies of a part.
    pub(crate) fn record_latencies(&mut self, part: usize) -> io::Result<()> {
        self.parts[part].latencies = Some(Latencies::new(Instant::now())?);
        for connection in self.connections.iter_mut().filter(|one| one.part == part) {
            connection.due = None; // an exchange under way started before
        }
        if let Some(pace) = self.pace.as_mut().filter(|pace| pace.part == part) {
            // The turn is the same for every subject: nothing is overdue at its start.
            pace.restart();
        }
        Ok(())
    }

    /// The latencies of a part, as [`Latencies::figures`]. In an open loop, exchanges that are
    /// under way or have not even started count with the time that they have taken so far.
    pub(crate) fn latencies(&mut self, part: usize) -> io::Result<Turn> {
        let now = Instant::now();
        let latencies = self.parts[part].latencies.take();
        let mut latencies = latencies.ok_or_else(|| io::Error::other("no latency is recorded"))?;
        if let Some(pace) = self.pace.as_ref().filter(|pace| pace.part == part) {
            let start = latencies.start();
            let connections = self.connections.iter();
            let under_way = connections.filter(|one| {
                one.part == part && !matches!(one.phase, Phase::Idle | Phase::Ending)
            });
            for due in under_way.map(|one| one.due.unwrap_or(start)) {
                latencies.record(now, now.saturating_duration_since(due));
            }
            let mut due = pace.next;
            while due < now {
                latencies.record(now, now - due);
                due += pace.interval;
            }
        }
        latencies.figures()
    }

    /// Drives for this long.
    pub(crate) fn drive(&mut self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            self.start_due()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            // With no idle connection it waits for an answer.
            let yields = self.pace.as_ref().is_some_and(|pace| !pace.idle.is_empty());
            let timeout = if yields { 0 } else { left.as_millis() + 1 };
            let timeout = EpollTimeout::from(u16::try_from(timeout).unwrap_or(u16::MAX));
            let ready = match self.epoll.wait(&mut events, timeout) {
                Err(Errno::EINTR) => continue,
                ready => ready?,
            };
            if ready == 0 && yields {
                thread::yield_now();
            }
            for event in &events[..ready] {
                self.advance(usize::try_from(event.data()).map_err(io::Error::other)?)?;
            }
        }
    }

    /// Starts the exchanges that are due.
    fn start_due(&mut self) -> io::Result<()> {
        loop {
            let Some(pace) = &mut self.pace else { return Ok(()) };
            if pace.next > Instant::now() {
                return Ok(());
            }
            // Without an idle connection, the next answer continues here.
            let Some(index) = pace.idle.pop_front() else { return Ok(()) };
            let due = pace.next;
            pace.advance();
            let part = self.connections[index].part;
            if self.parts[part].load.exchange.last {
                self.connections[index] = self.connect(index, part)?;
            }
            let connection = &mut self.connections[index];
            connection.due = Some(due);
            connection.phase = Phase::Sending(self.parts[part].request.len());
            self.advance(index)?;
        }
    }

    fn connect(&mut self, index: usize, part: usize) -> io::Result<Connection> {
        let address = self.addresses[self.connected % self.addresses.len()];
        self.connected += 1;
        let kind = Type::STREAM.nonblocking();
        let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
        if !self.parts[part].load.exchange.last {
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
        let phase = Phase::Sending(self.parts[part].request.len());
        Ok(Connection { socket, phase, part, due: None })
    }

    fn advance(&mut self, index: usize) -> io::Result<()> {
        let outcome = self.step(index);
        let connection = &self.connections[index];
        match (outcome, connection.phase) {
            (Ok(false), _) => {}
            (Ok(true), Phase::Ending) => {
                let part = connection.part;
                if let Some(pace) = self.pace.as_mut().filter(|pace| pace.part == part) {
                    connection.socket.shutdown(Shutdown::Write)?;
                    self.connections[index].phase = Phase::Idle;
                    pace.idle.push_back(index);
                } else {
                    self.connections[index] = self.connect(index, part)?;
                }
            }
            (Ok(true), _) => self.pace.iter_mut().for_each(|pace| pace.idle.push_back(index)),
            (Err(error), phase) => {
                let phase = match phase {
                    Phase::Sending(_) => "sending a request",
                    Phase::Receiving(_) => "waiting for an answer",
                    Phase::Ending => "waiting for the end of stream",
                    Phase::Idle => "idle",
                };
                return Err(io::Error::other(format!("a connection failed, {phase}: {error}")));
            }
        }
        Ok(())
    }

    /// Continues until the socket has nothing to read or no room to write; true if the connection
    /// has become idle or has ended.
    fn step(&mut self, index: usize) -> nix::Result<bool> {
        let connection = &mut self.connections[index];
        let paced = self.pace.as_ref().is_some_and(|pace| pace.part == connection.part);
        let part = &mut self.parts[connection.part];
        let descriptor = connection.socket.as_raw_fd();
        loop {
            match connection.phase {
                Phase::Sending(left) => {
                    let rest = &part.request[part.request.len() - left..];
                    let sent = match send(descriptor, rest, MsgFlags::MSG_NOSIGNAL) {
                        Err(Errno::EAGAIN) => return Ok(false),
                        sent => sent?,
                    };
                    part.bytes += sent as u64;
                    if sent == left {
                        connection.phase = Phase::Receiving(part.load.exchange.down as usize);
                        return Ok(false); // the answer is an edge of its own
                    }
                    connection.phase = Phase::Sending(left - sent);
                }
                Phase::Receiving(left) => {
                    let asked = left.min(DISCARD);
                    // With MSG_TRUNC, TCP drops the bytes without copying them (tcp(7)).
                    let buffer = &mut self.discard[..asked];
                    let got = match recv(descriptor, buffer, MsgFlags::MSG_TRUNC) {
                        Err(Errno::EAGAIN) => return Ok(false),
                        Ok(0) => return Err(Errno::ECONNRESET),
                        got => got?,
                    };
                    part.bytes += got as u64;
                    connection.phase = match (got == left, part.load.exchange.last) {
                        (false, _) => Phase::Receiving(left - got),
                        (true, true) => Phase::Ending,
                        (true, false) if paced => Phase::Idle,
                        (true, false) => Phase::Sending(part.request.len()),
                    };
                    if got == left {
                        record(connection, part);
                    }
                    if matches!(connection.phase, Phase::Idle) {
                        return Ok(true);
                    }
                    if got < asked {
                        return Ok(false); // a short read has emptied it
                    }
                }
                Phase::Ending => {
                    return match recv(descriptor, &mut self.discard[..1], MsgFlags::empty()) {
                        Ok(0) => Ok(true),
                        Ok(_) => Err(Errno::EPROTO),
                        Err(Errno::EAGAIN) => Ok(false),
                        Err(error) => Err(error),
                    };
                }
                Phase::Idle => return Ok(false),
            }
        }
    }
}

/// Records the latency of a complete answer. In a closed loop the next exchange starts at once.
fn record(connection: &mut Connection, part: &mut Part) {
    let Some(latencies) = &mut part.latencies else { return };
    let now = Instant::now();
    if let Some(due) = connection.due {
        latencies.record(now, now.saturating_duration_since(due));
    }
    connection.due = matches!(connection.phase, Phase::Sending(_)).then_some(now);
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::work::{connections, small};

    #[test]
    fn in_an_open_loop_every_exchange_that_a_silent_server_delays_counts() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut generator = Generator::open(&[silent.local_addr().unwrap()], &[small(2)]).unwrap();
        generator.pace(0, 1000.0, None);
        generator.record_latencies(0).unwrap();
        generator.drive(Duration::from_millis(100)).unwrap();
        // Due over 100 ms and never answered: half of them have waited for 50 ms.
        let p50 = generator.latencies(0).unwrap()["windowed_p50"];
        assert!((40_000.0..80_000.0).contains(&p50), "{p50}");
    }

    #[test]
    fn an_open_loop_makes_new_connections_at_its_rate() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        thread::spawn(move || {
            for mut client in server.incoming().flatten() {
                drop(client.read_exact(&mut [0; 128]));
                drop(client.write_all(&[0; 128]));
            }
        });
        let start = Instant::now();
        let mut generator = Generator::open(&[address], &[connections(4)]).unwrap();
        generator.pace(0, 100.0, None);
        while generator.exchanges(0) < 4.0 {
            generator.drive(Duration::from_millis(10)).unwrap();
        }
        generator.record_latencies(0).unwrap();
        generator.drive(Duration::from_millis(300)).unwrap();
        let p50 = generator.latencies(0).unwrap()["windowed_p50"];
        assert!(p50 > 1.0, "{p50}");
        // A closed loop would open thousands. Each of the four has one under way.
        let due = 9 + start.elapsed().as_millis() / 10;
        let opened = generator.connected;
        assert!(opened > 4 && opened as u128 <= due, "{opened} of {due}");
    }

    #[test]
    fn exchanges_that_were_under_way_before_the_recording_count() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut generator = Generator::open(&[silent.local_addr().unwrap()], &[small(50)]).unwrap();
        generator.pace(0, 0.001, None);
        generator.drive(Duration::from_millis(20)).unwrap();
        generator.record_latencies(0).unwrap();
        generator.drive(Duration::from_millis(50)).unwrap();
        let p50 = generator.latencies(0).unwrap()["windowed_p50"];
        assert!(p50 >= 49_000.0, "{p50}");
    }

    #[test]
    fn a_poisson_process_has_the_given_rate_and_exponential_gaps() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let echo = thread::spawn(move || {
            let (mut client, _) = server.accept().unwrap();
            let mut bytes = [0; 128];
            while client.read_exact(&mut bytes).is_ok() {
                client.write_all(&bytes).unwrap();
            }
        });
        let mut generator = Generator::open(&[address], &[small(1)]).unwrap();
        generator.pace(0, 500.0, Some(1));
        generator.drive(Duration::from_millis(20)).unwrap();
        generator.record_latencies(0).unwrap();
        let rate = generator.rates(Duration::from_secs(1)).unwrap()[0];
        assert!((350.0..650.0).contains(&rate), "{rate}");
        let pace = generator.pace.as_mut().unwrap();
        let mut gaps = Vec::new();
        for _ in 0..1000 {
            let before = pace.next;
            pace.advance();
            gaps.push(pace.next - before);
        }
        let shorter =
            |than: f64| gaps.iter().filter(|gap| **gap < pace.interval.mul_f64(than)).count();
        // 1 - e^-0.1 and 1 - e^-2 of a thousand.
        assert!((60..130).contains(&shorter(0.1)) && (830..900).contains(&shorter(2.0)));
        drop(generator);
        echo.join().unwrap();
    }
}
