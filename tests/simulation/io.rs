//! The model of the kernel: two peers, sockets with small windows, and operations that complete
//! when and how a seed decides.
//!
//! Bytes are not stored: a stream is its name and an offset, so that a run of bytes is checked by
//! arithmetic. Whatever arrives must be the next byte of the stream it should come from.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use evenkeel::proxy::io::{Closing, Event, InvalidPreface, Io, Operation};
use evenkeel::proxy::session::Session;
use evenkeel::proxy::state::State;
use evenkeel::proxy::state::{Attempt, PickError};
use evenkeel::sys::buffer::{BUFFER_SIZE, Buffer, BufferId, Supply};
use evenkeel::sys::buffer_queue::BufferLinks;
use evenkeel::sys::ids::IdPool;
use evenkeel::sys::pipe::{Pipe, PipeId};
use evenkeel::sys::ring::Readiness;
use evenkeel::terms::{ConnectFailure, EndpointId, ServerId, Side};
use nix::errno::Errno;

use crate::random::Random;

const BUFFERS: u16 = 5;
const PIPES: u16 = 2;
const PIPE_SIZE: u64 = 64 * 1024;
const WINDOW: u64 = 40_000;

/// A fault between the session and the kernel, which the assertions have to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    /// A buffer that the session gives back is lost.
    LostBuffer,
    /// A session that waits for a buffer is not told of it.
    LostWakeUp,
    /// A reset is an orderly close: a FIN behind bytes that were dropped.
    OrderlyClose,
    /// A send that was taken is reported as one byte longer.
    WrongCount,
    /// Nobody cancels what is in flight at the end.
    LostCancel,
}

impl Planted {
    pub(crate) const ALL: [Self; 5] = [
        Self::LostBuffer,
        Self::LostWakeUp,
        Self::OrderlyClose,
        Self::WrongCount,
        Self::LostCancel,
    ];
}

/// What the peers are going to do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fate {
    pub(crate) client_says: u64,
    pub(crate) server_says: u64,
    pub(crate) client_resets_after: Option<u64>,
    pub(crate) server_resets_after: Option<u64>,
    pub(crate) client_stays_open: bool,
    pub(crate) server_stays_open: bool,
    pub(crate) client_stops_reading: bool,
    pub(crate) server_stops_reading: bool,
    /// The server goes with its end: what is sent to it after that is refused.
    pub(crate) server_leaves: bool,
    /// One in so many attempts to connect fails; 0: none.
    pub(crate) connects_fail: u64,
    /// A fault of the program, for the test of the tests.
    pub(crate) planted: Option<Planted>,
    /// There may be no room on any server.
    pub(crate) servers_are_full: bool,
    /// Once there is none, there never is.
    pub(crate) servers_stay_full: bool,
    /// The client sends no preface.
    pub(crate) preface_is_missing: bool,
    /// The client does not send what a preface has to be.
    pub(crate) preface_is_invalid: bool,
}

impl Fate {
    /// Both say something and end in order.
    pub(crate) fn orderly(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0xfa7e);
        let much = |random: &mut Random| match random.below(4) {
            0 => 0,
            1 => random.below(200),
            2 => random.below(20_000),
            _ => random.below(400_000),
        };
        Self { client_says: much(&mut random), server_says: much(&mut random), ..Self::default() }
    }

    /// Anything may go wrong.
    pub(crate) fn disorderly(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0xd150);
        let mut fate = Self::orderly(seed);
        let mut sometimes = |n| random.one_in(n);
        fate.client_stays_open = sometimes(4);
        fate.server_stays_open = sometimes(4);
        fate.client_stops_reading = sometimes(8);
        fate.server_stops_reading = sometimes(8);
        fate.server_leaves = sometimes(4);
        let (client_resets, server_resets) = (sometimes(4), sometimes(4));
        fate.client_resets_after = client_resets.then(|| random.below(fate.client_says + 1));
        fate.server_resets_after = server_resets.then(|| random.below(fate.server_says + 1));
        fate.connects_fail = random.below(4);
        fate.servers_are_full = random.one_in(4);
        fate.servers_stay_full = random.one_in(4);
        fate.preface_is_missing = random.one_in(16);
        fate.preface_is_invalid = random.one_in(16);
        fate
    }
}

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
    /// Bytes that our kernel holds for it.
    unread: u64,
    open: bool,
}

