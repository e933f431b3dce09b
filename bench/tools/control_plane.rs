//! What the balancer's own tasks cost: a health probe, and a scrape of the metrics.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::configuration::{CONTROL, Setup};
use crate::cpu::{self, connects_begun, cpu_time};
use crate::exchange::{Exchange, verified};
use crate::process::{Host, Running, pause};
use crate::report::Turn;
use crate::rounds::{Bench, Name, Responders};
use crate::subject::Subject;
use crate::work::Kind;

/// For a part of an answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

impl Bench {
    /// Two responders for addresses as from [`addresses`]. They listen on all addresses, so only in
    /// a network namespace of the bench.
    pub(crate) fn responders_of_many(&self, kind: &Kind) -> io::Result<Option<Responders>> {
        if !self.own_network {
            self.leave_out(format!("{}: it needs a network namespace", kind.name));
            return Ok(None);
        }
        Responders::start(Ipv4Addr::UNSPECIFIED.into(), [Host::default(); 2]).map(Some)
    }

    /// CPU time of a TCP probe, at the default interval and at a short one.
    pub(crate) fn probes(&self, kind: &Kind) -> io::Result<()> {
        let Some(responders) = self.responders_of_many(kind)? else { return Ok(()) };
        let (count, intervals) = if self.small { (20, [200, 50]) } else { (1000, [2000, 250]) };
        let intervals = intervals.map(Duration::from_millis);
        let servers = addresses(&responders, count);
        let names = intervals.map(|interval| {
            let milliseconds = interval.as_millis();
            let title = format!("a probe, of {count} servers every {milliseconds} ms");
            (format!("{}-{milliseconds}", kind.name), title)
        });
        let names: Vec<&Name> = names.iter().collect();
        let subjects = self.subjects_of_slow_rows();
        self.in_turns(&names, &subjects, |index, _| {
            let turns = intervals.map(|interval| {
                let plain = Setup::plain(&servers, self.sessions_max());
                let setup = Setup { probes: Some(interval), ..plain };
                self.probing(subjects[index], &setup, interval)
            });
            turns.into_iter().collect()
        })
    }

    /// Probes are the only connects of that time: the kernel counts them.
    fn probing(&self, subject: Subject, setup: &Setup, interval: Duration) -> io::Result<Turn> {
        let running = self.start(subject, setup)?;
        pause(interval);
        // Whole intervals, in which each server is probed as often as any other.
        let time = interval.mul_f64(self.window.div_duration_f64(interval).ceil().max(1.0));
        let (connects, used) = (connects_begun()?, cpu_time(running.process())?);
        let start = Instant::now();
        pause(time);
        let took = start.elapsed().as_secs_f64();
        let used = cpu_time(running.process())? - used;
        let probes = connects_begun()? - connects;
        if probes <= 0.0 {
            return Err(io::Error::other("no probe was made"));
        }
        // The probes have found that the servers are up.
        verified(running.address, &[], Exchange { up: 116, down: 128, last: true })?;
        Ok(Turn::from([
            ("probe", used * 1e6 / probes),
            ("probes", probes),
            ("probes_a_second", probes / took),
        ]))
    }

    /// CPU time, duration and size of a scrape.
    pub(crate) fn scrapes(&self, kind: &Kind) -> io::Result<()> {
        let Some(responders) = self.responders_of_many(kind)? else { return Ok(()) };
        let counts: &[(usize, u32)] = match (self.small, self.quick) {
            (true, _) => &[(20, 2)],
            (_, true) => &[(1000, 5)],
            _ => &[(1000, 5), (10_000, 2)],
        };
        // The client reads while the balancer writes.
        cpu::pin(&self.cores)?;
        let outcome = counts.iter().try_for_each(|(count, scrapes)| {
            let servers = addresses(&responders, *count);
            let title = format!("a scrape with {count} servers");
            let name = (format!("{}-{count}", kind.name), title);
            let subjects = self.subjects_of_slow_rows();
            self.in_turns(&[&name], &subjects, |index, _| {
                Ok(vec![self.scraped(subjects[index], &servers, *scrapes)?])
            })
        });
        cpu::pin(&[self.core])?;
        outcome
    }

    fn scraped(&self, subject: Subject, servers: &[SocketAddr], scrapes: u32) -> io::Result<Turn> {
        let observe = free_address()?;
        let plain = Setup::plain(servers, self.sessions_max());
        let running = self.start(subject, &Setup { observe: Some(observe), ..plain })?;
        let bytes = scrape(observe)?;
        let (used, start) = (cpu_time(running.process())?, Instant::now());
        for _ in 0..scrapes {
            scrape(observe)?;
        }
        let took = start.elapsed().as_secs_f64();
        let used = cpu_time(running.process())? - used;
        let of_one = |seconds: f64| seconds * 1000.0 / f64::from(scrapes);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let size = bytes as f64;
        Ok(Turn::from([("scrape", of_one(used)), ("took", of_one(took)), ("bytes", size)]))
    }

    /// Starts a subject that is a process.
    pub(crate) fn start(&self, subject: Subject, setup: &Setup) -> io::Result<Running> {
        let running = self.installation.start(subject, setup)?;
        running.ok_or_else(|| io::Error::other("there is no balancer to measure"))
    }
}

/// Different loopback addresses that lead to the responders in turn.
pub(crate) fn addresses(responders: &Responders, count: usize) -> Vec<SocketAddr> {
    let ports = responders.addresses();
    let address = |index: usize| {
        let (high, low) = (u8::try_from(index / 250), u8::try_from(index % 250 + 1));
        let host = Ipv4Addr::new(127, 1, high.unwrap_or(u8::MAX), low.unwrap_or(u8::MAX));
        SocketAddr::from((host, ports[index % ports.len()].port()))
    };
    (0..count).map(address).collect()
}

/// An address for the metrics.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// The bytes of the answer to one scrape.
pub(crate) fn scrape(address: SocketAddr) -> io::Result<usize> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(ANSWER_MAX))?;
    connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    match answer.starts_with(b"HTTP/1.1 200") {
        true => Ok(answer.len()),
        false => Err(io::Error::other("a scrape was refused")),
    }
}

/// The bytes of the answer to one question for the state of all servers, at the control socket in
/// this folder: `evenkeel status`, or HAProxy's `show stat`.
pub(crate) fn status(subject: Subject, folder: &Path) -> io::Result<usize> {
    let (question, end): (&[u8], _) = match subject.is_a_haproxy() {
        true => (b"show stat\n", b"\n\n".as_slice()),
        false => (b"{\"do\":\"status\"}\n", b"\n".as_slice()),
    };
    let mut connection = UnixStream::connect(folder.join(CONTROL))?;
    connection.set_read_timeout(Some(ANSWER_MAX))?;
    connection.write_all(question)?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    match answer.ends_with(end) && !answer.starts_with(b"{\"error\"") {
        true => Ok(answer.len()),
        false => Err(io::Error::other("no answer on the control socket")),
    }
}
