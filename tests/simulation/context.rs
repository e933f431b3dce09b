//! What the parts of a simulated process use: the seed, the time, the state that the planes share,
//! and a record of what has happened.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use evenkeel::proxy::route::ServerPermit;
use evenkeel::proxy::slots::Key;
use evenkeel::proxy::timer_wheel::Tick;
use evenkeel::shared::phase::Phase;
use evenkeel::shared::state::SharedState;
use evenkeel::terms::{Reason, WorkerIndex};

use crate::fate::Planted;
use crate::random::Random;

/// What the parts of a simulated process use.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) random: Random,
    pub(crate) now: Tick,
    /// When the process started.
    pub(crate) epoch: Instant,
    pub(crate) planted: Option<Planted>,
    /// Permits of sessions that have ended, which their workers are about to drop.
    pub(crate) dropping: Vec<(WorkerIndex, ServerPermit)>,
    pub(crate) shared: Arc<SharedState>,
    pub(crate) record: Record,
}

impl Context {
    /// The time of the control thread.
    pub(crate) fn instant(&self) -> Instant {
        self.epoch + self.now.since(Tick::START)
    }

    pub(crate) fn is_planted(&self, fault: Planted) -> bool {
        self.planted == Some(fault)
    }

    /// A worker has chosen in vain and is about to join a queue: other workers may drop permits in
    /// this moment.
    pub(crate) fn between_choice_and_queue(&mut self, worker: WorkerIndex) {
        if self.random.one_in(2) {
            self.dropping.retain(|(dropping, _)| *dropping == worker);
        }
    }

    /// Whether clients and sessions that are left are closed.
    pub(crate) fn is_drain_over(&self) -> bool {
        match self.shared.phase.load() {
            Phase::Running => false,
            Phase::Draining(deadline) => self.instant() >= deadline,
            Phase::Stopped => true,
        }
    }
}

/// A session that was begun.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    pub(crate) number: u64,
    pub(crate) worker: WorkerIndex,
    pub(crate) key: Key,
}

/// What has happened.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Clients that have connected: the number of the next one.
    pub(crate) connected: u64,
    /// Clients that were reset before they had a session.
    pub(crate) refused: u64,
    /// Sessions that were begun, in their order.
    pub(crate) begun: Vec<Begun>,
    /// Reasons of the sessions that have ended.
    pub(crate) ended: Vec<Reason>,
    /// Sessions that somebody ordered to kill.
    pub(crate) killed: BTreeSet<u64>,
    /// Sessions whose server was ordered to be left.
    pub(crate) cut_off: BTreeSet<u64>,
    /// Kills of sessions that had ended.
    pub(crate) late_kills: u64,
    /// Pauses that have begun.
    pub(crate) pauses: u64,
    /// Sessions that found an endpoint after a failed attempt.
    pub(crate) retried: u64,
    /// Sessions that got a server after they had waited in a queue.
    pub(crate) queued: u64,
    /// How often sessions of a worker that was stuck were taken out of a queue.
    pub(crate) taken_out: u64,
    /// Sessions that found room when they looked once more, after they had joined a queue.
    pub(crate) found_room: u64,
}
