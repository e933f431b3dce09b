//! A worker: one thread, one ring, and the sessions that it accepted. Each turn is one
//! `io_uring_enter(2)`: submit what the last turn asked for, wait, and hand every answer to the
//! session that it belongs to. What a session sends upon the only answer of a turn goes out at once
//! (`Ring::send`).

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, Cache};

use crate::proxy::PIPES_PER_WORKER;
use crate::proxy::courtesy::Courtesy;
use crate::proxy::kernel::{Event, Operation};
use crate::proxy::legs::{Admitted, Legs, Tools, Wired};
use crate::proxy::listen::Listeners;
use crate::proxy::pick::Local;
use crate::proxy::queue::Links;
use crate::proxy::session::{Rules, Session};
use crate::proxy::slots::{Key, Slots};
use crate::proxy::spares::Spares;
use crate::proxy::token::{self, Token};
use crate::proxy::wheel::{Moment, Wheel};
use crate::shared::events::WorkerEvent;
use crate::shared::phase::Phase;
use crate::shared::records::SessionRecord;
use crate::shared::state::SharedState;
use crate::shared::table::Table;
use crate::sys::buffer::{BUFFER_SIZE, Supply};
use crate::sys::pipe::{Pipes, size_of_each};
use crate::sys::ring::{Completion, Ring};
use crate::sys::thread::pin;
use crate::terms::{Direction, End, Reason, WorkerIndex};

/// How long pipes and memory that nobody needs are kept.
const KEPT: Duration = Duration::from_secs(1);

/// What a worker is started with.
#[derive(Debug)]
pub struct Worker {
    /// Its place among the workers.
    pub index: WorkerIndex,
    /// What it shares with the control thread.
    pub seam: Arc<SharedState>,
    /// Sessions that it must have room for: `global.sessions_max`.
    pub sessions_max: u32,
    /// Bytes of buffers; none: one buffer for each of `sessions_max`, at least 512.
    pub buffers: Option<u64>,
    /// The core to pin its thread to.
    pub core: Option<usize>,
    /// Whether it counts what that core receives, for `control::steering`.
    pub steerable: bool,
}

impl Worker {
    /// Starts the thread; returns when its ring stands and it is about to accept. The thread ends
    /// when the phase is draining or stopped and its last session has ended; it then says
    /// [`WorkerEvent::WorkerEnded`].
    ///
    /// # Errors
    /// The ring cannot be made, or the thread, or it cannot be pinned.
    pub fn start(self) -> io::Result<JoinHandle<()>> {
        let (ready, is_ready) = mpsc::sync_channel(1);
        let name = format!("worker-{}", self.index.0);
        let thread =
            thread::Builder::new().name(name).spawn(move || match Running::new(&self) {
                Ok(mut running) => {
                    drop(ready.send(Ok(())));
                    running.run();
                    drop(running);
                    self.seam.events.send(WorkerEvent::WorkerEnded(self.index)).ok();
                }
                Err(error) => drop(ready.send(Err(error))),
            })?;
        match is_ready.recv() {
            Ok(Ok(())) => Ok(thread),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::other("the worker ended before it was ready")),
        }
    }

    /// Buffers by the rule of `global.buffers`: one for each session, which is what each may hold
    /// once they are scarce; the most that a buffer's number can say is 1 GiB.
    fn buffer_count(&self) -> u16 {
        let wanted = match self.buffers {
            Some(bytes) => bytes / BUFFER_SIZE as u64,
            None => u64::from(self.sessions_max).max(512),
        };
        u16::try_from(wanted).unwrap_or(u16::MAX)
    }
}

/// A session and what it holds.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) session: Session,
    pub(super) legs: Legs,
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

/// A worker at work.
pub(super) struct Running {
    pub(super) local: Rc<Local>,
    table: Cache<InForce, Arc<Table>>,
    /// No table has been followed yet.
    is_new: bool,
    pub(super) tools: Tools,
    listeners: Listeners,
    pub(super) sessions: Slots<Live>,
    wheel: Wheel,
    courtesy: Option<Courtesy>,
    pub(super) now: Moment,
    /// Somebody waits for a buffer and none comes back: when sessions that hold some are ended.
    pub(super) shortage_until: Option<Moment>,
    /// When what is idle is given back, and how many pipes had been taken when that was set.
    kept: (Moment, u64),
    admitted: Vec<Admitted>,
    due: Vec<u32>,
}

