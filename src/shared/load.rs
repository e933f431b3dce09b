//! The sessions of each endpoint, close together in memory: leastconn reads those of all endpoints
//! of a backend for each session.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Endpoints of one block: 4 KiB.
const BLOCK: usize = 1024;

/// The counts of [`BLOCK`] endpoints.
#[derive(Debug)]
pub struct LoadBlock {
    counts: Box<[AtomicU32]>,
    /// Indices that no endpoint has.
    free: Mutex<Vec<u16>>,
}

impl LoadBlock {
    fn new() -> Self {
        let indices = (0..).take(BLOCK).collect::<Vec<u16>>();
        Self {
            counts: indices.iter().map(|_| AtomicU32::new(0)).collect(),
            free: Mutex::new(indices.into_iter().rev().collect()),
        }
    }

    fn take(self: &Arc<Self>) -> Option<Load> {
        // Nothing panics while it is held, and a panic would end the process.
        let index = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(Load { block: Arc::clone(self), index })
    }

    /// Sessions of the endpoint with this index.
    #[must_use]
    pub fn read(&self, index: u16) -> u32 {
        self.counts[usize::from(index)].load(Ordering::Relaxed)
    }
}

/// Where the counts of all endpoints are. The control thread gives them out.
#[derive(Debug, Default)]
pub struct Loads(Vec<Arc<LoadBlock>>);

impl Loads {
    /// A count for a new endpoint.
    pub fn take(&mut self) -> Load {
        loop {
            if let Some(load) = self.0.iter().find_map(LoadBlock::take) {
                return load;
            }
            self.0.push(Arc::new(LoadBlock::new()));
        }
    }
}

/// The number of sessions of one endpoint.
#[derive(Debug)]
pub struct Load {
    block: Arc<LoadBlock>,
    index: u16,
}

impl Load {
    /// Sessions that hold the endpoint.
    #[must_use]
    pub fn read(&self) -> u32 {
        self.block.read(self.index)
    }

    /// Its block, and its index there.
    #[must_use]
    pub const fn place(&self) -> (&Arc<LoadBlock>, u16) {
        (&self.block, self.index)
    }

    /// A session holds the endpoint; only guards call it.
    pub fn raise(&self) {
        self.count().fetch_add(1, Ordering::Relaxed);
    }

    /// A session has let go of it; only guards call it.
    pub fn lower(&self) {
        let before = self.count().fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "a load is lowered once for each time that it was raised");
    }

    fn count(&self) -> &AtomicU32 {
        &self.block.counts[usize::from(self.index)]
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.count().store(0, Ordering::Relaxed);
        self.block.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_endpoint_has_a_count_of_its_own_until_it_is_dropped() {
        let mut loads = Loads::default();
        let many: Vec<Load> = (0..BLOCK + 1).map(|_| loads.take()).collect();
        many.iter().for_each(Load::raise);
        assert!(many.iter().all(|load| load.read() == 1));
        assert_eq!(loads.0.len(), 2, "a second block");
        drop(many);
        let again: Vec<Load> = (0..BLOCK + 1).map(|_| loads.take()).collect();
        assert!(again.iter().all(|load| load.read() == 0));
        assert_eq!(loads.0.len(), 2, "counts that were given back are used again");
    }
}
