//! What a client notices of others: its latencies alone, and beside a disturbance, in one turn.
//!
//! The balancer has a core of its own. Clients, servers and disturbances share another one.

use std::io;
use std::time::{Duration, Instant};

use crate::configuration::Setup;
use crate::control_plane::{addresses, free_address};
use crate::cpu::{self, cpu_time};
use crate::disturbance::{Aim, Disturbance};
use crate::generator::Generator;
use crate::idle::sessions_max;
use crate::process::{Host, Running, pause};
use crate::report::Turn;
use crate::rounds::{Bench, Layout, Name};
use crate::subject::{DIRECT, Subject};
use crate::work::{Kind, Load, connections, small};

/// Silent connections, if the limit of open files has room for them.
const SILENT: usize = 10_000;
const RESETS_A_SECOND: u32 = 2000;
const SLOW_READERS: usize = 1000;
/// Servers of the rows about scrapes and probes.
const SERVERS: usize = 1000;
const PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// For buffers to fill.
const SETTLED_MAX: Duration = Duration::from_secs(10);
/// The share of a core that the servers and the balancer have, once they are full.
const SETTLED_SHARE: f64 = 0.3;

/// The clients that are measured: open loops far below any limit.
const CLIENTS: [(&str, &str, Load, f64); 2] = [
    ("keepalive", "2,000 keep-alive exchanges a second", small(16), 2000.0),
    ("connection", "500 connections a second", connections(16), 500.0),
];

/// Figures of a client alone and beside a disturbance, by their names in a turn of latencies.
const FIGURES: [(&str, &str, &str); 2] =
    [("windowed_p50", "quiet_p50", "beside_p50"), ("windowed_p99", "quiet_p99", "beside_p99")];

impl Bench {
    /// Each disturbance, with both kinds of clients.
    pub(crate) fn neighbours(&self, kind: &Kind) -> io::Result<()> {
        let [.., other, own] = self.cores[..] else {
            self.leave_out(format!("{}: this machine has one core", kind.name));
            return Ok(());
        };
        cpu::pin(&[other])?;
        let outcome = self.all_disturbances(kind, [other, own]);
        cpu::pin(&[self.core])?;
        outcome
    }

    fn all_disturbances(&self, kind: &Kind, cores: [usize; 2]) -> io::Result<()> {
        let Some(responders) = self.responders_of_many(kind)? else { return Ok(()) };
        let part = |count: usize| if self.small { count / 50 } else { count };
        let silent = part(SILENT).min(sessions_max(self.descriptors)? - 100);
        if silent < part(SILENT) {
            self.leave_out(format!(
                "{}: {} of {SILENT} silent connections: each takes two descriptors, and the limit \
                 is {}",
                kind.name,
                part(SILENT) - silent,
                self.descriptors
            ));
        }
        let servers = part(SERVERS);
        let probes = part(SERVERS) as f64 / PROBE_INTERVAL.as_secs_f64();
        for (disturbance, name, what) in [
            (Disturbance::Nothing, "nothing", "nothing".to_owned()),
            (Disturbance::Silent(silent), "silent", format!("{silent} silent connections")),
            (
                Disturbance::Resets(RESETS_A_SECOND),
                "resets",
                format!("{RESETS_A_SECOND} connects a second that are reset at once"),
            ),
            (
                Disturbance::SlowReaders(part(SLOW_READERS)),
                "slow-readers",
                format!("{} slow readers", part(SLOW_READERS)),
            ),
            (
                Disturbance::Scrapes,
                "scrapes",
                format!("scrapes and status without a pause, {servers} servers"),
            ),
            (Disturbance::Probes(PROBE_INTERVAL), "probes", format!("{probes:.0} probes a second")),
        ] {
            let many = matches!(disturbance, Disturbance::Scrapes | Disturbance::Probes(_));
            let servers = addresses(&responders, if many { servers } else { 2 });
            let sessions = match disturbance {
                Disturbance::Silent(count) => count + 200,
                _ => self.sessions_max(),
            };
            let plain = Setup::plain(&servers, sessions);
            let host = Host { core: Some(cores[1]), namespace: None };
            let layout = Layout {
                setup: Setup { host, ..plain },
                responders: &responders,
                cores: cores.to_vec(),
            };
            let names = CLIENTS.map(|(client, title, ..)| {
                let work = format!("{}-{name}-{client}", kind.name);
                (work, format!("{title}, beside {what}"))
            });
            self.one_disturbance(disturbance, &names, &layout)?;
        }
        Ok(())
    }

