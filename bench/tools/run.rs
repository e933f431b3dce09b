//! The rounds: every subject in each, one after the other, so that what the machine does to one
//! it does to all.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::cpu::{Snapshot, pin};
use crate::generator::Generator;
use crate::idle;
use crate::machine::Machine;
use crate::report::{self, Report, Turn, Turns};
use crate::subject::{Place, Running, Subject, start, start_responder};
use crate::work::{self, Kind, Load};
use crate::{complain, say, table};

/// As `bench/run` takes them.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Kinds of work; none: all.
    work: Vec<String>,
    /// Three rounds of half a second: enough to see a fall, not enough for a claim.
    #[arg(long)]
    quick: bool,
    /// Rounds [default: 7; with --quick 3].
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of each turn that count [default: 2; with --quick 0.5].
    #[arg(long)]
    seconds: Option<f64>,
    /// Exit with 1 unless evenkeel meets its target in each kind of work.
    #[arg(long)]
    check: bool,
    /// Subjects, by comma [default: all].
    #[arg(long, value_delimiter = ',', value_parser = Subject::find)]
    subjects: Vec<Subject>,
    /// The core for everything [default: the last one].
    #[arg(long)]
    core: Option<usize>,
    /// The evenkeel binary.
    #[arg(long, hide = true, default_value = "target/release/evenkeel")]
    evenkeel: PathBuf,
    /// The HAProxy binary.
    #[arg(long, hide = true, default_value = "haproxy")]
    haproxy: PathBuf,
    /// Folder of results, configurations and logs.
    #[arg(long, hide = true, default_value = "target/bench")]
    folder: PathBuf,
}

/// What all rounds share.
struct Bench {
    place: Place,
    core: usize,
    rounds: usize,
    window: Duration,
    responders: Vec<Running>,
    servers: Vec<SocketAddr>,
}

/// Runs what the options ask for; false if `--check` was given and a target missed or left open.
///
/// # Errors
/// A subject does not start, or fails a connection.
pub(crate) fn run(options: &Options) -> io::Result<bool> {
    let kinds = work::find(&options.work)?;
    let subjects =
        if options.subjects.is_empty() { Subject::ALL.to_vec() } else { options.subjects.clone() };
    let (rounds, seconds) = if options.quick { (3, 0.5) } else { (7, 2.0) };
    let rounds = options.rounds.unwrap_or(rounds).max(1);
    let seconds = options.seconds.unwrap_or(seconds);
    let window = Duration::try_from_secs_f64(seconds).map_err(io::Error::other)?;
    if window.is_zero() {
        return Err(io::Error::other("--seconds must be more than 0"));
    }
    let sessions_max = sessions_max(raise_descriptors()?);
    if kinds.iter().any(|kind| kind.load.is_none()) {
        idle::counts(sessions_max)?; // said before minutes of other work are lost
    }
    let core = pin(options.core)?;
    fs::create_dir_all(&options.folder)?;
    let responders = vec![start_responder(1)?, start_responder(2)?];
    let bench = Bench {
        place: Place {
            evenkeel: options.evenkeel.clone(),
            haproxy: options.haproxy.clone(),
            folder: options.folder.clone(),
            sessions_max,
        },
        core,
        rounds,
        window,
        servers: responders.iter().map(|responder| responder.address).collect(),
        responders,
    };
    let with_haproxy = subjects.contains(&Subject::Haproxy);
    let machine = Machine::look(core, &bench.place, with_haproxy);
    let (rows, idle, targets) = (Vec::new(), Vec::new(), Vec::new());
    let mut report = Report { machine, rounds, seconds, rows, idle, targets };
    for kind in &kinds {
        if let Some(load) = kind.load {
            bench.compare(kind, load, &subjects, &mut report)?;
        } else {
            bench.weigh(kind, &subjects, idle::counts(sessions_max)?, &mut report)?;
        }
    }
    say(&table::markdown(&report).map_err(io::Error::other)?);
    save(&report, &options.folder)?;
    let met = report.targets.iter().filter(|target| target.met).count();
    Ok(!options.check || met == kinds.len())
}

