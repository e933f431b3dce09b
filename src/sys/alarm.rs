//! The alarm of a ring: one timer of the kernel for all its waits, told of another time only if
//! that is earlier. A timer that is set and taken back in each wait is a twentieth of what a small
//! message costs alone.

use std::time::Duration;

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::Timespec;

/// When it goes off, and how the kernel is told.
#[derive(Debug)]
pub(super) struct Alarm {
    /// By the clock of who waits; none: it is not set.
    at: Option<Duration>,
    /// What the last entry points to; the kernel copies it at submission. An entry that is
    /// submitted late finds another time there, which is no later than the one it was made for.
    after: Box<Timespec>,
    /// Of its own completion, and of those that nobody wants.
    tokens: (u64, u64),
}

impl Alarm {
    /// Not set. `own` is the `user_data` of its completion, `nobody` the one of an answer that says
    /// nothing.
    pub(super) fn new(own: u64, nobody: u64) -> Self {
        Self { at: None, after: Box::new(Timespec::new()), tokens: (own, nobody) }
    }

    /// Sees that it has gone off at `until`, if not before: what is to be submitted for that, if
    /// anything. What the entry points to lives as long as the alarm.
    pub(super) fn set(&mut self, now: Duration, until: Duration) -> Option<Entry> {
        if self.at.is_some_and(|at| at <= until) {
            return None;
        }
        *self.after = Timespec::from(until.saturating_sub(now));
        let after = &raw const *self.after;
        let (own, nobody) = self.tokens;
        Some(match self.at.replace(until) {
            None => opcode::Timeout::new(after).build().user_data(own),
            // It may have just gone off: this fails then, and its completion is on the way.
            Some(_) => {
                let entry = opcode::TimeoutUpdate::new(own, after).build();
                entry.flags(Flags::SKIP_SUCCESS).user_data(nobody)
            }
        })
    }

    /// Its completion has come.
    pub(super) const fn went_off(&mut self) {
        self.at = None;
    }
}
