//! Every metric: its name, its kind and its help text.

/// A metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name, a contract with dashboards.
    pub name: &'static str,
    /// "counter", "gauge", "histogram"
    pub kind: &'static str,
    /// One sentence for the reader of a scrape.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($item:ident: $kind:literal $name:literal $help:literal;)*) => {
        $(pub(super) const $item: Metric = Metric { name: $name, kind: $kind, help: $help };)*

        /// Every metric of the exposition.
        pub const METRICS: &[Metric] = &[$($item),*];
    };
}

metrics! {
    SESSIONS: "counter" "evenkeel_sessions_total" "Sessions opened.";
    SESSIONS_CLOSED: "counter" "evenkeel_sessions_closed_total" "Sessions closed, by reason.";
    SESSIONS_ACTIVE: "gauge" "evenkeel_sessions_active" "Sessions open now.";
    SESSIONS_REFUSED: "counter" "evenkeel_sessions_refused_total"
        "Connections refused before they became sessions, by reason.";
    BYTES: "counter" "evenkeel_bytes_total"
        "Bytes delivered; in is client to server, out is server to client.";
    SESSION_DURATION: "histogram" "evenkeel_session_duration_seconds"
        "Time from accept to the end of a session.";
    QUEUE_SESSIONS: "gauge" "evenkeel_queue_sessions"
        "Sessions that wait because every server of the backend is at its sessions_max.";
    QUEUE_DURATION: "histogram" "evenkeel_queue_duration_seconds"
        "Time that sessions have waited in the queue, those that left it without a server too.";
    SERVER_SESSIONS: "counter" "evenkeel_server_sessions_total" "Sessions connected to the server.";
    SERVER_SESSIONS_ACTIVE: "gauge" "evenkeel_server_sessions_active"
        "Sessions that use the server now, or are connecting to it.";
    SERVER_BYTES: "counter" "evenkeel_server_bytes_total"
        "Bytes delivered; in is client to server, out is server to client.";
    SERVER_UP: "gauge" "evenkeel_server_up"
        "1 if the server is up: the probes of at least one of its addresses pass.";
    SERVER_STATE: "gauge" "evenkeel_server_state"
        "1 for the current state: drain or maint if set, or removed, otherwise up or down.";
    SERVER_WEIGHT: "gauge" "evenkeel_server_weight" "Weight of the server, 0 to 1000.";
    SERVER_CONNECT_FAILURES: "counter" "evenkeel_server_connect_failures_total"
        "Attempts to connect to the server that failed, by reason.";
    SERVER_RETRIES: "counter" "evenkeel_server_retries_total"
        "Attempts to connect to the server after a failed attempt, by the reason of the failure.";
    CONNECT_DURATION: "histogram" "evenkeel_connect_duration_seconds"
        "Time from the start of an attempt to connect to the established connection.";
    PROBES: "counter" "evenkeel_probes_total" "Health probes, by result.";
    PROBE_DURATION: "histogram" "evenkeel_probe_duration_seconds"
        "Time from the start of a health probe to its result.";
    RELOADS: "counter" "evenkeel_reloads_total"
        "Reloads, by outcome; a failed one changed nothing.";
    UPGRADES: "counter" "evenkeel_upgrades_total"
        "Changes of the running binary, by outcome; a failed one changed nothing.";
    TABLE_VERSION: "gauge" "evenkeel_table_version" "Version of the table in force.";
    SESSIONS_MAX: "gauge" "evenkeel_sessions_max" "Limit of sessions over all frontends.";
    DRAINING: "gauge" "evenkeel_draining" "1 while evenkeel drains: it accepts no new clients.";
    BUILD_INFO: "gauge" "evenkeel_build_info" "1, with the version and the architecture as labels.";
    WORKER_TURNS: "counter" "evenkeel_worker_turns_total" "Iterations of a worker's event loop.";
    WORKER_COMPLETIONS: "counter" "evenkeel_worker_completions_total"
        "Completions that a worker reaped from its ring.";
    WORKER_STALE_COMPLETIONS: "counter" "evenkeel_worker_stale_completions_total"
        "Completions that arrived after their session had ended.";
    WORKER_CQ_OVERFLOWS: "counter" "evenkeel_worker_cq_overflows_total"
        "Iterations that found an overflow of the completion queue.";
    WORKER_HEARTBEAT_AGE: "gauge" "evenkeel_worker_heartbeat_age_seconds"
        "Time since the worker last turned, as the control thread saw it (twice a second).";
    WORKER_STUCK: "gauge" "evenkeel_worker_stuck"
        "1 while the worker does not turn although it was woken: its sessions stand still.";
    ACCEPT_ERRORS: "counter" "evenkeel_accept_errors_total" "Accepts that failed.";
    ACCEPT_PAUSED: "gauge" "evenkeel_accept_paused"
        "1 while the worker does not accept: no descriptor is left, or sessions_max is reached.";
    BUFFERS_IN_USE: "gauge" "evenkeel_buffers_in_use" "Buffers that hold bytes now.";
    BUFFERS: "gauge" "evenkeel_buffers" "Buffers in the pool of the worker.";
    BUFFERS_STALLED: "gauge" "evenkeel_buffers_stalled"
        "1 while more than a third of the buffers are held for peers that do not read.";
    BUFFER_WAITS: "counter" "evenkeel_buffer_waits_total"
        "Receives that found no buffer and had to wait.";
    PIPES_IN_USE: "gauge" "evenkeel_pipes_in_use" "Pipes that hold bytes now.";
    SPLICE_FALLBACKS: "counter" "evenkeel_splice_fallbacks_total"
        "Transfers that were copied because no pipe was left.";
    LOG_DROPS: "counter" "evenkeel_log_drops_total"
        "Session log records that were dropped, because the queue was full or a write failed.";
    LISTEN_OVERFLOWS: "counter" "evenkeel_listen_overflows_total"
        "Handshakes that found an accept queue full, at any listener of the network namespace.";
    LISTEN_DROPS: "counter" "evenkeel_listen_drops_total"
        "Handshakes dropped for any reason, at any listener of the network namespace.";
    PROCESS_CPU: "counter" "process_cpu_seconds_total" "User and system CPU time, in seconds.";
    PROCESS_OPEN_FDS: "gauge" "process_open_fds" "Open file descriptors.";
    PROCESS_MAX_FDS: "gauge" "process_max_fds" "Limit of open file descriptors.";
    PROCESS_RESIDENT: "gauge" "process_resident_memory_bytes" "Resident memory, in bytes.";
    PROCESS_VIRTUAL: "gauge" "process_virtual_memory_bytes" "Virtual memory, in bytes.";
    PROCESS_START: "gauge" "process_start_time_seconds"
        "Start of the process, in seconds since 1970.";
}
