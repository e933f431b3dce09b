//! The core (or cores) that everything runs on, and who used it.
//!
//! Throughput is counted as work / (our CPU time + idle), or other users of the machine would
//! decide the figure. What was stolen by a hypervisor is nobody's of ours either.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

/// The unit of /proc/stat: `USER_HZ`, 100 on every architecture that we run on.
const TICK: Duration = Duration::from_millis(10);

/// Pins this thread, and what it starts from now on, to these cores.
///
/// # Errors
/// A core isn't one that this process may use.
pub(crate) fn pin(cores: &[usize]) -> io::Result<()> {
    pin_process(0, cores)
}

/// As `pin`, a process of one thread; 0 is the calling thread.
///
/// # Errors
/// As `pin`; or there is no such process.
pub(crate) fn pin_process(process: u32, cores: &[usize]) -> io::Result<()> {
    let mut only = CpuSet::new();
    for core in cores {
        only.set(*core)?;
    }
    sched_setaffinity(Pid::from_raw(process.cast_signed()), &only)
        .map_err(|error| io::Error::other(format!("cores {cores:?}: {error}")))
}

/// /proc/stat counts idle time in ticks: a turn of half a second can seem this much longer.
const CLOCKS_AGREE: f64 = 1.03;

/// A moment in the life of the core.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    at: Instant,
    ours: Duration,
    cores: f64,
    core: CoreTimes,
}

#[derive(Debug, Clone, Copy, Default)]
struct CoreTimes {
    idle: Duration,
    interrupts: Duration,
    steal: Duration,
}

/// What a window of time was used for, in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    /// Our CPU time and idle: what the work is divided by.
    pub(crate) ours_and_idle: f64,
    /// The share of the window that others (or the hypervisor) had the core.
    pub(crate) others: f64,
    /// CPU time that we must have had on another core, as a share of the window.
    pub(crate) elsewhere: f64,
    /// The share that nobody used.
    pub(crate) idle: f64,
}

impl Snapshot {
    /// Now; `processes` are ours, beside this one.
    ///
    /// # Errors
    /// One of them has ended.
    pub(crate) fn take(cores: &[usize], processes: &[u32]) -> io::Result<Self> {
        let mut ours = cpu_time(std::process::id())?;
        for process in processes {
            ours += cpu_time(*process)?;
        }
        // Its work is the network's, and the network is ours alone.
        let mut core_sum = CoreTimes::default();
        for core in cores {
            if let Some(softirq) = softirq_thread(*core) {
                ours += cpu_time(softirq)?;
            }
            let CoreTimes { idle, interrupts, steal } = core_times(*core)?;
            core_sum.idle += idle;
            core_sum.interrupts += interrupts;
            core_sum.steal += steal;
        }
        #[expect(clippy::cast_precision_loss, reason = "a number of cores")]
        let cores = cores.len() as f64;
        Ok(Self { at: Instant::now(), ours, cores, core: core_sum })
    }

    /// What happened since an earlier moment.
    pub(crate) fn since(&self, earlier: &Self) -> Used {
        let wall = (self.at - earlier.at).as_secs_f64() * self.cores;
        let passed = |now: Duration, then: Duration| now.saturating_sub(then).as_secs_f64();
        let idle = passed(self.core.idle, earlier.core.idle);
        let steal = passed(self.core.steal, earlier.core.steal);
        let mut ours = passed(self.ours, earlier.ours);
        if !self.core.interrupts.is_zero() {
            // This kernel takes interrupts out of the time of tasks; they are the network's.
            ours += passed(self.core.interrupts, earlier.core.interrupts);
        }
        let mut ours_and_idle = ours + idle;
        // Some kernels count stolen time as a task's own; more than the clocks disagree by is not
        // that but work on another core (io_uring's helpers ignore the pinning), and is paid for.
        if ours_and_idle <= wall * CLOCKS_AGREE {
            ours_and_idle = ours_and_idle.min((wall - steal).max(0.001));
        }
        Used {
            ours_and_idle,
            others: ((wall - ours_and_idle) / wall).max(0.0),
            elsewhere: (ours_and_idle / wall - CLOCKS_AGREE).max(0.0),
            idle: (idle / wall).min(1.0),
        }
    }
}

/// CPU time of a process, with its threads, also those that have ended.
pub(crate) fn cpu_time(process: u32) -> io::Result<Duration> {
    let process = i32::try_from(process).map_err(io::Error::other)?;
    let clock: ClockId = clock_getcpuclockid(Pid::from_raw(process))
        .map_err(|error| io::Error::other(format!("process {process} has ended: {error}")))?;
    Ok(clock.now()?.into())
}

fn core_times(core: usize) -> io::Result<CoreTimes> {
    let stat = fs::read_to_string("/proc/stat")?;
    let name = format!("cpu{core} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name));
    let line = line.ok_or_else(|| io::Error::other(format!("/proc/stat knows no core {core}")))?;
    let fields: Vec<u32> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let field = |index: usize| TICK * fields.get(index).copied().unwrap_or(0);
    // user nice system idle iowait irq softirq steal, proc_stat(5). With accounting by ticks the
    // hard interrupts stay 0, and soft ones are part of the time of the task they came upon.
    let precise = !field(5).is_zero();
    let interrupts = if precise { field(5) + field(6) } else { Duration::ZERO };
    Ok(CoreTimes { idle: field(3) + field(4), interrupts, steal: field(7) })
}

/// The process number of the core's ksoftirqd; none where it can't be seen (a container).
fn softirq_thread(core: usize) -> Option<u32> {
    static FOUND: std::sync::OnceLock<Vec<(String, u32)>> = std::sync::OnceLock::new();
    let all = FOUND.get_or_init(|| {
        let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
        let named = entries.filter_map(|entry| {
            let process: u32 = entry.file_name().to_str()?.parse().ok()?;
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            name.starts_with("ksoftirqd/").then(|| (name.trim().to_owned(), process))
        });
        named.collect()
    });
    let name = format!("ksoftirqd/{core}");
    all.iter().find(|(found, _)| *found == name).map(|(_, process)| *process)
}
