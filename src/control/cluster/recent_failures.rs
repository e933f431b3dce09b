//! Failed connects of sessions to one endpoint, counted within a time (`health.errors`).

use std::collections::VecDeque;
use std::time::Instant;

use crate::config::ConnectErrors;

/// Failed connects of sessions to one endpoint.
#[derive(Debug, Default)]
pub(super) struct RecentFailures {
    /// The last ones, `errors.count` at most.
    times: VecDeque<Instant>,
    /// When the endpoint comes up again, if they have taken it down and it is not probed.
    pub(super) until: Option<Instant>,
}

impl RecentFailures {
    /// `count` more have failed; whether there are now as many as take the endpoint down.
    pub(super) fn add(&mut self, count: u32, errors: &ConnectErrors, now: Instant) -> bool {
        let is_old = |time: &Instant| now.saturating_duration_since(*time) > errors.within;
        while self.times.front().is_some_and(is_old) {
            self.times.pop_front();
        }
        let most = errors.count as usize;
        self.times.extend((0..count.min(errors.count)).map(|_| now));
        let surplus = self.times.len().saturating_sub(most);
        self.times.drain(..surplus);
        self.times.len() >= most
    }

    /// They have taken the endpoint down: counting starts again.
    pub(super) fn took_down(&mut self, until: Option<Instant>) {
        self.times.clear();
        self.until = until;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn connects_count_that_fail_within_the_time() {
        let second = Duration::from_secs(1);
        let errors = ConnectErrors { count: 3, within: 10 * second, down: second };
        let (mut failed, start) = (RecentFailures::default(), Instant::now());
        assert!(!failed.add(1, &errors, start));
        assert!(!failed.add(1, &errors, start + 9 * second));
        assert!(!failed.add(1, &errors, start + 11 * second), "the first is too old");
        assert!(failed.add(1, &errors, start + 19 * second));
        assert!(failed.add(u32::MAX, &errors, start + 100 * second), "in one turn of a worker");
        assert!(failed.times.len() <= 3);
    }
}
