//! Idle sessions: connections through a balancer that did one exchange and stay. What memory they
//! hold on to, in the balancer and in the kernel.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::complain;
use crate::configuration::Setup;
use crate::exchange::{Exchange, verified};
use crate::report::{IdleRow, Report, Spread, Target};
use crate::rounds::{Bench, addresses};
use crate::subject::{Subject, pause};
use crate::work::Kind;

/// Connections that stay. When they go they are reset: nothing is left in `TIME_WAIT`.
#[derive(Debug, Default)]
pub(crate) struct Idlers {
    connections: Vec<TcpStream>,
}

impl Idlers {
    /// Opens more, until there are `count`; each does one exchange.
    ///
    /// # Errors
    /// A connection fails.
    pub(crate) fn open(&mut self, count: usize, address: SocketAddr) -> io::Result<()> {
        let exchange = Exchange { up: 116, down: 128, last: false };
        while self.connections.len() < count {
            let (connection, _) = verified(address, exchange).map_err(|error| {
                io::Error::other(format!("idle session {}: {error}", self.connections.len() + 1))
            })?;
            SockRef::from(&connection).set_linger(Some(Duration::ZERO))?;
            self.connections.push(connection);
        }
        Ok(())
    }
}

/// What was seen of one subject.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Bytes of user memory before the first session.
    at_start: f64,
    /// Bytes of user memory a session: the slope between the two counts.
    user: f64,
    /// User memory over that at the start, a session, with the larger count.
    with_most: f64,
    /// Bytes of kernel memory a session, of the whole machine: also the generator's and the
    /// responders' sockets. A slope as well.
    kernel: f64,
}

/// The most sessions that a balancer has room for, with two descriptors each.
pub(crate) fn most(descriptors: usize) -> usize {
    (descriptors.saturating_sub(400) / 2).min(20_000)
}

/// The two counts of sessions.
///
/// # Errors
/// Too few fit for a slope.
pub(crate) fn counts(most: usize) -> io::Result<[usize; 2]> {
    if most < 400 {
        return Err(io::Error::other("idle: raise the limit of open files: ulimit -n 20000"));
    }
    Ok([(most / 4).min(1000), most])
}

impl Bench {
    /// Memory of idle sessions of all subjects that keep some.
    ///
    /// # Errors
    /// A subject does not start, or fails a connection.
    pub(crate) fn weigh(
        &self,
        kind: &Kind,
        subjects: &[Subject],
        most: usize,
        report: &mut Report,
    ) -> io::Result<()> {
        let counts = counts(most)?;
        let mut direct = None;
        for subject in subjects {
            // The others of HAProxy differ in what is allocated only while bytes move.
            if matches!(
                subject,
                Subject::Haproxy64k
                    | Subject::HaproxySplice
                    | Subject::HaproxySplice512k
                    | Subject::HaproxyNull
            ) {
                continue;
            }
            complain(&format!("{}: {}", kind.name, subject.name()));
            let mut seen = Vec::new();
            for _ in 0..self.rounds.min(3) {
                seen.extend(self.weigh_once(*subject, counts, report)?);
            }
            let over = |figure: fn(&Seen) -> f64| Spread::of(seen.iter().map(figure).collect());
            let kernel = over(|seen| seen.kernel);
            if *subject == Subject::Direct {
                direct = kernel.map(|kernel| kernel.median);
                continue;
            }
            let (Some(at_start), Some(session), Some(with_most)) =
                (over(|seen| seen.at_start), over(|seen| seen.user), over(|seen| seen.with_most))
            else {
                continue; // it was left out, and the report says why
            };
            let kernel = kernel.zip(direct).map(|(kernel, direct)| kernel.median - direct);
            let (name, sessions) = (subject.name(), counts);
            report.idle.push(IdleRow {
                subject: name,
                sessions,
                at_start,
                session,
                with_most,
                kernel,
            });
            if let Some(demanded) = kind.target.filter(|_| *subject == Subject::Evenkeel) {
                let reached = session.median;
                report.targets.push(Target::at_most("idle", "bytes a session", reached, demanded));
            }
        }
        Ok(())
    }

    fn weigh_once(
        &self,
        subject: Subject,
        counts: [usize; 2],
        report: &mut Report,
    ) -> io::Result<Option<Seen>> {
        let [few, many] = counts;
        let servers = self.responders.addresses();
        let setup = Setup::plain(&servers, many + 100);
        let running = self.start_all(&[subject], &setup, report)?.pop();
        let Some((_, running)) = running else { return Ok(None) };
        let address = addresses(&servers, running.as_ref())[0];
        let process = running.as_ref().map(|running| running.process());
        let mut idlers = Idlers::default();
        let mut reach = |count| {
            idlers.open(count, address)?;
            settled(process)
        };
        let outcome = reach(0).and_then(|zero| Ok([zero, reach(few)?, reach(many)?]));
        match outcome {
            Ok([zero, with_few, with_many]) => {
                #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
                let (span, many) = ((many - few) as f64, many as f64);
                Ok(Some(Seen {
                    at_start: zero.0,
                    user: (with_many.0 - with_few.0) / span,
                    with_most: (with_many.0 - zero.0) / many,
                    kernel: (with_many.1 - with_few.1) / span,
                }))
            }
            Err(error) => report.forgive("idle", subject, &error).map(|()| None),
        }
    }
}

/// User memory and kernel memory once the former stands still (three readings the same, 100 ms
/// apart), or after 5 s.
fn settled(process: Option<u32>) -> io::Result<(f64, f64)> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut last = (-1.0, 0);
    loop {
        let now = process.map_or(Ok(0.0), user_memory)?;
        #[expect(clippy::float_cmp, reason = "whole numbers of KiB")]
        let same = now == last.0;
        last = if same { (now, last.1 + 1) } else { (now, 1) };
        if last.1 == 3 || Instant::now() > deadline {
            return Ok((now, kernel_memory()?));
        }
        pause(Duration::from_millis(100));
    }
}

/// Proportional set size of a process in bytes: resident memory, where shared pages count by their
/// share.
fn user_memory(process: u32) -> io::Result<f64> {
    let path = format!("/proc/{process}/smaps_rollup");
    let text = fs::read_to_string(&path)?;
    let kibibytes = field(&text, "Pss:");
    kibibytes.map(|kib| kib * 1024.0).ok_or_else(|| io::Error::other(format!("{path}: no Pss")))
}

/// Kernel memory of the machine that sockets live in, in bytes: slabs, and pages of TCP.
fn kernel_memory() -> io::Result<f64> {
    let slab = field(&fs::read_to_string("/proc/meminfo")?, "Slab:").unwrap_or(0.0);
    let sockets = fs::read_to_string("/proc/net/sockstat")?;
    let tcp = sockets.lines().find(|line| line.starts_with("TCP:"));
    let pages = tcp.and_then(|line| line.split("mem ").nth(1)?.trim().parse::<f64>().ok());
    Ok(slab * 1024.0 + pages.unwrap_or(0.0) * 4096.0)
}

fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}
