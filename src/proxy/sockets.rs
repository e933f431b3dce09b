//! The two sockets of a session and its permits; its server is chosen here, and it is counted here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::SendProxy;
use crate::proxy::access::{NewClient, SessionPermit};
use crate::proxy::context::WorkerContext;
use crate::proxy::preface::origin::Origin;
use crate::proxy::queue::QueuePlace;
use crate::proxy::route::{ServerPermit, choose};
use crate::proxy::session::Session;
use crate::proxy::slots::Key;
use crate::proxy::state::{Attempt, Outcome, PickError};
use crate::proxy::timer_wheel::Tick;
use crate::shared::events::WorkerEvent;
use crate::shared::queue::QueueFull;
use crate::shared::server::Endpoint;
use crate::shared::table::{Backend, Frontend};
use crate::sys::address::ClientAddress;
use crate::sys::ring::SendKey;
use crate::sys::socket::Socket;
use crate::sys::socket_options::KeepAlive;
use crate::terms::{ConnectFailure, Direction, Side};

/// Whether Nagle's algorithm (RFC 896) is still enabled on the server socket. On the client socket
/// it is not: that inherits `TCP_NODELAY` from its listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nagle {
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
    pub(super) client: Option<Socket>,
    pub(super) server: Option<Socket>,
    /// The last send to each side.
    pub(super) sends: [Option<SendKey>; 2],
    /// Whether an end (FIN) was sent to each side.
    pub(super) shut_down: [bool; 2],
    pub(super) nagle: Nagle,
    /// How the last attempt to connect failed.
    pub(super) failed: Option<ConnectFailure>,
    pub(super) server_permit: Option<ServerPermit>,
    /// While every server is full. In a box: an idle session has none.
    pub(super) place: Option<Box<QueuePlace>>,
    /// The last endpoint that was connected to, or tried.
    pub(super) served_by: Option<Arc<Endpoint>>,
    /// Until a server is connected: a session that lives long keeps no table alive.
    pub(super) frontend: Option<Arc<Frontend>>,
    /// In a box: few sessions have a preface.
    pub(super) origin: Option<Box<Origin>>,
    pub(super) permit: SessionPermit,
    /// The client's, as its PROXY header says it; none when the session is not logged and has no
    /// such header, or the client was gone at once.
    pub(super) address: Option<ClientAddress>,
    /// The port that the client connected to; none: a unix socket.
    pub(super) port: Option<u16>,
    /// Whether the last server that was connected to, or tried, is a unix socket.
    pub(super) server_is_unix: bool,
    /// Bytes that are counted, by [`Direction`].
    pub(super) counted: [u64; 2],
}

impl SessionSockets {
    pub(super) fn new(client: NewClient, log: bool) -> Self {
        let NewClient { socket, frontend, permit, port } = client;
        Self {
            address: if log { socket.peer().ok() } else { None },
            client: Some(socket),
            server: None,
            sends: [None; 2],
            shut_down: [false; 2],
            nagle: Nagle::Enabled,
            failed: None,
            server_permit: None,
            place: None,
            served_by: None,
            origin: Origin::new(&frontend),
            frontend: Some(frontend),
            permit,
            port,
            server_is_unix: false,
            counted: [0; 2],
        }
    }

    /// Chooses a server for the session. If every server is full, or others wait already, it joins
    /// the queue; it is told when it is the first and a server may have room, and then is to be
    /// routed again.
    pub(super) fn route(
        &mut self,
        session: &Session,
        context: &WorkerContext,
        now: Tick,
        key: Key,
    ) -> Result<Attempt, PickError> {
        let again = !session.tried().is_empty() || self.place.is_some() || self.origin.is_some();
        self.follow_frontend(context, again);
        let hello = self.origin.as_ref().and_then(|origin| origin.hello.as_ref());
        let backend = self.frontend.as_ref().and_then(|frontend| frontend.backend_of(hello));
        let backend = backend.ok_or(PickError::NoRoute)?;
        if backend.settings.source.client().is_some() {
            // A client that has left has no address any more, which is no failure of a server.
            self.address = self.address.or_else(|| self.client.as_ref()?.peer().ok());
            self.address.ok_or(PickError::ClientLeft)?;
        }
        let timeout = backend.settings.connect_timeout;
        let sends_proxy = backend.settings.send_proxy != SendProxy::Off;
        let address = || self.address.or_else(|| self.client.as_ref()?.peer().ok());
        let client = || address().and_then(ClientAddress::ip);
        let choose = || choose(backend, client, session.tried(), &context.worker);
        // A reload may have given the frontend another backend.
        let moved = |place: &mut Box<QueuePlace>| !place.is_in(&backend.queue);
        if let Some(place) = self.place.take_if(moved) {
            place.record(now);
        }
        // It may have been told when it was the first in another queue.
        let others_first = match &self.place {
            Some(place) => !place.is_first(key),
            None => backend.queue.length() > 0,
        };
        let permit = if others_first { Err(PickError::AllFull) } else { choose() };
        let permit = match permit {
            Err(PickError::AllFull) if self.place.is_none() => {
                let place = QueuePlace::new(&backend.queue, &context.worker, key, now);
                let place = place.map_err(|QueueFull| PickError::QueueFull)?;
                // Room may have been made before this session could be told.
                let first = place.is_first(key);
                self.place = Some(Box::new(place));
                if first { choose()? } else { return Err(PickError::AllFull) }
            }
            permit => permit?,
        };
        self.leave_queue(now);
        let endpoint = Arc::clone(permit.endpoint());
        let id = endpoint.id;
        self.server_is_unix = endpoint.address.is_unix();
        self.served_by = Some(endpoint);
        self.server_permit = Some(permit);
        self.nagle = if self.server_is_unix { Nagle::Disabled } else { Nagle::Enabled };
        Ok(Attempt { endpoint: id, timeout, sends_proxy })
    }

