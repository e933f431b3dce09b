//! The listening sockets of a worker: carries out what the gate of each decides.

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use crate::proxy::accept::{Accepted, DescriptorShortage, Gate, ROOM_FOR_MULTISHOT, Situation};
use crate::proxy::access::NewClient;
use crate::proxy::context::WorkerContext;
use crate::proxy::listen_socket::ListenSocket;
use crate::proxy::timer_wheel::Tick;
use crate::proxy::worker_handle::WorkerHandle;
use crate::shared::events::WorkerEvent;
use crate::shared::orders::WaitingClient;
use crate::shared::table::{Frontend, FrontendShared, Listener, Table};
use crate::sys::ring::completion::Completion;
use crate::sys::socket::{descriptor_limit, has_descriptors_left};
use crate::terms::Refusal;

/// While accepting pauses, the worker looks again at least this often: a limit may have been
/// raised.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Descriptors that a draining listener leaves to sessions, probes and HTTP: what waits in its
/// backlog may be more than there are.
const KEPT_BY_DRAIN: u64 = 32;

/// A pause is reported to the control thread at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// The listening sockets of this worker.
#[derive(Debug)]
pub(super) struct Listeners {
    worker: Rc<WorkerHandle>,
    sockets: Vec<ListenSocket>,
    /// Of [`ListenSocket::id`].
    next_id: u32,
    shortage: DescriptorShortage,
    last_logged: Option<Tick>,
    pause: Pause,
    /// Since the last turn, something has happened that a gate may have to act on.
    touched: bool,
    /// A frontend has a limit of its own, whose room changes with every session.
    limited: bool,
}

/// Whether accepting pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    No,
    /// It has just begun to: the cause may have gone before others knew of the pause.
    Begins,
    Yes,
}

impl Listeners {
    pub(super) fn new(worker: Rc<WorkerHandle>) -> Self {
        Self {
            worker,
            sockets: Vec::new(),
            next_id: 0,
            shortage: DescriptorShortage::default(),
            last_logged: None,
            pause: Pause::No,
            touched: true,
            limited: false,
        }
    }

    /// Follows a new table: new listeners accept, listeners that are gone drain.
    pub(super) fn follow(&mut self, table: &Table) {
        self.touched = true;
        let mut settings = table.frontends.iter().map(|frontend| &frontend.settings);
        self.limited = settings.any(|settings| settings.sessions_max.is_some());
        let wanted = table.listeners.iter();
        let mut wanted: HashMap<*const Listener, &(Arc<Listener>, Arc<Frontend>)> =
            wanted.map(|pair| (Arc::as_ptr(&pair.0), pair)).collect();
        // Clients of a listener that is gone go by the frontend in force, too.
        if self.sockets.iter().any(|socket| socket.gate.is_draining()) {
            let frontends = table.frontends.iter();
            let frontends: HashMap<*const FrontendShared, &Arc<Frontend>> =
                frontends.map(|frontend| (Arc::as_ptr(&frontend.shared), frontend)).collect();
            for socket in self.sockets.iter_mut().filter(|socket| socket.gate.is_draining()) {
                if let Some(frontend) = frontends.get(&Arc::as_ptr(&socket.frontend.shared)) {
                    socket.frontend = Arc::clone(frontend);
                }
            }
        }
        for socket in self.sockets.iter_mut().filter(|socket| !socket.gate.is_draining()) {
            match wanted.get(&Arc::as_ptr(&socket.listener)) {
                Some((_, frontend)) => socket.frontend = Arc::clone(frontend),
                None => socket.gate.drain(),
            }
        }
        for socket in &self.sockets {
            wanted.remove(&Arc::as_ptr(&socket.listener));
        }
        self.drain_unseen(table);
        if wanted.is_empty() {
            return;
        }
        for (listener, frontend) in &table.listeners {
            let is_new = wanted.contains_key(&Arc::as_ptr(listener));
            if !is_new {
                continue;
            }
            for socket in listener.sockets_of(self.worker.index) {
                self.push((listener, frontend), Some(socket), Gate::new());
            }
        }
    }

