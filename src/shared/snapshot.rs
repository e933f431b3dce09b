//! A snapshot of the balancer: what the control thread knows at one moment, for the metrics, the
//! status page and the control socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::AdminState;
use crate::shared::counters::{Count, Histogram};
use crate::shared::phase::Phase;
use crate::shared::server::ServerShared;
use crate::shared::table::FrontendShared;

/// What is known at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// Running, draining, stopped.
    pub phase: Phase,
    /// Since the program's start.
    pub uptime: Duration,
    /// Of the table in force.
    pub table_version: u64,
    /// Reloads that took effect.
    pub reloads_done: u64,
    /// Reloads that changed nothing: a bad file, an address in use, too few descriptors.
    pub reloads_failed: u64,
    /// `global.sessions_max` in force.
    pub sessions_max: u32,
    /// In the order of the file.
    pub frontends: Vec<FrontendStatus>,
    /// Every server of every backend, in the order of the file; then removed ones that still have
    /// sessions.
    pub servers: Vec<ServerStatus>,
}

/// A frontend.
#[derive(Debug)]
pub struct FrontendStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Its backend.
    pub backend: Arc<str>,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    /// Its counters.
    pub shared: Arc<FrontendShared>,
}

/// A server.
#[derive(Debug)]
pub struct ServerStatus {
    /// Its backend.
    pub backend: Arc<str>,
    /// Where it is; none while its name has no address.
    pub address: Option<SocketAddr>,
    /// `address` as the configuration has it.
    pub written: Arc<str>,
    /// Whether its probes (or their absence) say that it serves.
    pub up: bool,
    /// As set by the file or an operator.
    pub admin: AdminState,
    /// As set by the file or an operator.
    pub weight: u32,
    /// Used when all the others are down.
    pub backup: bool,
    /// In a file that is no longer in force; kept until its last session ends.
    pub removed: bool,
    /// Since it came up or went down.
    pub since: Duration,
    /// How its probes went.
    pub probes: Arc<ProbeCounts>,
    /// What the last probe said, for people; empty before the first.
    pub last_probe: String,
    /// Its name and counters.
    pub shared: Arc<ServerShared>,
}

/// How the probes of one server went; the control thread alone writes.
#[derive(Debug, Default)]
pub struct ProbeCounts {
    /// By [`ProbeResult`].
    pub results: [Count; ProbeResult::ALL.len()],
    /// From connect to answer.
    pub duration: Histogram,
}

/// How one probe went: the label `result` of `evenkeel_probes_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeResult {
    /// As it should.
    Passed,
    /// Nobody listens.
    Refused,
    /// No answer in time.
    Timeout,
    /// No route, network or host down.
    Unreachable,
    /// An answer with a wrong status, or no HTTP.
    BadAnswer,
    /// Anything else.
    Error,
}

impl ProbeResult {
    /// Every result, in the order of declaration.
    pub const ALL: [Self; 6] = [
        Self::Passed,
        Self::Refused,
        Self::Timeout,
        Self::Unreachable,
        Self::BadAnswer,
        Self::Error,
    ];

    /// The value of the label `result`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::BadAnswer => "bad_answer",
            Self::Error => "error",
        }
    }
}
