//! The legs of a session: its two sockets on the worker's ring, its places in the counts, and the
//! real kernel behind [`Kernel`].

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use crate::proxy::kernel::{Attempt, Closing, Kernel, Operation, Unserved};
use crate::proxy::pick::{Local, Place, pick};
use crate::proxy::queue::Links;
use crate::proxy::slots::Key;
use crate::proxy::spares::Spares;
use crate::proxy::token::Token;
use crate::shared::counters::{FrontendCell, ServerCell};
use crate::shared::events::WorkerEvent;
use crate::shared::server::Server;
use crate::shared::table::{Frontend, FrontendShared, Table};
use crate::sys::buffer::{BufferId, Supply};
use crate::sys::pipe::{PipeId, Pipes};
use crate::sys::ring::{Readiness, Ring};
use crate::sys::socket::{Socket, ephemeral_ports};
use crate::terms::{ConnectFailure, Direction, ServerId, Side};

/// What all sessions of a worker work with.
#[derive(Debug)]
pub(super) struct Tools {
    pub(super) local: Rc<Local>,
    /// The table in force.
    pub(super) table: Arc<Table>,
    pub(super) ring: Ring,
    pub(super) pipes: Pipes,
    pub(super) links: Links,
    /// Those who found no buffer to receive into, first come first served.
    pub(super) waiting: VecDeque<(Key, Side)>,
    /// A descriptor was released since accepting was paused for want of one.
    pub(super) released: bool,
    /// A descriptor for a server's socket could not be had.
    pub(super) starved: bool,
    /// Sockets that have served, for the next connect.
    pub(super) spares: Spares,
}

impl Tools {
    /// A socket that can connect to `server`: one that has served before, or a new one.
    ///
    /// # Errors
    /// Out of descriptors or memory.
    fn socket_to(&mut self, server: &Server) -> io::Result<Socket> {
        if let Some(spare) = self.spares.take(server) {
            if spare.renew() {
                return Ok(spare);
            }
            // At once: its descriptor may be the only one that is left.
            drop(spare);
            self.released = true;
        }
        Socket::to(server.address).or_else(|error| {
            if !self.spares.let_go() {
                return Err(error);
            }
            self.released = true;
            Socket::to(server.address)
        })
    }
}

/// A client that may begin its session.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) client: Socket,
    pub(super) frontend: Arc<Frontend>,
    pub(super) admission: Admission,
}

/// A session's place in the counts of its frontend: open as long as it lives.
#[derive(Debug)]
pub(super) struct Admission {
    frontend: Arc<FrontendShared>,
    local: Rc<Local>,
}

impl Admission {
    /// Counts a session, if `sessions_max` allows one more: over all, and of the frontend.
    pub(super) fn new(local: &Rc<Local>, frontend: &Arc<FrontendShared>) -> Option<Self> {
        if !local.seam.sessions.try_raise() {
            return None;
        }
        if !frontend.sessions.try_raise() {
            local.seam.sessions.lower();
            return None;
        }
        let cell = frontend.cells.of(local.index);
        cell.sessions.add(1);
        cell.active.add(1);
        Some(Self { frontend: Arc::clone(frontend), local: Rc::clone(local) })
    }

    /// The counts of this worker.
    pub(super) fn cell(&self) -> &FrontendCell {
        self.frontend.cells.of(self.local.index)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.cell().active.subtract(1);
        self.frontend.sessions.lower();
        self.local.seam.sessions.lower();
        self.local.seam.wake_paused(self.local.index);
    }
}

/// Which of the small messages to a server its kernel would hold back until those before are
/// acknowledged (RFC 896). A socket of a client inherits that none are from its listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delay {
    /// The first never is, and most servers of one exchange a connection get no second.
    Possible,
    /// One has been sent.
    OfTheSecond,
    Never,
}

/// What a session holds.
#[derive(Debug)]
pub(super) struct Legs {
    client: Option<Socket>,
    server: Option<Socket>,
    delay: Delay,
    /// How the attempt before this one did.
    failed: Option<ConnectFailure>,
    place: Option<Place>,
    /// The last server that was connected to, or tried.
    pub(super) served_by: Option<Arc<Server>>,
    /// Who serves, until somebody does: a session that lives long keeps no table alive.
    frontend: Option<Arc<Frontend>>,
    /// Of the frontend and its backend, for the log.
    pub(super) names: Option<[Arc<str>; 2]>,
    pub(super) admission: Admission,
    /// The client's; none when the log does not ask, or it was gone at once.
    pub(super) address: Option<SocketAddr>,
}

