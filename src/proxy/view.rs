//! What the worker and the tests see of a session.

use std::time::Duration;

use crate::proxy::io::Operations;
use crate::proxy::pump::Pump;
use crate::proxy::session::Session;
use crate::proxy::state::{Outcome, State};
use crate::proxy::timer_wheel::Tick;
use crate::terms::{Direction, End, Reason, ServerId};

impl Session {
    /// Whether nothing is held any more: no descriptor, buffer, pipe or operation.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The state in a word, for operators.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        match &self.state {
            State::Preface(_) => "preface",
            State::Routing => "routing",
            State::Queued(_) => "queued",
            State::Connecting(_) | State::Leaving => "connecting",
            State::Relaying(_) if self.pumps.iter().any(Pump::is_finished) => "half_closed",
            State::Relaying(_) => "relaying",
            State::Flushing(_) | State::Lingering(_) | State::Joining(_) | State::Closed => {
                "closing"
            }
        }
    }

    /// Operations in flight.
    #[must_use]
    pub const fn in_flight(&self) -> Operations {
        self.in_flight
    }

    /// Takes what the caller is to count after an event.
    pub const fn take_outcome(&mut self) -> Option<Outcome> {
        self.outcome.take()
    }

    /// The server of the attempt in flight, or the one connected to.
    #[must_use]
    pub fn server(&self) -> Option<ServerId> {
        self.route.endpoint.map(|endpoint| endpoint.server)
    }

    /// Buffers that hold its bytes.
    #[must_use]
    pub fn buffers_held(&self) -> u32 {
        self.pumps.iter().map(|pump| u32::from(pump.buffers_held())).sum()
    }

    /// When bytes last moved, or the session began.
    #[must_use]
    pub const fn last_progress(&self) -> Tick {
        match &self.state {
            State::Relaying(relaying) => relaying.progress,
            State::Flushing(flushing) => flushing.progress,
            _ => self.started,
        }
    }

    /// The end of a session that is closed because it holds buffers and others need them.
    #[must_use]
    pub const fn exhausted(&self) -> End {
        End::new(Reason::Exhausted, if self.is_connected() { b"RD" } else { b"RC" })
    }

    /// How it ended; none while it goes on.
    #[must_use]
    pub const fn end(&self) -> Option<End> {
        self.end
    }

    /// When the client was accepted.
    #[must_use]
    pub const fn started(&self) -> Tick {
        self.started
    }

    /// From accept to the established connection; none if there was none.
    #[must_use]
    pub fn connect_took(&self) -> Option<Duration> {
        self.route.connect_took.map(|micros| Duration::from_micros(micros.get().into()))
    }

    /// Attempts that were made after the first.
    #[must_use]
    pub const fn retries(&self) -> u32 {
        self.route.attempts.saturating_sub(1)
    }

    /// Bytes that the kernel has taken for the sink of this direction.
    #[must_use]
    pub const fn sent(&self, direction: Direction) -> u64 {
        self.pumps[direction as usize].delivered
    }

    /// Of the bytes [sent](Self::sent), those that the sink's kernel has acknowledged, as far as is
    /// known: a connection that ends in order is taken to deliver all of them.
    #[must_use]
    pub fn delivered(&self, direction: Direction) -> u64 {
        self.sent(direction).saturating_sub(u64::from(self.undelivered[direction as usize]))
    }
}
