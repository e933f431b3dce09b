//! One server of the configuration: its settings, what the operator set, and its endpoints.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{self, AdminState, Check};
use crate::control::cluster::change::{ChangeKind, UpCount};
use crate::control::cluster::endpoint::EndpointState;
use crate::control::cluster::input::{ADDRESSES_MAX, ProbeReport};
use crate::control::cluster::recent_mean::RecentMean;
use crate::control::cluster::registry::Registry;
use crate::control::cluster::slow_start::SlowStart;
use crate::control::health::Health;
use crate::shared::server::ServerShared;
use crate::shared::snapshot::{LastProbe, ProbeCounts, ProbeResult, ServerStatus};
use crate::sys::address::Address;
use crate::terms::WorkerIndex;

/// Shown in place of a probe's result while the host name has no address.
const NO_ADDRESS: &str = "no address";

/// A server of the configuration.
#[derive(Debug)]
pub(super) struct ServerState {
    pub(super) config: config::Server,
    /// `address` as it is written in the configuration.
    pub(super) written: Arc<str>,
    overrides: Overrides,
    pub(super) shared: Arc<ServerShared>,
    pub(super) probes: Arc<ProbeCounts>,
    /// One for each address; none while the host name has no address.
    pub(super) endpoints: Vec<EndpointState>,
    /// Addresses that were down when they left DNS, oldest first: as many as an answer has at most.
    pub(super) departed: Vec<Address>,
    /// When it went up or down.
    pub(super) since: Instant,
    pub(super) slow_start: SlowStart,
    /// When the configuration or the operator set [`ServerState::state`].
    pub(super) admin_since: Instant,
    /// The last probe of any endpoint.
    pub(super) last_probe: LastProbe,
    /// How long connects have taken lately.
    pub(super) connects: RecentMean,
}

/// What the operator set; it holds instead of the configuration until it is set again.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Overrides {
    /// With the time at which it was set.
    pub(super) state: Option<(AdminState, Instant)>,
    pub(super) weight: Option<u32>,
}

impl Overrides {
    /// The same state once more keeps the time at which it was set.
    pub(super) fn set_state(&mut self, state: AdminState, now: Instant) {
        if self.state.is_none_or(|(known, _)| known != state) {
            self.state = Some((state, now));
        }
    }
}

/// What a server needs for a change of its endpoints.
#[derive(Debug)]
pub(super) struct Context<'a> {
    /// Of its backend.
    pub(super) health: &'a config::Health,
    pub(super) registry: &'a mut Registry,
    pub(super) now: Instant,
}

impl ServerState {
    /// A server that the configuration before did not have.
    pub(super) fn new(
        backend: &Arc<str>,
        config: config::Server,
        overrides: Overrides,
        addresses: &[Address],
        context: &mut Context<'_>,
    ) -> Self {
        let (shared, probes) = context.registry.server(backend, &config);
        let mut server = Self {
            written: config.address.to_string().into(),
            // An order may be older than the server, which was removed and returns.
            admin_since: overrides.state.map_or(context.now, |(_, since)| since),
            connects: RecentMean::new(&shared.own_connect_durations(), context.now),
            config,
            overrides,
            shared,
            probes,
            endpoints: Vec::new(),
            departed: Vec::new(),
            since: context.now,
            slow_start: SlowStart::default(),
            last_probe: LastProbe::default(),
        };
        server.add(addresses, true, context);
        if addresses.is_empty() {
            server.last_probe = LastProbe::none(NO_ADDRESS);
        }
        server
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.shared.name
    }

    pub(super) fn id(&self) -> crate::terms::ServerId {
        self.shared.id
    }

    /// The host name of its address, if it is not a number.
    pub(super) fn host(&self) -> Option<&str> {
        self.config.address.host()
    }

    /// Whether an endpoint is up.
    pub(super) fn is_up(&self) -> bool {
        self.endpoints.iter().any(EndpointState::is_up)
    }

    /// As set by the operator, or else by the configuration.
    pub(super) fn state(&self) -> AdminState {
        self.overrides.state.map_or(self.config.state, |(state, _)| state)
    }

    /// As set by the operator, or else by the configuration.
    pub(super) fn weight(&self) -> u32 {
        self.overrides.weight.unwrap_or(self.config.weight)
    }

