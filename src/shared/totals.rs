//! Counters by name: what a process tells the one that replaces it, for as long as it has sessions.
//!
//! They are cumulative, so that one that is lost changes nothing once the next one arrives.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::shared::counters::{
    Count, FrontendCell, Histogram, RetryCounts, ServerCell, WorkerCell,
};
use crate::shared::snapshot::{ProbeCell, ProbeResult};
use crate::terms::{ConnectFailure, Direction, Reason, Refusal};

/// Reads of a cell before its counts are taken as they are: a worker writes meanwhile.
const TRIES: u32 = 16;

/// What begins the name of a count of closed sessions.
const CLOSED: &str = "closed.";

/// What begins the name of a frontend among the objects.
const FRONTEND: &str = "frontend/";

/// What begins the name of a worker among the objects.
const WORKER: &str = "worker/";

/// The name of a worker among the objects.
#[must_use]
pub fn worker(index: usize) -> String {
    format!("{WORKER}{index}")
}

/// The name of a frontend among the objects. (No name contains a slash.)
#[must_use]
pub fn frontend(name: &str) -> String {
    format!("{FRONTEND}{name}")
}

/// The counts of one object that are not zero, by name.
pub type Counts = BTreeMap<String, u64>;

/// The counts of all objects: frontends, servers, backends, queues, workers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals(BTreeMap<String, Counts>);

/// A cell whose counts have names. They never change: another version reads them.
pub trait Named {
    /// Calls `visit` for each count, those of closed sessions before those of opened ones.
    fn each(&self, visit: &mut dyn FnMut(&str, &Count));
}

impl Named for FrontendCell {
    fn each(&self, visit: &mut dyn FnMut(&str, &Count)) {
        for reason in Reason::ALL {
            visit(&format!("{CLOSED}{}", reason.name()), &self.closed[reason as usize]);
        }
        visit("active", &self.active);
        visit("sessions", &self.sessions);
        for refusal in Refusal::ALL {
            visit(&format!("refused.{}", refusal.name()), &self.refused[refusal as usize]);
        }
        bytes(&self.bytes, visit);
        self.session_duration.each(visit);
    }
}

impl Named for ServerCell {
    fn each(&self, visit: &mut dyn FnMut(&str, &Count)) {
        visit("active", &self.active);
        visit("sessions", &self.sessions);
        for failure in ConnectFailure::ALL {
            let name = format!("connect_failures.{}", failure.name());
            visit(&name, &self.connect_failures[failure as usize]);
        }
        visit("retries", &self.retries);
        bytes(&self.bytes, visit);
        self.connect_duration.each(visit);
    }
}

impl Named for WorkerCell {
    /// Without gauges, which are those of threads that end.
    fn each(&self, visit: &mut dyn FnMut(&str, &Count)) {
        visit("turns", &self.turns);
        visit("completions", &self.completions);
        visit("stale_completions", &self.stale_completions);
        visit("cq_overflows", &self.cq_overflows);
        visit("accept_errors", &self.accept_errors);
        visit("buffer_waits", &self.buffer_waits);
        visit("splice_fallbacks", &self.splice_fallbacks);
        visit("log_drops", &self.log_drops);
    }
}

impl Named for ProbeCell {
    fn each(&self, visit: &mut dyn FnMut(&str, &Count)) {
        for result in ProbeResult::ALL {
            visit(&format!("probes.{}", result.name()), &self.results[result as usize]);
        }
    }
}

impl Named for RetryCounts {
    fn each(&self, visit: &mut dyn FnMut(&str, &Count)) {
        for failure in ConnectFailure::ALL {
            visit(&format!("retries.{}", failure.name()), &self[failure as usize]);
        }
    }
}

impl Named for Histogram {
    fn each(&self, visit: &mut dyn FnMut(&str, &Count)) {
        for (index, count) in self.counts().enumerate() {
            visit(&format!("duration.{index}"), count);
        }
    }
}

fn bytes(counts: &[Count], visit: &mut dyn FnMut(&str, &Count)) {
    for direction in Direction::BOTH {
        visit(&format!("bytes.{}", direction.name()), &counts[direction as usize]);
    }
}

impl Totals {
    /// Adds the counts of a cell to those of an object.
    pub fn add_cell(&mut self, object: &str, cell: &impl Named) {
        let mut counts = Counts::new();
        for _ in 0..TRIES {
            counts.clear();
            cell.each(&mut |name, count| {
                counts.insert(name.to_owned(), count.read());
            });
            if is_balanced(&counts) {
                break;
            }
        }
        counts.retain(|_, count| *count > 0);
        self.add(object, &counts);
    }

