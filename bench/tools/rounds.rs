//! The rounds: every subject in each, one after the other, so that what the machine does to one
//! it does to all.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::complain;
use crate::configuration::Setup;
use crate::cpu::Snapshot;
use crate::generator::Generator;
use crate::idle::Idlers;
use crate::report::{Report, Turn, Turns};
use crate::segments;
use crate::subject::{Place, Running, Subject, start, start_responder};
use crate::work::Load;

/// For every connection to be warm. Thousands of idle sessions that come at once overflow a
/// backlog, and what was dropped there comes again after 1, 3, 7 s.
const WARM_UP_MAX: Duration = Duration::from_secs(30);

/// A disturbance of the machine lasts a second or so. In turns of a fourth of that it comes upon
/// all subjects, and upon few rounds.
const PARTS: u32 = 4;

/// What a turn shorter than this shows is its beginning.
const PART_MIN: f64 = 0.1;

/// Into how many a turn of so many seconds is parted, each in a round of its own.
pub(crate) fn parts(seconds: f64) -> u32 {
    if seconds / f64::from(PARTS) < PART_MIN { 1 } else { PARTS }
}

/// What all kinds of work share.
pub(crate) struct Bench {
    pub(crate) place: Place,
    /// All that this process may use.
    pub(crate) cores: Vec<usize>,
    /// The core of everything that runs on one.
    pub(crate) core: usize,
    pub(crate) rounds: usize,
    pub(crate) window: Duration,
    /// Counts of the test that keeps this from rotting, not for figures.
    pub(crate) small: bool,
    /// Whether this is a network of our own.
    pub(crate) own_network: bool,
    /// File descriptors that a process may have.
    pub(crate) descriptors: usize,
    pub(crate) responders: Responders,
}

/// Two servers.
pub(crate) struct Responders {
    running: [Running; 2],
}

impl Responders {
    /// Starts them; they run where this thread is pinned to.
    ///
    /// # Errors
    /// They do not start.
    pub(crate) fn start() -> io::Result<Self> {
        Self::start_on(Ipv4Addr::LOCALHOST.into())
    }

    /// As `start`, on this address.
    ///
    /// # Errors
    /// They do not start.
    pub(crate) fn start_on(address: IpAddr) -> io::Result<Self> {
        Self::start_in(address, None)
    }

    /// As `start_on`, in the network namespace of this process.
    ///
    /// # Errors
    /// They do not start.
    pub(crate) fn start_in(address: IpAddr, enter: Option<u32>) -> io::Result<Self> {
        let start = |number| start_responder(number, address, enter);
        Ok(Self { running: [start(1)?, start(2)?] })
    }

    /// Where they listen.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.running.iter().map(|responder| responder.address).collect()
    }

    /// Their process numbers.
    pub(crate) fn processes(&self) -> Vec<u32> {
        self.running.iter().map(Running::process).collect()
    }
}

/// What is compared in rounds.
pub(crate) struct Comparison<'a> {
    /// In the JSON file.
    pub(crate) work: String,
    /// In the table.
    pub(crate) title: String,
    pub(crate) load: Load,
    /// Idle sessions through the same subject.
    pub(crate) idle: usize,
    pub(crate) setup: Setup,
    pub(crate) responders: &'a Responders,
    /// As in `Kind`.
    pub(crate) target: Option<f64>,
}

impl Bench {
    /// One worker before the responders.
    pub(crate) fn plain(&self) -> Setup {
        Setup::plain(&self.responders.addresses(), self.place.sessions_max)
    }

    /// Throughput of all subjects, in rounds that each begin with another of them.
    ///
    /// # Errors
    /// A subject does not start, or fails a connection.
    pub(crate) fn compare(
        &self,
        comparison: &Comparison<'_>,
        subjects: &[Subject],
        report: &mut Report,
    ) -> io::Result<()> {
        let running = self.start_all(subjects, &comparison.setup, report)?;
        let subjects: Vec<Subject> = running.iter().map(|(subject, _)| *subject).collect();
        self.add_turns(comparison, &subjects, report, |index| {
            self.turn(comparison, running[index].1.as_ref())
        })
    }

    /// As `compare`, of several that are also compared with each other: in each round a subject has
    /// a turn of every one. Two cannot be there at the same time: each is started for its turn.
    ///
    /// # Errors
    /// As `compare`.
    pub(crate) fn compare_apart(
        &self,
        kind: &str,
        comparisons: &[Comparison<'_>],
        subjects: &[Subject],
        report: &mut Report,
    ) -> io::Result<()> {
        let there = report.present(subjects);
        let (subjects, rounds) = self.in_turns(kind, &there, report, |index, _| {
            let turn = |comparison: &Comparison<'_>| {
                let running = start(there[index], &self.place, &comparison.setup)?;
                self.turn(comparison, running.as_ref())
            };
            comparisons.iter().map(turn).collect::<io::Result<Vec<Turn>>>()
        })?;
        for (place, Comparison { work, title, target, .. }) in comparisons.iter().enumerate() {
            let of_it = |round: &Vec<Vec<Turn>>| round.iter().map(|turns| turns[place]).collect();
            let rounds = rounds.iter().map(of_it).collect();
            let (work, title, subjects) = (work.clone(), title.clone(), subjects.clone());
            report.add(&Turns { work, title, subjects, rounds }, *target)?;
        }
        Ok(())
    }

