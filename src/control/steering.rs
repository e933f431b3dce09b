//! Which worker takes a connection: the one that the kernel's hash names (SO_REUSEPORT), or, where
//! workers are pinned and their cores receive alike many, the one on the core that received it
//! (`SO_INCOMING_CPU`, socket(7); heeded within SO_REUSEPORT since kernel 6.2).
//!
//! A session on the core that receives its packets costs less, as its sockets stay in one cache
//! (`bench/DECISIONS.md`). But a network card with one queue, like a Pi's, has one core receive
//! everything, and that core's worker would do all the work. So it is looked at first, and on and
//! on: both ways, what arrives at a worker's own core is that core's share of what arrives.

use socket2::SockRef;

use crate::control::roster::Bound;
use crate::control::table::Listener;

/// Connections a worker, on average, that were received by its own core: fewer decide nothing.
const ENOUGH: u64 = 64;

/// In hundredths of the average, what the core with the fewest must have for steering to begin ...
const EVEN: u64 = 70;

/// ... and to go on.
const STILL_EVEN: u64 = 50;

/// What `SO_INCOMING_CPU` is when nobody has set it: the kernel's -1.
const ANY_CORE: usize = usize::MAX;

/// Whether each core's connections go to its own worker.
#[derive(Debug)]
pub struct Steering {
    /// Of each worker.
    cores: Vec<usize>,
    /// The counts that were decided by last.
    before: Vec<u64>,
    steered: bool,
}

impl Steering {
    /// For workers that are pinned to these cores; the kernel's hash decides until
    /// [`Steering::look`] finds a reason.
    #[must_use]
    pub fn new(cores: Vec<usize>) -> Self {
        Self { before: vec![0; cores.len()], cores, steered: false }
    }

    /// Whether each core's connections go to its own worker.
    #[must_use]
    pub const fn is_steered(&self) -> bool {
        self.steered
    }

    /// Decides by how many connections each worker's own core has received; true if that has
    /// changed what [`Steering::apply`] does.
    pub fn look(&mut self, received: Vec<u64>) -> bool {
        let fresh = || received.iter().zip(&self.before).map(|(now, then)| now.wrapping_sub(*then));
        let workers = self.cores.len() as u64;
        let (all, least) = (fresh().sum::<u64>(), fresh().min().unwrap_or(0));
        if workers < 2 || all < ENOUGH * workers {
            return false;
        }
        let demanded = if self.steered { STILL_EVEN } else { EVEN };
        let steered = least * workers * 100 >= all * demanded;
        self.before = received;
        std::mem::replace(&mut self.steered, steered) != steered
    }

    /// Tells the kernel, for the sockets of every address. One that does not know of it goes on by
    /// its hash.
    pub fn apply(&self, bound: &Bound) {
        bound.values().for_each(|listener| self.tell(listener));
    }

    fn tell(&self, listener: &Listener) {
        for (socket, core) in listener.sockets.iter().zip(&self.cores) {
            let core = if self.steered { *core } else { ANY_CORE };
            drop(SockRef::from(socket).set_cpu_affinity(core));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steering() -> Steering {
        Steering::new(vec![0, 1, 2, 3])
    }

    #[test]
    fn cores_that_receive_alike_many_keep_what_they_receive() {
        let mut steering = steering();
        assert!(!steering.is_steered());
        assert!(steering.look(vec![100, 75, 110, 120]));
        assert!(steering.is_steered());
    }

    #[test]
    fn one_core_that_receives_everything_does_not_get_it_all() {
        let mut steering = steering();
        assert!(!steering.look(vec![100_000, 0, 0, 0]));
        assert!(!steering.look(vec![200_000, 1000, 1000, 1000]));
        assert!(!steering.is_steered());
    }

    #[test]
    fn few_decide_nothing_and_are_not_forgotten() {
        let mut steering = steering();
        assert!(!steering.look(vec![63, 63, 63, 63]));
        assert!(!steering.is_steered());
        assert!(steering.look(vec![64, 64, 64, 64]));
    }

    #[test]
    fn steering_ends_when_one_core_falls_behind_and_not_at_the_first_difference() {
        let mut steering = steering();
        assert!(steering.look(vec![100, 100, 100, 100]));
        assert!(!steering.look(vec![200, 160, 200, 200]), "60 of 90 is a difference");
        assert!(steering.is_steered());
        assert!(steering.look(vec![400, 200, 400, 400]), "40 of 160 is another network");
        assert!(!steering.is_steered());
    }

    #[test]
    fn one_worker_has_nobody_to_leave_anything_to() {
        let mut steering = Steering::new(vec![3]);
        assert!(!steering.look(vec![100_000]));
    }
}
