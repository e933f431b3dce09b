//! The timer that ends the waits of a ring: one timeout in the kernel for all of them, which is
//! updated only to an earlier time. A timeout that is armed and removed in each wait is a twentieth
//! of what a small message costs alone.

use std::time::Duration;

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::Timespec;

/// A timer that should have expired so long ago is lost: a completion queue that overflows while
/// there is no memory loses completions.
const LOST_AFTER: Duration = Duration::from_secs(1);

/// When the timer expires, and how the kernel is told. Times are those of the ring's clock.
#[derive(Debug)]
pub(super) struct WaitTimer {
    /// None: it is not armed.
    expires: Option<Duration>,
    /// What the last entry points to. The kernel copies it at submission: an update that is
    /// submitted late finds an earlier time there, or fails because its timer has expired.
    after: Box<Timespec>,
    /// The user data of its own completion, and of completions that nobody waits for.
    user_data: (u64, u64),
}

impl WaitTimer {
    /// A timer that is not armed. `own` is the user data of its completion, `nobody` that of
    /// completions that nobody waits for.
    pub(super) fn new(own: u64, nobody: u64) -> Self {
        Self { expires: None, after: Box::new(Timespec::new()), user_data: (own, nobody) }
    }

    /// Whether a wait could last longer than `until`.
    pub(super) fn is_too_late(&self, now: Duration, until: Duration) -> bool {
        self.expires.is_none_or(|expires| expires > until || now > expires + LOST_AFTER)
    }

    /// Arms the timer; `now` is the time of this very moment. Returns the entry to submit. What it
    /// points to lives as long as the timer.
    pub(super) fn arm(&mut self, now: Duration, until: Duration) -> Entry {
        *self.after = Timespec::from(until.saturating_sub(now));
        let after = &raw const *self.after;
        let (own, nobody) = self.user_data;
        match self.expires.replace(until) {
            // It may have just expired: then the update fails, and its completion is on the way.
            Some(expires) if expires > until => {
                let entry = opcode::TimeoutUpdate::new(own, after).build();
                entry.flags(Flags::SKIP_SUCCESS).user_data(nobody)
            }
            _ => opcode::Timeout::new(after).build().user_data(own),
        }
    }

    /// Its completion was read.
    pub(super) const fn on_expired(&mut self) {
        self.expires = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timer_is_armed_again_for_an_earlier_time_and_after_it_was_lost() {
        let seconds = Duration::from_secs;
        let mut timer = WaitTimer::new(1, 2);
        assert!(timer.is_too_late(seconds(0), seconds(9)), "it is not armed");
        assert_eq!(timer.arm(seconds(0), seconds(9)).get_user_data(), 1);
        assert!(!timer.is_too_late(seconds(1), seconds(9)));
        assert!(!timer.is_too_late(seconds(1), seconds(99)));
        assert!(timer.is_too_late(seconds(1), seconds(8)));
        assert_eq!(timer.arm(seconds(1), seconds(8)).get_user_data(), 2, "the same, updated");
        assert!(!timer.is_too_late(seconds(9), seconds(99)), "its completion may be on the way");
        assert!(timer.is_too_late(seconds(10), seconds(99)), "it never came");
        assert_eq!(timer.arm(seconds(10), seconds(99)).get_user_data(), 1, "a new one");
        timer.on_expired();
        assert!(timer.is_too_late(seconds(10), seconds(99)));
    }
}