    /// The backend of its last server; of its frontend, if none was tried.
    pub(super) fn backend_name(&self) -> Arc<str> {
        let of_server = self.served_by.as_ref().map(|server| &server.shared.backend);
        let of_frontend = || self.backend().map(|backend| &backend.settings.name);
        of_server.or_else(of_frontend).cloned().unwrap_or_default()
    }

    /// The backend that its frontend leads it to, until a server is connected.
    pub(super) fn backend(&self) -> Option<&Arc<Backend>> {
        let hello = self.origin.as_ref().and_then(|origin| origin.hello.as_ref());
        self.frontend.as_ref()?.backend_of(hello)
    }

    /// The address of the client, if it is still connected or known.
    pub(super) fn client_address(&self) -> Option<ClientAddress> {
        self.address.or_else(|| self.client.as_ref()?.peer().ok())
    }

    /// The IP address and port of the client; none of a unix socket.
    pub(super) fn client_ip(&self) -> Option<SocketAddr> {
        match self.client_address()? {
            ClientAddress::Ip(address) => Some(address),
            ClientAddress::Unix => None,
        }
    }

    /// The port that the client connected to, as its PROXY header says it; none: a unix socket.
    pub(super) fn client_port(&self) -> Option<u16> {
        let destination = self.origin.as_ref().and_then(|origin| origin.destination);
        destination.map(|destination| destination.port()).or(self.port)
    }

    /// Leaves the queue, if it is in one.
    pub(super) fn leave_queue(&mut self, now: Tick) {
        if let Some(place) = self.place.take() {
            place.record(now);
        }
    }

    /// Takes the frontend as it is in force; as it was when the client came, if it is gone and no
    /// server was connected to yet.
    fn follow_frontend(&mut self, context: &WorkerContext, again: bool) {
        if again || self.frontend.is_none() {
            let mut frontends = context.table.frontends.iter();
            if let Some(frontend) = frontends.find(|frontend| self.permit.is_of(frontend)) {
                self.frontend = Some(Arc::clone(frontend));
            }
        }
    }

    /// Counts what an event has led to.
    pub(super) fn count(&mut self, session: &mut Session, context: &WorkerContext) {
        let endpoint = self.served_by.as_ref();
        let cell = endpoint.map(|endpoint| endpoint.shared.cells.of(context.worker.index));
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
        let (Some(outcome), Some(endpoint), Some(cell)) = (session.take_outcome(), endpoint, cell)
        else {
            return;
        };
        match outcome {
            Outcome::Connected(micros) => {
                cell.sessions.add(1);
                cell.connect_duration.record(Duration::from_micros(micros.into()));
                let silence = self.backend().and_then(|backend| backend.settings.keepalive);
                self.frontend = None;
                let silence = silence.filter(|_| !self.server_is_unix);
                if let (Some(silence), Some(socket)) = (silence, &self.server) {
                    // Not before: the timeout would count for the connect, too. An error is that
                    // of the connection, which its operations report.
                    KeepAlive::after(silence).set(socket).ok();
                }
            }
            Outcome::ConnectFailed(failure) => {
                self.failed = Some(failure);
                cell.connect_failures[failure as usize].add(1);
                // A full channel means that the control thread has enough to do.
                let event = WorkerEvent::ConnectFailed(endpoint.id, failure);
                context.worker.shared.events.try_send(event).ok();
            }
        }
    }

    /// Whether this side is a unix socket.
    pub(super) const fn is_unix(&self, side: Side) -> bool {
        match side {
            Side::Client => self.port.is_none(),
            Side::Server => self.server_is_unix,
        }
    }

    pub(super) const fn socket(&self, side: Side) -> Option<&Socket> {
        match side {
            Side::Client => self.client.as_ref(),
            Side::Server => self.server.as_ref(),
        }
    }
}
