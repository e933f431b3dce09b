//! Finds workers whose event loop is blocked, without I/O. About twice a second, the control thread
//! passes in the number of iterations (turns) of each loop, and gets back which workers to wake and
//! which are stuck.
//!
//! An idle worker waits in the kernel without a timeout, so an unchanged number alone proves
//! nothing: the worker is woken, and is stuck only if its loop still has not run some time later.
//! Only time in which the control thread runs counts. After a stop of the whole process (SIGSTOP, a
//! suspended machine, a busy one) each worker gets that time again.

use std::time::{Duration, Instant};

/// A worker whose event loop has not run for this long after it was woken is stuck. One that waits
/// for a core or for a page from a disk runs much sooner. With the time until it is woken (at most
/// two looks, a second) this is below 3 s.
pub const STUCK_AFTER: Duration = Duration::from_millis(1500);

/// Two looks further apart than this: this thread did not run, and the workers may not have either.
const LATE: Duration = Duration::from_secs(1);

/// What is known of every worker.
#[derive(Debug)]
pub struct Watch {
    last: Option<Instant>,
    workers: Vec<Seen>,
}

/// What is known of one worker.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    turns: u64,
    /// Since the last look that found a new number of turns.
    age: Duration,
    /// Since it was woken; none: its loop has run since.
    woken: Option<Duration>,
    stuck: bool,
}

/// What a look has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Its event loop has not run since the last look: wake it.
    Wake,
    /// It is stuck from now on.
    Stuck,
    /// It was stuck for this long, and turns again.
    Recovered(Duration),
    /// It was stuck, and has ended.
    Ended,
}

impl Watch {
    /// Of so many workers that have just begun.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { last: None, workers: vec![Seen::default(); workers] }
    }

    /// A look at the number of turns of each worker; none: it has ended.
    pub fn look(
        &mut self,
        turns: impl Iterator<Item = Option<u64>>,
        now: Instant,
    ) -> Vec<(usize, Finding)> {
        let passed = self.last.replace(now).map_or(Duration::ZERO, |last| now - last);
        let step = if passed > LATE { None } else { Some(passed) };
        let workers = self.workers.iter_mut().zip(turns).enumerate();
        workers
            .filter_map(|(index, (seen, turns))| Some((index, seen.look(turns, step)?)))
            .collect()
    }

    /// How long ago the event loop of a worker last ran.
    #[must_use]
    pub fn age(&self, worker: usize) -> Duration {
        self.workers.get(worker).map_or(Duration::ZERO, |seen| seen.age)
    }

    /// How long ago the event loop of each worker last ran, as far as this thread saw it, and
    /// whether the worker is stuck.
    pub fn all(&self) -> impl Iterator<Item = (Duration, bool)> {
        self.workers.iter().map(|seen| (seen.age, seen.stuck))
    }
}

impl Seen {
    /// `step`: the time since the last look; none if it was too long to count.
    fn look(&mut self, turns: Option<u64>, step: Option<Duration>) -> Option<Finding> {
        let Some(turns) = turns else {
            let was = std::mem::take(self);
            return was.stuck.then_some(Finding::Ended);
        };
        if turns != self.turns {
            let was = std::mem::replace(self, Self { turns, ..Self::default() });
            return was.stuck.then_some(Finding::Recovered(was.age));
        }
        self.age += step.unwrap_or_default();
        let woken = self.woken.filter(|_| step.is_some() || self.stuck);
        self.woken = Some(woken.map_or(Duration::ZERO, |since| since + step.unwrap_or_default()));
        match woken {
            None => Some(Finding::Wake),
            Some(_) if !self.stuck && self.woken >= Some(STUCK_AFTER) => {
                self.stuck = true;
                Some(Finding::Stuck)
            }
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(500);

    /// One worker, looked at every 500 ms.
    struct Scene {
        watch: Watch,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            Self { watch: Watch::new(1), now: Instant::now() }
        }

        fn look(&mut self, turns: u64) -> Option<Finding> {
            self.look_after(STEP, Some(turns))
        }

        fn look_after(&mut self, time: Duration, turns: Option<u64>) -> Option<Finding> {
            self.now += time;
            let found = self.watch.look([turns].into_iter(), self.now);
            found.first().map(|(_, finding)| *finding)
        }
    }

    #[test]
    fn an_idle_worker_is_woken_once_a_second_and_never_stuck() {
        let (mut scene, mut turns, mut wakes) = (Scene::new(), 1, 0);
        for _ in 0..120 {
            match scene.look(turns) {
                Some(Finding::Wake) => (wakes, turns) = (wakes + 1, turns + 1),
                found => assert_eq!(found, None),
            }
        }
        assert_eq!(wakes, 60);
    }

    #[test]
    fn a_worker_that_is_blocked_is_found_within_three_seconds_and_once() {
        let mut scene = Scene::new();
        scene.look(1);
        // Its loop ran just before this look.
        scene.look(2);
        let frozen = scene.now;
        assert_eq!(scene.look(2), Some(Finding::Wake));
        while scene.look(2).is_none() {}
        assert!(scene.now - frozen <= Duration::from_millis(2500), "{:?}", scene.now - frozen);
        assert_eq!(scene.watch.all().next().unwrap(), (scene.now - frozen, true));
        for _ in 0..20 {
            assert_eq!(scene.look(2), None);
        }
        let stuck_for = scene.now - frozen;
        assert_eq!(scene.look(3), Some(Finding::Recovered(stuck_for)));
        assert_eq!(scene.watch.all().next().unwrap(), (Duration::ZERO, false));
    }

    #[test]
    fn a_stop_of_the_whole_process_is_no_finding() {
        let mut scene = Scene::new();
        scene.look(1);
        for _ in 0..100 {
            // Stopped for 10 s, and this thread runs first; the worker has run at the next look.
            assert_eq!(scene.look_after(Duration::from_secs(10), Some(1)), Some(Finding::Wake));
        }
        assert_eq!(scene.look(2), None);
    }

    #[test]
    fn a_worker_that_was_stuck_before_a_stop_is_still_stuck_after_it() {
        let mut scene = Scene::new();
        while scene.look(0) != Some(Finding::Stuck) {}
        assert_eq!(scene.look_after(Duration::from_secs(10), Some(0)), None);
        assert_eq!(scene.look(0), None);
        assert!(matches!(scene.look(1), Some(Finding::Recovered(_))));
    }

    #[test]
    fn a_worker_that_has_ended_is_not_stuck() {
        let mut scene = Scene::new();
        while scene.look(0) != Some(Finding::Stuck) {}
        assert_eq!(scene.look_after(STEP, None), Some(Finding::Ended));
        for _ in 0..20 {
            assert_eq!(scene.look_after(STEP, None), None);
        }
    }
}
