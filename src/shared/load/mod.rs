//! The sessions of each endpoint. leastconn searches them for the endpoint with the fewest sessions
//! in proportion to its weight, so they are close together in memory, and a large backend has a
//! tree of lower bounds over them.
//!
//! The key of an endpoint is its sessions times its cost, which is inversely proportional to its
//! weight. Each bound of the tree is at most the least key below it: a search skips what has no
//! better key. Bounds are changed as seldom as possible:
//!
//! - A session begins: no bound changes. The bounds above its endpoint may be lower than necessary.
//! - A session ends: the bounds that are above the new key become that key, from the endpoint to
//!   the root.
//! - A search that finds a bound lower than necessary raises it, and then looks once more whether
//!   something below became lower meanwhile. All of this is sequentially consistent, so either the
//!   search sees the lower key, or the thread that lowered the key sees the raised bound.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Slots of the first block of a backend, and of each further one.
const FIRST_BLOCK: usize = 64;
const BLOCK: usize = 1024;

/// Each bound is over so many slots, or bounds of the level below: 2 to the power of this.
const FAN_OUT_BITS: usize = 4;

/// Levels of bounds. The highest one is the root: a block has at most 16 to the power of this
/// slots.
const LEVELS: usize = 3;

/// The key of a slot without an endpoint, or with one that cannot be chosen.
pub const NEVER: u64 = u64::MAX;

/// The sessions and the cost of some endpoints of one backend.
#[derive(Debug)]
pub struct LoadBlock {
    /// The sessions, and above these 32 bits the cost. 0: it cannot be chosen by leastconn.
    slots: Box<[AtomicU64]>,
    /// Lower bounds of keys, by level.
    bounds: [Box<[AtomicU64]>; LEVELS],
    /// Slots that no endpoint has.
    free: Mutex<Vec<u16>>,
}

impl LoadBlock {
    fn new(capacity: usize) -> Self {
        let zeros =
            |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect::<Box<[AtomicU64]>>();
        let bounds = |level: usize| zeros(capacity.div_ceil(1_usize << (FAN_OUT_BITS * level)));
        let free = (0..).take(capacity).collect::<Vec<u16>>();
        Self {
            slots: zeros(capacity),
            bounds: [bounds(1), bounds(2), bounds(3)],
            free: Mutex::new(free.into_iter().rev().collect()),
        }
    }

    fn take(self: &Arc<Self>) -> Option<Load> {
        // Nothing panics while it is held, and a panic would end the process.
        let slot = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(Load { block: Arc::clone(self), slot })
    }

    /// The number of slots.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Sessions of the endpoint in this slot.
    #[must_use]
    pub fn read(&self, slot: u16) -> u32 {
        sessions_of(self.slots[usize::from(slot)].load(Ordering::Relaxed))
    }

    /// What each session adds to the key of the endpoint in this slot; 0: it cannot be chosen.
    /// Only the control thread calls it.
    pub fn set_cost(&self, slot: usize, cost: u32) {
        let with_cost = |word| {
            let changed = u64::from(cost) << 32 | u64::from(sessions_of(word));
            (changed != word).then_some(changed)
        };
        let update = self.slots[slot].fetch_update(Ordering::SeqCst, Ordering::SeqCst, with_cost);
        if update.is_ok() {
            self.lower_bounds(slot, 1, self.key(slot));
        }
    }

    /// The slot with the least key below `best` among those of `range` that `may` admits, and its
    /// key. The first one of the range wins a tie.
    pub fn least(
        &self,
        range: Range<usize>,
        mut best: u64,
        may: impl Fn(usize) -> bool,
    ) -> Option<(usize, u64)> {
        let (mut slot, mut least) = (range.start, None);
        while slot < range.end {
            // Skips as much as possible without a better key.
            let skip = |level: &usize| self.bound(*level, slot).load(Ordering::SeqCst) >= best;
            if let Some(level) = (1..=LEVELS).rev().find(skip) {
                slot = end_of(level, slot);
                continue;
            }
            let end = end_of(1, slot).min(range.end);
            if let Some((found, key)) = self.least_of_group(slot..end, best, &may) {
                (best, least) = (key, Some((found, key)));
            }
            slot = end;
        }
        least
    }

    /// As [`LoadBlock::least`], of slots below one bound of the lowest level.
    fn least_of_group(
        &self,
        slots: Range<usize>,
        mut best: u64,
        may: &impl Fn(usize) -> bool,
    ) -> Option<(usize, u64)> {
        let group = slots.start;
        let bound = self.bound(1, group).load(Ordering::SeqCst);
        let (mut lowest, mut least) = (NEVER, None);
        for slot in slots {
            let key = self.key(slot);
            lowest = lowest.min(key);
            if key < best && may(slot) {
                (best, least) = (key, Some((slot, key)));
                if key <= bound {
                    break;
                }
            }
        }
        if lowest > bound {
            self.raise_bound(group, 1);
        }
        least
    }

