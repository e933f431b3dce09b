//! `bench/run`: its options, the kinds of work one after the other, and what is written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use evenkeel::sys::thread::allowed_cores;

use crate::machine::Machine;
use crate::recorded::{self, Recorded};
use crate::report::Report;
use crate::rounds::{Bench, Comparison, Responders};
use crate::subject::{Place, Subject};
use crate::work::{self, Kind, Way};
use crate::{complain, cpu, idle, rounds, say, table, targets};

/// As `bench/run` takes them.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Kinds of work; none: all.
    work: Vec<String>,
    /// Three rounds of half a second: enough to see a fall, not enough for a claim.
    #[arg(long)]
    quick: bool,
    /// Rounds; where a turn begins at once, four times as many, and a fourth as long [default: 7;
    /// with --quick 3].
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of each turn that count [default: 1; with --quick 0.5].
    #[arg(long)]
    seconds: Option<f64>,
    /// Exit with 1 unless evenkeel meets its targets: 4, better than plain HAProxy; 5, than the
    /// best of haproxy, haproxy-64k and haproxy-splice, and slower than none of all others.
    /// Without it a full run prints the latter, and passes.
    #[arg(long, value_name = "LEVEL", num_args = 0..=1, require_equals = true,
          default_missing_value = "4", value_parser = clap::value_parser!(u8).range(4..=5))]
    check: Option<u8>,
    /// Exit with 1 if a ratio to HAProxy is a fifth worse than in this result of an earlier run; if
    /// given several times, than in those from a processor like this one, or in the weakest of all.
    #[arg(long, value_name = "RESULT.json", conflicts_with = "check")]
    against: Vec<PathBuf>,
    /// Connections of keepalive, connection, bulk and upload, instead of their own numbers.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    connections: Option<u16>,
    /// Subjects, by comma [default: all; with --quick those of HAProxy].
    #[arg(long, value_delimiter = ',', value_parser = Subject::find)]
    subjects: Vec<Subject>,
    /// Counts of connections and servers that only show that it works.
    #[arg(long, hide = true)]
    small: bool,
    /// The core for everything [default: the last one].
    #[arg(long)]
    core: Option<usize>,
    /// The evenkeel binary.
    #[arg(long, hide = true, default_value = "target/release/evenkeel")]
    evenkeel: PathBuf,
    /// An evenkeel binary of an earlier commit: what bench/run makes of --before=COMMIT.
    #[arg(long, hide = true)]
    before_binary: Option<PathBuf>,
    /// The commit of it.
    #[arg(long, hide = true)]
    before_commit: Option<String>,
    /// The HAProxy binary.
    #[arg(long, hide = true, default_value = "haproxy")]
    haproxy: PathBuf,
    /// Folder of results, configurations and logs.
    #[arg(long, hide = true, default_value = "target/bench")]
    folder: PathBuf,
}

impl Options {
    fn subjects(&self) -> Vec<Subject> {
        let all: &[Subject] = if self.quick { &Subject::QUICK } else { &Subject::ALL };
        let mut subjects = if self.subjects.is_empty() { all } else { &self.subjects }.to_vec();
        if self.before_binary.is_some() {
            let own = subjects.iter().position(|subject| *subject == Subject::Evenkeel);
            subjects.insert(own.map_or(0, |own| own + 1), Subject::EvenkeelBefore);
        }
        subjects
    }
}

/// Runs what the options ask for; false if `--check` was given and a target missed or left open.
///
/// # Errors
/// A subject does not start, or fails a connection.
pub(crate) fn run(options: &Options) -> io::Result<bool> {
    let kinds = work::find(&options.work, options.quick)?;
    let subjects = options.subjects();
    let (rounds, seconds) = if options.quick { (3, 0.5) } else { (7, 1.0) };
    let rounds = options.rounds.unwrap_or(rounds).max(1);
    let seconds = options.seconds.unwrap_or(seconds);
    let window = Duration::try_from_secs_f64(seconds).map_err(io::Error::other)?;
    if window.is_zero() {
        return Err(io::Error::other("--seconds must be more than 0"));
    }
    let descriptors = raise_descriptors()?;
    if kinds.iter().any(|kind| matches!(kind.way, Way::Idle)) {
        idle::counts(idle::most(descriptors))?; // said before minutes of other work are lost
    }
    let cores = allowed_cores()?;
    // The last one: the first is where most machines take their interrupts.
    let last = cores.last().copied();
    let core = options.core.or(last).ok_or_else(|| io::Error::other("no core to run on"))?;
    cpu::pin(&[core])?;
    fs::create_dir_all(&options.folder)?;
    let place = Place {
        evenkeel: options.evenkeel.clone(),
        before: options.before_binary.clone(),
        haproxy: options.haproxy.clone(),
        folder: options.folder.clone(),
        sessions_max: sessions_max(descriptors),
    };
    let mut report = Report {
        machine: Machine::look(core, &place, &subjects),
        before: options.before_commit.clone(),
        rounds,
        seconds,
        rows: Vec::new(),
        latencies: Vec::new(),
        idle: Vec::new(),
        growth: Vec::new(),
        targets: Vec::new(),
        left_out: Vec::new(),
    };
    let mut bench = Bench {
        place,
        cores,
        core,
        rounds,
        window,
        small: options.small,
        own_network: std::env::var_os("BENCH_OWN_NETWORK").is_some(),
        descriptors,
        responders: Responders::start()?,
    };
    let most = idle::most(descriptors);
    let most = most.min(if options.small {
        600
    } else if options.quick {
        4000
    } else {
        usize::MAX
    });
    for kind in &kinds {
        let kind = &kind.with_connections(options.connections);
        let parts = if kind.way.begins_at_once() { rounds::parts(seconds) } else { 1 };
        bench.rounds = rounds * parts as usize;
        bench.window = window / parts;
        if let Err(error) = bench.measure(kind, &subjects, most, &mut report) {
            // What was measured before is not lost.
            save(&report, &options.folder)?;
            return Err(error);
        }
    }
    let met = judge(options, &kinds, &mut report)?;
    say(&table::markdown(&report).map_err(io::Error::other)?);
    save(&report, &options.folder)?;
    Ok((options.check.is_none() && options.against.is_empty()) || met)
}

