//! A listening socket of a simulated worker: the real gate, the model of the socket, and clients
//! that wait for a session.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use evenkeel::proxy::accept::{Accepted, Gate, Situation};
use evenkeel::proxy::access::SessionPermit;
use evenkeel::proxy::worker_handle::WorkerHandle;
use evenkeel::shared::table::{Frontend, Listener, Table};

use crate::accept::{Answer, ListeningSocket};

/// As in `proxy::listeners`.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) listener: Arc<Listener>,
    frontend: Arc<Frontend>,
    pub(crate) gate: Gate,
    pub(crate) socket: ListeningSocket,
    pub(crate) parked: VecDeque<u64>,
}

/// A client whose session may begin.
#[derive(Debug)]
pub(crate) struct NewClient {
    pub(crate) number: u64,
    pub(crate) frontend: Arc<Frontend>,
    /// The frontend is that of the last table before its listener began to drain.
    pub(crate) is_old: bool,
    pub(crate) permit: SessionPermit,
}

impl Listening {
    pub(crate) fn new(listener: &Arc<Listener>, frontend: &Arc<Frontend>) -> Self {
        Self {
            listener: Arc::clone(listener),
            frontend: Arc::clone(frontend),
            gate: Gate::new(),
            socket: ListeningSocket::default(),
            parked: VecDeque::new(),
        }
    }

    /// Follows a new table.
    pub(crate) fn follow(&mut self, table: &Table) {
        if self.gate.is_draining() {
            return;
        }
        let mut listeners = table.listeners.iter();
        match listeners.find(|(listener, _)| Arc::ptr_eq(listener, &self.listener)) {
            Some((_, frontend)) => self.frontend = Arc::clone(frontend),
            None => self.gate.drain(),
        }
    }

    /// An accept has answered. A client waits behind those that wait already.
    pub(crate) fn on_answer(&mut self, answer: Answer, more: bool) {
        let accepted = match answer {
            Answer::Client(number) => {
                self.parked.push_back(number);
                Accepted::Client { fds_low: false }
            }
            Answer::Exhausted => Accepted::Exhausted,
            Answer::Nothing => Accepted::Nothing,
        };
        self.gate.on_completed(more, accepted);
    }

    /// The first client that waits, if its session may begin.
    pub(crate) fn admit(&mut self, worker: &Rc<WorkerHandle>) -> Option<NewClient> {
        let number = *self.parked.front()?;
        let permit = SessionPermit::new(worker, &self.frontend.shared)?;
        for limit in [&worker.shared.sessions, &self.frontend.shared.sessions] {
            assert!(limit.active() <= limit.max(), "above the limit: {limit:?}");
        }
        self.parked.pop_front();
        let frontend = Arc::clone(&self.frontend);
        Some(NewClient { number, frontend, is_old: self.gate.is_draining(), permit })
    }

    /// Lets the gate decide; true: it waits for a session to end.
    pub(crate) fn decide(&mut self, worker: &WorkerHandle) -> bool {
        let room = self.room(worker);
        let situation = Situation { room, parked: self.parked.len(), starved: false };
        let action = self.gate.next(situation);
        self.socket.act(action, situation, &self.gate);
        !self.parked.is_empty() || (room == 0 && !self.gate.is_draining())
    }

    /// There is room for a client that it does not ask for.
    pub(crate) fn is_asleep(&self, worker: &WorkerHandle) -> bool {
        let accepts = self.socket.is_armed() || self.gate.is_draining();
        self.room(worker) > 0 && (!accepts || !self.parked.is_empty())
    }

    /// Sessions that may still be opened.
    fn room(&self, worker: &WorkerHandle) -> u32 {
        worker.shared.sessions.room().min(self.frontend.shared.sessions.room())
    }
}
