//! The scheduling policy of the calling thread, and how long it waits for a core (sched(7)).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

/// The two scheduling policies that a thread may change between without privilege.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// `SCHED_OTHER`, the default: a thread that wakes may preempt the thread that runs on its
    /// core.
    Other,
    /// `SCHED_BATCH`: a thread that wakes waits until that thread sleeps or has used its slice,
    /// which the kernel checks at the next tick (`check_preempt_wakeup_fair` in
    /// kernel/sched/fair.c).
    Batch,
}

impl Policy {
    /// The policy of the calling thread; none if it was given another one (`chrt`, systemd's
    /// `CPUSchedulingPolicy=`).
    #[must_use]
    pub fn of_this_thread() -> Option<Self> {
        // SAFETY: the argument is a thread id (0: the caller); the call reads no memory.
        match unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) } {
            OTHER => Some(Self::Other),
            BATCH => Some(Self::Batch),
            _ => None,
        }
    }

    /// Sets the policy of the calling thread.
    ///
    /// # Errors
    /// `EPERM`: a filter of system calls forbids it.
    pub fn adopt(self) -> Result<(), Errno> {
        let policy = match self {
            Self::Other => OTHER,
            Self::Batch => BATCH,
        };
        let priority = libc::c_int::from(0u8); // all of `struct sched_param`
        // SAFETY: the kernel reads one int at the pointer, and `priority` lives until the call
        // returns. (A raw call: the function of musl returns ENOSYS.)
        let answer =
            unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const priority) };
        Errno::result(answer).map(drop)
    }
}

const OTHER: libc::c_long = libc::SCHED_OTHER as libc::c_long;
const BATCH: libc::c_long = libc::SCHED_BATCH as libc::c_long;

/// How long a thread has waited for a core, and how often it was given one, since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waits {
    /// Ready, and not running.
    pub time: Duration,
    /// How often it was given a core.
    pub count: u64,
}

/// The file with these figures: `/proc/thread-self/schedstat`
/// (Documentation/scheduler/sched-stats.rst).
#[derive(Debug)]
pub struct WaitsFile(File);

impl WaitsFile {
    /// The file of the calling thread. Other threads may read it.
    ///
    /// # Errors
    /// /proc is not there, or no descriptor is left.
    pub fn of_this_thread() -> io::Result<Self> {
        File::open("/proc/thread-self/schedstat").map(Self)
    }

    /// The present figures; none if this kernel does not count them (`CONFIG_SCHED_INFO`).
    #[must_use]
    pub fn read(&self) -> Option<Waits> {
        let mut bytes = [0; 64]; // three numbers of 20 digits at most
        let length = self.0.read_at(&mut bytes, 0).ok()?;
        parse(str::from_utf8(bytes.get(..length)?).ok()?)
    }
}

/// Reads: nanoseconds run, nanoseconds waited, times given a core.
fn parse(text: &str) -> Option<Waits> {
    let mut numbers = text.split_whitespace().skip(1).map(str::parse);
    let (time, count) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (count > 0).then_some(Waits { time: Duration::from_nanos(time), count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_set_for_the_calling_thread_alone() {
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
    fn figures_of_a_kernel_that_counts_nothing_are_refused() {
        assert_eq!(
            parse("12 3400 5\n"),
            Some(Waits { time: Duration::from_nanos(3400), count: 5 })
        );
        assert_eq!(parse("0 0 0\n"), None);
        assert_eq!(parse("12 x 5\n"), None);
        assert_eq!(parse(""), None);
    }
}
