//! The preface of a connection: the PROXY header and the `ClientHello`, which are read before a
//! server is chosen. Until it is complete, the client's bytes stay in its socket.

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod header;
mod hello;
pub(super) mod origin;
mod reading;

use std::time::Duration;

use crate::proxy::io::{Io, Operation, PrefaceRead};
use crate::proxy::session::Session;
use crate::proxy::state::{Next, State};
use crate::proxy::timer_wheel::Tick;
use crate::sys::ring::Readiness;
use crate::terms::{End, Reason, Side};

/// Before the next look at a socket that is readable and has nothing new: a quarter of the time
/// that the preface has taken so far, and this at least and at most. A unix socket is readable
/// whatever `SO_RCVLOWAT` is (`unix_poll`); a TCP socket is with an urgent byte (RFC 6093), which
/// no receive passes, and when the memory of the kernel is scarce.
const PAUSE: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(250)];

/// How far the bytes are that have come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress<T> {
    /// All of it, and its length.
    Complete(T, usize),
    /// So many bytes are needed at least.
    Incomplete(usize),
    /// It is not what it should be.
    Invalid,
}

impl Session {
    /// Reads as much of the preface as has come.
    pub(super) fn read_preface<I: Io>(&mut self, now: Tick, io: &mut I) -> Next {
        let started = self.started;
        let State::Preface(preface) = &mut self.state else { return Next::Stay };
        preface.look_at = Tick::NEVER;
        match io.read_preface() {
            PrefaceRead::Complete(backend) => {
                self.follow_backend(backend);
                Next::Route
            }
            PrefaceRead::Incomplete => {
                self.in_flight.insert(Operation::Ready(Side::Client, Readiness::Readable));
                io.wait_ready(Side::Client, Readiness::Readable);
                Next::Stay
            }
            PrefaceRead::Unchanged => {
                let pause = (now.since(started) / 4).clamp(PAUSE[0], PAUSE[1]);
                preface.look_at = now.after(pause);
                Next::Stay
            }
            PrefaceRead::Invalid => Next::abort(End::new(Reason::BadPreface, b"PR")),
            PrefaceRead::ClientLeft => Next::abort(End::new(Reason::ClientLeft, b"CR")),
            PrefaceRead::Refused => Next::abort(End::new(Reason::Refused, b"PR")),
        }
    }

    /// The time to look at the preface again, or its timeout.
    pub(super) fn on_preface_deadline<I: Io>(&mut self, now: Tick, io: &mut I) -> Next {
        match &self.state {
            State::Preface(preface) if now >= preface.until => {
                Next::abort(End::new(Reason::PrefaceTimeout, b"cR"))
            }
            _ => self.read_preface(now, io),
        }
    }
}
