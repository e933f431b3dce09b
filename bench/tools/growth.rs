//! What becomes dearer with numbers: of connections, servers and frontends, and what a thousand
//! servers cost while nothing happens.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::configuration::{self, Setup};
use crate::cpu::{self, cpu_time};
use crate::generator::{Arrivals, Generator};
use crate::idle;
use crate::report::{GrowthRow, Report, Spread};
use crate::rounds::{Bench, Comparison, Responders};
use crate::subject::{Running, Subject, pause};
use crate::work::{Load, connections, small};

/// Exchanges a second beside a reload: far below any limit, so that only the reload delays.
const RATE_BESIDE_RELOAD: f64 = 5000.0;

/// Of this work and title.
fn compared(
    (work, title): (String, String),
    load: Load,
    setup: Setup,
    responders: &Responders,
) -> Comparison<'_> {
    Comparison { work, title, load, idle: 0, setup, responders, target: None }
}

impl Bench {
    /// All of it.
    ///
    /// # Errors
    /// A subject does not start, or fails a connection.
    pub(crate) fn grow(&self, subjects: &[Subject], report: &mut Report) -> io::Result<()> {
        let with = [Subject::Direct, Subject::Evenkeel, Subject::Haproxy];
        let subjects: Vec<Subject> =
            subjects.iter().copied().filter(|subject| with.contains(subject)).collect();
        let most = idle::most(self.descriptors);
        let counts: &[usize] = if self.small { &[10, 50] } else { &[10, 100, 1000, 9000] };
        let servers = self.responders.addresses();
        let of_connections = counts.iter().map(|count| (*count).min(most)).map(|count| {
            let named =
                (format!("growth-connections-{count}"), format!("keep-alive, {count} connections"));
            compared(named, small(count), Setup::plain(&servers, count + 100), &self.responders)
        });
        let of_connections: Vec<_> = of_connections.collect();
        self.compare_apart("growth-connections", &of_connections, &subjects, report)?;
        let of_frontends = if self.small { [1, 5] } else { [1, 200] }.map(|count| {
            let title = format!("connections through one of {count} frontends");
            let setup = Setup { frontends: count, ..self.plain() };
            let named = (format!("growth-frontends-{count}"), title);
            compared(named, connections(64), setup, &self.responders)
        });
        self.compare_apart("growth-frontends", &of_frontends, &subjects, report)?;
        if !self.own_network {
            report
                .leave_out("growth with servers: needs a network namespace of its own".to_owned());
            return Ok(());
        }
        let responders = Responders::start_on(Ipv4Addr::UNSPECIFIED.into())?;
        let counts: &[usize] = if self.small { &[2, 20] } else { &[2, 100, 1000] };
        let of_servers = counts.iter().map(|count| {
            let named =
                (format!("growth-servers-{count}"), format!("connections to {count} servers"));
            let setup = Setup::plain(&many(&responders, *count), self.place.sessions_max);
            compared(named, connections(64), setup, &responders)
        });
        let of_servers: Vec<_> = of_servers.collect();
        self.compare_apart("growth-servers", &of_servers, &subjects, report)?;
        let most = counts.last().copied().unwrap_or(2);
        let servers = many(&responders, most);
        self.probe(&servers, &subjects, report)?;
        if subjects.contains(&Subject::Evenkeel) {
            self.reload_and_scrape(&servers, report)?;
        }
        Ok(())
    }

    /// CPU time of probing all servers every two seconds.
    fn probe(
        &self,
        servers: &[SocketAddr],
        subjects: &[Subject],
        report: &mut Report,
    ) -> io::Result<()> {
        let setup = Setup { probes: Some(2), ..Setup::plain(servers, self.place.sessions_max) };
        for subject in subjects {
            let running = self.start_all(&[*subject], &setup, report)?.pop();
            let Some((_, Some(running))) = running else { continue };
            let mut values = Vec::new();
            for _ in 0..self.rounds {
                let (before, start) = (cpu_time(running.process())?, Instant::now());
                // Whole intervals, so that each server is probed as often.
                pause(if self.small { self.window } else { Duration::from_secs(2) });
                let used = cpu_time(running.process())? - before;
                values.push(used.as_secs_f64() / start.elapsed().as_secs_f64() * 1000.0);
            }
            let what = format!("probing {} servers every 2 s", servers.len());
            push(report, what, *subject, "ms of CPU a second", values);
        }
        Ok(())
    }

