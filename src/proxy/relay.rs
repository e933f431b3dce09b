//! Relaying: the end of each direction, failures of either side, and the timeouts of silence. How
//! the bytes themselves are moved is in `copy` and `splice`.

use nix::errno::Errno;

use crate::proxy::io::{Io, Operation};
use crate::proxy::pump::{Sink, Source};
use crate::proxy::rules::{Rules, Timeout};
use crate::proxy::session::{Session, direction_from};
use crate::proxy::state::{Next, Relaying, State};
use crate::proxy::timer_wheel::Tick;
use crate::sys::ring::Readiness;
use crate::terms::{ConnectFailure, Direction, End, Reason, Side};

impl Session {
    /// A pump has delivered the end of its source, or everything that came before a reset.
    pub(super) fn on_end<I: Io>(&mut self, direction: Direction, now: Tick, io: &mut I) -> Next {
        let State::Relaying(relaying) = &mut self.state else { return self.on_flushed(io) };
        // A reset leaves an end as well, once a send has taken its error from the socket: one that
        // failed, or one that is in flight and has not completed yet.
        let (source, sink) = (direction.source(), direction.sink());
        let other = self.pumps[direction.opposite() as usize].sink;
        let doubtful = other == Sink::Broken || self.in_flight.contains(Operation::Send(source));
        if doubtful && !io.ended_in_order(source) {
            self.pumps[direction as usize].source = Source::Reset;
            return self.relay_source_failed(direction, Errno::ECONNRESET);
        }
        relaying.restart(now);
        self.pumps[direction as usize].finish();
        match other {
            Sink::Open => {
                io.shut_down(sink);
                Next::Stay
            }
            Sink::Broken => {
                io.shut_down(sink);
                Next::Linger(sink)
            }
            // The close that follows sends this end too.
            Sink::Finished => self.done(),
        }
    }

    /// Reading from the source of a pump failed.
    pub(super) fn relay_source_failed(&mut self, direction: Direction, errno: Errno) -> Next {
        if direction == Direction::Out && self.may_replay() {
            return self.attempt_failed(lost(errno));
        }
        Next::Flush(direction, broken(direction.source(), errno))
    }

    /// Writing to the sink of a pump failed.
    pub(super) fn on_sink_failed<I: Io>(
        &mut self,
        direction: Direction,
        errno: Errno,
        now: Tick,
        io: &mut I,
    ) -> Next {
        let to_server = direction == Direction::In;
        let replays = to_server && self.may_replay();
        let goes_on = to_server && (errno == Errno::EPIPE || self.has_ended(Side::Server));
        match &mut self.state {
            State::Relaying(_) if replays => self.attempt_failed(lost(errno)),
            // The server takes no more, but what it sent before is still to be read; or it has sent
            // everything, and the client must not lose the rest to a reset.
            State::Relaying(relaying) if goes_on => {
                relaying.restart(now);
                self.break_off(direction, errno, io)
            }
            // The error was the reset itself, taken from the socket: what came before it can still
            // be read, and behind that comes an end that was never sent.
            State::Relaying(_) => {
                Next::Flush(direction.opposite(), broken(direction.sink(), errno))
            }
            State::Flushing(flushing) if flushing.direction == direction => self.reset_both(),
            _ => Next::Stay,
        }
    }

    /// The sink of `direction` takes no more. The other direction goes on to its end.
    fn break_off<I: Io>(&mut self, direction: Direction, errno: Errno, io: &mut I) -> Next {
        self.end.get_or_insert_with(|| broken(direction.sink(), errno));
        self.pumps[direction as usize].sink = Sink::Broken;
        self.drop_pump(direction, io);
        if self.pumps[direction.opposite() as usize].is_finished() {
            Next::Linger(direction.source())
        } else {
            Next::Stay
        }
    }

    /// Whether the session could begin again on another server without anybody noticing: nothing
    /// was delivered either way, not even an end, and something waits to be.
    fn may_replay(&self) -> bool {
        let [inward, outward] = &self.pumps;
        let untouched = inward.delivered == 0 && outward.delivered == 0 && !outward.is_finished();
        untouched && inward.buffers_held() > 0 && outward.buffers_held() == 0
    }

    /// When silence, or a reset of a socket that is not read, is to be looked for.
    pub(super) fn relay_deadline(&self, relaying: &Relaying) -> Tick {
        let check = relaying.next_check(self.rules.half_closed_timeout);
        relaying.silent_until(self.silence_max()).min(check)
    }

    /// How long silence may last now.
    fn silence_max(&self) -> Timeout {
        let Rules { idle_timeout, half_closed_timeout, .. } = self.rules;
        if self.is_half_closed() { half_closed_timeout.min(idle_timeout) } else { idle_timeout }
    }

    fn is_half_closed(&self) -> bool {
        self.pumps.iter().any(|pump| pump.is_finished())
    }

