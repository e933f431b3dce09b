//! One backend: its servers, and what changes them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use crossbeam::utils::CachePadded;

use crate::config::{self, Chains, ServerAddress};
use crate::control::cluster::change::{Change, ChangeKind};
use crate::control::cluster::departed::Departed;
use crate::control::cluster::endpoint::EndpointState;
use crate::control::cluster::input::{Answers, ProbeCheck, ProbeReport, answered};
use crate::control::cluster::registry::Registry;
use crate::control::cluster::server::{Context, Overrides, ServerState};
use crate::control::cluster::srv::{self, Records};
use crate::shared::counters::BackendCells;
use crate::shared::queue::Queue;
use crate::shared::table;
use crate::sys::address::Address;

/// A backend of the configuration.
#[derive(Debug)]
pub(super) struct BackendState {
    pub(super) name: Arc<str>,
    pub(super) config: Arc<config::BackendSettings>,
    /// How its endpoints are probed, by `config`.
    pub(super) check: Arc<ProbeCheck>,
    pub(super) servers: Vec<ServerState>,
    pub(super) departed: Departed,
    pub(super) turn: Arc<CachePadded<AtomicUsize>>,
    pub(super) queue: Arc<Queue>,
    pub(super) cells: Arc<BackendCells>,
    /// As it is in the newest table.
    pub(super) in_force: Option<Arc<table::Backend>>,
    /// It has changed since.
    pub(super) changed: bool,
    /// Whether the newest table has no server of it to choose from.
    pub(super) empty: bool,
    /// Whether the newest table leaves endpoints out.
    pub(super) too_many_endpoints: bool,
    /// The port that all its clients connect to, if there is only one: servers that have no port
    /// are probed there.
    pub(super) client_port: Option<u16>,
}

/// What the operator set, by backend and server.
pub(super) type AllOverrides = HashMap<(String, String), Overrides>;

/// What an update of the backends reads and writes beside them.
#[derive(Debug)]
pub(super) struct Update<'a> {
    pub(super) answers: &'a Answers,
    pub(super) records: &'a Records,
    /// Frontends that are servers of backends, with the addresses of host names that are used.
    pub(super) chains: &'a Chains<'a>,
    pub(super) overrides: &'a AllOverrides,
    pub(super) registry: &'a mut Registry,
    pub(super) changes: &'a mut Vec<Change>,
    pub(super) now: Instant,
}

impl Update<'_> {
    fn note(&mut self, backend: &Arc<str>, server: &Arc<str>, kind: ChangeKind) {
        let (backend, server) = (Arc::clone(backend), Some(Arc::clone(server)));
        self.changes.push(Change { backend, server, kind });
    }

    const fn context<'a>(&'a mut self, health: &'a config::Health) -> Context<'a> {
        Context { health, registry: self.registry, now: self.now }
    }
}

impl BackendState {
    /// A backend that the configuration before did not have.
    pub(super) fn new(config: &Arc<config::BackendSettings>, update: &mut Update<'_>) -> Self {
        let mut backend = Self {
            name: Arc::clone(&config.name),
            config: Arc::clone(config),
            check: Arc::new(ProbeCheck::of(config)),
            servers: Vec::new(),
            departed: Departed::default(),
            turn: Arc::default(),
            queue: update.registry.queue(&config.name),
            cells: update.registry.backend_cells(&config.name),
            in_force: None,
            changed: true,
            empty: false,
            too_many_endpoints: false,
            client_port: None,
        };
        backend.queue.set_max(config.queue_max);
        for server in srv::servers(config, update.records) {
            backend.add(server, update);
        }
        backend
    }

    /// Applies a newer configuration, or newer records of its SRV name.
    pub(super) fn update(
        &mut self,
        config: &Arc<config::BackendSettings>,
        update: &mut Update<'_>,
    ) {
        self.queue.set_max(config.queue_max);
        let configured = srv::servers(config, update.records);
        let before = std::mem::replace(&mut self.config, Arc::clone(config));
        self.check = Arc::new(ProbeCheck::of(config));
        let health = &before.health;
        // Servers are removed first: a new one may have the name of one of them.
        let new: HashMap<&str, &ServerAddress> =
            configured.iter().map(|new| (new.name.as_str(), &new.address)).collect();
        let stays = |server: &ServerState| {
            new.get(server.config.name.as_str()) == Some(&&server.config.address)
        };
        let (known, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.servers).into_iter().partition(stays);
        self.remove_all(gone, update);
        let named = |server: ServerState| (server.config.name.clone(), server);
        let mut known: HashMap<_, _> = known.into_iter().map(named).collect();
        for config in configured {
            let Some(mut server) = known.remove(&config.name) else {
                self.add(config, update);
                let Some(server) = self.servers.last() else { continue };
                let addresses =
                    server.endpoints.iter().map(EndpointState::address).cloned().collect();
                let supplied = server.config.srv_rank.is_some();
                let added = ChangeKind::Added { addresses, supplied };
                update.note(&self.name, server.name(), added);
                continue;
            };
            server.update(config, health, &mut update.context(&self.config.health));
            self.servers.push(server);
            self.follow(self.servers.len() - 1, update);
        }
        self.touch();
    }

    /// Its clients connect to that port alone now, or to several. What was probed at another port
    /// is probed by a new task, as results of the earlier one do not count.
    pub(super) fn set_client_port(&mut self, port: Option<u16>, registry: &mut Registry) {
        if std::mem::replace(&mut self.client_port, port) == port {
            return;
        }
        for endpoint in self.servers.iter_mut().flat_map(|server| &mut server.endpoints) {
            if endpoint.address().lacks_port() && self.config.health.port.is_none() {
                endpoint.task = registry.task();
            }
        }
    }

