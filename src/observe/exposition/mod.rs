//! /metrics: every counter of the program in the text format of Prometheus (version 0.0.4).
//!
//! Each scrape fills a recorder of its own, so that the series of a removed server end. All values
//! of a label exist from the start: `rate()` does not see an increase from no series to 1.

mod names;
mod written;

use std::collections::HashMap;
use std::time::Duration;

use metrics::Label;
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::observe::netstat::Listening;
use crate::observe::process::Process;
use crate::observe::report::State;
use crate::shared::counters::{Count, FrontendCell, HistogramSum, WorkerCell};
use crate::shared::phase::Phase;
use crate::shared::records::Records;
use crate::shared::snapshot::{FrontendStatus, ProbeResult, ServerStatus, Snapshot};
use crate::shared::state::SharedState;
use crate::terms::{ConnectFailure, Direction, Reason, Refusal};

pub use names::{METRICS, Metric};
use written::Family;

type Labels<'a> = &'a [(&'static str, &'a str)];

/// The Prometheus text of all metrics, in the order of their names.
#[must_use]
pub fn render(snapshot: &Snapshot, shared: &SharedState) -> String {
    let servers = servers(snapshot);
    let process = Process::read().map_err(|error| tracing::debug!("process metrics: {error}"));
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        describe();
        for frontend in &snapshot.frontends {
            record_frontend(frontend);
        }
        for backend in &snapshot.backends {
            let labels = [("backend", &*backend.name)];
            gauge(&names::QUEUE_SESSIONS, &labels, backend.queue.length() as u64);
        }
        for server in &servers {
            record_server(server);
        }
        record_global(snapshot);
        let carried = shared.carried.workers.cells();
        for (index, (cell, carried)) in shared.cells.cells().zip(carried).enumerate() {
            record_worker(index, cell, carried);
        }
        for (index, heartbeat) in shared.heartbeats.all().enumerate() {
            record_heartbeat(index, heartbeat);
        }
        record_log(shared);
        if let Ok(process) = &process {
            record_process(process);
        }
        if let Ok(listening) = Listening::read() {
            counter(&names::LISTEN_OVERFLOWS, &[], listening.overflows);
            counter(&names::LISTEN_DROPS, &[], listening.drops);
        }
    });
    let mut text = recorder.handle().render();
    for family in histograms(snapshot, &servers) {
        text.push_str(&family.text());
        text.push('\n');
    }
    if let Ok(process) = &process {
        let mut family = Family::new(names::PROCESS_CPU);
        family.number(process.cpu.as_secs_f64());
        text.push_str(&family.text());
    }
    in_order(&text)
}

/// The recorder keeps families and series in hash maps, in another order each time. Sorted, two
/// scrapes can be compared. Families end with an empty line, and histograms are in order already
/// (their buckets are sorted by bound, not alphabetically).
fn in_order(text: &str) -> String {
    let mut families: Vec<Vec<&str>> = text
        .split("\n\n")
        .map(|family| family.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>())
        .filter(|family| !family.is_empty())
        .collect();
    for family in &mut families {
        let histogram = family.iter().any(|line| line.ends_with(" histogram"));
        if !histogram {
            let head = family.iter().take_while(|line| line.starts_with('#')).count();
            family[head..].sort_unstable();
        }
    }
    families.sort_unstable();
    let lines = families.into_iter().flatten();
    lines.flat_map(|line| [line, "\n"]).collect()
}

fn describe() {
    for metric in METRICS {
        match metric.kind {
            "counter" => metrics::describe_counter!(metric.name, metric.help),
            "gauge" => metrics::describe_gauge!(metric.name, metric.help),
            _ => {}
        }
    }
}

fn counter(metric: &Metric, labels: Labels<'_>, value: u64) {
    metrics::counter!(metric.name, owned(labels)).absolute(value);
}

fn gauge(metric: &Metric, labels: Labels<'_>, value: u64) {
    #[expect(clippy::cast_precision_loss, reason = "gauges of the format are floating point")]
    let value = value as f64;
    metrics::gauge!(metric.name, owned(labels)).set(value);
}

fn owned(labels: Labels<'_>) -> Vec<Label> {
    labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect()
}

/// The sessions of one frontend at one worker: opened = closed + active.
#[derive(Debug, Default, Clone)]
struct SessionCounts {
    closed: [u64; Reason::ALL.len()],
    active: u64,
    opened: u64,
}

impl SessionCounts {
    /// Reads before the counts are taken as they are.
    const TRIES: u32 = 16;

