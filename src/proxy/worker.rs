//! A worker: one thread, one ring, and the sessions that it accepted. Each turn is one
//! `io_uring_enter(2)`: submit what the last turn asked for, wait, and give every completion to the
//! session that it belongs to.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};

use crate::proxy::access::NewClient;
use crate::proxy::context::WorkerContext;
use crate::proxy::listeners::Listeners;
use crate::proxy::slots::{Key, Slots};
use crate::proxy::sockets::Live;
use crate::proxy::timer_wheel::{Tick, TimerWheel};
use crate::proxy::user_data::UserData;
use crate::proxy::worker_handle::WorkerHandle;
use crate::shared::events::WorkerEvent;
use crate::shared::orders::WorkerOrder;
use crate::shared::phase::Phase;
use crate::shared::queue::Waiter;
use crate::shared::state::SharedState;
use crate::shared::table::Table;
use crate::sys::buffer::BUFFER_SIZE;
use crate::sys::buffer_queue::BufferLinks;
use crate::sys::pipe::{PipeLimits, Pipes};
use crate::sys::ring::completion::Completion;
use crate::sys::ring::{Ring, RingError};
use crate::sys::thread::pin;
use crate::terms::{End, Reason, WorkerIndex};

/// How long pipes and memory that nobody needs are kept.
const KEPT: Duration = Duration::from_secs(1);

/// What a worker is started with.
#[derive(Debug)]
pub struct Worker {
    /// Its index among the workers.
    pub index: WorkerIndex,
    /// What it shares with the control thread.
    pub shared: Arc<SharedState>,
    /// Sessions that its ring is made for: `global.sessions_max`, or fewer.
    pub sessions_max: u32,
    /// Bytes of buffers, at most.
    pub buffers: u64,
    /// Pipes, at most.
    pub pipes: PipeLimits,
    /// The core to pin its thread to.
    pub core: Option<usize>,
}

impl Worker {
    /// Starts the thread; returns when its ring is ready and it is about to accept. The thread ends
    /// when the phase is draining or stopped and its last session has ended; it then reports
    /// [`WorkerEvent::WorkerEnded`].
    ///
    /// # Errors
    /// The ring or the thread cannot be made, or it cannot be pinned.
    pub fn start(self) -> io::Result<JoinHandle<()>> {
        let (ready, is_ready) = mpsc::sync_channel(1);
        let name = format!("worker-{}", self.index.0);
        let thread =
            thread::Builder::new().name(name).spawn(move || match Running::new(&self) {
                Ok(mut running) => {
                    drop(ready.send(Ok(())));
                    running.run();
                    drop(running);
                    self.shared.events.send(WorkerEvent::WorkerEnded(self.index)).ok();
                }
                Err(error) => drop(ready.send(Err(error))),
            })?;
        match is_ready.recv() {
            Ok(Ok(())) => Ok(thread),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::other("the worker ended before it was ready")),
        }
    }

    /// Buffers in `buffers` bytes; a buffer id has 16 bits, which is 1 GiB.
    fn buffer_count(&self) -> u16 {
        u16::try_from(self.buffers / BUFFER_SIZE as u64).unwrap_or(u16::MAX)
    }
}

/// Where the table in force is found.
#[derive(Debug)]
struct InForce(Arc<SharedState>);

impl Deref for InForce {
    type Target = ArcSwap<Table>;

    fn deref(&self) -> &Self::Target {
        &self.0.table
    }
}

/// The state of a worker's thread.
pub(super) struct Running {
    pub(super) worker: Rc<WorkerHandle>,
    table: Cache<InForce, Arc<Table>>,
    /// No table has been followed yet.
    is_new: bool,
    pub(super) context: WorkerContext,
    listeners: Listeners,
    pub(super) sessions: Slots<Live>,
    pub(super) timers: TimerWheel,
    pub(super) now: Tick,
    /// A session waits for a buffer and none comes back: when sessions that hold some are closed.
    pub(super) shortage_until: Option<Tick>,
    /// When idle pipes and memory are released, and how many pipes had been taken when that was
    /// set.
    kept: (Tick, u64),
    admitted: Vec<NewClient>,
    pub(super) due: Vec<u32>,
}

impl Running {
    pub(super) fn new(worker: &Worker) -> io::Result<Self> {
        if let Some(core) = worker.core {
            pin(core)?;
        }
        let shared = &worker.shared;
        let mut ring = Ring::new(worker.sessions_max, worker.buffer_count())?;
        ring.watch(&shared.wakers[worker.index.0], UserData::Wake.pack());
        let handle = Rc::new(WorkerHandle::new(Arc::clone(shared), worker.index));
        let mut running = Self {
            table: Cache::new(InForce(Arc::clone(shared))),
            is_new: true,
            listeners: Listeners::new(Rc::clone(&handle)),
            context: WorkerContext {
                worker: Rc::clone(&handle),
                table: shared.table.load_full(),
                links: BufferLinks::new(ring.buffers().count()),
                ring,
                pipes: Pipes::new(worker.pipes),
                preface: Vec::new(),
                waiting: VecDeque::new(),
                source_turn: 0,
                released: false,
                starved: false,
            },
            worker: handle,
            sessions: Slots::new(),
            timers: TimerWheel::new(),
            now: Tick::START,
            shortage_until: None,
            kept: (Tick::START, 0),
            admitted: Vec::new(),
            due: Vec::new(),
        };
        running.follow_table();
        running.turn_listeners();
        Ok(running)
    }

