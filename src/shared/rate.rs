//! Rates of new sessions: a token bucket that all workers share, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config::Rate;

/// Nanoseconds for one, at least 1.
fn interval(rate: Rate) -> u64 {
    (nanos(rate.period) / u64::from(rate.count.max(1))).max(1)
}

/// Whether one more may come at `now` if the bucket is full again at `full_at` (both since the
/// program's start): then, when it is full again after that one.
///
/// This is the generic cell rate algorithm (ITU-T I.371): one number is the whole state.
#[must_use]
pub fn next(rate: Rate, full_at: Duration, now: Duration) -> Option<Duration> {
    let next = full_at.max(now) + Duration::from_nanos(interval(rate));
    (next <= now + rate.period).then_some(next)
}

/// A token bucket.
#[derive(Debug, Default)]
pub struct Bucket {
    /// When it is full again, in nanoseconds since the program's start.
    full_at: AtomicU64,
}

impl Bucket {
    /// Takes a token at `now`, in time since the program's start; false: there is none.
    #[must_use]
    pub fn take(&self, rate: Rate, now: Duration) -> bool {
        let take = |full_at| next(rate, Duration::from_nanos(full_at), now).map(nanos);
        self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Whether there is a token at `now`; none is taken.
    #[must_use]
    pub fn has_token(&self, rate: Rate, now: Duration) -> bool {
        next(rate, Duration::from_nanos(self.full_at.load(Ordering::Relaxed)), now).is_some()
    }
}

/// Nanoseconds, 584 years at most.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_come_at_once_and_then_at_the_rate() {
        let rate = Rate { count: 10, period: Duration::from_secs(1) };
        let bucket = Bucket::default();
        let mut now = Duration::from_secs(5);
        let burst = (0..100).filter(|_| bucket.take(rate, now)).count();
        assert_eq!(burst, 10);
        assert!(!bucket.has_token(rate, now));
        assert!(bucket.has_token(rate, now + Duration::from_millis(100)));
        let mut later = 0;
        for _ in 0..1000 {
            now += Duration::from_millis(10);
            later += u32::from(bucket.take(rate, now));
        }
        assert!((99..=101).contains(&later), "{later} in ten seconds");
        now += Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| bucket.take(rate, now)).count(), 10, "no more is saved");
    }
}
