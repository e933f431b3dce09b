//! The client side: keeps a number of connections busy, in the thread that asks it to.
//!
//! In a closed loop each connection has one exchange under way, always. In an open loop exchanges
//! begin at a given rate on whichever connection rests, and a latency is counted from when its
//! exchange was meant to begin: who falls behind pays for all that wait (no coordinated omission).

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use socket2::{Domain, Protocol, Socket, Type};

use crate::histogram::{Latencies, Quantiles};
use crate::work::Load;

/// Bytes that one call discards of an answer: never copied, so only a number.
const DISCARD: usize = 1 << 20;
const EVENTS: usize = 256;
/// What epoll calls the timer; others are indices of connections.
const TIMER: u64 = u64::MAX;

/// Connections and what they do.
pub(crate) struct Generator {
    addresses: Vec<SocketAddr>,
    next_address: usize,
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

/// An open loop.
struct Pace {
    part: usize,
    /// Between two exchanges on average.
    interval: Duration,
    rhythm: Rhythm,
    /// When the next exchange is meant to begin.
    next: Instant,
    resting: VecDeque<usize>,
}

/// How exchanges of an open loop follow each other, and how it waits for the next.
enum Rhythm {
    /// Evenly; woken by a timer.
    Even(TimerFd),
    /// As those of clients who know nothing of each other, a Poisson process: gaps are distributed
    /// exponentially. Waits by giving the core away again and again.
    Poisson(Box<StdRng>, u64),
}

/// How exchanges of an open loop are asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arrivals {
    /// Evenly; a timer wakes the generator, for beside other work.
    Even,
    /// As a Poisson process, the same for the same seed. The generator does not sleep until the
    /// next is due: to set a timer that is the next to go off can cost a virtual machine more of
    /// the core than an exchange, and an even rhythm beats with the clock's ticks.
    Poisson { seed: u64 },
}

impl Pace {
    /// Whether it waits by giving the core away; with no connection at rest it waits for an answer.
    fn yields(&self) -> bool {
        matches!(self.rhythm, Rhythm::Poisson(..)) && !self.resting.is_empty()
    }

    /// The next exchange has begun: when is the one after it meant to?
    fn advance(&mut self) {
        self.next += match &mut self.rhythm {
            Rhythm::Even(_) => self.interval,
            Rhythm::Poisson(random, _) => {
                self.interval.mul_f64(-(1.0 - random.random::<f64>()).ln())
            }
        };
    }
}

struct Connection {
    socket: Socket,
    phase: Phase,
    part: usize,
    /// When the exchange began, or was meant to; kept only where latencies are.
    began: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Bytes of the request that are still to be sent (the first wait for the connection too).
    Sending(usize),
    /// Bytes of the answer that are still to come.
    Receiving(usize),
    /// The answer is whole; the peer's end of stream is still to come.
    Ending,
    /// Nothing is under way.
    Resting,
}

enum Step {
    /// Nothing to do until the socket is ready again.
    Wait,
    /// Nothing to do until the pace asks.
    Rest,
    /// The exchange was the connection's last.
    Over,
}

