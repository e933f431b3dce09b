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
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use crate::shared::counters::{Count, PerWorker, WorkerCell};
use crate::shared::events::WorkerEvent;
use crate::shared::heartbeat::Heartbeats;
use crate::shared::limit::Limit;
use crate::shared::orders::WorkerOrder;
use crate::shared::phase::PhaseCell;
use crate::shared::queue::Queue;
use crate::shared::records::Records;
use crate::shared::sessions::SessionInfo;
use crate::shared::table::Table;
use crate::sys::socket::descriptor_limit;
use crate::sys::waker::Waker;
use crate::terms::WorkerIndex;

/// Orders that a worker has not carried out yet: those of operators, which are few; a session that
/// is the first in its queue; and clients of a stuck worker, up to 1,024 in half a second.
type Mailbox = SegQueue<WorkerOrder>;

/// Counters of the processes that this one has replaced. Only the control thread writes them.
#[derive(Debug)]
pub struct Carried {
    /// Of their workers: worker n of a process is carried by worker n modulo the workers here.
    pub workers: PerWorker<WorkerCell>,
    /// Session records that could not be written.
    pub unwritten: Count,
}

/// Which process serves HTTP and the control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observing {
    /// This one.
    Here,
    /// A new process has the sockets. Answers under way are still sent.
    HandedOver {
        /// It also has the file of the control socket, which must not be removed.
        control: bool,
    },
}

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
    /// What the processes before this one have counted of themselves.
    pub carried: Carried,
    /// Whether HTTP and the control socket are served here, or by a new process.
    pub observing: watch::Sender<Observing>,
    /// The limit of descriptors (`RLIMIT_NOFILE`), as it was last seen.
    pub descriptors: DescriptorLimit,
    /// Which workers turn.
    pub heartbeats: Heartbeats,
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
    /// Workers that pause accepting until a session ends somewhere: a bit for each, 64 in a word.
    paused: Box<[CachePadded<AtomicU64>]>,
}

/// A limit of descriptors, as it was last read. Any thread may read it again: nothing is lost if
/// two do.
#[derive(Debug)]
pub struct DescriptorLimit {
    at_start: u64,
    now: AtomicU64,
}

impl DescriptorLimit {
    /// The limit at the start.
    const fn new(limit: u64) -> Self {
        Self { at_start: limit, now: AtomicU64::new(limit) }
    }

    /// It was read.
    pub fn set(&self, limit: u64) {
        // Workers read it often, and it changes hardly ever: the line stays shared by their cores.
        if self.now.load(Ordering::Relaxed) != limit {
            self.now.store(limit, Ordering::Relaxed);
        }
    }

    /// Whether it is lower than at the start, by which the limit of sessions was chosen.
    #[must_use]
    pub fn is_lowered(&self) -> bool {
        self.now.load(Ordering::Relaxed) < self.at_start
    }
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
            carried: Carried { workers: PerWorker::new(workers), unwritten: Count::default() },
            observing: watch::Sender::new(Observing::Here),
            descriptors: DescriptorLimit::new(descriptor_limit()),
            heartbeats: Heartbeats::new(workers),
            events,
            records,
            wakers,
            mailboxes: (0..workers).map(|_| Mailbox::default()).collect(),
            versions: PerWorker::new(workers),
            paused: (0..workers.div_ceil(64)).map(|_| CachePadded::default()).collect(),
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

    /// Puts an order into the mailbox of a worker and wakes it. A worker that has ended has no
    /// session that an order could be for; another worker gets its clients.
    pub fn order(&self, worker: WorkerIndex, order: WorkerOrder) {
        self.mailboxes[worker.0].push(order);
        // Pairs with the one in `end`: either the order is seen there, or the end is seen here.
        atomic::fence(Ordering::SeqCst);
        if self.has_ended(worker) {
            self.empty_mailbox(worker);
        } else {
            self.wakers[worker.0].wake();
        }
    }

    /// Tells the first session of a queue that a server may have room.
    pub fn tell_first(&self, queue: &Queue) {
        if let Some(waiter) = queue.first() {
            self.order(waiter.worker, WorkerOrder::ServerFree(waiter));
        }
    }

