//! Waiting for a condition with a timeout, and reporting skipped tests.

use std::io::{self, Write};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Three probes, two seconds apart, on a machine that may be busy.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Between two attempts: each may start a process.
const INTERVAL: Duration = Duration::from_millis(50);

/// Waits until `attempt` succeeds; panics at the timeout, with its last error.
#[track_caller]
pub(crate) fn until_ok<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let error = match attempt() {
            Ok(value) => return value,
            Err(error) => error,
        };
        assert!(Instant::now() < deadline, "not within {TIMEOUT:?}: {what}: {error}");
        thread::park_timeout(INTERVAL);
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    until_ok(what, || condition().then_some(()).ok_or_else(String::new));
}

/// Whether this machine has `programs`; if not, `test` is reported as skipped.
pub(crate) fn has_programs(test: &str, programs: &[&str]) -> bool {
    let missing: Vec<&str> =
        programs.iter().copied().filter(|program| !is_installed(program)).collect();
    if !missing.is_empty() {
        skip(
            test,
            &format!("not installed: {} (tests/run installs what is missing)", missing.join(", ")),
        );
    }
    missing.is_empty()
}

/// Reports a skipped test on standard error, where the test harness does not capture it: the
/// harness itself reports the test as passed.
pub(crate) fn skip(test: &str, why: &str) {
    // Standard error may be closed.
    drop(writeln!(io::stderr(), "skipped: {test}: {why}"));
}

fn is_installed(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", "command -v \"$0\" >/dev/null", program]).status();
    found.is_ok_and(|status| status.success())
}