    fn reload_and_scrape(&self, servers: &[SocketAddr], report: &mut Report) -> io::Result<()> {
        let observe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let setup =
            Setup { observe: Some(observe), ..Setup::plain(servers, self.place.sessions_max) };
        // On all cores: what a reload does to the data path is not what sharing a core does.
        cpu::pin(&self.cores)?;
        let running = self.start_all(&[Subject::Evenkeel], &setup, report)?.pop();
        let outcome = match &running {
            Some((_, Some(running))) => self.disturb(running, &setup, observe, report),
            _ => Ok(()),
        };
        cpu::pin(&[self.core])?;
        outcome?;
        let what = format!("a scrape with {} servers", servers.len());
        let mut times = Vec::new();
        for _ in 0..self.rounds * 3 {
            let start = Instant::now();
            scrape(observe)?;
            times.push(start.elapsed().as_secs_f64() * 1000.0);
        }
        push(report, what, Subject::Evenkeel, "ms", times);
        Ok(())
    }

    /// An open loop of small exchanges: alone, beside a reload that adds or removes a server of
    /// many, and beside a scrape.
    fn disturb(
        &self,
        running: &Running,
        setup: &Setup,
        observe: SocketAddr,
        report: &mut Report,
    ) -> io::Result<()> {
        let (mut alone, mut times, mut used) = (vec![], vec![], vec![]);
        let (mut beside_reload, mut beside_scrape) = (vec![], vec![]);
        let mut generator = Generator::open(&[running.address], &[small(16)])?;
        generator.pace(0, RATE_BESIDE_RELOAD, Arrivals::Even)?;
        generator.drive(self.window / 5)?;
        let time = self.window.max(Duration::from_millis(500));
        for round in 0..self.rounds {
            let ((), slowest) = slowest_beside(&mut generator, time, || Ok(()))?;
            alone.extend(slowest);

            let mut changed = setup.clone();
            changed.servers.truncate(setup.servers.len() - 1 + round % 2);
            let reload = || self.reload_once(running, &changed);
            let ((took, cost), slowest) = slowest_beside(&mut generator, time, reload)?;
            beside_reload.extend(slowest);
            times.push(took.as_secs_f64() * 1000.0);
            used.push(cost.as_secs_f64() * 1000.0);

            let ((), slowest) = slowest_beside(&mut generator, time, || scrape(observe))?;
            beside_scrape.extend(slowest);
        }
        let own = Subject::Evenkeel;
        let of = format!("a reload with {} servers", setup.servers.len());
        push(report, format!("{of}: until it is in force"), own, "ms", times);
        push(report, format!("{of}: CPU time, the relaying meanwhile included"), own, "ms", used);
        push(report, format!("{of}: slowest exchange beside it"), own, "ms", beside_reload);
        push(report, format!("{of}: slowest exchange without it"), own, "ms", alone);
        let of = format!("a scrape with {} servers", setup.servers.len());
        push(report, format!("{of}: slowest exchange beside it"), own, "ms", beside_scrape);
        Ok(())
    }

    fn reload_once(&self, running: &Running, setup: &Setup) -> io::Result<(Duration, Duration)> {
        let folder = std::path::absolute(&self.place.folder)?;
        let text = configuration::evenkeel(setup, &[running.address], &folder);
        fs::write(folder.join("evenkeel.conf"), text)?;
        let (before, start) = (cpu_time(running.process())?, Instant::now());
        let mut command = Command::new(&self.place.evenkeel);
        command.args(["reload", "--control"]).arg(folder.join("control.sock"));
        let output = command.stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(io::Error::other(format!("reload: {said}")));
        }
        Ok((start.elapsed(), cpu_time(running.process())? - before))
    }
}

/// Addresses of loopback, all different, that lead to the responders in turn.
fn many(responders: &Responders, count: usize) -> Vec<SocketAddr> {
    let ports = responders.addresses();
    let address = |index: usize| {
        let (high, low) = (u8::try_from(index / 250), u8::try_from(index % 250 + 1));
        let host = Ipv4Addr::new(127, 1, high.unwrap_or(u8::MAX), low.unwrap_or(u8::MAX));
        SocketAddr::from((host, ports[index % ports.len()].port()))
    };
    (0..count).map(address).collect()
}

/// What `disturbance` returns, and the slowest exchange of `generator` in this time, in ms.
fn slowest_beside<T: Send>(
    generator: &mut Generator,
    time: Duration,
    disturbance: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<(T, Option<f64>)> {
    generator.keep_latencies(0);
    let done = thread::scope(|scope| {
        let disturbing = scope.spawn(disturbance);
        generator.drive(time)?;
        disturbing.join().map_err(|_| io::Error::other("the disturbance panicked"))?
    })?;
    Ok((done, generator.latencies(0).map(|seen| seen.max / 1000.0)))
}

fn scrape(address: SocketAddr) -> io::Result<()> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    match answer.starts_with("HTTP/1.1 200") {
        true => Ok(()),
        false => Err(io::Error::other("a scrape was refused")),
    }
}

fn push(report: &mut Report, what: String, subject: Subject, unit: &'static str, values: Vec<f64>) {
    let rows =
        Spread::of(values).map(|value| GrowthRow { what, subject: subject.name(), unit, value });
    report.growth.extend(rows);
}
