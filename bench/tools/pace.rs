//! When the exchanges of an open loop are due.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// An open loop. With a seed, arrivals are a Poisson process, as of clients that know nothing of
/// each other: equal distances interfere with the tick of the clock. The generator waits with
/// `sched_yield(2)`: a timer can cost a virtual machine more CPU time than an exchange.
pub(crate) struct Pace {
    /// The part of the generator that it paces.
    pub(crate) part: usize,
    /// Mean time between two exchanges.
    pub(crate) interval: Duration,
    seed: Option<u64>,
    random: Option<StdRng>,
    /// When the next exchange is due.
    pub(crate) next: Instant,
    /// Connections without an exchange.
    pub(crate) idle: VecDeque<usize>,
}

impl Pace {
    /// So many exchanges a second from now on: at equal distances, or random ones that are the same
    /// for the same seed.
    pub(crate) fn new(part: usize, rate: f64, seed: Option<u64>) -> Self {
        Self {
            part,
            interval: Duration::from_secs_f64(1.0 / rate),
            seed,
            random: seed.map(StdRng::seed_from_u64),
            next: Instant::now(),
            idle: VecDeque::new(),
        }
    }

    /// Begins again, with the same distances and nothing overdue.
    pub(crate) fn restart(&mut self) {
        self.next = Instant::now();
        self.random = self.seed.map(StdRng::seed_from_u64);
    }

    /// Chooses when the exchange after the next one is due.
    pub(crate) fn advance(&mut self) {
        self.next += match &mut self.random {
            Some(random) => self.interval.mul_f64(-(1.0 - random.random::<f64>()).ln()),
            None => self.interval,
        };
    }
}
