//! One backend: its servers, and which of them can be chosen.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam::utils::CachePadded;

use crate::config::{self, AdminState, AllDown, Backups, ServerAddress};
use crate::control::cluster::change::{Change, ChangeKind, ENDPOINTS_MAX};
use crate::control::cluster::endpoint::EndpointState;
use crate::control::cluster::input::{Answers, ProbeReport};
use crate::control::cluster::registry::Registry;
use crate::control::cluster::server::{Context, Overrides, ServerState};
use crate::shared::queue::Queue;
use crate::shared::schedule::{Schedule, Share};
use crate::shared::table;
use crate::sys::local_addresses::LocalAddresses;

/// A backend of the configuration.
#[derive(Debug)]
pub(super) struct BackendState {
    pub(super) name: Arc<str>,
    pub(super) config: Arc<config::BackendSettings>,
    pub(super) servers: Vec<ServerState>,
    turn: Arc<CachePadded<AtomicUsize>>,
    pub(super) queue: Arc<Queue>,
    /// As it is in the newest table.
    in_force: Option<Arc<table::Backend>>,
    /// It has changed since.
    changed: bool,
    /// Whether the newest table has no server of it to choose from.
    empty: bool,
    /// Whether the newest table leaves endpoints out.
    too_many_endpoints: bool,
}

/// What the operator set, by backend and server.
pub(super) type AllOverrides = HashMap<(String, String), Overrides>;

