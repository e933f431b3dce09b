//! When probes are due: the first of an endpoint at once, the others evenly spread over the
//! interval, and not all together after the process was stopped. Those that are due within a few
//! milliseconds are made together: a wake-up costs as much as a probe. The time comes in.

use std::time::Duration;

use tokio::time::Instant;

use crate::control::health::ProbeTaskId;

/// The first probes of all endpoints are spread over this time (or an eighth of the interval, if
/// that is less): until then nothing is known of them.
const FIRST_WITHIN: Duration = Duration::from_millis(50);

/// Where that would be a burst, each endpoint adds this to the time (up to half of the interval).
const FIRST_EACH: Duration = Duration::from_micros(100);

/// Probes that are due within this time (or an eighth of the interval) are made together.
const TOGETHER: Duration = Duration::from_millis(10);

/// What the schedules of all endpoints share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Probes are made at multiples of [`TOGETHER`] since then.
    pub(super) since: Instant,
    /// Endpoints that are probed for the first time.
    pub(super) first: u32,
}

/// When an endpoint is probed: once at its start, then on a grid of the interval. The grid has an
/// offset of its own, so that endpoints are spread evenly, and each probe is made up to an eighth
/// of the interval after a mark of the grid.
#[derive(Debug)]
pub(super) struct ProbeSchedule {
    task: ProbeTaskId,
    seed: u64,
    pace: Pace,
    begun: Instant,
    /// The mark of the probe to come.
    mark: Instant,
    last: Last,
    /// The mark was moved because the process had been stopped.
    moved: bool,
}

/// The last probe.
#[derive(Debug, Clone, Copy)]
enum Last {
    None,
    /// The first, which is not on the grid.
    First(Instant),
    /// At a mark of the grid.
    Grid(Instant),
}

impl ProbeSchedule {
    /// Begins now; `seed` decides the jitter.
    pub(super) const fn new(task: ProbeTaskId, seed: u64, pace: Pace, now: Instant) -> Self {
        Self { task, seed, pace, begun: now, mark: now, last: Last::None, moved: false }
    }

    /// When the next probe is due.
    pub(super) fn due(&mut self, interval: Duration, now: Instant) -> Instant {
        let grid = self.begun + self.offset(interval);
        let (grid, earliest) = match self.last {
            Last::None if !self.moved => {
                let within = FIRST_WITHIN.min(interval / 8);
                let many = (FIRST_EACH * self.pace.first).min(interval / 2);
                self.mark = self.begun + self.offset(within.max(many));
                return self.together(self.mark, interval);
            }
            Last::None => (grid, now),
            Last::First(at) => (grid, at + interval / 2),
            Last::Grid(at) => (at + interval, at + interval),
        };
        // The first mark that has not passed.
        let passed = earliest.max(now).saturating_duration_since(grid).as_nanos();
        let marks = passed.div_ceil(interval.as_nanos().max(1));
        self.mark = grid + interval * u32::try_from(marks).unwrap_or(u32::MAX);
        // Another jitter each time.
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let jitter = u32::try_from(self.seed >> 32).unwrap_or(0);
        let jitter = fraction(interval / 8 - TOGETHER.min(interval / 8), jitter);
        self.together(self.mark + jitter, interval)
    }

    /// The next time from `due` on at which probes are made.
    fn together(&self, due: Instant, interval: Duration) -> Instant {
        let step = TOGETHER.min(interval / 8).as_nanos().max(1);
        let over = due.saturating_duration_since(self.pace.since).as_nanos() % step;
        let wait = if over == 0 { 0 } else { step - over };
        due + Duration::from_nanos(u64::try_from(wait).unwrap_or(0))
    }

    /// Whether the timer was so late that whole intervals went by. Then every endpoint is due now:
    /// each waits for its next mark instead (but not twice in a row).
    pub(super) fn was_stopped(&mut self, due: Instant, interval: Duration, now: Instant) -> bool {
        self.moved = !self.moved && now.saturating_duration_since(due) > interval;
        self.moved
    }

    /// The probe that was due was made.
    pub(super) const fn probed(&mut self) {
        self.last = match self.last {
            Last::None if !self.moved => Last::First(self.mark),
            _ => Last::Grid(self.mark),
        };
    }

    /// Multiples of the golden ratio leave no gap (Knuth, TAOCP 6.4): however many endpoints there
    /// are, they share `span` evenly.
    fn offset(&self, span: Duration) -> Duration {
        fraction(span, self.task.0.wrapping_mul(0x9E37_79B9))
    }
}

