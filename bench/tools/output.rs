//! Where the bench prints: results on standard output, progress and problems on standard error.

/// Prints one line of a result.
#[expect(clippy::print_stdout, reason = "results belong on standard output")]
pub(crate) fn print(line: &str) {
    println!("{line}");
}

/// Prints one line about the progress of the run.
#[expect(clippy::print_stderr, reason = "progress and problems belong on standard error")]
pub(crate) fn log(line: &str) {
    eprintln!("{line}");
}
