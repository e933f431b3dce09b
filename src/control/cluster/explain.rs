//! Why a client gets a server of a backend, or does not: for `evenkeel explain`.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::config::{AdminState, Balance};
use crate::control::cluster::backend::BackendState;
use crate::control::cluster::build::{BACKUP, rank_of};
use crate::control::cluster::server::ServerState;
use crate::control::cluster::state::Cluster;
use crate::shared::choice::{self, Choice};
use crate::shared::explanation::{BackendExplanation, Outcome, ServerExplanation};
use crate::shared::server::Endpoint;
use crate::shared::table::Backend;
use crate::terms::ServerId;

impl Cluster {
    /// What a client gets at each of `reachable`, as it is in the table in force, in the order of
    /// the file. `reachable`: by name, with the clients that are sent there.
    #[must_use]
    pub fn explain(
        &self,
        reachable: &HashMap<&str, (&Backend, String)>,
        client: Option<IpAddr>,
    ) -> Vec<BackendExplanation> {
        let of = |state: &BackendState| {
            let (backend, clients) = reachable.get(&*state.name)?;
            Some(Decision::new(state, backend, client).explanation(clients))
        };
        self.backends.iter().filter_map(of).collect()
    }
}

/// What a client gets, and what the reasons of servers are made of.
struct Decision<'a> {
    state: &'a BackendState,
    backend: &'a Backend,
    client: Option<IpAddr>,
    choice: Choice,
    /// Servers that can be chosen.
    scheduled: HashSet<ServerId>,
    /// The chance of each server, if the choice is open.
    chances: HashMap<ServerId, f64>,
    /// How many turns come before the next one of each server; empty without a rotation.
    turns: HashMap<ServerId, usize>,
    /// Sessions that wait already.
    waiting: usize,
}

impl<'a> Decision<'a> {
    fn new(state: &'a BackendState, backend: &'a Backend, client: Option<IpAddr>) -> Self {
        let choice = choice::next(backend, client);
        let schedule = &backend.schedule;
        let mut chances = HashMap::new();
        if let Choice::Open(of_endpoints) = &choice {
            for (endpoint, chance) in schedule.endpoints.iter().zip(of_endpoints) {
                *chances.entry(endpoint.shared.id).or_insert(0.0) += chance;
            }
        }
        let mut turns = HashMap::new();
        if backend.settings.balance == Balance::RoundRobin && !schedule.is_empty() {
            let (before, from) =
                schedule.rotation.split_at(backend.turn() % schedule.rotation.len());
            for (turn, index) in from.iter().chain(before).enumerate() {
                turns.entry(schedule.endpoints[usize::from(*index)].shared.id).or_insert(turn);
            }
        }
        Self {
            state,
            backend,
            client,
            scheduled: schedule.endpoints.iter().map(|one| one.shared.id).collect(),
            choice,
            chances,
            turns,
            waiting: backend.queue.length(),
        }
    }

    fn explanation(&self, clients: &str) -> BackendExplanation {
        let (outcome, why) = self.outcome();
        let chosen = self.chosen().filter(|_| outcome == Outcome::Server);
        BackendExplanation {
            name: self.state.name.to_string(),
            clients: clients.to_owned(),
            balance: self.backend.settings.balance.word().to_owned(),
            queue_sessions: self.waiting as u64,
            queue_max: self.backend.settings.queue_max,
            outcome,
            server: chosen.map(|endpoint| endpoint.shared.name.to_string()),
            address: chosen.map(|endpoint| endpoint.address.to_string()),
            why,
            servers: self.state.servers.iter().map(|server| self.server(server, outcome)).collect(),
        }
    }

    fn chosen(&self) -> Option<&Endpoint> {
        match &self.choice {
            Choice::Endpoint(endpoint) => Some(endpoint),
            _ => None,
        }
    }

    /// What happens to the client, and why.
    fn outcome(&self) -> (Outcome, String) {
        let (waiting, max) = (self.waiting, self.backend.settings.queue_max);
        let queue = |what: String| {
            if waiting >= max as usize {
                return (
                    Outcome::Reset,
                    format!("{what}, and the queue is full (queue_max = {max})"),
                );
            }
            (Outcome::Queue, format!("{what}; the client waits in the queue"))
        };
        match &self.choice {
            Choice::NoServer => {
                (Outcome::Reset, "no server can be chosen (reason no_server)".to_owned())
            }
            _ if waiting > 0 => queue(format!("{waiting} sessions are in the queue already")),
            Choice::Full => queue("every server is at its sessions_max".to_owned()),
            Choice::Endpoint(_) => (Outcome::Server, self.rule().to_owned()),
            Choice::Open(_) => (Outcome::Open, self.rule().to_owned()),
        }
    }

