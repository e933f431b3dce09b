//! Relaying: a pump receives into buffers and sends from the same buffers, carries the end of the
//! stream over, and slows its source down when its sink does not keep up. What has shown that it is
//! bulk goes by splice(2) (`proxy::splice`).
//!
//! Pure: what to do next follows from what is held and what is in flight.

use std::mem;

use nix::errno::Errno;

use crate::proxy::io::{Io, Operation};
use crate::proxy::pump::{Bulk, FULL_READS_PARDON, Pump, PumpIo, Reached, Source};
use crate::sys::buffer::{BUFFER_SIZE, BufferId, Supply};
use crate::sys::ring::Readiness;
use crate::terms::Direction;

/// Buffers that a pump holds before it stops receiving: enough that its sink never waits for its
/// source, and 64 KiB at most for a sink that does not read. A multishot receive may have brought
/// more by the time that it ends.
const BUFFERS_MAX: u16 = 4;

/// Reads in a row that fill a buffer before a direction counts as bulk: the first kilobytes of an
/// answer are cheaper to copy than a pipe is to set up.
const FULL_READS_BULK: i16 = 2;

/// Reads in a row that do not fill a buffer before a source counts as one of small messages.
const SHORT_READS_SMALL: u8 = 2;

impl Pump {
    /// Takes what a receive answered.
    pub fn on_received<I: Io>(
        &mut self,
        pump_io: &mut PumpIo<'_, I>,
        bytes: Result<Option<(BufferId, u32)>, Errno>,
        (more, left): (bool, bool),
    ) -> Reached {
        let side = pump_io.direction.source();
        if !more {
            pump_io.in_flight.remove(Operation::Receive(side));
            self.cancelling = false;
        }
        match bytes {
            Ok(Some((buffer, length))) if self.is_finished() => {
                debug_assert!(length > 0);
                pump_io.io.release(buffer);
            }
            Ok(Some((buffer, mut length))) => {
                let all_can_be_sent = pump_io.io.supply() != Supply::Stalled;
                let is_partial = !more && (length as usize) < BUFFER_SIZE;
                let rest = if left && is_partial && all_can_be_sent {
                    // The end, most of the time: all bytes that were there are in the buffer.
                    pump_io.io.receive_rest(side, &buffer, length)
                } else {
                    Err(Errno::EAGAIN)
                };
                length += rest.unwrap_or(0);
                self.queue.push(pump_io.io.links(), buffer, length);
                if (length as usize) < BUFFER_SIZE {
                    self.full_reads = self.full_reads.min(0);
                    self.short_reads = self.short_reads.saturating_add(1);
                } else {
                    self.full_reads = self.full_reads.saturating_add(1);
                    self.short_reads = 0;
                }
                if self.full_reads >= FULL_READS_BULK && self.bulk == Bulk::No {
                    self.bulk = Bulk::Wanted;
                }
                match rest {
                    Ok(0) => self.source = Source::Ended,
                    Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
                    Err(errno) => return Reached::SourceFailed(errno),
                }
            }
            Ok(None) => self.source = Source::Ended,
            Err(Errno::ENOBUFS) => {
                // Also for bytes that will be dropped: unread they would turn a close into a reset.
                self.waiting = true;
                pump_io.io.wait_for_buffer(side);
            }
            // We asked it to end; or the kernel had a reason of its own and it is armed again.
            Err(Errno::ECANCELED | Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Reached::SourceFailed(errno),
        }
        Reached::Waiting
    }

    /// Takes what a send answered, and the buffer that it was sent from.
    pub fn on_sent<I: Io>(
        &mut self,
        pump_io: &mut PumpIo<'_, I>,
        buffer: BufferId,
        bytes: Result<u32, Errno>,
    ) -> Reached {
        pump_io.in_flight.remove(Operation::Send(pump_io.direction.sink()));
        let length = mem::take(&mut self.sending);
        if let Ok(bytes) = bytes {
            self.count(u64::from(bytes));
            self.sent += bytes;
        }
        if self.sent < length && !self.is_finished() {
            self.queue.push_front(pump_io.io.links(), buffer, length);
        } else {
            self.sent = 0;
            pump_io.io.release(buffer);
        }
        match bytes {
            Ok(_) => Reached::Waiting,
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECANCELED) => Reached::Waiting,
            Err(errno) => Reached::SinkFailed(errno),
        }
    }

    /// Does whatever can be done now. Calling it once more than needed does nothing.
    pub fn advance<I: Io>(&mut self, pump_io: &mut PumpIo<'_, I>) -> Reached {
        if self.is_finished() {
            return Reached::Waiting;
        }
        loop {
            if let Bulk::Splicing(_) = self.bulk {
                let reached = self.splice(pump_io);
                if self.bulk != Bulk::No {
                    return reached;
                }
            }
            self.send_first(pump_io);
            if self.buffers_held() == 0 && self.source != Source::Open {
                return Reached::End;
            }
            if !self.is_ready_to_splice(pump_io) {
                break;
            }
            if !self.start_splicing(pump_io) {
                self.full_reads = -FULL_READS_PARDON;
            }
        }
        self.steer_receive(pump_io);
        Reached::Waiting
    }