impl Legs {
    pub(super) fn new(admitted: Admitted, log: bool) -> Self {
        let Admitted { client, frontend, admission } = admitted;
        let names = || [&frontend.settings.name, &frontend.backend.settings.name].map(Arc::clone);
        Self {
            address: if log { client.peer().ok() } else { None },
            client: Some(client),
            server: None,
            delay: Delay::Possible,
            failed: None,
            place: None,
            served_by: None,
            names: log.then(names),
            frontend: Some(frontend),
            admission,
        }
    }

    /// The frontend as it is in force; as it was when the client came, if it is there no more and
    /// no server was connected to yet.
    fn frontend(&mut self, tools: &Tools, again: bool) -> Option<&Arc<Frontend>> {
        if again || self.frontend.is_none() {
            let own =
                |frontend: &&Arc<Frontend>| Arc::ptr_eq(&frontend.shared, &self.admission.frontend);
            if let Some(frontend) = tools.table.frontends.iter().find(own) {
                self.frontend = Some(Arc::clone(frontend));
            }
        }
        self.frontend.as_ref()
    }

    fn socket(&self, side: Side) -> Option<&Socket> {
        match side {
            Side::Client => self.client.as_ref(),
            Side::Server => self.server.as_ref(),
        }
    }
}

/// The kernel as one session sees it.
#[derive(Debug)]
pub(super) struct Wired<'a> {
    pub(super) tools: &'a mut Tools,
    pub(super) legs: &'a mut Legs,
    pub(super) key: Key,
}

impl Wired<'_> {
    const fn token(&self, operation: Operation) -> u64 {
        Token::Session(self.key, operation).pack()
    }

    fn server_cell(&self) -> Option<&ServerCell> {
        let server = self.legs.served_by.as_ref()?;
        Some(server.shared.cells.of(self.tools.local.index))
    }
}

