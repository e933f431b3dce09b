//! The memory of idle sessions, in the balancer and in the kernel.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use crate::exchange::open_idle;
use crate::output::log;
use crate::process::pause;
use crate::report::{Turn, median};
use crate::rounds::Bench;
use crate::subject::{DIRECT, Subject};
use crate::work::Kind;

/// A median of three is enough: memory does not depend on the load of the machine.
const ROUNDS_MAX: usize = 3;

/// The most sessions that a balancer has room for, with two descriptors each.
pub(crate) fn sessions_max(descriptors: usize) -> io::Result<usize> {
    let most = (descriptors.saturating_sub(400) / 2).min(20_000);
    if most < 400 {
        return Err(io::Error::other("idle: raise the limit of open files: ulimit -n 20000"));
    }
    Ok(most)
}

impl Bench {
    /// Memory of an idle session: the slope between two counts.
    pub(crate) fn idle(&self, kind: &Kind, most: usize) -> io::Result<()> {
        let few = (most / 4).min(1000);
        let title = format!("{}, slope from {few} to {most}", kind.title);
        let mut direct = 0.0;
        for subject in &self.subjects {
            log(&format!("{}: {}", kind.name, subject.name));
            let mut turns = Vec::new();
            for _ in 0..self.rounds.min(ROUNDS_MAX) {
                match self.memory(*subject, [few, most]) {
                    Ok(turn) => turns.push(turn),
                    Err(error) => self.leave_out_failed(kind.name, *subject, &error)?,
                }
            }
            if subject.name == DIRECT {
                direct = median(turns.iter().map(|turn| turn["kernel"])).unwrap_or(0.0);
                continue;
            }
            for turn in &mut turns {
                turn.entry("kernel").and_modify(|kernel| *kernel -= direct);
            }
            self.report.borrow_mut().add((kind.name, &title), *subject, &turns);
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    fn memory(&self, subject: Subject, [few, most]: [usize; 2]) -> io::Result<Turn> {
        let mut layout = self.layout();
        layout.setup.sessions_max = most + 100;
        let running = self.installation.start(subject, &layout.setup)?;
        let address = layout.addresses(running.as_ref())[0];
        let process = running.as_ref().map(|running| running.process());
        let mut sessions = Vec::new();
        let mut memory = |count| {
            open_idle(&mut sessions, count, address)?;
            // evenkeel gives the memory of a burst back after a second.
            let least =
                if subject.is_evenkeel() { Duration::from_millis(1500) } else { Duration::ZERO };
            settled(process, least)
        };
        let (start, with_few, with_most) = (memory(0)?, memory(few)?, memory(most)?);
        let slope = |few, many| (many - few) / (most as f64);
        let span = most as f64 / (most - few) as f64;
        Ok(Turn::from([
            ("user", slope(with_few.0, with_most.0) * span),
            ("kernel", slope(with_few.1, with_most.1) * span),
            ("at_start", start.0 / 1024.0),
            ("with_most", slope(start.0, with_most.0)),
        ]))
    }
}

/// Bytes of user and of kernel memory, once `least` has passed and the former has not changed for
/// 200 ms, or after 5 s.
fn settled(process: Option<u32>, least: Duration) -> io::Result<(f64, f64)> {
    let start = Instant::now();
    let deadline = start + Duration::from_secs(5);
    let mut last = (0.0_f64, 0);
    loop {
        let user = process.map_or(Ok(0.0), user_memory)?;
        last = (user, if user.total_cmp(&last.0).is_eq() { last.1 + 1 } else { 1 });
        if (last.1 >= 3 && start.elapsed() >= least) || Instant::now() > deadline {
            return Ok((user, kernel_memory()?));
        }
        pause(Duration::from_millis(100));
    }
}

/// Proportional set size of a process: resident memory, where a shared page counts by its share.
fn user_memory(process: u32) -> io::Result<f64> {
    let path = format!("/proc/{process}/smaps_rollup");
    let kibibytes = field(&fs::read_to_string(&path)?, "Pss:");
    kibibytes.map(|kib| kib * 1024.0).ok_or_else(|| io::Error::other(format!("{path}: no Pss")))
}

/// Memory of the whole machine that sockets use: slabs, and pages of TCP.
fn kernel_memory() -> io::Result<f64> {
    let slab = field(&fs::read_to_string("/proc/meminfo")?, "Slab:").unwrap_or(0.0);
    let sockets = fs::read_to_string("/proc/net/sockstat")?;
    let tcp = sockets.lines().find(|line| line.starts_with("TCP:"));
    let pages = tcp.and_then(|line| line.split("mem ").nth(1)?.trim().parse::<f64>().ok());
    Ok(slab * 1024.0 + pages.unwrap_or(0.0) * 4096.0)
}

fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}
