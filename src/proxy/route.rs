//! Routing: from the frontend to its backend, and to one of the backend's servers. Lock-free, and
//! never above a server's `sessions_max`.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::proxy::balance;
use crate::proxy::state::PickError;
use crate::proxy::worker_handle::WorkerHandle;
use crate::shared::server::Endpoint;
use crate::shared::table::Backend;
use crate::terms::EndpointId;

/// A session of an endpoint, counted there and at its server as long as it lives.
#[derive(Debug)]
pub struct ServerPermit {
    endpoint: Arc<Endpoint>,
    worker: Rc<WorkerHandle>,
}

impl ServerPermit {
    /// Counts a session of `endpoint`, unless its server is full.
    fn new(endpoint: &Arc<Endpoint>, worker: &Rc<WorkerHandle>) -> Option<Self> {
        if !endpoint.shared.sessions.try_raise() {
            return None;
        }
        endpoint.load.raise();
        endpoint.shared.cells.of(worker.index).active.add(1);
        Some(Self { endpoint: Arc::clone(endpoint), worker: Rc::clone(worker) })
    }

    /// The endpoint.
    #[must_use]
    pub const fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for ServerPermit {
    fn drop(&mut self) {
        self.endpoint.shared.cells.of(self.worker.index).active.subtract(1);
        self.endpoint.load.lower();
        self.endpoint.shared.sessions.lower();
        self.worker.shared.tell_first(&self.endpoint.shared.queue);
    }
}

/// Chooses an endpoint whose server has room for a session of `client`. A retry prefers, among
/// those, the ones that are not among `tried`, whose last probe passed, and of another server, in
/// this order.
///
/// # Errors
/// No endpoint can be chosen, or every server is at its `sessions_max`.
pub fn choose(
    backend: &Backend,
    client: impl FnOnce() -> Option<IpAddr>,
    tried: &[EndpointId],
    worker: &Rc<WorkerHandle>,
) -> Result<ServerPermit, PickError> {
    if backend.schedule.is_empty() {
        return Err(PickError::NoServer);
    }
    let position = balance::position(backend, client, worker);
    let mut ranks = 0..=if tried.is_empty() { 0 } else { LAST_RANK };
    ranks
        .find_map(|wanted| {
            balance::offer(backend, position, worker, |endpoint| {
                let suits = rank(endpoint, tried) == wanted;
                if suits { ServerPermit::new(endpoint, worker) } else { None }
            })
        })
        .ok_or(PickError::AllFull)
}

/// The rank of an endpoint that was tried.
const LAST_RANK: u8 = 4;

/// How well an endpoint suits a session that has `tried` these; 0 is best.
fn rank(endpoint: &Endpoint, tried: &[EndpointId]) -> u8 {
    if tried.is_empty() {
        return 0;
    }
    if tried.contains(&endpoint.id) {
        return LAST_RANK;
    }
    let same_server = tried.iter().any(|tried| tried.server == endpoint.id.server);
    2 * u8::from(!endpoint.probe_passed()) + u8::from(same_server)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::AtomicUsize;
    use std::time::Instant;

    use crossbeam::utils::CachePadded;

    use super::*;
    use crate::config::Balance;
    use crate::shared::counters::{BackendCells, PerWorker};
    use crate::shared::limit::Limit;
    use crate::shared::load::Loads;
    use crate::shared::phase::PhaseCell;
    use crate::shared::queue::Queue;
    use crate::shared::schedule::Schedule;
    use crate::shared::server::ServerShared;
    use crate::shared::state::SharedState;
    use crate::shared::table::Table;
    use crate::sys::waker::Waker;
    use crate::terms::{ServerId, WorkerIndex};

    fn worker() -> Rc<WorkerHandle> {
        let table = Table { version: 1, ..Table::default() };
        let (seen, _) = crossbeam::channel::unbounded();
        let wakers = vec![Waker::new().unwrap()];
        let shared =
            SharedState::new(table, PhaseCell::new(Instant::now()), 100, seen, None, wakers);
        Rc::new(WorkerHandle::new(Arc::new(shared), WorkerIndex(0)))
    }

    fn backend(servers: &[(u32, u32, Option<u32>)]) -> Backend {
        let share = |(number, weight, max): &(u32, u32, Option<u32>)| {
            let shared = ServerShared {
                id: ServerId(*number),
                backend: Arc::from("b"),
                name: Arc::from("s"),
                sessions: Limit::new(*max),
                cells: PerWorker::new(1),
                backend_cells: Arc::new(BackendCells::new(1)),
                queue: Arc::new(Queue::new(1, 0)),
            };
            let address = SocketAddr::from(([127, 0, 0, 1], 1));
            let load = Loads::default().take();
            let endpoint = Endpoint::new(id(*number), address, Arc::new(shared), load);
            (vec![Arc::new(endpoint)], *weight)
        };
        Backend {
            settings: Arc::default(),
            schedule: Schedule::new(Balance::RoundRobin, servers.iter().map(share).collect()),
            turn: Arc::new(CachePadded::new(AtomicUsize::new(0))),
            queue: Arc::new(Queue::new(1, 0)),
            turn_offset: 0,
        }
    }

    /// The only endpoint of the server of that number.
    const fn id(number: u32) -> EndpointId {
        EndpointId { server: ServerId(number), number }
    }

    fn ids(backend: &Backend, tried: &[u32], count: usize) -> Vec<u32> {
        let worker = worker();
        let tried: Vec<EndpointId> = tried.iter().copied().map(id).collect();
        (0..count)
            .map(|_| choose(backend, || None, &tried, &worker).unwrap().endpoint().id.number)
            .collect()
    }

    #[test]
    fn servers_take_turns_by_weight() {
        let backend = backend(&[(1, 200, None), (2, 100, None)]);
        assert_eq!(ids(&backend, &[], 6), [1, 2, 1, 1, 2, 1]);
    }

    #[test]
    fn a_tried_server_is_taken_again_only_where_there_is_no_other() {
        let two = backend(&[(1, 100, None), (2, 100, None)]);
        assert_eq!(ids(&two, &[1], 3), [2, 2, 2]);
        assert_eq!(ids(&backend(&[(1, 100, None)]), &[1], 2), [1, 1]);
    }

    #[test]
    fn a_full_server_is_passed_over_until_a_place_is_left() {
        let backend = backend(&[(1, 100, Some(1)), (2, 100, Some(1))]);
        let worker = worker();
        let first = choose(&backend, || None, &[], &worker).unwrap();
        let second = choose(&backend, || None, &[], &worker).unwrap();
        assert_ne!(first.endpoint().id, second.endpoint().id);
        assert_eq!(choose(&backend, || None, &[], &worker).unwrap_err(), PickError::AllFull);
        let id = first.endpoint().id;
        drop(first);
        assert_eq!(choose(&backend, || None, &[], &worker).unwrap().endpoint().id, id);
    }

    #[test]
    fn without_servers_none_is_chosen() {
        let empty = backend(&[(1, 0, None)]);
        assert_eq!(choose(&empty, || None, &[], &worker()).unwrap_err(), PickError::NoServer);
    }

    #[test]
    fn a_retry_prefers_an_endpoint_whose_last_probe_passed_and_then_another_server() {
        let backend = backend(&[(1, 100, None), (2, 100, None), (3, 100, None)]);
        assert_eq!(ids(&backend, &[], 3), [1, 2, 3], "a first attempt does not ask");
        backend.schedule.endpoints[2].set_probe_passed(true);
        assert_eq!(ids(&backend, &[1], 3), [3, 3, 3]);
        assert_eq!(ids(&backend, &[1, 3], 3), [2, 2, 2]);
        let server = &backend.schedule.endpoints[0].shared;
        let number = |number| EndpointId { server: server.id, number };
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let endpoint = |n| {
            let load = Loads::default().take();
            Arc::new(Endpoint::new(number(n), address, Arc::clone(server), load))
        };
        let other = Arc::clone(&backend.schedule.endpoints[1]);
        let shares = vec![(vec![endpoint(10), endpoint(11)], 100), (vec![other], 100)];
        let backend = Backend { schedule: Schedule::new(Balance::RoundRobin, shares), ..backend };
        for _ in 0..4 {
            let permit = choose(&backend, || None, &[number(10)], &worker()).unwrap();
            assert_eq!(permit.endpoint().id, id(2), "another server");
            let permit = choose(&backend, || None, &[number(10), id(2)], &worker()).unwrap();
            assert_eq!(permit.endpoint().id, number(11), "another address of the server");
        }
    }

    #[test]
    fn a_session_is_counted_at_the_endpoint_and_at_its_server() {
        let backend = backend(&[(1, 100, Some(1))]);
        let endpoint = &backend.schedule.endpoints[0];
        let permit = choose(&backend, || None, &[], &worker()).unwrap();
        assert_eq!((endpoint.load.read(), endpoint.shared.sessions.active()), (1, 1));
        drop(permit);
        assert_eq!((endpoint.load.read(), endpoint.shared.sessions.active()), (0, 0));
    }
}
