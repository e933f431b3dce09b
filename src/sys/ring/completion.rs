//! Entering the ring, and the completions of its operations.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, cqueue};
use nix::errno::Errno;

use super::shortage::{Next, PAUSE, RingError, errno_of};
use super::{ACCEPT, NOBODY, Ring, SEND, WAIT_TIMER};
use crate::sys::buffer::BufferId;
use crate::sys::socket::Socket;

/// A completion of an operation.
#[derive(Debug)]
pub struct Completion {
    /// The user data that the operation was given.
    pub user_data: u64,
    /// What the system call would have returned.
    pub result: Result<u32, Errno>,
    /// Whether the operation continues and will complete again. Nothing else tells.
    pub more: bool,
    /// Whether the socket that was received from holds more bytes, or its end (kernel 5.19).
    pub left: bool,
    /// The buffer that bytes were received into, or that was sent from; the caller holds it now.
    pub buffer: Option<BufferId>,
    /// The connection that was accepted.
    pub socket: Option<Socket>,
}

impl Ring {
    /// Submits what was pushed and waits for a completion, at most `until`, if that is given. It
    /// may return early. Times are those of [`Ring::now`]; `now` is when that was last read.
    ///
    /// # Errors
    /// The ring has to end. What a later turn recovers from (a signal, a full completion queue, no
    /// memory for a moment) is not reported.
    pub fn wait(&mut self, now: Duration, until: Option<Duration>) -> Result<(), RingError> {
        self.buffers.end_turn();
        self.buffers.provide();
        // What was done without the ring has completed already.
        let until = if self.done.is_empty() { until } else { Some(now) };
        let answer = match until {
            Some(until) if until <= now => {
                let args = Timespec::new();
                let args = SubmitArgs::new().timespec(&args);
                self.uring.submitter().submit_with_args_and_flags(1, &args, self.waiting)
            }
            until => {
                if let Some(until) = until.filter(|until| self.wait_timer.is_too_late(now, *until))
                {
                    // The turn may have been a long one.
                    let entry = self.wait_timer.arm(self.now(), until);
                    self.push(&entry);
                }
                self.enter()
            }
        };
        self.recycle();
        let outcome = self.handle_enter(answer);
        self.alone = self.uring.completion().len() == 1;
        outcome
    }

    /// Submits what was pushed and waits for a completion.
    fn enter(&mut self) -> io::Result<usize> {
        let entries = self.uring.submission().len();
        let entries = u32::try_from(entries).unwrap_or(u32::MAX);
        let flags = (self.waiting | EnterFlags::GETEVENTS).bits();
        // SAFETY: the call has no argument that could hold a pointer.
        unsafe { self.uring.submitter().enter::<()>(entries, 1, flags, None) }
    }

    /// Submits what was pushed, so that there is room for more. The caller repeats it: an entry is
    /// never dropped.
    pub(super) fn submit(&mut self) {
        let answer = self.uring.submitter().submit();
        self.recycle();
        if let Err(error) = self.handle_enter(answer) {
            error.end_process();
        }
    }

    /// Drops the addresses of connects once the kernel has taken every entry.
    pub(super) fn recycle(&mut self) {
        if !self.connects.is_empty() && self.uring.submission().is_empty() {
            self.connects.clear();
        }
    }

    /// Handles the result of a call of `io_uring_enter(2)`. If the kernel had no memory for a
    /// request, the ring waits for other completions for a moment: what is in flight continues.
    ///
    /// # Errors
    /// The ring has to end.
    pub(super) fn handle_enter(&mut self, answer: io::Result<usize>) -> Result<(), RingError> {
        if answer.is_ok() && self.enters.are_clean() {
            return Ok(()); // without a look at the clock
        }
        let now = self.now();
        match self.enters.judge(answer, now) {
            Next::Continue => Ok(()),
            Next::Pause => self.pause(),
            Next::Fail(error) => Err(error),
        }
    }

    /// Waits for one more completion than there are, without a submission.
    fn pause(&mut self) -> Result<(), RingError> {
        let wanted = u32::try_from(self.uring.completion().len()).unwrap_or(u32::MAX);
        let time = Timespec::from(PAUSE);
        let args = SubmitArgs::new().timespec(&time);
        let flags = (self.waiting | EnterFlags::GETEVENTS | EnterFlags::EXT_ARG).bits();
        // SAFETY: `args`, and the time that it points to, live until the call has returned.
        let answer = unsafe {
            self.uring.submitter().enter(0, wanted.saturating_add(1), flags, Some(&args))
        };
        match answer {
            Err(error) if errno_of(&error) == Errno::EBADR => Err(self.enters.completions_lost()),
            // The next call reports what else may be wrong.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The next completion, if there is one.
    pub fn completion(&mut self) -> Option<Completion> {
        if let Some((user_data, buffer, result)) = self.done.pop_front() {
            let (more, left) = (false, false);
            return Some(Completion { user_data, result, more, left, buffer, socket: None });
        }
        loop {
            let Some(entry) = self.uring.completion().next() else {
                // What is sent from now on would complete after the next wait.
                self.alone = false;
                return None;
            };
            let more = cqueue::more(entry.flags());
            match entry.user_data() {
                NOBODY => continue,
                WAIT_TIMER => {
                    self.wait_timer.on_expired();
                    continue;
                }
                _ => {}
            }
            if !more {
                self.in_flight -= 1;
            }
            let result = entry.result();
            let accepted = entry.user_data() & ACCEPT != 0 && result >= 0;
            let socket = accepted.then(|| {
                // SAFETY: the kernel made this descriptor for the accept, and nobody else owns it.
                Socket::from_descriptor(unsafe { OwnedFd::from_raw_fd(result) })
            });
            let (user_data, buffer) = if entry.user_data() & (ACCEPT | SEND) == SEND {
                let Some((user_data, buffer)) = self.take_sending(entry.user_data()) else {
                    debug_assert!(false, "a send in flight holds its buffer");
                    continue;
                };
                (user_data, Some(buffer))
            } else {
                let index = cqueue::buffer_select(entry.flags());
                (entry.user_data() & !ACCEPT, index.map(|index| self.buffers.adopt(index)))
            };
            return Some(Completion {
                user_data,
                socket,
                result: u32::try_from(result).map_err(|_| Errno::from_raw(-result)),
                more,
                left: cqueue::sock_nonempty(entry.flags()),
                buffer,
            });
        }
    }

    /// The user data of a completed send, and the buffer that it was sent from.
    fn take_sending(&mut self, user_data: u64) -> Option<(u64, BufferId)> {
        let index = usize::try_from(user_data & !SEND).ok()?;
        self.sending.get_mut(index)?.take()
    }

    /// Waits until no operation is in flight, at most for `time`. Completions are dropped. The
    /// operations end by themselves or were cancelled.
    pub fn finish(&mut self, time: Duration) {
        let until = self.now() + time;
        while self.in_flight > 0 && self.now() < until {
            self.wait(self.now(), Some(until)).ok();
            while let Some(completion) = self.completion() {
                if let Some(buffer) = completion.buffer {
                    self.buffers.release(buffer);
                }
            }
        }
    }

    /// Whether completions did not fit the completion queue, and wait in the kernel.
    pub fn overflown(&mut self) -> bool {
        self.uring.submission().cq_overflow()
    }
}
