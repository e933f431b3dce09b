//! Waiting for what will be: asked again and again until it is so, with a moment at which it is
//! given up. No test waits for a time to pass and hopes.

use std::time::{Duration, Instant};

/// For what takes milliseconds on an idle machine; this one may be building something.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks.
const TICK: Duration = Duration::from_millis(10);

/// Waits until `so` is true.
#[track_caller]
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    until_ok(what, || if so() { Ok(()) } else { Err(String::new()) });
}

/// Waits until there is something, and gives it.
#[track_caller]
pub(crate) fn until_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    until_ok(what, || look().ok_or_else(String::new))
}

/// Waits until nothing is wrong any more; at the end of patience says what still is.
#[track_caller]
pub(crate) fn until_ok<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(wrong) => {
                assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}; {wrong}");
            }
        }
        pause(TICK);
    }
}

/// Whether `so` stays true for `time`: for what must not happen.
pub(crate) fn holds_for(time: Duration, mut so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        if !so() {
            return false;
        }
        pause(TICK);
    }
    so()
}

/// Lets `time` pass: as a step of a script, never as a condition.
#[expect(clippy::disallowed_methods, reason = "there is no ring in a test that it could block")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
