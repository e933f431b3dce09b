//! The one core that everything runs on, and who used it.
//!
//! Throughput is counted as work / (our CPU time + idle), or other users of the machine would
//! decide the figure. What was stolen by a hypervisor is nobody's of ours either.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

/// The unit of /proc/stat: `USER_HZ`, 100 on every architecture that we run on.
const TICK: Duration = Duration::from_millis(10);

/// Pins this thread, and what it starts, to one core; gives the core's number.
///
/// # Errors
/// The core isn't one that this process may use.
pub(crate) fn pin(core: Option<usize>) -> io::Result<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    // The last one: the first is where most machines take their interrupts.
    let last = (0..CpuSet::count()).rev().find(|core| allowed.is_set(*core).unwrap_or(false));
    let core = core.or(last).ok_or_else(|| io::Error::other("no core to run on"))?;
    let mut only = CpuSet::new();
    only.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &only)
        .map_err(|error| io::Error::other(format!("core {core}: {error}")))?;
    Ok(core)
}

/// /proc/stat counts idle time in ticks: a turn of half a second can seem this much longer.
const CLOCKS_AGREE: f64 = 1.03;

/// A moment in the life of the core.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    at: Instant,
    ours: Duration,
    core: CoreTimes,
}

#[derive(Debug, Clone, Copy)]
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
    pub(crate) fn take(core: usize, processes: &[u32]) -> io::Result<Self> {
        let mut ours = cpu_time(std::process::id())?;
        for process in processes {
            ours += cpu_time(*process)?;
        }
        // Its work is the network's, and the network is ours alone.
        if let Some(softirq) = softirq_thread(core) {
            ours += cpu_time(softirq)?;
        }
        Ok(Self { at: Instant::now(), ours, core: core_times(core)? })
    }

    /// What happened since an earlier moment.
    pub(crate) fn since(&self, earlier: &Self) -> Used {
        let wall = (self.at - earlier.at).as_secs_f64();
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
fn cpu_time(process: u32) -> io::Result<Duration> {
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
    // Kernel threads are the machine's oldest, so the search is short.
    static FOUND: std::sync::OnceLock<Option<u32>> = std::sync::OnceLock::new();
    *FOUND.get_or_init(|| {
        let name = format!("ksoftirqd/{core}");
        fs::read_dir("/proc").ok()?.filter_map(Result::ok).find_map(|entry| {
            let process: u32 = entry.file_name().to_str()?.parse().ok()?;
            let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
            (comm.trim() == name).then_some(process)
        })
    })
}
