//! What all sessions of a worker use.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use crate::proxy::slots::Key;
use crate::proxy::worker_handle::WorkerHandle;
use crate::shared::table::Table;
use crate::sys::buffer_queue::BufferLinks;
use crate::sys::pipe::Pipes;
use crate::sys::ring::Ring;
use crate::terms::Side;

/// What all sessions of a worker use.
#[derive(Debug)]
pub(super) struct WorkerContext {
    pub(super) worker: Rc<WorkerHandle>,
    /// The table in force.
    pub(super) table: Arc<Table>,
    pub(super) ring: Ring,
    pub(super) pipes: Pipes,
    pub(super) links: BufferLinks,
    /// Memory for the first bytes of a client, while its preface is read.
    pub(super) preface: Vec<u8>,
    /// Receives that found no buffer, first come first served.
    pub(super) waiting: VecDeque<(Key, Side)>,
    /// Grows with each connect from an address of `backend.source`.
    pub(super) source_turn: usize,
    /// A descriptor was released in this turn.
    pub(super) released: bool,
    /// No descriptor was left for a server's socket.
    pub(super) starved: bool,
}