    /// The deadline has come. Ends the session if a side was reset that is not read, or if nothing
    /// was sent for long. A peer that reads slowly still makes progress, which only its
    /// acknowledgements show.
    pub(super) fn on_relay_deadline<I: Io>(&mut self, now: Tick, io: &mut I) -> Next {
        let mut unread = Direction::BOTH.into_iter().filter(|it| self.is_unread(*it)).peekable();
        let checked = unread.peek().map(|_| now);
        let failed = unread.find_map(|it| Some((it, io.take_failure(it.source())?)));
        if let Some((direction, errno)) = failed {
            return self.relay_source_failed(direction, errno);
        }
        let silence_max = self.silence_max();
        let State::Relaying(relaying) = &mut self.state else { return Next::Stay };
        relaying.checked = checked;
        if now < relaying.silent_until(silence_max) {
            return Next::Stay;
        }
        let left = Side::BOTH.map(|side| io.unacknowledged(side));
        match relaying.sample {
            None => relaying.sample = Some(left),
            Some(before) if left[0] < before[0] || left[1] < before[1] => relaying.restart(now),
            Some(_) => return self.close_both(self.end_of_silence(left)),
        }
        Next::Stay
    }

    fn end_of_silence(&self, unacknowledged: [u32; 2]) -> End {
        let Rules { idle_timeout, half_closed_timeout, .. } = self.rules;
        if self.is_half_closed() && half_closed_timeout <= idle_timeout {
            let client_ended = self.pumps[Direction::In as usize].is_finished();
            let letters = if client_ended { b"sL" } else { b"cL" };
            return End::new(Reason::HalfClosedTimeout, letters);
        }
        End::new(Reason::IdleTimeout, self.who_owes(unacknowledged))
    }

    /// Whether nothing is read from the source of this direction now, most often as its sink takes
    /// nothing: no operation reports a reset.
    fn is_unread(&self, direction: Direction) -> bool {
        let (pump, source) = (&self.pumps[direction as usize], direction.source());
        let reading = [Operation::Receive(source), Operation::Ready(source, Readiness::Readable)];
        let is_read = reading.into_iter().any(|operation| self.in_flight.contains(operation));
        pump.source == Source::Open && !pump.is_finished() && !is_read
    }

    /// The side that should have moved: one that does not read what was sent to it, else the one
    /// whose turn it was to answer.
    fn who_owes(&self, unacknowledged: [u32; 2]) -> &'static [u8; 2] {
        let State::Relaying(Relaying { last, .. }) = self.state else { return b"cD" };
        let waits = |direction: Direction| {
            let left = unacknowledged[direction.sink() as usize];
            self.pumps[direction as usize].holds_bytes() || left > 0
        };
        if waits(Direction::Out) {
            b"cD"
        } else if waits(Direction::In) || last == Some(Direction::In) {
            b"sD"
        } else {
            b"cD"
        }
    }

    /// Bytes may have been delivered, of which there were `before`.
    pub(super) fn note_progress(&mut self, direction: Direction, before: u64, now: Tick) {
        if self.pumps[direction as usize].delivered != before {
            match &mut self.state {
                State::Relaying(relaying) => relaying.note_progress(direction, now),
                State::Flushing(flushing) => flushing.progress = now,
                _ => {}
            }
        }
    }

    /// From now on each direction receives only what its sink has room for.
    pub(super) fn on_buffers_stalled<I: Io>(&mut self, io: &mut I) {
        for direction in Direction::BOTH {
            let (pump, mut pump_io) = self.pump(direction, io);
            pump.stop_receiving_blindly(&mut pump_io);
        }
    }

    /// Stops a pump for good: what it holds is dropped and its source no longer read.
    pub(super) fn drop_pump<I: Io>(&mut self, direction: Direction, io: &mut I) {
        let (pump, mut pump_io) = self.pump(direction, io);
        pump.finish();
        pump.drop_unsent(&mut pump_io);
        let receive = Operation::Receive(direction.source());
        if self.in_flight.contains(receive) {
            io.cancel(receive);
        }
    }

    /// Whether this side has ended its direction in order.
    pub(super) fn has_ended(&self, side: Side) -> bool {
        self.pumps[direction_from(side) as usize].source == Source::Ended
    }
}

/// Who broke the connection to `side`: its peer, or this kernel, which had no memory for it.
const fn broken(side: Side, errno: Errno) -> End {
    match (lost(errno), side) {
        (ConnectFailure::Exhausted, _) => End::new(Reason::Exhausted, b"RD"),
        (_, Side::Client) => End::new(Reason::ClientReset, b"CD"),
        (_, Side::Server) => End::new(Reason::ServerReset, b"SD"),
    }
}

/// The same of a server to which nothing was delivered yet.
pub(super) const fn lost(errno: Errno) -> ConnectFailure {
    match errno {
        Errno::ENOMEM | Errno::ENOBUFS => ConnectFailure::Exhausted,
        _ => ConnectFailure::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lack_of_memory_is_not_blamed_on_a_peer() {
        for side in Side::BOTH {
            assert_eq!(broken(side, Errno::ENOMEM), End::new(Reason::Exhausted, b"RD"));
        }
        assert_eq!(lost(Errno::ENOMEM), ConnectFailure::Exhausted);
        let reset = broken(Side::Server, Errno::ECONNRESET);
        assert_eq!(reset, End::new(Reason::ServerReset, b"SD"));
    }
}
