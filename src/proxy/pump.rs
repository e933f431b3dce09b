//! A pump: one direction of a session, and what is known of it. What it does is in `copy`
//! (copying) and `proxy::splice` (bulk).

use crate::proxy::io::{Io, Operation, Operations};
use crate::sys::buffer_queue::BufferQueue;
use crate::sys::pipe::PipeId;
use crate::terms::Direction;
use nix::errno::Errno;

/// After no pipe could be had, so many full reads more before the next try.
pub(super) const FULL_READS_PARDON: i16 = 64;

/// One direction of a session.
#[derive(Debug, Default)]
pub struct Pump {
    /// Received and not yet wholly sent, without the buffer that is being sent.
    pub(super) queue: BufferQueue,
    /// The length of the buffer that is being sent; 0: no send is in flight.
    pub(super) sending: u32,
    /// Bytes of the first buffer that have been sent.
    pub(super) sent: u32,
    /// Bytes that the sink's kernel has taken.
    pub(super) delivered: u64,
    /// What became of the source.
    pub(super) source: Source,
    /// What became of the sink.
    pub(super) sink: Sink,
    /// In the row of those who wait for a buffer.
    pub(super) waiting: bool,
    /// Its receive was asked to end.
    pub(super) cancelling: bool,
    /// The sink has said that it has room, and nothing was sent to it since.
    pub(super) has_room: bool,
    /// Reads in a row that filled a buffer; below zero, so many must come before that counts.
    pub(super) full_reads: i16,
    /// Reads in a row that did not.
    pub(super) short_reads: u8,
    /// How far it is with splicing.
    pub(super) bulk: Bulk,
}

/// What is known of the source of a pump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Source {
    /// It may send more.
    #[default]
    Open,
    /// It has ended in order: all its bytes are here.
    Ended,
    /// It was reset: what came before may be here, what follows never comes.
    Reset,
}

/// What is known of the sink of a pump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sink {
    /// It may be sent more.
    #[default]
    Open,
    /// Nothing will be sent to it any more: the end was passed on, or there is no need to.
    Finished,
    /// It failed: what the source still sends has nowhere to go.
    Broken,
}

/// What a pump reached when it was advanced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// It waits for an answer of the kernel, or for its sink to be connected.
    Waiting,
    /// Its source has ended, and everything is delivered.
    End,
    /// Its source fails.
    SourceFailed(Errno),
    /// Its sink fails.
    SinkFailed(Errno),
}

/// What a pump works with.
#[derive(Debug)]
pub struct PumpIo<'a, I> {
    /// Which way it pumps.
    pub direction: Direction,
    /// Whether its sink is connected.
    pub open: bool,
    /// Operations of the session that are in flight.
    pub in_flight: &'a mut Operations,
    /// The kernel.
    pub io: &'a mut I,
}

impl<I: Io> PumpIo<'_, I> {
    pub(super) fn receive(&mut self, many: bool) {
        let side = self.direction.source();
        self.in_flight.insert(Operation::Receive(side));
        self.io.receive(side, many);
    }

    pub(super) fn in_flight(&self, operation: Operation) -> bool {
        self.in_flight.contains(operation)
    }
}

/// How far a direction is with splicing.
#[derive(Debug, PartialEq, Eq, Default)]
pub enum Bulk {
    /// It is copied.
    #[default]
    No,
    /// It has shown to be bulk: once its receive has ended and its buffers are sent, it is spliced.
    Wanted,
    /// It is spliced.
    Splicing(Splicing),
}

/// The state of a direction that is spliced.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Splicing {
    /// Held while `pending` may be above zero.
    pub(super) pipe: Option<PipeId>,
    /// Bytes in the pipe.
    pub(super) pending: u32,
    /// Wake-ups in a row that moved little.
    pub(super) small_wakes: u8,
}

impl Bulk {
    /// Bytes that wait in a pipe.
    #[must_use]
    pub const fn pending(&self) -> u32 {
        match self {
            Self::Splicing(splicing) => splicing.pending,
            Self::No | Self::Wanted => 0,
        }
    }
}

impl Pump {
    /// Whether nothing will be sent to its sink any more.
    pub(super) fn is_finished(&self) -> bool {
        self.sink != Sink::Open
    }

    /// Sends its sink nothing any more.
    pub(super) fn finish(&mut self) {
        if self.sink == Sink::Open {
            self.sink = Sink::Finished;
        }
    }

    /// Buffers that hold its bytes.
    pub(super) const fn buffers_held(&self) -> u16 {
        self.queue.count() + (self.sending > 0) as u16
    }

    /// Whether bytes are held that the sink has not taken.
    pub(super) const fn holds_bytes(&self) -> bool {
        self.buffers_held() > 0 || self.bulk.pending() > 0
    }

    /// The sink has taken so many bytes.
    pub(super) const fn count(&mut self, bytes: u64) {
        self.delivered += bytes;
        self.has_room = false;
    }

    /// The first `bytes` of the source went to the sink when it was connected to; the first buffer
    /// holds them, or will.
    pub(super) fn note_early(&mut self, bytes: u32) {
        if bytes > 0 {
            debug_assert!(self.delivered == 0 && self.sending == 0);
            self.sent = bytes;
            self.count(bytes.into());
        }
    }

    /// Goes back to copying.
    pub(super) fn copy_again(&mut self, full_reads: i16) {
        self.bulk = Bulk::No;
        self.full_reads = full_reads;
    }
}
