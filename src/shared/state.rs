//! The state that the planes share: the control thread writes the table and the phase, workers read
//! them and report through channels and counters.
//!
//! One `ArcSwap` holds the table. Each worker reads it through one `arc_swap::Cache`, once a turn.

use std::sync::Arc;
use std::sync::atomic::{self, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use crossbeam::channel::Sender;
use crossbeam::queue::SegQueue;
use crossbeam::utils::CachePadded;

use crate::shared::counters::{PerWorker, WorkerCell};
use crate::shared::events::WorkerEvent;
use crate::shared::limit::Limit;
use crate::shared::orders::WorkerOrder;
use crate::shared::phase::PhaseCell;
use crate::shared::records::Records;
use crate::shared::table::Table;
use crate::sys::waker::Waker;
use crate::terms::WorkerIndex;

/// Orders that a worker has not carried out yet; an operator gives few.
type Mailbox = SegQueue<WorkerOrder>;

/// The state that the planes share.
#[derive(Debug)]
pub struct SharedState {
    /// The table in force. Write it by [`SharedState::publish`] only.
    pub table: ArcSwap<Table>,
    /// Running, draining, stopped.
    pub phase: PhaseCell,
    /// `global.sessions_max`.
    pub sessions: Limit,
    /// Counters of workers.
    pub cells: PerWorker<WorkerCell>,
    /// From the workers to the control thread.
    pub events: Sender<WorkerEvent>,
    /// Session records, to the log; none: not logged.
    pub records: Option<Records>,
    /// Wakes each worker.
    pub wakers: Vec<Waker>,
    /// Orders to each worker.
    mailboxes: Vec<Mailbox>,
    /// The newest version that each worker has loaded.
    versions: PerWorker<AtomicU64>,
    /// Workers that pause accepting until a session ends somewhere: a bit each, by index modulo 64.
    paused: CachePadded<AtomicU64>,
}

impl SharedState {
    /// For as many workers as there are `wakers`, with a first table.
    #[must_use]
    pub fn new(
        table: Table,
        phase: PhaseCell,
        sessions_max: u32,
        events: Sender<WorkerEvent>,
        records: Option<Records>,
        wakers: Vec<Waker>,
    ) -> Self {
        let workers = wakers.len();
        Self {
            table: ArcSwap::from_pointee(table),
            phase,
            sessions: Limit::new(Some(sessions_max)),
            cells: PerWorker::new(workers),
            events,
            records,
            wakers,
            mailboxes: (0..workers).map(|_| Mailbox::default()).collect(),
            versions: PerWorker::new(workers),
            paused: CachePadded::new(AtomicU64::new(0)),
        }
    }

    /// Puts `table` in force and wakes the workers; gives back the one before it, which the
    /// caller keeps until [`SharedState::seen_by_all`] says that every worker has a newer one
    /// (arc-swap issues 198, 200 and 210 are memory-ordering bugs that this makes harmless).
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

    /// Puts an order into the mailbox of a worker and wakes it.
    pub fn order(&self, worker: WorkerIndex, order: WorkerOrder) {
        self.mailboxes[worker.0].push(order);
        self.wakers[worker.0].wake();
    }

    /// Takes the orders out of the mailbox of a worker.
    pub fn orders_to(&self, worker: WorkerIndex) -> impl Iterator<Item = WorkerOrder> {
        std::iter::from_fn(move || self.mailboxes[worker.0].pop())
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
