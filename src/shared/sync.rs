//! Locks and atomic numbers of what loom checks (`tests/loom`), which puts its own in place of this
//! file.

pub(super) use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) mod atomic {
    pub(in crate::shared) use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};
}
