//! Connecting: one attempt after the other, each to another server where there is one, until one
//! succeeds or none is left.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::proxy::io::{Closing, First, Io, Operation, Operations};
use crate::proxy::pump::{Pump, Source};
use crate::proxy::relay::lost;
use crate::proxy::rules::BackendRules;
use crate::proxy::session::Session;
use crate::proxy::state::{Attempt, Connecting, Next, Outcome, PickError, State};
use crate::proxy::timer_wheel::Tick;
use crate::sys::ring::Readiness;
use crate::terms::{ConnectFailure, Direction, End, Reason, Side};

/// How long a TCP client that sent nothing but its end is still connected for. It may be one that
/// only wants to read, and it may be gone: nothing tells them apart.
const SILENT_CLIENT_GRACE: Duration = Duration::from_secs(1);

/// Between two checks whether a client of a unix socket has closed it. A poll of `io_uring` cannot
/// wait for that: it also ends with `POLLRDHUP` (`IO_POLL_UNMASK` in the kernel's `poll.c`), which
/// is there as soon as the client has shut down its direction.
const CLOSE_CHECK_INTERVAL: Duration = Duration::from_millis(250);

impl Session {
    /// The session goes to a backend with these settings.
    pub(super) fn follow_backend(&mut self, backend: BackendRules) {
        self.rules.follow(backend);
    }

    /// Begins an attempt to connect to the server that was chosen.
    pub(super) fn connect_to<I: Io>(
        &mut self,
        choice: Result<Attempt, PickError>,
        now: Tick,
        io: &mut I,
    ) -> Next {
        if !self.needs_server() {
            return Next::Stay;
        }
        let Attempt { endpoint, timeout, sends_proxy } = match choice {
            Ok(attempt) => attempt,
            Err(PickError::NoRoute) => return Next::abort(End::new(Reason::Refused, b"PR")),
            Err(PickError::ClientLeft) => return self.client_left(),
            Err(PickError::NoServer) => return Next::abort(End::new(Reason::NoServer, b"SC")),
            Err(PickError::AllFull) => return self.on_all_full(),
            Err(PickError::QueueFull) => return Self::on_queue_full(),
        };
        let early = match self.begin_connect(sends_proxy, io) {
            Ok(early) => early,
            Err(ConnectFailure::Exhausted) => {
                self.outcome = Some(Outcome::ConnectFailed(ConnectFailure::Exhausted));
                return Next::abort(End::new(Reason::Exhausted, b"RC"));
            }
            Err(failure) => {
                self.route.endpoint = Some(endpoint);
                self.route.attempts += 1;
                return self.attempt_failed(failure);
            }
        };
        self.route.endpoint = Some(endpoint);
        self.route.attempts += 1;
        self.in_flight.insert(Operation::Connect);
        let until = now.after(timeout);
        self.state = State::Connecting(Connecting { started: now, until, early, sends_proxy });
        Next::Stay
    }

    /// Starts a connect, with the first bytes of the client if they are there, unless the server
    /// needs a PROXY header before them (`sends_proxy`). How many of them were taken: the client's
    /// direction keeps them until the server is connected.
    fn begin_connect<I: Io>(
        &mut self,
        sends_proxy: bool,
        io: &mut I,
    ) -> Result<u32, ConnectFailure> {
        if sends_proxy {
            return io.connect(First::Unknown);
        }
        let pump = &mut self.pumps[Direction::In as usize];
        if let Some((buffer, length)) = pump.queue.pop(io.links()) {
            let begun = io.connect(First::Held(&buffer, length));
            pump.queue.push_front(io.links(), buffer, length);
            return begun;
        }
        let is_read = self.in_flight.contains(Operation::Receive(Side::Client));
        io.connect(if is_read { First::Unknown } else { First::AtClient })
    }

    /// The attempt has ended.
    pub(super) fn on_connect_completed<I: Io>(
        &mut self,
        result: Result<(), ConnectFailure>,
        now: Tick,
        io: &mut I,
    ) -> Next {
        let State::Connecting(Connecting { started, early, sends_proxy, .. }) = self.state else {
            return Next::Stay;
        };
        match result {
            Ok(()) if io.is_connected_to_itself() => {
                self.attempt_failed(ConnectFailure::SelfConnect)
            }
            Ok(()) if sends_proxy => self.send_proxy_header(now, io),
            Ok(()) => {
                self.pumps[Direction::In as usize].note_early(early);
                self.on_server_ready(started, now)
            }
            Err(failure) => self.attempt_failed(failure),
        }
    }

