//! Views of the cluster state: for the prober, the status page and the metrics; and the samples of
//! connect times that they show.

use std::sync::Arc;
use std::time::Instant;

use crate::config::{self, AdminState, Check, ServerAddress};
use crate::control::cluster::backend::BackendState;
use crate::control::cluster::change::UpCount;
use crate::control::cluster::endpoint::EndpointState;
use crate::control::cluster::input::ProbeTarget;
use crate::control::cluster::recent_mean::SAMPLE_INTERVAL;
use crate::control::cluster::server::ServerState;
use crate::control::cluster::state::{Cluster, FrontendState};
use crate::control::health::ProbeTaskId;
use crate::shared::snapshot::{
    BackendStatus, EndpointStatus, FrontendStatus, LastProbe, ServerStatus,
};
use crate::sys::address::Address;

/// Shown in place of a probe's result: in maintenance, with `check = "off"`, after the removal.
const NOT_PROBED: &str = "not probed";

/// Shown until the result of the first probe: after the start, after maintenance.
const NOT_PROBED_YET: &str = "not probed yet";

/// The backends of a frontend, each once.
fn backends_of(frontend: &config::FrontendSettings) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in frontend.backends() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}

impl Cluster {
    /// The endpoints to probe: those of servers that are not in maintenance.
    pub fn probe_targets(&self) -> impl Iterator<Item = ProbeTarget> {
        self.backends.iter().flat_map(|backend| {
            let health = &backend.config.health;
            let servers = backend.servers.iter().filter(move |server| server.is_probed(health));
            servers.flat_map(move |server| {
                server.endpoints.iter().map(move |endpoint| ProbeTarget {
                    task: endpoint.task,
                    address: backend.probed_at(endpoint),
                    host_header: server.host_header(),
                    host: server.host().filter(|_| health.tls.is_some()).map(Arc::from),
                    check: Arc::clone(&backend.check),
                    up: endpoint.is_up(),
                })
            })
        })
    }

    /// Whether the endpoint that a task probes is up.
    #[must_use]
    pub fn is_up(&self, task: ProbeTaskId) -> bool {
        let place = self.tasks.get(&task);
        place.is_some_and(|(backend, server, endpoint)| {
            self.backends[*backend].servers[*server].endpoints[*endpoint].is_up()
        })
    }

    /// How many servers there are.
    #[must_use]
    pub fn server_counts(&self) -> UpCount {
        let up = self.servers().filter(|server| server.is_up()).count();
        UpCount { up, all: self.servers().count() }
    }

    /// Frontends as reported: in the order of the configuration, then those that were removed and
    /// still have sessions.
    #[must_use]
    pub fn frontend_statuses(&self) -> Vec<FrontendStatus> {
        let status = |frontend: &FrontendState, addresses| FrontendStatus {
            name: Arc::clone(&frontend.name),
            backend: backends_of(&frontend.config).into(),
            addresses,
            shared: Arc::clone(&frontend.shared),
        };
        let bind = |frontend: &FrontendState| {
            frontend.config.bind.iter().map(|(bind, _)| bind.clone()).collect()
        };
        let present = self.frontends.iter().map(|frontend| status(frontend, bind(frontend)));
        present.chain(self.removed.iter().map(|frontend| status(frontend, Vec::new()))).collect()
    }

    /// Backends as reported, in the order of the configuration.
    #[must_use]
    pub fn backend_statuses(&self) -> Vec<BackendStatus> {
        let status = |backend: &BackendState| BackendStatus {
            name: Arc::clone(&backend.name),
            balance: backend.config.balance,
            queue: Arc::clone(&backend.queue),
            cells: Arc::clone(&backend.cells),
        };
        self.backends.iter().map(status).collect()
    }

    /// Servers as reported: in the order of the configuration, then those that were removed and
    /// still have sessions.
    #[must_use]
    pub fn server_statuses(&self, now: Instant) -> Vec<ServerStatus> {
        let present = self.backends.iter().flat_map(|backend| {
            let health = &backend.config.health;
            let servers = backend.servers.iter();
            servers.map(move |server| server.status(server.is_probed(health), now))
        });
        present.chain(self.registry.statuses(now)).collect()
    }

    /// Samples the connect times of all servers if that is due; to be called every second or so.
    pub fn sample_connects(&mut self, now: Instant) {
        let elapsed = |last| now.saturating_duration_since(last);
        if self.sampled.is_some_and(|last| elapsed(last) < SAMPLE_INTERVAL) {
            return;
        }
        self.sampled = Some(now);
        for server in self.backends.iter_mut().flat_map(|backend| &mut backend.servers) {
            server.connects.sample(&server.shared.own_connect_durations(), now);
        }
    }
}

impl BackendState {
    /// Where an endpoint is probed, unless `health.port` says otherwise.
    fn probed_at(&self, endpoint: &EndpointState) -> Address {
        let address = endpoint.address();
        address.for_client(self.client_port).map_or_else(|| address.clone(), Address::Ip)
    }
}

impl ServerState {
    /// The Host header of its probes.
    fn host_header(&self) -> Arc<str> {
        // The path of a unix socket is no host (RFC 9110, 7.2).
        let unix = matches!(self.config.address, ServerAddress::Unix(_));
        if unix { "localhost".into() } else { Arc::clone(&self.written) }
    }

    /// Whether it is probed, in a backend with that `health`.
    fn is_probed(&self, health: &config::Health) -> bool {
        health.check != Check::Off && self.state() != AdminState::Maint
    }

    /// As reported; `probed`: whether it is probed now.
    pub(super) fn status(&self, probed: bool, now: Instant) -> ServerStatus {
        let shown = |last_probe: &LastProbe| match probed {
            true if last_probe.detail.is_empty() => LastProbe::none(NOT_PROBED_YET),
            true => last_probe.clone(),
            false => LastProbe::none(NOT_PROBED),
        };
        let endpoint = |endpoint: &EndpointState| EndpointStatus {
            address: endpoint.address().clone(),
            up: endpoint.is_up(),
            sessions: endpoint.shared.load.read(),
            last_probe: shown(&endpoint.last_probe),
        };
        ServerStatus {
            backend: Arc::clone(&self.shared.backend),
            endpoints: self.endpoints.iter().map(endpoint).collect(),
            written: Arc::clone(&self.written),
            up: self.is_up(),
            admin: self.state(),
            weight: self.weight(),
            backup: self.config.backup,
            removed: None,
            since: now.saturating_duration_since(self.since),
            admin_since: now.saturating_duration_since(self.admin_since),
            probes: Arc::clone(&self.probes),
            // Without an endpoint it says why its host name has no address.
            last_probe: match &*self.endpoints {
                [] => self.last_probe.clone(),
                _ => shown(&self.last_probe),
            },
            connect_mean: self.connects.mean(&self.shared.own_connect_durations(), now),
            shared: Arc::clone(&self.shared),
        }
    }
}
