//! Bulk: bytes that go from socket to socket through a pipe, without a copy, by splice(2).
//!
//! `IORING_OP_SPLICE` always goes to a kernel worker thread (liburing issue 426), so the ring
//! only says when a socket is ready, and the splices are plain system calls. A pipe is held only
//! while bytes wait in it, or are about to: an idle session holds none.

use std::mem;

use nix::errno::Errno;

use crate::proxy::io::{Io, Operation};
use crate::proxy::pump::{Bulk, FULL_READS_PARDON, Pump, PumpIo, Reached, Source, Splicing};
use crate::sys::pipe::PipeId;
use crate::sys::ring::Readiness;

/// Bytes that one session may move before the others have their turn.
const TURN_BYTES: u64 = 1024 * 1024;

/// A wake-up that moved less was not bulk: copying would have cost less than two splices.
const SMALL_WAKE: u64 = 16 * 1024;

/// So many small wake-ups in a row end splicing.
const SMALL_WAKES_MAX: u8 = 4;

/// What stopped a splice.
enum Stop {
    SourceEmpty,
    SinkFull,
    SourceEnded,
    /// Something comes that splice(2) does not pass on.
    SourceUrgent,
    TurnOver,
    Failed(Reached),
}

impl Pump {
    /// Changes over to splicing, if there is a pipe; else goes on copying.
    pub(super) fn start_splicing<I: Io>(&mut self, pump_io: &mut PumpIo<'_, I>) -> bool {
        debug_assert!(self.buffers_held() == 0);
        let Some(pipe) = pump_io.io.take_pipe() else {
            self.bulk = Bulk::No;
            return false;
        };
        self.bulk = Bulk::Splicing(Splicing { pipe: Some(pipe), ..Splicing::default() });
        true
    }

    /// Moves what can be moved now, then waits for the side that stopped it.
    pub(super) fn splice<I: Io>(&mut self, pump_io: &mut PumpIo<'_, I>) -> Reached {
        let (source, sink) = (pump_io.direction.source(), pump_io.direction.sink());
        let readable = Operation::Ready(source, Readiness::Readable);
        let writable = Operation::Ready(sink, Readiness::Writable);
        if pump_io.in_flight.contains(readable) || pump_io.in_flight.contains(writable) {
            return Reached::Waiting;
        }
        let Bulk::Splicing(splicing) = &mut self.bulk else { return Reached::Waiting };
        let mut splicing = mem::take(splicing);
        let Some(pipe) = splicing.pipe.take().or_else(|| pump_io.io.take_pipe()) else {
            // Every pipe is held by a session whose sink is full: copy for a while.
            self.copy_again(-FULL_READS_PARDON);
            return Reached::Waiting;
        };
        let before = self.delivered;
        let stop = self.splice_until_stopped(pump_io, &pipe, &mut splicing.pending);
        let moved = self.delivered - before;
        if splicing.pending == 0 {
            pump_io.io.give_back_pipe(pipe);
        } else {
            splicing.pipe = Some(pipe);
        }
        match stop {
            Stop::SinkFull => {
                pump_io.in_flight.insert(writable);
                pump_io.io.wait_ready(sink, Readiness::Writable);
            }
            Stop::SourceEmpty | Stop::TurnOver => {
                splicing.small_wakes =
                    if moved < SMALL_WAKE { splicing.small_wakes + 1 } else { 0 };
                if splicing.small_wakes >= SMALL_WAKES_MAX {
                    self.copy_again(0);
                    return Reached::Waiting;
                }
                pump_io.in_flight.insert(readable);
                pump_io.io.wait_ready(source, Readiness::Readable);
            }
            Stop::SourceEnded => {
                self.source = Source::Ended;
                self.copy_again(0);
                return Reached::Waiting;
            }
            Stop::SourceUrgent => {
                self.copy_again(-FULL_READS_PARDON);
                return Reached::Waiting;
            }
            Stop::Failed(reached) => {
                self.bulk = Bulk::Splicing(splicing);
                return reached;
            }
        }
        self.bulk = Bulk::Splicing(splicing);
        Reached::Waiting
    }

    fn splice_until_stopped<I: Io>(
        &mut self,
        pump_io: &mut PumpIo<'_, I>,
        pipe: &PipeId,
        pending: &mut u32,
    ) -> Stop {
        let (source, sink) = (pump_io.direction.source(), pump_io.direction.sink());
        let until = self.delivered + TURN_BYTES;
        loop {
            while *pending > 0 {
                match pump_io.io.drain(pipe, sink, *pending as usize) {
                    // Nothing was taken and nothing said: as good as full.
                    Ok(0) | Err(Errno::EAGAIN) => return Stop::SinkFull,
                    Ok(bytes) => {
                        self.count(bytes as u64);
                        *pending = pending.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
                    }
                    Err(Errno::EINTR) => {}
                    Err(errno) => return Stop::Failed(Reached::SinkFailed(errno)),
                }
            }
            if self.source != Source::Open {
                return Stop::SourceEnded;
            }
            if self.delivered >= until {
                return Stop::TurnOver;
            }
            // The pipe is empty here, so that EAGAIN is an empty socket. 0 is the end, or an urgent
            // byte (RFC 6093) before it, which a receive leaves out.
            match pump_io.io.fill(pipe, source) {
                Ok(0) => {
                    return match pump_io.io.has_ended(source) {
                        Ok(true) => Stop::SourceEnded,
                        Ok(false) => Stop::SourceUrgent,
                        Err(errno) => Stop::Failed(Reached::SourceFailed(errno)),
                    };
                }
                Ok(bytes) => *pending = u32::try_from(bytes).unwrap_or(u32::MAX),
                Err(Errno::EAGAIN) => return Stop::SourceEmpty,
                Err(Errno::EINTR) => {}
                Err(errno) => return Stop::Failed(Reached::SourceFailed(errno)),
            }
        }
    }

    /// Lets go of the pipe, with whatever is in it.
    pub(super) fn end_bulk<I: Io>(&mut self, io: &mut I) {
        let bulk = mem::take(&mut self.bulk);
        if let Bulk::Splicing(Splicing { pipe: Some(pipe), pending, .. }) = bulk {
            if pending == 0 {
                io.give_back_pipe(pipe);
            } else {
                io.discard_pipe(pipe);
            }
        }
    }
}
