//! The phase of the process: running, draining until a deadline, stopped.
//!
//! The control thread writes it; a worker reads it once a turn.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The phase of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Accepting.
    Running,
    /// Not accepting; sessions continue until this time.
    Draining(Instant),
    /// Every session ends now.
    Stopped,
}

impl Phase {
    /// One word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Draining(_) => "draining",
            Self::Stopped => "stopped",
        }
    }
}

/// The phase in force, shared by all threads.
#[derive(Debug)]
pub struct PhaseCell {
    /// Deadlines are stored as milliseconds since then.
    epoch: Instant,
    /// [`RUNNING`], [`STOPPED`], or the deadline of a drain.
    word: AtomicU64,
    /// The drain begins soon: clients are still accepted, and /readyz answers 503.
    leaving: AtomicBool,
}

const RUNNING: u64 = 0;
const STOPPED: u64 = u64::MAX;

impl PhaseCell {
    /// Running; `now` is the program's start.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self { epoch: now, word: AtomicU64::new(RUNNING), leaving: AtomicBool::new(false) }
    }

    /// The time from the program's start to `now`, which all threads can compare.
    #[must_use]
    pub fn since_start(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch)
    }

    /// The phase in force.
    #[must_use]
    pub fn load(&self) -> Phase {
        match self.word.load(Ordering::Acquire) {
            RUNNING => Phase::Running,
            STOPPED => Phase::Stopped,
            millis => Phase::Draining(self.epoch + Duration::from_millis(millis)),
        }
    }

    /// Announces a drain that begins later (`global.drain_delay`).
    pub fn announce_drain(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether a drain was announced.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Sets the phase; workers see it at their next turn (wake them).
    pub fn store(&self, phase: Phase) {
        let word = match phase {
            Phase::Running => RUNNING,
            Phase::Stopped => STOPPED,
            Phase::Draining(deadline) => {
                let millis = deadline.saturating_duration_since(self.epoch).as_millis();
                u64::try_from(millis).unwrap_or(STOPPED - 1).clamp(RUNNING + 1, STOPPED - 1)
            }
        };
        self.word.store(word, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_stored_to_the_millisecond() {
        let now = Instant::now();
        let cell = PhaseCell::new(now);
        assert_eq!(cell.load(), Phase::Running);
        let deadline = now + Duration::from_millis(1234);
        cell.store(Phase::Draining(deadline));
        assert_eq!(cell.load(), Phase::Draining(deadline));
        cell.store(Phase::Stopped);
        assert_eq!(cell.load(), Phase::Stopped);
    }

    #[test]
    fn a_deadline_that_has_passed_is_still_a_drain() {
        let now = Instant::now();
        let cell = PhaseCell::new(now);
        cell.store(Phase::Draining(now));
        assert!(matches!(cell.load(), Phase::Draining(_)));
    }
}
