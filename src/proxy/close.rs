//! Closing: which cause counts, what is still delivered, and in which order things are let go:
//! shut down, join (wait for what the kernel still holds), close.

use std::time::Duration;

use nix::errno::Errno;

use crate::proxy::kernel::{Closing, Kernel, Operation, Operations};
use crate::proxy::pump::{Sink, Source};
use crate::proxy::session::{Rules, Session, State, direction_from};
use crate::proxy::wheel::Moment;
use crate::terms::{ConnectFailure, Direction, End, Reason, Side};

/// After a reset of one side, how long the other may take to acknowledge something more of what
/// came before; then it is reset without it.
const FLUSH_STALL: Duration = Duration::from_secs(1);

/// How often it is looked at.
const FLUSH_STEP: Duration = Duration::from_millis(20);

/// How long what a side still sends is read and dropped after everything was said to it.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes of a direction that leave the buffers of a socket as they were: those of the first flight
/// over Ethernet (ten segments, RFC 6928). After more the kernel may let them grow (tcp(7)).
const LITTLE: u64 = 14_600;

impl Session {
    /// Reading from the source of a pump failed: it was reset (or timed out in its kernel).
    pub(super) fn on_source_failed<K: Kernel>(
        &mut self,
        direction: Direction,
        errno: Errno,
        now: Moment,
        kernel: &mut K,
    ) {
        let side = direction.source();
        self.pumps[direction as usize].source = Source::Reset;
        match self.state {
            State::Connecting | State::Leaving if side == Side::Client => self.client_left(kernel),
            State::Relaying if side == Side::Server && self.may_replay() => {
                self.on_attempt_failed(lost(errno), kernel);
            }
            State::Relaying => self.flush(direction, errno, now, kernel),
            State::Lingering(_) => self.finish_done(kernel),
            _ => {}
        }
    }

    /// Writing to the sink of a pump failed.
    pub(super) fn on_sink_failed<K: Kernel>(
        &mut self,
        direction: Direction,
        errno: Errno,
        now: Moment,
        kernel: &mut K,
    ) {
        let side = direction.sink();
        match self.state {
            State::Relaying if side == Side::Server && self.may_replay() => {
                self.on_attempt_failed(lost(errno), kernel);
            }
            // The server takes no more, but what it said before is still to be read; or it has
            // said all, and the client must not lose the end of it to a reset.
            State::Relaying
                if side == Side::Server && (errno == Errno::EPIPE || self.has_said_all(side)) =>
            {
                self.break_off(direction, errno, now, kernel);
            }
            // The error was the reset itself, taken from the socket: what came before it can
            // still be read, and behind that will stand an "end" that is none.
            State::Relaying => self.flush(direction.opposite(), errno, now, kernel),
            State::Flushing(flushed) if flushed == direction => self.finish_reset(kernel),
            _ => {}
        }
    }

    /// Whether this side has ended its direction in order.
    fn has_said_all(&self, side: Side) -> bool {
        self.pumps[direction_from(side) as usize].source == Source::Ended
    }

    /// Whether the session could begin again on another server without anybody noticing: nothing
    /// was delivered either way, not even an end, and something waits to be.
    fn may_replay(&self) -> bool {
        let [inward, outward] = &self.pumps;
        let untouched = inward.delivered == 0 && outward.delivered == 0 && !outward.is_finished();
        untouched && inward.buffers_held() > 0 && outward.buffers_held() == 0
    }

    /// The source of `direction` was reset: what it sent before is delivered, then the other side
    /// is reset too. The other direction has nobody to deliver to.
    fn flush<K: Kernel>(
        &mut self,
        direction: Direction,
        errno: Errno,
        now: Moment,
        kernel: &mut K,
    ) {
        self.end.get_or_insert_with(|| broken(direction.source(), errno));
        self.state = State::Flushing(direction);
        self.progress = now;
        self.until = now.after(FLUSH_STEP);
        self.sample = None;
        self.drop_pump(direction.opposite(), kernel);
        if self.pumps[direction as usize].is_finished() {
            self.on_flushed(direction, now, kernel);
        } else {
            self.advance(direction, now, kernel);
        }
    }

    /// Everything is sent; but a reset now would destroy what the peer's kernel has not
    /// acknowledged, so it waits for that.
    pub(super) fn on_flushed<K: Kernel>(
        &mut self,
        direction: Direction,
        now: Moment,
        kernel: &mut K,
    ) {
        // What went as the last before an end waits for one that does not come.
        kernel.push(direction.sink());
        if kernel.unacknowledged(direction.sink()) == 0 {
            self.finish_reset(kernel);
        } else {
            self.until = now.after(FLUSH_STEP);
        }
    }

