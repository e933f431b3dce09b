//! A session: one client connection and its server connection, as a state machine without I/O.
//!
//! An [`Event`] and the time go in, operations on an [`Io`] come out. The worker runs it on its
//! ring; the simulation runs the same code on a model of the kernel. Each step of a session's life
//! is a file (`preface`, `queue`, `connect`, `relay`, `splice`, `close`): it handles the events of
//! its state and returns what comes next, and only this file enters a state.

use nix::errno::Errno;

use crate::proxy::io::{Event, Io, Operation, Operations};
use crate::proxy::pump::{Pump, PumpIo, Reached, Source};
use crate::proxy::rules::{Rules, Timeout};
use crate::proxy::state::{
    Attempt, Joining, Next, Outcome, PickError, Preface, Queued, Relaying, Route, State,
};
use crate::proxy::timer_wheel::Tick;
use crate::sys::ring::Readiness;
use crate::terms::{Direction, End, EndpointId, Reason, Side};

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
    pub(super) started: Tick,
    pub(super) route: Route,
    /// What the caller counts: at most one for each event.
    pub(super) outcome: Option<Outcome>,
    /// By [`Direction`]: bytes that were sent and not acknowledged when the connection was reset.
    pub(super) undelivered: [u32; 2],
}

impl Session {
    /// A client that has just been accepted.
    #[must_use]
    pub fn new(rules: Rules, now: Tick) -> Self {
        let state = match rules.preface_timeout {
            Timeout::NEVER => State::Routing,
            timeout => State::Preface(Preface::new(timeout.end(now))),
        };
        Self {
            state,
            in_flight: Operations::default(),
            pumps: Default::default(),
            rules,
            end: None,
            started: now,
            route: Route::new(),
            outcome: None,
            undelivered: [0; 2],
        }
    }

    /// Starts to receive from the client. To be called once, after the first server was chosen; if
    /// there is a preface, before that.
    pub fn start<I: Io>(&mut self, now: Tick, io: &mut I) {
        let next = self.read_preface(now, io);
        self.apply(next, now, io);
        self.advance(Direction::In, now, io);
        self.join(io);
    }

    /// Whether a server is to be chosen now.
    #[must_use]
    pub const fn needs_server(&self) -> bool {
        matches!(self.state, State::Routing)
    }

    /// Endpoints that have failed this session: others are preferred.
    #[must_use]
    pub fn tried(&self) -> &[EndpointId] {
        &self.route.tried
    }

    /// A server was chosen, or none could be.
    pub fn on_routed<I: Io>(&mut self, choice: Result<Attempt, PickError>, now: Tick, io: &mut I) {
        let next = self.connect_to(choice, now, io);
        self.apply(next, now, io);
        // Not before: a connect may take the client's first bytes along (TCP Fast Open).
        self.advance(Direction::In, now, io);
        self.settle(now, io);
    }

    /// Something happened.
    pub fn on<I: Io>(&mut self, event: Event, now: Tick, io: &mut I) {
        match event {
            Event::Connected(result) => {
                self.in_flight.remove(Operation::Connect);
                let next = self.on_connect_completed(result, now, io);
                self.apply(next, now, io);
            }
            Event::Received { side, bytes, more, left } => {
                let direction = direction_from(side);
                self.note_dropped(side, &bytes);
                let (pump, mut pump_io) = self.pump(direction, io);
                let reached = pump.on_received(&mut pump_io, bytes, (more, left));
                self.on_reached(direction, reached, now, io);
                self.advance(direction, now, io);
                if matches!(self.state, State::Queued(_)) && self.has_ended(Side::Client) {
                    let next = self.check_client(now, io);
                    self.apply(next, now, io);
                }
            }
            Event::Sent { side, buffer, bytes } => {
                let direction = direction_from(side.other());
                let (pump, mut pump_io) = self.pump(direction, io);
                let before = pump.delivered;
                let reached = pump.on_sent(&mut pump_io, buffer, bytes);
                self.note_progress(direction, before, now);
                self.on_reached(direction, reached, now, io);
                self.advance(direction, now, io);
            }
            Event::Ready(side, readiness) => {
                self.in_flight.remove(Operation::Ready(side, readiness));
                if readiness == Readiness::Writable {
                    self.pumps[direction_from(side.other()) as usize].has_room = true;
                }
                let next = self.on_ready(side, now, io);
                self.apply(next, now, io);
                for direction in Direction::BOTH {
                    self.advance(direction, now, io);
                }
            }
            Event::BufferFree(side) => {
                let direction = direction_from(side);
                self.pumps[direction as usize].waiting = false;
                self.advance(direction, now, io);
            }
            Event::BuffersStalled => self.on_buffers_stalled(io),
            Event::ServerFree => {
                let next = self.on_server_free();
                self.apply(next, now, io);
            }
            Event::Deadline => {
                if now >= self.deadline() {
                    let next = self.on_deadline(now, io);
                    self.apply(next, now, io);
                }
            }
        }
        self.settle(now, io);
    }

