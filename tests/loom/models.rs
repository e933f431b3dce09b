//! The limit of sessions and the queue of a backend under loom, which runs their real code in every
//! order that threads can run in, with every value that a relaxed load can see.
//!
//! The phase is one word, and the mailbox of a worker is a queue of crossbeam: neither has an order
//! of its own.

#![expect(dead_code, reason = "the files of the program have more than the models use")]

#[path = "../../src/shared/counters.rs"]
mod counters;
#[path = "../../src/shared/limit.rs"]
mod limit;
#[path = "../../src/shared/queue.rs"]
mod queue;
#[path = "../../src/terms.rs"]
mod terms;

/// As in the program.
mod shared {
    pub(crate) use crate::counters;

    /// In place of src/shared/sync.rs.
    pub(crate) mod sync {
        pub(crate) use loom::sync::{Mutex, MutexGuard};
        pub(crate) use std::sync::PoisonError;

        pub(crate) mod atomic {
            pub(crate) use loom::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};
        }
    }
}

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use loom::thread;

use limit::Limit;
use queue::{Queue, Ticket, Waiter};
use terms::WorkerIndex;

fn main() {
    check("a limit is never exceeded", a_limit_is_never_exceeded);
    check("no more sessions wait than may", no_more_wait_than_may);
    check("a room is seen by the session that joins, or it is told", || a_room_or_an_order(true));
    check("of two that join, one gets the room", two_join_and_one_gets_the_room);
    check("a session that leaves passes its order on", a_session_that_leaves_passes_on);
    check("a stuck worker keeps no server from others", a_stuck_worker_keeps_no_server);
    check("a session that is put back gets the room", a_session_that_is_put_back_gets_the_room);
    // A canary: the same model must find that the look after the join is needed.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let missed = catch_unwind(AssertUnwindSafe(|| loom::model(|| a_room_or_an_order(false))));
    std::panic::set_hook(hook);
    assert!(missed.is_err(), "a lost wake-up is not found");
    println!("ok: a lost wake-up that is planted is found");
}

/// Runs a model in every order in which threads are interrupted three times at most.
fn check(name: &str, model: impl Fn() + Send + Sync + 'static) {
    let orders = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&orders);
    let mut builder = loom::model::Builder::new();
    // Three threads that are interrupted any number of times run in 300,000 orders.
    builder.preemption_bound = Some(3);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    println!("ok: {name} ({} orders)", orders.load(Ordering::Relaxed));
}

fn a_limit_is_never_exceeded() {
    let limit = Arc::new(Limit::new(Some(1)));
    // Not of loom: it gives no order to the threads.
    let active = Arc::new(AtomicU32::new(0));
    let session = |limit: Arc<Limit>, active: Arc<AtomicU32>| {
        move || {
            if limit.try_raise() {
                assert_eq!(active.fetch_add(1, Ordering::SeqCst), 0);
                thread::yield_now();
                active.fetch_sub(1, Ordering::SeqCst);
                limit.lower();
            }
        }
    };
    let others = [(); 2].map(|()| thread::spawn(session(Arc::clone(&limit), Arc::clone(&active))));
    session(Arc::clone(&limit), active)();
    for other in others {
        other.join().unwrap();
    }
    assert_eq!((limit.active(), limit.room()), (0, 1));
}

fn no_more_wait_than_may() {
    let queue = Arc::new(Queue::new(1, 1));
    let joined = [1, 2].map(|slot| {
        let queue = Arc::clone(&queue);
        thread::spawn(move || queue.join(waiter(slot)).is_ok())
    });
    let joined = joined.map(|thread| thread.join().unwrap());
    assert_eq!((joined.iter().filter(|joined| **joined).count(), queue.length()), (1, 1));
}

const fn waiter(slot: u32) -> Waiter {
    Waiter { worker: WorkerIndex(0), slot, generation: 0 }
}

/// Of a worker that is stuck.
const STUCK: Waiter = Waiter { worker: WorkerIndex(1), slot: 9, generation: 0 };

/// A server that is full, its queue, and the orders to sessions that wait.
struct World {
    limit: Limit,
    queue: Queue,
    /// Not of loom: a mailbox gives no order to what is not in it.
    told: Mutex<Vec<Waiter>>,
}

impl World {
    fn full() -> Arc<Self> {
        let world =
            Self { limit: Limit::new(Some(1)), queue: Queue::new(2, 8), told: Mutex::default() };
        assert!(world.limit.try_raise());
        Arc::new(world)
    }

    /// As `SharedState::tell_first`.
    fn tell_first(&self) {
        let first = self.queue.first();
        self.told.lock().unwrap().extend(first);
    }

    /// As `ServerPermit` when it is dropped.
    fn end_session(&self) {
        self.limit.lower();
        self.tell_first();
    }

