//! What grows with the number of connections, servers and frontends: the cost of an exchange and of
//! a reload.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::configuration::{self, CONTROL, Setup};
use crate::control_plane::{addresses, free_address, scrape};
use crate::cpu::{self, cpu_time};
use crate::generator::Generator;
use crate::process::Running;
use crate::report::Turn;
use crate::rounds::{Bench, Comparison, Layout};
use crate::subject::{Installation, Subject};
use crate::work::{Kind, connections, small};

/// Exchanges a second beside a reload: far below any limit, so that only the reload delays them.
const RATE_BESIDE_RELOAD: f64 = 5000.0;

impl Bench {
    /// Adds a row of milliseconds.
    fn add(&self, work: &str, title: &str, subject: Subject, values: Vec<f64>) {
        let turns = values.into_iter().map(|value| Turn::from([("ms", value)]));
        self.report.borrow_mut().add((work, title), subject, &turns.collect::<Vec<Turn>>());
    }

    /// All of it.
    pub(crate) fn growth(&self, kind: &Kind, most: usize) -> io::Result<()> {
        let counts: &[usize] = if self.small { &[10, 50] } else { &[10, 100, 1000, 9000] };
        let of_connections: Vec<_> = counts
            .iter()
            .map(|count| (*count).min(most))
            .map(|count| {
                let title = format!("keep-alive, {count} connections");
                let setup = Setup { sessions_max: count + 100, ..self.layout().setup };
                let layout = Layout { setup, ..self.layout() };
                Comparison::throughput(
                    format!("growth-connections-{count}"),
                    title,
                    small(count),
                    layout,
                )
            })
            .collect();
        self.compare_apart(&of_connections)?;
        let of_frontends = if self.small { [1, 5] } else { [1, 200] }.map(|count| {
            let title = format!("connections through one of {count} frontends");
            let setup = Setup { frontends: count, ..self.layout().setup };
            let layout = Layout { setup, ..self.layout() };
            Comparison::throughput(
                format!("growth-frontends-{count}"),
                title,
                connections(64),
                layout,
            )
        });
        self.compare_apart(&of_frontends)?;
        let Some(responders) = self.responders_of_many(kind)? else { return Ok(()) };
        let counts: &[usize] = if self.small { &[2, 20] } else { &[2, 100, 1000] };
        let of_servers: Vec<_> = counts
            .iter()
            .map(|count| {
                let title = format!("connections to {count} servers");
                let setup = Setup::plain(&addresses(&responders, *count), self.sessions_max());
                let layout = Layout { setup, responders: &responders, cores: vec![self.core] };
                Comparison::throughput(
                    format!("growth-servers-{count}"),
                    title,
                    connections(64),
                    layout,
                )
            })
            .collect();
        self.compare_apart(&of_servers)?;
        let servers = addresses(&responders, counts.last().copied().unwrap_or(2));
        for subject in self.subjects.iter().filter(|subject| subject.is_evenkeel()) {
            self.reload_and_scrape(&servers, *subject)?;
        }
        Ok(())
    }

    fn reload_and_scrape(&self, servers: &[SocketAddr], subject: Subject) -> io::Result<()> {
        let observe = free_address()?;
        let plain = Setup::plain(servers, self.sessions_max());
        let setup = Setup { observe: Some(observe), ..plain };
        // On all cores: the effect of a reload is not that of sharing a core.
        cpu::pin(&self.cores)?;
        let running = self.start_all(&[subject], &setup)?.pop();
        let Some((_, Some(running))) = &running else { return cpu::pin(&[self.core]) };
        let outcome = self.disturb(running, &setup, observe, subject);
        cpu::pin(&[self.core])?;
        outcome
    }

    /// An open loop of small exchanges: alone, beside a reload that adds or removes a server, and
    /// beside a scrape.
    fn disturb(
        &self,
        running: &Running,
        setup: &Setup,
        observe: SocketAddr,
        subject: Subject,
    ) -> io::Result<()> {
        let mut generator = Generator::open(&[running.address], &[small(16)])?;
        generator.pace(0, RATE_BESIDE_RELOAD, None);
        generator.drive(self.window / 5)?;
        let time = self.window.max(Duration::from_millis(500));
        let (mut alone, mut beside_reload, mut beside_scrape) = (vec![], vec![], vec![]);
        let (mut times, mut used) = (vec![], vec![]);
        for round in 0..self.rounds {
            alone.push(slowest_beside(&mut generator, time, || Ok(()))?.1);
            let mut changed = setup.clone();
            changed.servers.truncate(setup.servers.len() - 1 + round % 2);
            let installation = &self.installation;
            let reload = || reload(installation, running, &changed, subject);
            let ((took, cpu), slowest) = slowest_beside(&mut generator, time, reload)?;
            beside_reload.push(slowest);
            times.push(took * 1000.0);
            used.push(cpu * 1000.0);
            beside_scrape.push(slowest_beside(&mut generator, time, || scrape(observe))?.1);
        }
        let count = setup.servers.len();
        for (work, title, values) in [
            ("growth-reload", "a reload with {}: until it is in force", times),
            ("growth-reload-cpu", "a reload with {}: CPU time, with the relay's", used),
            (
                "growth-reload-slowest",
                "a reload with {}: slowest exchange beside it",
                beside_reload,
            ),
            ("growth-slowest", "no reload with {}: slowest exchange", alone),
            (
                "growth-scrape-slowest",
                "a scrape with {}: slowest exchange beside it",
                beside_scrape,
            ),
        ] {
            self.add(work, &title.replace("{}", &format!("{count} servers")), subject, values);
        }
        Ok(())
    }
}

/// Seconds until a changed configuration is in force, and of CPU time.
fn reload(
    installation: &Installation,
    running: &Running,
    setup: &Setup,
    subject: Subject,
) -> io::Result<(f64, f64)> {
    let folder = std::path::absolute(&installation.folder)?;
    let text = configuration::evenkeel(setup, &[running.address], &folder, "");
    fs::write(folder.join(format!("{}.conf", subject.name)), text)?;
    let (before, start) = (cpu_time(running.process())?, Instant::now());
    let mut command = Command::new(installation.evenkeel_of(subject));
    command.args(["reload", "--control"]).arg(folder.join(CONTROL));
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(io::Error::other(format!("reload: {message}")));
    }
    Ok((start.elapsed().as_secs_f64(), cpu_time(running.process())? - before))
}

/// The result of `disturbance`, and the slowest exchange during this time in milliseconds.
fn slowest_beside<T: Send>(
    generator: &mut Generator,
    time: Duration,
    disturbance: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<(T, f64)> {
    generator.record_latencies(0)?;
    let outcome = thread::scope(|scope| {
        let thread = scope.spawn(disturbance);
        generator.drive(time)?;
        thread.join().map_err(|_| io::Error::other("the disturbance panicked"))?
    })?;
    Ok((outcome, generator.latencies(0)?["max"] / 1000.0))
}