/// `part` of 2^32 parts of `whole`.
fn fraction(whole: Duration, part: u32) -> Duration {
    let nanos = (whole.as_nanos() * u128::from(part)) >> 32;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(2);

    fn schedule(id: u32, now: Instant) -> ProbeSchedule {
        one_of(1, id, now)
    }

    /// One of so many endpoints.
    fn one_of(first: u32, id: u32, now: Instant) -> ProbeSchedule {
        ProbeSchedule::new(ProbeTaskId(id), u64::from(id), Pace { since: now, first }, now)
    }

    #[test]
    fn the_first_probe_is_made_at_once() {
        let now = Instant::now();
        for id in 0..1000 {
            let first = schedule(id, now).due(INTERVAL, now) - now;
            assert!(first <= FIRST_WITHIN + TOGETHER, "{first:?}");
            let short = schedule(id, now).due(INTERVAL / 100, now) - now;
            assert!(short <= INTERVAL / 400, "{short:?}");
        }
    }

    #[test]
    fn the_first_probes_of_many_endpoints_are_no_burst() {
        const ENDPOINTS: u32 = 10_000;
        let now = Instant::now();
        let mut at_once = BTreeMap::<Duration, u32>::new();
        for id in 0..ENDPOINTS {
            let first = one_of(ENDPOINTS, id, now).due(INTERVAL, now) - now;
            assert!(first <= INTERVAL / 2 + TOGETHER, "{first:?}");
            *at_once.entry(first).or_default() += 1;
        }
        let most = at_once.values().max().copied();
        assert!(most.is_some_and(|most| most <= 110), "{most:?} within {TOGETHER:?}");
    }

    #[test]
    fn probes_that_are_due_at_about_the_same_time_are_made_together() {
        let start = Instant::now();
        let mut times = BTreeMap::<Duration, u32>::new();
        for id in 0..1000 {
            let mut schedule = schedule(id, start);
            schedule.due(INTERVAL, start);
            schedule.probed();
            let due = schedule.due(INTERVAL, start + INTERVAL / 4) - start;
            assert_eq!(due.as_millis() % TOGETHER.as_millis(), 0, "{due:?}");
            *times.entry(due).or_default() += 1;
        }
        // 200 times in the interval, and the jitter.
        assert!((150..=230).contains(&times.len()), "{}", times.len());
        assert!(times.values().all(|count| *count < 25), "{times:?}");
    }

    #[test]
    fn endpoints_share_the_interval_evenly() {
        let start = Instant::now();
        let mut in_tenth = [0; 10];
        for id in 0..1000 {
            let mut schedule = schedule(id, start);
            let first = schedule.due(INTERVAL, start);
            schedule.probed();
            let _due = schedule.due(INTERVAL, first);
            let since = schedule.mark - start;
            assert!(
                schedule.mark - first >= INTERVAL / 2 - TOGETHER && since < 2 * INTERVAL,
                "{since:?}"
            );
            let tenth = since.as_millis() % INTERVAL.as_millis() * 10 / INTERVAL.as_millis();
            in_tenth[usize::try_from(tenth).unwrap()] += 1;
        }
        assert!(in_tenth.iter().all(|count| (95..=105).contains(count)), "{in_tenth:?}");
    }

    #[test]
    fn probes_keep_to_the_grid_with_a_little_jitter() {
        let start = Instant::now();
        let mut schedule = schedule(1, start);
        let mut now = schedule.due(INTERVAL, start);
        schedule.probed();
        schedule.due(INTERVAL, now);
        let first = schedule.mark;
        for _ in 0..1000 {
            let due = schedule.due(INTERVAL, now);
            assert!((Duration::ZERO..INTERVAL / 8).contains(&(due - schedule.mark)));
            now = due;
            schedule.probed();
        }
        assert_eq!(schedule.mark - first, 999 * INTERVAL);
    }

    #[test]
    fn after_a_stop_endpoints_are_not_probed_all_at_once() {
        let start = Instant::now();
        let mut marks = Vec::new();
        for id in 0..100 {
            let mut schedule = schedule(id, start);
            let due = schedule.due(INTERVAL, start);
            let now = start + 20 * INTERVAL;
            assert!(schedule.was_stopped(due, INTERVAL, now));
            let due = schedule.due(INTERVAL, now);
            assert!(due >= now);
            assert!(
                !schedule.was_stopped(due, INTERVAL, due + 20 * INTERVAL),
                "not twice in a row"
            );
            marks.push(schedule.mark);
        }
        marks.sort_unstable();
        marks.dedup();
        assert_eq!(marks.len(), 100);
    }
}
