//! How the scheduler treats a thread.

#![expect(unsafe_code, reason = "the system calls have no safe wrapper")]

use nix::errno::Errno;
use nix::libc;

/// Nanoseconds. Longer than anybody's by default, which is 2.8 ms at most (`base_slice_ns`, with
/// eight cores or more).
const SLICE: u64 = 6_000_000;

/// The calling thread, and those that it starts from now on, give way: any other thread that wakes
/// takes the core from them at once, and they take it from none that runs. Their share of a core
/// that has too much to do stays what it was. By `SCHED_BATCH` (sched(7)), and a slice that is
/// longer than the others' (kernel 6.12; older ones ignore it and let a slice end first).
///
/// Who was started with another policy than `SCHED_OTHER` keeps it.
///
/// # Errors
/// `EPERM`, `ENOSYS`: a sandbox forbids it. Nothing has changed then.
pub fn give_way() -> Result<(), Errno> {
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
    let (this, size) = (0, schedule.size);
    // SAFETY: the kernel writes at most `size` bytes to the record, which has as many.
    let asked = unsafe { libc::syscall(libc::SYS_sched_getattr, this, &raw mut schedule, size, 0) };
    Errno::result(asked)?;
    if schedule.sched_policy.cast_signed() != libc::SCHED_OTHER {
        return Ok(());
    }
    schedule.sched_policy = libc::SCHED_BATCH.cast_unsigned();
    schedule.sched_runtime = SLICE;
    // SAFETY: the kernel reads `size` bytes of the record and keeps no pointer to it.
    let told = unsafe { libc::syscall(libc::SYS_sched_setattr, this, &raw const schedule, 0) };
    Errno::result(told).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::thread;

    /// Of the calling thread: field 41 of `proc_pid_stat(5)`.
    fn policy() -> i32 {
        let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, behind_the_name) = stat.rsplit_once(')').unwrap();
        behind_the_name.split_whitespace().nth(38).unwrap().parse().unwrap()
    }

    #[test]
    fn a_thread_that_gives_way_and_those_it_starts_then_do_no_other() {
        let before = thread::spawn(policy);
        let inner = thread::spawn(|| {
            give_way().unwrap();
            (policy(), thread::spawn(policy).join().unwrap())
        });
        assert_eq!(before.join().unwrap(), libc::SCHED_OTHER);
        assert_eq!(inner.join().unwrap(), (libc::SCHED_BATCH, libc::SCHED_BATCH));
        assert_eq!(policy(), libc::SCHED_OTHER);
    }
}
