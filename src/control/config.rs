//! The configuration as meant: checked, with every default filled in.
//!
//! `control::file` reads the configuration as written and makes this of it; nothing else does, so
//! that whoever holds a [`Config`] holds a valid one.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

/// Where something stands in the configuration, so that an error of later (a port in use, a name
/// without an address) can name the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// From 1; 0 for what came from the command line.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

/// A whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file it came from; none for `run --bind --server`.
    pub file: Option<PathBuf>,
    /// `[global]`
    pub global: Global,
    /// `[observe]`
    pub observe: Observe,
    /// `[frontend.NAME]`, in the order of the file. Never empty.
    pub frontends: Vec<Frontend>,
    /// `[backend.NAME]`, in the order of the file. Each frontend's is among them.
    pub backends: Vec<Backend>,
}

/// `[global]`
#[derive(Debug, Clone, PartialEq)]
pub struct Global {
    /// Worker threads; none: one a core that this process may use.
    pub workers: Option<NonZeroU32>,
    /// Pin worker n to the nth of those cores.
    pub pin: bool,
    /// Over all frontends; none: what the descriptor limit allows.
    pub sessions_max: Option<(NonZeroU32, Place)>,
    /// Bytes of buffers a worker; none: by the sessions it may have.
    pub buffers: Option<u64>,
    /// After it, what is left of a drain is closed.
    pub drain_timeout: Duration,
    /// Dropped to after binding, when started as root.
    pub user: Option<(String, Place)>,
    /// Likewise; the user's own when only `user` is set.
    pub group: Option<(String, Place)>,
}

/// `[observe]`
#[derive(Debug, Clone, PartialEq)]
pub struct Observe {
    /// /metrics, /healthz, /readyz, the status page; none: off.
    pub bind: Option<(SocketAddr, Place)>,
    /// The control socket; none: off.
    pub control: Option<(PathBuf, Place)>,
    /// Of the operator's log and the session log.
    pub log_format: LogFormat,
    /// One record a session.
    pub log_sessions: bool,
}

/// `observe.log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[frontend.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct Frontend {
    /// NAME
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// Where clients connect; never empty, no address twice in one configuration.
    pub bind: Vec<(SocketAddr, Place)>,
    /// The name of its backend, which exists.
    pub backend: String,
    /// Of this frontend.
    pub sessions_max: Option<NonZeroU32>,
    /// No byte in either direction.
    pub idle_timeout: Duration,
    /// One direction has ended and the other is silent.
    pub half_closed_timeout: Duration,
    /// Of listen(2).
    pub backlog: u32,
}

/// `[backend.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// NAME
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// How a server is chosen.
    pub balance: Balance,
    /// Of one attempt.
    pub connect_timeout: Duration,
    /// Further attempts, each on another server where there is one.
    pub retries: u32,
    /// With every server down.
    pub all_down: AllDown,
    /// How servers are probed.
    pub health: Health,
    /// In the order of the file; never empty.
    pub servers: Vec<Server>,
}

/// `balance`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn, by weight.
    RoundRobin,
}

/// `all_down`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllDown {
    /// Clients are reset.
    Refuse,
    /// All servers are used as if they were up.
    Try,
}

/// `[backend.NAME.health]`
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// What a probe does.
    pub check: Check,
    /// Between two probes of a server that is up.
    pub interval: Duration,
    /// Between two probes of a server that is down.
    pub interval_down: Duration,
    /// Of one probe, connect and answer together.
    pub timeout: Duration,
    /// Probes in a row that must succeed for a server to come up.
    pub rise: u32,
    /// Probes in a row that must fail for it to go down.
    pub fall: u32,
    /// Instead of the server's own.
    pub port: Option<u16>,
}

/// `health.check`
#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    /// No probe: the server is up.
    Off,
    /// A connection is made.
    Tcp,
    /// A request is answered with a status in the range.
    Http(HttpCheck),
}

/// `health.http`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// "GET"
    pub method: String,
    /// "/", with its query
    pub path: String,
    /// The Host header; none: the server's address as written in the configuration.
    pub host: Option<String>,
    /// The first and last status that count as healthy.
    pub status: (u16, u16),
}

/// `[[backend.NAME.server]]`
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Unique in its backend.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// Where it is.
    pub address: ServerAddress,
    /// 0 gets no new session; 1-1000.
    pub weight: u32,
    /// Beyond it: another server.
    pub sessions_max: Option<NonZeroU32>,
    /// Used when all the others are down.
    pub backup: bool,
    /// As the file wants it; an operator may have said otherwise.
    pub state: AdminState,
}

/// `server.address`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAddress {
    /// ip:port
    Ip(SocketAddr),
    /// host:port, resolved at start and as its TTL ends.
    Name {
        /// The host, in lower case, without the last dot.
        host: String,
        /// 1-65535
        port: u16,
    },
}

/// `server.state`, and what an operator sets over the control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminState {
    /// Gets its share.
    Ready,
    /// Gets no new session; its old ones live on; still probed.
    Drain,
    /// As drain, and not probed.
    Maint,
}

impl AdminState {
    /// As the file and an order have it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

impl Config {
    /// `FILE:LINE:COLUMN: `, to begin a message with; `evenkeel: ` for what came from the command
    /// line.
    #[must_use]
    pub fn locate(&self, place: Place) -> String {
        match (&self.file, place) {
            (None, _) => "evenkeel: ".to_owned(),
            (Some(file), Place { line: 0, .. }) => format!("{}: ", file.display()),
            (Some(file), Place { line, column }) => format!("{}:{line}:{column}: ", file.display()),
        }
    }
}

/// Whether the kernel would see the two as one: the same, or with one port, and one of them every
/// address of its family. An IPv6 socket of ours takes no IPv4 connection.
#[must_use]
pub fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let every = a.ip().is_unspecified() || b.ip().is_unspecified();
    a == b || (a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && every)
}

impl Global {
    /// What holds without `[global]`.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            workers: None,
            pin: false,
            sessions_max: None,
            buffers: None,
            drain_timeout: Duration::from_secs(30),
            user: None,
            group: None,
        }
    }
}

impl Default for Global {
    fn default() -> Self {
        Self::new()
    }
}