    /// Whether it is bulk, and everything received is sent and no receive in flight: bytes
    /// received before go out before the first spliced one.
    fn is_ready_to_splice<I: Io>(&self, pump_io: &PumpIo<'_, I>) -> bool {
        let receiving = pump_io.in_flight(Operation::Receive(pump_io.direction.source()));
        self.bulk == Bulk::Wanted && pump_io.open && self.buffers_held() == 0 && !receiving
    }

    /// Forgets what could not be delivered. A buffer that is being sent comes back by itself.
    pub fn drop_unsent<I: Io>(&mut self, pump_io: &mut PumpIo<'_, I>) {
        while let Some((buffer, _)) = self.queue.pop(pump_io.io.links()) {
            pump_io.io.release(buffer);
        }
        self.end_bulk(pump_io.io);
    }

    fn send_first<I: Io>(&mut self, pump_io: &mut PumpIo<'_, I>) {
        let sink = pump_io.direction.sink();
        while pump_io.open
            && !pump_io.in_flight(Operation::Send(sink))
            && let Some((buffer, length)) = self.queue.pop(pump_io.io.links())
        {
            if self.sent >= length {
                // All of it went with the SYN.
                self.sent -= length;
                pump_io.io.release(buffer);
                continue;
            }
            // Nothing follows but the end, and one segment carries both.
            let last = self.source == Source::Ended && self.queue.is_empty();
            self.sending = length;
            pump_io.in_flight.insert(Operation::Send(sink));
            pump_io.io.send(sink, buffer, (self.sent, length), last);
        }
    }

    /// Whether its receive may go on by itself. One that does takes up to 32 buffers in one go (the
    /// kernel's `MULTISHOT_MAX_RETRY`; before 6.4 all that the ring has), however few its pump may
    /// hold: so not from a source that fills whole buffers, nor behind the first short read of a
    /// server, which may be but the head of a long answer.
    const fn may_receive_many(&self, direction: Direction) -> bool {
        let first = matches!(direction, Direction::In) && self.delivered == 0;
        first || self.short_reads >= SHORT_READS_SMALL
    }

    /// Ends a receive that was armed before the buffers stalled: it would take what comes, whether
    /// or not the sink has room. It is armed again once the sink has.
    pub fn stop_receiving_blindly<I: Io>(&mut self, pump_io: &mut PumpIo<'_, I>) {
        let (source, sink) = (pump_io.direction.source(), pump_io.direction.sink());
        let receive = Operation::Receive(source);
        if self.is_finished() || self.cancelling || !pump_io.in_flight(receive) {
            return;
        }
        // An idle session need not ask: everything was acknowledged.
        self.has_room |=
            pump_io.open && !self.holds_bytes() && pump_io.io.unacknowledged(sink) == 0;
        self.cancelling = true;
        pump_io.io.cancel(receive);
    }

    /// Receives one buffer at a time, and only once the sink has said that it has room: bytes that
    /// it does not take stay in the socket of the source, and cost no buffer.
    fn receive_what_can_be_sent<I: Io>(&mut self, pump_io: &mut PumpIo<'_, I>, receiving: bool) {
        let sink = pump_io.direction.sink();
        let room = Operation::Ready(sink, Readiness::Writable);
        if receiving {
            let may_go_on = self.has_room && self.buffers_held() == 0;
            if !may_go_on && !self.cancelling {
                self.cancelling = true;
                pump_io.io.cancel(Operation::Receive(pump_io.direction.source()));
            }
        } else if self.waiting
            || !pump_io.open
            || self.buffers_held() > 0
            || self.bulk == Bulk::Wanted
        {
            // It goes on when the buffer, the server, the send or the pipe is there.
        } else if self.has_room {
            pump_io.receive(false);
        } else if !pump_io.in_flight(room) {
            pump_io.in_flight.insert(room);
            pump_io.io.wait_ready(sink, Readiness::Writable);
        }
    }

    /// Receives, or stops receiving: the only back-pressure there is.
    fn steer_receive<I: Io>(&mut self, pump_io: &mut PumpIo<'_, I>) {
        let source = pump_io.direction.source();
        if self.source != Source::Open {
            return;
        }
        let receiving = pump_io.in_flight(Operation::Receive(source));
        let max = match pump_io.io.supply() {
            Supply::Ample => BUFFERS_MAX,
            Supply::Low => 1,
            Supply::Stalled => return self.receive_what_can_be_sent(pump_io, receiving),
        };
        let enough = self.buffers_held() >= max || self.bulk == Bulk::Wanted;
        if receiving && enough && !self.cancelling {
            self.cancelling = true;
            pump_io.io.cancel(Operation::Receive(source));
        } else if !receiving && !self.waiting {
            let little = self.buffers_held() <= max / 2 && self.bulk != Bulk::Wanted;
            if little {
                pump_io.receive(self.may_receive_many(pump_io.direction));
            }
        }
    }
}