/// A run of bytes of the stream of a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    from: Side,
    attempt: u64,
    start: u64,
    length: u64,
}

#[derive(Debug)]
pub(crate) struct Simulated {
    random: Random,
    fate: Fate,
    peers: [Peer; 2],
    armed: BTreeMap<u8, (Operation, bool)>,
    sending: BTreeMap<u8, (BufferId, (u32, u32), bool)>,
    /// The last bytes for each side wait for the end, which must follow at once.
    held_back: [bool; 2],
    row: VecDeque<Side>,
    links: BufferLinks,
    buffers: IdPool<Buffer>,
    contents: BTreeMap<u16, Run>,
    pipe_ids: IdPool<Pipe>,
    /// What is in the pipes that are held.
    pipes: BTreeMap<u16, VecDeque<Run>>,
    supply: Supply,
    /// Whether the receive of each side goes on by itself.
    many: [bool; 2],
    connect_outcome: Option<Result<(), ConnectFailure>>,
    /// The attempt is answered by nobody.
    hangs: bool,
    pub(crate) attempts: u64,
    pub(crate) spliced: u64,
    pub(crate) starved: u64,
    closes: [u64; 2],
}

fn index(side: Side) -> usize {
    side as usize
}

impl Simulated {
    pub(crate) fn new(random: Random, fate: Fate) -> Self {
        let client = Peer { open: true, ..Peer::default() };
        Self {
            random,
            fate,
            peers: [client, Peer::default()],
            armed: BTreeMap::new(),
            sending: BTreeMap::new(),
            held_back: [false; 2],
            row: VecDeque::new(),
            links: BufferLinks::new(BUFFERS),
            buffers: IdPool::new(BUFFERS),
            contents: BTreeMap::new(),
            pipe_ids: IdPool::new(PIPES),
            pipes: BTreeMap::new(),
            supply: Supply::Ample,
            many: [false; 2],
            connect_outcome: None,
            hangs: false,
            attempts: 0,
            spliced: 0,
            starved: 0,
            closes: [0; 2],
        }
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
        Ok(Attempt { endpoint, timeout: Duration::from_millis(100) })
    }

    /// Nothing is held, in flight or left open after the end.
    pub(crate) fn assert_all_returned(&self, session: &Session) {
        assert!(session.in_flight().is_empty() && self.armed.is_empty(), "in flight: {self:?}");
        assert_eq!(self.buffers.free(), usize::from(BUFFERS), "buffers: {self:?}");
        assert_eq!(self.pipe_ids.free(), usize::from(PIPES), "pipes: {self:?}");
        assert_eq!(self.closes, [1, self.attempts], "closes: {self:?}");
    }

