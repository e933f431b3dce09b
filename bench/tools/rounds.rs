//! Rounds: every subject has a turn in each, so that a disturbance of the machine meets them all.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::configuration::Setup;
use crate::cpu::{Snapshot, cpu_time, segments_sent};
use crate::exchange::open_idle;
use crate::generator::Generator;
use crate::output::log;
use crate::process::{Host, Running};
use crate::report::{Report, Turn, add_ratios};
use crate::subject::{Installation, Subject};
use crate::work::Load;

/// For every connection to finish its warm-up. Thousands of idle sessions that come at once
/// overflow a backlog, and TCP repeats what was dropped there after 1, 3 and 7 s.
const WARM_UP_MAX: Duration = Duration::from_secs(30);

/// What all kinds of work share.
pub(crate) struct Bench {
    pub(crate) installation: Installation,
    /// All cores that this process may use.
    pub(crate) cores: Vec<usize>,
    /// The core of everything that runs on one.
    pub(crate) core: usize,
    pub(crate) rounds: usize,
    /// The part of a turn that counts.
    pub(crate) window: Duration,
    /// Small counts, for the test of the bench.
    pub(crate) small: bool,
    /// Fewer counts, for a short run.
    pub(crate) quick: bool,
    /// Whether this process has a network namespace of its own.
    pub(crate) own_network: bool,
    /// File descriptors that a process may have.
    pub(crate) descriptors: usize,
    pub(crate) responders: Responders,
    /// Those that the current kind of work measures.
    pub(crate) subjects: Vec<Subject>,
    pub(crate) report: RefCell<Report>,
}

/// Two servers.
pub(crate) struct Responders([Running; 2]);

impl Responders {
    /// Starts one on each host.
    pub(crate) fn start(bind: IpAddr, [first, second]: [Host; 2]) -> io::Result<Self> {
        let first = Running::responder(1, bind, first)?;
        Ok(Self([first, Running::responder(2, bind, second)?]))
    }

    /// Starts both on loopback, where this thread is pinned.
    pub(crate) fn start_here() -> io::Result<Self> {
        Self::start(Ipv4Addr::LOCALHOST.into(), [Host::default(); 2])
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().map(|responder| responder.address).collect()
    }

    /// Their process ids.
    pub(crate) fn processes(&self) -> Vec<u32> {
        self.0.iter().map(Running::process).collect()
    }
}

/// Where a comparison runs.
pub(crate) struct Layout<'a> {
    pub(crate) setup: Setup,
    pub(crate) responders: &'a Responders,
    /// The cores of all processes.
    pub(crate) cores: Vec<usize>,
}

impl Layout<'_> {
    /// Where the generator connects to: the subject, or the servers themselves.
    pub(crate) fn addresses(&self, subject: Option<&Running>) -> Vec<SocketAddr> {
        subject.map_or_else(|| self.setup.servers.clone(), |subject| vec![subject.address])
    }
}

/// The name of a kind of work, and its title in the tables.
pub(crate) type Name = (String, String);

/// What is compared, and where.
pub(crate) struct Comparison<'a> {
    pub(crate) name: Name,
    /// What is measured.
    pub(crate) load: Load,
    pub(crate) beside: Beside,
    /// Makes the measured load an open loop of so many exchanges a second.
    pub(crate) rate: Option<f64>,
    pub(crate) layout: Layout<'a>,
}

impl<'a> Comparison<'a> {
    /// The throughput of a closed loop.
    pub(crate) fn throughput(work: String, title: String, load: Load, layout: Layout<'a>) -> Self {
        Self { name: (work, title), load, beside: Beside::Nothing, rate: None, layout }
    }
}

/// What else goes through the subject at the same time.
#[derive(Clone, Copy)]
pub(crate) enum Beside {
    Nothing,
    /// Sessions.
    Idle(usize),
    /// Exchanges at a rate; without one in a closed loop.
    Bulk(Load, Option<f64>),
}

