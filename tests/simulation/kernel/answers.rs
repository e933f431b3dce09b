//! How the kernel answers what is in flight: short counts, buffers that run out, errors, and
//! cancels that come too late.

use evenkeel::proxy::io::{Event, Operation};
use evenkeel::sys::buffer::BUFFER_SIZE;
use evenkeel::sys::ring::Readiness;
use evenkeel::terms::{ConnectFailure, Side};
use nix::errno::Errno;

use super::{Run, Simulated, WINDOW, index};
use crate::fate::Planted;

impl Simulated {
    pub(super) fn kernel_answers(&mut self) -> Option<Event> {
        if !self.row.is_empty() && self.memory.buffers.free() > 0 && self.random.one_in(2) {
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
            let buffer = if emptied { None } else { self.memory.buffers.take() };
            let Some(buffer) = buffer else {
                self.starved += 1;
                self.done(operation);
                return received(Err(Errno::ENOBUFS), false);
            };
            let most = waiting.min(BUFFER_SIZE as u64);
            let length = if self.random.one_in(3) { self.random.below(most) + 1 } else { most };
            let run = self.take(side, length);
            self.memory.contents.insert(buffer.index(), run);
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
        let (run, from, to, last) = (self.memory.contents[&buffer.index()], *from, *to, *last);
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

    pub(super) fn send_error(&mut self, side: Side) -> Option<Errno> {
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
            Readiness::Readable if self.preface_seen.is_some() => self.preface_may_go_on(),
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
            _ if cancelled && (self.hangs || self.early > 0 || self.random.one_in(2)) => {
                Err(ConnectFailure::Timeout)
            }
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
        let (session, length) = (self.number, u64::from(self.early));
        if length > 0 {
            let start = self.peers[index(Side::Client)].header;
            let early = Run { session, from: Side::Client, attempt: 0, start, length };
            self.arrive(Side::Server, early);
            self.early_total += length;
        }
        Ok(())
    }
}
