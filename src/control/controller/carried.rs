//! Counters that pass from one process to the next: those of this one to the process that has
//! replaced it, and those of the processes before it into its own metrics.

use crate::control::controller::state::Controller;
use crate::control::upgrade::{Predecessor, apply_totals, collect_totals};
use crate::shared::orders::WorkerOrder;
use crate::shared::totals::Totals;
use crate::terms::WorkerIndex;

impl Controller {
    /// What this process has counted, with the processes before it that have ended.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = collect_totals(&self.cluster, &self.shared);
        totals.merge(&self.upgrading.ended);
        totals
    }

    /// Once in a while: tells the new process the counters.
    pub(super) fn publish_totals(&mut self) {
        if let Some(mut publisher) = self.upgrading.publisher.take() {
            publisher.publish(|| self.totals());
            self.upgrading.publisher = Some(publisher);
        }
    }

    /// Every worker has ended: the new process learns the last counters.
    pub(super) fn publish_last(&mut self) {
        if let Some(publisher) = self.upgrading.publisher.take() {
            publisher.finish(&self.totals());
        }
    }

    /// Reads the counters of earlier processes from now on.
    pub(super) fn follow_earlier(&mut self) {
        for earlier in &mut self.upgrading.earlier {
            if let Err(error) = earlier.follow(self.senders.counted.clone()) {
                tracing::warn!("the counters of an earlier process are not read: {error}");
            }
        }
        self.on_counted();
    }

    /// An earlier process has sent its counters, or has ended.
    pub(super) fn on_counted(&mut self) {
        let workers = self.workers();
        let Self { upgrading, cluster, shared, .. } = self;
        if upgrading.publisher.is_some() {
            return; // the new process reads them
        }
        let all = std::mem::take(&mut upgrading.earlier).into_iter();
        let (ended, live): (Vec<_>, Vec<_>) = all.partition(Predecessor::has_ended);
        upgrading.earlier = live;
        for one in ended {
            let mut totals = one.totals();
            let killed = totals.end_sessions();
            if killed > 0 {
                tracing::warn!(
                    "an earlier process has ended before its sessions; they count as killed: \
                     {killed}"
                );
            }
            totals.fold_workers(workers);
            upgrading.ended.merge(&totals);
        }
        let mut totals = upgrading.ended.clone();
        upgrading.earlier.iter().for_each(|one| totals.merge(&one.totals()));
        totals.fold_workers(workers);
        apply_totals(&totals, cluster, shared);
        // While an old process stopped accepting, the kernel may have announced a client to it
        // alone, which waits in the backlog then.
        for worker in 0..workers {
            shared.order(WorkerIndex(worker), WorkerOrder::LookAtBacklogs);
        }
    }
}
