//! `bench/run`: its options, the kinds of work one after the other, and the result.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU16;
use std::time::{Duration, SystemTime};

use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::charts;
use crate::cpu;
use crate::idle;
use crate::machine::Machine;
use crate::output::{log, print};
use crate::report::{self, Report, Run};
use crate::rounds::{Bench, Beside, Comparison, Responders};
use crate::subject::{EVENKEEL_OPEN, Installation, SUBJECTS, Subject};
use crate::table;
use crate::targets;
use crate::work::{self, Kind, Method};

/// A disturbance of the machine lasts a second or so. In turns of a quarter of that it meets all
/// subjects, and few rounds.
const PARTS: u32 = 4;

/// A shorter turn shows its beginning only.
const PART_MIN: f64 = 0.1;

/// The options of `bench/run`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Kinds of work; none: all.
    work: Vec<String>,
    /// Three rounds of half a second: enough to see a loss of speed, not enough for a claim.
    #[arg(long)]
    quick: bool,
    /// Rounds; where a turn starts at once, four times as many that are a quarter as long
    /// [default: 7; with --quick 3].
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of each turn that count [default: 1; with --quick 0.5].
    #[arg(long)]
    seconds: Option<f64>,
    /// Exit with 1 unless evenkeel meets all targets of bench/README.md.
    #[arg(long)]
    check: bool,
    /// Exit with 1 if a ratio to HAProxy is a fifth worse than in this result file: than that of
    /// the same processor, or else than the worst of all.
    #[arg(long, value_name = "RESULT.json", conflicts_with = "check")]
    against: Option<PathBuf>,
    /// Connections of keepalive, connection, bulk and upload, instead of their own numbers.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    connections: Option<u16>,
    /// Subjects, separated by commas [default: all; with --quick direct, evenkeel and HAProxy's].
    #[arg(long, value_delimiter = ',', value_parser = Subject::find)]
    subjects: Vec<Subject>,
    /// Counts of connections and servers that only show that the bench works.
    #[arg(long, hide = true)]
    small: bool,
    /// The core for everything that runs on one [default: the last one].
    #[arg(long)]
    core: Option<usize>,
    /// The evenkeel binary.
    #[arg(long, hide = true, default_value = "target/release/evenkeel")]
    evenkeel: PathBuf,
    /// The evenkeel binary that bench/run built for --before=COMMIT.
    #[arg(long, hide = true)]
    before_binary: Option<PathBuf>,
    /// Its commit.
    #[arg(long, hide = true)]
    before_commit: Option<String>,
    /// The HAProxy binary.
    #[arg(long, hide = true, default_value = "haproxy")]
    haproxy: PathBuf,
    /// The program that bench/haproxy3 made.
    #[arg(long, hide = true)]
    haproxy3: Option<PathBuf>,
    /// Folder of results, configurations and logs.
    #[arg(long, hide = true, default_value = "target/bench")]
    folder: PathBuf,
}

impl Options {
    fn subjects(&self) -> Vec<Subject> {
        let chosen = |subject: &&Subject| match subject.name {
            "evenkeel-before" => self.before_binary.is_some(),
            name if self.subjects.is_empty() => {
                !self.quick
                    || (!subject.may_fail() && !name.ends_with("-batch") && name != EVENKEEL_OPEN)
            }
            _ => self.subjects.contains(subject),
        };
        SUBJECTS.iter().filter(chosen).copied().collect()
    }
}

/// Runs what the options ask for; false if `--check` or `--against` was given and a target is
/// missed.
pub(crate) fn run(options: &Options) -> io::Result<bool> {
    let kinds = work::find(&options.work, options.quick)?;
    let recorded = options.against.as_deref().map(report::read).transpose()?;
    let subjects = options.subjects();
    let (rounds, seconds) = if options.quick { (3, 0.5) } else { (7, 1.0) };
    let rounds = options.rounds.unwrap_or(rounds).max(1);
    let seconds = options.seconds.unwrap_or(seconds);
    let window = Duration::try_from_secs_f64(seconds).map_err(io::Error::other)?;
    if window.is_zero() {
        return Err(io::Error::other("--seconds must be more than 0"));
    }
    let mut bench = bench(options, rounds, seconds)?;
    let most = idle::sessions_max(bench.descriptors)?;
    let most = most.min(match options {
        Options { small: true, .. } => 600,
        Options { quick: true, .. } => 4000,
        _ => usize::MAX,
    });
    for kind in &kinds {
        let parted = kind.method.starts_at_once() && seconds / f64::from(PARTS) >= PART_MIN;
        let parts = if parted { PARTS } else { 1 };
        bench.rounds = rounds * parts as usize;
        bench.window = window / parts;
        bench.subjects = subjects.iter().filter(|one| kind.measures(**one)).copied().collect();
        if let Err(error) = bench.measure(kind, options.connections, most) {
            // What was measured before is kept.
            save(bench.report.into_inner(), &options.folder)?;
            return Err(error);
        }
    }
    let report = bench.report.into_inner();
    let is_judged = options.check || recorded.is_some();
    let targets = match recorded {
        Some(recorded) => targets::not_worse(&report, recorded),
        None => targets::fastest(&report),
    };
    print(table::markdown(&report).map_err(io::Error::other)?.trim_end());
    targets.iter().for_each(|target| print(&table::target(target)));
    save(report, &options.folder)?;
    // Without a target nothing is shown to be met.
    let met = !targets.is_empty() && targets.iter().all(targets::Target::is_met);
    Ok(!is_judged || met)
}

