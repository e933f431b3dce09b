//! What one scrape shows: a snapshot, and what is read once at its start.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::observe::netstat::Listening;
use crate::observe::process::Process;
use crate::shared::counters::{Count, FrontendCell, PerWorker, ServerCell, WorkerCell};
use crate::shared::snapshot::{FrontendStatus, ServerStatus, Snapshot};
use crate::shared::state::SharedState;
use crate::terms::Reason;

/// One scrape.
#[derive(Debug)]
pub(super) struct Scrape {
    pub(super) snapshot: Snapshot,
    pub(super) shared: Arc<SharedState>,
    /// Of each frontend.
    counts: Vec<SessionCounts>,
    /// The servers that are shown, by their place in the snapshot, with their active sessions.
    servers: Vec<(usize, u64)>,
    pub(super) process: Option<Process>,
    pub(super) listening: Option<Listening>,
}

/// A frontend.
#[derive(Debug)]
pub(super) struct Frontend<'a> {
    pub(super) status: &'a FrontendStatus,
    pub(super) counts: &'a SessionCounts,
}

impl Frontend<'_> {
    pub(super) fn cells(&self) -> &PerWorker<FrontendCell> {
        &self.status.shared.cells
    }
}

/// A server.
#[derive(Debug)]
pub(super) struct Server<'a> {
    pub(super) status: &'a ServerStatus,
    /// Sessions of all servers of its name.
    pub(super) active: u64,
}

impl Server<'_> {
    pub(super) fn cells(&self) -> &PerWorker<ServerCell> {
        &self.status.shared.cells
    }
}

/// A worker.
#[derive(Debug)]
pub(super) struct Worker<'a> {
    pub(super) cell: &'a WorkerCell,
    carried: &'a WorkerCell,
    pub(super) heartbeat_age: Duration,
    pub(super) is_stuck: bool,
}

impl Worker<'_> {
    /// With what the processes before this one have counted.
    pub(super) fn count(&self, of: fn(&WorkerCell) -> &Count) -> u64 {
        of(self.cell).read().wrapping_add(of(self.carried).read())
    }
}

impl Scrape {
    pub(super) fn new(snapshot: Snapshot, shared: Arc<SharedState>) -> Self {
        let process = Process::read().map_err(|error| tracing::debug!("process metrics: {error}"));
        Self {
            counts: snapshot.frontends.iter().map(SessionCounts::of).collect(),
            servers: servers(&snapshot),
            process: process.ok(),
            listening: Listening::read().ok(),
            snapshot,
            shared,
        }
    }

    pub(super) fn frontend(&self, index: usize) -> Option<Frontend<'_>> {
        let (status, counts) = (self.snapshot.frontends.get(index)?, self.counts.get(index)?);
        Some(Frontend { status, counts })
    }

    pub(super) fn server(&self, index: usize) -> Option<Server<'_>> {
        let (place, active) = *self.servers.get(index)?;
        Some(Server { status: self.snapshot.servers.get(place)?, active })
    }

    pub(super) fn workers(&self) -> impl Iterator<Item = Worker<'_>> {
        let SharedState { cells, carried, heartbeats, .. } = &*self.shared;
        let counted = cells.cells().zip(carried.workers.cells());
        counted.zip(heartbeats.all()).map(|((cell, carried), (heartbeat_age, is_stuck))| Worker {
            cell,
            carried,
            heartbeat_age,
            is_stuck,
        })
    }
}

/// A name that was removed and is used again may be in the snapshot twice. The server in force,
/// which comes first, gives the counters; only the active sessions of the other are added, since
/// summed counters would decrease when the other is forgotten.
fn servers(snapshot: &Snapshot) -> Vec<(usize, u64)> {
    let active = |status: &ServerStatus| status.shared.cells.sum(|cell| cell.active.read());
    let is_removed = |status: &ServerStatus| status.removed.is_some();
    let all = snapshot.servers.iter().enumerate();
    if !snapshot.servers.iter().any(is_removed) {
        return all.map(|(place, status)| (place, active(status))).collect();
    }
    let mut known: HashMap<(&str, &str), usize> = HashMap::new();
    let mut servers: Vec<(usize, u64)> = Vec::new();
    for (place, status) in all {
        let name = (&*status.backend, &*status.shared.name);
        if let Some(index) = known.get(&name) {
            servers[*index].1 = servers[*index].1.wrapping_add(active(status));
        } else {
            known.insert(name, servers.len());
            servers.push((place, active(status)));
        }
    }
    servers
}

/// The sessions of one frontend: opened = closed + active. All of a scrape are read at its start,
/// so that its metrics agree.
#[derive(Debug, Default, Clone)]
pub(super) struct SessionCounts {
    pub(super) closed: [u64; Reason::ALL.len()],
    pub(super) active: u64,
    pub(super) opened: u64,
}

impl SessionCounts {
    /// Reads before the counts are taken as they are.
    const TRIES: u32 = 16;

    /// Over all workers and the processes before this one.
    pub(super) fn of(frontend: &FrontendStatus) -> Self {
        let cells = frontend.shared.cells.all();
        cells.map(Self::read).fold(Self::default(), |sum, one| sum.add(&one))
    }

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