impl Bench {
    /// One worker, everything on one core and on loopback.
    pub(crate) fn layout(&self) -> Layout<'_> {
        Layout {
            setup: Setup::plain(&self.responders.addresses(), self.sessions_max()),
            responders: &self.responders,
            cores: vec![self.core],
        }
    }

    /// Sessions that a subject must have room for: each takes two descriptors, and half a one for
    /// the pipes of HAProxy's splice.
    pub(crate) fn sessions_max(&self) -> usize {
        (self.descriptors.saturating_sub(200) / 3).min(5000)
    }

    /// Records that something is not measured, and logs it.
    pub(crate) fn leave_out(&self, why: String) {
        let left_out = &mut self.report.borrow_mut().run.left_out;
        if !left_out.contains(&why) {
            log(&format!("left out: {why}"));
            left_out.push(why);
        }
    }

    /// Leaves out a subject that failed; returns the error if it may not.
    pub(crate) fn leave_out_failed(
        &self,
        work: &str,
        subject: Subject,
        error: &io::Error,
    ) -> io::Result<()> {
        let why = format!("{work}, {}: {error}", subject.name);
        if !subject.may_fail() {
            return Err(io::Error::other(why));
        }
        self.leave_out(why);
        Ok(())
    }

    /// The subjects of rows that take long to set up: all, or two for a test of the benchmark.
    pub(crate) fn subjects_of_slow_rows(&self) -> Vec<Subject> {
        let is_one = |it: &&Subject| !self.small || ["evenkeel", "haproxy"].contains(&it.name);
        self.subjects.iter().filter(is_one).copied().collect()
    }

    /// Starts all subjects and compares them.
    pub(crate) fn compare(&self, comparison: &Comparison<'_>) -> io::Result<()> {
        let running = self.start_all(&self.subjects, &comparison.layout.setup)?;
        self.compare_running(comparison, &running)
    }

    /// Compares subjects that are running.
    pub(crate) fn compare_running(
        &self,
        comparison: &Comparison<'_>,
        running: &[(Subject, Option<Running>)],
    ) -> io::Result<()> {
        let subjects: Vec<Subject> = running.iter().map(|(subject, _)| *subject).collect();
        self.in_turns(&[&comparison.name], &subjects, |index, round| {
            Ok(vec![self.turn(comparison, running[index].1.as_ref(), round)?])
        })
    }

    /// Makes several comparisons, which are compared with each other as well: in each round a
    /// subject has a turn of every one. It is started for each turn, as thousands of sessions take
    /// a while to close.
    pub(crate) fn compare_apart(&self, comparisons: &[Comparison<'_>]) -> io::Result<()> {
        let names: Vec<&Name> = comparisons.iter().map(|comparison| &comparison.name).collect();
        self.in_turns(&names, &self.subjects, |index, round| {
            let turn = |comparison: &Comparison<'_>| {
                let running =
                    self.installation.start(self.subjects[index], &comparison.layout.setup)?;
                self.turn(comparison, running.as_ref(), round)
            };
            comparisons.iter().map(turn).collect()
        })
    }

    /// Starts all subjects except for those that fail and may.
    pub(crate) fn start_all(
        &self,
        subjects: &[Subject],
        setup: &Setup,
    ) -> io::Result<Vec<(Subject, Option<Running>)>> {
        let mut running = Vec::new();
        for subject in subjects {
            match self.installation.start(*subject, setup) {
                Ok(started) => running.push((*subject, started)),
                Err(error) => self.leave_out_failed("start", *subject, &error)?,
            }
        }
        Ok(running)
    }

    /// Calls `turn` for each subject, by index and round, round by round; each round begins with
    /// another subject. A turn returns the figures of each name, or of the first ones.
    pub(crate) fn in_turns(
        &self,
        names: &[&Name],
        subjects: &[Subject],
        mut turn: impl FnMut(usize, u64) -> io::Result<Vec<Turn>>,
    ) -> io::Result<()> {
        let work = names.first().map_or("", |(work, _)| work);
        let mut rounds: Vec<Option<Vec<Vec<Turn>>>> = vec![Some(Vec::new()); subjects.len()];
        for (round, number) in (0..self.rounds).zip(0..) {
            log(&format!("{work}: round {} of {}", round + 1, self.rounds));
            for step in 0..subjects.len() {
                let index = (round + step) % subjects.len();
                let Some(turns) = &mut rounds[index] else { continue };
                let outcome = turn(index, number).or_else(|error| {
                    log(&format!("{work}, {}: {error}; trying again", subjects[index].name));
                    turn(index, number)
                });
                match outcome {
                    Ok(figures) => turns.push(figures),
                    Err(error) => {
                        self.leave_out_failed(work, subjects[index], &error)?;
                        rounds[index] = None;
                    }
                }
            }
        }
        for (place, (work, title)) in names.iter().enumerate() {
            let of_it = |rounds: &Option<Vec<Vec<Turn>>>| -> Vec<Turn> {
                rounds.iter().flatten().filter_map(|turns| turns.get(place)).cloned().collect()
            };
            let mut turns: Vec<(Subject, Vec<Turn>)> =
                subjects.iter().copied().zip(rounds.iter().map(of_it)).collect();
            add_ratios(&mut turns);
            let mut report = self.report.borrow_mut();
            turns.iter().for_each(|(subject, turns)| report.add((work, title), *subject, turns));
        }
        Ok(())
    }

    /// One turn of a subject; of the servers themselves if there is none.
    pub(crate) fn turn(
        &self,
        comparison: &Comparison<'_>,
        subject: Option<&Running>,
        round: u64,
    ) -> io::Result<Turn> {
        let Comparison { load, beside, rate, layout, .. } = comparison;
        let addresses = layout.addresses(subject);
        let (mut loads, mut idle) = (vec![*load], Vec::new());
        match *beside {
            Beside::Nothing => {}
            Beside::Idle(count) => open_idle(&mut idle, count, addresses[0])?,
            Beside::Bulk(bulk, _) => loads.push(bulk),
        }
        let mut generator = Generator::open(&addresses, &loads)?;
        if let Beside::Bulk(_, Some(rate)) = *beside {
            generator.pace(1, rate, None);
        }
        if let Some(rate) = *rate {
            generator.pace(0, rate, Some(round));
        }
        // TCP windows grow, caches and buffers fill: that is not part of the figure.
        let (start, latencies) = (Instant::now(), loads.len() > 1 || rate.is_some());
        generator.drive(self.window / 5)?;
        while !latencies && generator.exchanges(0) < load.warm_up() {
            if start.elapsed() > WARM_UP_MAX {
                return Err(io::Error::other("some connections had no answer"));
            }
            generator.drive(self.window / 5)?;
        }
        if latencies {
            generator.record_latencies(0)?;
        }
        let (mut rates, mut seen) = (Vec::new(), Turn::new());
        let mut turn = measure(layout, subject, || {
            let before = generator.exchanges(0);
            rates = generator.rates(self.window)?;
            let exchanges = generator.exchanges(0) - before;
            if latencies {
                seen = generator.latencies(0)?;
            }
            Ok(exchanges)
        })?;
        if latencies {
            // The generator keeps to the clock, whatever CPU time it gets.
            seen.insert("rate", rates[0]);
        }
        turn.append(&mut seen);
        turn.extend(rates.get(1).map(|bulk| ("bulk", *bulk)));
        Ok(turn)
    }
}