    /// Raises the bounds of the higher levels that are below `key`, where those below them allow.
    /// To be called after a search that found `key`.
    pub fn raise_bounds(&self, key: u64) {
        for level in 2..=LEVELS {
            for index in 0..self.bounds[level - 1].len() {
                let slot = index << (FAN_OUT_BITS * level);
                if self.bound(level, slot).load(Ordering::SeqCst) < key {
                    self.raise_bound(slot, level);
                }
            }
        }
    }

    /// The root: no key is lower.
    #[must_use]
    pub fn root(&self) -> u64 {
        self.bound(LEVELS, 0).load(Ordering::SeqCst)
    }

    /// The key of a slot; [`NEVER`]: it cannot be chosen.
    #[must_use]
    pub fn key(&self, slot: usize) -> u64 {
        key_of(self.slots[slot].load(Ordering::SeqCst))
    }

    /// The bound of this level, 1 to [`LEVELS`], over a slot.
    fn bound(&self, level: usize, slot: usize) -> &AtomicU64 {
        &self.bounds[level - 1][slot >> (FAN_OUT_BITS * level)]
    }

    /// Lowers the bounds over a slot to `key`, from this level up. It stops at a bound that is as
    /// low already: the call that lowered that bound also lowers those above it.
    fn lower_bounds(&self, slot: usize, level: usize, key: u64) {
        for level in level..=LEVELS {
            let bound = self.bound(level, slot);
            if bound.load(Ordering::SeqCst) <= key {
                return;
            }
            bound.fetch_min(key, Ordering::SeqCst);
        }
    }

    /// Raises the bound of this level over a slot to the least of those below it.
    fn raise_bound(&self, slot: usize, level: usize) {
        let bound = self.bound(level, slot);
        let before = bound.load(Ordering::SeqCst);
        let least = self.least_below(slot, level);
        let order = Ordering::SeqCst;
        if least > before && bound.compare_exchange(before, least, order, order).is_ok() {
            let least = self.least_below(slot, level);
            self.lower_bounds(slot, level, least);
        }
    }

    /// The least key or bound directly below the bound of this level over a slot.
    fn least_below(&self, slot: usize, level: usize) -> u64 {
        let first = (slot >> (FAN_OUT_BITS * level)) << FAN_OUT_BITS;
        let below = |all: &[AtomicU64]| first..all.len().min(first + (1 << FAN_OUT_BITS));
        let least = if level == 1 {
            let slots = self.slots[below(&self.slots)].iter();
            slots.map(|slot| key_of(slot.load(Ordering::SeqCst))).min()
        } else {
            let bounds = &self.bounds[level - 2];
            bounds[below(bounds)].iter().map(|bound| bound.load(Ordering::SeqCst)).min()
        };
        least.unwrap_or(NEVER)
    }
}

/// The slot after the last one below the bound of this level over `slot`.
const fn end_of(level: usize, slot: usize) -> usize {
    ((slot >> (FAN_OUT_BITS * level)) + 1) << (FAN_OUT_BITS * level)
}

/// The sessions of a slot.
#[expect(clippy::cast_possible_truncation, reason = "the lower half of the word")]
const fn sessions_of(word: u64) -> u32 {
    word as u32
}

/// The key of a slot.
const fn key_of(word: u64) -> u64 {
    let (cost, sessions) = (word >> 32, word & 0xffff_ffff);
    if cost == 0 { NEVER } else { cost * sessions }
}

/// Where the sessions of all endpoints of one backend are counted. The control thread gives them
/// out.
#[derive(Debug, Default)]
pub struct Loads(Vec<Arc<LoadBlock>>);

impl Loads {
    /// A count for a new endpoint.
    pub fn take(&mut self) -> Load {
        loop {
            if let Some(load) = self.0.iter().find_map(LoadBlock::take) {
                return load;
            }
            let capacity = if self.0.is_empty() { FIRST_BLOCK } else { BLOCK };
            self.0.push(Arc::new(LoadBlock::new(capacity)));
        }
    }
}

/// The number of sessions of one endpoint.
#[derive(Debug)]
pub struct Load {
    block: Arc<LoadBlock>,
    slot: u16,
}

impl Load {
    /// Sessions that hold the endpoint.
    #[must_use]
    pub fn read(&self) -> u32 {
        self.block.read(self.slot)
    }

    /// Its block, and its slot there.
    #[must_use]
    pub const fn place(&self) -> (&Arc<LoadBlock>, u16) {
        (&self.block, self.slot)
    }

    /// A session holds the endpoint; only guards call it.
    pub fn raise(&self) {
        self.word().fetch_add(1, Ordering::Relaxed);
    }

    /// A session has let go of it; only guards call it.
    pub fn lower(&self) {
        let before = self.word().fetch_sub(1, Ordering::SeqCst);
        debug_assert!(
            sessions_of(before) > 0,
            "a load is lowered once for each time it was raised"
        );
        let key = key_of(before - 1);
        if key != NEVER {
            self.block.lower_bounds(usize::from(self.slot), 1, key);
        }
    }

    fn word(&self) -> &AtomicU64 {
        &self.block.slots[usize::from(self.slot)]
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.word().store(0, Ordering::SeqCst);
        self.block.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.slot);
    }
}

#[cfg(test)]
mod tests;
