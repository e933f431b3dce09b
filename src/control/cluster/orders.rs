//! Orders of the operator for one server.

use std::time::Instant;

use crate::config::{AdminState, AllDown};
use crate::control::cluster::server::{Overrides, ServerState};
use crate::control::cluster::state::Cluster;
use crate::shared::orders::ServerName;

/// Names that an error lists.
const NAMES_SHOWN: usize = 20;

impl Cluster {
    /// Sets the state of a server; the answer is for the operator.
    ///
    /// # Errors
    /// There is no such server.
    pub fn set_state(
        &mut self,
        name: &ServerName,
        state: AdminState,
        now: Instant,
    ) -> Result<String, String> {
        let sessions = self.find(name)?.sessions();
        self.set(name, now, |overrides| overrides.set_state(state, now));
        let rest = match (state, sessions) {
            (AdminState::Ready, _) | (_, 0) => String::new(),
            (_, 1) => "; its session continues".to_owned(),
            (_, sessions) => format!("; its {sessions} sessions continue"),
        };
        let none = self.without_servers(&name.backend);
        Ok(format!("{}/{} is in state {}{rest}{none}", name.backend, name.server, state.word()))
    }

    /// Sets the weight of a server; the answer is for the operator.
    ///
    /// # Errors
    /// There is no such server, or the weight is above 1000.
    pub fn set_weight(
        &mut self,
        name: &ServerName,
        weight: u32,
        now: Instant,
    ) -> Result<String, String> {
        if weight > 1000 {
            return Err(format!("a weight is 0 to 1000, not {weight}"));
        }
        self.find(name)?;
        self.set(name, now, |overrides| overrides.weight = Some(weight));
        let none = self.without_servers(&name.backend);
        Ok(format!("{}/{} has weight {weight}{none}", name.backend, name.server))
    }

    /// The warning that a backend has no server for new sessions; empty: it has one.
    fn without_servers(&self, backend: &str) -> String {
        let Some(backend) = self.backends.iter().find(|known| *known.name == *backend) else {
            return String::new();
        };
        let tries = backend.config.all_down == AllDown::Try;
        let takes_sessions = |server: &ServerState| {
            let is_usable = server.is_up() || (tries && !server.endpoints.is_empty());
            server.state() == AdminState::Ready && server.weight() > 0 && is_usable
        };
        if backend.servers.iter().any(takes_sessions) {
            return String::new();
        }
        format!("; backend {} has no server left: new client connections are reset", backend.name)
    }

    /// What the operator set differently from the configuration, one text for each server.
    #[must_use]
    pub fn overridden(&self) -> Vec<String> {
        let text = |(name, server): (String, &ServerState)| {
            let Overrides { state, weight } = server.overridden();
            let state = state.map(|(state, _)| format!(" {}", state.word()));
            let weight = weight.map(|weight| format!(" weight {weight}"));
            let set: String = state.into_iter().chain(weight).collect();
            (!set.is_empty()).then(|| name + &set)
        };
        self.named().filter_map(text).collect()
    }

    /// What the operator set in place of a key of a server, "state" or "weight".
    #[must_use]
    pub fn set_by_operator(&self, name: &ServerName, key: &str) -> Option<String> {
        let Overrides { state, weight } = self.find(name).ok()?.overridden();
        match key {
            "state" => state.map(|(state, _)| state.word().to_owned()),
            "weight" => weight.map(|weight| weight.to_string()),
            _ => None,
        }
    }

    /// Sessions of a server; none: there is no such server.
    #[must_use]
    pub fn sessions_of(&self, name: &ServerName) -> Option<u32> {
        self.find(name).ok().map(ServerState::sessions)
    }

    /// Servers whose host names have no address, as BACKEND/SERVER.
    #[must_use]
    pub fn without_address(&self) -> Vec<String> {
        let none = self.named().filter(|(_, server)| server.endpoints.is_empty());
        none.map(|(name, _)| name).collect()
    }

    fn named(&self) -> impl Iterator<Item = (String, &ServerState)> {
        self.backends.iter().flat_map(|backend| {
            let servers = backend.servers.iter();
            servers.map(move |server| (format!("{}/{}", backend.name, server.config.name), server))
        })
    }

    fn set(&mut self, name: &ServerName, now: Instant, set: impl FnOnce(&mut Overrides)) {
        let overrides =
            self.overrides.entry((name.backend.clone(), name.server.clone())).or_default();
        set(overrides);
        let known = self.backends.iter_mut().filter(|backend| *backend.name == *name.backend);
        for backend in known {
            backend.set_overrides(&name.server, *overrides, &mut self.registry, now);
        }
        self.find_tasks();
    }

    fn find(&self, name: &ServerName) -> Result<&ServerState, String> {
        let ServerName { backend, server } = name;
        let list = |names: Vec<&str>| names.join(", ");
        let Some(found) = self.backends.iter().find(|known| *known.name == **backend) else {
            let names = self.backends.iter().map(|backend| &*backend.name).take(NAMES_SHOWN);
            let names = list(names.collect());
            return Err(format!("there is no backend {backend:?}; the backends are: {names}"));
        };
        let servers = || found.servers.iter();
        servers().find(|known| known.config.name == *server).ok_or_else(|| {
            let names = servers().map(|known| known.config.name.as_str()).take(NAMES_SHOWN);
            let names = list(names.collect());
            format!("backend {backend} has no server {server:?}; its servers are: {names}")
        })
    }
}
