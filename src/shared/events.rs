//! What workers report to the control thread.

use crate::terms::{ConnectFailure, ServerId, WorkerIndex};

/// What a worker reports to the control thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerEvent {
    /// An attempt to connect to a server failed.
    ConnectFailed(ServerId, ConnectFailure),
    /// Accepting stopped because descriptors ran out (at most one a second a worker).
    AcceptPaused(WorkerIndex),
    /// More than half of the buffers are held by sessions whose peer does not read.
    BuffersStalled(WorkerIndex),
    /// Every buffer was held and none came back: so many sessions were ended for it.
    BuffersExhausted(WorkerIndex, u32),
    /// A worker has ended: its last session is closed and its ring is gone.
    WorkerEnded(WorkerIndex),
}
