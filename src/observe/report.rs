//! A report of the state: for the status page, /status.json and `evenkeel status`.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::config::AdminState;
use crate::shared::counters::Count;
use crate::shared::phase::Phase;
use crate::shared::snapshot::{
    EndpointStatus, FrontendStatus, ProbeResult, ServerStatus, Snapshot,
};
use crate::shared::state::SharedState;
use crate::terms::{Direction, Reason};

/// The state at one time. Its JSON is a contract: fields are added, not renamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Of the program.
    pub version: String,
    /// "running", "draining", "stopped"
    pub phase: String,
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
    /// In the order of the file.
    pub frontends: Vec<FrontendReport>,
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
    /// Client to server.
    pub bytes_in: u64,
    /// Server to client.
    pub bytes_out: u64,
    /// How sessions ended, by reason; reasons that have not occurred are left out.
    pub closed: BTreeMap<String, u64>,
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
    /// Since it came up or went down.
    pub since_seconds: u64,
    /// 0-1000
    pub weight: u32,
    /// Used when all the others are down.
    pub backup: bool,
    /// Sessions that hold it now.
    pub sessions_active: u64,
    /// Connected since the start.
    pub sessions: u64,
    /// Client to server.
    pub bytes_in: u64,
    /// Server to client.
    pub bytes_out: u64,
    /// Attempts that failed.
    pub connect_failures: u64,
    /// Attempts made after another one had failed.
    pub retries: u64,
    /// Probes that passed.
    pub probes_passed: u64,
    /// Probes that failed.
    pub probes_failed: u64,
    /// The result of the last probe.
    pub last_probe: String,
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
    /// The result of its last probe.
    pub last_probe: String,
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
            (true, _, _) => Self::Removed,
            (_, AdminState::Maint, _) => Self::Maint,
            (_, AdminState::Drain, _) => Self::Drain,
            (_, AdminState::Ready, true) => Self::Up,
            (_, AdminState::Ready, false) => Self::Down,
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
            phase: phase_name(snapshot.phase).to_owned(),
            uptime_seconds: snapshot.uptime.as_secs(),
            table_version: snapshot.table_version,
            reloads_done: snapshot.reloads_done,
            reloads_failed: snapshot.reloads_failed,
            sessions_active: u64::from(shared.sessions.active()),
            sessions_max: u64::from(snapshot.sessions_max),
            workers_paused: shared.cells.sum(|cell| cell.accept_paused.read()),
            frontends: snapshot.frontends.iter().map(FrontendReport::new).collect(),
            servers: snapshot.servers.iter().map(ServerReport::new).collect(),
        }
    }

    /// For a terminal: a summary, then aligned tables.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!(
            "evenkeel {}, {}, up {}, table {}, reloads {} done {} failed\n\
             sessions {} of {} at most\n",
            self.version,
            self.phase,
            span(self.uptime_seconds),
            self.table_version,
            self.reloads_done,
            self.reloads_failed,
            self.sessions_active,
            self.sessions_max,
        );
        if self.workers_paused > 0 {
            // Writing to a String cannot fail, here and below.
            _ = writeln!(
                out,
                "{} workers have paused accepting: out of descriptors, or at sessions_max",
                self.workers_paused
            );
        }
        let head = ["FRONTEND", "BACKEND", "ADDRESS", "ACTIVE", "SESSIONS", "IN", "OUT"];
        let rows = self.frontends.iter().map(FrontendReport::row).collect();
        table(&mut out, &head, rows);
        let head = [
            "SERVER",
            "ADDRESS",
            "STATE",
            "FOR",
            "WEIGHT",
            "ACTIVE",
            "SESSIONS",
            "FAILED",
            "IN",
            "OUT",
            "LAST PROBE",
        ];
        let rows = self.servers.iter().map(ServerReport::row).collect();
        table(&mut out, &head, rows);
        out
    }
}

impl FrontendReport {
    fn new(frontend: &FrontendStatus) -> Self {
        let cells = &frontend.shared.cells;
        let closed = Reason::ALL.into_iter().filter_map(|reason| {
            let count = cells.sum(|cell| cell.closed[reason as usize].read());
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
            bytes_in: cells.sum(|cell| cell.bytes[Direction::In as usize].read()),
            bytes_out: cells.sum(|cell| cell.bytes[Direction::Out as usize].read()),
        }
    }

    fn row(&self) -> [String; 7] {
        [
            plain(&self.name),
            plain(&self.backend),
            self.addresses.join(" "),
            self.sessions_active.to_string(),
            self.sessions.to_string(),
            size(self.bytes_in),
            size(self.bytes_out),
        ]
    }
}

impl ServerReport {
    fn new(server: &ServerStatus) -> Self {
        let cells = &server.shared.cells;
        let passed = server.probes.results[ProbeResult::Passed as usize].read();
        Self {
            backend: server.backend.to_string(),
            name: server.shared.name.to_string(),
            address: server.endpoints.first().map(|endpoint| endpoint.address.to_string()),
            endpoints: server.endpoints.iter().map(EndpointReport::new).collect(),
            written: server.written.to_string(),
            state: State::of(server).name().to_owned(),
            up: server.up,
            since_seconds: server.since.as_secs(),
            weight: server.weight,
            backup: server.backup,
            sessions_active: cells.sum(|cell| cell.active.read()),
            sessions: cells.sum(|cell| cell.sessions.read()),
            bytes_in: cells.sum(|cell| cell.bytes[Direction::In as usize].read()),
            bytes_out: cells.sum(|cell| cell.bytes[Direction::Out as usize].read()),
            connect_failures: cells.sum(|cell| total(&cell.connect_failures)),
            retries: cells.sum(|cell| total(&cell.retries)),
            probes_passed: passed,
            probes_failed: total(&server.probes.results).saturating_sub(passed),
            last_probe: server.last_probe.clone(),
        }
    }

