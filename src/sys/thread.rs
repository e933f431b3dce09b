//! How the scheduler treats a thread.

#![expect(unsafe_code, reason = "the system calls have no safe wrapper")]

use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The shortest there is; anybody's by default is 0.7 ms at least (`base_slice_ns`).
const SLICE: Duration = Duration::from_micros(100);

/// The calling thread takes the core by short slices: as soon as it wakes it may take it from one
/// whose slice is longer, and its turn ends sooner where others wait. Its share of a core that has
/// too much to do stays what it was. Kernel 6.12; older ones ignore it.
///
/// Who was started with another policy than `SCHED_OTHER` (sched(7)) keeps it.
///
/// # Errors
/// `EPERM`, `ENOSYS`: a sandbox forbids it. Nothing has changed then.
pub fn take_short_slices() -> Result<(), Errno> {
    let mut schedule = ask(THIS)?;
    if schedule.sched_policy.cast_signed() != libc::SCHED_OTHER {
        return Ok(());
    }
    schedule.sched_runtime = u64::try_from(SLICE.as_nanos()).unwrap_or_default();
    // SAFETY: the kernel reads `size` bytes of the record and keeps no pointer to it.
    let told =
        unsafe { libc::syscall(libc::SYS_sched_setattr, THIS.as_raw(), &raw const schedule, 0) };
    Errno::result(told).map(drop)
}

/// The cores that the calling thread may use, ascending (`sched_getaffinity(2)`).
///
/// # Errors
/// `EINVAL`: the machine has more than 1,024.
pub fn allowed_cores() -> Result<Vec<usize>, Errno> {
    let allowed = sched_getaffinity(THIS)?;
    Ok((0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false)).collect())
}

/// The calling thread, and each that it starts from now on, uses this core only
/// (`sched_setaffinity(2)`).
///
/// # Errors
/// `EINVAL`: this process may not use it.
pub fn pin(core: usize) -> Result<(), Errno> {
    let mut only = CpuSet::new();
    only.set(core)?;
    sched_setaffinity(THIS, &only)
}

/// The slice of `thread`; zero where the kernel does not tell (before 6.12).
///
/// # Errors
/// `ESRCH`: there is none; and those of [`take_short_slices`].
pub fn slice_of(thread: Pid) -> Result<Duration, Errno> {
    Ok(Duration::from_nanos(ask(thread)?.sched_runtime))
}

/// The calling thread, for `sched_getattr(2)` and `sched_setattr(2)`.
const THIS: Pid = Pid::from_raw(0);

fn ask(thread: Pid) -> Result<libc::sched_attr, Errno> {
    let mut schedule = libc::sched_attr {
        size: u32::try_from(size_of::<libc::sched_attr>()).unwrap_or_default(),
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    let (thread, size) = (thread.as_raw(), schedule.size);
    // SAFETY: the kernel writes at most `size` bytes to the record, which has as many.
    let asked =
        unsafe { libc::syscall(libc::SYS_sched_getattr, thread, &raw mut schedule, size, 0) };
    Errno::result(asked).map(|_| schedule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::release::Release;
    use std::thread;

    #[test]
    fn a_thread_that_takes_short_slices_is_otherwise_as_it_was() {
        let (before, after) = thread::spawn(|| {
            let before = ask(THIS).unwrap();
            take_short_slices().unwrap();
            (before, ask(THIS).unwrap())
        })
        .join()
        .unwrap();
        assert_eq!(after.sched_policy, before.sched_policy);
        assert_eq!(after.sched_nice, before.sched_nice);
        if Release::of_this_kernel() >= Some(Release(6, 12, 0)) {
            assert_eq!(Duration::from_nanos(after.sched_runtime), SLICE);
            assert!(slice_of(THIS).unwrap() > SLICE, "others keep theirs");
        }
    }
}
