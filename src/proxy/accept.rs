//! Accepting, as decisions without I/O: when a listener's socket accepts one connection, or as many
//! as come, when it stops, and what happens while descriptors are exhausted. Clients that cannot be
//! served wait, unaccepted, in the backlog of the kernel.

use std::mem;
use std::time::Duration;

use crate::proxy::timer_wheel::Tick;

/// With less room than this for more sessions, connections are accepted one at a time, so that at
/// most one connection of a listener is accepted that has to wait for its session: a multishot
/// accept takes everything that waits in the backlog at once.
pub(super) const ROOM_FOR_MULTISHOT: u32 = 2048;

/// How long after an accept failed for lack of descriptors the next one is tried, if no session of
/// this worker has released any.
const RETRY: Duration = Duration::from_millis(100);

/// What a listener's socket is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing changes.
    Nothing,
    /// Accept one connection.
    ArmOne,
    /// Accept connections until cancelled.
    ArmMany,
    /// Cancel the accept.
    Cancel,
    /// Take one connection that waits in the backlog, if there is one, and wait for none.
    DrainBacklog,
    /// Close the socket: nothing waits in its backlog.
    Stop,
}

/// What decides the next action of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Situation {
    /// Sessions that may still be opened.
    pub room: u32,
    /// Connections of this listener that were accepted and wait for a session.
    pub parked: usize,
    /// Descriptors are exhausted: see [`DescriptorShortage`].
    pub starved: bool,
}

/// What came of an accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// A connection; whether nearly all descriptors are in use now.
    Client {
        /// Nearly all descriptors are in use.
        fds_low: bool,
    },
    /// No descriptor or memory is left.
    Exhausted,
    /// No connection: cancelled, or the client was gone.
    Nothing,
}

/// The accept of one listening socket.
#[derive(Debug)]
pub struct Gate {
    accept: State,
    ending: Ending,
    /// The accept is cancelled and armed again: it takes what waits in the backlog.
    looks: bool,
    /// While draining: the next connection is taken only after the last one has a session.
    fds_low: bool,
    /// While draining: the backlog was found empty.
    empty: bool,
}

/// Whether the listener is still wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    /// What waits in the backlog is accepted.
    Drains,
    /// Another process accepts from the same socket.
    HandedOver,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    One,
    Many,
    Cancelling,
    Draining,
    Stopped,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// Nothing is armed.
    #[must_use]
    pub const fn new() -> Self {
        Self { accept: State::Idle, ending: Ending::No, looks: false, fds_low: false, empty: false }
    }

    /// Of a listener whose socket is closed.
    #[must_use]
    pub const fn stopped() -> Self {
        Self {
            accept: State::Stopped,
            ending: Ending::Drains,
            looks: false,
            fds_low: false,
            empty: true,
        }
    }

    /// The listener is not wanted any more: what waits in its backlog is still accepted.
    pub const fn drain(&mut self) {
        if matches!(self.ending, Ending::No) {
            self.ending = Ending::Drains;
        }
    }

    /// Another process accepts from the same socket. What waits in the backlog is still accepted
    /// here as long as there is room: the kernel may have announced it to this accept alone. With
    /// no room, the other process accepts it.
    pub const fn hand_over(&mut self) {
        self.ending = Ending::HandedOver;
    }

    /// The accept that is armed, if one is, is to be armed anew.
    pub const fn look_at_backlog(&mut self) {
        self.looks = true;
    }

    /// Whether the listener is not wanted any more: it drains, or was handed over.
    #[must_use]
    pub const fn is_draining(&self) -> bool {
        !matches!(self.ending, Ending::No)
    }

    /// Whether the socket is closed, or to be closed.
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        matches!(self.accept, State::Stopped)
    }

    /// An accept has completed; with `more` it goes on.
    pub fn on_completed(&mut self, more: bool, accepted: Accepted) {
        if let Accepted::Client { fds_low } = accepted {
            self.fds_low = fds_low;
        } else if accepted == Accepted::Exhausted {
            self.fds_low = true;
        } else if self.accept == State::Draining && !more {
            self.empty = true;
        }
        if !more {
            self.accept = State::Idle;
        }
    }

    /// What to do now. The caller does it.
    pub fn next(&mut self, situation: Situation) -> Action {
        let Situation { room, parked, starved } = situation;
        let (accept, action) = match self.accept {
            State::Cancelling | State::Draining | State::Stopped => return Action::Nothing,
            State::One | State::Many if self.is_draining() || mem::take(&mut self.looks) => {
                (State::Cancelling, Action::Cancel)
            }
            State::Idle if self.is_draining() => {
                let full = room == 0 || parked > 0 || starved || self.fds_low;
                if self.empty || (self.ending == Ending::HandedOver && full) {
                    (State::Stopped, Action::Stop)
                } else if starved || (self.fds_low && parked > 0) {
                    return Action::Nothing;
                } else {
                    (State::Draining, Action::DrainBacklog)
                }
            }
            state => {
                let full = room == 0 || parked > 0 || starved;
                match state {
                    State::Idle if full => return Action::Nothing,
                    State::Idle if room < ROOM_FOR_MULTISHOT => (State::One, Action::ArmOne),
                    State::Idle => (State::Many, Action::ArmMany),
                    State::Many if full || room < ROOM_FOR_MULTISHOT => {
                        (State::Cancelling, Action::Cancel)
                    }
                    _ => return Action::Nothing,
                }
            }
        };
        self.accept = accept;
        action
    }
}

/// A worker's lack of descriptors: accepting pauses, and goes on when one was released or after
/// [`RETRY`].
#[derive(Debug, Default)]
pub struct DescriptorShortage {
    until: Option<Tick>,
    /// Connections that were accepted with the last descriptors wait until one is released.
    holds_parked: bool,
    /// A descriptor is released as soon as the ring is entered.
    releasing: bool,
}

impl DescriptorShortage {
    /// No descriptor is left.
    pub fn begin(&mut self, now: Tick) {
        self.until = Some(now.after(RETRY));
        self.holds_parked = true;
    }

    /// Once a turn: whether a session has `released` a descriptor in it, and whether there
    /// `are_left` any.
    pub fn turn(&mut self, now: Tick, released: bool, are_left: impl FnOnce() -> bool) {
        let released = mem::replace(&mut self.releasing, released);
        let retry = self.until.is_some_and(|until| now >= until);
        if released || retry {
            self.until = None;
        }
        if released || (self.holds_parked && retry && are_left()) {
            self.holds_parked = false;
        }
        if self.holds_parked && self.until.is_none() {
            self.until = Some(now.after(RETRY));
        }
    }

    /// Whether nothing is to be accepted.
    #[must_use]
    pub const fn is_starved(&self) -> bool {
        self.until.is_some()
    }

    /// Whether connections that were accepted have to wait for a descriptor.
    #[must_use]
    pub const fn holds_parked(&self) -> bool {
        self.holds_parked
    }

    /// When to call [`DescriptorShortage::turn`] though nothing happens.
    #[must_use]
    pub fn next(&self, now: Tick) -> Option<Tick> {
        if self.holds_parked && self.releasing { Some(now) } else { self.until }
    }
}
