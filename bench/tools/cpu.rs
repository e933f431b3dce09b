//! CPU time: of our processes, and of the cores that they are pinned to.
//!
//! A rate is work / (CPU time of our processes + idle time), or other users of the machine would
//! decide the figure. Time that a hypervisor stole is not ours either.

use std::fs;
use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// The unit of /proc/stat: `USER_HZ`, 100 on every architecture that we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// /proc/stat counts idle time in ticks, so a turn of half a second can seem this much longer.
const CLOCKS_AGREE: f64 = 1.03;

/// The cores that this process may use.
pub(crate) fn allowed_cores() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect())
}

/// Pins this thread, and the processes that it starts from now on, to these cores.
pub(crate) fn pin(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set)
        .map_err(|error| io::Error::other(format!("cores {cores:?}: {error}")))
}

/// CPU time of a process and of all its threads, in seconds.
pub(crate) fn cpu_time(process: u32) -> io::Result<f64> {
    let clock = clock_getcpuclockid(Pid::from_raw(process.cast_signed()))
        .map_err(|error| io::Error::other(format!("process {process} has ended: {error}")))?;
    Ok(Duration::from(clock.now()?).as_secs_f64())
}

/// The counters at one moment, in seconds.
#[derive(Debug)]
pub(crate) struct Snapshot {
    at: Instant,
    ours: f64,
    idle: f64,
    stolen: f64,
    cores: f64,
}

/// How a window of time was used.
#[derive(Debug)]
pub(crate) struct Usage {
    /// Seconds of our CPU time and idle time, for each core.
    pub(crate) ours_and_idle: f64,
    /// Share of the window that others or the hypervisor had.
    pub(crate) others: f64,
    /// CPU time that we used on further cores, as a share of the window.
    pub(crate) elsewhere: f64,
    /// Share of the window in which the cores were idle.
    pub(crate) idle: f64,
}

impl Snapshot {
    /// Reads the counters; `processes` are ours besides this one.
    pub(crate) fn take(cores: &[usize], processes: &[u32]) -> io::Result<Self> {
        let mut ours = cpu_time(std::process::id())?;
        for process in processes {
            ours += cpu_time(*process)?;
        }
        let (mut idle, mut stolen) = (0.0, 0.0);
        let stat = fs::read_to_string("/proc/stat")?;
        for core in cores {
            // The kernel's thread for soft interrupts does the work of our network.
            ours += softirq_thread(*core).map(cpu_time).transpose()?.unwrap_or(0.0);
            let name = format!("cpu{core} ");
            let line = stat.lines().find_map(|line| line.strip_prefix(&name));
            let line = line.ok_or_else(|| io::Error::other(format!("/proc/stat: no {name}")))?;
            let fields = line.split_whitespace().map_while(|field| field.parse::<f64>().ok());
            let fields: Vec<f64> = fields.map(|ticks| ticks / TICKS_PER_SECOND).collect();
            let field = |index: usize| fields.get(index).copied().unwrap_or(0.0);
            // user nice system idle iowait irq softirq steal: proc_stat(5).
            idle += field(3) + field(4);
            stolen += field(7);
            if field(5) > 0.0 {
                // This kernel does not count interrupts as time of the interrupted task.
                ours += field(5) + field(6);
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a number of cores")]
        let cores = cores.len() as f64;
        Ok(Self { at: Instant::now(), ours, idle, stolen, cores })
    }

    /// How the time since an earlier snapshot was used.
    pub(crate) fn since(&self, earlier: &Self) -> Usage {
        let wall = (self.at - earlier.at).as_secs_f64() * self.cores;
        let idle = self.idle - earlier.idle;
        let mut ours_and_idle = self.ours - earlier.ours + idle;
        // Some kernels count stolen time as a task's own. Anything beyond the tolerance of the
        // clocks is work on another core (io_uring's kernel threads ignore the pinning): it counts.
        if ours_and_idle <= wall * CLOCKS_AGREE {
            let not_stolen = wall - (self.stolen - earlier.stolen);
            ours_and_idle = ours_and_idle.min(not_stolen.max(0.001));
        }
        Usage {
            ours_and_idle: ours_and_idle / self.cores,
            others: (1.0 - ours_and_idle / wall).max(0.0),
            elsewhere: (ours_and_idle / wall - CLOCKS_AGREE).max(0.0),
            idle: (idle / wall).min(1.0),
        }
    }
}

/// The process id of a core's ksoftirqd; none where it is not visible (in a container).
fn softirq_thread(core: usize) -> Option<u32> {
    static THREADS: OnceLock<Vec<(String, u32)>> = OnceLock::new();
    let threads = THREADS.get_or_init(|| {
        let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
        let threads = entries.filter_map(|entry| {
            let process = entry.file_name().to_str()?.parse().ok()?;
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            name.starts_with("ksoftirqd/").then(|| (name.trim().to_owned(), process))
        });
        threads.collect()
    });
    let name = format!("ksoftirqd/{core}");
    threads.iter().find(|(thread, _)| *thread == name).map(|(_, process)| *process)
}

/// TCP segments that this network namespace has sent, acknowledgements without data included. A
/// large send counts as the segments that it becomes.
pub(crate) fn segments_sent() -> io::Result<f64> {
    tcp_counter("OutSegs")
}

/// TCP connects that this network namespace has begun.
pub(crate) fn connects_begun() -> io::Result<f64> {
    tcp_counter("ActiveOpens")
}

/// A counter of TCP, by its name in RFC 4022.
fn tcp_counter(wanted: &str) -> io::Result<f64> {
    let text = fs::read_to_string("/proc/net/snmp")?;
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:")).map(str::split_whitespace);
    let fields = lines.next().zip(lines.next()).map(|(names, values)| names.zip(values));
    fields
        .into_iter()
        .flatten()
        .find_map(|(name, value)| if name == wanted { value.parse().ok() } else { None })
        .ok_or_else(|| io::Error::other(format!("/proc/net/snmp has no {wanted}")))
}
