//! A limit of descriptors that is lowered while the process runs (prlimit(1)): as many sessions as
//! it holds, and further clients wait in the backlog.

use std::fs;

use crate::control::controller::state::Controller;
use crate::sys::socket::descriptor_limit;

/// Left for probes, HTTP and the control socket, which a session must not take.
const SPARE: u64 = 4;

/// Of a session, at most.
const PER_SESSION: u64 = 2;

impl Controller {
    /// Fits the limit of sessions to the limit of descriptors, at each tick. Nothing is read if
    /// that is as at the start.
    pub(super) fn follow_descriptor_limit(&mut self) {
        let limit = descriptor_limit();
        self.shared.descriptors.set(limit);
        let is_lowered = limit < self.budget.descriptors;
        let was_lowered = std::mem::replace(&mut self.descriptors_lowered, is_lowered);
        if !is_lowered {
            if was_lowered {
                tracing::info!("the limit of file descriptors is raised again, to {limit}");
                self.shared.sessions.set_max(Some(self.fitting()));
                self.shared.wake();
            }
            return;
        }
        let active = self.shared.sessions.active();
        let free = limit.saturating_sub(open_descriptors() + SPARE) / PER_SESSION;
        let most = active.saturating_add(u32::try_from(free).unwrap_or(u32::MAX));
        let max = most.min(self.fitting());
        if !was_lowered {
            tracing::warn!(
                "the limit of file descriptors was lowered from {} to {limit}: further clients \
                 wait in the backlog while it is reached; raise it again (prlimit --nofile)",
                self.budget.descriptors
            );
        }
        if max != self.shared.sessions.max() {
            self.shared.sessions.set_max(Some(max));
            self.shared.wake();
        }
    }

    /// The limit of sessions without the lowered limit of descriptors.
    fn fitting(&self) -> u32 {
        self.sessions_fitting().unwrap_or(self.sessions_max)
    }
}

/// Descriptors that are open now.
fn open_descriptors() -> u64 {
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    // The one that reads the folder is among them.
    u64::try_from(open).unwrap_or(u64::MAX).saturating_sub(1)
}
