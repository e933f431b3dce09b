//! The weight of a server that has come up: it grows to its full value over `slow_start`.

use std::time::{Duration, Instant};

/// The whole weight, in thousandths.
pub(super) const FULL: u32 = 1000;

/// A weight grows in steps of a twentieth: each makes a new table.
const STEP: u32 = 50;

/// How much of its weight a server has.
#[derive(Debug)]
pub(super) struct SlowStart {
    /// When it came up; none: long ago, or it was up from the start.
    came_up: Option<Instant>,
    part: u32,
}

impl Default for SlowStart {
    fn default() -> Self {
        Self { came_up: None, part: FULL }
    }
}

impl SlowStart {
    /// The server has come up.
    pub(super) const fn begin(&mut self, now: Instant) {
        *self = Self { came_up: Some(now), part: STEP };
    }

    /// Since when its weight grows; none: it has its whole weight.
    pub(super) const fn came_up(&self) -> Option<Instant> {
        self.came_up
    }

    /// Lets the weight grow over `time` since the server came up; whether that changed it.
    pub(super) fn grow(&mut self, time: Duration, now: Instant) -> bool {
        let Some(came_up) = self.came_up else { return false };
        let passed = now.saturating_duration_since(came_up).as_millis();
        let part = passed * u128::from(FULL) / time.as_millis().max(1);
        let part = u32::try_from(part).unwrap_or(FULL).clamp(STEP, FULL);
        let before = std::mem::replace(&mut self.part, part - part % STEP);
        if self.part == FULL {
            self.came_up = None;
        }
        self.part != before
    }

    /// The part of its weight that the server has, in thousandths.
    pub(super) const fn part(&self) -> u32 {
        self.part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_grows_in_twenty_steps() {
        let (start, hour) = (Instant::now(), Duration::from_secs(3600));
        let mut slow = SlowStart::default();
        assert!(!slow.grow(hour, start) && slow.part() == FULL, "up from the start");
        slow.begin(start);
        assert_eq!(slow.part(), 50);
        let mut parts = vec![slow.part()];
        for minute in 0..=70 {
            if slow.grow(hour, start + Duration::from_secs(60 * minute)) {
                parts.push(slow.part());
            }
        }
        assert_eq!(parts, (1..=20).map(|step| 50 * step).collect::<Vec<_>>());
        slow.begin(start);
        assert!(slow.grow(hour, start + 2 * hour) && slow.part() == FULL);
    }
}