    /// Sends the PROXY header, or the rest of it. What the server does not take at once, it takes
    /// before the deadline of the attempt.
    pub(super) fn send_proxy_header<I: Io>(&mut self, now: Tick, io: &mut I) -> Next {
        let State::Connecting(Connecting { started, .. }) = self.state else { return Next::Stay };
        match io.send_proxy_header(self.pumps[Direction::In as usize].buffers_held() > 0) {
            Ok(true) => self.on_server_ready(started, now),
            Ok(false) => {
                self.in_flight.insert(Operation::Ready(Side::Server, Readiness::Writable));
                io.wait_ready(Side::Server, Readiness::Writable);
                Next::Stay
            }
            Err(errno) => self.attempt_failed(lost(errno)),
        }
    }

    fn on_server_ready(&mut self, started: Tick, now: Tick) -> Next {
        self.outcome = Some(Outcome::Connected(micros(now.since(started))));
        self.route.connect_took = NonZeroU32::new(micros(now.since(self.started)).max(1));
        Next::Relay
    }

    /// The server of the attempt could not be reached, or has failed before a byte was delivered to
    /// it. Another server is tried, and the client does not notice.
    pub(super) fn attempt_failed(&mut self, failure: ConnectFailure) -> Next {
        self.route.connect_took = None;
        self.route.tried.extend(self.route.endpoint.take());
        if self.route.tried.len() > self.rules.retries as usize {
            self.outcome = Some(Outcome::ConnectFailed(failure));
            Next::abort(end_after(failure))
        } else {
            Next::Leave(failure)
        }
    }

    /// The attempt has taken too long. If it is not connected, it still completes: cancelled, or
    /// connected if that was quicker.
    pub(super) fn end_attempt<I: Io>(&mut self, io: &mut I) -> Next {
        if !self.in_flight.contains(Operation::Connect) {
            return self.attempt_failed(ConnectFailure::Timeout);
        }
        if let State::Connecting(connecting) = &mut self.state {
            connecting.until = Tick::NEVER;
            io.cancel(Operation::Connect);
        }
        Next::Stay
    }

    /// Cancels every operation on the server's socket.
    pub(super) fn cancel_server_operations<I: Io>(&self, io: &mut I) {
        for operation in self.in_flight.and(Operations::OF_SERVER).iter() {
            io.cancel(operation);
        }
    }

    /// Closes the connection to a server that has failed. What it had begun to send was never
    /// passed on.
    pub(super) fn close_failed_server<I: Io>(&mut self, io: &mut I) {
        io.close(Side::Server, Closing::Abort);
        let (pump, mut pump_io) = self.pump(Direction::Out, io);
        pump.drop_unsent(&mut pump_io);
        *pump = Pump::default();
    }

    /// Checks whether the client has left before a server is connected, and decides when to check
    /// again. Nobody reads an answer to a client that has closed its unix socket: it does not wait
    /// in the queue for a server. What it has sent is still delivered to a server that has room.
    pub(super) fn check_client<I: Io>(&mut self, now: Tick, io: &mut I) -> Next {
        let pump = &self.pumps[Direction::In as usize];
        let silent = pump.source == Source::Ended && !pump.holds_bytes();
        let queued = matches!(self.state, State::Queued(_));
        let check_at = self.route.client_check_at;
        self.route.client_check_at = match io.has_closed(Side::Client) {
            Some(true) if silent || queued => return self.client_left(),
            Some(_) if silent || queued => now.after(CLOSE_CHECK_INTERVAL),
            None if silent && now >= check_at => return self.client_left(),
            None if silent => check_at.min(now.after(SILENT_CLIENT_GRACE)),
            _ => Tick::NEVER,
        };
        Next::Stay
    }

    /// The client has left, or is as good as gone.
    pub(super) const fn client_left(&self) -> Next {
        let queued = matches!(self.state, State::Queued(_));
        Next::abort(End::new(Reason::ClientLeft, if queued { b"CQ" } else { b"CC" }))
    }
}

/// Microseconds, 71 minutes at most: what a session keeps of the time of a connect.
fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

const fn end_after(failure: ConnectFailure) -> End {
    match failure {
        ConnectFailure::Timeout => End::new(Reason::ConnectTimeout, b"sC"),
        ConnectFailure::NoPort | ConnectFailure::Exhausted => End::new(Reason::Exhausted, b"RC"),
        _ => End::new(Reason::ConnectFailed, b"SC"),
    }
}
