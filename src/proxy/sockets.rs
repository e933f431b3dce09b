//! The two sockets of a session and its permits, and the real kernel behind [`Io`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use crate::proxy::access::{NewClient, SessionPermit};
use crate::proxy::context::WorkerContext;
use crate::proxy::io::{Closing, Io, Operation};
use crate::proxy::route::{ServerPermit, choose};
use crate::proxy::session::Session;
use crate::proxy::slots::Key;
use crate::proxy::state::{Attempt, Outcome, PickError};
use crate::proxy::user_data::UserData;
use crate::shared::counters::ServerCell;
use crate::shared::events::WorkerEvent;
use crate::shared::server::Endpoint;
use crate::shared::table::Frontend;
use crate::sys::buffer::{BufferId, Supply};
use crate::sys::buffer_queue::BufferLinks;
use crate::sys::pipe::PipeId;
use crate::sys::ring::{Readiness, SendKey};
use crate::sys::socket::{Socket, ephemeral_ports};
use crate::terms::{ConnectFailure, Direction, Side};

/// Whether Nagle's algorithm (RFC 896) is still enabled on the server socket. On the client socket
/// it is not: that inherits `TCP_NODELAY` from its listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nagle {
    /// Nothing was sent. The first message is never held back, and most servers of one exchange a
    /// connection get no second, so that the system call is saved.
    Enabled,
    /// One message was sent.
    DisableNow,
    Disabled,
}

/// A session and its sockets.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) session: Session,
    pub(super) sockets: SessionSockets,
}

/// What a session holds.
#[derive(Debug)]
pub(super) struct SessionSockets {
    client: Option<Socket>,
    server: Option<Socket>,
    /// The last send to each side.
    sends: [Option<SendKey>; 2],
    nagle: Nagle,
    /// How the last attempt to connect failed.
    failed: Option<ConnectFailure>,
    server_permit: Option<ServerPermit>,
    /// The last endpoint that was connected to, or tried.
    pub(super) served_by: Option<Arc<Endpoint>>,
    /// Until a server is connected: a session that lives long keeps no table alive.
    frontend: Option<Arc<Frontend>>,
    /// Of the frontend and its backend, for the log.
    pub(super) names: Option<[Arc<str>; 2]>,
    pub(super) permit: SessionPermit,
    /// The client's; none when the session is not logged, or the client was gone at once.
    pub(super) address: Option<SocketAddr>,
    /// Bytes that are counted, by [`Direction`].
    counted: [u64; 2],
}

impl SessionSockets {
    pub(super) fn new(client: NewClient, log: bool) -> Self {
        let NewClient { socket, frontend, permit } = client;
        let names = || [&frontend.settings.name, &frontend.backend.settings.name].map(Arc::clone);
        Self {
            address: if log { socket.peer().ok() } else { None },
            client: Some(socket),
            server: None,
            sends: [None; 2],
            nagle: Nagle::Enabled,
            failed: None,
            server_permit: None,
            served_by: None,
            names: log.then(names),
            frontend: Some(frontend),
            permit,
            counted: [0; 2],
        }
    }

    /// Chooses a server for the session.
    pub(super) fn route(
        &mut self,
        session: &Session,
        context: &WorkerContext,
    ) -> Result<Attempt, PickError> {
        let again = !session.tried().is_empty();
        let backend = &self.frontend(context, again).ok_or(PickError::NoServer)?.backend;
        let timeout = backend.settings.connect_timeout;
        let permit = choose(backend, session.tried(), &context.worker)?;
        let endpoint = Arc::clone(permit.endpoint());
        let id = endpoint.id;
        self.served_by = Some(endpoint);
        self.server_permit = Some(permit);
        self.nagle = Nagle::Enabled;
        Ok(Attempt { endpoint: id, timeout })
    }

    /// The frontend as it is in force; as it was when the client came, if it is gone and no server
    /// was connected to yet.
    fn frontend(&mut self, context: &WorkerContext, again: bool) -> Option<&Frontend> {
        if again || self.frontend.is_none() {
            let mut frontends = context.table.frontends.iter();
            if let Some(frontend) = frontends.find(|frontend| self.permit.is_of(frontend)) {
                self.frontend = Some(Arc::clone(frontend));
            }
        }
        self.frontend.as_deref()
    }

