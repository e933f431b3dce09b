//! The model of the kernel: two peers, sockets with small windows, and operations that complete
//! when and how a seed decides.
//!
//! Bytes are not stored: a stream is its name and an offset, so that a run of bytes is checked by
//! arithmetic. Whatever arrives must be the next byte of the stream it should come from.

mod answers;
mod io;
mod preface;

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::time::Duration;

use evenkeel::proxy::io::{Event, Operation};
use evenkeel::proxy::route::ServerPermit;
use evenkeel::proxy::rules::BackendRules;
use evenkeel::proxy::session::Session;
use evenkeel::proxy::state::State;
use evenkeel::proxy::state::{Attempt, PickError};
use evenkeel::sys::buffer::{Buffer, BufferId, Supply};
use evenkeel::sys::buffer_queue::BufferLinks;
use evenkeel::sys::ids::IdPool;
use evenkeel::sys::pipe::Pipe;
use evenkeel::terms::{ConnectFailure, Direction, End, EndpointId, Reason, ServerId, Side};

use crate::fate::{Fate, Planted};
use crate::random::Random;

const WINDOW: u64 = 40_000;

/// Of a peer that keeps its last bytes back.
const LATE_BYTES: u64 = 100;

/// One of the two peers, and our socket to it.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    /// Bytes that it has sent.
    pub(crate) said: u64,
    /// It has ended its direction.
    pub(crate) ended: bool,
    /// Bytes of the other peer that have arrived at our socket to it, in order.
    pub(crate) got: u64,
    /// We have ended our direction.
    pub(crate) saw_end: bool,
    /// We have reset it.
    pub(crate) saw_reset: bool,
    reset: bool,
    /// The error of a reset was taken from the socket.
    reset_told: bool,
    /// Bytes of its stream that we have taken from the socket.
    taken: u64,
    /// The first of them, which were its PROXY header.
    header: u64,
    /// It has got a PROXY header from us.
    has_proxy_header: bool,
    /// Bytes that our kernel holds for it.
    unread: u64,
    open: bool,
}

/// A run of bytes of the stream of a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    session: u64,
    from: Side,
    attempt: u64,
    start: u64,
    length: u64,
}

/// The buffers and the pipes of a worker, which its sessions share.
#[derive(Debug)]
pub(crate) struct Memory {
    links: BufferLinks,
    buffers: IdPool<Buffer>,
    /// What is in the buffers that are held.
    contents: BTreeMap<u16, Run>,
    pipe_ids: IdPool<Pipe>,
    /// What is in the pipes that are held.
    pipes: BTreeMap<u16, VecDeque<Run>>,
}

impl Memory {
    pub(crate) fn new(buffers: u16, pipes: u16) -> Self {
        Self {
            links: BufferLinks::new(buffers),
            buffers: IdPool::new(buffers),
            contents: BTreeMap::new(),
            pipe_ids: IdPool::new(pipes),
            pipes: BTreeMap::new(),
        }
    }

    /// Nobody holds a buffer or a pipe.
    pub(crate) fn assert_all_returned(&self) {
        assert_eq!(self.buffers.free(), usize::from(self.buffers.count()), "buffers: {self:?}");
        assert_eq!(self.pipe_ids.free(), usize::from(self.pipe_ids.count()), "pipes: {self:?}");
    }
}

/// The kernel as one session sees it.
#[derive(Debug)]
pub(crate) struct Simulated {
    /// The session.
    number: u64,
    random: Random,
    fate: Fate,
    peers: [Peer; 2],
    armed: BTreeMap<u8, (Operation, bool)>,
    sending: BTreeMap<u8, (BufferId, (u32, u32), bool)>,
    /// The last bytes for each side wait for the end, which must follow at once.
    held_back: [bool; 2],
    row: VecDeque<Side>,
    memory: Memory,
    supply: Supply,
    /// Of the server, until the connection to it is closed.
    pub(crate) permit: Option<ServerPermit>,
    /// Of the server that was closed.
    pub(crate) dropped: Option<ServerPermit>,
    /// Whether the receive of each side goes on by itself.
    many: [bool; 2],
    /// Bytes that had come at the last look at the preface, until it is complete.
    preface_seen: Option<u64>,
    /// Of the backend that the preface leads to.
    pub(crate) backend: BackendRules,
    /// Whether the server of this attempt gets a PROXY header.
    pub(crate) sends_proxy: bool,
    connect_outcome: Option<Result<(), ConnectFailure>>,
    /// The attempt is answered by nobody.
    hangs: bool,
    /// Bytes of the client that went with the SYN.
    early: u32,
    pub(crate) attempts: u64,
    /// All bytes that went with a SYN.
    pub(crate) early_total: u64,
    pub(crate) spliced: u64,
    pub(crate) starved: u64,
    closes: [u64; 2],
}

