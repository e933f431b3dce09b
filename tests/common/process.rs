//! Resources of a process, as /proc shows them.

use std::fs;
use std::path::Path;

/// Descriptors of a process, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Descriptors {
    pub(crate) sockets: usize,
    pub(crate) pipes: usize,
    pub(crate) others: usize,
}

impl Descriptors {
    pub(crate) fn of(pid: u32) -> Self {
        let mut found = Self { sockets: 0, pipes: 0, others: 0 };
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            // It may have been closed meanwhile.
            let Ok(target) = fs::read_link(entry.unwrap().path()) else { continue };
            let target = target.to_string_lossy();
            match &target {
                target if target.starts_with("socket:") => found.sockets += 1,
                target if target.starts_with("pipe:") => found.pipes += 1,
                _ => found.others += 1,
            }
        }
        found
    }

    pub(crate) const fn all(self) -> usize {
        self.sockets + self.pipes + self.others
    }
}

/// Processor time of a process in clock ticks, in user and kernel mode.
pub(crate) fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap();
    // Fields 14 and 15 of proc(5). Field 2 ends with the parenthesis behind the name.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// The number of a line of /proc/PID/status; none if the process has ended.
pub(crate) fn status_number(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mut lines = status.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(found, _)| *found == name)?;
    Some(value.split_whitespace().next().unwrap().parse().unwrap())
}

/// Resident memory of a process in KiB, or 0 if it has ended.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    status_number(pid, "VmRSS").unwrap_or(0)
}

/// Whether every thread of a process has stopped (proc(5): the state behind the name): after
/// SIGSTOP, they go on for a moment.
pub(crate) fn is_stopped(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let stats = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("stat")));
    let mut stats = stats.map(Result::unwrap);
    stats.all(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
}