    /// Counts what an event has led to.
    pub(super) fn count(&mut self, session: &mut Session, context: &WorkerContext) {
        let server = self.served_by.as_ref().map(|server| &server.shared);
        let cell = server.map(|shared| shared.cells.of(context.worker.index));
        for direction in Direction::BOTH {
            let sent = session.sent(direction);
            let counted = &mut self.counted[direction as usize];
            if sent != *counted {
                self.permit.cell().bytes[direction as usize].add(sent - *counted);
                if let Some(cell) = cell {
                    cell.bytes[direction as usize].add(sent - *counted);
                }
                *counted = sent;
            }
        }
        let (Some(outcome), Some(server), Some(cell)) = (session.take_outcome(), server, cell)
        else {
            return;
        };
        match outcome {
            Outcome::Connected(micros) => {
                cell.sessions.add(1);
                cell.connect_duration.record(Duration::from_micros(micros.into()));
                self.frontend = None;
            }
            Outcome::ConnectFailed(failure) => {
                self.failed = Some(failure);
                cell.connect_failures[failure as usize].add(1);
                // A full channel means that the control thread has enough to do.
                let event = WorkerEvent::ConnectFailed(server.id, failure);
                context.worker.shared.events.try_send(event).ok();
            }
        }
    }

    const fn socket(&self, side: Side) -> Option<&Socket> {
        match side {
            Side::Client => self.client.as_ref(),
            Side::Server => self.server.as_ref(),
        }
    }
}

/// The kernel as one session sees it.
#[derive(Debug)]
pub(super) struct SessionIo<'a> {
    pub(super) context: &'a mut WorkerContext,
    pub(super) sockets: &'a mut SessionSockets,
    pub(super) key: Key,
}

impl SessionIo<'_> {
    const fn user_data(&self, operation: Operation) -> u64 {
        UserData::Session(self.key, operation).pack()
    }

    fn server_cell(&self) -> Option<&ServerCell> {
        let server = self.sockets.served_by.as_ref()?;
        Some(server.shared.cells.of(self.context.worker.index))
    }
}