impl Running {
    fn new(worker: &Worker) -> io::Result<Self> {
        if let Some(core) = worker.core {
            pin(core)?;
        }
        let buffers = worker.buffer_count();
        let pipes = worker.seam.wakers.len() * usize::from(PIPES_PER_WORKER);
        let mut ring = Ring::new(worker.sessions_max, buffers)?;
        ring.watch(&worker.seam.wakers[worker.index.0], Token::Wake.pack());
        let local = Rc::new(Local { seam: Arc::clone(&worker.seam), index: worker.index });
        let mut running = Self {
            table: Cache::new(InForce(Arc::clone(&worker.seam))),
            is_new: true,
            listeners: Listeners::new(Rc::clone(&local), worker.core.filter(|_| worker.steerable)),
            tools: Tools {
                local: Rc::clone(&local),
                table: worker.seam.table.load_full(),
                links: Links::new(ring.buffers().count()),
                ring,
                pipes: Pipes::new(PIPES_PER_WORKER, size_of_each(pipes)),
                waiting: VecDeque::new(),
                released: false,
                starved: false,
                spares: Spares::new(),
            },
            local,
            sessions: Slots::new(),
            wheel: Wheel::new(),
            courtesy: Courtesy::begin(Moment::START),
            now: Moment::START,
            shortage_until: None,
            kept: (Moment::START, 0),
            admitted: Vec::new(),
            due: Vec::new(),
        };
        running.follow_table();
        running.steer_listeners();
        Ok(running)
    }

    /// Turns until a drain or a stop has ended everything.
    fn run(&mut self) {
        while !(self.listeners.is_empty() && self.sessions.is_empty() && self.is_leaving()) {
            if let Err(error) = self.wait() {
                // A ring that cannot be entered serves nobody; a supervisor starts a new process.
                panic_of_worker(self.local.index, &error);
            }
            self.now = Moment::START.after(self.tools.ring.now());
            self.follow_table();
            self.follow_phase();
            self.reap();
            self.serve_waiting();
            self.meet_deadlines();
            self.steer_listeners();
            self.tidy_up();
            self.courtesy.iter_mut().for_each(|courtesy| courtesy.look(self.now));
            self.count_turn();
        }
        self.end_ring();
        self.local.seam.acknowledge(self.local.index, u64::MAX); // it reads no table any more
    }

    /// Reads the table in force, once a turn, and says so.
    fn follow_table(&mut self) {
        let table = self.table.load();
        if table.version != self.tools.table.version || self.is_new {
            self.is_new = false;
            self.listeners.follow(table);
            self.tools.table = Arc::clone(table);
            self.local.seam.acknowledge(self.local.index, table.version);
        }
    }

    fn is_leaving(&self) -> bool {
        self.local.seam.phase.load() != Phase::Running
    }

    fn follow_phase(&mut self) {
        let end = match self.local.seam.phase.load() {
            Phase::Running => return,
            Phase::Draining(deadline) if Instant::now() < deadline => None,
            Phase::Draining(_) => Some(End::new(Reason::DrainTimeout, b"KD")),
            Phase::Stopped => Some(End::new(Reason::Killed, b"KD")),
        };
        self.listeners.leave(end.is_some());
        if let Some(end) = end {
            for slot in 0..self.sessions.capacity() {
                self.stop(slot, end);
            }
        }
    }