fn index(side: Side) -> usize {
    side as usize
}

impl Simulated {
    pub(crate) fn new(number: u64, random: Random, fate: Fate, memory: Memory) -> Self {
        let client = Peer { open: true, ..Peer::default() };
        Self {
            number,
            random,
            fate,
            peers: [client, Peer::default()],
            armed: BTreeMap::new(),
            sending: BTreeMap::new(),
            held_back: [false; 2],
            row: VecDeque::new(),
            memory,
            supply: Supply::Ample,
            permit: None,
            dropped: None,
            many: [false; 2],
            preface_seen: None,
            backend: BackendRules::default(),
            sends_proxy: false,
            connect_outcome: None,
            hangs: false,
            early: 0,
            attempts: 0,
            early_total: 0,
            spliced: 0,
            starved: 0,
            closes: [0; 2],
        }
    }

    /// Lends the memory of the worker to this session, or takes it back.
    pub(crate) const fn swap_memory(&mut self, memory: &mut Memory) {
        mem::swap(&mut self.memory, memory);
    }

    pub(crate) fn peer(&self, side: Side) -> &Peer {
        &self.peers[index(side)]
    }

    /// Whether we have taken all that a peer has sent.
    pub(crate) fn is_read_empty(&self, side: Side) -> bool {
        self.peer(side).taken == self.peer(side).said
    }

    fn is_planted(&self, fault: Planted) -> bool {
        self.fate.planted == Some(fault)
    }

    /// A server for the session, as the worker would choose one.
    pub(crate) fn choose(&mut self, session: &Session) -> Result<Attempt, PickError> {
        if self.fate.connects_fail > 0 && self.random.one_in(40) {
            return Err(PickError::NoServer);
        }
        if self.fate.servers_are_full && self.random.one_in(3) {
            return Err(PickError::AllFull);
        }
        let number = self.attempts as u32;
        let endpoint = EndpointId { server: ServerId(number), number };
        assert!(!session.tried().contains(&endpoint));
        self.sends_proxy = self.random.one_in(4);
        let (timeout, sends_proxy) = (Duration::from_millis(100), self.sends_proxy);
        Ok(Attempt { endpoint, timeout, sends_proxy })
    }

    /// What must be so at the end of every session, but for its memory; how it ended.
    pub(crate) fn assert_ended(&self, session: &Session) -> End {
        let end = session.end().expect("an ended session knows why");
        assert_ne!(end.reason, Reason::Internal);
        assert!(session.in_flight().is_empty() && self.armed.is_empty(), "in flight: {self:?}");
        assert_eq!(self.closes, [1, self.attempts], "closes: {self:?}");
        for direction in Direction::BOTH {
            let peer = self.peer(direction.sink());
            // A session that ends before it knows that it is connected has not counted the bytes
            // that went with the SYN.
            let is_early = direction == Direction::In && session.connect_took().is_none();
            if !is_early || peer.got != u64::from(self.early) {
                assert_eq!(session.sent(direction), peer.got, "{direction:?}: sent and arrived");
            }
            let lost = peer.got - session.delivered(direction);
            assert!(
                lost == 0 || peer.saw_reset,
                "{direction:?}: {lost} bytes are lost without a reset"
            );
        }
        if end.reason == Reason::Done {
            for side in Side::BOTH {
                let peer = self.peer(side);
                let relayed = peer.said - peer.header;
                assert_eq!(self.peer(side.other()).got, relayed, "{side:?} lost bytes");
                assert!(peer.ended && !peer.saw_reset, "{side:?} ended in order, and so did we");
            }
        }
        end
    }

    /// Its buffers and pipes are the session's alone: it has returned them.
    pub(crate) fn assert_all_returned(&self) {
        self.memory.assert_all_returned();
    }

    /// Something that can happen, happens; none when nothing can.
    pub(crate) fn step(&mut self, session: &Session) -> Option<Event> {
        let event = self.try_step(session, 64);
        if event.is_some() {
            return event;
        }
        // Luck is no excuse: whatever can be answered is.
        for _ in 0..2000 {
            self.peer_acts(Side::Client);
            self.peer_acts(Side::Server);
            let told = self.worker_tells(session);
            if let Some(event) = told.or_else(|| self.kernel_answers()) {
                return Some(event);
            }
        }
        None
    }

