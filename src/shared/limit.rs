//! A limit of concurrent sessions.

use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam::utils::CachePadded;

/// A number of sessions that may not exceed a maximum; raised and lowered by guards.
#[derive(Debug)]
pub struct Limit {
    active: CachePadded<AtomicU32>,
    max: AtomicU32,
}

impl Limit {
    /// At most `max`; none: as many as come.
    #[must_use]
    pub fn new(max: Option<u32>) -> Self {
        Self {
            active: CachePadded::new(AtomicU32::new(0)),
            max: AtomicU32::new(max.unwrap_or(u32::MAX)),
        }
    }

    /// Changes the maximum; what is above it stays until it ends.
    pub fn set_max(&self, max: Option<u32>) {
        self.max.store(max.unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// The maximum; `u32::MAX`: none.
    #[must_use]
    pub fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    /// How many hold it now.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// How many more it would take now.
    #[must_use]
    pub fn room(&self) -> u32 {
        self.max.load(Ordering::Relaxed).saturating_sub(self.active())
    }

    /// Raises the count unless it is at its maximum. Never above it, at any instant.
    #[must_use]
    pub fn try_raise(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        if max == u32::MAX {
            self.active.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        let raise = |active| (active < max).then_some(active + 1);
        self.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, raise).is_ok()
    }

    /// Lowers the count; to be called by guards alone.
    pub fn lower(&self) {
        let before = self.active.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "a limit is lowered once for each time that it was raised");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_never_exceeded() {
        let limit = Limit::new(Some(2));
        assert!(limit.try_raise() && limit.try_raise() && !limit.try_raise());
        limit.lower();
        assert!(limit.try_raise() && limit.room() == 0);
    }
}