/// The figures of `work`, which returns its exchanges.
pub(crate) fn measure(
    layout: &Layout<'_>,
    subject: Option<&Running>,
    work: impl FnOnce() -> io::Result<f64>,
) -> io::Result<Turn> {
    let mut processes = layout.responders.processes();
    processes.extend(subject.into_iter().flat_map(Running::processes));
    let cpu = || subject.into_iter().flat_map(Running::processes).map(cpu_time).sum();
    let (sent, before): (f64, io::Result<f64>) = (segments_sent()?, cpu());
    let snapshot = Snapshot::take(&layout.cores, &processes)?;
    let exchanges = work()?;
    let usage = Snapshot::take(&layout.cores, &processes)?.since(&snapshot);
    let (used, sent) = (cpu()? - before?, segments_sent()? - sent);
    if exchanges <= 0.0 {
        return Err(io::Error::other("no byte was transferred"));
    }
    let mut turn = Turn::from([
        ("rate", exchanges / usage.ours_and_idle),
        ("others", usage.others),
        ("elsewhere", usage.elsewhere),
        ("unused", usage.idle),
    ]);
    turn.extend(subject.map(|_| ("cpu", used * 1e6 / exchanges)));
    // Those that other network namespaces send are not known.
    let here = layout.setup.host.namespace.is_none();
    turn.extend(here.then_some(("segments", sent / exchanges)));
    Ok(turn)
}