    /// Runs until a drain or a stop has ended everything.
    pub(super) fn run(&mut self) {
        while !(self.listeners.is_empty() && self.sessions.is_empty() && self.is_draining()) {
            if let Err(error) = self.wait() {
                error.end_process();
            }
            self.now = Tick::START.after(self.context.ring.now());
            self.follow_table();
            self.follow_phase();
            self.reap();
            self.follow_supply();
            self.serve_waiting();
            self.meet_deadlines();
            self.turn_listeners();
            self.release_idle();
            self.count_turn();
        }
        self.end_ring();
        self.worker.shared.end(self.worker.index);
    }

    /// Reads the table in force, once a turn, and acknowledges it.
    fn follow_table(&mut self) {
        let table = self.table.load();
        if table.version != self.context.table.version || self.is_new {
            self.is_new = false;
            self.listeners.follow(table);
            self.context.table = Arc::clone(table);
            self.worker.shared.acknowledge(self.worker.index, table.version);
            self.tell_queued();
        }
    }

    fn is_draining(&self) -> bool {
        self.worker.shared.phase.load() != Phase::Running
    }

    fn follow_phase(&mut self) {
        let end = match self.worker.shared.phase.load() {
            Phase::Running => return,
            Phase::Draining(deadline) if Instant::now() < deadline => None,
            Phase::Draining(_) => Some(End::new(Reason::DrainTimeout, b"KD")),
            Phase::Stopped => Some(End::new(Reason::Killed, b"KD")),
        };
        self.listeners.drain(end.is_some());
        if let Some(end) = end {
            self.stop_where(end, |_| true);
        }
    }

    /// Submits, and waits for a completion, or until something else needs attention.
    fn wait(&mut self) -> Result<(), RingError> {
        let drain = match self.worker.shared.phase.load() {
            Phase::Draining(deadline) => {
                Some(self.now.after(deadline.saturating_duration_since(Instant::now())))
            }
            Phase::Running | Phase::Stopped => None,
        };
        // Sessions wait for a buffer while there are some: no wait at all.
        let buffers = (!self.context.waiting.is_empty()
            && self.context.ring.buffers().provided() > 0)
            .then_some(self.now);
        let idle = self.has_idle().then_some(self.kept.0);
        let listeners = self.listeners.next(self.now);
        let times = [self.timers.next(), listeners, drain, buffers, idle, self.shortage_until];
        let until = times.into_iter().flatten().min();
        let since_start = |tick: Tick| tick.since(Tick::START);
        self.context.ring.wait(since_start(self.now), until.map(since_start))
    }

    /// Handles every completion there is.
    fn reap(&mut self) {
        let mut reaped = 0;
        while let Some(completion) = self.context.ring.completion() {
            reaped += 1;
            self.dispatch(completion);
        }
        self.worker.shared.cells.of(self.worker.index).completions.add(reaped);
    }

    fn dispatch(&mut self, completion: Completion) {
        match UserData::unpack(completion.user_data) {
            Some(UserData::Session(key, operation)) => {
                self.on_completed(key, operation, completion);
            }
            Some(UserData::Accept(listener)) => {
                let client = self.listeners.on_accepted(listener, completion, self.now);
                client.into_iter().for_each(|client| self.begin(client));
            }
            Some(UserData::Wake) => {
                let waker = &self.worker.shared.wakers[self.worker.index.0];
                waker.take();
                self.context.ring.watch(waker, UserData::Wake.pack());
                // What was put in force after this turn's look may have been announced by the very
                // wake-up that was just taken: there will be no other.
                self.follow_table();
                self.follow_phase();
                self.follow_orders();
            }
            None => debug_assert!(false, "user data of no operation: {completion:?}"),
        }
    }

    /// Carries out the orders in this worker's mailbox.
    fn follow_orders(&mut self) {
        let worker = Rc::clone(&self.worker);
        // Those that follow from these come in the next turn.
        let orders: Vec<WorkerOrder> = worker.shared.orders_to(worker.index).collect();
        for order in orders {
            match order {
                WorkerOrder::Kill { slot, generation } => {
                    let key = Key { slot, generation };
                    self.stop(key, End::new(Reason::Killed, b"KD"));
                }
                WorkerOrder::CloseSessionsOf(server) => {
                    let end = End::new(Reason::ServerDown, b"DD");
                    self.stop_where(end, |session| session.server() == Some(server));
                }
                WorkerOrder::LookAtBacklogs => self.listeners.look_at_backlogs(),
                WorkerOrder::List { from, to } => self.list(from, to),
                WorkerOrder::ServerFree(Waiter { slot, generation, .. }) => {
                    self.serve_queued(Key { slot, generation });
                }
                WorkerOrder::RejoinQueues => self.tell_queued(),
                WorkerOrder::Serve(client) => self.listeners.adopt(*client),
            }
        }
    }

    fn turn_listeners(&mut self) {
        let mut admitted = mem::take(&mut self.admitted);
        self.listeners.turn(&mut self.context, self.now, &mut admitted);
        for client in admitted.drain(..) {
            self.begin(client);
        }
        self.admitted = admitted;
    }

    /// Releases what a burst needed and nobody has needed for a while: the descriptors of pipes,
    /// the memory of buffers.
    fn release_idle(&mut self) {
        let taken = self.context.pipes.taken();
        if taken != self.kept.1 {
            self.kept = (self.now.after(KEPT), taken);
        } else if self.now >= self.kept.0 && self.has_idle() {
            self.kept = (self.now.after(KEPT), taken);
            self.context.pipes.close_idle();
            self.context.released = true;
            self.context.ring.give_back_memory();
        }
    }

    fn has_idle(&self) -> bool {
        self.context.pipes.has_idle() || self.context.ring.buffers().has_slack()
    }

    /// Waits for what the kernel still holds: the watch of the waker.
    fn end_ring(&mut self) {
        self.context.ring.cancel(UserData::Wake.pack());
        self.context.ring.finish(Duration::from_secs(1));
    }
}
