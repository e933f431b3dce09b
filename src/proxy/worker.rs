//! A worker: one thread, one ring, and the sessions that it accepted.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::control::table::Seam;
use crate::terms::WorkerIndex;

/// What a worker is started with.
#[derive(Debug)]
pub struct Worker {
    /// Its place among the workers.
    pub index: WorkerIndex,
    /// What it shares with the control thread.
    pub seam: Arc<Seam>,
    /// Sessions that it must have room for: `global.sessions_max`.
    pub sessions_max: u32,
    /// Bytes of buffers; none: by `sessions_max`.
    pub buffers: Option<u64>,
    /// The core to pin its thread to.
    pub core: Option<usize>,
}

impl Worker {
    /// Starts the thread; returns when its ring stands and it is about to accept. The thread ends
    /// when the phase is draining or stopped and its last session has ended; it then says
    /// [`crate::terms::Seen::WorkerEnded`].
    ///
    /// # Errors
    /// The ring cannot be made (the message says the likely cause), or the thread.
    pub fn start(self) -> io::Result<JoinHandle<()>> {
        std::thread::Builder::new()
            .name(format!("worker-{}", self.index.0))
            .spawn(move || drop(self))
    }
}
