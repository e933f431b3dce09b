//! Which worker takes a connection: the one that the kernel's hash names (SO_REUSEPORT), or, where
//! workers are pinned and their cores receive alike many, the one on the core that received it
//! (`SO_INCOMING_CPU`, socket(7)).
//!
//! A session on the core that receives its packets costs less, as its sockets stay in one cache
//! (`bench/DECISIONS.md`). But a network card with one queue, like a Pi's, has one core receive
//! everything, and that core's worker would do all the work. So it is looked at first, and on and
//! on. Each worker counts, of the connections that it is asked about, those that its own core
//! received. By the hash each worker is asked about as many, and the count is in proportion to what
//! its core receives; while steered it is all of that. Both ways the counts compare the cores.

use std::collections::HashSet;

use crate::control::roster::Bound;
use crate::sys::kernel_version::KernelVersion;
use crate::sys::socket::prefer_core;

/// Those counted a worker, on average; fewer decide nothing. The deviation of such a count is a
/// sixteenth of it, so that nobody between the two limits below goes to and fro.
const ENOUGH: u64 = 256;

/// In hundredths of the average, what the busiest core may receive for steering to begin ...
const EVEN: u64 = 125;

/// ... and to go on: its worker is the first to be full.
const STILL_EVEN: u64 = 160;

/// The first kernel that heeds the option among sockets that share a port; between 4.6 and it, the
/// hash alone decided.
pub const HEEDS_CORES: KernelVersion = KernelVersion(6, 2, 0);

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
    /// [`Steering::look`] finds a reason. None where it would decide in any case: by an older
    /// kernel, for a single worker, and where two workers share a core.
    #[must_use]
    pub fn new(cores: Vec<usize>, kernel: Option<KernelVersion>) -> Option<Self> {
        let distinct = cores.iter().collect::<HashSet<_>>().len() == cores.len();
        let possible = distinct && cores.len() > 1 && kernel >= Some(HEEDS_CORES);
        possible.then(|| Self { before: vec![0; cores.len()], cores, steered: false })
    }

    /// Whether each core's connections go to its own worker.
    #[must_use]
    pub const fn is_steered(&self) -> bool {
        self.steered
    }

    /// Decides by what each worker has counted so far (`WorkerCell::received_here`); true if that
    /// has changed what [`Steering::apply`] does.
    pub fn look(&mut self, received: Vec<u64>) -> bool {
        let fresh = || received.iter().zip(&self.before).map(|(now, then)| now.wrapping_sub(*then));
        let workers = self.cores.len() as u64;
        let (all, most) = (fresh().sum::<u64>(), fresh().max().unwrap_or(0));
        if all < ENOUGH * workers {
            return false;
        }
        let allowed = if self.steered { STILL_EVEN } else { EVEN };
        let steered = most * workers * 100 <= all * allowed;
        self.before = received;
        std::mem::replace(&mut self.steered, steered) != steered
    }

    /// Tells the kernel, for the sockets of every address.
    pub fn apply(&self, bound: &Bound) {
        for listener in bound.values() {
            for (socket, core) in listener.sockets.iter().zip(&self.cores) {
                prefer_core(socket, self.steered.then_some(*core));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cores: &[usize]) -> Option<Steering> {
        Steering::new(cores.to_vec(), Some(HEEDS_CORES))
    }

    fn steering() -> Steering {
        of(&[0, 1, 2, 3]).unwrap()
    }

    #[test]
    fn cores_that_receive_alike_many_keep_what_they_receive() {
        let mut steering = steering();
        assert!(!steering.is_steered());
        assert!(steering.look(vec![300, 250, 310, 320]));
        assert!(steering.is_steered());
    }

    #[test]
    fn one_core_that_receives_everything_does_not_get_it_all() {
        let mut steering = steering();
        assert!(!steering.look(vec![100_000, 0, 0, 0]));
        assert!(!steering.look(vec![200_000, 60_000, 60_000, 60_000]));
        assert!(!steering.is_steered());
    }

    #[test]
    fn few_decide_nothing_and_are_not_forgotten() {
        let mut steering = steering();
        assert!(!steering.look(vec![255, 255, 255, 255]));
        assert!(!steering.is_steered());
        assert!(steering.look(vec![256, 256, 256, 256]));
    }

    #[test]
    fn steering_ends_when_one_core_gets_much_more_and_not_at_the_first_difference() {
        let mut steering = steering();
        assert!(steering.look(vec![1000, 1000, 1000, 1000]));
        assert!(!steering.look(vec![2500, 1800, 1900, 1800]), "one and a half times the average");
        assert!(steering.is_steered());
        assert!(steering.look(vec![4500, 2500, 2500, 2500]), "twice: another network");
        assert!(!steering.is_steered());
    }

    #[test]
    fn the_hash_decides_where_it_would_in_any_case() {
        assert!(of(&[3]).is_none(), "one worker");
        assert!(of(&[0, 1, 0]).is_none(), "two workers on a core");
        assert!(
            Steering::new(vec![0, 1], Some(KernelVersion(6, 1, 0))).is_none(),
            "an older kernel"
        );
        assert!(Steering::new(vec![0, 1], None).is_none(), "who knows which");
    }
}
