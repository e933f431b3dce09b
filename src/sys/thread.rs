//! The cores that a thread uses.

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The cores that the calling thread may use, ascending (`sched_getaffinity(2)`).
///
/// # Errors
/// `EINVAL`: the machine has more than 1,024.
pub fn allowed_cores() -> Result<Vec<usize>, Errno> {
    let allowed = sched_getaffinity(THIS)?;
    Ok((0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false)).collect())
}

/// Pins the calling thread, and each thread that it starts from now on, to this core
/// (`sched_setaffinity(2)`).
///
/// # Errors
/// `EINVAL`: this process may not use it.
pub fn pin(core: usize) -> Result<(), Errno> {
    let mut only = CpuSet::new();
    only.set(core)?;
    sched_setaffinity(THIS, &only)
}

/// The calling thread, in `sched_getaffinity(2)` and `sched_setaffinity(2)`.
const THIS: Pid = Pid::from_raw(0);
