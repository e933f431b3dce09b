//! The queue of a backend: sessions that wait while every server is full, first come first served
//! over all workers.
//!
//! A session stays in the queue until it has a server or leaves: as long as one waits, those that
//! come later queue behind it and take no server before it. Whoever makes room for a session tells
//! the first one ([`Queue::first`]), and so does the first one when it goes: if there is room left,
//! the next one is told. So each room is offered once, and no wake-up is lost if a session leaves.

use std::collections::BTreeMap;

use crate::shared::counters::{Histogram, PerWorker};
use crate::shared::sync::atomic::{self, AtomicU32, AtomicUsize, Ordering};
use crate::shared::sync::{Mutex, MutexGuard, PoisonError};
use crate::terms::WorkerIndex;

/// The sessions of a backend that wait for a server. It is kept from one table to the next.
#[derive(Debug)]
pub struct Queue {
    /// Sessions in `line`; read without its lock.
    length: AtomicUsize,
    max: AtomicU32,
    line: Mutex<Line>,
    /// How long sessions have waited, those that left too.
    pub waits: PerWorker<Histogram>,
}

/// A session that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiter {
    /// Its worker.
    pub worker: WorkerIndex,
    /// Its slot there.
    pub slot: u32,
    /// The generation of the slot.
    pub generation: u32,
}

/// A place in the queue: tickets are numbered in the order in which sessions join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

#[derive(Debug, Default)]
struct Line {
    /// Tickets that were given out.
    given_out: u64,
    waiting: BTreeMap<Ticket, Waiter>,
}

/// As many sessions wait as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull;

impl Queue {
    /// Empty; at most `max` sessions wait.
    #[must_use]
    pub fn new(workers: usize, max: u32) -> Self {
        Self {
            length: AtomicUsize::new(0),
            max: AtomicU32::new(max),
            line: Mutex::default(),
            waits: PerWorker::new(workers),
        }
    }

