//! Whether a test can run here, and small parts that several protocols use.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::skip;

/// Where servers are that a plain user has not in PATH.
const MORE_FOLDERS: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// The absolute path of an installed program.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(MORE_FOLDERS.split(':'));
    folders.map(|folder| Path::new(folder).join(program)).find(|file| file.is_file())
}

/// A command that runs an installed program.
#[track_caller]
pub(crate) fn command(program: &str) -> Command {
    Command::new(find(program).unwrap_or_else(|| panic!("{program} is not installed")))
}

/// Whether this machine has `programs`; if not, `test` is reported as skipped.
pub(crate) fn has_programs(test: &str, programs: &[&str]) -> bool {
    let missing: Vec<&str> =
        programs.iter().copied().filter(|program| find(program).is_none()).collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        skip(test, &format!("not installed: {missing} (tests/run installs what is missing)"));
    }
    missing.is_empty()
}

/// Bytes that do not compress and do not repeat, the same in each run.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

/// Fails if `actual` differs, without printing megabytes.
#[track_caller]
pub(crate) fn assert_same(actual: &[u8], expected: &[u8]) {
    let differs = actual.iter().zip(expected).position(|(one, other)| one != other);
    let lengths = (actual.len(), expected.len());
    assert!(actual == expected, "lengths {lengths:?}, first difference at {differs:?}");
}
