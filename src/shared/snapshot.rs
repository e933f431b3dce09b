//! A snapshot of the balancer: what the control thread knows at one moment, for the metrics, the
//! status page and the control socket.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{AdminState, Balance, BindAddress};
use crate::shared::counters::{BackendCells, Count, PerWorker};
use crate::shared::phase::Phase;
use crate::shared::queue::Queue;
use crate::shared::server::ServerShared;
use crate::shared::table::FrontendShared;
use crate::sys::address::Address;

/// The state at one time.
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
    /// Upgrades that led to this process.
    pub upgrades_done: u64,
    /// Upgrades that changed nothing: the new process did not start.
    pub upgrades_failed: u64,
    /// `global.sessions_max` in force.
    pub sessions_max: u32,
    /// In the order of the file.
    pub frontends: Vec<FrontendStatus>,
    /// In the order of the file.
    pub backends: Vec<BackendStatus>,
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
    /// The addresses that it listens on.
    pub addresses: Vec<BindAddress>,
    /// Its counters.
    pub shared: Arc<FrontendShared>,
}

/// A backend.
#[derive(Debug)]
pub struct BackendStatus {
    /// Its name.
    pub name: Arc<str>,
    /// How it chooses a server.
    pub balance: Balance,
    /// Sessions that wait for a server.
    pub queue: Arc<Queue>,
    /// Its counters.
    pub cells: Arc<BackendCells>,
}

/// A server.
#[derive(Debug, Clone)]
pub struct ServerStatus {
    /// Its backend.
    pub backend: Arc<str>,
    /// Its addresses; none while its host name has none.
    pub endpoints: Vec<EndpointStatus>,
    /// Its address as it is written in the configuration.
    pub written: Arc<str>,
    /// Whether one of its endpoints is up.
    pub up: bool,
    /// As set by the configuration or the operator.
    pub admin: AdminState,
    /// As set by the configuration or the operator.
    pub weight: u32,
    /// Used when all the others are down.
    pub backup: bool,
    /// Since it was removed from the configuration, if it was; it is reported until its last
    /// session ends.
    pub removed: Option<Duration>,
    /// Since it went up or down.
    pub since: Duration,
    /// Since the configuration or the operator set `admin`.
    pub admin_since: Duration,
    /// The results of its probes.
    pub probes: Arc<ProbeCounts>,
    /// The last probe of any of its endpoints.
    pub last_probe: LastProbe,
    /// The mean time of a connect within the last minute; none if there was no connect.
    pub connect_mean: Option<Duration>,
    /// Its name and counters.
    pub shared: Arc<ServerShared>,
}

/// An endpoint of a server.
#[derive(Debug, Clone)]
pub struct EndpointStatus {
    /// Its address.
    pub address: Address,
    /// Whether its probes (or their absence) say that it serves.
    pub up: bool,
    /// Sessions that hold it now.
    pub sessions: u32,
    /// Its last probe.
    pub last_probe: LastProbe,
}

/// The last probe of an endpoint or of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastProbe {
    /// Its result, for the operator, or why there is none: "not probed", "not probed yet".
    pub detail: Arc<str>,
    /// From connect to answer; none if nothing answered in time.
    pub duration: Option<Duration>,
}

impl LastProbe {
    /// There is none, and why.
    #[must_use]
    pub fn none(why: &str) -> Self {
        Self { detail: why.into(), duration: None }
    }

    /// There was another. Its text is mostly the same, and is then kept.
    pub fn set(&mut self, detail: &str, duration: Option<Duration>) {
        if *self.detail != *detail {
            self.detail = detail.into();
        }
        self.duration = duration;
    }
}

/// The results of the probes of one server: one cell, of the control thread, and what is carried.
pub type ProbeCounts = PerWorker<ProbeCell>;

/// Results of probes.
#[derive(Debug, Default)]
pub struct ProbeCell {
    /// By [`ProbeResult`].
    pub results: [Count; ProbeResult::ALL.len()],
}

/// The result of one probe: the label `result` of `evenkeel_probes_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeResult {
    /// The check passed.
    Passed,
    /// The connection was refused.
    Refused,
    /// No answer in time.
    Timeout,
    /// No route, network or host down.
    Unreachable,
    /// Another answer than the expected one: a status, bytes, a TLS handshake.
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
