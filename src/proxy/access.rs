//! Access: what a connection must pass before anything is spent on it. Today these are the limits
//! of sessions; a connection beyond them waits.

use std::rc::Rc;
use std::sync::Arc;

use crate::proxy::route::WorkerHandle;
use crate::shared::counters::FrontendCell;
use crate::shared::table::{Frontend, FrontendShared};
use crate::sys::socket::Socket;

/// A client whose session may begin.
#[derive(Debug)]
pub(super) struct NewClient {
    pub(super) socket: Socket,
    pub(super) frontend: Arc<Frontend>,
    pub(super) permit: SessionPermit,
}

/// A session in the counts of its frontend, open as long as it lives.
#[derive(Debug)]
pub(super) struct SessionPermit {
    frontend: Arc<FrontendShared>,
    worker: Rc<WorkerHandle>,
}

impl SessionPermit {
    /// Counts a session, if `sessions_max` allows one more: over all, and of the frontend.
    pub(super) fn new(worker: &Rc<WorkerHandle>, frontend: &Arc<FrontendShared>) -> Option<Self> {
        if !worker.shared.sessions.try_raise() {
            return None;
        }
        if !frontend.sessions.try_raise() {
            worker.shared.sessions.lower();
            return None;
        }
        let cell = frontend.cells.of(worker.index);
        cell.sessions.add(1);
        cell.active.add(1);
        Some(Self { frontend: Arc::clone(frontend), worker: Rc::clone(worker) })
    }

    /// The counters of this worker.
    pub(super) fn cell(&self) -> &FrontendCell {
        self.frontend.cells.of(self.worker.index)
    }

    /// Whether `frontend` is the one of this session.
    pub(super) fn is_of(&self, frontend: &Frontend) -> bool {
        Arc::ptr_eq(&frontend.shared, &self.frontend)
    }
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        self.cell().active.subtract(1);
        self.frontend.sessions.lower();
        self.worker.shared.sessions.lower();
        self.worker.shared.wake_paused(self.worker.index);
    }
}
