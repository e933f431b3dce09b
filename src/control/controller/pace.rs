//! How often results of probes may cause a table.

use std::time::{Duration, Instant};

/// How often probes may cause a table. One of 10,000 servers takes milliseconds, and results that
/// wait for it meanwhile would run into their deadlines.
#[derive(Debug, Default)]
pub(super) struct TablePace {
    /// From when on one may be made; none: at once.
    next: Option<Instant>,
    /// When one that had to wait is due.
    pub(super) due: Option<Instant>,
}

impl TablePace {
    /// Times the duration of the last one that pass before the next: so tables take a fifth of the
    /// thread at most.
    const REST: u32 = 4;

    /// The longest wait.
    const REST_MAX: Duration = Duration::from_millis(200);

    /// Whether it must wait.
    pub(super) fn wait(&mut self, now: Instant) -> bool {
        self.due = self.next.filter(|next| now < *next);
        self.due.is_some()
    }

    pub(super) fn made(&mut self, began: Instant, ended: Instant) {
        let rest = (ended.duration_since(began) * Self::REST).min(Self::REST_MAX);
        (self.next, self.due) = (Some(ended + rest), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_table_that_took_long_lets_the_next_one_wait() {
        let (mut pace, start) = (TablePace::default(), Instant::now());
        assert!(!pace.wait(start), "the first one is made at once");
        pace.made(start, start + 10 * MS);
        assert!(pace.wait(start + 49 * MS));
        assert_eq!(pace.due, Some(start + 50 * MS));
        assert!(!pace.wait(start + 50 * MS) && pace.due.is_none());
        pace.made(start, start + 1000 * MS);
        assert!(!pace.wait(start + 1200 * MS), "a change is in force soon");
    }
}