    /// Submits, and waits for an answer of the kernel, or until something else needs attention.
    fn wait(&mut self) -> io::Result<()> {
        let drain = match self.local.seam.phase.load() {
            Phase::Draining(deadline) => {
                Some(self.now.after(deadline.saturating_duration_since(Instant::now())))
            }
            Phase::Running | Phase::Stopped => None,
        };
        // Those who wait for a buffer while there are some: no wait at all.
        let buffers = (!self.tools.waiting.is_empty() && self.tools.ring.buffers().provided() > 0)
            .then_some(self.now);
        let tidy = self.has_slack().then_some(self.kept.0);
        let wheel = self.wheel.next();
        let spares = self.tools.spares.next();
        let shortage = self.shortage_until;
        let times = [wheel, self.listeners.next(self.now), drain, buffers, tidy, spares, shortage];
        let until = times.into_iter().flatten().min();
        let since_start = |moment: Moment| moment.since(Moment::START);
        self.tools.ring.wait(since_start(self.now), until.map(since_start))
    }

    /// Hands out every answer there is.
    fn reap(&mut self) {
        let mut reaped = 0;
        while let Some(completion) = self.tools.ring.completion() {
            reaped += 1;
            self.dispatch(completion);
        }
        self.local.seam.cells.of(self.local.index).completions.add(reaped);
    }

    fn dispatch(&mut self, completion: Completion) {
        match Token::unpack(completion.token) {
            Some(Token::Session(key, operation)) => self.answer(key, operation, &completion),
            Some(Token::Accept(listener)) => {
                let admitted = self.listeners.on_accepted(listener, completion, self.now);
                admitted.into_iter().for_each(|admitted| self.begin(admitted));
            }
            Some(Token::Wake) => {
                let waker = &self.local.seam.wakers[self.local.index.0];
                waker.take();
                self.tools.ring.watch(waker, Token::Wake.pack());
                // What was put in force after this turn's look may have been told by the very
                // wake-up that was just taken: there will be no other.
                self.follow_table();
                self.follow_phase();
            }
            None => debug_assert!(false, "a token of nobody: {completion:?}"),
        }
    }

    /// Begins the session of a client.
    fn begin(&mut self, admitted: Admitted) {
        let frontend = &admitted.frontend;
        let rules = Rules {
            idle_timeout: frontend.settings.idle_timeout,
            half_closed_timeout: frontend.settings.half_closed_timeout,
            retries: frontend.backend.settings.retries,
        };
        let log = self.local.seam.records.is_some();
        let mut legs = Legs::new(admitted, log);
        let key = self.sessions.reserve();
        let mut wired = Wired { tools: &mut self.tools, legs: &mut legs, key };
        let session = Session::begin(rules, self.now, &mut wired);
        let live = Live { session, legs };
        if live.session.is_closed() {
            self.retire(live);
        } else {
            self.wheel.set(key.slot, live.session.deadline());
            self.sessions.insert(key, live);
        }
    }

    /// An operation of a session answered.
    fn answer(&mut self, key: Key, operation: Operation, completion: &Completion) {
        let event = token::event(operation, completion);
        if !self.tell(key, event) {
            if let Some(buffer) = completion.buffer {
                self.tools.ring.buffers_mut().release(buffer);
            }
            self.local.seam.cells.of(self.local.index).stale_completions.add(1);
            debug_assert!(false, "a session ends after its last completion: {completion:?}");
        }
    }

    /// Tells a session what happened; false if it has ended already.
    pub(super) fn tell(&mut self, key: Key, event: Event) -> bool {
        let Some(live) = self.sessions.get(key) else { return false };
        let mut wired = Wired { tools: &mut self.tools, legs: &mut live.legs, key };
        live.session.on(event, self.now, &mut wired);
        self.after_event(key);
        true
    }

    fn stop(&mut self, slot: u32, end: End) {
        let Some((key, live)) = self.sessions.at(slot) else { return };
        let mut wired = Wired { tools: &mut self.tools, legs: &mut live.legs, key };
        live.session.stop(end, self.now, &mut wired);
        self.after_event(key);
    }

    /// Takes an ended session out; else sees that its deadline is not missed. One that has moved
    /// away is found out when the old one comes.
    pub(super) fn after_event(&mut self, key: Key) {
        let Some(live) = self.sessions.get(key) else { return };
        if !live.session.is_closed() {
            let deadline = live.session.deadline();
            if deadline < self.wheel.deadline(key.slot) {
                self.wheel.set(key.slot, deadline);
            }
        } else if let Some(live) = self.sessions.remove(key) {
            self.wheel.set(key.slot, Moment::NEVER);
            self.retire(live);
        }
    }

