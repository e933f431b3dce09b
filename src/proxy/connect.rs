//! Connecting: one attempt after the other, each on another server where there is one, until one
//! stands or none is left.

use std::time::Duration;

use crate::proxy::kernel::{Attempt, Closing, Kernel, Operation, Unserved};
use crate::proxy::pump::Source;
use crate::proxy::session::{Session, State};
use crate::proxy::wheel::Moment;
use crate::terms::{ConnectFailure, Direction, End, Reason};

/// How long a client that sent nothing but its end is still connected for: it may be one that only
/// wants to read, and it may be gone; nothing tells them apart.
const SILENT_CLIENT_GRACE: Duration = Duration::from_secs(1);

impl Session {
    /// Begins an attempt, or ends the session where none can be made.
    pub(super) fn attempt<K: Kernel>(&mut self, now: Moment, kernel: &mut K) {
        self.attempt_started = now;
        match kernel.connect(&self.tried) {
            Ok(Attempt { endpoint, timeout }) => {
                self.endpoint = Some(endpoint);
                self.attempts += 1;
                self.attempt_until = now.after(timeout);
                self.in_flight.insert(Operation::Connect);
                self.state = State::Connecting;
            }
            Err(unserved) => {
                let end = match unserved {
                    Unserved::NoServer => End::new(Reason::NoServer, b"SC"),
                    Unserved::AllFull => End::new(Reason::QueueFull, b"SQ"),
                    Unserved::Exhausted => End::new(Reason::Exhausted, b"RC"),
                };
                self.give_up(end, kernel);
            }
        }
    }

    /// The attempt has ended.
    pub(super) fn on_connected<K: Kernel>(
        &mut self,
        result: Result<(), ConnectFailure>,
        now: Moment,
        kernel: &mut K,
    ) {
        if self.state != State::Connecting {
            return;
        }
        let result = result.and_then(|()| {
            let itself = !kernel.connected(now.since(self.attempt_started));
            if itself { Err(ConnectFailure::Itself) } else { Ok(()) }
        });
        match result {
            Ok(()) => {
                self.connect_took = Some(now.since(self.started));
                self.state = State::Relaying;
                self.progress = now;
                self.until = Moment::NEVER;
                for direction in Direction::BOTH {
                    self.advance(direction, now, kernel);
                }
            }
            Err(failure) => self.on_attempt_failed(failure, kernel),
        }
    }

    /// The server of the attempt could not be reached, or broke before a byte was delivered to it:
    /// another one gets the session, which it never notices.
    pub(super) fn on_attempt_failed<K: Kernel>(&mut self, failure: ConnectFailure, kernel: &mut K) {
        kernel.connect_failed(failure);
        self.connect_took = None;
        self.tried.extend(self.endpoint.take());
        if self.tried.len() > self.rules.retries as usize {
            self.give_up(last_failure(failure), kernel);
        } else {
            self.state = State::Leaving;
            self.cancel_of_server(kernel);
        }
    }

    /// The attempt has taken too long. It still answers: that it was cancelled, or, if it was
    /// quicker, that it stands.
    pub(super) fn end_attempt<K: Kernel>(&mut self, kernel: &mut K) {
        self.attempt_until = Moment::NEVER;
        kernel.cancel(Operation::Connect);
    }

    /// The client's end is here before a server is.
    pub(super) fn on_end_while_connecting(&mut self, now: Moment) {
        let pump = &self.pumps[Direction::In as usize];
        if pump.source == Source::Ended && self.until == Moment::NEVER {
            self.until = now.after(SILENT_CLIENT_GRACE);
        }
    }

    /// The client went, or is as good as gone.
    pub(super) fn client_left<K: Kernel>(&mut self, kernel: &mut K) {
        let end = End::new(Reason::ClientLeft, b"CC");
        self.finish(end, Closing::Abort, Closing::Abort, kernel);
    }

    /// The client cannot be served, and is told so by a reset.
    fn give_up<K: Kernel>(&mut self, end: End, kernel: &mut K) {
        self.finish(end, Closing::Abort, Closing::Abort, kernel);
    }
}

const fn last_failure(failure: ConnectFailure) -> End {
    match failure {
        ConnectFailure::Timeout => End::new(Reason::ConnectTimeout, b"sC"),
        ConnectFailure::NoPort | ConnectFailure::Exhausted => End::new(Reason::Exhausted, b"RC"),
        _ => End::new(Reason::ConnectFailed, b"SC"),
    }
}
