//! The table: the state in force that workers read, whole and immutable.
//!
//! One `ArcSwap` holds it, one thread writes it, and each worker reads it through one
//! `arc_swap::Cache`, once a turn. What must outlive a table (counts, the place in the rotation,
//! listening sockets) hangs in it by `Arc` and is handed from one table to the next.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{self, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam::channel::Sender;
use crossbeam::utils::CachePadded;

use crate::control::drain::PhaseCell;
use crate::observe::log::Records;
use crate::observe::metrics::{FrontendCell, PerWorker, ServerCell, WorkerCell};
use crate::sys::waker::Waker;
use crate::terms::{Seen, ServerId, WorkerIndex};

/// The state in force.
#[derive(Debug)]
pub struct Table {
    /// Grows by one with each table of the process.
    pub version: u64,
    /// Where clients connect.
    pub frontends: Vec<Arc<Frontend>>,
    /// What is listened on, and for whom. Not in the frontend: sessions hold that, and a socket
    /// must not live as long as they do.
    pub listeners: Vec<(Arc<Listener>, Arc<Frontend>)>,
}

/// A frontend in force. A session holds the one that it came by until it is connected.
#[derive(Debug)]
pub struct Frontend {
    /// Its name.
    pub name: Arc<str>,
    /// Who serves its clients.
    pub backend: Arc<Backend>,
    /// No byte in either direction.
    pub idle_timeout: Duration,
    /// One direction has ended and the other is silent.
    pub half_closed_timeout: Duration,
    /// What outlives a table.
    pub shared: Arc<FrontendShared>,
}

/// What a frontend keeps from one table to the next.
#[derive(Debug)]
pub struct FrontendShared {
    /// `sessions_max` of this frontend.
    pub sessions: Limit,
    /// Counters.
    pub cells: PerWorker<FrontendCell>,
}

/// One address that a frontend listens on: a SO_REUSEPORT socket a worker, all bound to it.
#[derive(Debug)]
pub struct Listener {
    /// The address.
    pub address: SocketAddr,
    /// Listening sockets, blocking mode, by worker.
    pub sockets: Vec<OwnedFd>,
}

/// A backend in force.
#[derive(Debug)]
pub struct Backend {
    /// Its name.
    pub name: Arc<str>,
    /// Of one attempt to connect.
    pub connect_timeout: Duration,
    /// Further attempts, each on another server where there is one.
    pub retries: u32,
    /// Those that may be picked now, and in which order.
    pub schedule: Schedule,
    /// The place in the rotation; outlives the table, and is shared by all workers, so that the
    /// rotation is exact.
    pub turn: Arc<CachePadded<AtomicUsize>>,
}

/// The servers that may be picked, and a rotation over them in which each has its share by weight,
/// spread evenly. Empty when none may be picked.
#[derive(Debug, Default)]
pub struct Schedule {
    /// Each that may be picked, once.
    pub servers: Vec<Arc<Server>>,
    /// Indices into `servers`.
    pub rotation: Vec<u16>,
}

/// A server in force.
#[derive(Debug)]
pub struct Server {
    /// Where to connect.
    pub address: SocketAddr,
    /// What outlives a table.
    pub shared: Arc<ServerShared>,
    /// Whether its kernel sends timestamps (RFC 7323), as it did when a worker first looked.
    pub timestamps: OnceLock<bool>,
}

impl Server {
    /// Nothing is known of its kernel yet.
    #[must_use]
    pub const fn new(address: SocketAddr, shared: Arc<ServerShared>) -> Self {
        Self { address, shared, timestamps: OnceLock::new() }
    }
}

/// What a server keeps from one table to the next, also when its address changes.
#[derive(Debug)]
pub struct ServerShared {
    /// Never given to another server.
    pub id: ServerId,
    /// Its backend's name.
    pub backend: Arc<str>,
    /// Its name (`name#2` for the second address of a host name).
    pub name: Arc<str>,
    /// `sessions_max` of this server.
    pub sessions: Limit,
    /// Counters.
    pub cells: PerWorker<ServerCell>,
}

/// A number of sessions that may not exceed a maximum; raised and lowered by guards.
#[derive(Debug)]
pub struct Limit {
    active: CachePadded<AtomicU32>,
    max: AtomicU32,
}

impl Limit {
    /// At most `max`; none: as many as come.
    #[must_use]
    pub fn new(max: Option<u32>) -> Self {
        Self {
            active: CachePadded::new(AtomicU32::new(0)),
            max: AtomicU32::new(max.unwrap_or(u32::MAX)),
        }
    }