    /// The sink of `direction` takes no more. The other direction goes on to its end.
    fn break_off<K: Kernel>(
        &mut self,
        direction: Direction,
        errno: Errno,
        now: Moment,
        kernel: &mut K,
    ) {
        self.end.get_or_insert_with(|| broken(direction.sink(), errno));
        self.pumps[direction as usize].sink = Sink::Broken;
        // From now on `half_closed_timeout` counts; what was silence before does not.
        self.progress = now;
        self.sample = None;
        self.drop_pump(direction, kernel);
        if self.pumps[direction.opposite() as usize].is_finished() {
            self.linger(direction.source(), now, kernel);
        }
    }

    /// Everything is said to `side`; what it still sends is read and dropped, until its end.
    pub(super) fn linger<K: Kernel>(&mut self, side: Side, now: Moment, kernel: &mut K) {
        self.pumps[direction_from(side) as usize].finish();
        self.state = State::Lingering(side);
        self.until = now.after(LINGER);
        self.drop_input(side, kernel);
    }

    /// Goes on dropping.
    pub(super) fn drop_input<K: Kernel>(&mut self, side: Side, kernel: &mut K) {
        let receive = Operation::Receive(side);
        let pump = &self.pumps[direction_from(side) as usize];
        if pump.source != Source::Open {
            self.finish_done(kernel);
        } else if !pump.waiting && !self.in_flight.contains(receive) {
            self.in_flight.insert(receive);
            kernel.receive(side, false);
        }
    }

    /// The moment has come that [`Session::deadline`] named.
    pub(super) fn on_deadline<K: Kernel>(&mut self, now: Moment, kernel: &mut K) {
        if now < self.deadline() {
            return;
        }
        match self.state {
            State::Connecting if now >= self.attempt_until => self.end_attempt(kernel),
            State::Connecting | State::Leaving => self.client_left(kernel),
            State::Relaying => self.on_silence(now, kernel),
            State::Flushing(direction) => self.on_flush_step(direction, now, kernel),
            State::Lingering(_) => self.finish_done(kernel),
            State::Joining(..) | State::Closed => {}
        }
    }

    fn on_flush_step<K: Kernel>(&mut self, direction: Direction, now: Moment, kernel: &mut K) {
        let left = kernel.unacknowledged(direction.sink());
        let sample = Some([left, 0]);
        let pump = &self.pumps[direction as usize];
        let drained = left == 0 && pump.source != Source::Open && !pump.holds_bytes();
        if self.sample != sample {
            self.sample = sample;
            self.progress = now;
        }
        if drained || now >= self.progress.after(FLUSH_STALL) {
            self.finish_reset(kernel);
        } else {
            self.until = now.after(FLUSH_STEP);
        }
    }

    /// While relaying: half way to the timeout a sample is taken, at the end it is compared.
    pub(super) fn relaying_deadline(&self) -> Moment {
        let (timeout, _) = self.timeout();
        self.progress.after(if self.sample.is_none() { timeout / 2 } else { timeout })
    }

    /// How long silence may last now, and how the session ends if it does; the letters of an idle
    /// one depend on who owes.
    fn timeout(&self) -> (Duration, Option<End>) {
        let [inward, outward] = &self.pumps;
        let Rules { idle_timeout, half_closed_timeout, .. } = self.rules;
        let half_closed = inward.is_finished() || outward.is_finished();
        if half_closed && half_closed_timeout <= idle_timeout {
            let letters = if inward.is_finished() { b"sL" } else { b"cL" };
            (half_closed_timeout, Some(End::new(Reason::HalfClosedTimeout, letters)))
        } else {
            (idle_timeout, None)
        }
    }

    /// Nothing was sent or received for long. A peer that reads slowly still makes progress that
    /// only its acknowledgements show.
    fn on_silence<K: Kernel>(&mut self, now: Moment, kernel: &mut K) {
        let left = Side::BOTH.map(|side| kernel.unacknowledged(side));
        match self.sample {
            None => self.sample = Some(left),
            Some(before) if left[0] < before[0] || left[1] < before[1] => {
                self.progress = now;
                self.sample = None;
            }
            Some(_) => {
                let idle = || End::new(Reason::IdleTimeout, self.who_owes(left));
                let end = self.timeout().1.unwrap_or_else(idle);
                self.finish_both(end, kernel);
            }
        }
    }

