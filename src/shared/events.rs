//! What workers report to the control thread.

use crate::terms::{ConnectFailure, EndpointId, WorkerIndex};

/// What a worker reports to the control thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerEvent {
    /// An attempt to connect to an endpoint failed.
    ConnectFailed(EndpointId, ConnectFailure),
    /// The worker paused accepting because no descriptor is left (at most once a second).
    AcceptPaused(WorkerIndex),
    /// More than a third of the buffers are held for peers that do not read.
    BuffersStalled(WorkerIndex),
    /// Every buffer was held: so many sessions were closed to release some.
    BuffersExhausted(WorkerIndex, u32),
    /// The worker has ended: its last session and its ring are closed.
    WorkerEnded(WorkerIndex),
}

/// Failed connects of sessions to one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailedConnects {
    /// How many; 0: each time this machine was at fault, or the server was busy.
    pub count: u32,
    /// How the last of them failed.
    pub last: ConnectFailure,
}

impl FailedConnects {
    /// One more, if the server may be down.
    pub const fn add(&mut self, failure: ConnectFailure) {
        if !failure.spares_server() {
            self.count = self.count.saturating_add(1);
            self.last = failure;
        } else if self.count == 0 {
            self.last = failure;
        }
    }
}
