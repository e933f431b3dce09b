//! What the control thread found out about the workers: how long ago the event loop of each one
//! last ran, and which are stuck.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::shared::counters::PerWorker;
use crate::terms::WorkerIndex;

/// Of every worker. The control thread writes it; any thread reads it.
#[derive(Debug)]
pub struct Heartbeats(PerWorker<Heartbeat>);

#[derive(Debug, Default)]
struct Heartbeat {
    age_millis: AtomicU64,
    stuck: AtomicBool,
}

impl Heartbeats {
    /// No worker is stuck.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self(PerWorker::new(workers))
    }

    /// Notes how long ago the event loop of a worker last ran, and whether the worker is stuck.
    pub fn set(&self, worker: WorkerIndex, age: Duration, stuck: bool) {
        let cell = self.0.of(worker);
        cell.age_millis.store(u64::try_from(age.as_millis()).unwrap_or(u64::MAX), Relaxed);
        cell.stuck.store(stuck, Relaxed);
    }

    /// Each worker: how long ago its event loop last ran, and whether it is stuck.
    pub fn all(&self) -> impl Iterator<Item = (Duration, bool)> {
        let read = |cell: &Heartbeat| {
            (Duration::from_millis(cell.age_millis.load(Relaxed)), cell.stuck.load(Relaxed))
        };
        self.0.cells().map(read)
    }

    /// Whether a worker is stuck.
    #[must_use]
    pub fn is_stuck(&self, worker: WorkerIndex) -> bool {
        self.0.of(worker).stuck.load(Relaxed)
    }

    /// The workers that are stuck.
    pub fn stuck(&self) -> impl Iterator<Item = WorkerIndex> {
        let workers = self.0.cells().enumerate();
        workers.filter(|(_, cell)| cell.stuck.load(Relaxed)).map(|(index, _)| WorkerIndex(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stuck_worker_is_listed_until_it_runs_again() {
        let beats = Heartbeats::new(3);
        assert_eq!(beats.stuck().count(), 0);
        beats.set(WorkerIndex(1), Duration::from_millis(2500), true);
        assert_eq!(beats.stuck().collect::<Vec<_>>(), [WorkerIndex(1)]);
        assert_eq!(beats.all().nth(1), Some((Duration::from_millis(2500), true)));
        beats.set(WorkerIndex(1), Duration::ZERO, false);
        assert_eq!(beats.stuck().count(), 0);
    }
}