    /// DNS has answered for host names; whether a server of this backend changed: one of these
    /// names, or one whose own address closes a cycle now, or no longer.
    pub(super) fn resolved(&mut self, hosts: &HashSet<&str>, update: &mut Update<'_>) -> bool {
        let mut any = false;
        for index in 0..self.servers.len() {
            let server = &self.servers[index];
            let is_answered = server.host().is_some_and(|host| hosts.contains(host));
            if is_answered || self.is_outdated(server, update) {
                any |= self.follow(index, update);
            }
        }
        any
    }

    /// Whether a server uses an address that closes a cycle, or leaves out one that does not.
    fn is_outdated(&self, server: &ServerState, update: &Update<'_>) -> bool {
        let Update { answers, chains, .. } = update;
        let mut reached = answered(&server.config.address, answers)
            .filter(|address| chains.reached(&self.name, address).is_some());
        reached.any(|address| server.has(&address) == chains.cycle(&self.name, &address).is_some())
    }

    /// The addresses in use, with the name of this backend.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (&str, &Address)> {
        let endpoints = self.servers.iter().flat_map(|server| &server.endpoints);
        endpoints.map(|endpoint| (&*self.name, endpoint.address()))
    }

    /// The operator set something for the server of that name.
    pub(super) fn set_overrides(
        &mut self,
        server: &str,
        overrides: Overrides,
        registry: &mut Registry,
        now: Instant,
    ) {
        let health = &self.config.health;
        for server in self.servers.iter_mut().filter(|known| known.config.name == server) {
            server.set_overrides(overrides, &mut Context { health, registry, now });
        }
        self.touch();
    }

    /// A probe of an endpoint has ended; what that changed, if anything.
    pub(super) fn probed(
        &mut self,
        (server, endpoint): (usize, usize),
        report: ProbeReport,
        registry: &mut Registry,
        now: Instant,
    ) -> Option<Change> {
        let context = Context { health: &self.config.health, registry, now };
        let server = &mut self.servers[server];
        let kind = server.probed(endpoint, report, &context)?;
        let server = Some(Arc::clone(server.name()));
        self.touch();
        Some(Change { backend: Arc::clone(&self.name), server, kind })
    }

    /// It is no longer in the configuration.
    pub(super) fn remove(mut self, update: &mut Update<'_>) {
        let servers = std::mem::take(&mut self.servers);
        self.remove_all(servers, update);
    }

    fn remove_all(&mut self, servers: Vec<ServerState>, update: &mut Update<'_>) {
        for server in servers {
            self.departed.note(&server);
            let (name, removed) = server.remove(update.registry, update.now);
            update.note(&self.name, &name, removed);
        }
    }

    fn add(&mut self, config: config::Server, update: &mut Update<'_>) {
        let (addresses, why) = self.located(&config, update);
        let key = (self.name.to_string(), config.name.clone());
        let overrides = update.overrides.get(&key).copied().unwrap_or_default();
        let context = &mut update.context(&self.config.health);
        let mut server = ServerState::new(&self.name, config, overrides, &addresses, context);
        self.departed.recall(&mut server, &self.config.health);
        if let Some(why) = why {
            server.note_unanswered(&why);
        }
        self.servers.push(server);
    }

    fn follow(&mut self, index: usize, update: &mut Update<'_>) -> bool {
        let (addresses, why) = self.located(&self.servers[index].config, update);
        let server = &mut self.servers[index];
        let changes = match why {
            Some(why) if addresses.is_empty() => {
                server.leads_back(&why, update.now).into_iter().collect()
            }
            _ => server.resolved(&addresses, &mut update.context(&self.config.health)),
        };
        let any = !changes.is_empty();
        let name = Arc::clone(server.name());
        for change in changes {
            update.note(&self.name, &name, change);
        }
        if any {
            self.touch();
        }
        any
    }

    /// The addresses that a server uses, by the answers of DNS; empty: its host name has none. And
    /// why another one is not used, if one leads back to this backend: each connection would open
    /// another. (An IP address that does is refused with the configuration.)
    fn located(
        &self,
        server: &config::Server,
        update: &mut Update<'_>,
    ) -> (Vec<Address>, Option<String>) {
        if let Some(address) = server.address.fixed() {
            return (vec![address], None);
        }
        let (mut used, mut why) = (Vec::new(), None);
        for address in answered(&server.address, update.answers) {
            let Some(reached) = update.chains.cycle(&self.name, &address) else {
                used.push(address);
                continue;
            };
            let frontend = Arc::clone(&reached.frontend.name);
            why = Some(format!(
                "{address} is frontend {frontend}, which leads back to backend {}",
                self.name
            ));
            let kind = ChangeKind::LeadsBack { address, frontend };
            update.note(&self.name, &server.name.as_str().into(), kind);
        }
        (used, why)
    }

    /// It has changed: the next table has it built anew.
    pub(super) fn touch(&mut self) {
        self.changed = true;
    }

    /// Lets the weights of servers that have come up grow; whether that changed one.
    pub(super) fn grow(&mut self, now: Instant) -> bool {
        let Some(slow_start) = self.config.slow_start else { return false };
        let servers = self.servers.iter_mut();
        let any = servers.fold(false, |any, server| server.slow_start.grow(slow_start, now) | any);
        self.changed |= any;
        any
    }
}
