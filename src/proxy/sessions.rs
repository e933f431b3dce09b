//! The sessions of a worker: each event goes to its session, and what the session asks for is done:
//! count, choose a server, wait, end.

use std::mem;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use crate::proxy::access::NewClient;
use crate::proxy::context::WorkerContext;
use crate::proxy::io::{Event, Operation};
use crate::proxy::rules::Rules;
use crate::proxy::session::Session;
use crate::proxy::session_io::SessionIo;
use crate::proxy::slots::Key;
use crate::proxy::sockets::{Live, SessionSockets};
use crate::proxy::state::{PickError, State};
use crate::proxy::timer_wheel::Tick;
use crate::proxy::user_data;
use crate::proxy::worker::Running;
use crate::shared::orders::WorkerOrder;
use crate::shared::queue::Waiter;
use crate::shared::sessions::{SessionId, SessionInfo};
use crate::sys::ring::completion::Completion;
use crate::terms::{Direction, End};

/// Slots that are listed in one turn, for an operator: each may take a system call.
const LISTED_IN_A_TURN: u32 = 1024;

impl Running {
    /// Begins the session of a client.
    pub(super) fn begin(&mut self, client: NewClient) {
        let frontend = &client.frontend;
        let backend = frontend.backend.as_ref();
        let backend = backend.map(|backend| (&*backend.settings).into()).unwrap_or_default();
        let rules = Rules::new(&frontend.settings, frontend.reads_preface(), backend);
        let log = self.worker.shared.records.is_some();
        let session = Session::new(rules, self.now);
        let key = self.sessions.reserve();
        self.sessions.insert(key, Live { session, sockets: SessionSockets::new(client, log) });
        self.with(key, |session, now, io| session.start(now, io));
    }

    /// An operation of a session has completed.
    pub(super) fn on_completed(
        &mut self,
        key: Key,
        operation: Operation,
        mut completion: Completion,
    ) {
        if let (Operation::Connect, Ok(1..)) = (operation, &completion.result)
            && let Some(live) = self.sessions.get(key)
        {
            // The events of a poll, and not the 0 of a connect (TCP Fast Open).
            completion.result = live.sockets.connect_outcome();
        }
        let Some(event) = user_data::event(operation, completion) else {
            debug_assert!(false, "a send returns its buffer");
            return;
        };
        if let Err(event) = self.tell(key, event) {
            self.worker.shared.cells.of(self.worker.index).stale_completions.add(1);
            debug_assert!(false, "a session ends after its last completion: {event:?}");
            if let Some(buffer) = event.into_buffer() {
                self.context.ring.release(buffer);
            }
        }
    }

    /// Tells a session what happened.
    ///
    /// # Errors
    /// It has ended already: the event.
    pub(super) fn tell(&mut self, key: Key, event: Event) -> Result<(), Event> {
        if self.sessions.get(key).is_none() {
            return Err(event);
        }
        self.with(key, |session, now, io| session.on(event, now, io));
        Ok(())
    }

    /// Ends a session now, if it has not ended.
    pub(super) fn stop(&mut self, key: Key, end: End) {
        self.with(key, |session, now, io| session.stop(end, now, io));
    }

    pub(super) fn stop_where(&mut self, end: End, which: impl Fn(&Session) -> bool) {
        for slot in 0..self.sessions.capacity() {
            if let Some((key, _)) = self.sessions.at(slot).filter(|(_, live)| which(&live.session))
            {
                self.stop(key, end);
            }
        }
    }

