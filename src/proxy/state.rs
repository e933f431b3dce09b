//! The states of a session, each with its data and its deadline; what an event leads to; and what
//! goes between a session and the one who chooses its server.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::proxy::io::Closing;
use crate::proxy::rules::Timeout;
use crate::proxy::timer_wheel::Tick;
use crate::terms::{ConnectFailure, Direction, End, EndpointId, Side};

/// The state of a session, with the data and the deadline of that state.
#[derive(Debug)]
pub enum State {
    /// The PROXY header or the `ClientHello` is read.
    Preface(Preface),
    /// A server is needed: the caller chooses one.
    Routing,
    /// Every server is full: it waits until one has room.
    Queued(Queued),
    /// An attempt to connect is in flight.
    Connecting(Connecting),
    /// The server has failed: its operations are cancelled, then another one is needed.
    Leaving,
    /// Bytes go both ways.
    Relaying(Relaying),
    /// One side was reset. What it sent before is delivered, then the other side is reset.
    Flushing(Flushing),
    /// Everything is sent to this side, its end too. What it still sends is read and dropped, since
    /// a close with unread bytes would reset the connection.
    Lingering(Lingering),
    /// The last operations are cancelled, then both connections are closed.
    Joining(Joining),
    /// Nothing is held any more.
    Closed,
}

/// What follows from an event.
#[derive(Debug, Clone, Copy)]
pub(super) enum Next {
    Stay,
    Route,
    Queue,
    Relay,
    /// Another server is tried after this failure.
    Leave(ConnectFailure),
    /// The source of this direction was reset.
    Flush(Direction, End),
    Linger(Side),
    /// Both are closed so, client and server.
    Join(End, [Closing; 2]),
}

impl Next {
    /// Both sides are reset.
    pub(super) const fn abort(end: End) -> Self {
        Self::Join(end, [Closing::Abort; 2])
    }
}

/// The preface is being read.
#[derive(Debug)]
pub struct Preface {
    pub(super) until: Tick,
    /// When to look for more of it; never: the kernel tells.
    pub(super) look_at: Tick,
}

impl Preface {
    pub(super) const fn new(until: Tick) -> Self {
        Self { until, look_at: Tick::NEVER }
    }
}

/// Every server is full.
#[derive(Debug)]
pub struct Queued {
    pub(super) until: Tick,
}

/// An attempt to connect is in flight.
#[derive(Debug)]
pub struct Connecting {
    pub(super) started: Tick,
    /// The deadline of the attempt; never once it was cancelled.
    pub(super) until: Tick,
    /// The first bytes of the client that were sent with the SYN.
    pub(super) early: u32,
    /// Once connected, the server gets a PROXY header before anything else.
    pub(super) sends_proxy: bool,
}

/// Bytes go both ways.
#[derive(Debug)]
pub struct Relaying {
    /// The last byte in either direction, or the last end of one.
    pub(super) progress: Tick,
    /// Which way the last byte went.
    pub(super) last: Option<Direction>,
    /// Half way to the timeout: bytes that client and server have not acknowledged.
    pub(super) sample: Option<[u32; 2]>,
    /// When sockets that are not read were last checked for a reset. None: all were read then, and
    /// nothing has happened since.
    pub(super) checked: Option<Tick>,
}

impl Relaying {
    /// `with_syn`: the first bytes of the client went with the SYN.
    pub(super) const fn new(now: Tick, with_syn: bool) -> Self {
        let last = if with_syn { Some(Direction::In) } else { None };
        Self { progress: now, last, sample: None, checked: Some(now) }
    }

    pub(super) const fn note_progress(&mut self, direction: Direction, now: Tick) {
        self.last = Some(direction);
        self.restart(now);
    }

    /// Silence counts from now on.
    pub(super) const fn restart(&mut self, now: Tick) {
        self.progress = now;
        self.sample = None;
        self.checked = Some(now);
    }

    /// Half way to the timeout a sample is taken; at its end it is compared.
    pub(super) fn silent_until(&self, timeout: Timeout) -> Tick {
        if self.sample.is_none() { timeout.half() } else { timeout }.end(self.progress)
    }

    /// When to check sockets that are not read.
    pub(super) fn next_check(&self, interval: Timeout) -> Tick {
        self.checked.map_or(Tick::NEVER, |checked| interval.end(checked))
    }
}

/// The source of a direction was reset; what came before is delivered.
#[derive(Debug)]
pub struct Flushing {
    pub(super) direction: Direction,
    /// When the sink last took or acknowledged something.
    pub(super) progress: Tick,
    /// Bytes that the sink had not acknowledged at the last look.
    pub(super) unacknowledged: u32,
    /// When to look again.
    pub(super) until: Tick,
}

/// Everything is sent to a side; what it still sends is dropped.
#[derive(Debug, Clone, Copy)]
pub struct Lingering {
    pub(super) side: Side,
    pub(super) until: Tick,
}

impl Lingering {
    /// The side that is read until its end.
    #[must_use]
    pub const fn side(&self) -> Side {
        self.side
    }
}

/// The last operations are cancelled.
#[derive(Debug)]
pub struct Joining {
    /// How client and server are closed.
    pub(super) closing: [Closing; 2],
}

/// The attempts of a session to connect to a server.
#[derive(Debug)]
pub(super) struct Route {
    /// Attempts that were begun.
    pub(super) attempts: u32,
    /// Endpoints whose attempts failed.
    pub(super) tried: Vec<EndpointId>,
    /// The endpoint of the attempt in flight, or the one connected to.
    pub(super) endpoint: Option<EndpointId>,
    /// Microseconds from accept to the established connection.
    pub(super) connect_took: Option<NonZeroU32>,
    /// Until a server is connected: when to check whether the client has left.
    pub(super) client_check_at: Tick,
}

impl Route {
    pub(super) const fn new() -> Self {
        Self {
            attempts: 0,
            tried: Vec::new(),
            endpoint: None,
            connect_took: None,
            client_check_at: Tick::NEVER,
        }
    }
}

/// Something that the caller counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The server is connected, so many microseconds after the attempt began.
    Connected(u32),
    /// The attempt has failed.
    ConnectFailed(ConnectFailure),
}

/// A server that was chosen.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// How long the attempt to connect may take.
    pub timeout: Duration,
    /// Whether the server gets a PROXY header.
    pub sends_proxy: bool,
}

/// Why no server could be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PickError {
    /// No backend: the frontend has none for what the client asked for.
    NoRoute,
    /// The client has left, and its address, which the server is to see, is not known.
    ClientLeft,
    /// No server is up.
    NoServer,
    /// Every server is at its `sessions_max`: the session waits in the queue.
    AllFull,
    /// Every server is at its `sessions_max`, and so is the queue.
    QueueFull,
}
