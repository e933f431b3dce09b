//! Closing: what is still delivered, and in which order things are released: shut down, join (wait
//! for the last operations), close.

use std::time::Duration;

use nix::errno::Errno;

use crate::proxy::io::{Closing, Io, Operation};
use crate::proxy::pump::{Sink, Source};
use crate::proxy::session::{Session, direction_from};
use crate::proxy::state::{Flushing, Joining, Lingering, Next, State};
use crate::proxy::timer_wheel::Tick;
use crate::sys::buffer::BufferId;
use crate::terms::{Direction, End, Reason, Side};

/// Between two looks at what the other side of a reset has acknowledged: at first, and at most.
const FLUSH_STEP: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];

/// How long what a side still sends is read and dropped after everything was sent to it.
const LINGER: Duration = Duration::from_secs(2);

impl Session {
    /// The source of `direction` was reset.
    pub(super) fn flushing(direction: Direction, now: Tick) -> State {
        let until = now.after(FLUSH_STEP[0]);
        State::Flushing(Flushing { direction, progress: now, unacknowledged: 0, until })
    }

    /// Everything is sent to `side`.
    pub(super) fn lingering(side: Side, now: Tick) -> State {
        State::Lingering(Lingering { side, until: now.after(LINGER) })
    }

    /// Everything is sent. A reset now would destroy what the peer's kernel has not acknowledged,
    /// so the session waits for that, for `half_closed_timeout` without progress at most.
    pub(super) fn on_flushed<I: Io>(&self, io: &mut I) -> Next {
        let State::Flushing(Flushing { direction, .. }) = self.state else { return Next::Stay };
        // The last segment may be held back for an end that does not come (MSG_MORE).
        io.push(direction.sink());
        if io.unacknowledged(direction.sink()) == 0 { self.reset_both() } else { Next::Stay }
    }

    /// Looks at what the sink has acknowledged since the last time.
    pub(super) fn on_flush_step<I: Io>(&mut self, now: Tick, io: &mut I) -> Next {
        let State::Flushing(flushing) = &mut self.state else { return Next::Stay };
        let left = io.unacknowledged(flushing.direction.sink());
        if left != flushing.unacknowledged {
            flushing.unacknowledged = left;
            flushing.progress = now;
        }
        let silent = now.since(flushing.progress);
        let given_up = self.rules.half_closed_timeout.end(flushing.progress);
        flushing.until = now.after((silent / 4).clamp(FLUSH_STEP[0], FLUSH_STEP[1]));
        let pump = &self.pumps[flushing.direction as usize];
        let drained = left == 0 && pump.source != Source::Open && !pump.holds_bytes();
        if drained || now >= given_up { self.reset_both() } else { Next::Stay }
    }

    /// Reads and drops what `side` still sends; true once that has ended.
    pub(super) fn drop_input<I: Io>(&mut self, side: Side, io: &mut I) -> bool {
        let receive = Operation::Receive(side);
        let pump = &self.pumps[direction_from(side) as usize];
        let ended = pump.source != Source::Open;
        if !ended && !pump.waiting && !self.in_flight.contains(receive) {
            self.in_flight.insert(receive);
            io.receive(side, false);
        }
        ended
    }

    /// Both directions are over. If an earlier cause is noted, that is the end.
    pub(super) fn done(&self) -> Next {
        self.close_both(End::new(Reason::Done, b"--"))
    }

    /// Ends it, each side in order if it has got all that was received for it.
    pub(super) fn close_both(&self, end: End) -> Next {
        Next::Join(end, Side::BOTH.map(|side| self.closing_of(side)))
    }

    /// One side was reset; so is the other.
    pub(super) fn reset_both(&self) -> Next {
        debug_assert!(self.end.is_some(), "the reset was noted");
        Next::abort(End::new(Reason::Internal, b"ID"))
    }

    /// An end (FIN) may not follow bytes that were dropped, or a stream that a reset cut off: the
    /// peer would take it for the whole.
    fn closing_of(&self, side: Side) -> Closing {
        let pump = &self.pumps[direction_from(side.other()) as usize];
        let cut_off = self.end.is_some() && !self.has_ended(side.other());
        if pump.holds_bytes() || pump.sink == Sink::Broken || cut_off {
            Closing::Abort
        } else {
            Closing::Orderly
        }
    }

    /// Releases everything that is held, and cancels everything that is in flight.
    pub(super) fn begin_join<I: Io>(&mut self, io: &mut I) {
        for direction in Direction::BOTH {
            let (pump, mut pump_io) = self.pump(direction, io);
            pump.finish();
            pump.drop_unsent(&mut pump_io);
        }
        for operation in self.in_flight.iter() {
            io.cancel(operation);
        }
    }

    /// Bytes of `side` that come while the last receive is cancelled are dropped: the other side is
    /// reset then, as an end would tell it that they all came.
    pub(super) fn note_dropped(
        &mut self,
        side: Side,
        bytes: &Result<Option<(BufferId, u32)>, Errno>,
    ) {
        if let (State::Joining(joining), Ok(Some(_))) = (&mut self.state, bytes) {
            joining.closing[side.other() as usize] = Closing::Abort;
        }
    }

    /// Closes both connections once nothing is in flight.
    pub(super) fn join<I: Io>(&mut self, io: &mut I) {
        let State::Joining(Joining { closing }) = self.state else { return };
        if !self.in_flight.is_empty() {
            return;
        }
        for direction in Direction::BOTH {
            let (pump, mut pump_io) = self.pump(direction, io);
            pump.drop_unsent(&mut pump_io);
        }
        // The server's descriptor is released first: the next session may need it.
        for side in [Side::Server, Side::Client] {
            let how = closing[side as usize];
            if how == Closing::Abort {
                let direction = direction_from(side.other());
                self.undelivered[direction as usize] = io.unacknowledged(side);
            }
            io.close(side, how);
        }
        self.state = State::Closed;
    }
}
