//! Wakes a worker from its wait, from any thread (eventfd(2)).

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Wakes one worker. Any thread may use it.
#[derive(Debug)]
pub struct Waker {
    counter: EventFd,
}

impl Waker {
    /// A waker with its own event counter.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self { counter: EventFd::from_value_and_flags(0, flags)? })
    }

    /// Ends the wait of the worker, or its next one at once.
    pub fn wake(&self) {
        // A full counter (EAGAIN) means that the worker is woken already.
        self.counter.write(1).ok();
    }

    /// Takes the wake-ups so far, so that the counter is no longer readable; false: there were
    /// none.
    pub fn take(&self) -> bool {
        self.counter.read().is_ok()
    }

    /// For the ring's poll.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.counter.as_raw_fd()
    }
}