    /// Drains the sockets of listeners that a reload has removed before this worker has read a
    /// table with them: only their worker closes them.
    fn drain_unseen(&mut self, table: &Table) {
        if table.removed.is_empty() {
            return;
        }
        let known: HashSet<*const Listener> =
            self.sockets.iter().map(|socket| Arc::as_ptr(&socket.listener)).collect();
        for (listener, frontend) in &table.removed {
            if !known.contains(&Arc::as_ptr(listener)) {
                for socket in listener.sockets_of(self.worker.index) {
                    let mut gate = Gate::new();
                    gate.drain();
                    self.push((listener, frontend), Some(socket), gate);
                }
            }
        }
    }

    fn push(
        &mut self,
        (listener, frontend): (&Arc<Listener>, &Arc<Frontend>),
        socket: Option<(usize, Arc<OwnedFd>)>,
        gate: Gate,
    ) {
        self.sockets.push(ListenSocket {
            id: self.next_id,
            listener: Arc::clone(listener),
            socket,
            frontend: Arc::clone(frontend),
            gate,
            parked: VecDeque::new(),
        });
        self.next_id = self.next_id.wrapping_add(1);
    }

    /// Drains every listener. When the drain is `over`, clients that wait for a session are reset.
    pub(super) fn drain(&mut self, over: bool) {
        self.touched = true;
        for socket in &mut self.sockets {
            if socket.listener.is_handed_over() {
                socket.gate.hand_over();
            } else {
                socket.gate.drain();
            }
            if over {
                let cell = socket.frontend.shared.cells.of(self.worker.index);
                cell.refused[Refusal::Limit as usize].add(socket.parked.len() as u64);
                socket.parked.drain(..).for_each(|client| client.socket.abort_on_close());
            }
        }
    }

    /// Accepts anew what waits in the backlogs, whether the kernel has announced it or not.
    pub(super) fn look_at_backlogs(&mut self) {
        self.touched = true;
        self.sockets.iter_mut().for_each(|socket| socket.gate.look_at_backlog());
    }

    /// Whether every socket is closed.
    pub(super) const fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// An accept has completed. Its client, if the session may begin at once.
    pub(super) fn on_accepted(
        &mut self,
        id: u32,
        completion: Completion,
        now: Tick,
    ) -> Option<NewClient> {
        // In the order of their ids, and with ranges of ports there are many.
        let index = self.sockets.binary_search_by_key(&id, |listening| listening.id).ok()?;
        let listening = &mut self.sockets[index];
        let accepted = match (&completion.socket, completion.result) {
            (Some(client), _) => {
                let fds_low = listening.gate.is_draining()
                    && client.number() + KEPT_BY_DRAIN >= descriptor_limit();
                Accepted::Client { fds_low }
            }
            // A client that was gone before it was accepted is no reason to wait.
            (None, Ok(_)) => Accepted::Nothing,
            (None, Err(Errno::ECANCELED | Errno::ECONNABORTED | Errno::EPROTO)) => {
                Accepted::Nothing
            }
            (None, Err(Errno::EINTR | Errno::EAGAIN)) => Accepted::Nothing,
            // The control thread has stopped the socket while this worker was stuck.
            (None, Err(Errno::EINVAL)) if listening.gate.is_draining() => Accepted::Nothing,
            (None, Err(_)) => Accepted::Exhausted,
        };
        listening.gate.on_completed(completion.more, accepted);
        self.touched |= !completion.more || accepted == Accepted::Exhausted;
        if !matches!(completion.result, Ok(_) | Err(Errno::ECANCELED)) {
            self.worker.shared.cells.of(self.worker.index).accept_errors.add(1);
        }
        let is_last = completion.socket.is_some() && self.has_no_descriptor_left();
        let listening = &mut self.sockets[index];
        let client = match completion.socket {
            Some(client) if is_last => {
                // Its server's socket could not be made: it waits until a descriptor is released.
                let admitted = listening.check(client, &self.worker);
                listening.parked.extend(admitted);
                None
            }
            client => client.and_then(|client| listening.admit(client, &self.worker)),
        };
        self.touched |= !listening.parked.is_empty();
        if accepted == Accepted::Exhausted || is_last {
            self.begin_shortage(now);
        }
        client
    }

