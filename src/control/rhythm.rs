//! When probes are due: evenly spread over the servers, regular for each, and not all at once after
//! the process was stopped. Told what time it is.

use std::time::Duration;

use tokio::time::Instant;

use crate::terms::ServerId;

/// When a server is probed: on a grid of its interval, which begins at a place of its own so that
/// servers are spread evenly, and a little after each mark of the grid.
#[derive(Debug)]
pub(super) struct Rhythm {
    id: ServerId,
    seed: u64,
    begun: Instant,
    /// The mark of the probe to come.
    mark: Instant,
    /// The mark of the last probe.
    last: Option<Instant>,
    /// The mark was moved because the process had been stopped.
    moved: bool,
}

impl Rhythm {
    /// Begins now; `seed` decides the jitter.
    pub(super) const fn new(id: ServerId, seed: u64, now: Instant) -> Self {
        Self { id, seed, begun: now, mark: now, last: None, moved: false }
    }

    /// When the next probe is due: at the first mark that has not passed.
    pub(super) fn due(&mut self, interval: Duration, now: Instant) -> Instant {
        let next = match self.last {
            Some(last) => last + interval,
            // Multiples of the golden ratio leave no gap (Knuth, TAOCP 6.4): however many servers
            // there are, they share the interval evenly.
            None => self.begun + fraction(interval, self.id.0.wrapping_mul(0x9E37_79B9)),
        };
        let passed = now.saturating_duration_since(next).as_nanos();
        let marks = passed.div_ceil(interval.as_nanos().max(1));
        self.mark = next + interval * u32::try_from(marks).unwrap_or(u32::MAX);
        // Up to an eighth later, another time each time.
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let jitter = u32::try_from(self.seed >> 32).unwrap_or(0);
        self.mark + fraction(interval / 8, jitter)
    }

    /// Whether the timer was so late that whole intervals went by. Then every server is due at this
    /// moment: each waits for its next mark instead (but not twice in a row).
    pub(super) fn was_stopped(&mut self, due: Instant, interval: Duration, now: Instant) -> bool {
        self.moved = !self.moved && now.saturating_duration_since(due) > interval;
        self.moved
    }

    /// The probe that was due was made.
    pub(super) const fn probed(&mut self) {
        self.last = Some(self.mark);
    }
}

/// `part` of 2^32 parts of `whole`.
fn fraction(whole: Duration, part: u32) -> Duration {
    let nanos = (whole.as_nanos() * u128::from(part)) >> 32;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(2);

    #[test]
    fn servers_share_the_interval_evenly() {
        let now = Instant::now();
        let mut in_tenth = [0; 10];
        for id in 0..1000 {
            let mut rhythm = Rhythm::new(ServerId(id), 0, now);
            let _due = rhythm.due(INTERVAL, now);
            let tenth = (rhythm.mark - now).as_millis() * 10 / INTERVAL.as_millis();
            in_tenth[usize::try_from(tenth).unwrap()] += 1;
        }
        assert!(in_tenth.iter().all(|count| (95..=105).contains(count)), "{in_tenth:?}");
    }

    #[test]
    fn probes_keep_to_the_grid_with_a_little_jitter() {
        let start = Instant::now();
        let mut now = start;
        let mut rhythm = Rhythm::new(ServerId(1), 42, now);
        let first = rhythm.due(INTERVAL, now) - start;
        for _ in 0..1000 {
            let due = rhythm.due(INTERVAL, now);
            assert!((Duration::ZERO..INTERVAL / 8).contains(&(due - rhythm.mark)));
            now = due;
            rhythm.probed();
        }
        let marks = (rhythm.mark - start).as_secs_f64() / INTERVAL.as_secs_f64();
        assert!((marks - 999.0 - first.as_secs_f64() / 2.0).abs() < 0.2, "{marks}");
    }

    #[test]
    fn after_a_stop_servers_are_not_probed_all_at_once() {
        let start = Instant::now();
        let mut marks = Vec::new();
        for id in 0..100 {
            let mut rhythm = Rhythm::new(ServerId(id), 0, start);
            let due = rhythm.due(INTERVAL, start);
            let now = start + 20 * INTERVAL;
            assert!(rhythm.was_stopped(due, INTERVAL, now));
            let due = rhythm.due(INTERVAL, now);
            assert!(due >= now);
            assert!(!rhythm.was_stopped(due, INTERVAL, due + 20 * INTERVAL), "not twice in a row");
            marks.push(rhythm.mark);
        }
        marks.sort_unstable();
        marks.dedup();
        assert_eq!(marks.len(), 100);
    }
}
