//! The state that the planes share, as one worker uses it.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use crate::shared::maglev;
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
        maglev::below(maglev::mix(state), limit)
    }
}
