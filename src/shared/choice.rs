//! The endpoint that the next session of a backend gets, without taking a turn or a place: for
//! `evenkeel explain`. Workers choose with `proxy/balance`.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::Balance;
use crate::shared::load::NEVER;
use crate::shared::maglev;
use crate::shared::schedule::Schedule;
use crate::shared::server::Endpoint;
use crate::shared::table::Backend;

/// What the next session gets.
#[derive(Debug, Clone)]
pub enum Choice {
    /// This endpoint.
    Endpoint(Arc<Endpoint>),
    /// One of several: the chance of each of [`Schedule::endpoints`].
    Open(Vec<f64>),
    /// Every server is at its `sessions_max`.
    Full,
    /// No server can be chosen.
    NoServer,
}

/// What the next session of a client gets. None: any client.
#[must_use]
pub fn next(backend: &Backend, client: Option<IpAddr>) -> Choice {
    let schedule = &backend.schedule;
    if schedule.is_empty() {
        return Choice::NoServer;
    }
    let endpoints = &schedule.endpoints;
    let chosen = match (backend.settings.balance, client) {
        (Balance::RoundRobin, _) => schedule.walk(backend.turn()).find(|one| has_room(one)),
        (Balance::LeastConn, _) => {
            let start = backend.turn() % endpoints.len();
            let least = schedule.least_loaded(start, |index| has_room(&endpoints[index]));
            least.map(|index| &endpoints[index])
        }
        (Balance::Source, Some(client)) => {
            schedule.walk(maglev::entry_of(client)).find(|one| has_room(one))
        }
        (Balance::First, _) => endpoints.iter().find(|one| has_room(one)),
        (Balance::Random | Balance::Source, _) if !endpoints.iter().any(has_room) => None,
        (Balance::Random, _) => return Choice::Open(chances(schedule)),
        (Balance::Source, None) => return Choice::Open(draws(schedule)),
    };
    chosen.map_or(Choice::Full, |endpoint| Choice::Endpoint(Arc::clone(endpoint)))
}

fn has_room(endpoint: &Arc<Endpoint>) -> bool {
    endpoint.shared.sessions.room() > 0
}

/// The part of the rotation that each endpoint has.
fn draws(schedule: &Schedule) -> Vec<f64> {
    let mut draws = vec![0.0; schedule.endpoints.len()];
    let one = 1.0 / schedule.rotation.len() as f64;
    for index in &schedule.rotation {
        draws[usize::from(*index)] += one;
    }
    draws
}

/// How likely each endpoint is the one with fewer sessions, by weight, of two that are drawn by
/// weight. A draw of two full ones counts for none.
fn chances(schedule: &Schedule) -> Vec<f64> {
    let draws = draws(schedule);
    let load = |index: usize| {
        if has_room(&schedule.endpoints[index]) { schedule.key(index) } else { NEVER }
    };
    let mut order: Vec<(u64, usize)> = (0..draws.len()).map(|index| (load(index), index)).collect();
    order.sort_unstable();
    let mut chances = vec![0.0; draws.len()];
    let mut heavier = 1.0;
    for group in order.chunk_by(|(a, _), (b, _)| a == b) {
        let of_group: f64 = group.iter().map(|(_, index)| draws[*index]).sum();
        heavier -= of_group;
        for (_, index) in group.iter().filter(|(load, _)| *load < NEVER) {
            // It is drawn with a heavier one, first or second; or with one of its own group, first.
            chances[*index] = draws[*index] * (2.0 * heavier + of_group);
        }
    }
    let all: f64 = chances.iter().sum();
    chances.iter().map(|chance| chance / all.max(f64::MIN_POSITIVE)).collect()
}
