//! Latencies of one turn.
//!
//! A percentile over a whole turn reports the worst disturbance of the machine during it. The
//! median of the percentiles of 100 ms windows reports the subject: it repeats within 4 %. So p50
//! and p99 are such medians, called windowed; p99.9 needs the whole turn.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::report::{Turn, median};

const WINDOW: Duration = Duration::from_millis(100);
/// Nanoseconds, an hour at most, with three significant digits.
const LONGEST: u64 = 3_600_000_000_000;
const DIGITS: u8 = 3;

/// Latencies since a given time.
#[derive(Debug)]
pub(crate) struct Latencies {
    start: Instant,
    window: Histogram<u32>,
    window_end: Instant,
    turn: Histogram<u32>,
    p50s: Vec<f64>,
    p99s: Vec<f64>,
}

impl Latencies {
    /// Starts the first window.
    pub(crate) fn new(start: Instant) -> io::Result<Self> {
        let histogram = Histogram::new_with_bounds(1, LONGEST, DIGITS).map_err(io::Error::other)?;
        Ok(Self {
            start,
            window: histogram.clone(),
            window_end: start + WINDOW,
            turn: histogram,
            p50s: Vec::new(),
            p99s: Vec::new(),
        })
    }

    /// When recording began.
    pub(crate) const fn start(&self) -> Instant {
        self.start
    }

    /// Records a latency that ended now.
    pub(crate) fn record(&mut self, now: Instant, latency: Duration) {
        if now >= self.window_end {
            self.close_window();
            self.window_end = now + WINDOW;
        }
        self.window.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The figures in microseconds: `windowed_p50`, `windowed_p99`, and of the whole turn `p99`,
    /// `p999` and `max`.
    pub(crate) fn figures(mut self) -> io::Result<Turn> {
        self.close_window();
        let (p50, p99) = median(self.p50s)
            .zip(median(self.p99s))
            .ok_or_else(|| io::Error::other("not one exchange ended"))?;
        let of_turn = |quantile| microseconds(&self.turn, quantile);
        Ok(Turn::from([
            ("windowed_p50", p50),
            ("windowed_p99", p99),
            ("p99", of_turn(0.99)),
            ("p999", of_turn(0.999)),
            ("max", of_turn(1.0)),
        ]))
    }

    fn close_window(&mut self) {
        if !self.window.is_empty() {
            self.p50s.push(microseconds(&self.window, 0.5));
            self.p99s.push(microseconds(&self.window, 0.99));
            self.turn += &self.window;
            self.window.reset();
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "an hour of nanoseconds is below 2^53")]
fn microseconds(histogram: &Histogram<u32>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windowed_percentiles_are_medians_over_windows_and_p999_is_of_the_turn() {
        let start = Instant::now();
        let mut latencies = Latencies::new(start).unwrap();
        for (window, slowdown) in [(0, 1), (1, 1), (2, 50)] {
            let now = start + WINDOW * window;
            for microseconds in 1..=1000 {
                latencies.record(now, Duration::from_micros(microseconds * slowdown));
            }
        }
        let figures = latencies.figures().unwrap();
        for (figure, wanted) in
            [("windowed_p50", 500.0), ("windowed_p99", 990.0), ("max", 50_000.0)]
        {
            let seen = figures[figure];
            assert!((seen - wanted).abs() <= wanted / 500.0, "{figure}: {seen}");
        }
        assert!(figures["p999"] > 49_000.0, "{figures:?}");
    }
}