    /// Who should have moved: one that does not read what was sent to it, else the one whose turn
    /// it was to answer.
    fn who_owes(&self, unacknowledged: [u32; 2]) -> &'static [u8; 2] {
        let [inward, outward] = &self.pumps;
        if outward.holds_bytes() || unacknowledged[0] > 0 {
            b"cD"
        } else if inward.holds_bytes() || unacknowledged[1] > 0 {
            b"sD"
        } else {
            match self.last {
                Some(Direction::In) => b"sD",
                Some(Direction::Out) | None => b"cD",
            }
        }
    }

    /// Both directions are over. If an earlier cause is noted, that is the end.
    pub(super) fn finish_done<K: Kernel>(&mut self, kernel: &mut K) {
        self.finish_both(End::new(Reason::Done, b"--"), kernel);
    }

    /// Ends it, each side in order if it has got all that was received for it.
    fn finish_both<K: Kernel>(&mut self, end: End, kernel: &mut K) {
        let [client, server] = Side::BOTH.map(|side| self.closing_of(side));
        self.finish(end, client, server, kernel);
    }

    /// An end (FIN) may not stand where bytes were dropped, or behind what a reset cut off: the
    /// peer would take it for all there is.
    fn closing_of(&self, side: Side) -> Closing {
        let pump = &self.pumps[direction_from(side.other()) as usize];
        let cut_off = self.end.is_some() && pump.source != Source::Ended;
        if pump.holds_bytes() || pump.sink == Sink::Broken || cut_off {
            return Closing::Abort;
        }
        let [inward, outward] = &self.pumps;
        let little = inward.delivered.max(outward.delivered) <= LITTLE;
        if little && self.pumps[direction_from(side) as usize].source == Source::Ended {
            Closing::Over
        } else {
            Closing::Orderly
        }
    }

    /// One side was reset; so is the other.
    fn finish_reset<K: Kernel>(&mut self, kernel: &mut K) {
        let end = End::new(Reason::Internal, b"ID");
        debug_assert!(self.end.is_some(), "the reset was noted");
        self.finish(end, Closing::Abort, Closing::Abort, kernel);
    }

    /// Lets everything go that is held, and asks for what is in flight; `end` counts if no earlier
    /// cause was noted.
    pub(super) fn finish<K: Kernel>(
        &mut self,
        end: End,
        client: Closing,
        server: Closing,
        kernel: &mut K,
    ) {
        if matches!(self.state, State::Joining(..) | State::Closed) {
            return;
        }
        self.end.get_or_insert(end);
        self.state = State::Joining(client, server);
        for direction in Direction::BOTH {
            self.pumps[direction as usize].finish();
            let (pump, mut wire) = self.pump(direction, kernel);
            pump.drop_unsent(&mut wire);
        }
        for operation in self.in_flight.iter() {
            kernel.cancel(operation);
        }
    }

    /// Closes both once nothing is in flight.
    pub(super) fn join<K: Kernel>(&mut self, kernel: &mut K) {
        let State::Joining(client, server) = self.state else { return };
        if !self.in_flight.is_empty() {
            return;
        }
        for direction in Direction::BOTH {
            let (pump, mut wire) = self.pump(direction, kernel);
            pump.drop_unsent(&mut wire);
        }
        kernel.close(Side::Server, server);
        kernel.close(Side::Client, client);
        self.state = State::Closed;
    }

    /// Asks whatever holds the server's socket to end.
    pub(super) fn cancel_of_server<K: Kernel>(&mut self, kernel: &mut K) {
        for operation in self.in_flight.and(Operations::OF_SERVER).iter() {
            kernel.cancel(operation);
        }
    }

    /// Stops a pump for good: what it holds is dropped and its source no longer read.
    fn drop_pump<K: Kernel>(&mut self, direction: Direction, kernel: &mut K) {
        self.pumps[direction as usize].finish();
        let source = direction.source();
        let (pump, mut wire) = self.pump(direction, kernel);
        pump.drop_unsent(&mut wire);
        let receive = Operation::Receive(source);
        if self.in_flight.contains(receive) {
            kernel.cancel(receive);
        }
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

/// The same of a server that nothing was delivered to yet.
const fn lost(errno: Errno) -> ConnectFailure {
    match errno {
        Errno::ENOMEM | Errno::ENOBUFS => ConnectFailure::Exhausted,
        _ => ConnectFailure::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_memory_is_not_blamed_on_a_peer() {
        for side in Side::BOTH {
            assert_eq!(broken(side, Errno::ENOMEM), End::new(Reason::Exhausted, b"RD"));
        }
        assert_eq!(lost(Errno::ENOMEM), ConnectFailure::Exhausted);
        let reset = broken(Side::Server, Errno::ECONNRESET);
        assert_eq!(reset, End::new(Reason::ServerReset, b"SD"));
    }
}
