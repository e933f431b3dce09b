//! Views of the cluster state: for the prober, the status page and the metrics.

use std::sync::Arc;
use std::time::Instant;

use crate::config::{AdminState, Check};
use crate::control::cluster::backend::BackendState;
use crate::control::cluster::change::UpCount;
use crate::control::cluster::input::ProbeTarget;
use crate::control::cluster::server::ServerState;
use crate::control::cluster::state::{Cluster, FrontendState};
use crate::shared::snapshot::{BackendStatus, FrontendStatus, ServerStatus};

impl Cluster {
    /// The endpoints to probe: those of servers that are not in maintenance.
    pub fn probe_targets(&self) -> impl Iterator<Item = ProbeTarget> {
        let probed = self.backends.iter().filter(|one| one.config.health.check != Check::Off);
        probed.flat_map(|backend| {
            let health = &backend.config.health;
            let servers = backend.servers.iter();
            let servers = servers.filter(|server| server.state() != AdminState::Maint);
            servers.flat_map(move |server| {
                server.endpoints.iter().map(move |endpoint| ProbeTarget {
                    task: endpoint.task,
                    address: endpoint.address(),
                    host_header: server.written.to_string(),
                    health: health.clone(),
                    up: endpoint.is_up(),
                })
            })
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
            backend: frontend.config.backend.0.as_str().into(),
            addresses,
            shared: Arc::clone(&frontend.shared),
        };
        let bind = |frontend: &FrontendState| {
            frontend.config.bind.iter().map(|(address, _)| *address).collect()
        };
        let present = self.frontends.iter().map(|frontend| status(frontend, bind(frontend)));
        present.chain(self.removed.iter().map(|frontend| status(frontend, Vec::new()))).collect()
    }

    /// Backends as reported, in the order of the configuration.
    #[must_use]
    pub fn backend_statuses(&self) -> Vec<BackendStatus> {
        let status = |backend: &BackendState| BackendStatus {
            name: Arc::clone(&backend.name),
            queue: Arc::clone(&backend.queue),
        };
        self.backends.iter().map(status).collect()
    }

    /// Servers as reported: in the order of the configuration, then those that were removed and
    /// still have sessions.
    #[must_use]
    pub fn server_statuses(&self, now: Instant) -> Vec<ServerStatus> {
        let present = self.servers().map(|server: &ServerState| server.status(now));
        present.chain(self.registry.statuses(now)).collect()
    }
}