    /// The worker writes while this thread reads, so the three numbers may not belong together. If
    /// they balance, they do; if not, they are read again: a read takes less than a microsecond, a
    /// session much longer. `closed` is read first and `opened` last, so that the error that is
    /// left after the last read is sessions that were opened and not yet closed.
    fn read(cell: &FrontendCell) -> Self {
        let mut counts = Self::default();
        for _ in 0..Self::TRIES {
            for (closed, count) in counts.closed.iter_mut().zip(&cell.closed) {
                *closed = count.read();
            }
            counts.active = cell.active.read();
            counts.opened = cell.sessions.read();
            if counts.closed.iter().sum::<u64>().wrapping_add(counts.active) == counts.opened {
                break;
            }
        }
        counts
    }

    fn add(mut self, other: &Self) -> Self {
        for (sum, closed) in self.closed.iter_mut().zip(&other.closed) {
            *sum = sum.wrapping_add(*closed);
        }
        self.active = self.active.wrapping_add(other.active);
        self.opened = self.opened.wrapping_add(other.opened);
        self
    }
}

fn record_frontend(status: &FrontendStatus) {
    let name = ("frontend", &*status.name);
    let cells = &status.shared.cells;
    let counts = cells
        .all()
        .map(SessionCounts::read)
        .fold(SessionCounts::default(), |sum, one| sum.add(&one));
    counter(&names::SESSIONS, &[name], counts.opened);
    gauge(&names::SESSIONS_ACTIVE, &[name], counts.active);
    for (reason, closed) in Reason::ALL.into_iter().zip(counts.closed) {
        counter(&names::SESSIONS_CLOSED, &[name, ("reason", reason.name())], closed);
    }
    for refusal in Refusal::ALL {
        let refused = cells.sum(|cell| cell.refused[refusal as usize].read());
        counter(&names::SESSIONS_REFUSED, &[name, ("reason", refusal.name())], refused);
    }
    for direction in Direction::BOTH {
        let bytes = cells.sum(|cell| cell.bytes[direction as usize].read());
        counter(&names::BYTES, &[name, ("direction", direction.name())], bytes);
    }
}

/// A server, with the sessions of every server of its name.
struct Named<'a> {
    status: &'a ServerStatus,
    active: u64,
}

/// A name that was removed and is used again may be in the snapshot twice. The server in force,
/// which comes first, gives the counters; only the active sessions of the other are added, since
/// summed counters would decrease when the other is forgotten.
fn servers(snapshot: &Snapshot) -> Vec<Named<'_>> {
    let mut known: HashMap<(&str, &str), usize> = HashMap::new();
    let mut servers: Vec<Named<'_>> = Vec::new();
    for status in &snapshot.servers {
        let active = status.shared.cells.sum(|cell| cell.active.read());
        let name = (&*status.backend, &*status.shared.name);
        if let Some(index) = known.get(&name) {
            servers[*index].active = servers[*index].active.wrapping_add(active);
        } else {
            known.insert(name, servers.len());
            servers.push(Named { status, active });
        }
    }
    servers
}

impl<'a> Named<'a> {
    fn labels(&self) -> [(&'static str, &'a str); 2] {
        [("backend", &*self.status.backend), ("server", &*self.status.shared.name)]
    }
}

fn record_server(server: &Named<'_>) {
    let labels = server.labels();
    let [backend, name] = labels;
    let (status, cells) = (server.status, &server.status.shared.cells);
    counter(&names::SERVER_SESSIONS, &labels, cells.sum(|cell| cell.sessions.read()));
    gauge(&names::SERVER_SESSIONS_ACTIVE, &labels, server.active);
    gauge(&names::SERVER_UP, &labels, status.up.into());
    gauge(&names::SERVER_WEIGHT, &labels, status.weight.into());
    for state in State::ALL {
        let labels = [backend, name, ("state", state.name())];
        gauge(&names::SERVER_STATE, &labels, (state == State::of(status)).into());
    }
    for direction in Direction::BOTH {
        let bytes = cells.sum(|cell| cell.bytes[direction as usize].read());
        let labels = [backend, name, ("direction", direction.name())];
        counter(&names::SERVER_BYTES, &labels, bytes);
    }
    for failure in ConnectFailure::ALL {
        let failures = cells.sum(|cell| cell.connect_failures[failure as usize].read());
        let labels = [backend, name, ("reason", failure.name())];
        counter(&names::SERVER_CONNECT_FAILURES, &labels, failures);
        let retries = cells.sum(|cell| cell.retries[failure as usize].read());
        counter(&names::SERVER_RETRIES, &labels, retries);
    }
    for result in ProbeResult::ALL {
        let labels = [backend, name, ("result", result.name())];
        let probes = status.probes.sum(|cell| cell.results[result as usize].read());
        counter(&names::PROBES, &labels, probes);
    }
}