    /// Orders every worker to send its open sessions.
    pub fn list_sessions(&self, to: &UnboundedSender<Vec<SessionInfo>>) {
        for worker in 0..self.wakers.len() {
            self.order(WorkerIndex(worker), WorkerOrder::List { from: 0, to: to.clone() });
        }
    }

    /// Takes the orders out of the mailbox of a worker.
    pub fn orders_to(&self, worker: WorkerIndex) -> impl Iterator<Item = WorkerOrder> {
        std::iter::from_fn(move || self.mailboxes[worker.0].pop())
    }

    /// This worker accepts nothing until it is woken: somewhere a session must end first. True if
    /// that is news: one may have ended before it was, so the worker looks once more.
    pub fn pause(&self, worker: WorkerIndex) -> bool {
        let (word, bit) = (&self.paused[worker.0 / 64], 1 << (worker.0 % 64));
        word.fetch_or(bit, Ordering::SeqCst) & bit == 0
    }

    /// A session has ended on this worker: others that wait for that are woken, each once.
    pub fn wake_paused(&self, own: WorkerIndex) {
        // Pairs with `pause`: either its bit is seen here, or it sees the count that was lowered.
        atomic::fence(Ordering::SeqCst);
        for (index, word) in self.paused.iter().enumerate() {
            let others = if index == own.0 / 64 { !(1 << (own.0 % 64)) } else { u64::MAX };
            if word.load(Ordering::Relaxed) & others == 0 {
                continue;
            }
            let paused = word.swap(0, Ordering::SeqCst) & others;
            for (bit, waker) in self.wakers[index * 64..].iter().take(64).enumerate() {
                if paused & (1 << bit) != 0 {
                    waker.wake();
                }
            }
        }
    }

    /// A worker says that it has loaded the table of this version.
    pub fn acknowledge(&self, worker: WorkerIndex, version: u64) {
        self.versions.of(worker).store(version, Ordering::Release);
    }

    /// A worker says that it has ended: it reads no table and carries out no order any more.
    pub fn end(&self, worker: WorkerIndex) {
        self.acknowledge(worker, u64::MAX);
        atomic::fence(Ordering::SeqCst);
        self.empty_mailbox(worker);
    }

    /// Gives the clients in the mailbox of a worker that is stuck to others, which take turns: they
    /// came before it was known. Its other orders stay.
    pub fn give_clients_on(&self, stuck: WorkerIndex, others: &[WorkerIndex], turn: &mut usize) {
        let orders: Vec<WorkerOrder> = self.orders_to(stuck).collect();
        for order in orders {
            let to = match order {
                WorkerOrder::Serve(_) => {
                    *turn += 1;
                    others[*turn % others.len()]
                }
                _ => stuck,
            };
            self.order(to, order);
        }
    }

    /// Drops the orders to a worker that has ended; clients go to another one, or are reset if
    /// there is none.
    fn empty_mailbox(&self, worker: WorkerIndex) {
        for order in self.orders_to(worker) {
            if let WorkerOrder::Serve(client) = order {
                match self.serving() {
                    Some(other) => self.order(other, WorkerOrder::Serve(client)),
                    None => client.socket.abort_on_close(),
                }
            }
        }
    }

    /// A worker that has not ended and is not known to be stuck.
    fn serving(&self) -> Option<WorkerIndex> {
        let mut workers = (0..self.wakers.len()).map(WorkerIndex);
        workers.find(|worker| !self.has_ended(*worker) && !self.heartbeats.is_stuck(*worker))
    }

    /// Whether a worker has ended: it reads no table any more.
    #[must_use]
    pub fn has_ended(&self, worker: WorkerIndex) -> bool {
        self.versions.of(worker).load(Ordering::Acquire) == u64::MAX
    }