fn bench(options: &Options, rounds: usize, seconds: f64) -> io::Result<Bench> {
    let (_, descriptors) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, descriptors, descriptors)?;
    let cores = cpu::allowed_cores()?;
    // Most machines handle their interrupts on the first core.
    let last = cores.last().copied();
    let core = options.core.or(last).ok_or_else(|| io::Error::other("no core to run on"))?;
    cpu::pin(&[core])?;
    fs::create_dir_all(&options.folder)?;
    let installation = Installation {
        evenkeel: options.evenkeel.clone(),
        before: options.before_binary.clone(),
        haproxy: options.haproxy.clone(),
        haproxy3: options.haproxy3.clone(),
        folder: options.folder.clone(),
        next_port: AtomicU16::new(8000),
    };
    let run = Run {
        machine: Machine::look(core, &installation),
        before: options.before_commit.clone(),
        rounds,
        seconds,
        titles: BTreeMap::new(),
        left_out: Vec::new(),
    };
    Ok(Bench {
        installation,
        cores,
        core,
        rounds,
        window: Duration::ZERO, // each kind of work has its own
        small: options.small,
        quick: options.quick,
        own_network: std::env::var_os("BENCH_OWN_NETWORK").is_some(),
        descriptors: usize::try_from(descriptors).unwrap_or(usize::MAX),
        responders: Responders::start_here()?,
        subjects: Vec::new(),
        report: RefCell::new(Report { run, rows: Vec::new() }),
    })
}

impl Bench {
    fn measure(&self, kind: &Kind, connections: Option<u16>, most: usize) -> io::Result<()> {
        let (kind, name, title) = &kind.with_connections(connections);
        match kind.method {
            Method::Throughput(load) => {
                let mut layout = self.layout();
                let sessions_max = &mut layout.setup.sessions_max;
                *sessions_max = (load.connections + 100).max(*sessions_max);
                let (name, title) = (name.clone(), title.clone());
                self.compare(&Comparison::throughput(name, title, load, layout))
            }
            Method::Beside(load) => {
                let mut layout = self.layout();
                // The pipes of splice use half a descriptor more for each session.
                layout.setup.sessions_max = (most / 3 * 2).min(8000);
                let idle = layout.setup.sessions_max - load.connections - 100;
                let title = format!("{title}, {idle} of them");
                let closed = Comparison::throughput(name.clone(), title, load, layout);
                self.compare_apart(&[Comparison { beside: Beside::Idle(idle), ..closed }])
            }
            Method::Mixed(small, bulk) => self.mixed(kind, (small, bulk)),
            Method::Latency(load) => self.open_loop((name, title), load, &|| self.layout()),
            Method::Idle => self.idle(kind, most),
            Method::Two(load) => self.two(kind, load),
            Method::Growth => self.growth(kind, most),
            Method::Probes => self.probes(kind),
            Method::Scrapes => self.scrapes(kind),
            Method::Neighbours => self.neighbours(kind),
            Method::Features => self.features(),
            Method::Pi => self.pi(kind),
            Method::Veth(load) => self.veth(kind, load),
        }
    }
}

/// Writes the result file, once named by the time and once as the latest.
fn save(report: Report, folder: &Path) -> io::Result<()> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let file = folder.join(format!("{}.json", since.map_err(io::Error::other)?.as_secs()));
    report::write(&file, &[report])?;
    fs::copy(&file, folder.join("latest.json"))?;
    log(&format!("written to {}", file.display()));
    Ok(())
}

/// Draws the charts of the first result in a file.
pub(crate) fn draw(file: &Path, folder: &Path) -> io::Result<()> {
    let reports = report::read(file)?;
    let first = reports.first().ok_or_else(|| io::Error::other("no result in the file"))?;
    for name in charts::draw(first, folder)? {
        print(&format!("{}/{name}.svg", folder.display()));
    }
    Ok(())
}

/// Where a document has the tables of a result.
const TABLES: [&str; 2] = ["<!-- tables -->\n", "<!-- end of tables -->"];

/// Makes a result the first of a folder's `result.json`, in place of that of the same processor;
/// draws its charts, and replaces the tables in the folder's `README.md`.
pub(crate) fn publish(latest: &Path, folder: &Path) -> io::Result<()> {
    let (file, readme) = (folder.join("result.json"), folder.join("README.md"));
    let mut reports = report::read(latest)?;
    for other in report::read(&file)? {
        if reports.iter().all(|report| report.run.machine.cpu != other.run.machine.cpu) {
            reports.push(other);
        }
    }
    report::write(&file, &reports)?;
    draw(&file, &folder.join("charts"))?;
    let text = fs::read_to_string(&readme)?;
    let parts = text.split_once(TABLES[0]).zip(text.split_once(TABLES[1]));
    let Some(((before, _), (_, after))) = parts else {
        return Err(io::Error::other(format!("{} has no place for tables", readme.display())));
    };
    let tables = table::markdown(&reports[0]).map_err(io::Error::other)?;
    let [start, end] = TABLES;
    fs::write(readme, format!("{before}{start}{tables}{end}{after}"))
}
