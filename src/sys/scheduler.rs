//! How the kernel's scheduler treats the calling thread (sched(7)).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

/// Of the policies for threads without deadlines, the two that anybody may change between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// `SCHED_OTHER`, which every thread begins with: as it wakes, it may take its core from the
    /// thread that runs there.
    Other,
    /// `SCHED_BATCH`: as it wakes, it waits for that thread to sleep or to have had its slice,
    /// which is seen at the clock's next tick (`check_preempt_wakeup_fair` in kernel/sched/fair.c).
    Batch,
}

impl Policy {
    /// Of the calling thread; none: it was given another (`chrt`, systemd's
    /// `CPUSchedulingPolicy=`).
    #[must_use]
    pub fn of_this_thread() -> Option<Self> {
        // SAFETY: the call takes a thread's number (0: the caller) and no memory.
        match unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) } {
            OTHER => Some(Self::Other),
            BATCH => Some(Self::Batch),
            _ => None,
        }
    }

    /// Gives it to the calling thread.
    ///
    /// # Errors
    /// `EPERM`: a filter of system calls forbids it.
    pub fn adopt(self) -> Result<(), Errno> {
        let policy = match self {
            Self::Other => OTHER,
            Self::Batch => BATCH,
        };
        let priority = libc::c_int::from(0u8); // all of `struct sched_param`
        // SAFETY: the kernel reads one int behind the pointer, which lives until the call returns.
        // (A raw call, as musl answers ENOSYS to its own.)
        let answer =
            unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const priority) };
        Errno::result(answer).map(drop)
    }
}

const OTHER: libc::c_long = libc::SCHED_OTHER as libc::c_long;
const BATCH: libc::c_long = libc::SCHED_BATCH as libc::c_long;

/// How long a thread has waited for a core, and how often it was given one, since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waits {
    /// Ready, and not running.
    pub time: Duration,
    /// How often it was given a core.
    pub count: u64,
}

/// Where the kernel says so: `/proc/thread-self/schedstat`
/// (Documentation/scheduler/sched-stats.rst).
#[derive(Debug)]
pub struct WaitsFile(File);

impl WaitsFile {
    /// Of the calling thread, whoever reads it later.
    ///
    /// # Errors
    /// /proc is not there, or no descriptor is left.
    pub fn of_this_thread() -> io::Result<Self> {
        File::open("/proc/thread-self/schedstat").map(Self)
    }

    /// As of now; none if this kernel does not count them (`CONFIG_SCHED_INFO`).
    #[must_use]
    pub fn read(&self) -> Option<Waits> {
        let mut bytes = [0; 64]; // three numbers of 20 digits at most
        let length = self.0.read_at(&mut bytes, 0).ok()?;
        parse(str::from_utf8(bytes.get(..length)?).ok()?)
    }
}

/// Nanoseconds run, nanoseconds waited, times given a core.
fn parse(text: &str) -> Option<Waits> {
    let mut numbers = text.split_whitespace().skip(1).map(str::parse);
    let (time, count) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (count > 0).then_some(Waits { time: Duration::from_nanos(time), count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_adopted_by_the_calling_thread_alone() {
        let other = std::thread::spawn(|| {
            assert_eq!(Policy::of_this_thread(), Some(Policy::Other));
            Policy::Batch.adopt().unwrap();
            let adopted = Policy::of_this_thread();
            Policy::Other.adopt().unwrap();
            (adopted, Policy::of_this_thread())
        });
        assert_eq!(other.join().unwrap(), (Some(Policy::Batch), Some(Policy::Other)));
        assert_eq!(Policy::of_this_thread(), Some(Policy::Other));
    }

    #[test]
    fn waits_only_grow() {
        let file = WaitsFile::of_this_thread().unwrap();
        let before = file.read().unwrap();
        std::thread::yield_now();
        let after = file.read().unwrap();
        assert!(after.time >= before.time && after.count >= before.count);
    }

    #[test]
    fn a_kernel_that_counts_nothing_is_not_believed() {
        assert_eq!(
            parse("12 3400 5\n"),
            Some(Waits { time: Duration::from_nanos(3400), count: 5 })
        );
        assert_eq!(parse("0 0 0\n"), None);
        assert_eq!(parse("12 x 5\n"), None);
        assert_eq!(parse(""), None);
    }
}
