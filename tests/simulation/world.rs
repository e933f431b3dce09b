//! A whole process as data: clients, workers, the control thread and an operator, who act in random
//! order on one thread. Real are the accept gates, the limits, routing, the queues of backends,
//! the tables of the cluster state, the mailboxes, the wake-ups, the phase, timers and sessions;
//! sockets are the model's.
//!
//! A worker takes a turn in two steps, so that others act between its look at the limits and its
//! pause. It may be slow to drop the permit of a session that has ended: other workers act
//! meanwhile, and it may be dropped just when one of them has found every server full and has not
//! joined the queue. The control thread may find a worker to be stuck, which it is or not.

use std::mem::ManuallyDrop;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use evenkeel::proxy::slots::Key;
use evenkeel::proxy::timer_wheel::Tick;
use evenkeel::shared::orders::WorkerOrder;
use evenkeel::shared::phase::{Phase, PhaseCell};
use evenkeel::shared::queue::Waiter;
use evenkeel::shared::state::SharedState;
use evenkeel::sys::waker::Waker;
use evenkeel::terms::WorkerIndex;

use crate::configuration;
use crate::context::{Context, Record};
use crate::control::Control;
use crate::fate::Planted;
use crate::random::Random;
use crate::worker::Worker;

/// Many times what any seed needs.
const STEPS_MAX: u32 = 100_000;

#[derive(Debug)]
struct World {
    context: Context,
    control: Control,
    workers: Vec<Worker>,
    /// Clients that are still to connect.
    clients: u64,
    stuck: Option<Stuck>,
    /// Steps of workers since anything happened.
    quiet: u32,
}

/// A worker that the control thread has found to be stuck.
#[derive(Debug, Clone, Copy)]
struct Stuck {
    worker: WorkerIndex,
    /// It takes no steps. Else it runs again, and the control thread has not noticed.
    is_blocked: bool,
}

/// Runs a process from its start to the end of its drain.
pub(crate) fn run(seed: u64, planted: Option<Planted>) -> Record {
    // If it fails it is not dropped: guards that check their counts would fail once more.
    let mut world = ManuallyDrop::new(World::new(seed, planted));
    world.run();
    let World { context, control, mut workers, .. } = ManuallyDrop::into_inner(world);
    assert_ended(context, control, &mut workers)
}

impl World {
    fn new(seed: u64, planted: Option<Planted>) -> Self {
        let mut random = Random::new(seed ^ 0x1dea);
        let epoch = Instant::now();
        let count = 2 + random.below(2) as usize;
        let (control, table) = Control::new(count, &mut random, epoch);
        let (events, _) = crossbeam::channel::unbounded();
        let wakers = (0..count).map(|_| Waker::new().expect("a descriptor is left")).collect();
        let max = configuration::sessions_max(&mut random);
        let phase = PhaseCell::new(epoch);
        let shared = SharedState::new(table, phase, max, events, None, wakers);
        let context = Context {
            now: Tick(1),
            epoch,
            planted,
            dropping: Vec::new(),
            shared: Arc::new(shared),
            record: Record::default(),
            random,
        };
        let workers = (0..count).map(|index| Worker::new(WorkerIndex(index), &context)).collect();
        Self { context, control, workers, clients: 30, stuck: None, quiet: 0 }
    }

    fn run(&mut self) {
        let mut steps = 0;
        while !self.workers.iter().all(Worker::has_ended) {
            steps += 1;
            assert!(steps < STEPS_MAX, "it never ends: {self:?}");
            if self.step() {
                self.workers.iter_mut().for_each(Worker::take_wake_up);
                self.check();
            }
            self.pass_time();
        }
    }