    /// How the algorithm decides.
    fn rule(&self) -> &'static str {
        match (self.backend.settings.balance, self.client) {
            (Balance::RoundRobin, _) => "servers take turns by weight",
            (Balance::LeastConn, _) => "the fewest sessions in proportion to the weight",
            (Balance::First, _) => "the first server of the file that is below its sessions_max",
            (Balance::Source, Some(_)) => "the hash of the client's address",
            (Balance::Source, None) => "the hash of the client's address decides: give CLIENT",
            (Balance::Random, _) => {
                "of two servers drawn by weight, the one with fewer sessions in proportion to its \
                 weight"
            }
        }
    }

    fn server(&self, server: &ServerState, outcome: Outcome) -> ServerExplanation {
        let id = server.id();
        let chosen = self.chosen().is_some_and(|endpoint| endpoint.shared.id == id);
        let max = server.shared.sessions.max();
        ServerExplanation {
            name: server.name().to_string(),
            state: match (server.state(), server.is_up()) {
                (AdminState::Ready, true) => "up",
                (AdminState::Ready, false) => "down",
                (set, _) => set.word(),
            }
            .to_owned(),
            weight: server.weight(),
            sessions_active: server.sessions(),
            sessions_max: (max != u32::MAX).then_some(max),
            backup: server.config.backup,
            chosen: chosen && outcome == Outcome::Server,
            chance: self.chances.get(&id).copied().filter(|_| outcome == Outcome::Open),
            why: if self.scheduled.contains(&id) {
                self.why_scheduled(server, outcome)
            } else {
                self.why_not_scheduled(server)
            },
        }
    }

    /// Of a server that can be chosen.
    fn why_scheduled(&self, server: &ServerState, outcome: Outcome) -> String {
        let id = server.id();
        let (active, max) = (server.sessions(), server.shared.sessions.max());
        let tried = if server.is_up() { "" } else { "; used although down (all_down = \"try\")" };
        if active >= max {
            return format!("full: {active} of {max} sessions{tried}");
        }
        let Some(chosen) = self.chosen() else {
            return match self.chances.get(&id).filter(|_| outcome == Outcome::Open) {
                Some(chance) => format!("gets {:.0} % of such clients{tried}", chance * 100.0),
                None => format!("sessions in the queue come first{tried}"),
            };
        };
        let is_chosen = chosen.shared.id == id;
        let why = match self.backend.settings.balance {
            _ if outcome != Outcome::Server => "sessions in the queue come first".to_owned(),
            Balance::RoundRobin if is_chosen => match self.turns.get(&id) {
                Some(0) | None => "it is its turn".to_owned(),
                Some(_) => "it is its turn: those before it are full".to_owned(),
            },
            Balance::RoundRobin => match self.turns.get(&id) {
                Some(turns @ 2..) => format!("its turn comes in {turns} sessions"),
                _ => "its turn comes next".to_owned(),
            },
            Balance::LeastConn if is_chosen => {
                "it has the fewest sessions in proportion to its weight".to_owned()
            }
            Balance::LeastConn => {
                let name = &chosen.shared.name;
                format!("as many sessions as {name} or more, in proportion to its weight")
            }
            Balance::First if is_chosen => "it is the first that is not full".to_owned(),
            Balance::First => format!("{} comes first in the file", chosen.shared.name),
            Balance::Source if is_chosen => "the hash of the client's address".to_owned(),
            Balance::Source | Balance::Random => {
                format!("the hash of the client's address gives {}", chosen.shared.name)
            }
        };
        why + tried
    }

    /// Of a server that cannot be chosen.
    fn why_not_scheduled(&self, server: &ServerState) -> String {
        let state = server.state();
        if state != AdminState::Ready {
            let by = match server.overridden().state {
                Some(_) => "the operator",
                None => "the configuration",
            };
            return format!("set to {} by {by}: no new sessions", state.word());
        }
        if server.weight() == 0 {
            return "weight 0: no new sessions".to_owned();
        }
        if server.endpoints.is_empty() {
            return server.last_probe.detail.to_string();
        }
        if !server.is_up() {
            return match &*server.last_probe.detail {
                "" => "down".to_owned(),
                detail => format!("down: {detail}"),
            };
        }
        let scheduled = self.state.servers.iter().filter(|one| self.scheduled.contains(&one.id()));
        let (rank, in_use) = (rank_of(server), scheduled.map(rank_of).min());
        match in_use {
            Some(in_use) if rank == BACKUP && in_use == BACKUP => {
                "backup: backups = \"first\", and another one comes first"
            }
            Some(in_use) if rank == BACKUP && in_use < rank => {
                "backup: used if all others are down"
            }
            Some(in_use) if in_use < rank => {
                "a higher SRV priority: used if all lower ones are down"
            }
            _ => "more endpoints than a rotation can hold",
        }
        .to_owned()
    }
}