    /// Its address as written, with the addresses of a host name.
    #[must_use]
    pub fn place(&self) -> String {
        match &*self.endpoints {
            [] => format!("{} (no address)", self.written),
            [only] if only.address == self.written => only.address.clone(),
            [only] => format!("{} ({})", self.written, only.address),
            several => {
                let up = several.iter().filter(|endpoint| endpoint.up).count();
                format!("{} ({up} of {} addresses up)", self.written, several.len())
            }
        }
    }

    fn row(&self) -> [String; 11] {
        let backup = if self.backup { " (backup)" } else { "" };
        [
            format!("{}/{}{backup}", plain(&self.backend), plain(&self.name)),
            plain(&self.place()),
            // With the health, for an operator who waits to set it ready again.
            match self.state.as_str() {
                state @ ("up" | "down") => state.to_owned(),
                state => format!("{state} ({})", if self.up { "up" } else { "down" }),
            },
            span(self.since_seconds),
            self.weight.to_string(),
            self.sessions_active.to_string(),
            self.sessions.to_string(),
            self.connect_failures.to_string(),
            size(self.bytes_in),
            size(self.bytes_out),
            plain(&self.last_probe),
        ]
    }
}

impl EndpointReport {
    fn new(endpoint: &EndpointStatus) -> Self {
        Self {
            address: endpoint.address.to_string(),
            up: endpoint.up,
            sessions_active: endpoint.sessions,
            last_probe: endpoint.last_probe.clone(),
        }
    }
}

const fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Running => "running",
        Phase::Draining(_) => "draining",
        Phase::Stopped => "stopped",
    }
}

fn total(counts: &[Count]) -> u64 {
    counts.iter().fold(0, |sum, count| sum.wrapping_add(count.read()))
}

/// A duration in its two largest units.
#[must_use]
pub fn span(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match seconds {
        0..60 => format!("{rest}s"),
        60..3600 => format!("{minutes}m{rest:02}s"),
        3600..86_400 => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

/// A number of bytes, with a unit.
#[must_use]
pub fn size(bytes: u64) -> String {
    let (mut tenths, mut unit) = (u128::from(bytes) * 10, 0);
    while tenths >= 10_240 && unit < UNITS.len() - 1 {
        tenths /= 1024;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
    }
}

const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// Control characters, which a terminal would interpret, are escaped.
fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_unicode().to_string() } else { c.into() };
    text.chars().map(shown).collect()
}

/// Columns as wide as their widest cell; the last one is not padded.
fn table<const N: usize>(out: &mut String, head: &[&str; N], rows: Vec<[String; N]>) {
    let head = head.map(str::to_owned);
    let rows: Vec<[String; N]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
    out.push('\n');
    for row in &rows {
        let cells = row.iter().zip(widths);
        let line: Vec<String> = cells.map(|(cell, width)| format!("{cell:width$}")).collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::sample;

    #[test]
    fn the_text_is_a_summary_and_two_aligned_tables() {
        let report = Report::new(&sample::snapshot(), &sample::shared());
        let expected = "\
evenkeel VERSION, running, up 1h02m, table 7, reloads 2 done 1 failed
sessions 0 of 1000 at most

FRONTEND  BACKEND  ADDRESS       ACTIVE  SESSIONS  IN   OUT
http      web      127.0.0.1:80  2       7         0 B  4.0 KiB

SERVER    ADDRESS                  STATE  FOR    WEIGHT  ACTIVE  SESSIONS  FAILED  \
         IN   OUT  LAST PROBE
web/web1  rpi-b:80 (192.0.2.1:80)  up     1m05s  100     1       5         0       \
         0 B  0 B  200 OK
web/web2  rpi-b:80 (192.0.2.1:80)  down   1m05s  100     1       5         0       \
         0 B  0 B  200 OK
";
        assert_eq!(report.text(), expected.replace("VERSION", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn a_server_with_several_addresses_is_one_row_with_how_many_are_up() {
        let mut snapshot = sample::snapshot();
        let mut second = snapshot.servers[0].endpoints[0].clone();
        second.up = false;
        snapshot.servers[0].endpoints.push(second);
        let report = Report::new(&snapshot, &sample::shared());
        assert_eq!(report.servers[0].place(), "rpi-b:80 (1 of 2 addresses up)");
        assert_eq!(report.servers[0].endpoints.len(), 2);
    }

    #[test]
    fn the_json_can_be_read_back() {
        let report = Report::new(&sample::snapshot(), &sample::shared());
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(
            [0, 1023, 1024, 1536, 10 << 30].map(size),
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "10.0 GiB"]
        );
        assert_eq!(size(u64::MAX), "16383.9 PiB");
        assert_eq!([59, 60, 3600, 90_000].map(span), ["59s", "1m00s", "1h00m", "1d01h"]);
    }
}