    /// Sessions of all its endpoints.
    pub(super) fn sessions(&self) -> u32 {
        self.shared.sessions.active()
    }

    /// What the operator set differently from the configuration.
    pub(super) fn overridden(&self) -> Overrides {
        let Overrides { state, weight } = self.overrides;
        Overrides {
            state: state.filter(|(state, _)| *state != self.config.state),
            weight: weight.filter(|weight| *weight != self.config.weight),
        }
    }

    /// Applies what the operator set.
    pub(super) fn set_overrides(&mut self, overrides: Overrides, context: &mut Context<'_>) {
        let before = self.state();
        self.overrides = overrides;
        self.note_state(before, context);
    }

    /// Applies a newer configuration of the same server, in a backend whose `health` was that.
    pub(super) fn update(
        &mut self,
        config: config::Server,
        health: &config::Health,
        context: &mut Context<'_>,
    ) {
        let (before, was_up) = (self.state(), self.is_up());
        self.shared.sessions.set_max(config.sessions_max.map(Into::into));
        self.config = config;
        let new = context.health;
        for endpoint in &mut self.endpoints {
            if (health.check == Check::Off) != (new.check == Check::Off) {
                endpoint.forget(context.registry.task(), new);
                self.last_probe = LastProbe::default();
            } else if !health.probes_as(new) {
                // Its health stays; results of the earlier kind of probe do not count.
                endpoint.task = context.registry.task();
            }
            endpoint.health.set_thresholds(new.rise, new.fall);
        }
        self.note_state(before, context);
        self.note_health(was_up, context.now);
    }

    /// Its state was `before`. After maintenance nothing is known of an endpoint.
    fn note_state(&mut self, before: AdminState, context: &mut Context<'_>) {
        if self.state() == before {
            return;
        }
        self.admin_since = context.now;
        if before == AdminState::Maint {
            let was_up = self.is_up();
            for endpoint in &mut self.endpoints {
                endpoint.forget(context.registry.task(), context.health);
                self.last_probe = LastProbe::default();
            }
            self.slow_start.begin(context.now);
            self.note_health(was_up, context.now);
        }
    }

    /// The host name has no address, and why.
    pub(super) fn note_unanswered(&mut self, why: &str) {
        if self.endpoints.is_empty() {
            self.last_probe = LastProbe::none(&format!("{NO_ADDRESS}: {why}"));
        }
    }

    /// The host name has these addresses now, in whatever order. The endpoint of an address that
    /// stays keeps everything. No address at all changes nothing: the last good answer holds.
    pub(super) fn resolved(
        &mut self,
        addresses: &[Address],
        context: &mut Context<'_>,
    ) -> Vec<ChangeKind> {
        if addresses.is_empty() {
            return Vec::new();
        }
        let was_up = self.is_up();
        let is_new = |address: &&Address| !self.has(address);
        let new: Vec<Address> = addresses.iter().filter(is_new).cloned().collect();
        let had_one = !self.endpoints.is_empty();
        let gone = self.depart(|endpoint| !addresses.contains(endpoint.address()));
        if self.endpoints.is_empty() {
            self.last_probe = LastProbe::default();
        }
        // A server that was down because it had no address stays down until a probe passes.
        self.add(&new, had_one, context);
        self.note_health(was_up, context.now);
        match (&*gone, &*new) {
            ([from], [to]) if self.endpoints.len() == 1 => {
                vec![ChangeKind::Moved(from.clone(), to.clone())]
            }
            _ => {
                let found = if had_one { ChangeKind::AddressAdded } else { ChangeKind::Resolved };
                let gone = gone.into_iter().map(ChangeKind::AddressRemoved);
                gone.chain(new.into_iter().map(found)).collect()
            }
        }
    }

    /// Every address of the host name leads back to the backend of this server, and why: the server
    /// is down until it has another address.
    pub(super) fn leads_back(&mut self, why: &str, now: Instant) -> Option<ChangeKind> {
        let was_up = self.is_up();
        let gone = self.depart(|_| true);
        self.note_unanswered(why);
        self.note_health(was_up, now);
        (!gone.is_empty()).then_some(ChangeKind::OnlyLeadsBack)
    }