    /// Something that can happen, happens; none when nothing can.
    pub(crate) fn step(&mut self, session: &Session) -> Option<Event> {
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
            self.supply = supplies[self.random.below(4) as usize];
        }
        for _ in 0..64 {
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

    fn peer_acts(&mut self, side: Side) {
        let (says, resets_after, stays_open, stops_reading) = match side {
            Side::Client => (
                self.fate.client_says,
                self.fate.client_resets_after,
                self.fate.client_stays_open,
                self.fate.client_stops_reading,
            ),
            Side::Server => (
                self.fate.server_says,
                self.fate.server_resets_after,
                self.fate.server_stays_open,
                self.fate.server_stops_reading,
            ),
        };
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
        let limit = resets_after.unwrap_or(says).min(says);
        if peer.said < limit {
            peer.said += piece.min(limit - peer.said).min(WINDOW);
        } else if resets_after.is_some() {
            peer.reset = true;
        } else if !stays_open {
            peer.ended = true;
        }
    }

    /// What the worker tells the session, not the kernel.
    fn worker_tells(&mut self, session: &Session) -> Option<Event> {
        match session.state() {
            State::Preface(_) if !self.fate.preface_is_missing && self.random.one_in(4) => {
                let invalid = self.fate.preface_is_invalid;
                Some(Event::PrefaceRead(if invalid { Err(InvalidPreface) } else { Ok(()) }))
            }
            State::Queued(_) if !self.fate.servers_stay_full && self.random.one_in(4) => {
                Some(Event::ServerFree)
            }
            _ => None,
        }
    }

    fn kernel_answers(&mut self) -> Option<Event> {
        if !self.row.is_empty() && self.buffers.free() > 0 && self.random.one_in(2) {
            let side = self.row.pop_front();
            return side.filter(|_| !self.is_planted(Planted::LostWakeUp)).map(Event::BufferFree);
        }
        let choice = self.random.below(self.armed.len() as u64) as usize;
        let (operation, cancelled) = *self.armed.values().nth(choice)?;
        match operation {
            Operation::Receive(side) => self.answer_receive(side, cancelled),
            Operation::Send(side) => self.answer_send(side, cancelled),
            Operation::Ready(side, readiness) => self.answer_ready(side, readiness, cancelled),
            Operation::Connect => self.answer_connect(cancelled),
        }
    }

    fn done(&mut self, operation: Operation) {
        assert!(self.armed.remove(&operation.index()).is_some(), "{operation:?} answers once");
    }

    fn answer_receive(&mut self, side: Side, cancelled: bool) -> Option<Event> {
        let operation = Operation::Receive(side);
        let waiting = self.peers[index(side)].said - self.peers[index(side)].taken;
        let received = |bytes, more| Some(Event::Received { side, bytes, more, left: false });
        if cancelled && self.random.one_in(2) {
            self.done(operation);
            return received(Err(Errno::ECANCELED), false);
        }
        if waiting > 0 {
            // Other sessions may have emptied the ring a moment ago.
            let emptied = self.random.one_in(20);
            let buffer = if emptied { None } else { self.buffers.take() };
            let Some(buffer) = buffer else {
                self.starved += 1;
                self.done(operation);
                return received(Err(Errno::ENOBUFS), false);
            };
            let most = waiting.min(BUFFER_SIZE as u64);
            let length = if self.random.one_in(3) { self.random.below(most) + 1 } else { most };
            let run = self.take(side, length);
            self.contents.insert(buffer.index(), run);
            let more = self.many[index(side)] && !self.random.one_in(10);
            if !more {
                self.done(operation);
            }
            let peer = &self.peers[index(side)];
            let left = peer.said > peer.taken || peer.ended || peer.reset;
            let bytes = Ok(Some((buffer, length as u32)));
            // A hint may be missing, and the kernel may be wrong about what it hints at.
            let left = if self.random.one_in(4) { !left } else { left };
            return Some(Event::Received { side, bytes, more, left });
        }
        let peer = &mut self.peers[index(side)];
        if peer.reset && !peer.reset_told {
            peer.reset_told = true;
            self.done(operation);
            return received(Err(Errno::ECONNRESET), false);
        }
        if peer.ended || peer.reset {
            self.done(operation);
            return received(Ok(None), false);
        }
        None
    }

    fn answer_send(&mut self, side: Side, cancelled: bool) -> Option<Event> {
        let operation = Operation::Send(side);
        let (buffer, (from, to), last) = &self.sending[&operation.index()];
        let (run, from, to, last) = (self.contents[&buffer.index()], *from, *to, *last);
        let room = WINDOW - self.peers[index(side)].unread.min(WINDOW);
        if let Some(errno) = self.send_error(side) {
            return self.sent(side, Err(errno));
        }
        if cancelled && (room == 0 || self.random.one_in(2)) {
            return self.sent(side, Err(Errno::ECANCELED));
        }
        if room == 0 {
            return None;
        }
        let most = u64::from(to - from).min(room);
        let length = if self.random.one_in(3) { self.random.below(most) + 1 } else { most };
        self.arrive(side, Run { start: run.start + u64::from(from), length, ..run });
        self.held_back[index(side)] = last && length == u64::from(to - from);
        self.sent(side, Ok(length as u32 + u32::from(self.is_planted(Planted::WrongCount))))
    }

    /// A send is done, and its buffer comes back.
    fn sent(&mut self, side: Side, bytes: Result<u32, Errno>) -> Option<Event> {
        let operation = Operation::Send(side);
        self.done(operation);
        let (buffer, ..) = self.sending.remove(&operation.index())?;
        Some(Event::Sent { side, buffer, bytes })
    }

    fn send_error(&mut self, side: Side) -> Option<Errno> {
        let peer = &mut self.peers[index(side)];
        if side == Side::Server && self.fate.server_leaves && peer.ended {
            return Some(Errno::EPIPE);
        }
        if !peer.reset {
            return None;
        }
        let told = std::mem::replace(&mut peer.reset_told, true);
        Some(if told || peer.ended { Errno::EPIPE } else { Errno::ECONNRESET })
    }

    fn answer_ready(&mut self, side: Side, readiness: Readiness, cancelled: bool) -> Option<Event> {
        let peer = &self.peers[index(side)];
        let ready = match readiness {
            Readiness::Readable => peer.said > peer.taken || peer.ended || peer.reset,
            Readiness::Writable => peer.unread < WINDOW || peer.reset,
        };
        (ready || cancelled).then(|| {
            self.done(Operation::Ready(side, readiness));
            Event::Ready(side, readiness)
        })
    }

    fn answer_connect(&mut self, cancelled: bool) -> Option<Event> {
        let outcome = match self.connect_outcome {
            // It may have been quicker than its cancel.
            _ if cancelled && (self.hangs || self.random.one_in(2)) => Err(ConnectFailure::Timeout),
            _ if self.hangs => return None,
            None if self.random.one_in(4) => self.decide_connect(),
            None => return None,
            Some(outcome) => outcome,
        };
        self.done(Operation::Connect);
        self.connect_outcome = None;
        Some(Event::Connected(outcome))
    }

    fn decide_connect(&mut self) -> Result<(), ConnectFailure> {
        let fails = self.fate.connects_fail > 0 && self.random.one_in(self.fate.connects_fail);
        if fails {
            let which = self.random.below(ConnectFailure::ALL.len() as u64) as usize;
            return Err(ConnectFailure::ALL[which]);
        }
        self.peers[index(Side::Server)].open = true;
        Ok(())
    }

    /// Takes bytes of a peer's stream from our socket.
    fn take(&mut self, side: Side, length: u64) -> Run {
        let attempt = if side == Side::Server { self.attempts } else { 0 };
        let peer = &mut self.peers[index(side)];
        assert!(peer.open, "{side:?} is read while it is not connected");
        let start = peer.taken;
        peer.taken += length;
        Run { from: side, attempt, start, length }
    }

    /// Bytes arrive at a peer: the next ones of the other's stream, or nothing is right.
    fn arrive(&mut self, side: Side, run: Run) {
        let attempt = if run.from == Side::Server { self.attempts } else { 0 };
        let peer = &mut self.peers[index(side)];
        assert!(peer.open && !peer.saw_end, "{side:?} gets bytes after the end");
        assert_eq!((run.from, run.attempt), (side.other(), attempt), "bytes of a stranger");
        assert_eq!(run.start, peer.got, "{side:?}: out of order");
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

impl Io for Simulated {
    fn receive(&mut self, side: Side, many: bool) {
        self.many[index(side)] = many && self.supply == Supply::Ample;
        self.arm(Operation::Receive(side));
    }

    fn send(&mut self, side: Side, buffer: BufferId, range: (u32, u32), last: bool) {
        assert!(!self.held_back[index(side)], "what was the last is followed by more");
        assert!(range.0 < range.1);
        assert!(u64::from(range.1) <= self.contents[&buffer.index()].length);
        self.arm(Operation::Send(side));
        self.sending.insert(Operation::Send(side).index(), (buffer, range, last));
    }

    fn wait_ready(&mut self, side: Side, readiness: Readiness) {
        self.arm(Operation::Ready(side, readiness));
    }

    fn wait_for_buffer(&mut self, side: Side) {
        self.row.push_back(side);
    }

    fn connect(&mut self) -> Result<(), Errno> {
        if self.fate.connects_fail > 0 && self.random.one_in(60) {
            return Err(Errno::EMFILE);
        }
        assert_eq!(self.closes[1], self.attempts, "the last server is closed before the next");
        assert!(!self.peers[0].saw_end, "a client that was told the end is given another server");
        self.attempts += 1;
        self.peers[index(Side::Server)] = Peer::default();
        self.connect_outcome = None;
        self.hangs = self.fate.connects_fail > 0 && self.random.one_in(8);
        self.arm(Operation::Connect);
        Ok(())
    }

    fn cancel(&mut self, operation: Operation) {
        if self.is_planted(Planted::LostCancel) {
            return;
        }
        if let Some((_, cancelled)) = self.armed.get_mut(&operation.index()) {
            *cancelled = true;
        }
    }

    fn receive_rest(&mut self, side: Side, buffer: &BufferId, filled: u32) -> Result<u32, Errno> {
        if self.has_ended(side)? {
            return Ok(0);
        }
        let peer = &self.peers[index(side)];
        let most = (peer.said - peer.taken).min(BUFFER_SIZE as u64 - u64::from(filled));
        if most == 0 || self.random.one_in(4) {
            return Err(Errno::EAGAIN);
        }
        let length = 1 + self.random.below(most);
        let rest = self.take(side, length);
        let run = self.contents.get_mut(&buffer.index()).expect("the session holds it");
        assert_eq!((run.length, run.start + run.length), (u64::from(filled), rest.start));
        run.length += length;
        Ok(length as u32)
    }

    fn has_ended(&mut self, side: Side) -> Result<bool, Errno> {
        assert!(!self.armed.contains_key(&Operation::Receive(side).index()), "two who read");
        let peer = &mut self.peers[index(side)];
        if peer.said > peer.taken {
            return Ok(false);
        }
        if peer.reset && !peer.reset_told {
            peer.reset_told = true;
            return Err(Errno::ECONNRESET);
        }
        Ok(peer.ended || peer.reset)
    }

    fn is_connected_to_itself(&mut self) -> bool {
        self.fate.connects_fail > 0 && self.random.one_in(50)
    }

    fn ended_in_order(&mut self, side: Side) -> bool {
        self.peers[index(side)].ended
    }

    fn push(&mut self, side: Side) {
        self.held_back[index(side)] = false;
    }

    fn shut_down(&mut self, side: Side) {
        let other = &self.peers[index(side.other())];
        assert!(other.ended, "the end of {side:?} was made up");
        assert_eq!(self.peers[index(side)].got, other.said, "the end overtakes bytes");
        self.peers[index(side)].saw_end = true;
        self.held_back[index(side)] = false;
    }

    fn close(&mut self, side: Side, how: Closing) {
        let how = if self.is_planted(Planted::OrderlyClose) { Closing::Orderly } else { how };
        if self.closes[index(side)] == [1, self.attempts][index(side)] {
            return;
        }
        for (operation, _) in self.armed.values() {
            let of_side = match operation {
                Operation::Receive(of) | Operation::Send(of) | Operation::Ready(of, _) => *of,
                Operation::Connect => Side::Server,
            };
            assert_ne!(of_side, side, "{operation:?} is in flight on what is closed");
        }
        self.closes[index(side)] += 1;
        self.held_back[index(side)] = false;
        let other_taken = self.peers[index(side.other())].taken;
        let peer = &mut self.peers[index(side)];
        let whole = peer.got == other_taken || !peer.open;
        assert!(how == Closing::Abort || whole, "{side:?} is told the end, and bytes were dropped");
        peer.open = false;
        if how == Closing::Abort {
            peer.saw_reset = true;
        }
    }

    fn unacknowledged(&self, side: Side) -> u32 {
        self.peers[index(side)].unread as u32
    }

    fn links(&mut self) -> &mut BufferLinks {
        &mut self.links
    }

    fn release(&mut self, buffer: BufferId) {
        if !self.is_planted(Planted::LostBuffer) {
            self.buffers.give_back(buffer);
        }
    }

    fn supply(&self) -> Supply {
        self.supply
    }

    fn take_pipe(&mut self) -> Option<PipeId> {
        if self.random.one_in(10) {
            return None;
        }
        let pipe = self.pipe_ids.take()?;
        self.pipes.insert(pipe.index(), VecDeque::new());
        Some(pipe)
    }

    fn give_back_pipe(&mut self, pipe: PipeId) {
        let runs = self.pipes.remove(&pipe.index());
        assert!(runs.is_some_and(|runs| runs.is_empty()), "a pipe comes back empty");
        self.pipe_ids.give_back(pipe);
    }

    fn discard_pipe(&mut self, pipe: PipeId) {
        self.pipes.remove(&pipe.index());
        self.pipe_ids.give_back(pipe);
    }

    fn fill(&mut self, pipe: &PipeId, side: Side) -> Result<usize, Errno> {
        let held: u64 = self.pipes[&pipe.index()].iter().map(|run| run.length).sum();
        let room = PIPE_SIZE.saturating_sub(held);
        let peer = &mut self.peers[index(side)];
        let waiting = peer.said - peer.taken;
        if waiting == 0 {
            if peer.reset && !peer.reset_told {
                peer.reset_told = true;
                return Err(Errno::ECONNRESET);
            }
            return if peer.ended || peer.reset { Ok(0) } else { Err(Errno::EAGAIN) };
        }
        if room == 0 {
            return Err(Errno::EAGAIN);
        }
        let length = 1 + self.random.below(waiting.min(room));
        let run = self.take(side, length);
        self.pipes.get_mut(&pipe.index()).expect("a pipe is held").push_back(run);
        Ok(length as usize)
    }

    fn drain(&mut self, pipe: &PipeId, side: Side, pending: usize) -> Result<usize, Errno> {
        let peer = &self.peers[index(side)];
        let room = WINDOW - peer.unread.min(WINDOW);
        // Of the several sends of a splice a later one takes the error, and the first counts. So
        // something is left to be sent.
        let may_hide = peer.reset && !peer.reset_told && room > 0 && pending > 1;
        let hides = may_hide && self.random.one_in(2);
        if let Some(errno) = self.send_error(side)
            && !hides
        {
            return Err(errno);
        }
        if room == 0 {
            return Err(Errno::EAGAIN);
        }
        let runs = self.pipes.get_mut(&pipe.index()).expect("a pipe is held");
        let mut run = runs.pop_front().expect("a drained pipe holds bytes");
        let most = if hides { pending - 1 } else { pending };
        let length = run.length.min(room).min(most as u64);
        if length < run.length {
            runs.push_front(Run { start: run.start + length, length: run.length - length, ..run });
        }
        run.length = length;
        self.arrive(side, run);
        self.spliced += length;
        Ok(length as usize)
    }
}
