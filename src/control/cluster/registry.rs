//! Ids, which are given once in the life of the process, and the servers that are no longer in the
//! configuration: they are reported until their last session ends, or until they return.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::config;
use crate::control::health::ProbeTaskId;
use crate::shared::counters::{BackendCells, PerWorker};
use crate::shared::limit::Limit;
use crate::shared::load::Loads;
use crate::shared::queue::Queue;
use crate::shared::server::{Endpoint, ServerShared};
use crate::shared::snapshot::{ProbeCounts, ServerStatus};
use crate::sys::address::Address;
use crate::terms::{EndpointId, ServerId};

/// Gives ids, and remembers servers that were removed.
#[derive(Debug)]
pub(super) struct Registry {
    workers: usize,
    servers: u32,
    endpoints: u32,
    tasks: u32,
    /// By backend, for the life of the process: the search of leastconn is over those of one
    /// backend.
    loads: HashMap<Arc<str>, Loads>,
    /// By backend, for the life of the process: what queues there keeps its place over a reload.
    queues: HashMap<Arc<str>, Arc<Queue>>,
    /// As the queues: what was counted never becomes less.
    backend_cells: HashMap<Arc<str>, Arc<BackendCells>>,
    removed: Vec<Removed>,
}

#[derive(Debug)]
struct Removed {
    /// At the removal.
    status: ServerStatus,
    /// When it went up or down.
    since: Instant,
    /// When it was removed.
    removed: Instant,
}

impl Registry {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            workers,
            servers: 0,
            endpoints: 0,
            tasks: 0,
            loads: HashMap::new(),
            queues: HashMap::new(),
            backend_cells: HashMap::new(),
            removed: Vec::new(),
        }
    }

    /// Worker threads.
    pub(super) const fn workers(&self) -> usize {
        self.workers
    }

    /// The counters of a server: its own if it was removed and returns, so that no name is
    /// reported twice.
    pub(super) fn server(
        &mut self,
        backend: &Arc<str>,
        config: &config::Server,
    ) -> (Arc<ServerShared>, Arc<ProbeCounts>) {
        let max = config.sessions_max.map(Into::into);
        let is_same = |removed: &Removed| {
            removed.status.backend == *backend && *removed.status.shared.name == *config.name
        };
        if let Some(index) = self.removed.iter().position(is_same) {
            let ServerStatus { shared, probes, .. } = self.removed.swap_remove(index).status;
            shared.sessions.set_max(max);
            return (shared, probes);
        }
        let id = ServerId(self.servers);
        self.servers += 1;
        let shared = ServerShared {
            id,
            backend: Arc::clone(backend),
            name: config.name.as_str().into(),
            sessions: Limit::new(max),
            cells: PerWorker::new(self.workers),
            backend_cells: self.backend_cells(backend),
            queue: self.queue(backend),
        };
        (Arc::new(shared), Arc::new(ProbeCounts::new(1)))
    }

    /// The queue of a backend.
    pub(super) fn queue(&mut self, backend: &Arc<str>) -> Arc<Queue> {
        let new = || Arc::new(Queue::new(self.workers, 0));
        Arc::clone(self.queues.entry(Arc::clone(backend)).or_insert_with(new))
    }

    /// The counters of a backend.
    pub(super) fn backend_cells(&mut self, backend: &Arc<str>) -> Arc<BackendCells> {
        let workers = self.workers;
        let new = || Arc::new(BackendCells::new(workers));
        Arc::clone(self.backend_cells.entry(Arc::clone(backend)).or_insert_with(new))
    }

    /// An endpoint of `server`.
    pub(super) fn endpoint(
        &mut self,
        server: &Arc<ServerShared>,
        address: Address,
    ) -> Arc<Endpoint> {
        let id = EndpointId { server: server.id, number: self.endpoints };
        self.endpoints += 1;
        let load = self.loads.entry(Arc::clone(&server.backend)).or_default().take();
        Arc::new(Endpoint::new(id, address, Arc::clone(server), load))
    }

    /// The id of a task that probes an endpoint.
    pub(super) const fn task(&mut self) -> ProbeTaskId {
        self.tasks = self.tasks.wrapping_add(1);
        ProbeTaskId(self.tasks)
    }

    /// Remembers a server that was removed at that time, and went up or down at `since`.
    pub(super) fn remove(&mut self, status: ServerStatus, since: Instant, removed: Instant) {
        self.removed.push(Removed { status, since, removed });
    }

    /// The counters of removed servers.
    pub(super) fn removed_counters(
        &self,
    ) -> impl Iterator<Item = (&Arc<ServerShared>, &Arc<ProbeCounts>)> {
        self.removed.iter().map(|removed| (&removed.status.shared, &removed.status.probes))
    }

    /// Forgets the removed servers that no session and no table holds.
    pub(super) fn forget(&mut self) {
        self.removed.retain(|removed| Arc::strong_count(&removed.status.shared) > 1);
    }

    /// Removed servers that still have sessions. The others are kept until the workers have seen
    /// the table without them.
    pub(super) fn statuses(&self, now: Instant) -> impl Iterator<Item = ServerStatus> {
        let busy =
            self.removed.iter().filter(|removed| removed.status.shared.sessions.active() > 0);
        busy.map(move |Removed { status, since, removed }| ServerStatus {
            since: now.saturating_duration_since(*since),
            removed: Some(now.saturating_duration_since(*removed)),
            ..status.clone()
        })
    }
}
