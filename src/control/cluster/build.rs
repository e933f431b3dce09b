//! A backend as it is in a table: which endpoints can be chosen, and where the rotation begins.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::{AdminState, AllDown, Backups};
use crate::control::cluster::backend::BackendState;
use crate::control::cluster::change::{Change, ChangeKind, ENDPOINTS_MAX};
use crate::control::cluster::server::ServerState;
use crate::shared::schedule::{Schedule, Share};
use crate::shared::table;

impl BackendState {
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
    /// if none is up, the backups of the lowest rank that has a server up; if there is none either,
    /// all servers where `all_down` says so (and then true). A server in drain or maint never is.
    fn shares(&self) -> (Vec<Share>, bool) {
        let may_serve =
            |server: &&ServerState| server.state() == AdminState::Ready && server.weight() > 0;
        let of = |rank: Option<u16>, all: bool| -> Vec<Share> {
            let servers = self.servers.iter().filter(may_serve);
            let servers = servers.filter(|server| rank.is_none_or(|rank| rank_of(server) == rank));
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
        let servers = self.servers.iter().filter(may_serve);
        let Some(rank) = servers.filter(|server| server.is_up()).map(rank_of).min() else {
            let all_down = self.config.all_down == AllDown::Try;
            return if all_down { (of(None, true), true) } else { (Vec::new(), false) };
        };
        let mut up = of(Some(rank), false);
        if rank == BACKUP && self.config.backups == Backups::First {
            up.truncate(1);
        }
        (up, false)
    }
}

/// Backups of the file: used after every priority of an SRV name.
pub(super) const BACKUP: u16 = u16::MAX;

/// In which order servers are used if those before are down: 0 for servers that are no backups and
/// for the lowest priority of an SRV name, then its other priorities, then backups.
pub(super) fn rank_of(server: &ServerState) -> u16 {
    match server.config.srv_rank {
        Some(rank) => rank,
        None if server.config.backup => BACKUP,
        None => 0,
    }
}