    /// Changes the maximum; sessions above it go on waiting.
    pub fn set_max(&self, max: u32) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// As many sessions may wait.
    #[must_use]
    pub fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    /// Sessions that wait.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length.load(Ordering::Relaxed)
    }

    /// Puts a session at the end. The caller then looks once more whether a server has room, which
    /// may have been made before this: see [`Queue::first`].
    ///
    /// # Errors
    /// As many wait as may.
    pub fn join(&self, waiter: Waiter) -> Result<Ticket, QueueFull> {
        let mut line = self.line();
        if line.waiting.len() >= self.max.load(Ordering::Relaxed) as usize {
            return Err(QueueFull);
        }
        let ticket = Ticket(line.given_out);
        line.given_out += 1;
        line.waiting.insert(ticket, waiter);
        self.note_length(&line);
        Ok(ticket)
    }

    /// Takes a session out: it has a server, or does not wait any longer.
    pub fn leave(&self, ticket: Ticket) {
        let mut line = self.line();
        line.waiting.remove(&ticket);
        self.note_length(&line);
    }

    /// Takes all sessions of a worker out: it is stuck, and the first of them would keep those
    /// behind it from a server that has room. [`Queue::put_back`] gives them their places back.
    /// Whether there were any.
    pub fn remove(&self, worker: WorkerIndex) -> bool {
        if self.length() == 0 {
            return false;
        }
        let mut line = self.line();
        let before = line.waiting.len();
        line.waiting.retain(|_, waiter| waiter.worker != worker);
        self.note_length(&line);
        line.waiting.len() < before
    }

    /// Puts a session that [`Queue::remove`] may have taken out back into its place, before all
    /// that came later, even if as many wait as may. The caller then looks once more whether a
    /// server has room.
    pub fn put_back(&self, ticket: Ticket, waiter: Waiter) {
        let mut line = self.line();
        line.waiting.insert(ticket, waiter);
        self.note_length(&line);
    }

    /// The session that has waited for longest. To be called after room was made, or after
    /// [`Queue::join`]: a session that finds every server full afterwards is seen here.
    #[must_use]
    pub fn first(&self) -> Option<Waiter> {
        // Pairs with the look for room after `join`: either the session is seen here, or it sees
        // the room.
        atomic::fence(Ordering::SeqCst);
        if self.length.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.line().waiting.first_key_value().map(|(_, waiter)| *waiter)
    }

    fn note_length(&self, line: &Line) {
        self.length.store(line.waiting.len(), Ordering::Relaxed);
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // Nothing panics while it is held, and a panic would end the process.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn session(slot: u32) -> Waiter {
        Waiter { worker: WorkerIndex(0), slot, generation: 0 }
    }

    #[test]
    fn the_first_that_came_is_the_first() {
        let queue = Queue::new(1, 10);
        assert_eq!(queue.first(), None);
        let tickets = [1, 2, 3, 4].map(|slot| queue.join(session(slot)).unwrap());
        assert_eq!((queue.first(), queue.length()), (Some(session(1)), 4));
        queue.leave(tickets[1]);
        assert_eq!((queue.first(), queue.length()), (Some(session(1)), 3));
        queue.leave(tickets[0]);
        assert_eq!((queue.first(), queue.length()), (Some(session(3)), 2));
        queue.leave(tickets[0]);
        assert_eq!(queue.length(), 2, "a session leaves once");
        queue.leave(tickets[2]);
        queue.leave(tickets[3]);
        assert_eq!((queue.first(), queue.length()), (None, 0));
        queue.join(session(5)).unwrap();
        assert_eq!(queue.first(), Some(session(5)));
    }

    #[test]
    fn the_sessions_of_a_stuck_worker_do_not_delay_others() {
        let queue = Queue::new(2, 10);
        let of = |worker, slot| Waiter { worker: WorkerIndex(worker), slot, generation: 0 };
        let tickets = [of(1, 1), of(0, 2), of(1, 3)].map(|waiter| queue.join(waiter).unwrap());
        assert!(queue.remove(WorkerIndex(1)) && !queue.remove(WorkerIndex(1)));
        assert_eq!((queue.first(), queue.length()), (Some(of(0, 2)), 1));
        queue.leave(tickets[0]);
        queue.leave(tickets[2]);
        assert_eq!((queue.first(), queue.length()), (Some(of(0, 2)), 1));
        queue.leave(tickets[1]);
        assert_eq!((queue.first(), queue.length()), (None, 0));
    }

    #[test]
    fn a_session_that_is_put_back_has_its_place_again() {
        let queue = Queue::new(2, 3);
        let of = |worker, slot| Waiter { worker: WorkerIndex(worker), slot, generation: 0 };
        let waiters = [of(0, 1), of(1, 2), of(0, 3)];
        let tickets = waiters.map(|waiter| queue.join(waiter).unwrap());
        queue.remove(WorkerIndex(1));
        queue.leave(tickets[0]);
        let later = [of(0, 4), of(0, 5)].map(|waiter| queue.join(waiter).unwrap());
        queue.put_back(tickets[1], waiters[1]);
        queue.put_back(tickets[1], waiters[1]);
        assert_eq!((queue.first(), queue.length()), (Some(waiters[1]), 4));
        assert_eq!(queue.join(of(0, 6)), Err(QueueFull));
        for (ticket, next) in [(tickets[1], Some(waiters[2])), (tickets[2], Some(of(0, 4)))] {
            queue.leave(ticket);
            assert_eq!(queue.first(), next);
        }
        later.into_iter().for_each(|ticket| queue.leave(ticket));
        assert_eq!((queue.first(), queue.length()), (None, 0));
    }

    #[test]
    fn no_more_wait_than_may() {
        let queue = Queue::new(1, 2);
        let ticket = queue.join(session(1)).unwrap();
        queue.join(session(2)).unwrap();
        assert_eq!(queue.join(session(3)), Err(QueueFull));
        queue.leave(ticket);
        assert!(queue.join(session(3)).is_ok());
        queue.set_max(0);
        assert_eq!(queue.join(session(4)), Err(QueueFull));
        assert_eq!(queue.length(), 2, "those that wait go on waiting");
    }
}
