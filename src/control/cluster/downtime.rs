//! Endpoints that failed connects of sessions take down (`health.errors`): a probe says when they
//! are up again, or the time `health.errors.down` where there are no probes.

use std::sync::Arc;
use std::time::Instant;

use crate::config::{Check, ConnectErrors, OnDown};
use crate::control::cluster::change::{Change, ChangeKind};
use crate::control::cluster::endpoint::EndpointState;
use crate::control::cluster::server::{Context, ServerState};
use crate::control::cluster::state::Cluster;
use crate::shared::events::FailedConnects;
use crate::terms::EndpointId;

impl Cluster {
    /// Connects of sessions to an endpoint have failed. Whether that took it down.
    pub fn connects_failed(
        &mut self,
        id: EndpointId,
        failed: FailedConnects,
        now: Instant,
    ) -> bool {
        let Some((backend, server, endpoint)) = self.place_of(id) else { return false };
        let Self { backends, registry, changes, closing, .. } = self;
        let backend = &mut backends[backend];
        let server = &mut backend.servers[server];
        let was_up = server.is_up();
        let context = Context { health: &backend.config.health, registry, now };
        let Some(kind) = server.connects_failed(endpoint, failed, &context) else { return false };
        if was_up && !server.is_up() && backend.config.on_down == OnDown::Close {
            closing.push(server.id());
        }
        let server = Some(Arc::clone(server.name()));
        changes.push(Change { backend: Arc::clone(&backend.name), server, kind });
        backend.touch();
        true
    }

    /// Brings endpoints up that were down for `health.errors.down`; whether there was one.
    pub fn end_downtimes(&mut self, now: Instant) -> bool {
        let Self { backends, registry, changes, .. } = self;
        let mut any = false;
        for backend in backends {
            let context = Context { health: &backend.config.health, registry, now };
            for server in &mut backend.servers {
                let name = Arc::clone(server.name());
                for kind in server.end_downtime(&context) {
                    let server = Some(Arc::clone(&name));
                    changes.push(Change { backend: Arc::clone(&backend.name), server, kind });
                    backend.changed = true;
                    any = true;
                }
            }
        }
        any
    }
}

impl EndpointState {
    /// Connects to it have failed; whether that takes it down.
    fn connects_failed(&mut self, failed: FailedConnects, context: &Context<'_>) -> bool {
        let Some(errors) = &context.health.errors else { return false };
        // Attempts that were under way when it went down, and those of all_down = "try".
        if !self.is_up() || !self.failures.add(failed.count, errors, context.now) {
            return false;
        }
        let until = (context.health.check == Check::Off).then_some(context.now + errors.down);
        self.failures.took_down(until);
        self.shared.set_probe_passed(false);
        self.health.fail();
        true
    }

    /// Whether it is down, without probes, and the time for that is over.
    fn is_over(&self, context: &Context<'_>) -> bool {
        let removed = context.health.errors.is_none();
        self.failures.until.is_some_and(|until| removed || until <= context.now)
    }
}

impl ServerState {
    /// Connects to the endpoint at `index` have failed. What that changed, if anything.
    pub(super) fn connects_failed(
        &mut self,
        index: usize,
        failed: FailedConnects,
        context: &Context<'_>,
    ) -> Option<ChangeKind> {
        let errors = context.health.errors.as_ref()?;
        let was_up = self.is_up();
        if !self.endpoints.get_mut(index)?.connects_failed(failed, context) {
            return None;
        }
        self.note_health(was_up, context.now);
        let ConnectErrors { count, within, .. } = errors;
        let times = if *count == 1 { "once".to_owned() } else { format!("{count} times") };
        let last = failed.last.name();
        let reason =
            format!("connects of sessions failed {times} within {within:?} (last: {last})");
        Some(self.health_change(index, false, reason))
    }

    /// Brings endpoints up whose time is over; what that changed.
    pub(super) fn end_downtime(&mut self, context: &Context<'_>) -> Vec<ChangeKind> {
        let mut changes = Vec::new();
        for index in 0..self.endpoints.len() {
            if !self.endpoints[index].is_over(context) {
                continue;
            }
            let was_up = self.is_up();
            let task = self.endpoints[index].task;
            // Without probes nothing else is known of it.
            self.endpoints[index].forget(task, context.health);
            self.note_health(was_up, context.now);
            let reason = match &context.health.errors {
                Some(errors) => format!("{:?} after connects of sessions failed", errors.down),
                None => "health.errors was removed".to_owned(),
            };
            changes.push(self.health_change(index, true, reason));
        }
        changes
    }
}
