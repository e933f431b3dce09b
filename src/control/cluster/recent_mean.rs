//! The mean of the durations of the last minute, from counters that only grow.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::shared::counters::HistogramSum;

/// The mean is of this time at most.
const WINDOW: Duration = Duration::from_secs(60);

/// Between two samples: the mean is of the last 50 s to 60 s, and at most seven samples of 32 bytes
/// are kept.
pub(super) const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);

/// Samples of the counters, oldest first.
#[derive(Debug)]
pub(super) struct RecentMean {
    samples: VecDeque<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    count: u64,
    micros: u64,
}

impl Sample {
    fn of(sum: &HistogramSum, at: Instant) -> Self {
        Self { at, count: sum.count(), micros: sum.micros }
    }

    fn is_within_window(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) <= WINDOW
    }
}

impl RecentMean {
    /// With the first sample: durations that were counted before are never part of the mean.
    pub(super) fn new(sum: &HistogramSum, now: Instant) -> Self {
        Self { samples: VecDeque::from([Sample::of(sum, now)]) }
    }

    /// Adds a sample; to be called every [`SAMPLE_INTERVAL`].
    pub(super) fn sample(&mut self, sum: &HistogramSum, now: Instant) {
        while self.samples.front().is_some_and(|oldest| !oldest.is_within_window(now)) {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample::of(sum, now));
    }

    /// The mean of what was counted since the oldest sample of the last minute. None if nothing
    /// was, or if that cannot be known because no sample was taken for a minute.
    pub(super) fn mean(&self, sum: &HistogramSum, now: Instant) -> Option<Duration> {
        let base = self.samples.iter().find(|sample| sample.is_within_window(now))?;
        let newest = Sample::of(sum, now);
        let micros = newest.micros.wrapping_sub(base.micros);
        let mean = micros.checked_div(newest.count.wrapping_sub(base.count));
        mean.map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A server's counters, its samples and the time.
    struct Scene {
        sum: HistogramSum,
        recent: RecentMean,
        now: Instant,
    }

    impl Scene {
        /// With counters that are so close to their wrap.
        fn before_wrap(count: u64, micros: u64) -> Self {
            let mut sum = HistogramSum::default();
            sum.buckets[3] = 0_u64.wrapping_sub(count);
            sum.micros = 0_u64.wrapping_sub(micros);
            let now = Instant::now();
            Self { recent: RecentMean::new(&sum, now), sum, now }
        }

        fn new() -> Self {
            Self::before_wrap(0, 0)
        }

        fn count(&mut self, millis: u64) {
            self.sum.buckets[3] = self.sum.buckets[3].wrapping_add(1);
            self.sum.micros = self.sum.micros.wrapping_add(millis * 1000);
        }

        /// A sample every ten seconds.
        fn pass(&mut self, seconds: u64) {
            for _ in 0..seconds / 10 {
                self.now += SAMPLE_INTERVAL;
                self.recent.sample(&self.sum, self.now);
            }
            self.now += SECOND * u32::try_from(seconds % 10).unwrap();
        }

        fn mean(&self) -> Option<u128> {
            self.recent.mean(&self.sum, self.now).map(|mean| mean.as_millis())
        }
    }

    #[test]
    fn the_mean_is_of_all_that_was_counted_since_the_oldest_sample() {
        let mut scene = Scene::new();
        scene.count(10);
        assert_eq!(scene.mean(), Some(10), "before the next sample");
        scene.pass(25);
        scene.count(20);
        assert_eq!(scene.mean(), Some(15));
    }

    #[test]
    fn without_anything_counted_there_is_no_mean() {
        let mut scene = Scene::new();
        assert_eq!(scene.mean(), None);
        scene.pass(100);
        assert_eq!(scene.mean(), None);
    }

    #[test]
    fn what_was_counted_before_the_first_sample_is_no_part_of_it() {
        let mut scene = Scene::new();
        scene.count(1000);
        scene.recent = RecentMean::new(&scene.sum, scene.now);
        assert_eq!(scene.mean(), None);
        scene.count(2);
        assert_eq!(scene.mean(), Some(2));
    }

    #[test]
    fn a_duration_leaves_the_mean_after_a_minute_at_the_latest() {
        let mut scene = Scene::new();
        scene.count(1000);
        scene.pass(50);
        scene.count(2);
        assert_eq!(scene.mean(), Some(501));
        scene.pass(10);
        assert_eq!(scene.mean(), Some(501), "a sample of 60 s ago is within the minute");
        scene.now += SECOND;
        assert_eq!(scene.mean(), Some(2));
        scene.now -= SECOND;
        scene.pass(50);
        scene.now += SECOND;
        assert_eq!(scene.mean(), None);
    }

    #[test]
    fn counters_may_wrap() {
        let mut scene = Scene::before_wrap(1, 5);
        scene.count(10);
        scene.count(20);
        assert!(scene.sum.micros < 30_000);
        assert_eq!(scene.mean(), Some(15));
    }

    #[test]
    fn without_a_sample_for_a_minute_there_is_no_mean_until_the_next() {
        let mut scene = Scene::new();
        scene.now += 61 * SECOND;
        scene.count(10);
        assert_eq!(scene.mean(), None);
        scene.recent.sample(&scene.sum, scene.now);
        scene.count(20);
        assert_eq!(scene.mean(), Some(20));
    }

    #[test]
    fn no_more_than_seven_samples_are_kept() {
        let mut scene = Scene::new();
        scene.pass(1000);
        assert_eq!(scene.recent.samples.len(), 7);
    }
}
