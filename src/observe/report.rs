//! A report of the state in plain numbers: /status.json. The status page and the text of `evenkeel
//! status` are made from it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::AdminState;
use crate::observe::log::millis;
use crate::shared::counters::Count;
use crate::shared::phase::Phase;
use crate::shared::snapshot::{
    BackendStatus, EndpointStatus, FrontendStatus, ProbeResult, ServerStatus, Snapshot,
};
use crate::shared::state::SharedState;
use crate::terms::{Direction, Reason, Refusal};

/// The state at one time. Its JSON is a contract: fields are added, not renamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Of the program.
    pub version: String,
    /// "running", "draining", "stopped"
    pub phase: String,
    /// The drain was announced: it begins after `global.drain_delay`.
    #[serde(default)]
    pub draining_soon: bool,
    /// Since the program's start.
    pub uptime_seconds: u64,
    /// Of the table in force.
    pub table_version: u64,
    /// Reloads that took effect.
    pub reloads_done: u64,
    /// Reloads that changed nothing.
    pub reloads_failed: u64,
    /// Open now, those of removed frontends too.
    pub sessions_active: u64,
    /// The limit over all frontends.
    pub sessions_max: u64,
    /// Workers that have paused accepting: no descriptor is left, or `sessions_max` is reached.
    pub workers_paused: u64,
    /// Workers whose event loop is blocked, by their numbers: their sessions make no progress.
    #[serde(default)]
    pub workers_stuck: Vec<usize>,
    /// In the order of the file.
    pub frontends: Vec<FrontendReport>,
    /// In the order of the file.
    #[serde(default)]
    pub backends: Vec<BackendReport>,
    /// In the order of the file; then removed ones that still have sessions.
    pub servers: Vec<ServerReport>,
}

/// A frontend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrontendReport {
    /// Its name.
    pub name: String,
    /// Its backend.
    pub backend: String,
    /// Where it listens.
    pub addresses: Vec<String>,
    /// Open now.
    pub sessions_active: u64,
    /// Begun since the start.
    pub sessions: u64,
    /// Connections refused before they became sessions.
    pub refused: u64,
    /// The same, by reason; reasons that have not occurred are left out.
    #[serde(default)]
    pub refused_by_reason: BTreeMap<String, u64>,
    /// Client to server.
    pub bytes_in: u64,
    /// Server to client.
    pub bytes_out: u64,
    /// How sessions ended, by reason; reasons that have not occurred are left out.
    pub closed: BTreeMap<String, u64>,
}

/// A backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendReport {
    /// Its name.
    pub name: String,
    /// How it chooses a server: "roundrobin".
    pub balance: String,
    /// Its servers in the state "up".
    pub servers_up: u64,
    /// Its servers.
    pub servers: u64,
    /// Whether its backup servers are used, as all others are down or get no new session.
    pub backups_in_use: bool,
    /// Sessions that wait because every server is at its `sessions_max`.
    pub queue_sessions: u64,
    /// As many may wait.
    pub queue_max: u32,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerReport {
    /// Its backend.
    pub backend: String,
    /// Its name.
    pub name: String,
    /// Its only or first address; none while its host name has none.
    pub address: Option<String>,
    /// All its addresses.
    #[serde(default)]
    pub endpoints: Vec<EndpointReport>,
    /// Its address as it is written in the configuration.
    pub written: String,
    /// "up", "down", "drain", "maint", "removed"
    pub state: String,
    /// Whether the probes of one of its endpoints pass, whatever the operator set.
    pub up: bool,
    /// Since it came up or went down, whatever the operator set.
    pub since_seconds: u64,
    /// In `state`: for "up" and "down" as `since_seconds`; for "drain" and "maint" since the order
    /// of the operator or the file; for "removed" since it was removed.
    pub state_since_seconds: u64,
    /// 0-1000
    pub weight: u32,
    /// Used when all the others are down.
    pub backup: bool,
    /// Sessions that hold it now.
    pub sessions_active: u64,
    /// Its limit of sessions; none: no limit.
    #[serde(default)]
    pub sessions_max: Option<u32>,
    /// Connected since the start.
    pub sessions: u64,
    /// Client to server.
    pub bytes_in: u64,
    /// Server to client.
    pub bytes_out: u64,
    /// The mean time of a connect within the last minute, in milliseconds; none if there was none.
    pub connect_mean_ms: Option<f64>,
    /// Attempts that failed.
    pub connect_failures: u64,
    /// Attempts made after another one had failed.
    pub retries: u64,
    /// Probes that passed.
    pub probes_passed: u64,
    /// Probes that failed.
    pub probes_failed: u64,
    /// The result of the last probe, or why there is none: "not probed", "not probed yet", "no
    /// address".
    pub last_probe: String,
    /// How long it took, in milliseconds; none if there was none, or no answer in time.
    pub last_probe_ms: Option<f64>,
}

