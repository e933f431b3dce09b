//! The ring of a worker.

use std::io;
use std::os::fd::OwnedFd;

/// Wakes a worker out of its wait; any thread may.
#[derive(Debug)]
pub struct Waker {
    descriptor: OwnedFd,
}

impl Waker {
    /// A waker of its own event counter (eventfd(2)).
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn new() -> io::Result<Self> {
        let flags =
            nix::sys::eventfd::EfdFlags::EFD_CLOEXEC | nix::sys::eventfd::EfdFlags::EFD_NONBLOCK;
        Ok(Self { descriptor: nix::sys::eventfd::EventFd::from_value_and_flags(0, flags)?.into() })
    }

    /// The worker's wait ends, or its next one ends at once.
    pub fn wake(&self) {
        // A full counter (EAGAIN) means that the worker is woken already.
        drop(nix::unistd::write(&self.descriptor, &1u64.to_ne_bytes()));
    }
}