    /// Lets a session `act`, then does what it asks for: count, choose a server, wait, end.
    fn with(&mut self, key: Key, act: impl FnOnce(&mut Session, Tick, &mut SessionIo<'_>)) {
        let Some(Live { session, sockets }) = self.sessions.get(key) else { return };
        let (context, now) = (&mut self.context, self.now);
        // A session that has just begun needs a server before anything else.
        Self::route(session, sockets, context, now, key);
        act(session, now, &mut SessionIo { context, sockets, key });
        sockets.count(session, context);
        Self::route(session, sockets, context, now, key);
        if !session.is_closed() {
            // A deadline that has moved away is found out when the old one comes.
            let deadline = session.deadline();
            if deadline < self.timers.deadline(key.slot) {
                self.timers.set(key.slot, deadline);
            }
        } else if let Some(live) = self.sessions.remove(key) {
            self.timers.set(key.slot, Tick::NEVER);
            self.retire(live);
        }
    }

    /// Chooses a server for the session as long as it needs one.
    fn route(
        session: &mut Session,
        sockets: &mut SessionSockets,
        context: &mut WorkerContext,
        now: Tick,
        key: Key,
    ) {
        while session.needs_server() {
            let choice = sockets.route(session, context, now, key);
            if let Some(backend) = sockets.backend() {
                // A reload may have given the frontend another one.
                session.follow_backend((&*backend.settings).into());
            }
            session.on_routed(choice, now, &mut SessionIo { context, sockets, key });
            sockets.count(session, context);
        }
    }

    /// Tells every session of this worker that waits in a queue, and puts it back into the queue if
    /// it was taken out: this worker was stuck, or a new table is in force. The control thread has
    /// told those that were the first when it published the table, but a session may have joined a
    /// queue by an older table after that, even one that no table has now.
    pub(super) fn tell_queued(&mut self) {
        let worker = self.worker.index;
        for slot in 0..self.sessions.capacity() {
            if let Some((key, live)) = self.sessions.at(slot)
                && matches!(live.session.state(), State::Queued(_))
            {
                live.sockets.place.iter().for_each(|place| place.put_back(key));
                let Key { slot, generation } = key;
                let waiter = Waiter { worker, slot, generation };
                self.worker.shared.order(worker, WorkerOrder::ServerFree(waiter));
            }
        }
    }

    /// A server may have room for a session that is the first in its queue.
    pub(super) fn serve_queued(&mut self, key: Key) {
        let Some(Live { session, sockets }) = self.sessions.get(key) else { return };
        if !matches!(session.state(), State::Queued(_)) {
            return;
        }
        match sockets.route(session, &self.context, self.now, key) {
            Err(PickError::AllFull) => {}
            choice => self.with(key, |session, now, io| {
                session.on(Event::ServerFree, now, io);
                session.on_routed(choice, now, io);
            }),
        }
    }

    /// Sends the sessions of a part of the slots, and orders the next part.
    pub(super) fn list(&mut self, from: u32, to: UnboundedSender<Vec<SessionInfo>>) {
        let end = self.sessions.capacity().min(from.saturating_add(LISTED_IN_A_TURN));
        let (now, worker) = (self.now, self.worker.index);
        let info = |(key, live): (Key, &mut Live)| {
            let Live { session, sockets } = live;
            SessionInfo {
                id: SessionId { worker, slot: key.slot, generation: key.generation },
                frontend: Arc::clone(sockets.permit.frontend_name()),
                backend: sockets.backend_name(),
                server: sockets.served_by.as_ref().map(|server| Arc::clone(&server.shared.name)),
                client: sockets.client_address(),
                state: session.state_name(),
                age: now.since(session.started()),
                idle: now.since(session.last_progress()),
                bytes: Direction::BOTH.map(|direction| session.sent(direction)),
            }
        };
        let part = (from..end).filter_map(|slot| self.sessions.at(slot).map(info)).collect();
        let is_wanted = to.send(part).is_ok();
        if is_wanted && end < self.sessions.capacity() {
            self.worker.shared.order(worker, WorkerOrder::List { from: end, to });
        }
    }

    /// Tells every session whose deadline has come.
    pub(super) fn meet_deadlines(&mut self) {
        let mut due = mem::take(&mut self.due);
        self.timers.advance(self.now, &mut due);
        for slot in due.drain(..) {
            if let Some((key, _)) = self.sessions.at(slot) {
                self.tell(key, Event::Deadline).ok();
            }
        }
        self.due = due;
    }
}