/// An endpoint of a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointReport {
    /// Its address.
    pub address: String,
    /// Whether its probes pass.
    pub up: bool,
    /// Sessions that hold it now.
    pub sessions_active: u32,
    /// As `last_probe` of the server.
    pub last_probe: String,
    /// As `last_probe_ms` of the server.
    pub last_probe_ms: Option<f64>,
}

/// The state of a server in one word: as set by the operator, or else as found by its probes. The
/// label `state` of `evenkeel_server_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It gets new sessions.
    Up,
    /// Its probes failed, or its host name has no address.
    Down,
    /// Set by the operator: no new session.
    Drain,
    /// Set by the operator: no new session, no probe.
    Maint,
    /// No longer in the configuration; it still has sessions.
    Removed,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Up, Self::Down, Self::Drain, Self::Maint, Self::Removed];

    /// Of `server`.
    #[must_use]
    pub const fn of(server: &ServerStatus) -> Self {
        match (server.removed, server.admin, server.up) {
            (Some(_), _, _) => Self::Removed,
            (_, AdminState::Maint, _) => Self::Maint,
            (_, AdminState::Drain, _) => Self::Drain,
            (_, AdminState::Ready, true) => Self::Up,
            (_, AdminState::Ready, false) => Self::Down,
        }
    }

    /// How long `server` has been in it.
    const fn age(server: &ServerStatus) -> Duration {
        match (server.removed, server.admin) {
            (Some(since_removal), _) => since_removal,
            (None, AdminState::Drain | AdminState::Maint) => server.admin_since,
            (None, AdminState::Ready) => server.since,
        }
    }

    /// The word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Drain => "drain",
            Self::Maint => "maint",
            Self::Removed => "removed",
        }
    }
}

impl Report {
    /// Of `snapshot`, and the counters of the workers now.
    #[must_use]
    pub fn new(snapshot: &Snapshot, shared: &SharedState) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            phase: snapshot.phase.name().to_owned(),
            draining_soon: snapshot.phase == Phase::Running && shared.phase.is_leaving(),
            uptime_seconds: snapshot.uptime.as_secs(),
            table_version: snapshot.table_version,
            reloads_done: snapshot.reloads_done,
            reloads_failed: snapshot.reloads_failed,
            sessions_active: u64::from(shared.sessions.active()),
            sessions_max: u64::from(snapshot.sessions_max),
            workers_paused: shared.cells.sum(|cell| cell.accept_paused.read()),
            workers_stuck: shared.heartbeats.stuck().map(|worker| worker.0).collect(),
            frontends: snapshot.frontends.iter().map(FrontendReport::new).collect(),
            backends: snapshot
                .backends
                .iter()
                .map(|backend| BackendReport::new(backend, &snapshot.servers))
                .collect(),
            servers: snapshot.servers.iter().map(ServerReport::new).collect(),
        }
    }
}

impl BackendReport {
    fn new(backend: &BackendStatus, servers: &[ServerStatus]) -> Self {
        let own = || {
            let is_own =
                |server: &&ServerStatus| server.backend == backend.name && server.removed.is_none();
            servers.iter().filter(is_own)
        };
        let is_used = |server: &&ServerStatus| State::of(server) == State::Up && server.weight > 0;
        let used = |backup: bool| own().filter(is_used).any(|server| server.backup == backup);
        Self {
            name: backend.name.to_string(),
            balance: backend.balance.word().to_owned(),
            servers_up: own().filter(|server| State::of(server) == State::Up).count() as u64,
            servers: own().count() as u64,
            backups_in_use: used(true) && !used(false),
            queue_sessions: backend.queue.length() as u64,
            queue_max: backend.queue.max(),
        }
    }
}

