//! A limit of concurrent sessions.

use crossbeam::utils::CachePadded;

use crate::shared::sync::atomic::{AtomicU32, Ordering};

/// A number of sessions with a maximum; guards raise and lower it.
#[derive(Debug)]
pub struct Limit {
    active: CachePadded<AtomicU32>,
    max: AtomicU32,
}

impl Limit {
    /// At most `max`; none: no limit.
    #[must_use]
    pub fn new(max: Option<u32>) -> Self {
        Self {
            active: CachePadded::new(AtomicU32::new(0)),
            max: AtomicU32::new(max.unwrap_or(u32::MAX)),
        }
    }

    /// Changes the maximum; sessions above it continue.
    pub fn set_max(&self, max: Option<u32>) {
        self.max.store(max.unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// The maximum; `u32::MAX`: none.
    #[must_use]
    pub fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    /// The number of sessions.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// How many more are below the maximum.
    #[must_use]
    pub fn room(&self) -> u32 {
        self.max.load(Ordering::Relaxed).saturating_sub(self.active())
    }

    /// Raises the number, also above the maximum.
    pub fn raise(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    /// Raises the number unless it is at the maximum; it does not go above it, not even for a
    /// moment.
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

    /// Lowers the number; only guards call it.
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
        limit.raise();
        assert_eq!((limit.active(), limit.room()), (3, 0));
        limit.lower();
        assert!(!limit.try_raise());
    }
}