fn record_global(snapshot: &Snapshot) {
    counter(&names::RELOADS, &[("outcome", "done")], snapshot.reloads_done);
    counter(&names::RELOADS, &[("outcome", "failed")], snapshot.reloads_failed);
    counter(&names::UPGRADES, &[("outcome", "done")], snapshot.upgrades_done);
    counter(&names::UPGRADES, &[("outcome", "failed")], snapshot.upgrades_failed);
    gauge(&names::TABLE_VERSION, &[], snapshot.table_version);
    gauge(&names::SESSIONS_MAX, &[], snapshot.sessions_max.into());
    gauge(&names::DRAINING, &[], (snapshot.phase != Phase::Running).into());
    let built = [("version", env!("CARGO_PKG_VERSION")), ("arch", std::env::consts::ARCH)];
    gauge(&names::BUILD_INFO, &built, 1);
}

fn record_worker(index: usize, cell: &WorkerCell, carried: &WorkerCell) {
    let index = index.to_string();
    let labels = [("worker", &*index)];
    let count = |metric: &Metric, of: fn(&WorkerCell) -> &Count| {
        counter(metric, &labels, of(cell).read().wrapping_add(of(carried).read()));
    };
    let level = |metric: &Metric, value: &Count| gauge(metric, &labels, value.read());
    count(&names::WORKER_TURNS, |cell| &cell.turns);
    count(&names::WORKER_COMPLETIONS, |cell| &cell.completions);
    count(&names::WORKER_STALE_COMPLETIONS, |cell| &cell.stale_completions);
    count(&names::WORKER_CQ_OVERFLOWS, |cell| &cell.cq_overflows);
    count(&names::ACCEPT_ERRORS, |cell| &cell.accept_errors);
    level(&names::ACCEPT_PAUSED, &cell.accept_paused);
    level(&names::BUFFERS_IN_USE, &cell.buffers_in_use);
    level(&names::BUFFERS, &cell.buffers);
    level(&names::BUFFERS_STALLED, &cell.buffers_stalled);
    count(&names::BUFFER_WAITS, |cell| &cell.buffer_waits);
    level(&names::PIPES_IN_USE, &cell.pipes_in_use);
    count(&names::SPLICE_FALLBACKS, |cell| &cell.splice_fallbacks);
}

fn record_heartbeat(index: usize, (age, stuck): (Duration, bool)) {
    let index = index.to_string();
    let labels = [("worker", &*index)];
    metrics::gauge!(names::WORKER_HEARTBEAT_AGE.name, owned(&labels)).set(age.as_secs_f64());
    gauge(&names::WORKER_STUCK, &labels, stuck.into());
}

fn record_log(shared: &SharedState) {
    let drops = |cell: &WorkerCell| cell.log_drops.read();
    let queue_full = shared.cells.sum(drops).wrapping_add(shared.carried.workers.sum(drops));
    let unwritten = shared.records.as_ref().map_or(0, Records::unwritten);
    let write_failed = unwritten.wrapping_add(shared.carried.unwritten.read());
    for (reason, drops) in [("queue_full", queue_full), ("write_failed", write_failed)] {
        counter(&names::LOG_DROPS, &[("reason", reason)], drops);
    }
}

fn record_process(process: &Process) {
    gauge(&names::PROCESS_OPEN_FDS, &[], process.open_fds);
    gauge(&names::PROCESS_MAX_FDS, &[], process.max_fds);
    gauge(&names::PROCESS_RESIDENT, &[], process.resident_bytes);
    gauge(&names::PROCESS_VIRTUAL, &[], process.virtual_bytes);
    let start: Duration = process.start;
    metrics::gauge!(names::PROCESS_START.name).set(start.as_secs_f64());
}

fn histograms(snapshot: &Snapshot, servers: &[Named<'_>]) -> [Family; 4] {
    let mut sessions = Family::new(names::SESSION_DURATION);
    for frontend in &snapshot.frontends {
        let mut sum = HistogramSum::default();
        frontend.shared.cells.all().for_each(|cell| sum.add(&cell.session_duration));
        sessions.histogram(&[("frontend", &frontend.name)], &sum);
    }
    let mut queues = Family::new(names::QUEUE_DURATION);
    for backend in &snapshot.backends {
        let mut sum = HistogramSum::default();
        backend.queue.waits.all().for_each(|cell| sum.add(cell));
        queues.histogram(&[("backend", &backend.name)], &sum);
    }
    let mut connects = Family::new(names::CONNECT_DURATION);
    let mut probes = Family::new(names::PROBE_DURATION);
    for server in servers {
        let (labels, status) = (server.labels(), server.status);
        connects.histogram(&labels, &status.shared.connect_durations());
        let mut sum = HistogramSum::default();
        status.probes.all().for_each(|cell| sum.add(&cell.duration));
        probes.histogram(&labels, &sum);
    }
    [sessions, queues, connects, probes]
}

#[cfg(test)]
mod tests;
