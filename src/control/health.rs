//! Whether an endpoint is up: its first probe decides alone; after that, consecutive probes.
//!
//! No sockets and no clock: the results of probes come in, in their order.

/// The task that probes an endpoint. An endpoint gets another one when the probes before no longer
/// say anything about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProbeTaskId(pub u32);

/// The health of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    rise: u32,
    fall: u32,
    up: bool,
    /// Whether a probe has ever decided `up`.
    decided: bool,
    /// Consecutive probes that contradict `up`.
    against: u32,
}

/// An endpoint changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// It went up.
    Up,
    /// It went down.
    Down,
}

impl Transition {
    /// Whether it went up.
    #[must_use]
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Up)
    }
}

impl Health {
    /// An endpoint without history: it is `up` or down until its first probe, which decides alone.
    /// Then it goes up after `rise` consecutive probes that passed, and down after `fall` that
    /// failed (0 counts as 1).
    #[must_use]
    pub const fn new(rise: u32, fall: u32, up: bool) -> Self {
        Self { rise, fall, up, decided: false, against: 0 }
    }

    /// An endpoint that its probes have found down before.
    #[must_use]
    pub const fn down(rise: u32, fall: u32) -> Self {
        Self { rise, fall, up: false, decided: true, against: 0 }
    }

    /// An endpoint with the history that another process has seen.
    #[must_use]
    pub const fn restored(rise: u32, fall: u32, up: bool, decided: bool, against: u32) -> Self {
        Self { rise, fall, up, decided, against }
    }

    /// Consecutive probes that contradict its state.
    #[must_use]
    pub const fn against(&self) -> u32 {
        self.against
    }

    /// Whether it is up.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.up
    }

    /// Whether a probe has ever decided that.
    #[must_use]
    pub const fn is_decided(&self) -> bool {
        self.decided
    }

    /// Other thresholds, after a reload; the endpoint stays up or down.
    pub const fn set_thresholds(&mut self, rise: u32, fall: u32) {
        self.rise = rise;
        self.fall = fall;
    }

    /// It is down, whatever probes have found: `rise` of them bring it up.
    pub const fn fail(&mut self) {
        (self.up, self.decided, self.against) = (false, true, 0);
    }

    /// The next probe passed or failed; what that changed, if anything.
    pub fn on_probe(&mut self, passed: bool) -> Option<Transition> {
        let needed = match (self.decided, self.up) {
            (false, _) => 1,
            (true, true) => self.fall,
            (true, false) => self.rise,
        };
        self.decided = true;
        if passed == self.up {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        if self.against < needed {
            return None;
        }
        self.up = passed;
        self.against = 0;
        Some(if passed { Transition::Up } else { Transition::Down })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(health: &mut Health, probes: &str) -> Vec<Option<Transition>> {
        probes.chars().map(|probe| health.on_probe(probe == '+')).collect()
    }

    fn up() -> Health {
        let mut health = Health::new(2, 3, true);
        assert_eq!(health.on_probe(true), None);
        health
    }

    #[test]
    fn the_first_probe_decides_alone() {
        let mut health = Health::new(2, 3, true);
        assert!(health.is_up() && !health.is_decided());
        assert_eq!(run(&mut health, "-+"), [Some(Transition::Down), None]);
        assert!(health.is_decided());
        let mut health = Health::new(2, 3, false);
        assert_eq!(run(&mut health, "+--"), [Some(Transition::Up), None, None]);
        assert_eq!(run(&mut Health::new(2, 3, true), "+--"), [None; 3]);
        assert_eq!(run(&mut Health::new(2, 3, false), "-+"), [None; 2]);
    }

    #[test]
    fn an_endpoint_that_was_up_goes_down_after_fall_consecutive_failures() {
        let mut health = up();
        assert_eq!(run(&mut health, "---"), [None, None, Some(Transition::Down)]);
        assert!(!health.is_up());
    }

    #[test]
    fn an_endpoint_that_was_down_goes_up_after_rise_consecutive_successes() {
        let mut health = Health::down(2, 3);
        assert_eq!(run(&mut health, "++"), [None, Some(Transition::Up)]);
        assert!(health.is_up());
    }

    #[test]
    fn a_probe_that_confirms_the_state_starts_the_count_again() {
        let mut health = up();
        assert_eq!(run(&mut health, "--+--+--"), [None; 8]);
        assert!(health.is_up());
        let mut health = Health::down(2, 3);
        assert_eq!(run(&mut health, "+-+-+-"), [None; 6]);
        assert!(!health.is_up());
    }

    #[test]
    fn a_change_is_reported_once() {
        let mut health = Health::new(2, 1, true);
        assert_eq!(run(&mut health, "---"), [Some(Transition::Down), None, None]);
        assert_eq!(run(&mut health, "+++"), [None, Some(Transition::Up), None]);
    }

    #[test]
    fn what_fails_for_another_reason_comes_up_by_probes() {
        for mut health in [up(), Health::new(2, 3, true), Health::down(2, 3)] {
            health.fail();
            assert!(!health.is_up());
            assert_eq!(run(&mut health, "+-++"), [None, None, None, Some(Transition::Up)]);
        }
    }

    #[test]
    fn a_threshold_of_zero_counts_as_one() {
        let mut health = Health::down(0, 0);
        assert_eq!(run(&mut health, "+-"), [Some(Transition::Up), Some(Transition::Down)]);
    }

    #[test]
    fn other_thresholds_leave_the_endpoint_up_or_down() {
        let mut health = Health::new(2, 5, true);
        assert_eq!(run(&mut health, "+--"), [None; 3]);
        health.set_thresholds(2, 3);
        assert!(health.is_up());
        assert_eq!(health.on_probe(false), Some(Transition::Down));
    }
}
