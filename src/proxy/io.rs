//! The interface between a session and the kernel: ring operations and socket queries, and nothing
//! else. The worker implements it with its ring, the simulation with a model that completes
//! operations in every legal order.

use nix::errno::Errno;

use crate::proxy::rules::BackendRules;
use crate::sys::buffer::{BufferId, Supply};
use crate::sys::buffer_queue::BufferLinks;
use crate::sys::pipe::PipeId;
use crate::sys::ring::Readiness;
use crate::terms::{ConnectFailure, Side};

/// An operation that a session can have in flight; of each at most one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Bytes of this side into buffers of the ring.
    Receive(Side),
    /// Bytes of a buffer to this side.
    Send(Side),
    /// Waiting until this side can be read or written.
    Ready(Side, Readiness),
    /// The attempt to connect.
    Connect,
}

impl Operation {
    /// Every operation: `ALL[o.index()] == o`.
    pub const ALL: [Self; 9] = [
        Self::Receive(Side::Client),
        Self::Send(Side::Client),
        Self::Ready(Side::Client, Readiness::Readable),
        Self::Ready(Side::Client, Readiness::Writable),
        Self::Receive(Side::Server),
        Self::Send(Side::Server),
        Self::Ready(Side::Server, Readiness::Readable),
        Self::Ready(Side::Server, Readiness::Writable),
        Self::Connect,
    ];

    /// Its place in [`Operation::ALL`].
    #[must_use]
    pub const fn index(self) -> u8 {
        let (side, kind) = match self {
            Self::Receive(side) => (side, 0),
            Self::Send(side) => (side, 1),
            Self::Ready(side, Readiness::Readable) => (side, 2),
            Self::Ready(side, Readiness::Writable) => (side, 3),
            Self::Connect => return 8,
        };
        match side {
            Side::Client => kind,
            Side::Server => 4 + kind,
        }
    }
}

/// A set of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Operations(u16);

impl Operations {
    /// None.
    pub const NONE: Self = Self(0);
    /// All that use the descriptor of the server's socket.
    pub const OF_SERVER: Self = Self(0b1_1111_0000);

    /// Adds one.
    pub const fn insert(&mut self, operation: Operation) {
        self.0 |= 1 << operation.index();
    }

    /// Takes one away.
    pub const fn remove(&mut self, operation: Operation) {
        self.0 &= !(1 << operation.index());
    }

