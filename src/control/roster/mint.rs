//! Makes what a server keeps for the life of the process, and remembers it a while when the
//! server goes: until its last session ends, or it comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{self, AdminState};
use crate::control::roster::server::{Member, ServerBook};
use crate::shared::counters::PerWorker;
use crate::shared::limit::Limit;
use crate::shared::server::ServerShared;
use crate::shared::snapshot::{ProbeCounts, ServerStatus};
use crate::terms::ServerId;

/// Makes [`ServerShared`]s for the servers of one backend.
#[derive(Debug)]
pub(super) struct Mint<'a> {
    pub(super) backend: &'a Arc<str>,
    pub(super) past: &'a mut Past,
}

/// Ids that were given, and servers that are gone.
#[derive(Debug)]
pub(super) struct Past {
    workers: usize,
    next: u32,
    removed: Vec<Removed>,
}

/// A server that is gone.
#[derive(Debug)]
struct Removed {
    backend: Arc<str>,
    address: Option<SocketAddr>,
    written: Arc<str>,
    weight: u32,
    backup: bool,
    up: bool,
    since: Instant,
    probes: Arc<ProbeCounts>,
    last_probe: String,
    shared: Arc<ServerShared>,
}

impl Mint<'_> {
    /// What the server called `name` keeps: its own if it is one that comes back, so that a name
    /// is never reported twice.
    pub(super) fn shared(
        &mut self,
        name: &str,
        config: &config::Server,
    ) -> (Arc<ServerShared>, Arc<ProbeCounts>) {
        let max = config.sessions_max.map(Into::into);
        let is_it =
            |removed: &Removed| removed.backend == *self.backend && *removed.shared.name == *name;
        if let Some(index) = self.past.removed.iter().position(is_it) {
            let removed = self.past.removed.swap_remove(index);
            removed.shared.sessions.set_max(max);
            return (removed.shared, removed.probes);
        }
        let id = ServerId(self.past.next);
        self.past.next += 1;
        let shared = ServerShared {
            id,
            backend: Arc::clone(self.backend),
            name: name.into(),
            sessions: Limit::new(max),
            cells: PerWorker::new(self.past.workers),
        };
        (Arc::new(shared), Arc::default())
    }

    /// `member` of `server` is gone.
    pub(super) fn retire(&mut self, server: &ServerBook, member: &Member) {
        self.past.removed.push(Removed {
            backend: Arc::clone(self.backend),
            address: member.address,
            written: Arc::clone(&server.written),
            weight: server.weight(),
            backup: server.config.backup,
            up: member.is_up(),
            since: member.since,
            probes: Arc::clone(&member.probes),
            last_probe: member.last_probe.clone(),
            shared: Arc::clone(&member.shared),
        });
    }
}

impl Past {
    pub(super) const fn new(workers: usize) -> Self {
        Self { workers, next: 0, removed: Vec::new() }
    }

    /// Worker threads, which is cells of everything.
    pub(super) const fn workers(&self) -> usize {
        self.workers
    }

    /// Forgets those that nobody else has: no session, no table.
    pub(super) fn forget(&mut self) {
        self.removed.retain(|removed| Arc::strong_count(&removed.shared) > 1);
    }

    /// Those that still have sessions. The others are kept until workers have seen the table
    /// without them, but are nothing to look at.
    pub(super) fn statuses(&self, now: Instant) -> impl Iterator<Item = ServerStatus> {
        let busy = self.removed.iter().filter(|removed| removed.shared.sessions.active() > 0);
        busy.map(move |removed| ServerStatus {
            backend: Arc::clone(&removed.backend),
            address: removed.address,
            written: Arc::clone(&removed.written),
            up: removed.up,
            // It gets no new session, which is what draining means.
            admin: AdminState::Drain,
            weight: removed.weight,
            backup: removed.backup,
            removed: true,
            since: since(removed.since, now),
            probes: Arc::clone(&removed.probes),
            last_probe: removed.last_probe.clone(),
            shared: Arc::clone(&removed.shared),
        })
    }
}

/// How long ago `then` was.
pub(super) fn since(then: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(then)
}