    /// As `QueuePlace` when it is dropped.
    fn leave(&self, ticket: Ticket) {
        self.queue.leave(ticket);
        self.tell_first();
    }

    /// As `Controller::give_clients_to_others`.
    fn remove(&self) {
        if self.queue.remove(STUCK.worker) {
            self.tell_first();
        }
    }

    /// As `Running::tell_queued`.
    fn put_back(&self, ticket: Ticket) {
        self.queue.put_back(ticket, STUCK);
        self.told.lock().unwrap().push(STUCK);
    }

    /// As `SessionSockets::route` where every server is full. None: it has a server.
    fn join(&self, slot: u32, looks: bool) -> Option<Ticket> {
        let ticket = self.queue.join(waiter(slot)).unwrap();
        let is_first = !looks || self.queue.first() == Some(waiter(slot));
        if is_first && self.limit.try_raise() {
            self.leave(ticket);
            return None;
        }
        Some(ticket)
    }

    /// Every order is followed, and then no session waits for a server that has room.
    fn settle(&self, mut waiting: Vec<(u32, Ticket)>) {
        loop {
            let Some(told) = self.told.lock().unwrap().pop() else { break };
            let Some(at) = waiting.iter().position(|(slot, _)| *slot == told.slot) else {
                continue;
            };
            if self.queue.first() == Some(told) && self.limit.try_raise() {
                let (_, ticket) = waiting.remove(at);
                self.leave(ticket);
            }
        }
        assert!(self.limit.room() == 0 || self.queue.length() == 0, "a lost wake-up");
        assert_eq!(self.queue.length(), waiting.len());
    }
}

fn a_room_or_an_order(looks: bool) {
    let world = World::full();
    let ends = Arc::clone(&world);
    let ends = thread::spawn(move || ends.end_session());
    let ticket = world.join(1, looks);
    ends.join().unwrap();
    world.settle(ticket.into_iter().map(|ticket| (1, ticket)).collect());
}

fn two_join_and_one_gets_the_room() {
    let world = World::full();
    let (ends, joins) = (Arc::clone(&world), Arc::clone(&world));
    let ends = thread::spawn(move || ends.end_session());
    let joins = thread::spawn(move || joins.join(2, true));
    let mine = world.join(1, true).map(|ticket| (1, ticket));
    ends.join().unwrap();
    let other = joins.join().unwrap().map(|ticket| (2, ticket));
    world.settle(mine.into_iter().chain(other).collect());
    assert_eq!(world.limit.active(), 1);
}

fn a_session_that_leaves_passes_on() {
    let world = World::full();
    let [first, second] = [1, 2].map(|slot| world.queue.join(waiter(slot)).unwrap());
    let (ends, leaves) = (Arc::clone(&world), Arc::clone(&world));
    let ends = thread::spawn(move || ends.end_session());
    let leaves = thread::spawn(move || leaves.leave(first));
    ends.join().unwrap();
    leaves.join().unwrap();
    world.settle(vec![(2, second)]);
    assert_eq!((world.queue.length(), world.limit.active()), (0, 1));
}

fn a_stuck_worker_keeps_no_server() {
    let world = World::full();
    let first = world.queue.join(STUCK).unwrap();
    let second = world.queue.join(waiter(2)).unwrap();
    let (ends, controls) = (Arc::clone(&world), Arc::clone(&world));
    let ends = thread::spawn(move || ends.end_session());
    let controls = thread::spawn(move || controls.remove());
    let third = world.join(3, true);
    ends.join().unwrap();
    controls.join().unwrap();
    assert!(third.is_some(), "the second session came before");
    world.settle([(2, second)].into_iter().chain(third.map(|ticket| (3, ticket))).collect());
    assert_eq!((world.queue.length(), world.limit.active()), (1, 1));
    world.leave(first);
    assert_eq!(world.queue.length(), 1, "it was taken out");
}

fn a_session_that_is_put_back_gets_the_room() {
    let world = World::full();
    let first = world.queue.join(STUCK).unwrap();
    world.remove();
    let (ends, runs) = (Arc::clone(&world), Arc::clone(&world));
    let ends = thread::spawn(move || ends.end_session());
    let runs = thread::spawn(move || runs.put_back(first));
    let second = world.join(2, true).map(|ticket| (2, ticket));
    ends.join().unwrap();
    runs.join().unwrap();
    let is_served = second.is_none();
    world.settle([(STUCK.slot, first)].into_iter().chain(second).collect());
    assert_eq!((world.queue.length(), world.limit.active()), (1, 1));
    let left = world.queue.first();
    assert_eq!(left, Some(if is_served { STUCK } else { waiter(2) }), "the first was the first");
}
