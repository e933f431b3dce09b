//! This process, by /proc: the metrics named `process_*`, as the client libraries of Prometheus
//! have them.

use std::fs;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{SysconfVar, sysconf};

/// This process, now.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    /// Open descriptors.
    pub open_fds: u64,
    /// The soft limit of `RLIMIT_NOFILE`.
    pub max_fds: u64,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// Address space, in bytes.
    pub virtual_bytes: u64,
    /// User and system time of all threads, since the start.
    pub cpu: Duration,
    /// The start, since 1970; the same in every call, whatever the clock does.
    pub start: Duration,
}

impl Process {
    /// Reads /proc/self (proc(5)): for a scrape, not for the data path.
    ///
    /// # Errors
    /// /proc is not mounted, or not as in proc(5).
    pub fn read() -> io::Result<Self> {
        let stat = Stat::parse(&fs::read_to_string("/proc/self/stat")?)
            .ok_or_else(|| io::Error::other("/proc/self/stat is not as in proc(5)"))?;
        let ticks = ticks_per_second()?;
        Ok(Self {
            open_fds: open_descriptors()?,
            max_fds: getrlimit(Resource::RLIMIT_NOFILE)?.0,
            resident_bytes: stat.resident_pages.saturating_mul(value(SysconfVar::PAGE_SIZE)?),
            virtual_bytes: stat.virtual_bytes,
            cpu: from_ticks(stat.cpu_ticks, ticks),
            start: start(stat.start_ticks, ticks)?,
        })
    }
}

/// Open descriptors. Listing 20,000 of them takes 15 ms of CPU time.
fn open_descriptors() -> io::Result<u64> {
    // The size of the folder is their number (kernel 6.2).
    match fs::metadata("/proc/self/fd")?.len() {
        0 => listed_descriptors(),
        open => Ok(open),
    }
}

fn listed_descriptors() -> io::Result<u64> {
    // The descriptor that reads the folder is in it.
    let open = fs::read_dir("/proc/self/fd")?.count().saturating_sub(1);
    Ok(u64::try_from(open).unwrap_or(u64::MAX))
}

/// The fields of /proc/self/stat that are used.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    /// proc(5) numbers the fields from 1; the second, the name, may hold blanks and brackets.
    fn parse(text: &str) -> Option<Self> {
        const AFTER_NAME: usize = 3;
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - AFTER_NAME)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)?.saturating_add(field(15)?),
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// The time of boot changes when the clock is set; the first value is kept.
fn start(ticks: u64, per_second: u64) -> io::Result<Duration> {
    static START: OnceLock<Duration> = OnceLock::new();
    if let Some(start) = START.get() {
        return Ok(*start);
    }
    let stat = fs::read_to_string("/proc/stat")?;
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
    let boot = boot.ok_or_else(|| io::Error::other("/proc/stat has no btime"))?;
    Ok(*START.get_or_init(|| Duration::from_secs(boot) + from_ticks(ticks, per_second)))
}

fn from_ticks(ticks: u64, per_second: u64) -> Duration {
    let per_second = per_second.max(1);
    let millis = u128::from(ticks) * 1000 / u128::from(per_second);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

fn ticks_per_second() -> io::Result<u64> {
    value(SysconfVar::CLK_TCK)
}

fn value(variable: SysconfVar) -> io::Result<u64> {
    let value = sysconf(variable)?.and_then(|value| u64::try_from(value).ok());
    value.ok_or_else(|| io::Error::other("sysconf(3) has no answer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let text = "1 (a) b) (c) S 4 5 6 7 8 9 10 11 12 13 140 15 16 17 18 19 20 21 22 230 24 25";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(
            stat,
            Stat { cpu_ticks: 155, start_ticks: 22, virtual_bytes: 230, resident_pages: 24 }
        );
        assert_eq!(Stat::parse("1 (cut) S 4"), None);
    }

    #[test]
    fn descriptors_are_as_many_as_are_listed() {
        // Other tests open and close some meanwhile.
        let agree = || open_descriptors().unwrap() == listed_descriptors().unwrap();
        assert!((0..10_000).any(|_| agree()));
    }

    #[test]
    fn this_process_has_memory_descriptors_and_a_start() {
        let process = Process::read().unwrap();
        assert!(process.open_fds >= 3 && process.open_fds <= process.max_fds);
        assert!(process.resident_bytes > 0 && process.virtual_bytes >= process.resident_bytes);
        assert_eq!(process.start, Process::read().unwrap().start);
    }
}
