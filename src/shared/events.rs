//! What workers report to the control thread.

use crate::terms::{ConnectFailure, ServerId, WorkerIndex};

/// What a worker reports to the control thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerEvent {
    /// An attempt to connect to a server failed.
    ConnectFailed(ServerId, ConnectFailure),
    /// The worker paused accepting because no descriptor is left (at most once a second).
    AcceptPaused(WorkerIndex),
    /// More than a third of the buffers are held for peers that do not read.
    BuffersStalled(WorkerIndex),
    /// Every buffer was held: so many sessions were closed to release some.
    BuffersExhausted(WorkerIndex, u32),
    /// The worker has ended: its last session and its ring are closed.
    WorkerEnded(WorkerIndex),
}