    /// Changes the maximum; what is above it stays until it ends.
    pub fn set_max(&self, max: Option<u32>) {
        self.max.store(max.unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// The maximum; `u32::MAX`: none.
    #[must_use]
    pub fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    /// How many hold it now.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// How many more it would take now.
    #[must_use]
    pub fn room(&self) -> u32 {
        self.max.load(Ordering::Relaxed).saturating_sub(self.active())
    }

    /// Raises the count unless it is at its maximum. Never above it, at any instant.
    #[must_use]
    pub fn try_raise(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        if max == u32::MAX {
            self.active.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        let raise = |active| (active < max).then_some(active + 1);
        self.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, raise).is_ok()
    }

    /// Lowers the count; to be called by guards alone.
    pub fn lower(&self) {
        let before = self.active.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "a limit is lowered once for each time that it was raised");
    }
}

/// All that the two planes share. The control thread writes, workers read; the other way go only
/// `seen`, `records` and the counters.
#[derive(Debug)]
pub struct Seam {
    /// The table in force. Write it by [`Seam::publish`] only.
    pub table: ArcSwap<Table>,
    /// Running, draining, stopped.
    pub phase: PhaseCell,
    /// `global.sessions_max`.
    pub sessions: Limit,
    /// Sockets of servers that each worker may keep once their connection is over.
    spares: AtomicU16,
    /// Counters of workers.
    pub cells: PerWorker<WorkerCell>,
    /// What workers saw, to the control thread.
    pub seen: Sender<Seen>,
    /// Ended sessions, to the log; none: not logged.
    pub records: Option<Records>,
    /// Wakes each worker out of its wait.
    pub wakers: Vec<Waker>,
    /// The newest version that each worker has loaded.
    versions: PerWorker<AtomicU64>,
    /// Workers that pause accepting until a session ends somewhere: a bit each, by index modulo 64.
    paused: CachePadded<AtomicU64>,
}

impl Seam {
    /// For as many workers as there are `wakers`, with a first table.
    #[must_use]
    pub fn new(
        table: Table,
        phase: PhaseCell,
        sessions_max: u32,
        seen: Sender<Seen>,
        records: Option<Records>,
        wakers: Vec<Waker>,
    ) -> Self {
        let workers = wakers.len();
        Self {
            table: ArcSwap::from_pointee(table),
            phase,
            sessions: Limit::new(Some(sessions_max)),
            spares: AtomicU16::new(0),
            cells: PerWorker::new(workers),
            seen,
            records,
            wakers,
            versions: PerWorker::new(workers),
            paused: CachePadded::new(AtomicU64::new(0)),
        }
    }

    /// Puts `table` in force and wakes the workers; gives back the one before it, which the
    /// caller keeps until [`Seam::seen_by_all`] says that every worker has a newer one (arc-swap
    /// issues 198, 200 and 210 are memory-ordering bugs that this makes harmless).
    #[must_use = "the old table must be kept until every worker has seen the new one"]
    pub fn publish(&self, table: Table) -> Arc<Table> {
        let old = self.table.swap(Arc::new(table));
        self.wake();
        old
    }

    /// Wakes every worker: after a change of the table or the phase.
    pub fn wake(&self) {
        for waker in &self.wakers {
            waker.wake();
        }
    }

    /// Each worker may keep so many spare sockets from now on; none at first. What it has above
    /// that goes as it is used, or soon when it is not.
    pub fn allow_spares(&self, each: u16) {
        self.spares.store(each, Ordering::Relaxed);
    }

    /// How many spare sockets each worker may keep.
    pub fn spares(&self) -> u16 {
        self.spares.load(Ordering::Relaxed)
    }

    /// This worker accepts nothing until it is woken: somewhere a session must end first. True if
    /// that is news: one may have ended before it was, so the worker looks once more.
    pub fn pause(&self, worker: WorkerIndex) -> bool {
        self.paused.fetch_or(bit_of(worker), Ordering::SeqCst) & bit_of(worker) == 0
    }

    /// A session has ended on this worker: others that wait for that are woken, each once.
    pub fn wake_paused(&self, own: WorkerIndex) {
        // Pairs with `pause`: either its bit is seen here, or it sees the count that was lowered.
        atomic::fence(Ordering::SeqCst);
        if self.paused.load(Ordering::Relaxed) & !bit_of(own) == 0 {
            return;
        }
        let paused = self.paused.swap(0, Ordering::SeqCst);
        for (index, waker) in self.wakers.iter().enumerate() {
            if index != own.0 && paused & bit_of(WorkerIndex(index)) != 0 {
                waker.wake();
            }
        }
    }

