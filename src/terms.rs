//! The words that every part of the program shares: sides, directions, failures, and how a
//! session ends.
//!
//! The names here are a contract with dashboards and log files: `name()` is what they see.

use std::fmt;

/// Which of the two connections of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The connection that was accepted.
    Client,
    /// The connection that we made.
    Server,
}

impl Side {
    /// Both, client first.
    pub const BOTH: [Self; 2] = [Self::Client, Self::Server];

    /// The other end of the session.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Client to server.
    In,
    /// Server to client.
    Out,
}

impl Direction {
    /// Both, in first.
    pub const BOTH: [Self; 2] = [Self::In, Self::Out];

    /// The side whose bytes flow this way.
    #[must_use]
    pub const fn source(self) -> Side {
        match self {
            Self::In => Side::Client,
            Self::Out => Side::Server,
        }
    }

    /// The side that they flow to.
    #[must_use]
    pub const fn sink(self) -> Side {
        self.source().other()
    }

    /// The other way.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::In => Self::Out,
            Self::Out => Self::In,
        }
    }

    /// The value of the label `direction`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// Why a session ended: the label `reason` of `evenkeel_sessions_closed_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Both directions ended in order, everything delivered.
    Done,
    /// The client went while we were connecting, or queued.
    ClientLeft,
    /// The client reset the connection; passed on as a reset after the data before it.
    ClientReset,
    /// The server reset the connection; passed on as a reset after the data before it.
    ServerReset,
    /// No byte in either direction for `idle_timeout`.
    IdleTimeout,
    /// One direction has ended and the other was silent for `half_closed_timeout`.
    HalfClosedTimeout,
    /// The PROXY header or the `ClientHello` was not complete within `preface_timeout`.
    PrefaceTimeout,
    /// The PROXY header or the `ClientHello` is invalid.
    BadPreface,
    /// The client that the PROXY header names may not connect, or not now; or no route of the
    /// frontend matches, and it has no backend for what matches none.
    Refused,
    /// No server is up.
    NoServer,
    /// The last attempt to connect was refused, or the server unreachable.
    ConnectFailed,
    /// The last attempt to connect took longer than `connect_timeout`.
    ConnectTimeout,
    /// Waited in the queue for longer than `queue_timeout`.
    QueueTimeout,
    /// Every server is at its `sessions_max`, and no place to wait.
    QueueFull,
    /// The server went down, and `on_down = "close"`.
    ServerDown,
    /// The deadline of a drain passed.
    DrainTimeout,
    /// An operator's order.
    Killed,
    /// Out of descriptors, ports, buffers or memory.
    Exhausted,
    /// A bug in evenkeel.
    Internal,
}

impl Reason {
    /// Every reason, in the order of declaration: `ALL[r as usize] == r`.
    pub const ALL: [Self; 19] = [
        Self::Done,
        Self::ClientLeft,
        Self::ClientReset,
        Self::ServerReset,
        Self::IdleTimeout,
        Self::HalfClosedTimeout,
        Self::PrefaceTimeout,
        Self::BadPreface,
        Self::Refused,
        Self::NoServer,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::QueueTimeout,
        Self::QueueFull,
        Self::ServerDown,
        Self::DrainTimeout,
        Self::Killed,
        Self::Exhausted,
        Self::Internal,
    ];

    /// The value of the label `reason`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::ClientLeft => "client_left",
            Self::ClientReset => "client_reset",
            Self::ServerReset => "server_reset",
            Self::IdleTimeout => "idle_timeout",
            Self::HalfClosedTimeout => "half_closed_timeout",
            Self::PrefaceTimeout => "preface_timeout",
            Self::BadPreface => "bad_preface",
            Self::Refused => "refused",
            Self::NoServer => "no_server",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::QueueTimeout => "queue_timeout",
            Self::QueueFull => "queue_full",
            Self::ServerDown => "server_down",
            Self::DrainTimeout => "drain_timeout",
            Self::Killed => "killed",
            Self::Exhausted => "exhausted",
            Self::Internal => "internal",
        }
    }
}