    /// Ends it now, for this reason; both sides are reset.
    pub fn stop<I: Io>(&mut self, end: End, now: Tick, io: &mut I) {
        self.apply(Next::abort(end), now, io);
        self.settle(now, io);
    }

    /// When [`Event::Deadline`] should come, if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Tick {
        match &self.state {
            State::Preface(preface) => preface.until.min(preface.look_at),
            State::Routing | State::Leaving => self.route.client_check_at,
            State::Queued(queued) => queued.until.min(self.route.client_check_at),
            State::Connecting(connecting) => connecting.until.min(self.route.client_check_at),
            State::Relaying(relaying) => self.relay_deadline(relaying),
            State::Flushing(flushing) => flushing.until,
            State::Lingering(lingering) => lingering.until,
            State::Joining(_) | State::Closed => Tick::NEVER,
        }
    }

    fn on_deadline<I: Io>(&mut self, now: Tick, io: &mut I) -> Next {
        match &self.state {
            State::Preface(_) => self.on_preface_deadline(now, io),
            State::Queued(queued) if now >= queued.until => {
                Next::abort(End::new(Reason::QueueTimeout, b"sQ"))
            }
            State::Connecting(connecting) if now >= connecting.until => self.end_attempt(io),
            State::Routing | State::Queued(_) | State::Connecting(_) | State::Leaving => {
                self.check_client(now, io)
            }
            State::Relaying(_) => self.on_relay_deadline(now, io),
            State::Flushing(_) => self.on_flush_step(now, io),
            State::Lingering(_) => self.done(),
            State::Joining(_) | State::Closed => Next::Stay,
        }
    }

    /// Enters the next state.
    fn apply<I: Io>(&mut self, next: Next, now: Tick, io: &mut I) {
        if matches!(self.state, State::Joining(_) | State::Closed) {
            return;
        }
        match next {
            Next::Stay => {}
            Next::Route => self.state = State::Routing,
            Next::Queue => {
                let until = self.rules.queue_timeout.end(now);
                self.state = State::Queued(Queued { until });
                let next = self.check_client(now, io);
                self.apply(next, now, io);
            }
            Next::Relay => {
                let with_syn = self.pumps[Direction::In as usize].delivered > 0;
                self.state = State::Relaying(Relaying::new(now, with_syn));
                for direction in Direction::BOTH {
                    self.advance(direction, now, io);
                }
            }
            Next::Leave(failure) => {
                self.outcome = Some(Outcome::ConnectFailed(failure));
                self.state = State::Leaving;
                self.cancel_server_operations(io);
            }
            Next::Flush(direction, end) => {
                self.end.get_or_insert(end);
                self.state = Self::flushing(direction, now);
                self.drop_pump(direction.opposite(), io);
                if self.pumps[direction as usize].is_finished() {
                    let next = self.on_flushed(io);
                    self.apply(next, now, io);
                } else {
                    self.advance(direction, now, io);
                }
            }
            Next::Linger(side) => {
                self.pumps[direction_from(side) as usize].finish();
                self.state = Self::lingering(side, now);
            }
            Next::Join(end, closing) => {
                self.end.get_or_insert(end);
                self.state = State::Joining(Joining { closing });
                self.begin_join(io);
            }
        }
    }

    /// What has to follow every event: another server once the last one is left, and the close once
    /// every operation has ended.
    fn settle<I: Io>(&mut self, now: Tick, io: &mut I) {
        if matches!(self.state, State::Leaving)
            && self.in_flight.and(Operations::OF_SERVER).is_empty()
        {
            self.close_failed_server(io);
            self.apply(Next::Route, now, io);
        }
        match &self.state {
            State::Lingering(lingering) => {
                let side = lingering.side;
                if self.drop_input(side, io) {
                    self.apply(self.done(), now, io);
                }
            }
            // A peer that cannot write may not read either: what it sends is dropped meanwhile.
            State::Flushing(flushing) => {
                let side = flushing.direction.sink();
                self.drop_input(side, io);
            }
            _ => {}
        }
        self.join(io);
    }

    /// Lets one pump do what it can, as far as the state allows it.
    fn advance<I: Io>(&mut self, direction: Direction, now: Tick, io: &mut I) {
        let may = match &mut self.state {
            State::Relaying(relaying) => {
                // From now on its source may be a socket that is not read.
                relaying.checked.get_or_insert(now);
                true
            }
            State::Flushing(flushing) => direction == flushing.direction,
            State::Preface(_) | State::Routing => false,
            State::Lingering(_) | State::Joining(_) | State::Closed => false,
            _ => direction == Direction::In,
        };
        if may {
            let (pump, mut pump_io) = self.pump(direction, io);
            let before = pump.delivered;
            let reached = pump.advance(&mut pump_io);
            self.note_progress(direction, before, now);
            self.on_reached(direction, reached, now, io);
        }
    }

    /// A pump, and what it works with.
    pub(super) const fn pump<'a, I>(
        &'a mut self,
        direction: Direction,
        io: &'a mut I,
    ) -> (&'a mut Pump, PumpIo<'a, I>) {
        let open = self.is_connected();
        let in_flight = &mut self.in_flight;
        (&mut self.pumps[direction as usize], PumpIo { direction, open, in_flight, io })
    }

    fn on_reached<I: Io>(&mut self, direction: Direction, reached: Reached, now: Tick, io: &mut I) {
        let next = match reached {
            Reached::Waiting => return,
            Reached::End if self.is_connected() => self.on_end(direction, now, io),
            Reached::End => self.check_client(now, io),
            Reached::SourceFailed(errno) => {
                self.pumps[direction as usize].source = Source::Reset;
                self.on_source_failed(direction, errno)
            }
            Reached::SinkFailed(errno) => self.on_sink_failed(direction, errno, now, io),
        };
        self.apply(next, now, io);
    }

    /// A socket is ready, which a state other than relaying may have waited for.
    fn on_ready<I: Io>(&mut self, side: Side, now: Tick, io: &mut I) -> Next {
        match (&self.state, side) {
            (State::Preface(_), Side::Client) => self.read_preface(now, io),
            (State::Connecting(_), Side::Server) => self.send_proxy_header(now, io),
            _ => Next::Stay,
        }
    }

    /// Reading from the source of a pump failed: it was reset (or timed out in its kernel).
    fn on_source_failed(&mut self, direction: Direction, errno: Errno) -> Next {
        match &self.state {
            State::Relaying(_) => self.relay_source_failed(direction, errno),
            State::Lingering(_) => self.done(),
            State::Flushing(flushing) if direction != flushing.direction => self.reset_both(),
            State::Flushing(_) | State::Joining(_) | State::Closed => Next::Stay,
            _ if direction == Direction::In => self.client_left(),
            _ => Next::Stay,
        }
    }

    /// Whether the server is connected, or was.
    pub(super) const fn is_connected(&self) -> bool {
        !matches!(
            self.state,
            State::Preface(_)
                | State::Routing
                | State::Queued(_)
                | State::Connecting(_)
                | State::Leaving
        )
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
        // The promise is 400 bytes of user memory for each session, with its sockets and its place
        // in the timer wheel.
        assert!(size_of::<Session>() <= 320, "{}", size_of::<Session>());
    }
}