impl Io for SessionIo<'_> {
    fn receive(&mut self, side: Side, many: bool) {
        let Some(socket) = self.sockets.socket(side) else { return };
        let multishot = many && self.supply() == Supply::Ample;
        let user_data = self.user_data(Operation::Receive(side));
        self.context.ring.receive(socket, user_data, multishot);
    }

    fn send(&mut self, side: Side, buffer: BufferId, range: (u32, u32), last: bool) {
        let Some(socket) = self.sockets.socket(side) else { return self.release(buffer) };
        let nagle = if side == Side::Server { self.sockets.nagle } else { Nagle::Disabled };
        if nagle == Nagle::DisableNow {
            socket.do_not_delay();
        }
        let user_data = self.user_data(Operation::Send(side));
        let key = self.context.ring.send(socket, user_data, buffer, range, last);
        self.sockets.sends[side as usize] = Some(key);
        match nagle {
            Nagle::Enabled => self.sockets.nagle = Nagle::DisableNow,
            Nagle::DisableNow => self.sockets.nagle = Nagle::Disabled,
            Nagle::Disabled => {}
        }
    }

    fn wait_ready(&mut self, side: Side, readiness: Readiness) {
        let Some(socket) = self.sockets.socket(side) else { return };
        let user_data = self.user_data(Operation::Ready(side, readiness));
        self.context.ring.poll(socket, user_data, readiness);
    }

    fn wait_for_buffer(&mut self, side: Side) {
        if !self.context.ring.deepen_buffers() {
            let worker = &self.context.worker;
            worker.shared.cells.of(worker.index).buffer_waits.add(1);
        }
        self.context.waiting.push_back((self.key, side));
    }

    fn connect(&mut self) -> Result<(), Errno> {
        let Some(server) = &self.sockets.served_by else { return Err(Errno::EDESTADDRREQ) };
        let socket = Socket::to(server.address).map_err(|error| {
            self.context.starved = true;
            error.raw_os_error().map_or(Errno::ENOMEM, Errno::from_raw)
        })?;
        let user_data = self.user_data(Operation::Connect);
        self.context.ring.connect(&socket, server.address, user_data);
        self.sockets.server = Some(socket);
        if let (Some(failure), Some(cell)) = (self.sockets.failed, self.server_cell()) {
            cell.retries[failure as usize].add(1);
        }
        Ok(())
    }

    fn cancel(&mut self, operation: Operation) {
        match operation {
            Operation::Send(side) => {
                if let Some(key) = self.sockets.sends[side as usize] {
                    self.context.ring.cancel_send(key);
                }
            }
            _ => self.context.ring.cancel(self.user_data(operation)),
        }
    }

    fn is_connected_to_itself(&mut self) -> bool {
        let (Some(server), Some(socket)) = (&self.sockets.served_by, &self.sockets.server) else {
            return false;
        };
        // Only a port of that range can have been chosen by the kernel.
        ephemeral_ports().contains(&server.address.port()) && socket.is_at(server.address)
    }

    fn receive_rest(&mut self, side: Side, buffer: &BufferId, filled: u32) -> Result<u32, Errno> {
        let socket = self.sockets.socket(side).ok_or(Errno::EBADF)?;
        self.context.ring.receive_rest(socket, buffer, filled)
    }

    fn has_ended(&mut self, side: Side) -> Result<bool, Errno> {
        self.sockets.socket(side).map_or(Ok(false), Socket::has_ended)
    }

    fn ended_in_order(&mut self, side: Side) -> bool {
        self.sockets.socket(side).is_some_and(Socket::ended_in_order)
    }

    fn push(&mut self, side: Side) {
        if let Some(socket) = self.sockets.socket(side) {
            socket.do_not_delay();
        }
    }

    fn shut_down(&mut self, side: Side) {
        if let Some(socket) = self.sockets.socket(side) {
            socket.shut_down();
        }
    }

    fn close(&mut self, side: Side, how: Closing) {
        let socket = match side {
            Side::Client => self.sockets.client.take(),
            Side::Server => {
                self.sockets.server_permit = None;
                self.sockets.server.take()
            }
        };
        let Some(socket) = socket else { return };
        if how == Closing::Abort {
            socket.abort_on_close();
        }
        match (side, how) {
            // At once: the next attempt may need the descriptor.
            (Side::Server, Closing::Abort) => drop(socket),
            _ => self.context.ring.close(socket),
        }
        self.context.released = true;
    }

    fn unacknowledged(&self, side: Side) -> u32 {
        self.sockets.socket(side).map_or(0, Socket::unacknowledged)
    }

    fn links(&mut self) -> &mut BufferLinks {
        &mut self.context.links
    }

    fn release(&mut self, buffer: BufferId) {
        self.context.ring.release(buffer);
    }

    fn supply(&self) -> Supply {
        self.context.ring.buffers().supply()
    }

    fn take_pipe(&mut self) -> Option<PipeId> {
        let pipe = self.context.pipes.take();
        if pipe.is_none() {
            let worker = &self.context.worker;
            worker.shared.cells.of(worker.index).splice_fallbacks.add(1);
        }
        pipe
    }

    fn give_back_pipe(&mut self, pipe: PipeId) {
        self.context.pipes.give_back(pipe);
    }

    fn discard_pipe(&mut self, pipe: PipeId) {
        self.context.pipes.discard(pipe);
        self.context.released = true;
    }

    fn fill(&mut self, pipe: &PipeId, side: Side) -> Result<usize, Errno> {
        let socket = self.sockets.socket(side).ok_or(Errno::EBADF)?;
        self.context.pipes.fill(pipe, socket)
    }

    fn drain(&mut self, pipe: &PipeId, side: Side, pending: usize) -> Result<usize, Errno> {
        let socket = self.sockets.socket(side).ok_or(Errno::EBADF)?;
        self.context.pipes.drain(pipe, socket, pending)
    }
}
