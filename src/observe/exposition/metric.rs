//! Every metric: its name, its kind, its help text and its series.
//!
//! All values of a label exist from the start, as Prometheus advises: `rate()` does not see an
//! increase from no series to 1. A label value costs a series for each server, so that metrics of a
//! server have few: retries by reason and the durations of probes are counted for the backend, and
//! connects have fewer buckets than other durations.

use crate::observe::exposition::lines::Lines;
use crate::observe::exposition::record::Record;
use crate::observe::exposition::scrape::{Frontend, Scrape, Server, Worker};
use crate::observe::report::State;
use crate::shared::counters::{BOUNDS, FrontendCell, ServerCell, WorkerCell};
use crate::shared::phase::Phase;
use crate::shared::records::Records;
use crate::shared::snapshot::{BackendStatus, ProbeCell, ProbeResult};
use crate::terms::{ConnectFailure, Direction, Reason, Refusal};

/// The buckets of connects, of each server: within one machine and one network, to another site,
/// and above a second, which is after a lost SYN (RFC 6298, 2.1).
const CONNECT_BOUNDS: [u64; 6] =
    [100_000, 500_000, 2_500_000, 10_000_000, 100_000_000, 1_000_000_000];

/// A metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name, a contract with dashboards.
    pub name: &'static str,
    /// "counter", "gauge", "histogram"
    pub kind: &'static str,
    /// One sentence for the reader of a scrape.
    pub help: &'static str,
    pub(super) series: Series,
}