    /// Somebody acts; false: nothing has changed.
    fn step(&mut self) -> bool {
        if !self.context.dropping.is_empty() && self.context.random.one_in(3) {
            self.context.dropping.clear();
            return true;
        }
        let random = &mut self.context.random;
        match random.below(48) {
            0 | 1 if self.clients > 0 => self.connect(),
            2 => self.control.step(&mut self.context),
            3 => self.order(),
            4 if self.clients == 0 && random.one_in(4) => self.begin_drain(),
            5 => self.watch_workers(),
            _ => {
                let worker = random.below(self.workers.len() as u64) as usize;
                if self.stuck.is_some_and(|one| one.is_blocked && one.worker.0 == worker) {
                    self.quiet += 1;
                    return false;
                }
                let acts = self.workers[worker].step(&mut self.context);
                self.quiet = if acts { 0 } else { self.quiet + 1 };
                return acts;
            }
        }
        true
    }

    fn connect(&mut self) {
        let Context { random, record, .. } = &mut self.context;
        let worker = random.below(self.workers.len() as u64) as usize;
        if self.workers[worker].connect(record.connected, random) {
            record.connected += 1;
            self.clients -= 1;
        }
    }

    /// An operator kills a session, or the sessions of a server are closed.
    fn order(&mut self) {
        let Context { random, record, shared, .. } = &mut self.context;
        if random.one_in(4) {
            let server = random.below(self.control.servers.len() as u64) as usize;
            if let Some(server) = self.control.servers[server].upgrade() {
                for index in 0..self.workers.len() {
                    shared.order(WorkerIndex(index), WorkerOrder::CloseSessionsOf(server.id));
                }
            }
            return;
        }
        // One of the last: it may have ended meanwhile.
        let last = record.begun.len().saturating_sub(1 + random.below(8) as usize);
        if let Some(begun) = record.begun.get(last) {
            record.killed.insert(begun.number);
            let (slot, generation) = (begun.key.slot, begun.key.generation);
            shared.order(begun.worker, WorkerOrder::Kill { slot, generation });
        }
    }

    /// The control thread finds a worker to be stuck, takes its sessions out of queues, or notices
    /// that it runs again.
    fn watch_workers(&mut self) {
        let Context { random, record, shared, .. } = &mut self.context;
        match self.stuck {
            None => {
                let worker = WorkerIndex(random.below(self.workers.len() as u64) as usize);
                self.stuck = Some(Stuck { worker, is_blocked: random.one_in(2) });
            }
            Some(Stuck { worker, .. }) if random.one_in(2) => {
                self.stuck = None;
                shared.order(worker, WorkerOrder::RejoinQueues);
            }
            Some(Stuck { worker, .. }) => {
                let table = shared.table.load_full();
                for backend in table.frontends.iter().flat_map(|frontend| frontend.backends()) {
                    if backend.queue.remove(worker) {
                        record.taken_out += 1;
                        shared.tell_first(&backend.queue);
                    }
                }
            }
        }
    }

    fn begin_drain(&mut self) {
        let context = &mut self.context;
        if context.shared.phase.load() == Phase::Running {
            let millis = context.random.below(400);
            let deadline = context.instant() + Duration::from_millis(millis);
            let stops = context.random.one_in(8);
            let phase = if stops { Phase::Stopped } else { Phase::Draining(deadline) };
            context.shared.phase.store(phase);
            context.shared.wake();
        }
    }

    /// A little, or, after nothing has happened for long, until the next deadline.
    fn pass_time(&mut self) {
        let context = &mut self.context;
        context.now = Tick(context.now.0 + context.random.below(40));
        if self.quiet < 60 {
            return;
        }
        self.quiet = 0;
        let drain = match context.shared.phase.load() {
            Phase::Draining(deadline) => {
                Some(Tick::START.after(deadline.saturating_duration_since(context.epoch)))
            }
            Phase::Running | Phase::Stopped => None,
        };
        let next = self.workers.iter().filter_map(Worker::next).chain(drain).min();
        context.now = context.now.max(next.unwrap_or(context.now));
    }

