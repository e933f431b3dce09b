//! Results of probes: those that come together make one table.

use std::time::Instant;

use crate::control::cluster::ProbeReport;
use crate::control::controller::events::Events;
use crate::control::controller::state::Controller;

/// Results of probes that make one table, at most.
const PROBES_AT_ONCE: usize = 1024;

impl Controller {
    /// One report, and those that have come meanwhile: many make one table.
    pub(super) fn on_probed(&mut self, first: ProbeReport, events: &mut Events) {
        let now = Instant::now();
        self.probed(first, now);
        for _ in 1..PROBES_AT_ONCE {
            let Some(report) = events.another_probe() else { break };
            self.probed(report, now);
        }
    }

    fn probed(&mut self, report: ProbeReport, now: Instant) {
        self.ask_after_probe(&report);
        let task = report.task;
        if self.cluster.probed(report, now) {
            self.probes_moved = true;
            self.prober.set_up(task, self.cluster.is_up(task));
        }
    }
}