    /// A worker says that it has loaded the table of this version.
    pub fn acknowledge(&self, worker: WorkerIndex, version: u64) {
        self.versions.of(worker).store(version, Ordering::Release);
    }

    /// The oldest version that some worker may still be reading.
    #[must_use]
    pub fn seen_by_all(&self) -> u64 {
        let versions = self.versions.cells().map(|version| version.load(Ordering::Acquire));
        versions.min().unwrap_or(u64::MAX)
    }
}

const fn bit_of(worker: WorkerIndex) -> u64 {
    1 << (worker.0 % 64)
}

/// A server to be scheduled, with its weight (0: not scheduled).
pub type Share = (Arc<Server>, u32);

impl Schedule {
    /// The longest rotation: 128 KiB. Weights whose rotation would be longer are scaled down,
    /// which changes shares by less than a thousandth.
    pub const ROTATION_MAX: u64 = 65_536;

    /// Spreads the shares evenly: the k-th turn of a server of weight w stands at (2k + 1) / 2w
    /// of the way round, ties in the order given. With equal weights that is plain round robin.
    #[must_use]
    pub fn new(shares: Vec<Share>) -> Self {
        let shares: Vec<Share> = shares.into_iter().filter(|(_, weight)| *weight > 0).collect();
        let weights = reduce(shares.iter().map(|(_, weight)| *weight).collect());
        let mut turns: Vec<(u64, u16)> = Vec::new();
        for (index, weight) in weights.iter().enumerate() {
            let Ok(index) = u16::try_from(index) else { break };
            for k in 0..u64::from(*weight) {
                // A fixed-point fraction of the way round: 40 bits are finer than any two turns.
                turns.push((((2 * k + 1) << 40) / (2 * u64::from(*weight)), index));
            }
        }
        turns.sort_unstable();
        Self {
            servers: shares.into_iter().map(|(server, _)| server).collect(),
            rotation: turns.into_iter().map(|(_, index)| index).collect(),
        }
    }

    /// Whether no server may be picked.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rotation.is_empty()
    }
}

/// The smallest whole weights with (nearly) the same shares.
fn reduce(mut weights: Vec<u32>) -> Vec<u32> {
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let divisor = weights.iter().copied().reduce(greatest_common_divisor).unwrap_or(1);
    let reduced = total / u64::from(divisor.max(1));
    for weight in &mut weights {
        if reduced > Schedule::ROTATION_MAX {
            let scaled = u64::from(*weight) * Schedule::ROTATION_MAX / total;
            *weight = u32::try_from(scaled).unwrap_or(u32::MAX).max(1);
        } else {
            *weight /= divisor.max(1);
        }
    }
    weights
}

const fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(id: u32) -> Arc<Server> {
        let shared = ServerShared {
            id: ServerId(id),
            backend: Arc::from("b"),
            name: Arc::from(format!("s{id}")),
            sessions: Limit::new(None),
            cells: PerWorker::new(1),
        };
        Arc::new(Server::new(SocketAddr::from(([127, 0, 0, 1], 1)), Arc::new(shared)))
    }

    fn rotation(weights: &[u32]) -> Vec<u16> {
        let shares = (0..).zip(weights).map(|(id, weight)| (server(id), *weight)).collect();
        Schedule::new(shares).rotation
    }

    #[test]
    fn equal_weights_take_plain_turns() {
        assert_eq!(rotation(&[100, 100, 100]), [0, 1, 2]);
    }

    #[test]
    fn a_heavier_server_is_spread_not_bunched() {
        assert_eq!(rotation(&[200, 100]), [0, 1, 0]);
        assert_eq!(rotation(&[500, 100, 100]), [0, 0, 0, 1, 2, 0, 0]);
    }

    #[test]
    fn a_weight_of_zero_gets_no_turn() {
        assert_eq!(rotation(&[0, 100]), [0]);
        assert_eq!(rotation(&[0, 0]), [0u16; 0]);
    }

    #[test]
    fn a_rotation_stays_below_its_limit() {
        let weights: Vec<u32> = (0..1000).map(|n| 1 + n % 1000).collect();
        let rotation = rotation(&weights);
        assert!(rotation.len() as u64 <= Schedule::ROTATION_MAX + 1000);
        let last = rotation.iter().filter(|index| **index == 999).count();
        let first = rotation.iter().filter(|index| **index == 99).count();
        assert!((9..=11).contains(&(last / first)), "{last} to {first}");
    }

    #[test]
    fn a_limit_is_never_exceeded() {
        let limit = Limit::new(Some(2));
        assert!(limit.try_raise() && limit.try_raise() && !limit.try_raise());
        limit.lower();
        assert!(limit.try_raise() && limit.room() == 0);
    }
}