    /// Whether no descriptor is left for a server's socket after an accept. The limit of sessions
    /// leaves enough, unless the limit of descriptors was lowered: it may be at any time, so it is
    /// read for each client. (An accept that is armed goes by the old one.)
    fn has_no_descriptor_left(&self) -> bool {
        let limit = &self.worker.shared.descriptors;
        limit.set(descriptor_limit());
        limit.is_lowered() && !has_descriptors_left()
    }

    /// Takes a client that waited for a worker that is stuck: its session begins in this turn if
    /// there is room, as of those that wait here.
    pub(super) fn adopt(&mut self, client: WaitingClient) {
        let WaitingClient { socket, listener, frontend } = client;
        self.touched = true;
        let is_of = |own: &ListenSocket| Arc::ptr_eq(&own.listener, &listener);
        let index = self.sockets.iter().position(is_of).unwrap_or_else(|| {
            // A reload has removed it, and this worker has closed its socket.
            self.push((&listener, &frontend), None, Gate::stopped());
            self.sockets.len() - 1
        });
        let listening = &mut self.sockets[index];
        let admitted = listening.check(socket, &self.worker);
        listening.parked.extend(admitted);
    }

    /// Accepts nothing for a while, and reports it now and then.
    fn begin_shortage(&mut self, now: Tick) {
        self.shortage.begin(now);
        if self.last_logged.is_none_or(|last| now >= last.after(LOG_INTERVAL)) {
            self.last_logged = Some(now);
            self.worker.shared.events.try_send(WorkerEvent::AcceptPaused(self.worker.index)).ok();
        }
    }

    /// Once a turn: lets each gate decide, and puts clients whose session may begin into
    /// `admitted`.
    pub(super) fn turn(
        &mut self,
        context: &mut WorkerContext,
        now: Tick,
        admitted: &mut Vec<NewClient>,
    ) {
        let was_short = self.shortage.holds_parked();
        self.shortage.turn(now, mem::take(&mut context.released), has_descriptors_left);
        if mem::take(&mut context.starved) {
            self.begin_shortage(now);
        }
        let starved = self.shortage.is_starved();
        let has_room = self.worker.shared.sessions.room() >= ROOM_FOR_MULTISHOT;
        let may_change = mem::take(&mut self.touched) || starved || self.limited || !has_room;
        if !may_change && self.pause == Pause::No {
            // A range of ports is a listener for each, and a turn must not look at all of them.
            return;
        }
        // Under a limit that was lowered, only one descriptor is known to be left.
        let resumes = was_short && !self.shortage.holds_parked();
        let one_by_one = resumes && self.worker.shared.descriptors.is_lowered();
        let most = if one_by_one { 1 } else { usize::MAX };
        let mut full = false;
        for socket in &mut self.sockets {
            if !self.shortage.holds_parked() {
                socket.unpark(&self.worker, admitted, most);
            }
            let room = self.worker.shared.sessions.room();
            let room = room.min(socket.frontend.shared.sessions.room());
            let action = socket.gate.next(Situation { room, parked: socket.parked.len(), starved });
            socket.act(action, context);
            full |= !socket.parked.is_empty() || (room == 0 && !socket.gate.is_draining());
        }
        if one_by_one && self.sockets.iter().any(|socket| !socket.parked.is_empty()) {
            self.shortage.begin(now);
        }
        self.sockets.retain(|socket| !socket.gate.is_stopped() || !socket.parked.is_empty());
        self.set_paused(full || starved || self.shortage.holds_parked());
        if self.pause == Pause::Yes && !admitted.is_empty() {
            // A session may end as it begins, and this worker is not woken by its own sessions.
            self.pause = Pause::Begins;
        }
    }

    /// When to look again though nothing happens.
    pub(super) fn next(&self, now: Tick) -> Option<Tick> {
        if self.pause == Pause::Begins {
            return Some(now);
        }
        let shortage = self.shortage.next(now);
        shortage.or_else(|| (self.pause == Pause::Yes).then(|| now.after(LOOK_AGAIN)))
    }

    /// While accepting pauses, other workers wake this one when they end a session.
    fn set_paused(&mut self, paused: bool) {
        self.pause = match paused {
            false => Pause::No,
            true if self.worker.shared.pause(self.worker.index) => Pause::Begins,
            true => Pause::Yes,
        };
        let cell = self.worker.shared.cells.of(self.worker.index);
        cell.accept_paused.set(u64::from(paused));
    }
}