    /// Whether it is in the set.
    #[must_use]
    pub const fn contains(self, operation: Operation) -> bool {
        self.0 & (1 << operation.index()) != 0
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each, in the order of [`Operation::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Operation> {
        Operation::ALL.into_iter().filter(move |operation| self.contains(*operation))
    }
}

/// What happened to a session.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The attempt to connect has ended.
    Connected(Result<(), ConnectFailure>),
    /// A receive answered: bytes in a buffer, the end (`Ok(None)`), or an error.
    Received {
        /// The side that sent.
        side: Side,
        /// What; the session holds the buffer now.
        bytes: Result<Option<(BufferId, u32)>, Errno>,
        /// Whether the receive goes on.
        more: bool,
        /// Whether the socket holds more, or its end.
        left: bool,
    },
    /// A send answered, perhaps with less than all.
    Sent {
        /// The side that it was sent to.
        side: Side,
        /// The buffer that it was sent from; the session holds it again.
        buffer: BufferId,
        /// How many bytes.
        bytes: Result<u32, Errno>,
    },
    /// A wait for readiness has ended.
    Ready(Side, Readiness),
    /// A buffer is free, and the receive of this side is the first that waits for one.
    BufferFree(Side),
    /// Too many buffers are held by bytes that their peer does not take
    /// ([`Supply::Stalled`]): from now on nothing is received that cannot be sent at once.
    BuffersStalled,
    /// A server has room, and this session is the first that waits for one.
    ServerFree,
    /// The time of [`crate::proxy::session::Session::deadline`] has come.
    Deadline,
}

impl Event {
    /// The buffer that the session would hold now.
    #[must_use]
    pub fn into_buffer(self) -> Option<BufferId> {
        match self {
            Self::Received { bytes: Ok(Some((buffer, _))), .. } | Self::Sent { buffer, .. } => {
                Some(buffer)
            }
            _ => None,
        }
    }
}

/// Where the first bytes of a client are.
#[derive(Debug, Clone, Copy)]
pub enum First<'a> {
    /// In a buffer: so many bytes.
    Held(&'a BufferId, u32),
    /// At the client's socket, if it has sent any.
    AtClient,
    /// On the way: a receive is in flight.
    Unknown,
}

/// How far the preface of a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefaceRead {
    /// All of it was read: the settings of the backend that it leads to.
    Complete(BackendRules),
    /// More is needed. The client's socket is readable once that is there.
    Incomplete,
    /// More is needed, and nothing has come since the last look: the socket may be readable all the
    /// same.
    Unchanged,
    /// It is no PROXY header, or no `ClientHello`.
    Invalid,
    /// The client has ended its direction, or reset the connection.
    ClientLeft,
    /// The client that the PROXY header names is refused.
    Refused,
}

/// How a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// The peer reads what was sent, then the end (FIN).
    Orderly,
    /// The peer reads a reset (RST).
    Abort,
}

/// The kernel as a session sees it. Each operation of the first group ends with an event.
pub trait Io {
    /// Receives from `side`: with `many` until cancelled, an end or an error; else, and where
    /// buffers are scarce, once. [`Event::Received`] tells by `more`.
    fn receive(&mut self, side: Side, many: bool);
    /// Sends `range` of a buffer, which comes back with [`Event::Sent`]. What is `last` may wait
    /// for the end that follows at once, and go with it.
    fn send(&mut self, side: Side, buffer: BufferId, range: (u32, u32), last: bool);
    /// Waits until `side` is ready.
    fn wait_ready(&mut self, side: Side, readiness: Readiness);
    /// Waits for a buffer to receive into, first come first served.
    fn wait_for_buffer(&mut self, side: Side);
    /// Connects to the server that was chosen. Ends with [`Event::Connected`]. The first bytes of
    /// the client may be sent with the SYN (TCP Fast Open): how many were taken.
    ///
    /// # Errors
    /// No descriptor, memory or source address for a socket; nothing was begun.
    fn connect(&mut self, first: First<'_>) -> Result<u32, ConnectFailure>;
    /// Asks an operation in flight to end; it answers once more.
    fn cancel(&mut self, operation: Operation);

    /// Reads as much of the client's preface as has come.
    fn read_preface(&mut self) -> PrefaceRead;
    /// Sends the PROXY header, or the rest of it, to the connected server: whether all of it is
    /// sent. With `more`, bytes of the client follow at once.
    ///
    /// # Errors
    /// As send(2).
    fn send_proxy_header(&mut self, more: bool) -> Result<bool, Errno>;

    /// Whether the server's socket is connected to itself: the port was free, in the range of
    /// ephemeral ports, and the kernel chose it as the source port too.
    fn is_connected_to_itself(&mut self) -> bool;
    /// Receives what `side` has sent so far behind the first `filled` bytes of a buffer that the
    /// session holds, at once: how many bytes, of which 0 are its end. No receive is in flight.
    ///
    /// # Errors
    /// `EAGAIN` and `EINTR`: nothing was received. Else it was reset; nothing else will say so.
    fn receive_rest(&mut self, side: Side, buffer: &BufferId, filled: u32) -> Result<u32, Errno>;
    /// Whether `side` has ended and all it said has been received. No receive is in flight.
    ///
    /// # Errors
    /// It was reset; nothing else will say so.
    fn has_ended(&mut self, side: Side) -> Result<bool, Errno>;
    /// Whether the peer at `side` has closed its socket: nobody reads what is sent to it. None: TCP
    /// does not tell, since a peer that closes sends the same FIN as one that shuts down.
    fn has_closed(&mut self, side: Side) -> Option<bool>;
    /// Whether the end that was read of `side` was sent. Else a reset has left it, whose error was
    /// taken already: splice(2) keeps it to itself if it has sent a part.
    fn ended_in_order(&mut self, side: Side) -> bool;
    /// Takes the error of a reset or another failure of `side`, which may have bytes left to be
    /// received. None of a reset behind an end: all that `side` sent can be received.
    fn take_failure(&mut self, side: Side) -> Option<Errno>;
    /// Disables Nagle's algorithm and sends what it holds back for `side`.
    fn push(&mut self, side: Side);
    /// Shuts down our direction to `side` (sends FIN).
    fn shut_down(&mut self, side: Side);
    /// Closes the connection to `side`, if there is one. No operation is in flight on it.
    fn close(&mut self, side: Side, how: Closing);
    /// Bytes sent to `side` and not yet acknowledged by its kernel, without an end (FIN).
    fn unacknowledged(&self, side: Side) -> u32;
    /// The links of all buffers.
    fn links(&mut self) -> &mut BufferLinks;
    /// Gives a buffer back.
    fn release(&mut self, buffer: BufferId);
    /// How far the buffers of the worker go.
    fn supply(&self) -> Supply;

    /// An empty pipe, if one can be had.
    fn take_pipe(&mut self) -> Option<PipeId>;
    /// Gives an empty pipe back.
    fn give_back_pipe(&mut self, pipe: PipeId);
    /// Throws away a pipe that may hold bytes.
    fn discard_pipe(&mut self, pipe: PipeId);
    /// Moves what waits at `side` into the pipe, at once.
    ///
    /// # Errors
    /// As splice(2).
    fn fill(&mut self, pipe: &PipeId, side: Side) -> Result<usize, Errno>;
    /// Moves bytes from the pipe to `side`, at once.
    ///
    /// # Errors
    /// As splice(2).
    fn drain(&mut self, pipe: &PipeId, side: Side, pending: usize) -> Result<usize, Errno>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_stands_at_its_own_place() {
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(operation.index()), index);
        }
    }
}