/// What an update of the backends reads and writes beside them.
#[derive(Debug)]
pub(super) struct Update<'a> {
    pub(super) answers: &'a Answers,
    /// Addresses that frontends listen on.
    pub(super) listened: &'a [SocketAddr],
    /// Addresses of this machine.
    pub(super) local: &'a LocalAddresses,
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
            servers: Vec::new(),
            turn: Arc::default(),
            queue: update.registry.queue(&config.name),
            in_force: None,
            changed: true,
            empty: false,
            too_many_endpoints: false,
        };
        backend.queue.set_max(config.queue_max);
        for server in &config.servers {
            backend.add(server.clone(), update);
        }
        backend
    }

    /// Applies a newer configuration.
    pub(super) fn update(
        &mut self,
        config: &Arc<config::BackendSettings>,
        update: &mut Update<'_>,
    ) {
        self.queue.set_max(config.queue_max);
        let configured = &config.servers;
        let before = std::mem::replace(&mut self.config, Arc::clone(config));
        let health = &before.health;
        // Servers are removed first: a new one may have the name of one of them.
        let stays = |server: &ServerState| {
            let mut same = configured.iter().filter(|new| new.name == server.config.name);
            same.any(|new| new.address == server.config.address)
        };
        let (known, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.servers).into_iter().partition(stays);
        self.remove_all(gone, update);
        let named = |server: ServerState| (server.config.name.clone(), server);
        let mut known: HashMap<_, _> = known.into_iter().map(named).collect();
        for config in configured {
            let Some(mut server) = known.remove(&config.name) else {
                self.add(config.clone(), update);
                let Some(server) = self.servers.last() else { continue };
                let addresses = server.endpoints.iter().map(EndpointState::address).collect();
                update.note(&self.name, server.name(), ChangeKind::Added(addresses));
                continue;
            };
            server.update(config.clone(), health, &mut update.context(&self.config.health));
            self.servers.push(server);
            self.follow(self.servers.len() - 1, update);
        }
        self.touch();
    }

    /// DNS has answered for a host name; whether a server of it changed.
    pub(super) fn resolved(&mut self, host: &str, update: &mut Update<'_>) -> bool {
        let mut any = false;
        for index in 0..self.servers.len() {
            if self.servers[index].host() == Some(host) {
                any |= self.follow(index, update);
            }
        }
        any
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

    fn remove_all(&self, servers: Vec<ServerState>, update: &mut Update<'_>) {
        for server in servers {
            let (name, removed) = server.remove(update.registry, update.now);
            update.note(&self.name, &name, removed);
        }
    }

    fn add(&mut self, config: config::Server, update: &mut Update<'_>) {
        let (addresses, _) = self.located(&config, update);
        let key = (self.name.to_string(), config.name.clone());
        let overrides = update.overrides.get(&key).copied().unwrap_or_default();
        let context = &mut update.context(&self.config.health);
        let server = ServerState::new(&self.name, config, overrides, &addresses, context);
        self.servers.push(server);
    }

    fn follow(&mut self, index: usize, update: &mut Update<'_>) -> bool {
        let (addresses, to_frontend) = self.located(&self.servers[index].config, update);
        let server = &mut self.servers[index];
        let changes = if addresses.is_empty() && to_frontend {
            server.resolved_to_frontends(update.now).into_iter().collect()
        } else {
            server.resolved(&addresses, &mut update.context(&self.config.health))
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

    /// The addresses of a server, by the answers of DNS; empty: its host name has none. And whether
    /// the host name resolves to a frontend of this balancer as well, which is not used: each
    /// connection would make another one. (Such a number is refused with the configuration.)
    fn located(&self, server: &config::Server, update: &mut Update<'_>) -> (Vec<SocketAddr>, bool) {
        let (host, port) = match &server.address {
            ServerAddress::Ip(address) => return (vec![*address], false),
            ServerAddress::Name { host, port } => (host, *port),
        };
        let answer: &[IpAddr] = update.answers.get(host).map(Vec::as_slice).unwrap_or_default();
        let found = answer.iter().map(|address| SocketAddr::from((*address, port)));
        let (own, found): (Vec<_>, Vec<_>) = found.partition(|address| {
            update.listened.iter().any(|own| update.local.leads_to(*address, *own))
        });
        let to_frontend = !own.is_empty();
        for address in own {
            let name = server.name.as_str().into();
            update.note(&self.name, &name, ChangeKind::ResolvesToFrontend(address));
        }
        (found, to_frontend)
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

    /// As it should be in the next table.
    pub(super) fn build(&mut self, changes: &mut Vec<Change>) -> Arc<table::Backend> {
        if let Some(in_force) = self.in_force.as_ref().filter(|_| !self.changed) {
            return Arc::clone(in_force);
        }
        let mut note = |kind| {
            changes.push(Change { backend: Arc::clone(&self.name), server: None, kind });
        };
        let (shares, all_down) = self.shares();
        let endpoints: usize = shares.iter().map(|(endpoints, _)| endpoints.len()).sum();
        let left = endpoints.saturating_sub(ENDPOINTS_MAX);
        if left > 0 && !self.too_many_endpoints {
            note(ChangeKind::TooManyEndpoints(left));
        }
        self.too_many_endpoints = left > 0;
        let schedule = Schedule::new(self.config.balance, shares);
        let tried = all_down && !schedule.is_empty();
        let empty = all_down || schedule.is_empty();
        if empty != self.empty {
            note(if empty { ChangeKind::Empty { tried } } else { ChangeKind::Serving });
        }
        self.empty = empty;
        let backend = Arc::new(table::Backend {
            settings: Arc::clone(&self.config),
            turn_offset: self.turn_offset(&schedule),
            schedule,
            turn: Arc::clone(&self.turn),
            queue: Arc::clone(&self.queue),
        });
        self.in_force = Some(Arc::clone(&backend));
        self.changed = false;
        backend
    }

    /// What the turns of a new schedule begin with, so that the next one is of the endpoint whose
    /// turn it would have been, at about the same part of the rotation.
    fn turn_offset(&self, schedule: &Schedule) -> usize {
        let (turn, length) = (self.turn.load(Ordering::Relaxed), schedule.rotation.len());
        let Some(old) = self.in_force.as_ref().filter(|old| !old.schedule.is_empty()) else {
            return 0;
        };
        if length == 0 {
            return 0;
        }
        let rotation = &old.schedule.rotation;
        let at = turn.wrapping_add(old.turn_offset) % rotation.len();
        let next = old.schedule.endpoints[usize::from(rotation[at])].id;
        let about = at * length / rotation.len();
        let is_next = |turn: &usize| {
            schedule.endpoints[usize::from(schedule.rotation[turn % length])].id == next
        };
        // Nearest first, on both sides.
        let near = (0..=length / 2).flat_map(|far| [about + far, about + length - far]);
        let first = near.map(|turn| turn % length).find(is_next).unwrap_or(about);
        (first + length - turn % length) % length
    }

    /// The servers that can be chosen, with their endpoints that are up: those that are no backups;
    /// if none is up, the backups; if none of them is up either, all servers where `all_down` says
    /// so (and then true). A server in drain or maint never is.
    fn shares(&self) -> (Vec<Share>, bool) {
        let of = |backup: Option<bool>, all: bool| -> Vec<Share> {
            let servers = self.servers.iter().filter(|server| {
                server.state() == AdminState::Ready
                    && server.weight() > 0
                    && backup.is_none_or(|backup| server.config.backup == backup)
            });
            let share = |server: &ServerState| {
                let endpoints = server.endpoints.iter().filter(|one| all || one.is_up());
                let endpoints = endpoints.map(|one| Arc::clone(&one.shared)).collect();
                let weight = match self.config.slow_start {
                    Some(_) => server.weight() * server.slow_start.part(),
                    None => server.weight(),
                };
                (endpoints, weight)
            };
            servers.map(share).filter(|(endpoints, _): &Share| !endpoints.is_empty()).collect()
        };
        let up = of(Some(false), false);
        if !up.is_empty() {
            return (up, false);
        }
        let mut backup = of(Some(true), false);
        if self.config.backups == Backups::First {
            backup.truncate(1);
        }
        if !backup.is_empty() || self.config.all_down == AllDown::Refuse {
            return (backup, false);
        }
        (of(None, true), true)
    }
}
