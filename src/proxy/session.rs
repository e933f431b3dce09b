//! A session: one client connection and its server connection, as a state machine without I/O.
//!
//! An [`Event`] and the time go in, operations on a [`Kernel`] come out. The worker runs it on its
//! ring; the simulation in the tests runs the same code on a kernel that answers in every legal
//! order. The parts of its life are in `connect`, `relay`, `splice` and `close`.

use std::time::Duration;

use nix::errno::Errno;

use crate::proxy::kernel::{Closing, Event, Kernel, Operation, Operations};
use crate::proxy::pump::{Pump, Reached, Sink, Source, Wire};
use crate::proxy::wheel::Moment;
use crate::sys::ring::Readiness;
use crate::terms::{Direction, End, Reason, ServerId, Side};

/// What a session is held to; from its frontend and backend.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// No byte in either direction.
    pub idle_timeout: Duration,
    /// One direction has ended and the other is silent.
    pub half_closed_timeout: Duration,
    /// Attempts to connect after the first.
    pub retries: u32,
}

/// One client connection and its server connection.
#[derive(Debug)]
pub struct Session {
    pub(super) state: State,
    pub(super) in_flight: Operations,
    /// By [`Direction`].
    pub(super) pumps: [Pump; 2],
    pub(super) rules: Rules,
    /// Why it ended; the first cause wins.
    pub(super) end: Option<End>,
    pub(super) started: Moment,
    /// The last byte in either direction, or the last change of state.
    pub(super) progress: Moment,
    /// Which way the last byte went.
    pub(super) last: Option<Direction>,
    /// Bytes unacknowledged by client and server, half way to the idle timeout.
    pub(super) sample: Option<[u32; 2]>,
    /// The deadline of a state that has one of its own.
    pub(super) until: Moment,
    pub(super) attempt_started: Moment,
    /// The deadline of the attempt to connect.
    pub(super) attempt_until: Moment,
    /// From the first attempt to the established connection.
    pub(super) connect_took: Option<Duration>,
    /// Attempts to connect that were begun.
    pub(super) attempts: u32,
    /// Servers whose attempts failed.
    pub(super) tried: Vec<ServerId>,
    /// The server of the attempt in flight, or the one connected to.
    pub(super) server: Option<ServerId>,
}

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// An attempt to connect is in flight.
    Connecting,
    /// A server that failed is being left, until nothing of it is in flight; then the next.
    Leaving,
    /// Bytes go both ways.
    Relaying,
    /// One side was reset, and what it sent before is still being delivered this way; then the
    /// other side is reset.
    Flushing(Direction),
    /// Everything is said to this side, its end too; what it still sends is dropped, for a bounded
    /// time. A close with unread bytes would destroy what it has not read yet.
    Lingering(Side),
    /// Waiting for what the kernel still holds; then both are closed, client and server so.
    Joining(Closing, Closing),
    /// Nothing is held any more.
    Closed,
}

impl Session {
    /// A client has been accepted: its bytes are received and a server is connected to.
    pub fn begin<K: Kernel>(rules: Rules, now: Moment, kernel: &mut K) -> Self {
        let mut session = Self {
            state: State::Connecting,
            in_flight: Operations::default(),
            pumps: Default::default(),
            rules,
            end: None,
            started: now,
            progress: now,
            last: None,
            sample: None,
            until: Moment::NEVER,
            attempt_started: now,
            attempt_until: Moment::NEVER,
            connect_took: None,
            attempts: 0,
            tried: Vec::new(),
            server: None,
        };
        session.attempt(now, kernel);
        session.advance(Direction::In, now, kernel);
        session.join(kernel);
        session
    }

