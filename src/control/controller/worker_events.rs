//! The events of workers: failed connects, and limits that they met; and limits that are reached.

use std::time::{Duration, Instant};

use crate::control::controller::events::Batch;
use crate::control::controller::limits_reached::is_due;
use crate::control::controller::state::Controller;
use crate::control::sources;
use crate::shared::events::{FailedConnects, WorkerEvent};
use crate::shared::phase::Phase;
use crate::terms::{ConnectFailure, EndpointId, ServerId, WorkerIndex};

/// Between warnings of one kind.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

impl Controller {
    pub(super) fn on_worker_events(&mut self, batch: &Batch) -> Result<(), String> {
        let now = Instant::now();
        for (endpoint, failed) in &batch.failed {
            self.on_connects_failed(*endpoint, *failed, now);
        }
        for event in &batch.others {
            match event {
                WorkerEvent::ConnectFailed(..) => {}
                WorkerEvent::AcceptPaused(WorkerIndex(worker)) => self.on_accept_paused(*worker),
                WorkerEvent::BuffersStalled(worker) => self.on_buffers_stalled(*worker),
                WorkerEvent::BuffersExhausted(worker, sessions) => {
                    self.on_buffers_exhausted(*worker, *sessions);
                }
                WorkerEvent::WorkerEnded(WorkerIndex(worker)) => {
                    if self.shared.phase.load() == Phase::Running {
                        // Nobody would accept its share of the clients.
                        self.stop();
                        return Err(format!("worker {worker} ended without a signal to stop"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Logs the limits of sessions and clients that are reached, at each tick.
    pub(super) fn log_reached_limits(&mut self, now: Instant) {
        if self.shared.phase.load() != Phase::Running {
            return;
        }
        let remedy = match self.config.global.sessions_max {
            Some(_) => "raise global.sessions_max if this lasts",
            None => "raise the limit of file descriptors (LimitNOFILE=) if this lasts",
        };
        let frontends = &self.shared.table.load().frontends;
        for line in self.reached.look(&self.shared.sessions, remedy, frontends, now) {
            tracing::warn!("{line}");
        }
    }

    /// They may take the endpoint down, and its server may have another address now.
    fn on_connects_failed(&mut self, endpoint: EndpointId, failed: FailedConnects, now: Instant) {
        if failed.last == ConnectFailure::NoSource {
            self.on_no_source(endpoint.server);
        }
        if failed.count > 0 {
            self.stale |= self.cluster.connects_failed(endpoint, failed, now);
        }
        self.ask_again(endpoint);
    }

    /// A connect had no source address.
    fn on_no_source(&mut self, server: ServerId) {
        let Some(backend) = self.cluster.settings_of(server) else { return };
        if !is_due(&mut self.source_logged, Instant::now(), LOG_INTERVAL) {
            return;
        }
        let name = &backend.name;
        let problems = sources::problems(backend);
        if problems.is_empty() {
            tracing::warn!(
                "backend {name}: a connect failed (no_source): `source` has no address of the \
                 family of the server"
            );
        }
        for (_, problem) in problems {
            tracing::warn!("backend {name}: a connect failed (no_source): {problem}");
        }
    }

    fn on_accept_paused(&mut self, worker: usize) {
        if is_due(&mut self.accept_logged, Instant::now(), LOG_INTERVAL) {
            tracing::warn!(
                "worker {worker} cannot accept: no file descriptor or memory is left; clients wait \
                 in the backlog; raise the limit (LimitNOFILE=, ulimit -n) or lower \
                 global.sessions_max"
            );
        }
    }

    fn on_buffers_stalled(&mut self, worker: WorkerIndex) {
        if is_due(&mut self.stall_logged, Instant::now(), LOG_INTERVAL) {
            tracing::warn!(
                "worker {}: more than a third of its buffers hold bytes for peers that do not \
                 read; it receives only what can be sent at once; raise global.buffers if this \
                 lasts (metric evenkeel_buffers_stalled)",
                worker.0
            );
        }
    }

    fn on_buffers_exhausted(&mut self, worker: WorkerIndex, sessions: u32) {
        if is_due(&mut self.exhaustion_logged, Instant::now(), LOG_INTERVAL) {
            tracing::warn!(
                "worker {}: no buffer is free, and sessions without progress hold them; {sessions} \
                 sessions were closed (reason exhausted); raise global.buffers",
                worker.0
            );
        }
    }
}
