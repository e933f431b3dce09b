//! Waiting while every server is full.

use std::rc::Rc;
use std::sync::Arc;

use crate::proxy::rules::Timeout;
use crate::proxy::session::Session;
use crate::proxy::slots::Key;
use crate::proxy::state::{Next, State};
use crate::proxy::timer_wheel::Tick;
use crate::proxy::worker_handle::WorkerHandle;
use crate::shared::queue::{Queue, QueueFull, Ticket, Waiter};
use crate::terms::{End, Reason};

impl Session {
    /// Every server is full.
    pub(super) fn on_all_full(&self) -> Next {
        match self.rules.queue_timeout {
            Timeout::NEVER => Self::on_queue_full(),
            _ => Next::Queue,
        }
    }

    /// Every server is full, and so is the queue.
    pub(super) const fn on_queue_full() -> Next {
        Next::abort(End::new(Reason::QueueFull, b"SQ"))
    }

    /// A server has room, and this session is the first in the queue.
    pub(super) const fn on_server_free(&self) -> Next {
        match self.state {
            State::Queued(_) => Next::Route,
            _ => Next::Stay,
        }
    }
}

/// The place of a session in the queue of its backend, which it leaves when this is dropped.
#[derive(Debug)]
pub struct QueuePlace {
    queue: Arc<Queue>,
    ticket: Ticket,
    worker: Rc<WorkerHandle>,
    since: Tick,
}

impl QueuePlace {
    /// Joins the queue.
    ///
    /// # Errors
    /// As many sessions wait as may.
    pub fn new(
        queue: &Arc<Queue>,
        worker: &Rc<WorkerHandle>,
        key: Key,
        now: Tick,
    ) -> Result<Self, QueueFull> {
        let ticket = queue.join(waiter(worker, key))?;
        Ok(Self { queue: Arc::clone(queue), ticket, worker: Rc::clone(worker), since: now })
    }

    /// Whether it is a place in `queue`.
    #[must_use]
    pub fn is_in(&self, queue: &Arc<Queue>) -> bool {
        Arc::ptr_eq(&self.queue, queue)
    }

    /// Whether nobody has waited for longer.
    #[must_use]
    pub fn is_first(&self, key: Key) -> bool {
        self.queue.first() == Some(waiter(&self.worker, key))
    }

    /// Takes the place again if the session was taken out of the queue, because its worker was
    /// stuck.
    pub fn put_back(&self, key: Key) {
        self.queue.put_back(self.ticket, waiter(&self.worker, key));
    }

    /// Counts how long the session has waited.
    pub fn record(&self, now: Tick) {
        self.queue.waits.of(self.worker.index).record(now.since(self.since));
    }
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        self.queue.leave(self.ticket);
        // There may be room for another one.
        self.worker.shared.tell_first(&self.queue);
    }
}

const fn waiter(worker: &WorkerHandle, key: Key) -> Waiter {
    let Key { slot, generation } = key;
    Waiter { worker: worker.index, slot, generation }
}
