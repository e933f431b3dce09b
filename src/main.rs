//! Decides the exit code, and nothing else.

use std::process::ExitCode;

use evenkeel::cli::{self, Outcome};

fn main() -> ExitCode {
    match cli::main(std::env::args_os()) {
        Outcome::Done => ExitCode::SUCCESS,
        Outcome::Failed => ExitCode::from(1),
        Outcome::Incomplete => ExitCode::from(2),
        Outcome::Refused => ExitCode::from(64), // EX_USAGE of sysexits.h
    }
}