impl Bench {
    /// Throughput of all subjects, in rounds that each begin with another of them.
    fn compare(
        &self,
        kind: &Kind,
        load: Load,
        subjects: &[Subject],
        report: &mut Report,
    ) -> io::Result<()> {
        let subjects: Vec<Subject> = subjects
            .iter()
            .copied()
            .filter(|subject| kind.with_splice || *subject != Subject::HaproxySplice)
            .collect();
        let running: io::Result<Vec<Option<Running>>> =
            subjects.iter().map(|subject| start(*subject, &self.place, &self.servers)).collect();
        let running = running?;
        let mut turns = Turns { kind: *kind, subjects, rounds: Vec::new() };
        for round in 0..self.rounds {
            complain(&format!("{}: round {} of {}", kind.name, round + 1, self.rounds));
            let mut done: Vec<Option<Turn>> = vec![None; running.len()];
            for step in 0..running.len() {
                let index = (round + step) % running.len();
                let turn = self.turn(load, running[index].as_ref());
                let name = turns.subjects[index].name();
                done[index] = Some(turn.map_err(|error| {
                    io::Error::other(format!("{}, {name}: {error}", kind.name))
                })?);
            }
            turns.rounds.push(done.into_iter().flatten().collect());
        }
        let (rows, target) = report::rows(&turns)?;
        report.rows.extend(rows);
        report.targets.extend(target);
        Ok(())
    }

    fn turn(&self, load: Load, subject: Option<&Running>) -> io::Result<Turn> {
        let own = subject.map(|subject| [subject.address]);
        let addresses = own.as_ref().map_or(self.servers.as_slice(), |own| own.as_slice());
        let mut processes: Vec<u32> = self.responders.iter().map(Running::process).collect();
        processes.extend(subject.map(Running::process));
        let mut generator = Generator::open(addresses, load)?;
        // Windows of TCP grow, caches and buffers fill: that is no part of the figure.
        generator.drive(self.window / 5)?;
        let (before, start) = (Snapshot::take(self.core, &processes)?, generator.exchanges());
        generator.drive(self.window)?;
        let (exchanges, after) =
            (generator.exchanges() - start, Snapshot::take(self.core, &processes)?);
        if exchanges <= 0.0 {
            return Err(io::Error::other("not a byte went through"));
        }
        Ok(Turn { exchanges, used: after.since(&before) })
    }

    /// Memory of idle sessions of all subjects that are processes.
    fn weigh(
        &self,
        kind: &Kind,
        subjects: &[Subject],
        counts: [usize; 2],
        report: &mut Report,
    ) -> io::Result<()> {
        for subject in subjects {
            if !matches!(subject, Subject::Evenkeel | Subject::Haproxy) {
                continue;
            }
            complain(&format!("{}: {}", kind.name, subject.name()));
            let seen: io::Result<Vec<Option<idle::Memory>>> = (0..self.rounds.min(3))
                .map(|_| idle::measure(*subject, &self.place, &self.servers, counts))
                .collect();
            let seen: Vec<idle::Memory> = seen?.into_iter().flatten().collect();
            let row = report::idle_row(kind, *subject, counts, &seen);
            let (row, target) = row.ok_or_else(|| io::Error::other("no memory was measured"))?;
            report.idle.push(row);
            report.targets.extend(target);
        }
        Ok(())
    }
}

/// Sessions that a balancer has room for: two descriptors each, HAProxy's pipes for splice half a
/// one more, and some for itself.
fn sessions_max(descriptors: u64) -> usize {
    usize::try_from(descriptors.saturating_sub(200) / 3).unwrap_or(usize::MAX).min(5000)
}

/// Raises the soft limit of descriptors to the hard one, for this process and its children.
fn raise_descriptors() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Writes the JSON file, once by its time and once as the latest.
fn save(report: &Report, folder: &Path) -> io::Result<()> {
    let text = serde_json::to_string_pretty(report)?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.map_err(io::Error::other)?.as_secs();
    let file = folder.join(format!("{seconds}.json"));
    fs::write(&file, &text)?;
    fs::write(folder.join("latest.json"), &text)?;
    complain(&format!("written to {}", file.display()));
    Ok(())
}
