//! Waiting while every server is full.
//!
//! No backend has a queue yet: without a `queue_timeout` a session that finds every server full is
//! reset at once.

use crate::proxy::rules::Timeout;
use crate::proxy::session::Session;
use crate::proxy::state::{Next, State};
use crate::terms::{End, Reason};

impl Session {
    /// Every server is full.
    pub(super) fn on_all_full(&self) -> Next {
        match self.rules.queue_timeout {
            Timeout::NEVER => Next::abort(End::new(Reason::QueueFull, b"SQ")),
            _ => Next::Queue,
        }
    }

    /// A server has room, and this session is the first in the queue.
    pub(super) const fn on_server_free(&self) -> Next {
        match self.state {
            State::Queued(_) => Next::Route,
            _ => Next::Stay,
        }
    }
}
