//! What a session asks of the kernel.

use std::collections::VecDeque;

use evenkeel::proxy::io::{Closing, First, Io, Operation, PrefaceRead};
use evenkeel::sys::buffer::{BUFFER_SIZE, BufferId, Supply};
use evenkeel::sys::buffer_queue::BufferLinks;
use evenkeel::sys::pipe::PipeId;
use evenkeel::sys::ring::Readiness;
use evenkeel::terms::{ConnectFailure, Side};
use nix::errno::Errno;

use super::{Peer, Run, Simulated, WINDOW, index};
use crate::fate::Planted;

const PIPE_SIZE: u64 = 64 * 1024;

/// Bytes that a SYN holds.
const EARLY_MAX: u64 = 1440;

impl Io for Simulated {
    fn receive(&mut self, side: Side, many: bool) {
        self.many[index(side)] = many && self.supply == Supply::Ample;
        self.arm(Operation::Receive(side));
    }

    fn send(&mut self, side: Side, buffer: BufferId, range: (u32, u32), last: bool) {
        assert!(!self.held_back[index(side)], "what was the last is followed by more");
        assert!(range.0 < range.1);
        assert!(u64::from(range.1) <= self.memory.contents[&buffer.index()].length);
        self.arm(Operation::Send(side));
        self.sending.insert(Operation::Send(side).index(), (buffer, range, last));
    }

    fn wait_ready(&mut self, side: Side, readiness: Readiness) {
        self.arm(Operation::Ready(side, readiness));
    }

    fn wait_for_buffer(&mut self, side: Side) {
        self.row.push_back(side);
    }

    fn connect(&mut self, first: First<'_>) -> Result<u32, ConnectFailure> {
        if self.fate.connects_fail > 0 && self.random.one_in(60) {
            return Err(ConnectFailure::Exhausted);
        }
        assert_eq!(self.closes[1], self.attempts, "the last server is closed before the next");
        assert!(!self.peers[0].saw_end, "a client that was told the end is given another server");
        self.attempts += 1;
        self.peers[index(Side::Server)] = Peer::default();
        self.connect_outcome = None;
        if self.fate.connects_fail > 0 && self.random.one_in(30) {
            return Err(ConnectFailure::NoSource);
        }
        self.hangs = self.fate.connects_fail > 0 && self.random.one_in(8);
        self.arm(Operation::Connect);
        self.early = self.early_bytes(first);
        Ok(self.early)
    }

    fn cancel(&mut self, operation: Operation) {
        if self.is_planted(Planted::LostCancel) {
            return;
        }
        if let Some((_, cancelled)) = self.armed.get_mut(&operation.index()) {
            *cancelled = true;
        }
    }

    fn read_preface(&mut self) -> PrefaceRead {
        self.look_at_preface()
    }

    fn send_proxy_header(&mut self, _: bool) -> Result<bool, Errno> {
        self.send_header()
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
        let run = self.memory.contents.get_mut(&buffer.index()).expect("the session holds it");
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
        self.early == 0 && self.fate.connects_fail > 0 && self.random.one_in(50)
    }

    fn has_closed(&mut self, side: Side) -> Option<bool> {
        let is_unix = side == Side::Client && self.fate.client_is_unix;
        is_unix.then(|| self.peers[0].ended && self.fate.client_closes || self.peers[0].reset)
    }

    fn ended_in_order(&mut self, side: Side) -> bool {
        self.peers[index(side)].ended
    }

    fn take_failure(&mut self, side: Side) -> Option<Errno> {
        let peer = &mut self.peers[index(side)];
        let is_new = peer.reset && !peer.reset_told;
        peer.reset_told |= is_new;
        is_new.then_some(Errno::ECONNRESET)
    }

    fn push(&mut self, side: Side) {
        self.held_back[index(side)] = false;
    }

    fn shut_down(&mut self, side: Side) {
        let other = &self.peers[index(side.other())];
        assert!(other.ended, "the end of {side:?} was made up");
        let relayed = other.said - other.header;
        assert_eq!(self.peers[index(side)].got, relayed, "the end overtakes bytes");
        self.peers[index(side)].saw_end = true;
        self.held_back[index(side)] = false;
    }

    fn close(&mut self, side: Side, how: Closing) {
        let how = if self.is_planted(Planted::OrderlyClose) { Closing::Orderly } else { how };
        if side == Side::Server {
            self.drop_permit();
        }
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
        let other = &self.peers[index(side.other())];
        let relayed = other.taken - other.header;
        let peer = &mut self.peers[index(side)];
        let whole = peer.got == relayed || !peer.open;
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
        &mut self.memory.links
    }

    fn release(&mut self, buffer: BufferId) {
        if !self.is_planted(Planted::LostBuffer) {
            self.memory.buffers.give_back(buffer);
        }
    }

    fn supply(&self) -> Supply {
        self.supply
    }

    fn take_pipe(&mut self) -> Option<PipeId> {
        if self.random.one_in(10) {
            return None;
        }
        let pipe = self.memory.pipe_ids.take()?;
        self.memory.pipes.insert(pipe.index(), VecDeque::new());
        Some(pipe)
    }

    fn give_back_pipe(&mut self, pipe: PipeId) {
        let runs = self.memory.pipes.remove(&pipe.index());
        assert!(runs.is_some_and(|runs| runs.is_empty()), "a pipe comes back empty");
        self.memory.pipe_ids.give_back(pipe);
    }

    fn discard_pipe(&mut self, pipe: PipeId) {
        self.memory.pipes.remove(&pipe.index());
        self.memory.pipe_ids.give_back(pipe);
    }

    fn fill(&mut self, pipe: &PipeId, side: Side) -> Result<usize, Errno> {
        let held: u64 = self.memory.pipes[&pipe.index()].iter().map(|run| run.length).sum();
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
        self.memory.pipes.get_mut(&pipe.index()).expect("a pipe is held").push_back(run);
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
        let runs = self.memory.pipes.get_mut(&pipe.index()).expect("a pipe is held");
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

impl Simulated {
    /// How many of the first bytes of the client go with the SYN.
    fn early_bytes(&mut self, first: First<'_>) -> u32 {
        let there = match first {
            First::Held(_, length) => u64::from(length),
            First::AtClient => {
                let client = &self.peers[0];
                assert_eq!(client.taken, client.header, "these are not the first bytes");
                client.said - client.header
            }
            First::Unknown => 0,
        };
        let most = if self.fate.fast_open { there.min(EARLY_MAX) } else { 0 };
        if self.random.one_in(3) { self.random.below(most + 1) as u32 } else { most as u32 }
    }
}
