//! One endpoint of a server: an address, its health, and what its probes found.

use std::sync::Arc;

use crate::config::{self, Check};
use crate::control::cluster::recent_failures::RecentFailures;
use crate::control::health::{Health, ProbeTaskId, Transition};
use crate::shared::server::Endpoint;
use crate::shared::snapshot::LastProbe;
use crate::sys::address::Address;

/// An endpoint of a server in the configuration.
#[derive(Debug)]
pub(super) struct EndpointState {
    /// As the table has it.
    pub(super) shared: Arc<Endpoint>,
    pub(super) health: Health,
    /// The task that probes it; results of earlier tasks do not count.
    pub(super) task: ProbeTaskId,
    pub(super) last_probe: LastProbe,
    pub(super) failures: RecentFailures,
}

impl EndpointState {
    /// An endpoint without history: `up` until its first probe, which decides alone.
    pub(super) fn new(
        shared: Arc<Endpoint>,
        task: ProbeTaskId,
        health: &config::Health,
        up: bool,
    ) -> Self {
        let unprobed = health.check == Check::Off;
        shared.set_probe_passed(unprobed);
        let health = Health::new(health.rise, health.fall, up || unprobed);
        let (last_probe, failures) = (LastProbe::default(), RecentFailures::default());
        Self { shared, health, task, last_probe, failures }
    }

    pub(super) fn address(&self) -> &Address {
        &self.shared.address
    }

    pub(super) const fn is_up(&self) -> bool {
        self.health.is_up()
    }

    /// Forgets its history: it is up until the first probe of `task`, which decides alone.
    pub(super) fn forget(&mut self, task: ProbeTaskId, health: &config::Health) {
        *self = Self::new(Arc::clone(&self.shared), task, health, true);
    }

    /// The endpoint passed a probe, or failed it.
    pub(super) fn probed(&mut self, passed: bool) -> Option<Transition> {
        self.shared.set_probe_passed(passed);
        self.health.on_probe(passed)
    }
}
