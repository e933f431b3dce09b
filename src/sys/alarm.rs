//! The alarm of a ring: one timer of the kernel for all its waits, told of another time only if
//! that is earlier. A timer that is set and taken back in each wait is a twentieth of what a small
//! message costs alone.

use std::time::Duration;

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::Timespec;

/// One that should have gone off so long ago was lost: a completion queue that has overflown while
/// there was no memory loses completions.
const LOST_AFTER: Duration = Duration::from_secs(1);

/// When it goes off, and how the kernel is told. Times are those of the ring's clock.
#[derive(Debug)]
pub(super) struct Alarm {
    /// None: it is not set.
    at: Option<Duration>,
    /// What the last entry points to; the kernel copies it at submission. An update that is
    /// submitted late finds an earlier time there, or fails as its alarm has gone off.
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

    /// Whether a wait might go on after `until`.
    pub(super) fn is_too_late(&self, now: Duration, until: Duration) -> bool {
        self.at.is_none_or(|at| at > until || now > at + LOST_AFTER)
    }

    /// Sets it, `now` being the time of this very moment: what is to be submitted for that. What
    /// the entry points to lives as long as the alarm.
    pub(super) fn set(&mut self, now: Duration, until: Duration) -> Entry {
        *self.after = Timespec::from(until.saturating_sub(now));
        let after = &raw const *self.after;
        let (own, nobody) = self.tokens;
        match self.at.replace(until) {
            // It may have just gone off: this fails then, and its completion is on the way.
            Some(at) if at > until => {
                let entry = opcode::TimeoutUpdate::new(own, after).build();
                entry.flags(Flags::SKIP_SUCCESS).user_data(nobody)
            }
            _ => opcode::Timeout::new(after).build().user_data(own),
        }
    }

    /// Its completion has come.
    pub(super) const fn went_off(&mut self) {
        self.at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_told_of_earlier_times_only_and_again_of_one_that_was_lost() {
        let seconds = Duration::from_secs;
        let mut alarm = Alarm::new(1, 2);
        assert!(alarm.is_too_late(seconds(0), seconds(9)), "it is not set");
        assert_eq!(alarm.set(seconds(0), seconds(9)).get_user_data(), 1);
        assert!(!alarm.is_too_late(seconds(1), seconds(9)));
        assert!(!alarm.is_too_late(seconds(1), seconds(99)));
        assert!(alarm.is_too_late(seconds(1), seconds(8)));
        assert_eq!(alarm.set(seconds(1), seconds(8)).get_user_data(), 2, "the same, moved");
        assert!(!alarm.is_too_late(seconds(9), seconds(99)), "its completion may be on the way");
        assert!(alarm.is_too_late(seconds(10), seconds(99)), "it never came");
        assert_eq!(alarm.set(seconds(10), seconds(99)).get_user_data(), 1, "a new one");
        alarm.went_off();
        assert!(alarm.is_too_late(seconds(10), seconds(99)));
    }
}
