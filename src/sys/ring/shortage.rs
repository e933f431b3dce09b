//! Calls of `io_uring_enter(2)` that fail: the kernel has no memory for a request, or has lost a
//! completion.

use std::io;
use std::time::Duration;

use nix::errno::Errno;

/// How long a ring waits before it asks again for memory: other work of this machine needs the time
/// to release some, and the worker must not spin.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// How long the kernel may refuse to make any request. After that the worker serves nobody, and a
/// new process can do better. The message of [`RingError::NoMemory`] names it.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a ring has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// EBADR. Sessions would wait for these completions for ever.
    #[error("the kernel had no memory for completions and dropped them (EBADR)")]
    CompletionsLost,
    /// EAGAIN or ENOMEM, again and again.
    #[error("the kernel has had no memory for io_uring requests for 10 s ({0})")]
    NoMemory(Errno),
    /// Any other error of `io_uring_enter(2)`.
    #[error("io_uring_enter(2) failed: {0}")]
    Enter(Errno),
}

impl RingError {
    /// Ends the process: without its ring, a worker serves nobody and keeps its share of the
    /// clients. A supervisor starts a new process.
    ///
    /// # Panics
    /// Always.
    #[expect(clippy::panic, reason = "a half-dead process would swallow its share of the clients")]
    pub fn end_process(self) -> ! {
        panic!("the ring of this worker cannot go on: {self}")
    }
}

impl From<RingError> for io::Error {
    fn from(error: RingError) -> Self {
        match error {
            RingError::CompletionsLost => Errno::EBADR.into(),
            RingError::NoMemory(errno) | RingError::Enter(errno) => errno.into(),
        }
    }
}

/// What the last calls of `io_uring_enter(2)` returned.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Enters {
    /// Since when the kernel has had no memory for a request.
    without_memory: Option<Duration>,
    /// A call whose caller cannot end the ring reported lost completions. The kernel does so once.
    lost: bool,
}

/// What to do after `io_uring_enter(2)`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Continue,
    Pause,
    Fail(RingError),
}

impl Enters {
    /// Whether the last call succeeded, and nothing is lost.
    pub(super) fn are_clean(&self) -> bool {
        *self == Self::default()
    }

    /// The kernel reported lost completions.
    pub(super) const fn completions_lost(&mut self) -> RingError {
        self.lost = true;
        RingError::CompletionsLost
    }

    /// Judges the result of a call, at the time `now` of the ring.
    pub(super) fn judge(&mut self, answer: io::Result<usize>, now: Duration) -> Next {
        let errno = answer.err().map(|error| errno_of(&error));
        if self.lost || errno == Some(Errno::EBADR) {
            return Next::Fail(self.completions_lost());
        }
        match errno {
            Some(errno @ (Errno::EAGAIN | Errno::ENOMEM)) => {
                let since = *self.without_memory.get_or_insert(now);
                if now.saturating_sub(since) < MEMORY_TIMEOUT {
                    return Next::Pause;
                }
                Next::Fail(RingError::NoMemory(errno))
            }
            // A timeout, a signal, and a full completion queue, which the next turn empties.
            None | Some(Errno::ETIME | Errno::EINTR | Errno::EBUSY) => {
                self.without_memory = None;
                Next::Continue
            }
            Some(errno) => Next::Fail(RingError::Enter(errno)),
        }
    }
}

pub(super) fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(errno: Errno) -> io::Result<usize> {
        Err(errno.into())
    }

    #[test]
    fn lost_completions_end_the_ring_however_they_were_reported() {
        let mut enters = Enters::default();
        let lost = Next::Fail(RingError::CompletionsLost);
        assert_eq!(enters.judge(failed(Errno::EBADR), Duration::ZERO), lost);
        assert_eq!(enters.judge(Ok(1), Duration::ZERO), lost, "the kernel reports it once");
    }

    #[test]
    fn a_lack_of_memory_ends_the_ring_only_if_it_lasts() {
        let mut enters = Enters::default();
        let second = Duration::from_secs(1);
        for errno in [Errno::EAGAIN, Errno::ENOMEM] {
            assert_eq!(enters.judge(failed(errno), second), Next::Pause);
        }
        assert_eq!(enters.judge(failed(Errno::EAGAIN), second * 10), Next::Pause);
        assert_eq!(enters.judge(Ok(1), second * 10), Next::Continue, "there was some");
        assert_eq!(enters.judge(failed(Errno::EAGAIN), second * 12), Next::Pause);
        let ended = Next::Fail(RingError::NoMemory(Errno::ENOMEM));
        assert_eq!(enters.judge(failed(Errno::ENOMEM), second * 22), ended);
    }

    #[test]
    fn signals_timeouts_and_a_full_completion_queue_are_no_failures() {
        let mut enters = Enters::default();
        for errno in [Errno::EINTR, Errno::ETIME, Errno::EBUSY] {
            assert_eq!(enters.judge(failed(errno), Duration::ZERO), Next::Continue);
        }
        let failure = Next::Fail(RingError::Enter(Errno::EBADFD));
        assert_eq!(enters.judge(failed(Errno::EBADFD), Duration::ZERO), failure);
    }
}
