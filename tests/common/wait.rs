//! Waiting for a condition: it is checked again and again until it holds or a timeout ends. No test
//! uses a fixed sleep as a condition.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// For conditions that take milliseconds on an idle machine: this one may be busy.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// Between two checks of a condition.
const INTERVAL: Duration = Duration::from_millis(10);

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    until_ok(what, || if condition() { Ok(()) } else { Err(String::new()) });
}

/// Waits until `attempt` returns a value, and returns it.
#[track_caller]
pub(crate) fn until_some<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    until_ok(what, || attempt().ok_or_else(String::new))
}

/// Waits until `attempt` succeeds; panics at the timeout, with its last error.
#[track_caller]
pub(crate) fn until_ok<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) => {
                assert!(Instant::now() < deadline, "not within {TIMEOUT:?}: {what}; {error}");
            }
        }
        pause(INTERVAL);
    }
}

/// Whether `condition` holds for all of `time`: for what must not happen.
pub(crate) fn holds_for(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        if !condition() {
            return false;
        }
        pause(INTERVAL);
    }
    condition()
}

/// Sets a flag when it is dropped: threads of a scope that run until then end, also if the test
/// fails.
#[derive(Debug)]
pub(crate) struct StopOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sleeps: as a step of a scripted peer, never as a condition.
#[expect(clippy::disallowed_methods, reason = "no ring runs in this thread")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