/// What a metric has series of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Series {
    /// Written straight from the counters, as there may be thousands.
    Frontend(fn(&Frontend<'_>, &mut Lines<'_>)),
    Backend(fn(&BackendStatus, &mut Lines<'_>)),
    Server(fn(&Server<'_>, &mut Lines<'_>)),
    /// Recorded, and written by the exporter.
    Process(fn(&Scrape, &Record)),
    Worker(fn(&Worker<'_>, &Record)),
    /// A counter with a fraction, which a recorder does not have.
    Fraction(fn(&Scrape) -> Option<f64>),
}

impl Metric {
    /// Whether a [`Recorder`](super::Recorder) has it.
    pub(super) const fn is_recorded(&self) -> bool {
        matches!(self.series, Series::Process(_) | Series::Worker(_))
    }
}

macro_rules! metrics {
    ($($of:ident $kind:literal $name:literal $help:literal $series:expr;)*) => {
        /// Every metric of the exposition, in its order.
        pub const METRICS: &[Metric] = &[$(Metric {
            name: $name,
            kind: $kind,
            help: $help,
            series: Series::$of($series),
        }),*];
    };
}

metrics! {
    Frontend "counter" "evenkeel_sessions_total"
        "Sessions opened."
        |it, lines| lines.value(it.counts.opened);
    Frontend "counter" "evenkeel_sessions_closed_total"
        "Sessions closed, by reason."
        |it, lines| {
            for (reason, closed) in Reason::ALL.into_iter().zip(it.counts.closed) {
                lines.of("reason", reason.name(), closed);
            }
        };
    Frontend "gauge" "evenkeel_sessions_active"
        "Sessions open now."
        |it, lines| lines.value(it.counts.active);
    Frontend "counter" "evenkeel_sessions_refused_total"
        "Connections refused before they became sessions, by reason."
        |it, lines| {
            for refusal in Refusal::ALL {
                let refused = |cell: &FrontendCell| cell.refused[refusal as usize].read();
                lines.of("reason", refusal.name(), it.cells().sum(refused));
            }
        };
    Frontend "counter" "evenkeel_bytes_total"
        "Bytes delivered; in is client to server, out is server to client."
        |it, lines| {
            for direction in Direction::BOTH {
                let bytes = |cell: &FrontendCell| cell.bytes[direction as usize].read();
                lines.of("direction", direction.name(), it.cells().sum(bytes));
            }
        };
    Frontend "histogram" "evenkeel_session_duration_seconds"
        "Time from accept to the end of a session."
        |it, lines| {
            let sum = it.cells().all().map(|cell| &cell.session_duration).sum();
            lines.histogram(&sum, &BOUNDS);
        };
    Backend "gauge" "evenkeel_queue_sessions"
        "Sessions that wait because every server of the backend is at its sessions_max."
        |it, lines| lines.value(it.queue.length() as u64);
    Backend "histogram" "evenkeel_queue_duration_seconds"
        "Time that sessions waited in the queue, including those that left it without a server."
        |it, lines| lines.histogram(&it.queue.waits.all().sum(), &BOUNDS);
    Server "counter" "evenkeel_server_sessions_total"
        "Sessions connected to the server."
        |it, lines| lines.value(it.cells().sum(|cell| cell.sessions.read()));
    Server "gauge" "evenkeel_server_sessions_active"
        "Sessions that use the server now, or are connecting to it."
        |it, lines| lines.value(it.active);
    Server "counter" "evenkeel_server_bytes_total"
        "Bytes delivered; in is client to server, out is server to client."
        |it, lines| {
            for direction in Direction::BOTH {
                let bytes = |cell: &ServerCell| cell.bytes[direction as usize].read();
                lines.of("direction", direction.name(), it.cells().sum(bytes));
            }
        };
    Server "gauge" "evenkeel_server_up"
        "1 if the server is up: the probes of at least one of its addresses pass."
        |it, lines| lines.value(it.status.up.into());
    Server "gauge" "evenkeel_server_state"
        "1 for the current state: drain or maint if set, or removed, otherwise up or down."
        |it, lines| {
            let current = State::of(it.status);
            for state in State::ALL {
                lines.of("state", state.name(), (state == current).into());
            }
        };
    Server "gauge" "evenkeel_server_weight"
        "Weight of the server, 0 to 1000."
        |it, lines| lines.value(it.status.weight.into());
    Server "counter" "evenkeel_server_connect_failures_total"
        "Attempts to connect to the server that failed, by reason."
        |it, lines| {
            for failure in ConnectFailure::ALL {
                let failures = |cell: &ServerCell| cell.connect_failures[failure as usize].read();
                lines.of("reason", failure.name(), it.cells().sum(failures));
            }
        };
    Backend "counter" "evenkeel_server_retries_total"
        "Attempts to connect after a failed attempt, by the reason of the failure."
        |it, lines| {
            for failure in ConnectFailure::ALL {
                let retries = it.cells.retries.sum(|cell| cell[failure as usize].read());
                lines.of("reason", failure.name(), retries);
            }
        };
    Server "histogram" "evenkeel_connect_duration_seconds"
        "Time from the start of an attempt to connect to the established connection."
        |it, lines| {
            lines.histogram(&it.status.shared.connect_durations(), &CONNECT_BOUNDS);
        };
    Server "counter" "evenkeel_probes_total"
        "Health probes, by result."
        |it, lines| {
            for result in ProbeResult::ALL {
                let probes = |cell: &ProbeCell| cell.results[result as usize].read();
                lines.of("result", result.name(), it.status.probes.sum(probes));
            }
        };
    Backend "histogram" "evenkeel_probe_duration_seconds"
        "Time from the start of a health probe to its result."
        |it, lines| lines.histogram(&it.cells.probe_duration.all().sum(), &BOUNDS);
    Process "counter" "evenkeel_reloads_total"
        "Reloads, by outcome; a failed one changed nothing."
        |it, record| {
            record.of("outcome", "done", it.snapshot.reloads_done);
            record.of("outcome", "failed", it.snapshot.reloads_failed);
        };
    Process "counter" "evenkeel_upgrades_total"
        "Changes of the running binary, by outcome; a failed one changed nothing."
        |it, record| {
            record.of("outcome", "done", it.snapshot.upgrades_done);
            record.of("outcome", "failed", it.snapshot.upgrades_failed);
        };
    Process "gauge" "evenkeel_table_version"
        "Version of the table in force."
        |it, record| record.value(it.snapshot.table_version);
    Process "gauge" "evenkeel_sessions_max"
        "Limit of sessions over all frontends."
        |it, record| record.value(it.snapshot.sessions_max.into());
    Process "gauge" "evenkeel_draining"
        "1 while evenkeel drains: it accepts no new clients."
        |it, record| record.value((it.snapshot.phase != Phase::Running).into());
    Process "gauge" "evenkeel_build_info"
        "1, with the version and the architecture as labels."
        |_, record| {
            let (version, arch) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
            record.with(&[("version", version), ("arch", arch)], 1);
        };
    Worker "counter" "evenkeel_worker_turns_total"
        "Iterations of a worker's event loop."
        |it, record| record.value(it.count(|cell| &cell.turns));
    Worker "counter" "evenkeel_worker_completions_total"
        "Completions that a worker reaped from its ring."
        |it, record| record.value(it.count(|cell| &cell.completions));
    Worker "counter" "evenkeel_worker_stale_completions_total"
        "Completions that arrived after their session had ended."
        |it, record| record.value(it.count(|cell| &cell.stale_completions));
    Worker "counter" "evenkeel_worker_cq_overflows_total"
        "Iterations that found an overflow of the completion queue."
        |it, record| record.value(it.count(|cell| &cell.cq_overflows));
    Worker "gauge" "evenkeel_worker_heartbeat_age_seconds"
        "Time since the last iteration of the worker's event loop, checked twice a second."
        |it, record| record.fraction(Some(it.heartbeat_age.as_secs_f64()));
    Worker "gauge" "evenkeel_worker_stuck"
        "1 while the event loop of the worker is blocked."
        |it, record| record.value(it.is_stuck.into());
    Worker "counter" "evenkeel_accept_errors_total"
        "Accepts that failed."
        |it, record| record.value(it.count(|cell| &cell.accept_errors));
    Worker "gauge" "evenkeel_accept_paused"
        "1 while the worker does not accept: no descriptor is left, or sessions_max is reached."
        |it, record| record.value(it.cell.accept_paused.read());
    Worker "gauge" "evenkeel_buffers_in_use"
        "Buffers that hold bytes now."
        |it, record| record.value(it.cell.buffers_in_use.read());
    Worker "gauge" "evenkeel_buffers"
        "Buffers in the pool of the worker."
        |it, record| record.value(it.cell.buffers.read());
    Worker "gauge" "evenkeel_buffers_stalled"
        "1 while more than a third of the buffers are held for peers that do not read."
        |it, record| record.value(it.cell.buffers_stalled.read());
    Worker "counter" "evenkeel_buffer_waits_total"
        "Receives that found no buffer and had to wait."
        |it, record| record.value(it.count(|cell| &cell.buffer_waits));
    Worker "gauge" "evenkeel_pipes_in_use"
        "Pipes that hold bytes now."
        |it, record| record.value(it.cell.pipes_in_use.read());
    Worker "counter" "evenkeel_splice_fallbacks_total"
        "Transfers that were copied because no pipe was left."
        |it, record| record.value(it.count(|cell| &cell.splice_fallbacks));
    Process "counter" "evenkeel_log_drops_total"
        "Session log records that were dropped, because the queue was full or a write failed."
        |it, record| {
            let (shared, carried) = (&it.shared, &it.shared.carried);
            let drops = |cell: &WorkerCell| cell.log_drops.read();
            let queue_full = shared.cells.sum(drops).wrapping_add(carried.workers.sum(drops));
            let unwritten = shared.records.as_ref().map_or(0, Records::unwritten);
            let write_failed = unwritten.wrapping_add(carried.unwritten.read());
            record.of("reason", "queue_full", queue_full);
            record.of("reason", "write_failed", write_failed);
        };
    Process "counter" "evenkeel_listen_overflows_total"
        "Handshakes that found an accept queue full, at any listener of the network namespace."
        |it, record| record.known(it.listening.map(|now| now.overflows));
    Process "counter" "evenkeel_listen_drops_total"
        "Handshakes dropped for any reason, at any listener of the network namespace."
        |it, record| record.known(it.listening.map(|now| now.drops));
    Fraction "counter" "process_cpu_seconds_total"
        "User and system CPU time, in seconds."
        |it| it.process.map(|now| now.cpu.as_secs_f64());
    Process "gauge" "process_open_fds"
        "Open file descriptors."
        |it, record| record.known(it.process.map(|now| now.open_fds));
    Process "gauge" "process_max_fds"
        "Limit of open file descriptors."
        |it, record| record.known(it.process.map(|now| now.max_fds));
    Process "gauge" "process_resident_memory_bytes"
        "Resident memory, in bytes."
        |it, record| record.known(it.process.map(|now| now.resident_bytes));
    Process "gauge" "process_virtual_memory_bytes"
        "Virtual memory, in bytes."
        |it, record| record.known(it.process.map(|now| now.virtual_bytes));
    Process "gauge" "process_start_time_seconds"
        "Start of the process, in seconds since 1970."
        |it, record| record.fraction(it.process.map(|now| now.start.as_secs_f64()));
}
