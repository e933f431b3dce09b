//! Limits that are reached, for the log: beyond `sessions_max` clients wait, and beyond the limits
//! of rates and clients they are refused, before there is a session that would be logged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::shared::limit::Limit;
use crate::shared::table::{Frontend, FrontendShared};
use crate::terms::{Refusal, counted};

/// Between two lines of one kind about one frontend.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What was logged about limits.
#[derive(Debug, Default)]
pub(super) struct ReachedLimits {
    /// When it was last logged that the process is at its limit.
    full: Option<Instant>,
    frontends: BTreeMap<Arc<str>, FrontendLimits>,
}

/// What was logged about the limits of one frontend.
#[derive(Debug, Default)]
struct FrontendLimits {
    full: Option<Instant>,
    refused: Option<Instant>,
    /// The refusals that were logged.
    logged: [u64; Refusal::ALL.len()],
}

impl ReachedLimits {
    /// What is to be logged; to be called at each tick. `remedy`: for the limit of the process. A
    /// limit that is reached and left between two ticks is not noticed. Every refusal is counted in
    /// a line, but for those since the last line when the process ends.
    pub(super) fn look(
        &mut self,
        sessions: &Limit,
        remedy: &str,
        frontends: &[Arc<Frontend>],
        now: Instant,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        if sessions.room() == 0 && is_due(&mut self.full, now, LOG_INTERVAL) {
            lines.push(format!("{}; {remedy}", full(sessions)));
        }
        // Those of frontends that a reload has removed are forgotten.
        let mut before = std::mem::take(&mut self.frontends);
        for frontend in frontends {
            let name = &frontend.shared.name;
            let mut limits = before.remove(name).unwrap_or_default();
            let about = limits.look(&frontend.shared, now).into_iter();
            lines.extend(about.map(|line| format!("frontend {name}: {line}")));
            self.frontends.insert(Arc::clone(name), limits);
        }
        lines
    }
}

impl FrontendLimits {
    /// What is to be logged.
    fn look(&mut self, frontend: &FrontendShared, now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        if frontend.sessions.room() == 0 && is_due(&mut self.full, now, LOG_INTERVAL) {
            lines.push(full(&frontend.sessions));
        }
        let counts = Refusal::ALL.map(|reason| {
            let refused = frontend.cells.cells().map(|cell| cell.refused[reason as usize].read());
            refused.sum::<u64>()
        });
        // Who is denied is denied on purpose.
        let told = |reason: &Refusal| *reason != Refusal::Denied;
        let new: Vec<(Refusal, u64)> = Refusal::ALL
            .into_iter()
            .filter(told)
            .map(|reason| {
                // A frontend that was removed and added again begins with 0.
                let (now, before) = (counts[reason as usize], self.logged[reason as usize]);
                (reason, now.saturating_sub(before))
            })
            .filter(|(_, count)| *count > 0)
            .collect();
        if !new.is_empty() && is_due(&mut self.refused, now, LOG_INTERVAL) {
            let all = new.iter().map(|(_, count)| count).sum::<u64>();
            let all = counted(usize::try_from(all).unwrap_or(usize::MAX), "connection");
            let each: Vec<String> =
                new.iter().map(|(reason, count)| format!("{} {count}", reason.name())).collect();
            self.logged = counts;
            lines.push(format!(
                "{all} refused, by reason: {} (metric evenkeel_sessions_refused_total)",
                each.join(", ")
            ));
        }
        lines
    }
}

fn full(sessions: &Limit) -> String {
    format!("sessions_max ({}) is reached: further clients wait in the backlog", sessions.max())
}

/// Whether a line that may repeat is to be written again, at `now`; if so, `last` is now.
pub(super) fn is_due(last: &mut Option<Instant>, now: Instant, interval: Duration) -> bool {
    let is_due = last.is_none_or(|at| now.saturating_duration_since(at) >= interval);
    if is_due {
        *last = Some(now);
    }
    is_due
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::WorkerIndex;

    #[test]
    fn a_limit_that_stays_reached_is_logged_once_a_minute_and_every_refusal_is_counted() {
        let frontend = FrontendShared::new("http".into(), Some(1), 2);
        let (mut limits, start) = (FrontendLimits::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(limits.look(&frontend, start), [""; 0]);
        frontend.sessions.raise();
        let refuse = |worker, reason: Refusal, count| {
            frontend.cells.of(WorkerIndex(worker)).refused[reason as usize].add(count);
        };
        refuse(0, Refusal::Rate, 1);
        let full = "sessions_max (1) is reached: further clients wait in the backlog";
        let metric = "(metric evenkeel_sessions_refused_total)";
        let first = format!("1 connection refused, by reason: rate 1 {metric}");
        assert_eq!(limits.look(&frontend, start), [full, first.as_str()]);
        refuse(0, Refusal::Denied, 5);
        refuse(0, Refusal::Rate, 2);
        refuse(1, Refusal::Rate, 3);
        refuse(1, Refusal::Limit, 4);
        assert_eq!(limits.look(&frontend, at(59)), [""; 0]);
        let second = format!("9 connections refused, by reason: limit 4, rate 5 {metric}");
        assert_eq!(limits.look(&frontend, at(60)), [full, second.as_str()]);
        frontend.sessions.lower();
        assert_eq!(limits.look(&frontend, at(120)), [""; 0]);
    }
}