    /// Adds counts to those of an object.
    pub fn add(&mut self, object: &str, counts: &Counts) {
        let sums = self.0.entry(object.to_owned()).or_default();
        for (name, count) in counts {
            let sum = sums.entry(name.clone()).or_default();
            *sum = sum.wrapping_add(*count);
        }
    }

    /// Adds all counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (object, counts) in &other.0 {
            self.add(object, counts);
        }
    }

    /// Whether there are counts of that object.
    #[must_use]
    pub fn has(&self, object: &str) -> bool {
        self.0.contains_key(object)
    }

    /// One count; 0 if it is not there.
    #[must_use]
    pub fn count(&self, object: &str, name: &str) -> u64 {
        self.0.get(object).and_then(|counts| counts.get(name)).copied().unwrap_or(0)
    }

    /// Adds the counts of workers that a process with so many `workers` does not have to those of
    /// its own, in turn: no series of a worker that it has goes back.
    pub fn fold_workers(&mut self, workers: usize) {
        let index = |object: &str| object.strip_prefix(WORKER)?.parse::<usize>().ok();
        let beyond = |object: &&String| index(object).is_some_and(|index| index >= workers);
        let gone: Vec<String> = self.0.keys().filter(beyond).cloned().collect();
        for object in gone {
            if let (Some(counts), Some(index)) = (self.0.remove(&object), index(&object)) {
                self.add(&worker(index % workers.max(1)), &counts);
            }
        }
    }

    /// Writes the counts of an object into a cell. Only for the thread that owns it.
    pub fn write(&self, object: &str, cell: &impl Named) {
        let counts = self.0.get(object);
        cell.each(&mut |name, count| {
            count.set(counts.and_then(|counts| counts.get(name)).copied().unwrap_or(0));
        });
    }

    /// Its process is gone: the sessions that it had, by its last word, were killed with it. How
    /// many there were.
    pub fn end_sessions(&mut self) -> u64 {
        let mut ended = 0;
        for (object, counts) in &mut self.0 {
            let active = counts.remove("active").unwrap_or(0);
            // Each session is one of a frontend; it may be one of a server as well.
            if active > 0 && object.starts_with(FRONTEND) {
                *counts.entry(format!("{CLOSED}{}", Reason::Killed.name())).or_default() += active;
                ended += active;
            }
        }
        ended
    }
}

/// Whether opened = closed + active, in cells that count closed sessions.
fn is_balanced(counts: &Counts) -> bool {
    let mut closed = counts.iter().filter(|(name, _)| name.starts_with(CLOSED)).peekable();
    if closed.peek().is_none() {
        return true;
    }
    let of = |name: &str| counts.get(name).copied().unwrap_or(0);
    let closed = closed.fold(0u64, |sum, (_, count)| sum.wrapping_add(*count));
    closed.wrapping_add(of("active")) == of("sessions")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(opened: u64, closed: u64) -> FrontendCell {
        let cell = FrontendCell::default();
        cell.sessions.add(opened);
        cell.closed[Reason::Done as usize].add(closed);
        cell.active.add(opened - closed);
        cell.session_duration.record(std::time::Duration::from_millis(3));
        cell
    }

    #[test]
    fn counts_of_two_processes_are_added_and_written_into_a_cell() {
        let mut totals = Totals::default();
        totals.add_cell("frontend/web", &cell(5, 3));
        let mut other = Totals::default();
        other.add_cell("frontend/web", &cell(7, 7));
        totals.merge(&other);
        let text = serde_json::to_string(&totals).unwrap();
        let totals: Totals = serde_json::from_str(&text).unwrap();
        let carried = cell(1, 0);
        totals.write("frontend/web", &carried);
        assert_eq!((carried.sessions.read(), carried.active.read()), (12, 2));
        assert_eq!(carried.closed[Reason::Done as usize].read(), 10);
        assert_eq!(carried.session_duration.counts().map(Count::read).sum::<u64>(), 6002);
        totals.write("frontend/other", &carried);
        assert_eq!(carried.sessions.read(), 0, "what is not in it is 0");
    }

    #[test]
    fn the_sessions_of_a_process_that_is_gone_count_as_killed() {
        let mut totals = Totals::default();
        totals.add_cell(&frontend("web"), &cell(5, 3));
        totals.add("server/web/a", &Counts::from([("active".to_owned(), 2)]));
        assert_eq!(totals.end_sessions(), 2);
        let counts = &totals.0["frontend/web"];
        assert_eq!((counts["sessions"], counts["closed.done"], counts["closed.killed"]), (5, 3, 2));
        assert!(is_balanced(counts) && totals.0["server/web/a"].is_empty());
    }
}