    /// A probe of the endpoint at `index` has ended. What that changed, if anything.
    pub(super) fn probed(
        &mut self,
        index: usize,
        report: ProbeReport,
        context: &Context<'_>,
    ) -> Option<ChangeKind> {
        let ProbeReport { result, detail, duration, verdict, .. } = report;
        let (was_up, several) = (self.is_up(), self.endpoints.len() > 1);
        let endpoint = &mut self.endpoints[index];
        self.probes.of(WorkerIndex(0)).results[result as usize].add(1);
        self.shared.backend_cells.probe_duration.of(WorkerIndex(0)).record(duration);
        // Without a verdict, the failure is one of this machine.
        let answered = result != ProbeResult::Timeout && verdict.is_some();
        let duration = answered.then_some(duration);
        endpoint.last_probe.set(&detail, duration);
        if several {
            self.last_probe.set(&format!("{}: {detail}", endpoint.address()), duration);
        } else {
            self.last_probe.clone_from(&endpoint.last_probe);
        }
        let first = !endpoint.health.is_decided();
        let transition = verdict.and_then(|passed| endpoint.probed(passed));
        self.note_health(was_up, context.now);
        let up = transition?.is_up();
        let probes = if up { context.health.rise } else { context.health.fall };
        let reason = match (first, up) {
            (true, _) => format!("{detail} (first probe)"),
            (false, true) => format!("{detail} ({probes} in a row)"),
            (false, false) => format!("{detail} ({probes} of {probes} probes)"),
        };
        Some(self.health_change(index, up, reason))
    }

    /// The endpoint at `index` went up or down.
    pub(super) fn health_change(&self, index: usize, up: bool, reason: String) -> ChangeKind {
        let all = self.endpoints.len();
        let count = || self.endpoints.iter().filter(|endpoint| endpoint.is_up()).count();
        let several = (all > 1).then(|| (self.endpoints[index].address().clone(), count()));
        let endpoint = several.map(|(address, up)| (address, UpCount { up, all }));
        ChangeKind::Health { up, reason, endpoint }
    }

    /// It is no longer in the configuration.
    pub(super) fn remove(self, registry: &mut Registry, now: Instant) -> (Arc<str>, ChangeKind) {
        let removed = ChangeKind::Removed { sessions: self.sessions() };
        let status = ServerStatus {
            // It gets no new session, as a server in drain.
            admin: AdminState::Drain,
            removed: Some(Duration::ZERO),
            connect_mean: None,
            ..self.status(false, now)
        };
        let name = Arc::clone(self.name());
        registry.remove(status, self.since, now);
        (name, removed)
    }

    /// Whether it has an endpoint at `address`.
    pub(super) fn has(&self, address: &Address) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.address() == address)
    }

    /// Adds endpoints without history, `up` until their first probe; an address that was down when
    /// it left is down.
    fn add(&mut self, addresses: &[Address], up: bool, context: &mut Context<'_>) {
        for address in addresses {
            let shared = context.registry.endpoint(&self.shared, address.clone());
            let task = context.registry.task();
            let mut endpoint = EndpointState::new(shared, task, context.health, up);
            if let Some(index) = self.departed.iter().position(|departed| departed == address) {
                self.departed.remove(index);
                if context.health.check != Check::Off {
                    endpoint.health = Health::down(context.health.rise, context.health.fall);
                }
            }
            self.endpoints.push(endpoint);
        }
        self.endpoints.sort_by(|a, b| a.address().cmp(b.address()));
    }

    /// Removes the endpoints that `leaves` names; their addresses.
    fn depart(&mut self, leaves: impl Fn(&EndpointState) -> bool) -> Vec<Address> {
        let (gone, stay): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.endpoints).into_iter().partition(leaves);
        self.endpoints = stay;
        let down = gone.iter().filter(|endpoint| !endpoint.is_up());
        self.departed.extend(down.map(EndpointState::address).cloned());
        self.departed.drain(..self.departed.len().saturating_sub(ADDRESSES_MAX));
        gone.iter().map(EndpointState::address).cloned().collect()
    }

    pub(super) fn note_health(&mut self, was_up: bool, now: Instant) {
        if self.is_up() != was_up {
            self.since = now;
            if !was_up {
                self.slow_start.begin(now);
            }
        }
    }
}