    /// Something happened.
    pub fn on<K: Kernel>(&mut self, event: Event, now: Moment, kernel: &mut K) {
        match event {
            Event::Connected(result) => {
                self.in_flight.remove(Operation::Connect);
                self.on_connected(result, now, kernel);
            }
            Event::Received { side, bytes, more, left } => {
                let direction = direction_from(side);
                let (pump, mut wire) = self.pump(direction, kernel);
                let reached = pump.on_received(&mut wire, bytes, (more, left));
                self.on_reached(direction, reached, now, kernel);
                self.advance(direction, now, kernel);
            }
            Event::Sent { side, buffer, bytes } => {
                let direction = direction_from(side.other());
                let (pump, mut wire) = self.pump(direction, kernel);
                let before = pump.delivered;
                let reached = pump.on_sent(&mut wire, buffer, bytes);
                self.note_progress(direction, before, now);
                self.on_reached(direction, reached, now, kernel);
                self.advance(direction, now, kernel);
            }
            Event::Ready(side, readiness) => {
                self.in_flight.remove(Operation::Ready(side, readiness));
                if readiness == Readiness::Writable {
                    self.pumps[direction_from(side.other()) as usize].has_room = true;
                }
                for direction in Direction::BOTH {
                    self.advance(direction, now, kernel);
                }
            }
            Event::BufferFree(side) => {
                let direction = direction_from(side);
                self.pumps[direction as usize].waiting = false;
                self.advance(direction, now, kernel);
            }
            Event::Deadline => self.on_deadline(now, kernel),
        }
        self.after_event(now, kernel);
    }

    /// Ends it now, for this reason: an operator, or the deadline of a drain. Both are reset.
    pub fn stop<K: Kernel>(&mut self, end: End, now: Moment, kernel: &mut K) {
        self.finish(end, Closing::Abort, Closing::Abort, kernel);
        self.after_event(now, kernel);
    }

