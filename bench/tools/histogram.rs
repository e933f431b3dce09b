//! Latencies: counted in buckets that are a sixty-fourth apart, and windows of a tenth of a second.
//!
//! A percentile of a whole turn belongs to the worst thing that happened to the machine in it;
//! the median of the percentiles of short windows is the subject's (it repeats within 4 %). Only
//! p99.9 needs the whole turn.

use std::time::{Duration, Instant};

use serde::Serialize;

/// Buckets in each doubling.
const PARTS: u64 = 64;
/// Up to an hour, in nanoseconds.
const DOUBLINGS: usize = 37;
const WINDOW: Duration = Duration::from_millis(100);

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// Counts of latencies.
#[derive(Debug, Clone)]
struct Histogram {
    counts: Vec<u32>,
    total: u64,
}

impl Histogram {
    fn new() -> Self {
        Self { counts: vec![0; DOUBLINGS * 64], total: 0 }
    }

    fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let last = self.counts.len() - 1;
        self.counts[index_of(nanoseconds).min(last)] += 1;
        self.total += 1;
    }

    /// The latency, in microseconds, that this share is not above; within a bucket as if what it
    /// counts were spread evenly, or two subjects would differ by whole buckets.
    #[expect(clippy::cast_precision_loss, reason = "counts and latencies are far below 2^53")]
    fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = (self.total as f64 * share).max(1.0);
        let mut before = 0.0;
        for (index, count) in self.counts.iter().enumerate() {
            let count = f64::from(*count);
            if before + count >= wanted {
                let (low, high) = (value_of(index) as f64, value_of(index + 1) as f64);
                return Some((low + (high - low) * (wanted - before) / count) / 1000.0);
            }
            before += count;
        }
        None
    }

    fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
    }
}

/// The bucket of a number of nanoseconds.
fn index_of(value: u64) -> usize {
    let doubling = u64::from(value.checked_ilog2().unwrap_or(0)).saturating_sub(6);
    let part = if value < PARTS { value } else { (value >> doubling) + doubling * PARTS };
    usize::try_from(part).unwrap_or(usize::MAX)
}

/// The least number of nanoseconds of a bucket.
const fn value_of(index: usize) -> u64 {
    let index = index as u64;
    if index < 2 * PARTS {
        return index;
    }
    let doubling = index / PARTS - 1;
    (index - doubling * PARTS) << doubling
}

/// What is known of the latencies of a turn.
#[derive(Debug)]
pub(crate) struct Latencies {
    began: Instant,
    whole: Histogram,
    window: Histogram,
    window_end: Instant,
    medians: Vec<f64>,
    tails: Vec<f64>,
    max: Duration,
}

impl Latencies {
    /// From now on.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            began: now,
            whole: Histogram::new(),
            window: Histogram::new(),
            window_end: now + WINDOW,
            medians: Vec::new(),
            tails: Vec::new(),
            max: Duration::ZERO,
        }
    }

    /// Since when they are kept.
    pub(crate) const fn began(&self) -> Instant {
        self.began
    }

    /// One that ended now.
    pub(crate) fn record(&mut self, now: Instant, latency: Duration) {
        if now >= self.window_end {
            self.close_window();
            self.window_end = now + WINDOW;
        }
        self.window.record(latency);
        self.whole.record(latency);
        self.max = self.max.max(latency);
    }

    /// The percentiles; none if nothing was recorded.
    pub(crate) fn quantiles(&mut self) -> Option<Quantiles> {
        self.close_window();
        let median = |values: &mut Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied()
        };
        Some(Quantiles {
            p50: median(&mut self.medians)?,
            p99: median(&mut self.tails)?,
            p999: self.whole.quantile(0.999)?,
            max: self.max.as_secs_f64() * 1e6,
        })
    }

    fn close_window(&mut self) {
        self.medians.extend(self.window.quantile(0.5));
        self.tails.extend(self.window.quantile(0.99));
        self.window.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_at_most_a_sixty_fourth_wide() {
        for value in [0, 1, 63, 64, 127, 128, 129, 1000, 123_456, 98_765_432, 1 << 40] {
            let least = value_of(index_of(value));
            assert!(least <= value && value - least <= value / 64, "{value}: {least}");
        }
    }

    #[test]
    fn percentiles_within_one_bucket_differ() {
        let mut histogram = Histogram::new();
        (65_536..66_560)
            .for_each(|nanoseconds| histogram.record(Duration::from_nanos(nanoseconds)));
        assert_eq!(index_of(65_536), index_of(66_559), "it is one");
        let seen = [0.25, 0.5].map(|share| histogram.quantile(share).unwrap() * 1000.0);
        assert!((seen[0] - 65_792.0).abs() < 1.0 && (seen[1] - 66_048.0).abs() < 1.0, "{seen:?}");
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let now = Instant::now();
        let mut latencies = Latencies::new(now);
        for microseconds in 1..=1000 {
            latencies.record(now, Duration::from_micros(microseconds));
        }
        let seen = latencies.quantiles().unwrap();
        let near = |is: f64, wanted: f64| (is - wanted).abs() <= wanted / 50.0;
        assert!(near(seen.p50, 500.0) && near(seen.p99, 990.0), "{seen:?}");
        assert!(near(seen.p999, 999.0) && near(seen.max, 1000.0), "{seen:?}");
    }
}
