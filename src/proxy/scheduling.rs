//! Courtesy: whether a worker that wakes takes its core from the thread that runs there.
//!
//! Where clients or servers share a core with the worker, they would lose it at each message that
//! they send, and the worker have a turn for each. So a worker lets them go on (`SCHED_BATCH`):
//! they send all that they have, and it has all of that in one turn. But a thread that only
//! computes goes on to the clock's next tick, which is milliseconds off, and the worker's clients
//! would wait. So it looks at how long it has waited for its core, and if that was long, takes it
//! for a while.
//! `bench/DECISIONS.md` has what both bring.

use std::time::Duration;

use crate::proxy::timer_wheel::Tick;
use crate::sys::scheduler::{Policy, Waits, WaitsFile};

/// How long a worker may wait for its core, on average, and still be courteous. Beside clients and
/// servers that send and sleep it is some 5 µs, or half a millisecond when all of them are busy;
/// beside a thread that computes it is a clock's tick or more, 1 to 10 ms.
const LONG: Duration = Duration::from_millis(1);

/// Between two looks while it is courteous.
const LOOK: Duration = Duration::from_millis(50);

/// Waits that are judged together, at least: a program that starts is no reason.
const WAITS_MIN: u64 = 16;

/// Until courtesy is tried again: so many times a look, and so many times the waits. A hundredth is
/// what trying costs beside a thread that goes on computing.
const RETRY: u32 = 100;

/// A worker's.
#[derive(Debug)]
pub(super) struct Scheduling {
    waits: WaitsFile,
    judge: Judge,
}

impl Scheduling {
    /// The calling thread is courteous from now on. None if it may not be: the kernel does not say
    /// how long it waits, or an operator gave it a policy.
    pub(super) fn begin(now: Tick) -> Option<Self> {
        let waits = WaitsFile::of_this_thread().ok()?;
        let judge = Judge::new(now, waits.read()?);
        let may = Policy::of_this_thread() == Some(Policy::Other) && Policy::Batch.adopt().is_ok();
        may.then_some(Self { waits, judge })
    }

    /// Once a turn.
    pub(super) fn turn(&mut self, now: Tick) {
        if now < self.judge.next {
            return;
        }
        if let Some(waits) = self.waits.read()
            && let Some(policy) = self.judge.look(now, waits)
        {
            // It was allowed before.
            policy.adopt().ok();
        }
    }
}

/// What to be, by how long it has waited.
#[derive(Debug)]
struct Judge {
    policy: Policy,
    /// When that was last judged.
    waits: Waits,
    /// When to look again.
    next: Tick,
}

impl Judge {
    /// Of a worker that is courteous.
    fn new(now: Tick, waits: Waits) -> Self {
        Self { policy: Policy::Batch, waits, next: now.after(LOOK) }
    }

    /// The policy to adopt, if it is another than before.
    fn look(&mut self, now: Tick, waits: Waits) -> Option<Policy> {
        let count = waits.count.saturating_sub(self.waits.count);
        let time = waits.time.saturating_sub(self.waits.time);
        let (wanted, policy, pause) = match self.policy {
            Policy::Other => (WAITS_MIN * u64::from(RETRY), Policy::Batch, LOOK),
            Policy::Batch if time.as_nanos() > LONG.as_nanos() * u128::from(count) => {
                (WAITS_MIN, Policy::Other, LOOK * RETRY)
            }
            Policy::Batch => (WAITS_MIN, Policy::Batch, LOOK),
        };
        if count < wanted {
            self.next = now.after(LOOK);
            return None;
        }
        let news = policy != self.policy;
        *self = Self { policy, waits, next: now.after(pause) };
        news.then_some(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(4);

    /// A worker whose waits are made up.
    struct Scene {
        judge: Judge,
        now: Tick,
        waits: Waits,
    }

    impl Scene {
        /// It is courteous from now on.
        fn new() -> Self {
            let waits = Waits::default();
            Self { judge: Judge::new(Tick::START, waits), now: Tick::START, waits }
        }

        /// The next look, after so many waits of this length.
        fn after(&mut self, count: u32, each: Duration) -> Option<Policy> {
            self.now = self.judge.next;
            self.waits.time += each * count;
            self.waits.count += u64::from(count);
            self.judge.look(self.now, self.waits)
        }
    }

    #[test]
    fn it_stays_courteous_while_it_waits_for_those_who_send() {
        for each in [5, 500] {
            let mut scene = Scene::new();
            for _ in 0..100 {
                assert_eq!(scene.after(2000, Duration::from_micros(each)), None);
            }
            assert_eq!(scene.now, Tick::START.after(100 * LOOK));
        }
    }

    #[test]
    fn it_takes_its_core_from_one_who_computes_and_tries_again_later() {
        let mut scene = Scene::new();
        assert_eq!(scene.after(16, TICK), Some(Policy::Other));
        let since = scene.now;
        assert_eq!(scene.after(10_000, Duration::from_micros(1)), Some(Policy::Batch));
        assert_eq!(scene.now.since(since), LOOK * RETRY);
        assert_eq!(scene.after(16, TICK), Some(Policy::Other), "the other still computes");
    }

    #[test]
    fn it_does_not_try_again_before_a_hundred_times_the_waits() {
        let mut scene = Scene::new();
        assert_eq!(scene.after(16, TICK), Some(Policy::Other));
        assert_eq!(scene.after(1599, Duration::ZERO), None);
        assert_eq!(scene.after(1, Duration::ZERO), Some(Policy::Batch));
    }

    #[test]
    fn few_waits_are_judged_with_those_that_follow() {
        let mut scene = Scene::new();
        assert_eq!(scene.after(2, TICK), None, "a program has started");
        assert_eq!(scene.after(1000, Duration::from_micros(5)), None);
        assert_eq!(scene.after(8, TICK), None);
        assert_eq!(scene.after(8, TICK), Some(Policy::Other), "it is no program that starts");
    }

    #[test]
    fn what_was_waited_while_it_took_its_core_is_not_held_against_courtesy() {
        let mut scene = Scene::new();
        assert_eq!(scene.after(16, TICK), Some(Policy::Other));
        assert_eq!(scene.after(1600, TICK), Some(Policy::Batch));
        assert_eq!(scene.after(100, Duration::from_micros(5)), None);
    }
}
