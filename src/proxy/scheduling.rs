//! The scheduling policy of a worker's thread (sched(7)).
//!
//! Under `SCHED_OTHER`, a wake-up of the worker preempts the thread that is running on its core. If
//! clients or servers share that core, they lose it at each message that they send, and the worker
//! has one turn for each message. Under `SCHED_BATCH` a wake-up preempts nothing: they send all
//! that they have, and the worker handles it in one turn. But a thread that computes keeps the
//! core until the next tick of the clock, milliseconds later. So the worker measures how long it
//! waits for its core, and changes to `SCHED_OTHER` for a while if that is long. Figures:
//! `bench/DECISIONS.md`.

use std::time::Duration;

use crate::proxy::timer_wheel::Tick;
use crate::sys::scheduler::{Policy, Waits, WaitsFile};

/// The average wait for the core beyond which `SCHED_BATCH` costs too much. Beside clients and
/// servers that send and sleep a wait is about 5 µs, or 0.5 ms if all of them are busy; beside a
/// thread that computes it is a tick of the clock or more, 1 to 10 ms.
const WAIT_MAX: Duration = Duration::from_millis(1);

/// Between two measurements under `SCHED_BATCH`.
const INTERVAL: Duration = Duration::from_millis(50);

/// The fewest waits that decide: a program that starts is no reason to change.
const WAITS_MIN: u64 = 16;

/// `SCHED_BATCH` is tried again after this many intervals and this many times the waits: beside a
/// thread that keeps computing, that costs one part in a hundred.
const RETRY: u32 = 100;

/// The policy of a worker's thread, and what decides it.
#[derive(Debug)]
pub(super) struct Scheduling {
    waits: WaitsFile,
    decision: Decision,
}

impl Scheduling {
    /// Sets `SCHED_BATCH` for the calling thread. None if the kernel does not report how long the
    /// thread waits, or the operator has set a policy.
    pub(super) fn begin(now: Tick) -> Option<Self> {
        let waits = WaitsFile::of_this_thread().ok()?;
        let decision = Decision::new(now, waits.read()?);
        let may = Policy::of_this_thread() == Some(Policy::Other) && Policy::Batch.adopt().is_ok();
        may.then_some(Self { waits, decision })
    }

    /// Once a turn.
    pub(super) fn turn(&mut self, now: Tick) {
        if now < self.decision.next {
            return;
        }
        if let Some(waits) = self.waits.read()
            && let Some(policy) = self.decision.measure(now, waits)
        {
            // It was allowed before.
            policy.adopt().ok();
        }
    }
}

/// The policy, decided by how long the thread waits for its core.
#[derive(Debug)]
struct Decision {
    policy: Policy,
    /// The waits until the last decision.
    waits: Waits,
    /// When to measure again.
    next: Tick,
}

impl Decision {
    /// Of a thread under `SCHED_BATCH`.
    fn new(now: Tick, waits: Waits) -> Self {
        Self { policy: Policy::Batch, waits, next: now.after(INTERVAL) }
    }

    /// The policy to change to, if any.
    fn measure(&mut self, now: Tick, waits: Waits) -> Option<Policy> {
        let count = waits.count.saturating_sub(self.waits.count);
        let time = waits.time.saturating_sub(self.waits.time);
        let (wanted, policy, pause) = match self.policy {
            Policy::Other => (WAITS_MIN * u64::from(RETRY), Policy::Batch, INTERVAL),
            Policy::Batch if time.as_nanos() > WAIT_MAX.as_nanos() * u128::from(count) => {
                (WAITS_MIN, Policy::Other, INTERVAL * RETRY)
            }
            Policy::Batch => (WAITS_MIN, Policy::Batch, INTERVAL),
        };
        if count < wanted {
            self.next = now.after(INTERVAL);
            return None;
        }
        let changes = policy != self.policy;
        *self = Self { policy, waits, next: now.after(pause) };
        changes.then_some(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(4);

    /// A thread with simulated waits.
    struct Scene {
        decision: Decision,
        now: Tick,
        waits: Waits,
    }

    impl Scene {
        /// Under `SCHED_BATCH`.
        fn new() -> Self {
            let waits = Waits::default();
            Self { decision: Decision::new(Tick::START, waits), now: Tick::START, waits }
        }

        /// The next measurement, after so many waits of this length.
        fn after(&mut self, count: u32, each: Duration) -> Option<Policy> {
            self.now = self.decision.next;
            self.waits.time += each * count;
            self.waits.count += u64::from(count);
            self.decision.measure(self.now, self.waits)
        }
    }

    #[test]
    fn it_stays_under_batch_while_it_waits_for_threads_that_send() {
        for each in [5, 500] {
            let mut scene = Scene::new();
            for _ in 0..100 {
                assert_eq!(scene.after(2000, Duration::from_micros(each)), None);
            }
            assert_eq!(scene.now, Tick::START.after(100 * INTERVAL));
        }
    }

    #[test]
    fn it_leaves_batch_beside_a_thread_that_computes_and_tries_it_again_later() {
        let mut scene = Scene::new();
        assert_eq!(scene.after(16, TICK), Some(Policy::Other));
        let since = scene.now;
        assert_eq!(scene.after(10_000, Duration::from_micros(1)), Some(Policy::Batch));
        assert_eq!(scene.now.since(since), INTERVAL * RETRY);
        assert_eq!(scene.after(16, TICK), Some(Policy::Other), "the other thread still computes");
    }

    #[test]
    fn it_does_not_try_again_before_a_hundred_times_the_waits() {
        let mut scene = Scene::new();
        assert_eq!(scene.after(16, TICK), Some(Policy::Other));
        assert_eq!(scene.after(1599, Duration::ZERO), None);
        assert_eq!(scene.after(1, Duration::ZERO), Some(Policy::Batch));
    }

    #[test]
    fn few_waits_are_measured_with_those_that_follow() {
        let mut scene = Scene::new();
        assert_eq!(scene.after(2, TICK), None, "a program has started");
        assert_eq!(scene.after(1000, Duration::from_micros(5)), None);
        assert_eq!(scene.after(8, TICK), None);
        assert_eq!(scene.after(8, TICK), Some(Policy::Other), "it does not only start");
    }

    #[test]
    fn waits_under_the_other_policy_do_not_count_against_batch() {
        let mut scene = Scene::new();
        assert_eq!(scene.after(16, TICK), Some(Policy::Other));
        assert_eq!(scene.after(1600, TICK), Some(Policy::Batch));
        assert_eq!(scene.after(100, Duration::from_micros(5)), None);
    }
}