/// How a session ended: the reason, and the two letters of HAProxy's termination state
/// (who or what ended it, in which phase; HAProxy configuration manual, 8.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// For the metrics.
    pub reason: Reason,
    /// For the log, with the reason.
    pub letters: Letters,
}

impl End {
    /// `reason` with its `letters`, for example `b"CD"`.
    #[must_use]
    pub const fn new(reason: Reason, letters: &[u8; 2]) -> Self {
        Self { reason, letters: Letters(*letters) }
    }
}

/// Two ASCII letters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Letters([u8; 2]);

impl fmt::Display for Letters {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}", char::from(self.0[0]), char::from(self.0[1]))
    }
}

impl fmt::Debug for Letters {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Why one attempt to connect to a server failed: the label `reason` of
/// `evenkeel_server_connect_failures_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectFailure {
    /// ECONNREFUSED: nobody listens there. Of a unix socket also: there is none at that path.
    Refused,
    /// EAGAIN of a unix socket: its backlog is full. The server lives.
    Busy,
    /// `connect_timeout` passed, or ETIMEDOUT.
    Timeout,
    /// No route, network or host down.
    Unreachable,
    /// EPERM or EACCES: a firewall of this machine, or the permissions of a unix socket.
    Denied,
    /// EADDRNOTAVAIL: no local port is left.
    NoPort,
    /// The source address cannot be used: it is not an address of this machine, not of the family
    /// of the server, or `CAP_NET_ADMIN` is missing.
    NoSource,
    /// EMFILE, ENFILE, ENOBUFS, ENOMEM: this machine is out of something.
    Exhausted,
    /// Connected, and reset before a byte was delivered to it.
    Reset,
    /// The socket connected to itself: nobody listens on that port of this machine, and the kernel
    /// chose it as the source port too.
    SelfConnect,
    /// Any other errno.
    Other,
}

impl ConnectFailure {
    /// Every failure, in the order of declaration: `ALL[f as usize] == f`.
    pub const ALL: [Self; 11] = [
        Self::Refused,
        Self::Busy,
        Self::Timeout,
        Self::Unreachable,
        Self::Denied,
        Self::NoPort,
        Self::NoSource,
        Self::Exhausted,
        Self::Reset,
        Self::SelfConnect,
        Self::Other,
    ];

    /// Whether it does not speak for a server that is down: this machine lacked something, or the
    /// server lives and is busy.
    #[must_use]
    pub const fn spares_server(self) -> bool {
        matches!(self, Self::Busy | Self::NoPort | Self::NoSource | Self::Exhausted)
    }

    /// The value of the label `reason`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Denied => "denied",
            Self::NoPort => "no_port",
            Self::NoSource => "no_source",
            Self::Exhausted => "exhausted",
            Self::Reset => "reset",
            Self::SelfConnect => "self_connect",
            Self::Other => "other",
        }
    }
}

/// Why a connection was turned away before it became a session: the label `reason` of
/// `evenkeel_sessions_refused_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Beyond a limit of sessions: `sessions_max` at the end of a drain, `clients_max`.
    Limit,
    /// Faster than `rate.sessions` or `rate.per_client`.
    Rate,
    /// Not in `allow`, or in `deny`.
    Denied,
    /// A PROXY header is required, and those of this peer are not believed.
    BadProxyHeader,
}

impl Refusal {
    /// Every refusal, in the order of declaration.
    pub const ALL: [Self; 4] = [Self::Limit, Self::Rate, Self::Denied, Self::BadProxyHeader];

    /// The value of the label `reason`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Rate => "rate",
            Self::Denied => "denied",
            Self::BadProxyHeader => "bad_proxy_header",
        }
    }
}

/// A number with its noun: "1 worker", "2 workers".
#[must_use]
pub fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// A server, for the life of the process: never given to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub u32);

/// An endpoint of a server, for the life of the process: never given to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId {
    /// Its server.
    pub server: ServerId,
    /// Among all endpoints.
    pub number: u32,
}

/// The place of a worker among the workers, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WorkerIndex(pub usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_at_its_own_place() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        for (index, failure) in ConnectFailure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, index);
        }
    }
}
