//! Servers that an SRV name supplied and that were down when their records left DNS.

use crate::config::{self, Check};
use crate::control::cluster::endpoint::EndpointState;
use crate::control::cluster::server::ServerState;
use crate::control::cluster::srv::RECORDS_MAX;
use crate::control::health::Health;

/// Their names, oldest first: as many as an answer has at most.
#[derive(Debug, Default)]
pub(super) struct Departed(Vec<String>);

impl Departed {
    /// A server leaves the backend.
    pub(super) fn note(&mut self, server: &ServerState) {
        if server.config.srv_rank.is_some() && !server.is_up() && !server.endpoints.is_empty() {
            self.0.push(server.config.name.clone());
            self.0.drain(..self.0.len().saturating_sub(RECORDS_MAX));
        }
    }

    /// The names.
    pub(super) fn names(&self) -> &[String] {
        &self.0
    }

    /// Names that another process has noted.
    pub(super) fn restore(&mut self, names: Vec<String>) {
        self.0 = names;
        self.0.truncate(RECORDS_MAX);
    }

    /// A server is new in the backend: it is still down if it was when it left.
    pub(super) fn recall(&mut self, server: &mut ServerState, health: &config::Health) {
        let Some(index) = self.0.iter().position(|name| *name == server.config.name) else {
            return;
        };
        self.0.remove(index);
        if health.check != Check::Off {
            let down = |endpoint: &mut EndpointState| {
                endpoint.health = Health::down(health.rise, health.fall);
            };
            server.endpoints.iter_mut().for_each(down);
        }
    }
}