    /// The books of a session that has ended.
    fn retire(&self, live: Live) {
        let Live { session, legs } = live;
        let Legs { admission, names, served_by, address, .. } = legs;
        let internal = End::new(Reason::Internal, b"ID");
        let end = session.end().unwrap_or(internal);
        let cell = admission.cell();
        let duration = self.now.since(session.started());
        cell.session_duration.record(duration);
        cell.closed[end.reason as usize].add(1);
        // One count less that is active, at once: whoever reads the books sees them balance.
        drop(admission);
        let Some(records) = &self.local.seam.records else { return };
        let Some([frontend, backend]) = names else { return };
        let record = SessionRecord {
            frontend,
            backend,
            server: served_by.as_ref().map(|server| Arc::clone(&server.shared.name)),
            client: address,
            ended: SystemTime::now(),
            duration,
            connect: session.connect_took(),
            retries: session.retries(),
            bytes: Direction::BOTH.map(|direction| session.delivered(direction)),
            end,
        };
        if !records.offer(record) {
            self.local.seam.cells.of(self.local.index).log_drops.add(1);
        }
    }

    fn meet_deadlines(&mut self) {
        let mut due = mem::take(&mut self.due);
        self.wheel.advance(self.now, &mut due);
        for slot in due.drain(..) {
            if let Some((key, _)) = self.sessions.at(slot) {
                self.tell(key, Event::Deadline);
            }
        }
        self.due = due;
    }

    fn steer_listeners(&mut self) {
        let mut admitted = mem::take(&mut self.admitted);
        self.listeners.steer(&mut self.tools, self.now, &mut admitted);
        for admitted in admitted.drain(..) {
            self.begin(admitted);
        }
        self.admitted = admitted;
    }

    /// Gives back what a burst needed and nobody has needed for a while: the descriptors of pipes,
    /// the memory of buffers.
    fn tidy_up(&mut self) {
        self.tools.released |= self.tools.spares.tidy_up(self.now);
        let taken = self.tools.pipes.taken();
        if taken != self.kept.1 {
            self.kept = (self.now.after(KEPT), taken);
        } else if self.now >= self.kept.0 && self.has_slack() {
            self.kept = (self.now.after(KEPT), taken);
            self.tools.pipes.close_idle();
            self.tools.released = true;
            self.tools.ring.give_back_memory();
        }
    }

    fn has_slack(&self) -> bool {
        self.tools.pipes.has_idle() || self.tools.ring.buffers().has_slack()
    }

    fn count_turn(&mut self) {
        let cell = self.local.seam.cells.of(self.local.index);
        cell.turns.add(1);
        cell.buffers.set(u64::from(self.tools.ring.buffers().count()));
        cell.buffers_in_use.set(self.tools.ring.buffers().held() as u64);
        cell.pipes_in_use.set(self.tools.pipes.held() as u64);
        let stalled = self.tools.ring.buffers().supply() == Supply::Stalled;
        if stalled && cell.buffers_stalled.read() == 0 {
            self.local.seam.events.try_send(WorkerEvent::BuffersStalled(self.local.index)).ok();
        }
        cell.buffers_stalled.set(stalled.into());
        if self.tools.ring.overflown() {
            cell.cq_overflows.add(1);
        }
    }

    /// Waits for what the kernel still holds: the watch of the waker.
    fn end_ring(&mut self) {
        self.tools.ring.cancel(Token::Wake.pack());
        for _ in 0..100 {
            if self.tools.ring.in_flight() == 0 {
                return;
            }
            let now = self.tools.ring.now();
            drop(self.tools.ring.wait(now, Some(now + Duration::from_millis(10))));
            while self.tools.ring.completion().is_some() {}
        }
    }
}

#[expect(clippy::panic, reason = "a half-dead process would swallow its share of the clients")]
fn panic_of_worker(index: WorkerIndex, error: &io::Error) -> ! {
    panic!("worker {}: the ring cannot be entered: {error}", index.0)
}