impl Kernel for Wired<'_> {
    fn receive(&mut self, side: Side, many: bool) {
        let Some(socket) = self.legs.socket(side) else { return };
        let multishot = many && self.supply() == Supply::Ample;
        let token = self.token(Operation::Receive(side));
        self.tools.ring.receive(socket, token, multishot);
    }

    fn send(&mut self, side: Side, buffer: BufferId, range: (u32, u32), last: bool) {
        let Some(socket) = self.legs.socket(side) else { return };
        let delay = if side == Side::Server { self.legs.delay } else { Delay::Never };
        if delay == Delay::OfTheSecond {
            socket.do_not_delay();
        }
        let token = self.token(Operation::Send(side));
        self.tools.ring.send(socket, token, buffer, range, last);
        match delay {
            Delay::Possible => self.legs.delay = Delay::OfTheSecond,
            Delay::OfTheSecond => self.legs.delay = Delay::Never,
            Delay::Never => {}
        }
    }

    fn wait_ready(&mut self, side: Side, readiness: Readiness) {
        let Some(socket) = self.legs.socket(side) else { return };
        let token = self.token(Operation::Ready(side, readiness));
        self.tools.ring.poll(socket, token, readiness);
    }

    fn wait_for_buffer(&mut self, side: Side) {
        if !self.tools.ring.buffers_mut().deepen() {
            self.tools.local.seam.cells.of(self.tools.local.index).buffer_waits.add(1);
        }
        self.tools.waiting.push_back((self.key, side));
    }

    fn connect(&mut self, tried: &[ServerId]) -> Result<Attempt, Unserved> {
        let frontend =
            self.legs.frontend(self.tools, !tried.is_empty()).ok_or(Unserved::NoServer)?;
        let backend = Arc::clone(&frontend.backend);
        let place = pick(&backend, tried, &self.tools.local)?;
        let server = place.server();
        let id = server.shared.id;
        let cell = server.shared.cells.of(self.tools.local.index);
        let socket = self.tools.socket_to(server).map_err(|_| {
            cell.connect_failures[ConnectFailure::Exhausted as usize].add(1);
            self.tools.starved = true;
            Unserved::Exhausted
        })?;
        self.tools.ring.connect(&socket, server.address, self.token(Operation::Connect));
        if let Some(failure) = self.legs.failed {
            cell.retries[failure as usize].add(1);
        }
        self.legs.served_by = Some(Arc::clone(server));
        self.legs.place = Some(place);
        self.legs.server = Some(socket);
        self.legs.delay = Delay::Possible;
        Ok(Attempt { server: id, timeout: backend.settings.connect_timeout })
    }

    fn cancel(&mut self, operation: Operation) {
        let token = self.token(operation);
        self.tools.ring.cancel(token);
    }

    fn connected(&mut self, waited: Duration) -> bool {
        let (Some(server), Some(socket)) = (&self.legs.served_by, &self.legs.server) else {
            return false;
        };
        // Only a port that the kernel may have given to ourselves can be our own.
        if ephemeral_ports().contains(&server.address.port()) && socket.is_at(server.address) {
            return false;
        }
        if let Some(cell) = self.server_cell() {
            cell.sessions.add(1);
            cell.connect_duration.record(waited);
        }
        self.legs.frontend = None;
        true
    }

    fn receive_rest(&mut self, side: Side, buffer: BufferId, filled: u32) -> Result<u32, Errno> {
        let socket = self.legs.socket(side).ok_or(Errno::EBADF)?;
        self.tools.ring.receive_rest(socket, buffer, filled)
    }

    fn has_ended(&mut self, side: Side) -> Result<bool, Errno> {
        self.legs.socket(side).map_or(Ok(false), Socket::has_ended)
    }

    fn ended_in_order(&mut self, side: Side) -> bool {
        self.legs.socket(side).is_some_and(Socket::ended_in_order)
    }

    fn connect_failed(&mut self, failure: ConnectFailure) {
        self.legs.failed = Some(failure);
        if let Some(cell) = self.server_cell() {
            cell.connect_failures[failure as usize].add(1);
        }
        if let Some(server) = &self.legs.served_by {
            // A full channel means that the control thread has enough to think about.
            let event = WorkerEvent::ConnectFailed(server.shared.id, failure);
            self.tools.local.seam.events.try_send(event).ok();
        }
    }

    fn push(&mut self, side: Side) {
        if let Some(socket) = self.legs.socket(side) {
            socket.do_not_delay();
        }
    }

    fn shut_down(&mut self, side: Side) {
        if let Some(socket) = self.legs.socket(side) {
            socket.shut_down();
        }
    }

    fn close(&mut self, side: Side, how: Closing) {
        let socket = match side {
            Side::Client => self.legs.client.take(),
            Side::Server => {
                self.legs.place = None;
                self.legs.server.take()
            }
        };
        let Some(socket) = socket else { return };
        if how == Closing::Abort {
            socket.abort_on_close();
        }
        let socket = match (side, how, &self.legs.served_by) {
            (Side::Server, Closing::Over, Some(server)) => {
                self.tools.spares.keep(socket, server, self.tools.local.seam.spares())
            }
            _ => Some(socket),
        };
        let Some(socket) = socket else { return };
        match (side, how) {
            // At once: the next attempt may need the descriptor.
            (Side::Server, Closing::Abort) => drop(socket),
            _ => self.tools.ring.close(socket),
        }
        self.tools.released = true;
    }

    fn unacknowledged(&self, side: Side) -> u32 {
        self.legs.socket(side).map_or(0, Socket::unacknowledged)
    }

    fn delivered(&mut self, direction: Direction, bytes: u64) {
        self.legs.admission.cell().bytes[direction as usize].add(bytes);
        if let Some(cell) = self.server_cell() {
            cell.bytes[direction as usize].add(bytes);
        }
    }

    fn links(&mut self) -> &mut Links {
        &mut self.tools.links
    }

    fn release(&mut self, buffer: BufferId) {
        self.tools.ring.buffers_mut().release(buffer);
    }

    fn supply(&self) -> Supply {
        self.tools.ring.buffers().supply()
    }

    fn take_pipe(&mut self) -> Option<PipeId> {
        let pipe = self.tools.pipes.take();
        if pipe.is_none() {
            self.tools.local.seam.cells.of(self.tools.local.index).splice_fallbacks.add(1);
        }
        pipe
    }

    fn give_back_pipe(&mut self, pipe: PipeId) {
        self.tools.pipes.give_back(pipe);
    }

    fn discard_pipe(&mut self, pipe: PipeId) {
        self.tools.pipes.discard(pipe);
        self.tools.released = true;
    }

    fn fill(&mut self, pipe: PipeId, side: Side) -> Result<usize, Errno> {
        let socket = self.legs.socket(side).ok_or(Errno::EBADF)?;
        self.tools.pipes.fill(pipe, socket)
    }

    fn drain(&mut self, pipe: PipeId, side: Side, pending: usize) -> Result<usize, Errno> {
        let socket = self.legs.socket(side).ok_or(Errno::EBADF)?;
        self.tools.pipes.drain(pipe, socket, pending)
    }
}