impl Generator {
    /// Opens the connections of all loads, to the addresses in turn.
    ///
    /// # Errors
    /// A connection is refused, or there are no descriptors.
    pub(crate) fn open(addresses: &[SocketAddr], loads: &[Load]) -> io::Result<Self> {
        let part = |load: &Load| Part {
            load: *load,
            request: load.exchange.request(),
            bytes: 0,
            latencies: None,
        };
        let mut generator = Self {
            addresses: addresses.to_vec(),
            next_address: 0,
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

    /// From now on a part is an open loop: so many exchanges a second.
    ///
    /// # Errors
    /// There is no timer.
    pub(crate) fn pace(&mut self, part: usize, rate: f64, arrivals: Arrivals) -> io::Result<()> {
        let rhythm = match arrivals {
            Arrivals::Poisson { seed } => {
                Rhythm::Poisson(Box::new(StdRng::seed_from_u64(seed)), seed)
            }
            Arrivals::Even => {
                let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
                let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
                self.epoll.add(&timer, EpollEvent::new(interest, TIMER))?;
                Rhythm::Even(timer)
            }
        };
        self.pace = Some(Pace {
            part,
            interval: Duration::from_secs_f64(1.0 / rate),
            rhythm,
            next: Instant::now(),
            resting: VecDeque::new(),
        });
        Ok(())
    }

    /// Exchanges of a part so far; those under way count with the bytes that were moved.
    #[expect(clippy::cast_precision_loss, reason = "2^53 bytes are not reached")]
    pub(crate) fn exchanges(&self, part: usize) -> f64 {
        let part = &self.parts[part];
        part.bytes as f64 / part.load.exchange.bytes() as f64
    }

    /// Begins to keep the latencies of a part.
    pub(crate) fn keep_latencies(&mut self, part: usize) {
        self.parts[part].latencies = Some(Latencies::new(Instant::now()));
        for connection in self.connections.iter_mut().filter(|one| one.part == part) {
            connection.began = None; // those under way began before
        }
        if let Some(pace) = self.pace.as_mut().filter(|pace| pace.part == part) {
            // What was behind before is not of this turn, which is the same for everybody.
            pace.next = Instant::now();
            if let Rhythm::Poisson(random, seed) = &mut pace.rhythm {
                **random = StdRng::seed_from_u64(*seed);
            }
        }
    }

    /// The latencies of a part. Exchanges that are not over, or have not even begun, count with
    /// the time that they have taken: who never answers must not look fast.
    pub(crate) fn latencies(&mut self, part: usize) -> Option<Quantiles> {
        let now = Instant::now();
        let mut latencies = self.parts[part].latencies.take()?;
        let under_way = self
            .connections
            .iter()
            .filter(|one| one.part == part && !matches!(one.phase, Phase::Resting));
        if let Some(pace) = self.pace.as_ref().filter(|pace| pace.part == part) {
            let kept_since = latencies.began();
            for began in under_way.map(|one| one.began.unwrap_or(kept_since)) {
                latencies.record(now, now.saturating_duration_since(began));
            }
            let mut meant = pace.next;
            while meant < now {
                latencies.record(now, now - meant);
                meant += pace.interval;
            }
        }
        latencies.quantiles()
    }

    /// Drives for this long.
    ///
    /// # Errors
    /// Any connection fails or is ended early: a subject that drops work must not look fast.
    pub(crate) fn drive(&mut self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        let mut events = vec![EpollEvent::empty(); EVENTS];
        loop {
            self.keep_pace()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let yields = self.pace.as_ref().is_some_and(Pace::yields);
            let patience = if yields { 0 } else { left.as_millis() + 1 };
            let patience = u16::try_from(patience).unwrap_or(u16::MAX);
            let ready = match self.epoll.wait(&mut events, EpollTimeout::from(patience)) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            if ready == 0 && yields {
                thread::yield_now();
            }
            for event in events[..ready].iter().filter(|event| event.data() != TIMER) {
                self.advance(usize::try_from(event.data()).map_err(io::Error::other)?)?;
            }
        }
    }

    /// Begins what is due, and sets the timer to the next.
    fn keep_pace(&mut self) -> io::Result<()> {
        loop {
            let Some(pace) = &mut self.pace else { return Ok(()) };
            let now = Instant::now();
            if pace.next > now {
                if let Rhythm::Even(timer) = &pace.rhythm
                    && !pace.resting.is_empty()
                {
                    let wait = TimeSpec::from_duration(pace.next - now);
                    timer.set(Expiration::OneShot(wait), TimerSetTimeFlags::empty())?;
                }
                return Ok(());
            }
            // With none at rest, the next answer brings us here again.
            let Some(index) = pace.resting.pop_front() else { return Ok(()) };
            let connection = &mut self.connections[index];
            connection.began = Some(pace.next);
            connection.phase = Phase::Sending(self.parts[connection.part].request.len());
            pace.advance();
            self.advance(index)?;
        }
    }

    fn connect(&mut self, index: usize, part: usize) -> io::Result<Connection> {
        let address = self.addresses[self.next_address % self.addresses.len()];
        self.next_address += 1;
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
        Ok(Connection { socket, phase, part, began: None })
    }

    fn advance(&mut self, index: usize) -> io::Result<()> {
        match self.step(index) {
            Ok(Step::Wait) => Ok(()),
            Ok(Step::Rest) => {
                if let Some(pace) = &mut self.pace {
                    pace.resting.push_back(index);
                }
                Ok(())
            }
            Ok(Step::Over) => {
                self.connections[index] = self.connect(index, self.connections[index].part)?;
                Ok(())
            }
            Err(error) => {
                let phase = match self.connections[index].phase {
                    Phase::Sending(_) => "sending a request",
                    Phase::Receiving(_) => "waiting for an answer",
                    Phase::Ending => "waiting for the end of stream",
                    Phase::Resting => "at rest",
                };
                Err(io::Error::other(format!("a connection failed, {phase}: {error}")))
            }
        }
    }

    /// Goes on until the socket has nothing more to read or no room to write.
    fn step(&mut self, index: usize) -> nix::Result<Step> {
        let connection = &mut self.connections[index];
        let paced = self.pace.as_ref().is_some_and(|pace| pace.part == connection.part);
        let part = &mut self.parts[connection.part];
        let descriptor = connection.socket.as_raw_fd();
        loop {
            match connection.phase {
                Phase::Sending(left) => {
                    let rest = &part.request[part.request.len() - left..];
                    let sent = match send(descriptor, rest, MsgFlags::MSG_NOSIGNAL) {
                        Err(Errno::EAGAIN) => return Ok(Step::Wait),
                        other => other?,
                    };
                    part.bytes += sent as u64;
                    if sent == left {
                        connection.phase = Phase::Receiving(part.load.exchange.down as usize);
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
                    part.bytes += got as u64;
                    let over = got == left;
                    connection.phase = match (over, part.load.exchange.last) {
                        (false, _) => Phase::Receiving(left - got),
                        (true, true) => Phase::Ending,
                        (true, false) if paced => Phase::Resting,
                        (true, false) => Phase::Sending(part.request.len()),
                    };
                    if over {
                        note(connection, part);
                    }
                    if matches!(connection.phase, Phase::Resting) {
                        return Ok(Step::Rest);
                    }
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
                Phase::Resting => return Ok(Step::Wait),
            }
        }
    }
}

/// The answer is whole. In a closed loop the next exchange begins at once.
fn note(connection: &mut Connection, part: &mut Part) {
    let Some(latencies) = &mut part.latencies else { return };
    let now = Instant::now();
    if let Some(began) = connection.began {
        latencies.record(now, now.saturating_duration_since(began));
    }
    connection.began = matches!(connection.phase, Phase::Sending(_)).then_some(now);
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::work::small;

    #[test]
    fn in_an_open_loop_a_silent_server_costs_all_that_had_to_wait() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut generator = Generator::open(&[silent.local_addr().unwrap()], &[small(2)]).unwrap();
        generator.pace(0, 1000.0, Arrivals::Even).unwrap();
        generator.keep_latencies(0);
        generator.drive(Duration::from_millis(100)).unwrap();
        let seen = generator.latencies(0).unwrap();
        // Meant to begin over 100 ms, never answered: half of them have waited for 50 ms.
        assert!((40_000.0..80_000.0).contains(&seen.p50), "{seen:?}");
    }

    #[test]
    fn who_fell_silent_before_it_was_measured_is_not_forgotten() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut generator = Generator::open(&[silent.local_addr().unwrap()], &[small(50)]).unwrap();
        generator.pace(0, 0.001, Arrivals::Even).unwrap();
        generator.drive(Duration::from_millis(20)).unwrap();
        generator.keep_latencies(0);
        generator.drive(Duration::from_millis(50)).unwrap();
        let seen = generator.latencies(0).unwrap();
        assert!(seen.p50 >= 49_000.0, "{seen:?}");
    }

    #[test]
    fn a_poisson_process_has_the_rate_that_was_asked_for_and_gaps_of_all_lengths() {
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
        generator.pace(0, 500.0, Arrivals::Poisson { seed: 1 }).unwrap();
        generator.drive(Duration::from_millis(20)).unwrap();
        generator.keep_latencies(0);
        let before = generator.exchanges(0);
        generator.drive(Duration::from_secs(1)).unwrap();
        let begun = generator.exchanges(0) - before;
        assert!((350.0..650.0).contains(&begun), "{begun}");
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