    /// Something may happen, within so many attempts.
    pub(crate) fn try_step(&mut self, session: &Session, attempts: u32) -> Option<Event> {
        let mut armed = session.in_flight();
        for (operation, _) in self.armed.values() {
            assert!(
                armed.contains(*operation),
                "{operation:?} is in flight unknown to the session"
            );
            armed.remove(*operation);
        }
        assert!(armed.is_empty(), "the session waits for what is not in flight: {armed:?}");
        let closing = matches!(session.state(), State::Joining(_) | State::Leaving);
        assert!(closing || self.held_back == [false; 2], "held back, and no end follows: {self:?}");
        // Other sessions of the worker hold buffers and give them back.
        if self.random.one_in(16) {
            let supplies = [Supply::Ample, Supply::Ample, Supply::Low, Supply::Stalled];
            let before = mem::replace(&mut self.supply, supplies[self.random.below(4) as usize]);
            if self.supply == Supply::Stalled && before != Supply::Stalled {
                return Some(Event::BuffersStalled);
            }
        }
        for _ in 0..attempts {
            match self.random.below(3) {
                0 => self.peer_acts(Side::Client),
                1 => self.peer_acts(Side::Server),
                _ => {
                    let told = self.worker_tells(session);
                    if let Some(event) = told.or_else(|| self.kernel_answers()) {
                        return Some(event);
                    }
                }
            }
        }
        None
    }

    fn peer_acts(&mut self, side: Side) {
        let (says, resets_after, stays_open, stops_reading, is_late) = match side {
            Side::Client => (
                self.fate.client_says,
                self.fate.client_resets_after,
                self.fate.client_stays_open,
                self.fate.client_stops_reading,
                self.fate.client_is_late,
            ),
            Side::Server => (
                self.fate.server_says,
                self.fate.server_resets_after,
                self.fate.server_stays_open,
                self.fate.server_stops_reading,
                self.fate.server_is_late,
            ),
        };
        // The session cancels what is in flight as it closes.
        let is_closing = self.armed.values().any(|(_, is_cancelled)| *is_cancelled);
        let late = if is_late && !is_closing { LATE_BYTES } else { 0 };
        let big = self.random.one_in(2);
        let piece = self.random.below(if big { 50_000 } else { 600 }) + 1;
        let peer = &mut self.peers[index(side)];
        if !peer.open || peer.reset {
            return;
        }
        if !stops_reading {
            peer.unread = peer.unread.saturating_sub(piece);
        }
        if peer.ended {
            return;
        }
        let limit = resets_after.unwrap_or(says).min(says).saturating_sub(late);
        if peer.said < limit {
            peer.said += piece.min(limit - peer.said).min(WINDOW);
        } else if late > 0 {
            // It comes later.
        } else if resets_after.is_some() {
            peer.reset = true;
        } else if !stays_open {
            peer.ended = true;
        }
    }

    /// What the worker tells the session, not the kernel.
    fn worker_tells(&mut self, session: &Session) -> Option<Event> {
        match session.state() {
            State::Queued(_) if !self.fate.servers_stay_full && self.random.one_in(4) => {
                Some(Event::ServerFree)
            }
            _ => None,
        }
    }

    /// The connection to the server is closed, or was never made.
    fn drop_permit(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        if self.is_planted(Planted::LostPermit) {
            let _lost: &mut ServerPermit = Box::leak(Box::new(permit));
        } else if self.is_planted(Planted::DoubleRelease) {
            permit.endpoint().shared.sessions.lower();
        } else {
            self.dropped = Some(permit);
        }
    }

    /// Takes bytes of a peer's stream from our socket.
    fn take(&mut self, side: Side, length: u64) -> Run {
        let attempt = if side == Side::Server { self.attempts } else { 0 };
        let peer = &mut self.peers[index(side)];
        assert!(peer.open, "{side:?} is read while it is not connected");
        let start = peer.taken;
        peer.taken += length;
        Run { session: self.number, from: side, attempt, start, length }
    }

    /// Bytes arrive at a peer: the next ones of the other's stream, or nothing is right.
    fn arrive(&mut self, side: Side, run: Run) {
        let attempt = if run.from == Side::Server { self.attempts } else { 0 };
        let header = self.peers[index(run.from)].header;
        let peer = &mut self.peers[index(side)];
        assert!(peer.open && !peer.saw_end, "{side:?} gets bytes after the end");
        let has_proxy_header = peer.has_proxy_header || side == Side::Client || !self.sends_proxy;
        assert!(has_proxy_header, "the server gets bytes before the PROXY header");
        let stream = (self.number, side.other(), attempt);
        assert_eq!((run.session, run.from, run.attempt), stream, "bytes of another stream");
        assert_eq!(run.start - header, peer.got, "{side:?}: out of order");
        peer.got += run.length;
        peer.unread += run.length;
    }

    fn arm(&mut self, operation: Operation) {
        let side = match operation {
            Operation::Receive(side) | Operation::Send(side) | Operation::Ready(side, _) => side,
            Operation::Connect => Side::Server,
        };
        assert!(self.closes[index(side)] < [1, self.attempts][index(side)], "{side:?} is closed");
        let before = self.armed.insert(operation.index(), (operation, false));
        assert!(before.is_none(), "{operation:?} is in flight twice");
    }
}