    /// The oldest version that some worker may still be reading.
    #[must_use]
    pub fn seen_by_all(&self) -> u64 {
        let versions = self.versions.cells().map(|version| version.load(Ordering::Acquire));
        versions.min().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use tokio::sync::mpsc;

    use super::*;
    use crate::shared::orders::WaitingClient;
    use crate::shared::table::{Frontend, FrontendShared, Listener};
    use crate::sys::socket::Socket;

    fn state(workers: usize) -> SharedState {
        let table = Table { version: 1, ..Table::default() };
        let wakers = (0..workers).map(|_| Waker::new().unwrap()).collect();
        let (events, _nobody) = crossbeam::channel::unbounded();
        SharedState::new(table, PhaseCell::new(Instant::now()), 1, events, None, wakers)
    }

    /// A connection, and the order to serve it.
    fn waiting_client() -> (TcpStream, WorkerOrder) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let socket = Socket::from_descriptor(listener.accept().unwrap().0.into());
        let frontend = Arc::new(Frontend {
            settings: Arc::default(),
            backend: None,
            routes: None,
            shared: Arc::new(FrontendShared::new("f".into(), None, 2)),
        });
        let listener = Arc::new(Listener::new(address, vec![listener.into()]));
        (client, WorkerOrder::Serve(Box::new(WaitingClient { socket, listener, frontend })))
    }

    fn orders(state: &SharedState, worker: usize) -> usize {
        state.orders_to(WorkerIndex(worker)).count()
    }

    #[test]
    fn a_worker_that_has_ended_keeps_no_order() {
        let state = state(2);
        let (sender, mut listed) = mpsc::unbounded_channel();
        state.list_sessions(&sender);
        drop(sender);
        state.end(WorkerIndex(0));
        assert!(listed.try_recv().is_err_and(|error| error == mpsc::error::TryRecvError::Empty));
        assert_eq!((orders(&state, 0), orders(&state, 1)), (0, 1));
        // Nobody will answer any more.
        let end = listed.try_recv();
        assert!(end.is_err_and(|error| error == mpsc::error::TryRecvError::Disconnected));
        let (sender, mut listed) = mpsc::unbounded_channel();
        state.end(WorkerIndex(1));
        state.list_sessions(&sender);
        drop(sender);
        let end = listed.try_recv();
        assert!(end.is_err_and(|error| error == mpsc::error::TryRecvError::Disconnected));
    }

    #[test]
    fn a_client_that_is_given_to_a_worker_that_ends_goes_to_another_one_or_is_reset() {
        let state = state(3);
        let [(_first, early), (_second, late), (mut third, last)] =
            std::array::from_fn(|_| waiting_client());
        state.heartbeats.set(WorkerIndex(0), Duration::ZERO, true);
        state.order(WorkerIndex(1), early);
        state.end(WorkerIndex(1));
        state.order(WorkerIndex(1), late);
        assert_eq!((0..3).map(|worker| orders(&state, worker)).collect::<Vec<_>>(), [0, 0, 2]);
        state.end(WorkerIndex(2));
        state.order(WorkerIndex(2), last);
        let error = third.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn clients_that_were_given_to_a_worker_before_it_was_known_to_be_stuck_are_given_on() {
        let state = state(3);
        let clients = [waiting_client(), waiting_client()].map(|(client, order)| {
            state.order(WorkerIndex(1), order);
            client
        });
        state.order(WorkerIndex(1), WorkerOrder::LookAtBacklogs);
        state.heartbeats.set(WorkerIndex(1), Duration::ZERO, true);
        let others = [WorkerIndex(0), WorkerIndex(2)];
        state.give_clients_on(WorkerIndex(1), &others, &mut 0);
        assert_eq!([0, 1, 2].map(|worker| orders(&state, worker)), [1; 3]);
        drop(clients);
    }

    #[test]
    fn a_session_that_ends_wakes_each_of_256_workers_that_pause_and_no_other() {
        let state = state(256);
        for (own, paused) in [(0, vec![64, 128]), (64, vec![0, 255]), (255, vec![1, 63, 191])] {
            assert!(paused.iter().all(|worker| state.pause(WorkerIndex(*worker))));
            assert!(!paused.iter().any(|worker| state.pause(WorkerIndex(*worker))), "no news");
            state.wake_paused(WorkerIndex(own));
            let woken = (0..256).filter(|worker| state.wakers[*worker].take());
            assert_eq!(woken.collect::<Vec<usize>>(), paused, "by worker {own}");
            state.wake_paused(WorkerIndex(own));
            assert!(!state.wakers.iter().any(Waker::take), "each once");
        }
    }
}