    /// What must be so at every time.
    fn check(&mut self) {
        let shared = &self.context.shared;
        let (mut sessions, mut permits) = (Vec::new(), Vec::new());
        for (index, worker) in self.workers.iter_mut().enumerate() {
            worker.assert_not_asleep();
            sessions.extend(worker.admitted().map(|frontend| (Arc::as_ptr(frontend), index)));
            worker.look(|live| {
                sessions.push((Arc::as_ptr(&live.shared), index));
                let held = live.kernel.permit.as_ref();
                permits.extend(held.map(|permit| (Arc::clone(permit.endpoint()), index)));
            });
        }
        for (worker, permit) in &self.context.dropping {
            permits.push((Arc::clone(permit.endpoint()), worker.0));
        }
        let count = |of: usize| u32::try_from(of).expect("few");
        assert_eq!(shared.sessions.active(), count(sessions.len()), "over all");
        for frontend in self.control.frontends.iter().filter_map(Weak::upgrade) {
            let own = || sessions.iter().filter(|(of, _)| *of == Arc::as_ptr(&frontend));
            assert_eq!(frontend.sessions.active(), count(own().count()), "of a frontend");
            for (index, cell) in frontend.cells.cells().enumerate() {
                let active = own().filter(|(_, worker)| *worker == index).count() as u64;
                let closed: u64 = cell.closed.iter().map(|count| count.read()).sum();
                assert_eq!(cell.active.read(), active, "of a frontend on worker {index}");
                assert_eq!(cell.sessions.read(), closed + active, "opened = closed + active");
            }
        }
        for server in self.control.servers.iter().filter_map(Weak::upgrade) {
            let own = || permits.iter().filter(|(endpoint, _)| endpoint.id.server == server.id);
            assert_eq!(server.sessions.active(), count(own().count()), "of {}", server.name);
            for (index, cell) in server.cells.cells().enumerate() {
                let active = own().filter(|(_, worker)| *worker == index).count() as u64;
                assert_eq!(cell.active.read(), active, "of {} on worker {index}", server.name);
            }
        }
        for (endpoint, _) in &permits {
            let own = permits.iter().filter(|(other, _)| other.id == endpoint.id);
            assert_eq!(endpoint.load.read(), count(own.count()), "of {endpoint:?}");
        }
        self.check_queues();
    }

    /// Who waits in a queue has a session there, and the first one is told of a server with room.
    fn check_queues(&mut self) {
        let in_force = self.context.shared.table.load_full();
        for queue in self.control.queues.iter().filter_map(Weak::upgrade) {
            // Those of a worker that is stuck, or that was and has not put them back, may be out.
            // So may those that are closing.
            let (mut waiting, mut may_be_out) = (0, 0);
            for (index, worker) in self.workers.iter_mut().enumerate() {
                let is_late = worker.acts() || self.stuck.is_some_and(|one| one.worker.0 == index);
                worker.look(|live| {
                    let waits = live.place().is_some_and(|place| place.is_in(&queue));
                    waiting += usize::from(waits);
                    may_be_out += usize::from(waits && (is_late || !live.is_queued()));
                });
            }
            let length = queue.length();
            assert!(waiting - may_be_out <= length && length <= waiting, "{waiting}: {queue:?}");
            assert_eq!(queue.first().is_some(), length > 0, "{queue:?}");
            if let Some(Waiter { worker, slot, generation }) = queue.first() {
                self.workers[worker.0].assert_told(Key { slot, generation }, &in_force);
            }
        }
    }
}

/// What must be so once every worker has ended.
fn assert_ended(mut context: Context, mut control: Control, workers: &mut Vec<Worker>) -> Record {
    context.dropping.clear();
    workers.iter().for_each(Worker::assert_nothing_left);
    for queue in control.queues.iter().filter_map(Weak::upgrade) {
        assert_eq!((queue.length(), queue.first()), (0, None), "somebody waits: {queue:?}");
    }
    // With the tables that they went by.
    workers.clear();
    control.forget(&context);
    control.assert_nothing_left(context.instant());
    assert_eq!(context.shared.sessions.active(), 0);
    let record = context.record;
    let served = record.ended.len() as u64;
    assert_eq!(record.connected, served + record.refused, "a client is lost");
    record
}
