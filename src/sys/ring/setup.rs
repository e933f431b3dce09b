//! How a ring is made: its size, its flags, and the operations that it is restricted to.

use std::io;

use io_uring::squeue::Flags;
use io_uring::{IoUring, Probe, opcode, register::Restriction};

/// Submissions that fit before the kernel has to be entered.
const SUBMISSIONS: u32 = 1024;

/// A ring with fewer submissions than this is not worth having.
const SUBMISSIONS_MIN: u32 = 64;

/// Operations that this program uses, by name: its rings are allowed no other.
const OPERATIONS: [(&str, u8); 9] = [
    ("accept", opcode::AcceptMulti::CODE),
    ("connect", opcode::Connect::CODE),
    ("receive", opcode::RecvMulti::CODE),
    ("send", opcode::Send::CODE),
    ("poll", opcode::PollAdd::CODE),
    ("cancel", opcode::AsyncCancel2::CODE),
    ("close", opcode::Close::CODE),
    ("timeout", opcode::Timeout::CODE),
    ("timeout update", opcode::TimeoutUpdate::CODE),
];

/// Entries of the two queues of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingSize {
    submissions: u32,
    completions: u32,
}

impl RingSize {
    /// For about `sessions` sessions: room for two completions of each in one turn. The kernel
    /// keeps what does not fit, but then it ends multishot operations.
    #[must_use]
    pub fn for_sessions(sessions: u32) -> Self {
        let completions = sessions.saturating_mul(2).next_power_of_two().clamp(4096, 32_768);
        Self { submissions: SUBMISSIONS, completions }
    }

    /// Bytes of memory, which kernels from 6.14 on charge to `RLIMIT_MEMLOCK`. Each part is rounded
    /// up to pages of 16 KiB, the largest of a Pi.
    #[must_use]
    pub fn locked_memory(self) -> u64 {
        const PAGE: u64 = 16 * 1024;
        let (submissions, completions) = (u64::from(self.submissions), u64::from(self.completions));
        // Each io_uring_sqe; each io_uring_cqe and submission index, behind heads and tails.
        let parts = [submissions * 64, completions * 16 + submissions * 4 + 512];
        let buffer_ring = PAGE;
        parts.iter().map(|bytes| bytes.next_multiple_of(PAGE)).sum::<u64>() + buffer_ring
    }

    /// Half of it; none if that is not worth having.
    #[must_use]
    pub const fn halved(self) -> Option<Self> {
        let (submissions, completions) = (self.submissions / 2, self.completions / 2);
        if submissions < SUBMISSIONS_MIN {
            return None;
        }
        Some(Self { submissions, completions })
    }

    /// The smallest that a worker accepts in its place.
    #[must_use]
    pub fn smallest(self) -> Self {
        std::iter::successors(Some(self), |size| size.halved()).last().unwrap_or(self)
    }
}

/// What the kernel's io_uring offers.
#[derive(Debug)]
pub struct RingFeatures {
    /// Waits with a timeout in the same system call (`EXT_ARG`, kernel 5.11).
    pub ext_arg: bool,
    /// The operations that a worker needs, by name, and whether the kernel knows them.
    pub operations: Vec<(&'static str, bool)>,
}

impl RingFeatures {
    /// Of the running kernel.
    ///
    /// # Errors
    /// As [`super::Ring::new`], or a sandbox forbids the query.
    pub fn of_this_kernel() -> io::Result<Self> {
        let uring = build(RingSize::for_sessions(0).smallest())?;
        let mut probe = Probe::new();
        uring.submitter().register_probe(&mut probe)?;
        let operations = OPERATIONS.map(|(name, code)| (name, probe.is_supported(code)));
        let ext_arg = uring.params().is_feature_ext_arg();
        Ok(Self { ext_arg, operations: operations.to_vec() })
    }
}

/// A ring that is disabled until [`enable`].
pub(super) fn build(size: RingSize) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_cqsize(size.completions)
        .setup_r_disabled()
        .build(size.submissions)
}

/// Restricts a ring to what this program uses, and enables it.
pub(super) fn enable(uring: &IoUring) -> io::Result<()> {
    let mut allowed: Vec<_> =
        OPERATIONS.iter().map(|(_, code)| Restriction::sqe_op(*code)).collect();
    let flags = Flags::BUFFER_SELECT | Flags::SKIP_SUCCESS;
    allowed.push(Restriction::sqe_flags_allowed(flags.bits()));
    uring.submitter().register_restrictions(&mut allowed)?;
    uring.submitter().register_enable_rings()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_halved_four_times() {
        let size = RingSize::for_sessions(10_000);
        assert_eq!((size.submissions, size.completions), (1024, 32_768));
        assert_eq!(size.locked_memory(), (64 + 528 + 16) * 1024);
        let smallest = size.smallest();
        assert_eq!((smallest.submissions, smallest.completions), (64, 2048));
        assert!(smallest.halved().is_none());
    }
}
