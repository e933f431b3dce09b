//! The counters that workers write and a scrape reads.
//!
//! Each worker has one padded cell for each counted object and is its only writer, so that counting
//! is a plain load and store: no locked instruction, and no cache line that workers share. A scrape
//! sums the cells.

use std::iter::Sum;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crossbeam::utils::CachePadded;

use crate::terms::{ConnectFailure, Direction, Reason, Refusal, WorkerIndex};

/// A number that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`. Only the thread that owns the cell may call it: there is no locked add.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Subtracts `n`, for gauges. Only the owner may call it.
    #[inline]
    pub fn subtract(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Replaces the value, for gauges. Only the owner may call it.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The value; any thread may read it.
    #[inline]
    pub fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One padded `T` for each worker, and one for the processes that this one has replaced.
#[derive(Debug)]
pub struct PerWorker<T> {
    cells: Box<[CachePadded<T>]>,
    carried: CachePadded<T>,
}

impl<T: Default> PerWorker<T> {
    /// Cells for `workers` workers, all zero.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        let cells = (0..workers).map(|_| CachePadded::new(T::default())).collect();
        Self { cells, carried: CachePadded::default() }
    }

    /// The cell that only `worker` writes.
    #[inline]
    pub fn of(&self, worker: WorkerIndex) -> &T {
        &self.cells[worker.0]
    }

    /// The cells of the workers.
    pub fn cells(&self) -> impl Iterator<Item = &T> {
        self.cells.iter().map(|cell| &**cell)
    }

    /// What the processes before this one have counted. Only the control thread writes it.
    pub fn carried(&self) -> &T {
        &self.carried
    }

    /// All cells, to be summed.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.cells().chain([self.carried()])
    }

    /// The sum of one number over all workers and the processes before this one.
    pub fn sum(&self, of: impl Fn(&T) -> u64) -> u64 {
        self.all().fold(0, |sum, cell| sum.wrapping_add(of(cell)))
    }
}

/// The upper bounds of the buckets of every histogram of durations, in nanoseconds: 50 µs (a
/// connect on one machine) to 10 minutes (a long session); the last bucket has none.
pub const BOUNDS: [u64; 15] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    10_000_000_000,
    60_000_000_000,
    600_000_000_000,
];

/// Durations, by bucket of [`BOUNDS`], one writer.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Count; BOUNDS.len() + 1],
    sum: Count,
}

impl Histogram {
    /// Counts one duration. Only the owner may call it.
    pub fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].add(1);
        self.sum.add(nanos.saturating_add(500) / 1000);
    }

    /// Every bucket, then the sum.
    pub fn counts(&self) -> impl Iterator<Item = &Count> {
        self.buckets.iter().chain([&self.sum])
    }
}

/// The sum of several histograms.
#[derive(Debug, Default, Clone)]
pub struct HistogramSum {
    /// How many fell into each bucket of [`BOUNDS`] (not cumulated); the last has no bound.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// All durations together, in microseconds: in nanoseconds, 10,000 sessions at a time would be
    /// more than 64 bits after three weeks.
    pub micros: u64,
}

impl<'a> Sum<&'a Histogram> for HistogramSum {
    fn sum<I: Iterator<Item = &'a Histogram>>(histograms: I) -> Self {
        let mut sum = Self::default();
        histograms.for_each(|histogram| sum.add(histogram));
        sum
    }
}

impl HistogramSum {
    fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum = sum.wrapping_add(bucket.read());
        }
        self.micros = self.micros.wrapping_add(histogram.sum.read());
    }

    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, bucket| sum.wrapping_add(*bucket))
    }
}

/// The counters of one worker for one frontend.
#[derive(Debug, Default)]
pub struct FrontendCell {
    /// Sessions opened.
    pub sessions: Count,
    /// Sessions open now (gauge).
    pub active: Count,
    /// Sessions closed, by [`Reason`].
    pub closed: [Count; Reason::ALL.len()],
    /// Connections refused before they became sessions, by [`Refusal`].
    pub refused: [Count; Refusal::ALL.len()],
    /// Bytes delivered, by [`Direction`].
    pub bytes: [Count; Direction::BOTH.len()],
    /// From accept to the end.
    pub session_duration: Histogram,
}

/// The counters of one worker for one server.
#[derive(Debug, Default)]
pub struct ServerCell {
    /// Sessions connected to it.
    pub sessions: Count,
    /// Sessions that hold it now, connecting ones too (gauge).
    pub active: Count,
    /// Attempts that failed, by [`ConnectFailure`].
    pub connect_failures: [Count; ConnectFailure::ALL.len()],
    /// Attempts that were made after another server (or this one) had failed.
    pub retries: Count,
    /// Bytes delivered, by [`Direction`].
    pub bytes: [Count; Direction::BOTH.len()],
    /// From the attempt to the established connection.
    pub connect_duration: Histogram,
}

/// Retries, by the [`ConnectFailure`] before them.
pub type RetryCounts = [Count; ConnectFailure::ALL.len()];

/// The counters of one backend, whatever its servers are: those that have a label more than a
/// server can afford where there are thousands.
#[derive(Debug)]
pub struct BackendCells {
    /// Attempts that were made after one had failed, by how that one had.
    pub retries: PerWorker<RetryCounts>,
    /// From the start of a probe to its result: one cell, of the control thread, and what is
    /// carried.
    pub probe_duration: PerWorker<Histogram>,
}

impl BackendCells {
    /// For `workers` workers, all zero.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { retries: PerWorker::new(workers), probe_duration: PerWorker::new(1) }
    }
}

/// The counters of one worker for itself.
#[derive(Debug, Default)]
pub struct WorkerCell {
    /// Iterations of the event loop (turns), one `io_uring_enter` each.
    pub turns: Count,
    /// Completions reaped.
    pub completions: Count,
    /// Completions of sessions that had ended.
    pub stale_completions: Count,
    /// Turns that found an overflow of the completion queue.
    pub cq_overflows: Count,
    /// Accepts that failed, whatever the errno.
    pub accept_errors: Count,
    /// 1 while the worker has paused accepting: no descriptor or session is left (gauge).
    pub accept_paused: Count,
    /// Buffers that hold bytes now (gauge).
    pub buffers_in_use: Count,
    /// Buffers of the pool (gauge).
    pub buffers: Count,
    /// 1 while more than a third of the buffers are held for peers that do not read (gauge).
    pub buffers_stalled: Count,
    /// Receives that found no buffer and had to wait.
    pub buffer_waits: Count,
    /// Pipes that hold bytes now (gauge).
    pub pipes_in_use: Count,
    /// Transfers that were copied because no pipe was left.
    pub splice_fallbacks: Count,
    /// Session records that were dropped because the channel to the log was full.
    pub log_drops: Count,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_micros(50));
        histogram.record(Duration::from_nanos(50_001));
        histogram.record(Duration::from_secs(3600));
        let sum: HistogramSum = [&histogram].into_iter().sum();
        assert_eq!((sum.buckets[0], sum.buckets[1], sum.buckets[15]), (1, 1, 1));
        assert_eq!(sum.count(), 3);
        assert_eq!(sum.micros, 50 + 50 + 3_600_000_000);
    }

    #[test]
    fn the_sum_is_over_all_workers() {
        let cells: PerWorker<WorkerCell> = PerWorker::new(3);
        cells.of(WorkerIndex(0)).turns.add(2);
        cells.of(WorkerIndex(2)).turns.add(5);
        assert_eq!(cells.sum(|cell| cell.turns.read()), 7);
    }
}
