//! Whether a server is up: probes in a row decide, never a single one.
//!
//! No sockets and no clock: a server is what its probes said, in their order.

/// What probes have said of one server so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    rise: u32,
    fall: u32,
    up: bool,
    /// Probes in a row that contradict `up`.
    against: u32,
}

/// A server changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// It came up.
    Up,
    /// It went down.
    Down,
}

impl Health {
    /// A server that is `up` or down now, comes up after `rise` probes in a row that passed, and
    /// goes down after `fall` in a row that failed (0 counts as 1).
    #[must_use]
    pub const fn new(rise: u32, fall: u32, up: bool) -> Self {
        Self { rise, fall, up, against: 0 }
    }

    /// Whether it is up.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.up
    }

    /// Another `rise` and `fall`, after a reload; the server stays what it is.
    pub const fn set_thresholds(&mut self, rise: u32, fall: u32) {
        self.rise = rise;
        self.fall = fall;
    }

    /// Counts anew; the server stays what it is.
    pub const fn begin_count(&mut self) {
        self.against = 0;
    }

    /// The next probe passed or failed; what that changed, if anything.
    pub fn on_probe(&mut self, passed: bool) -> Option<Transition> {
        if passed == self.up {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let needed = if self.up { self.fall } else { self.rise };
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

    #[test]
    fn a_server_at_start_is_up_until_fall_probes_in_a_row_failed() {
        let mut health = Health::new(2, 3, true);
        assert!(health.is_up());
        assert_eq!(run(&mut health, "---"), [None, None, Some(Transition::Down)]);
        assert!(!health.is_up());
    }

    #[test]
    fn a_server_comes_back_after_rise_probes_in_a_row() {
        let mut health = Health::new(2, 3, false);
        assert_eq!(run(&mut health, "++"), [None, Some(Transition::Up)]);
        assert!(health.is_up());
    }

    #[test]
    fn one_probe_that_says_otherwise_starts_the_count_again() {
        let mut health = Health::new(2, 3, true);
        assert_eq!(run(&mut health, "--+--+--"), [None; 8]);
        assert!(health.is_up());
        let mut health = Health::new(2, 3, false);
        assert_eq!(run(&mut health, "+-+-+-"), [None; 6]);
        assert!(!health.is_up());
    }

    #[test]
    fn a_change_is_told_once() {
        let mut health = Health::new(2, 1, true);
        assert_eq!(run(&mut health, "---"), [Some(Transition::Down), None, None]);
        assert_eq!(run(&mut health, "+++"), [None, Some(Transition::Up), None]);
    }

    #[test]
    fn a_threshold_of_zero_counts_as_one() {
        let mut health = Health::new(0, 0, true);
        assert_eq!(health.on_probe(false), Some(Transition::Down));
        assert_eq!(health.on_probe(true), Some(Transition::Up));
    }

    #[test]
    fn new_thresholds_leave_the_server_what_it_is() {
        let mut health = Health::new(2, 5, true);
        assert_eq!(run(&mut health, "--"), [None, None]);
        health.set_thresholds(2, 3);
        assert!(health.is_up());
        assert_eq!(health.on_probe(false), Some(Transition::Down));
    }
}
