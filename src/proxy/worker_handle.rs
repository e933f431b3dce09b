//! The state that the planes share, as one worker uses it.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use crate::shared::state::SharedState;
use crate::terms::WorkerIndex;

/// The state that the planes share, as one worker uses it.
#[derive(Debug)]
pub struct WorkerHandle {
    /// Shared with the control thread and the other workers.
    pub shared: Arc<SharedState>,
    /// This worker.
    pub index: WorkerIndex,
    /// The state of [`WorkerHandle::random`].
    random: Cell<u64>,
}

impl WorkerHandle {
    /// Of the worker with this index.
    #[must_use]
    pub fn new(shared: Arc<SharedState>, index: WorkerIndex) -> Self {
        let seed = RandomState::new().hash_one(index.0);
        Self { shared, index, random: Cell::new(seed) }
    }

    /// A random number below `limit`, good enough to choose servers (`SplitMix64`).
    pub(super) fn random(&self, limit: usize) -> usize {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        #[expect(clippy::cast_possible_truncation, reason = "it is below `limit`")]
        let number = ((u128::from(mixed ^ (mixed >> 31)) * limit as u128) >> 64) as usize;
        number
    }
}
