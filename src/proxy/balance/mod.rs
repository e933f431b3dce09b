//! The balancing algorithms: each offers the endpoints of a backend in the order in which they are
//! to be tried for one session. None takes a lock or allocates.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::Balance;
use crate::proxy::worker_handle::WorkerHandle;
use crate::shared::maglev;
use crate::shared::server::Endpoint;
use crate::shared::table::Backend;

mod first;
mod leastconn;
mod random;
#[cfg(test)]
mod tests;

/// Where a session begins in the order of its backend: a turn of the rotation, a random number, or
/// the entry of a hash table. The schedule is not empty.
pub(super) fn position(
    backend: &Backend,
    client: impl FnOnce() -> Option<IpAddr>,
    worker: &WorkerHandle,
) -> usize {
    match backend.settings.balance {
        Balance::RoundRobin | Balance::LeastConn => backend.next_turn(),
        Balance::Random => worker.random(backend.schedule.rotation.len()),
        // A client without an address is one of a unix socket, or has left already.
        Balance::Source => client().map_or_else(|| backend.next_turn(), maglev::entry_of),
        Balance::First => 0,
    }
}

/// Offers endpoints to `take` until it takes one.
pub(super) fn offer<T>(
    backend: &Backend,
    position: usize,
    worker: &WorkerHandle,
    mut take: impl FnMut(&Arc<Endpoint>) -> Option<T>,
) -> Option<T> {
    let schedule = &backend.schedule;
    match backend.settings.balance {
        Balance::RoundRobin | Balance::Source => schedule.walk(position).find_map(take),
        Balance::LeastConn => leastconn::offer(backend, position, &mut take),
        Balance::Random => random::order(schedule, position, worker).find_map(take),
        Balance::First => first::order(schedule).find_map(take),
    }
}