/// Adds the targets to the report; whether all of them are met.
fn judge(options: &Options, kinds: &[Kind], report: &mut Report) -> io::Result<bool> {
    let level = options.check.unwrap_or(if options.quick || options.small { 4 } else { 5 });
    if !options.against.is_empty() {
        let recorded = Recorded::read(&options.against, &report.machine.cpu)?;
        report.targets = recorded::not_fallen(report, &recorded);
    } else if level > 4 {
        report.targets = targets::fastest(report);
    }
    // A target that nobody could measure is not met.
    let all = level > 4 || !options.against.is_empty();
    let wanted = kinds.iter().filter(|kind| kind.target.is_some() || all).count();
    let judged = report.targets.len() >= wanted && !report.targets.is_empty();
    Ok(judged && report.targets.iter().all(|target| target.met))
}

impl Bench {
    fn measure(
        &self,
        kind: &Kind,
        subjects: &[Subject],
        most: usize,
        report: &mut Report,
    ) -> io::Result<()> {
        // Larger pipes matter to bulk alone.
        let bulky = matches!(kind.name, "bulk" | "upload" | "pi");
        let of_use = |subject: &&Subject| bulky || **subject != Subject::HaproxySplice512k;
        let subjects: Vec<Subject> = subjects.iter().filter(of_use).copied().collect();
        match kind.way {
            Way::Throughput(load) | Way::Beside(load) => {
                let mut setup = self.plain();
                let (mut idle, mut title) = (0, kind.title.to_owned());
                setup.sessions_max = setup.sessions_max.max(load.connections + 100);
                if kind.is_unusual() {
                    title = format!("{title}: {} connections", load.connections);
                }
                if matches!(kind.way, Way::Beside(_)) {
                    // Pipes for splice take half a descriptor more of each.
                    setup.sessions_max = (most / 3 * 2).min(8000);
                    idle = setup.sessions_max - load.connections - 100;
                    title = format!("{title}, {idle} of them");
                }
                let (mut work, target) = (kind.name.to_owned(), kind.target);
                if kind.is_unusual() {
                    work = format!("{work}-{}", load.connections);
                }
                let responders = &self.responders;
                let comparison = Comparison { work, title, load, idle, setup, responders, target };
                if idle > 0 {
                    // Thousands of sessions of the turn before may not all have ended yet.
                    return self.compare_apart(kind.name, &[comparison], &subjects, report);
                }
                self.compare(&comparison, &subjects, report)
            }
            Way::Mixed(small, bulk) => self.mix(kind, (small, bulk), &subjects, report),
            Way::Latency(load, shares) => self.pace(kind, (load, shares), &subjects, report),
            Way::Idle => self.weigh(kind, &subjects, most, report),
            Way::Two(load) => self.double(kind, load, &subjects, report),
            Way::Growth => self.grow(&subjects, report),
            Way::Pi => self.shape(kind, &subjects, report),
        }
    }
}

/// Sessions that a subject is told to have room for: two descriptors each, HAProxy's pipes for
/// splice half a one more, and some for itself.
fn sessions_max(descriptors: usize) -> usize {
    (descriptors.saturating_sub(200) / 3).min(5000)
}

/// Raises the soft limit of descriptors to the hard one, for this process and its children.
fn raise_descriptors() -> io::Result<usize> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(usize::try_from(hard).unwrap_or(usize::MAX))
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