impl FrontendReport {
    fn new(frontend: &FrontendStatus) -> Self {
        let cells = &frontend.shared.cells;
        let closed = Reason::ALL.into_iter().filter_map(|reason| {
            let count = cells.sum(|cell| cell.closed[reason as usize].read());
            (count > 0).then(|| (reason.name().to_owned(), count))
        });
        let refused = Refusal::ALL.into_iter().filter_map(|reason| {
            let count = cells.sum(|cell| cell.refused[reason as usize].read());
            (count > 0).then(|| (reason.name().to_owned(), count))
        });
        Self {
            name: frontend.name.to_string(),
            backend: frontend.backend.to_string(),
            addresses: frontend.addresses.iter().map(ToString::to_string).collect(),
            closed: closed.collect(),
            sessions_active: cells.sum(|cell| cell.active.read()),
            sessions: cells.sum(|cell| cell.sessions.read()),
            refused: cells.sum(|cell| total(&cell.refused)),
            refused_by_reason: refused.collect(),
            bytes_in: cells.sum(|cell| cell.bytes[Direction::In as usize].read()),
            bytes_out: cells.sum(|cell| cell.bytes[Direction::Out as usize].read()),
        }
    }
}

impl ServerReport {
    fn new(server: &ServerStatus) -> Self {
        let cells = &server.shared.cells;
        let passed = server.probes.sum(|cell| cell.results[ProbeResult::Passed as usize].read());
        Self {
            backend: server.backend.to_string(),
            name: server.shared.name.to_string(),
            address: server.endpoints.first().map(|endpoint| endpoint.address.to_string()),
            endpoints: server.endpoints.iter().map(EndpointReport::new).collect(),
            written: server.written.to_string(),
            state: State::of(server).name().to_owned(),
            up: server.up,
            since_seconds: server.since.as_secs(),
            state_since_seconds: State::age(server).as_secs(),
            weight: server.weight,
            backup: server.backup,
            sessions_active: cells.sum(|cell| cell.active.read()),
            sessions_max: Some(server.shared.sessions.max()).filter(|max| *max != u32::MAX),
            sessions: cells.sum(|cell| cell.sessions.read()),
            bytes_in: cells.sum(|cell| cell.bytes[Direction::In as usize].read()),
            bytes_out: cells.sum(|cell| cell.bytes[Direction::Out as usize].read()),
            connect_mean_ms: server.connect_mean.map(millis),
            connect_failures: cells.sum(|cell| total(&cell.connect_failures)),
            retries: cells.sum(|cell| cell.retries.read()),
            probes_passed: passed,
            probes_failed: server.probes.sum(|cell| total(&cell.results)).saturating_sub(passed),
            last_probe: server.last_probe.detail.to_string(),
            last_probe_ms: server.last_probe.duration.map(millis),
        }
    }
}

impl EndpointReport {
    fn new(endpoint: &EndpointStatus) -> Self {
        Self {
            address: endpoint.address.to_string(),
            up: endpoint.up,
            sessions_active: endpoint.sessions,
            last_probe: endpoint.last_probe.detail.to_string(),
            last_probe_ms: endpoint.last_probe.duration.map(millis),
        }
    }
}

fn total(counts: &[Count]) -> u64 {
    counts.iter().fold(0, |sum, count| sum.wrapping_add(count.read()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::sample;

    #[test]
    fn the_json_can_be_read_back() {
        let report = Report::new(&sample::snapshot(), &sample::shared());
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }

    #[test]
    fn the_time_of_a_state_is_that_of_the_probes_the_order_or_the_removal() {
        let mut server = sample::server("web1", true);
        let ages = |server: &ServerStatus| {
            let report = ServerReport::new(server);
            (report.state_since_seconds, report.since_seconds)
        };
        assert_eq!(ages(&server), (65, 65));
        for admin in [AdminState::Drain, AdminState::Maint] {
            server.admin = admin;
            assert_eq!(ages(&server), (5, 65));
        }
        server.removed = Some(Duration::from_secs(2));
        assert_eq!(ages(&server), (2, 65));
    }

    #[test]
    fn times_are_milliseconds_or_null() {
        let json = |up| serde_json::to_value(ServerReport::new(&sample::server("a", up))).unwrap();
        let server = json(true);
        assert_eq!(server["last_probe"], "status 200");
        assert_eq!(server["last_probe_ms"], 1.234);
        assert_eq!(server["endpoints"][0]["last_probe_ms"], 1.234);
        assert_eq!(server["connect_mean_ms"], 0.2);
        assert!(json(false)["connect_mean_ms"].is_null());
    }
}