    /// When [`Event::Deadline`] should come, if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Moment {
        match self.state {
            State::Connecting => self.until.min(self.attempt_until),
            State::Relaying => self.relaying_deadline(),
            State::Joining(..) | State::Closed => Moment::NEVER,
            _ => self.until,
        }
    }

    /// Whether nothing is held any more: no descriptor, buffer, pipe or operation.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Buffers that hold its bytes.
    #[must_use]
    pub fn buffers_held(&self) -> u32 {
        self.pumps.iter().map(|pump| u32::from(pump.buffers_held())).sum()
    }

    /// The last byte in either direction, or the last change of state.
    #[must_use]
    pub const fn progress(&self) -> Moment {
        self.progress
    }

    /// Ends it for want of buffers: it holds some, and has moved nothing for longer than others.
    pub fn shed<K: Kernel>(&mut self, now: Moment, kernel: &mut K) {
        let connected = !matches!(self.state, State::Connecting | State::Leaving);
        let letters = if connected { b"RD" } else { b"RC" };
        self.stop(End::new(Reason::Exhausted, letters), now, kernel);
    }

    /// Where it is in its life.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// What the kernel still has to answer.
    #[must_use]
    pub const fn in_flight(&self) -> Operations {
        self.in_flight
    }

    /// How it ended; none while it lives.
    #[must_use]
    pub const fn end(&self) -> Option<End> {
        self.end
    }

    /// When the client was accepted.
    #[must_use]
    pub const fn started(&self) -> Moment {
        self.started
    }

    /// From the first attempt to the established connection; none if there was none.
    #[must_use]
    pub const fn connect_took(&self) -> Option<Duration> {
        self.connect_took
    }

    /// Attempts that were made after the first.
    #[must_use]
    pub const fn retries(&self) -> u32 {
        self.attempts.saturating_sub(1)
    }

    /// Bytes delivered this way.
    #[must_use]
    pub const fn delivered(&self, direction: Direction) -> u64 {
        self.pumps[direction as usize].delivered
    }

    /// Lets one pump do what it can, as far as the state allows it.
    pub(super) fn advance<K: Kernel>(&mut self, direction: Direction, now: Moment, kernel: &mut K) {
        let may = match self.state {
            State::Connecting | State::Leaving => direction == Direction::In,
            State::Relaying => true,
            State::Flushing(flushed) => direction == flushed,
            State::Lingering(_) | State::Joining(..) | State::Closed => false,
        };
        if may {
            let (pump, mut wire) = self.pump(direction, kernel);
            let before = pump.delivered;
            let reached = pump.advance(&mut wire);
            self.note_progress(direction, before, now);
            self.on_reached(direction, reached, now, kernel);
        }
    }

    /// A pump and what it works with.
    pub(super) const fn pump<'a, K>(
        &'a mut self,
        direction: Direction,
        kernel: &'a mut K,
    ) -> (&'a mut Pump, Wire<'a, K>) {
        let open = !matches!(self.state, State::Connecting | State::Leaving);
        let in_flight = &mut self.in_flight;
        (&mut self.pumps[direction as usize], Wire { direction, open, in_flight, kernel })
    }

    fn on_reached<K: Kernel>(
        &mut self,
        direction: Direction,
        reached: Reached,
        now: Moment,
        kernel: &mut K,
    ) {
        match reached {
            Reached::Waiting => {}
            Reached::End => self.on_end(direction, now, kernel),
            Reached::SourceFailed(errno) => self.on_source_failed(direction, errno, now, kernel),
            Reached::SinkFailed(errno) => self.on_sink_failed(direction, errno, now, kernel),
        }
    }

    /// A pump has delivered the end of its source, or all that came before a reset.
    fn on_end<K: Kernel>(&mut self, direction: Direction, now: Moment, kernel: &mut K) {
        if let State::Flushing(_) = self.state {
            self.on_flushed(direction, now, kernel);
            return;
        }
        if self.state != State::Relaying {
            self.on_end_while_connecting(now);
            return;
        }
        debug_assert!(self.pumps[direction as usize].source == Source::Ended);
        // A reset leaves an end as well, once a send has taken its error from the socket: one that
        // failed, or one that is in flight and whose answer is not known yet.
        let source = direction.source();
        let broken = self.pumps[direction.opposite() as usize].sink == Sink::Broken;
        let doubtful = broken || self.in_flight.contains(Operation::Send(source));
        if doubtful && !kernel.ended_in_order(source) {
            self.on_source_failed(direction, Errno::ECONNRESET, now, kernel);
            return;
        }
        self.pumps[direction as usize].finish();
        self.progress = now;
        self.sample = None;
        let other = &self.pumps[direction.opposite() as usize];
        if !other.is_finished() {
            kernel.shut_down(direction.sink());
        } else if other.sink == Sink::Broken {
            kernel.shut_down(direction.sink());
            self.linger(direction.sink(), now, kernel);
        } else {
            // The close that follows carries this end too.
            self.finish_done(kernel);
        }
    }

    /// What has to follow every event: the next server once the last is left, the close once
    /// everything is answered.
    fn after_event<K: Kernel>(&mut self, now: Moment, kernel: &mut K) {
        if self.state == State::Leaving && self.in_flight.and(Operations::OF_SERVER).is_empty() {
            kernel.close(Side::Server, Closing::Abort);
            // What the broken server had begun to say was never passed on.
            let (pump, mut wire) = self.pump(Direction::Out, kernel);
            pump.drop_unsent(&mut wire);
            *pump = Pump::default();
            self.attempt(now, kernel);
        }
        if let State::Lingering(side) = self.state {
            self.drop_input(side, kernel);
        }
        self.join(kernel);
    }

    fn note_progress(&mut self, direction: Direction, before: u64, now: Moment) {
        if self.pumps[direction as usize].delivered != before {
            self.progress = now;
            self.last = Some(direction);
            self.sample = None;
        }
    }
}

/// The direction whose source this side is.
pub(super) const fn direction_from(side: Side) -> Direction {
    match side {
        Side::Client => Direction::In,
        Side::Server => Direction::Out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_session_is_a_small_piece_of_memory() {
        // The promise is 1 KiB of user memory a session, its legs and its place in the wheel too.
        assert!(size_of::<Session>() <= 320, "{}", size_of::<Session>());
    }
}
