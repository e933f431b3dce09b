//! Waiting for what will be so, with a moment at which it is given up; and saying what is skipped.

use std::io::{self, Write};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Three probes two seconds apart, on a machine that builds something else meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks: each may start a process.
const TICK: Duration = Duration::from_millis(50);

/// Waits until `look` succeeds; when it never does, its last error is the reason.
#[track_caller]
pub(crate) fn until_ok<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let why = match look() {
            Ok(found) => return found,
            Err(why) => why,
        };
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}: {why}");
        thread::park_timeout(TICK);
    }
}

/// Waits until `so` is true.
#[track_caller]
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    until_ok(what, || so().then_some(()).ok_or_else(String::new));
}

/// Whether this machine has `programs`; if not, says that `test` is skipped.
pub(crate) fn has_programs(test: &str, programs: &[&str]) -> bool {
    let missing: Vec<&str> =
        programs.iter().copied().filter(|program| !is_there(program)).collect();
    if !missing.is_empty() {
        skip(
            test,
            &format!("not installed: {} (tests/run installs what is missing)", missing.join(", ")),
        );
    }
    missing.is_empty()
}

/// Says that `test` is skipped, past the capture of the test harness: who sees "ok" should know.
pub(crate) fn skip(test: &str, why: &str) {
    // To a closed standard error, there is nobody to tell.
    drop(writeln!(io::stderr(), "skipped: {test}: {why}"));
}

fn is_there(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", "command -v \"$0\" >/dev/null", program]).status();
    found.is_ok_and(|status| status.success())
}