    /// The turns of all subjects, into the report.
    fn add_turns(
        &self,
        comparison: &Comparison<'_>,
        subjects: &[Subject],
        report: &mut Report,
        mut turn: impl FnMut(usize) -> io::Result<Turn>,
    ) -> io::Result<()> {
        let Comparison { work, title, .. } = comparison;
        let (subjects, rounds) = self.in_turns(work, subjects, report, |index, _| turn(index))?;
        let turns = Turns { work: work.clone(), title: title.clone(), subjects, rounds };
        report.add(&turns, comparison.target)
    }

    /// Starts them all. Those that cannot be run here are left out, and the report says why.
    ///
    /// # Errors
    /// One that must not fail does.
    pub(crate) fn start_all(
        &self,
        subjects: &[Subject],
        setup: &Setup,
        report: &mut Report,
    ) -> io::Result<Vec<(Subject, Option<Running>)>> {
        let mut running = Vec::new();
        for subject in report.present(subjects) {
            match start(subject, &self.place, setup) {
                Ok(started) => running.push((subject, started)),
                Err(error) if subject.must_not_fail() => return Err(error),
                Err(error) => report.leave_out(error.to_string()),
            }
        }
        Ok(running)
    }

    /// Asks `turn` for each subject, by index and round, round by round; gives the subjects that
    /// went through, and their turns by round.
    ///
    /// # Errors
    /// One that must not fail does.
    pub(crate) fn in_turns<T>(
        &self,
        work: &str,
        subjects: &[Subject],
        report: &mut Report,
        mut turn: impl FnMut(usize, u64) -> io::Result<T>,
    ) -> io::Result<(Vec<Subject>, Vec<Vec<T>>)> {
        let mut alive = vec![true; subjects.len()];
        let mut rounds = Vec::new();
        for (round, number) in (0..self.rounds).zip(0..) {
            complain(&format!("{work}: round {} of {}", round + 1, self.rounds));
            let mut done: Vec<Option<T>> = subjects.iter().map(|_| None).collect();
            for step in 0..subjects.len() {
                let index = (round + step) % subjects.len();
                if !alive[index] {
                    continue;
                }
                // Half an hour's work is worth a second try.
                let tried = turn(index, number).or_else(|error| {
                    complain(&format!("{work}, {}: {error}; again", subjects[index].name()));
                    turn(index, number)
                });
                match tried {
                    Ok(turn) => done[index] = Some(turn),
                    Err(error) => {
                        report.forgive(work, subjects[index], &error)?;
                        alive[index] = false;
                    }
                }
            }
            rounds.push(done);
        }
        let keep = |round: Vec<Option<T>>| {
            round.into_iter().zip(&alive).filter_map(|(turn, alive)| turn.filter(|_| *alive))
        };
        let rounds = rounds.into_iter().map(|round| keep(round).collect()).collect();
        let subjects = subjects.iter().zip(&alive).filter(|(_, alive)| **alive);
        Ok((subjects.map(|(subject, _)| *subject).collect(), rounds))
    }

    /// One turn of this subject; of the servers themselves if it is none.
    ///
    /// # Errors
    /// A connection fails.
    pub(crate) fn turn(
        &self,
        comparison: &Comparison<'_>,
        subject: Option<&Running>,
    ) -> io::Result<Turn> {
        let addresses = addresses(&comparison.setup.servers, subject);
        let mut processes = comparison.responders.processes();
        processes.extend(subject.into_iter().flat_map(Running::processes));
        let mut idlers = Idlers::default();
        idlers.open(comparison.idle, addresses[0])?;
        let mut generator = Generator::open(&addresses, &[comparison.load])?;
        // Windows of TCP grow, caches and buffers fill: that is no part of the figure.
        generator.drive(self.window / 5)?;
        let deadline = Instant::now() + WARM_UP_MAX;
        while generator.exchanges(0) < comparison.load.warm_up() {
            if Instant::now() > deadline {
                return Err(io::Error::other("not every connection had its answers"));
            }
            generator.drive(self.window / 5)?;
        }
        let mut turn = measure(&[self.core], &processes, || {
            let before = generator.exchanges(0);
            generator.drive(self.window)?;
            Ok(generator.exchanges(0) - before)
        })?;
        if comparison.setup.enter.is_some() {
            // With hosts of their own, most are counted elsewhere.
            turn.segments = None;
        }
        Ok(turn)
    }
}

/// What `work`, which gives its exchanges, took of these cores, with these processes beside ours.
///
/// # Errors
/// Those of `work`; or it exchanged nothing.
pub(crate) fn measure(
    cores: &[usize],
    processes: &[u32],
    work: impl FnOnce() -> io::Result<f64>,
) -> io::Result<Turn> {
    let sent = segments::sent()?;
    let before = Snapshot::take(cores, processes)?;
    let exchanges = work()?;
    let used = Snapshot::take(cores, processes)?.since(&before);
    if exchanges <= 0.0 {
        return Err(io::Error::other("not a byte went through"));
    }
    Ok(Turn { exchanges, used, segments: Some(segments::sent()? - sent) })
}

/// Where a generator connects to: the subject, or else the servers themselves.
pub(crate) fn addresses(servers: &[SocketAddr], subject: Option<&Running>) -> Vec<SocketAddr> {
    subject.map_or_else(|| servers.to_vec(), |subject| vec![subject.address])
}
