//! The real kernel behind [`Io`], as one session sees it.

use nix::errno::Errno;

use crate::proxy::context::WorkerContext;
use crate::proxy::io::{Closing, First, Io, Operation, PrefaceRead};
use crate::proxy::slots::Key;
use crate::proxy::sockets::{Nagle, SessionSockets};
use crate::proxy::user_data::UserData;
use crate::sys::buffer::{BufferId, Supply};
use crate::sys::buffer_queue::BufferLinks;
use crate::sys::pipe::PipeId;
use crate::sys::ring::Readiness;
use crate::sys::socket::{Socket, ephemeral_ports};
use crate::terms::{ConnectFailure, Side};

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

    /// An attempt is made at the server, as one has failed.
    fn count_retry(&self, failure: ConnectFailure) {
        if let Some(server) = &self.sockets.served_by {
            let index = self.context.worker.index;
            server.shared.cells.of(index).retries.add(1);
            server.shared.backend_cells.retries.of(index)[failure as usize].add(1);
        }
    }
}

impl Io for SessionIo<'_> {
    fn receive(&mut self, side: Side, many: bool) {
        let Some(socket) = self.sockets.socket(side) else { return };
        // Of a unix socket, a multishot receive misses the end on some kernels (liburing issue
        // 1549).
        let multishot = many && self.supply() == Supply::Ample && !self.sockets.is_unix(side);
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

    fn connect(&mut self, first: First<'_>) -> Result<u32, ConnectFailure> {
        let Some(server) = &self.sockets.served_by else { return Err(ConnectFailure::Other) };
        let address = server.address.for_kernel(self.sockets.client_port());
        let address = address.map_err(|_| ConnectFailure::Other)?;
        let socket = Socket::to(&address).map_err(|_| {
            self.context.starved = true;
            ConnectFailure::Exhausted
        })?;
        let settings = self.sockets.backend().map(|backend| &*backend.settings);
        if let Some(sources) = settings.map(|it| &it.source).filter(|it| !it.is_empty())
            && let Some(address) = address.as_socket()
        {
            self.context.source_turn = self.context.source_turn.wrapping_add(1);
            let turn = self.context.source_turn;
            self.sockets.bind_source(&socket, address, (sources, turn))?;
        }
        let fast_open = settings.is_some_and(|settings| settings.fast_open);
        let early = match address.as_socket().filter(|_| fast_open) {
            Some(address) => {
                let from = (first, self.context.ring.buffers());
                self.sockets.connect_early(&socket, address, from)?
            }
            None => None,
        };
        if early.is_some_and(|bytes| bytes > 0) {
            // They are the first message.
            self.sockets.nagle = Nagle::DisableNow;
        }
        let user_data = self.user_data(Operation::Connect);
        match early {
            Some(_) => self.context.ring.poll(&socket, user_data, Readiness::Writable),
            None => self.context.ring.connect(&socket, address, user_data),
        }
        self.sockets.server = Some(socket);
        if let Some(origin) = &mut self.sockets.origin {
            origin.unsent.clear();
        }
        if let Some(failure) = self.sockets.failed {
            self.count_retry(failure);
        }
        Ok(early.unwrap_or(0))
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

    fn read_preface(&mut self) -> PrefaceRead {
        self.sockets.read_preface(&mut self.context.preface)
    }

    fn send_proxy_header(&mut self, more: bool) -> Result<bool, Errno> {
        self.sockets.send_proxy_header(more)
    }

    fn is_connected_to_itself(&mut self) -> bool {
        let (Some(server), Some(socket)) = (&self.sockets.served_by, &self.sockets.server) else {
            return false;
        };
        let Some(address) = server.address.for_client(self.sockets.client_port()) else {
            return false;
        };
        // Only a port of that range can have been chosen by the kernel.
        ephemeral_ports().contains(&address.port()) && socket.is_at(address)
    }

    fn receive_rest(&mut self, side: Side, buffer: &BufferId, filled: u32) -> Result<u32, Errno> {
        let socket = self.sockets.socket(side).ok_or(Errno::EBADF)?;
        self.context.ring.receive_rest(socket, buffer, filled)
    }

    fn has_ended(&mut self, side: Side) -> Result<bool, Errno> {
        self.sockets.socket(side).map_or(Ok(false), Socket::has_ended)
    }

    fn has_closed(&mut self, side: Side) -> Option<bool> {
        self.sockets.socket(side).filter(|_| self.sockets.is_unix(side)).map(Socket::has_closed)
    }

    fn ended_in_order(&mut self, side: Side) -> bool {
        // No send takes the error of a unix socket: it fails with EPIPE as soon as the peer has
        // closed, and a receive reports ECONNRESET in front of the end (net/unix/af_unix.c).
        self.sockets.is_unix(side) || self.sockets.socket(side).is_some_and(Socket::ended_in_order)
    }

    fn take_failure(&mut self, side: Side) -> Option<Errno> {
        self.sockets.socket(side).and_then(Socket::take_failure)
    }

    fn push(&mut self, side: Side) {
        if let Some(socket) = self.sockets.socket(side) {
            socket.do_not_delay();
        }
    }

    fn shut_down(&mut self, side: Side) {
        if let Some(socket) = self.sockets.socket(side) {
            socket.shut_down();
            self.sockets.shut_down[side as usize] = true;
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
        let bytes = self.sockets.socket(side).map_or(0, Socket::unacknowledged);
        // The kernel counts the end as a byte, the last one.
        bytes.saturating_sub(u32::from(self.sockets.shut_down[side as usize]))
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
        // Unix sockets are copied: splice(2) to one was unsafe until 6.1.47 (CVE-2023-4622).
        if Side::BOTH.into_iter().any(|side| self.sockets.is_unix(side)) {
            return None;
        }
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