    fn one_disturbance(
        &self,
        disturbance: Disturbance,
        names: &[Name; 2],
        layout: &Layout<'_>,
    ) -> io::Result<()> {
        // Without a balancer nobody probes, and nobody is scraped.
        let of_balancer = matches!(disturbance, Disturbance::Scrapes | Disturbance::Probes(_));
        let mut subjects = self.subjects_of_slow_rows();
        subjects.retain(|it| !of_balancer || it.name != DIRECT);
        self.in_turns(&[&names[0], &names[1]], &subjects, |index, round| {
            self.alone_and_beside(subjects[index], disturbance, layout, round)
        })
    }

    /// Both kinds of clients alone, and beside the disturbance.
    fn alone_and_beside(
        &self,
        subject: Subject,
        disturbance: Disturbance,
        layout: &Layout<'_>,
        round: u64,
    ) -> io::Result<Vec<Turn>> {
        let metrics = free_address()?;
        let observe = (disturbance == Disturbance::Scrapes).then_some(metrics);
        let setup = Setup { observe, ..layout.setup.clone() };
        let mut running = self.installation.start(subject, &setup)?;
        let alone = self.clients(layout, running.as_ref(), round)?;
        if let Disturbance::Probes(interval) = disturbance {
            drop(running);
            running =
                self.installation.start(subject, &Setup { probes: Some(interval), ..setup })?;
        }
        let address = layout.addresses(running.as_ref())[0];
        let folder = std::path::absolute(&self.installation.folder)?;
        let active = disturbance.begin(Aim { subject, address, metrics, folder })?;
        match disturbance {
            Disturbance::SlowReaders(_) => self.settle(layout, running.as_ref())?,
            _ => pause(self.window / 2),
        }
        let used = || running.as_ref().map(|it| cpu_time(it.process())).transpose();
        let (before, start) = (used()?, Instant::now());
        let beside = self.clients(layout, running.as_ref(), round)?;
        let took = start.elapsed().as_secs_f64();
        let busy = used()?.zip(before).map(|(after, before)| (after - before) / took);
        let events = active.end()?;
        let turns = alone.iter().zip(&beside).map(|(alone, beside)| {
            let mut turn = grown(alone, beside);
            turn.extend(busy.map(|busy| ("busy", busy)));
            turn.extend(events.map(|events| ("events", events)));
            turn
        });
        Ok(turns.collect())
    }

    /// Waits until the buffers of slow readers are full: from then on little is transferred.
    fn settle(&self, layout: &Layout<'_>, running: Option<&Running>) -> io::Result<()> {
        let mut processes = layout.responders.processes();
        processes.extend(running.map(Running::process));
        let used = || processes.iter().map(|process| cpu_time(*process)).sum::<io::Result<f64>>();
        let deadline = Instant::now() + SETTLED_MAX;
        loop {
            let (before, start) = (used()?, Instant::now());
            pause(self.window / 2);
            let share = (used()? - before) / start.elapsed().as_secs_f64();
            if share < SETTLED_SHARE || Instant::now() > deadline {
                return Ok(());
            }
        }
    }

    /// The latencies of both kinds of clients, one after the other.
    fn clients(
        &self,
        layout: &Layout<'_>,
        running: Option<&Running>,
        round: u64,
    ) -> io::Result<Vec<Turn>> {
        let latencies = |(_, _, load, rate): (&str, &str, Load, f64)| {
            let mut generator = Generator::open(&layout.addresses(running), &[load])?;
            generator.pace(0, rate, Some(round));
            generator.drive(self.window / 5)?;
            generator.record_latencies(0)?;
            generator.drive(self.window)?;
            generator.latencies(0)
        };
        CLIENTS.into_iter().map(latencies).collect()
    }
}

/// What is in the table of two turns of latencies.
fn grown(alone: &Turn, beside: &Turn) -> Turn {
    let growth = |figure| beside[figure] / alone[figure];
    let mut turn = Turn::from([("growth", growth("windowed_p99")), ("turn_growth", growth("p99"))]);
    for (figure, before, after) in FIGURES {
        turn.extend([(before, alone[figure]), (after, beside[figure])]);
    }
    turn
}
