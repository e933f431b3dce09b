//! Each algorithm on a backend without sockets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

use crate::config::{BackendSettings, Balance};
use crate::proxy::route::{ServerPermit, choose};
use crate::proxy::worker_handle::WorkerHandle;
use crate::shared::counters::{BackendCells, PerWorker};
use crate::shared::limit::Limit;
use crate::shared::load::Loads;
use crate::shared::phase::PhaseCell;
use crate::shared::queue::Queue;
use crate::shared::schedule::Schedule;
use crate::shared::server::{Endpoint, ServerShared};
use crate::shared::state::SharedState;
use crate::shared::table::{Backend, Table};
use crate::sys::waker::Waker;
use crate::terms::{EndpointId, ServerId, WorkerIndex};

fn worker() -> Rc<WorkerHandle> {
    let table = Table { version: 1, ..Table::default() };
    let (events, _) = crossbeam::channel::unbounded();
    let wakers = vec![Waker::new().unwrap()];
    let shared = SharedState::new(table, PhaseCell::new(Instant::now()), 9, events, None, wakers);
    Rc::new(WorkerHandle::new(Arc::new(shared), WorkerIndex(0)))
}

/// Servers 0, 1, ... with these weights and limits of sessions.
fn backend(balance: Balance, servers: &[(u32, Option<u32>)]) -> Backend {
    let mut loads = Loads::default();
    let mut share = |(number, (weight, max)): (u32, &(u32, Option<u32>))| {
        let id = ServerId(number);
        let shared = ServerShared {
            id,
            backend: Arc::from("b"),
            name: format!("s{number}").into(),
            sessions: Limit::new(*max),
            cells: PerWorker::new(1),
            backend_cells: Arc::new(BackendCells::new(1)),
            queue: Arc::new(Queue::new(1, 0)),
        };
        let address = SocketAddr::from(([192, 0, 2, number.to_le_bytes()[0]], 80));
        let id = EndpointId { server: id, number };
        let endpoint = Endpoint::new(id, address, Arc::new(shared), loads.take());
        (vec![Arc::new(endpoint)], *weight)
    };
    let shares = (0..).zip(servers).map(&mut share).collect();
    Backend {
        settings: Arc::new(BackendSettings { balance, ..BackendSettings::default() }),
        schedule: Schedule::new(balance, shares),
        turn: Arc::default(),
        queue: Arc::new(Queue::new(1, 0)),
        turn_offset: 0,
    }
}

/// A backend and the sessions that it has.
struct Scene {
    backend: Backend,
    worker: Rc<WorkerHandle>,
    permits: Vec<ServerPermit>,
}

impl Scene {
    fn new(balance: Balance, servers: &[(u32, Option<u32>)]) -> Self {
        Self { backend: backend(balance, servers), worker: worker(), permits: Vec::new() }
    }

    /// Begins sessions of one client after the other; their servers.
    fn begin(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| self.begin_for([10, 0, 0, 1].into()).unwrap()).collect()
    }

    fn begin_for(&mut self, client: IpAddr) -> Option<u32> {
        let permit = choose(&self.backend, || Some(client), &[], &self.worker).ok()?;
        let number = permit.endpoint().id.number;
        self.permits.push(permit);
        Some(number)
    }

    /// Ends a session of this server.
    fn end(&mut self, server: u32) {
        let held = |permit: &ServerPermit| permit.endpoint().id.number == server;
        drop(self.permits.remove(self.permits.iter().position(held).unwrap()));
    }

    /// Sessions of each server.
    fn loads(&self) -> Vec<u32> {
        self.backend.schedule.endpoints.iter().map(|endpoint| endpoint.load.read()).collect()
    }
}

const EVEN: (u32, Option<u32>) = (100, None);

#[test]
fn the_turn_of_a_full_server_goes_to_the_next_in_the_rotation() {
    // Weights 3, 1, 2: without server 0, server 2 gets twice what server 1 gets.
    let servers = [(300, Some(0)), (100, None), (200, None)];
    let mut scene = Scene::new(Balance::RoundRobin, &servers);
    scene.begin(600);
    assert_eq!(scene.loads()[0], 0);
    let share = f64::from(scene.loads()[2]) / 600.0;
    assert!((0.6..0.75).contains(&share), "{:?}", scene.loads());
}

#[test]
fn leastconn_chooses_the_server_with_the_fewest_sessions_by_weight() {
    let mut scene = Scene::new(Balance::LeastConn, &[EVEN, EVEN, (200, None)]);
    scene.begin(8);
    assert_eq!(scene.loads(), [2, 2, 4]);
    scene.end(1);
    assert_eq!(scene.begin(1), [1]);
    scene.end(2);
    scene.end(2);
    assert_eq!(scene.begin(2), [2, 2]);
}

#[test]
fn leastconn_takes_turns_among_equals() {
    let mut scene = Scene::new(Balance::LeastConn, &[EVEN; 3]);
    let mut servers = Vec::new();
    for _ in 0..6 {
        let server = scene.begin(1)[0];
        scene.end(server);
        servers.push(server);
    }
    assert_eq!(servers, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn leastconn_takes_turns_among_equals_while_others_are_busy() {
    for count in [3, 100] {
        let mut scene = Scene::new(Balance::LeastConn, &vec![EVEN; count]);
        scene.begin(count);
        // Servers 0 and 1 have no session: the next ones alternate.
        scene.end(0);
        scene.end(1);
        let mut servers = Vec::new();
        for _ in 0..6 {
            let server = scene.begin(1)[0];
            scene.end(server);
            servers.push(server);
        }
        assert_eq!(servers, [0, 1, 0, 1, 0, 1], "of {count} servers");
    }
}

#[test]
fn leastconn_among_many_servers_chooses_as_among_few() {
    let weights = [100, 200, 300, 50, 1000];
    let servers: Vec<_> = (0..150).map(|number| (weights[number % 5], None)).collect();
    let mut scene = Scene::new(Balance::LeastConn, &servers);
    for step in 0..3000 {
        let before = scene.loads();
        let chosen = scene.begin(1)[0] as usize;
        let relative = |server: usize| f64::from(before[server]) / f64::from(servers[server].0);
        let least = (0..servers.len()).map(relative).fold(f64::MAX, f64::min);
        assert!(relative(chosen) <= least, "step {step}: {chosen}");
        if step % 3 == 2 {
            let ends = scene.permits[step * 7 % scene.permits.len()].endpoint().id.number;
            scene.end(ends);
        }
    }
}

#[test]
fn leastconn_passes_over_full_servers_among_many() {
    let limit =
        |number: usize| number.is_multiple_of(2).then(|| u32::try_from(number / 20).unwrap());
    let servers: Vec<_> = (0..100).map(|number| (100, limit(number))).collect();
    let mut scene = Scene::new(Balance::LeastConn, &servers);
    scene.begin(1000);
    let loads = scene.loads();
    let unlimited = || loads.iter().skip(1).step_by(2);
    assert!(unlimited().max().unwrap() - unlimited().min().unwrap() <= 1, "{loads:?}");
    for number in (0..100).step_by(2) {
        assert_eq!(Some(loads[number]), limit(number), "server {number}");
    }
    scene.end(42);
    assert_eq!(scene.begin(1), [42]);
}

#[test]
fn a_new_table_keeps_the_loads_and_knows_other_weights_and_servers() {
    let mut scene = Scene::new(Balance::LeastConn, &[EVEN; 100]);
    scene.begin(300);
    assert!(scene.loads().iter().all(|load| *load == 3));
    // Server 7 goes down, and server 9 gets twice its weight.
    let shares = |without: u32| {
        let endpoints = scene.backend.schedule.endpoints.iter().cloned();
        let stay = endpoints.filter(|one| one.id.number != without);
        stay.map(|one| (vec![Arc::clone(&one)], if one.id.number == 9 { 200 } else { 100 }))
            .collect::<Vec<_>>()
    };
    let (all, fewer) = (shares(u32::MAX), shares(7));
    let old = std::mem::take(&mut scene.backend.schedule);
    scene.backend.schedule = Schedule::new(Balance::LeastConn, fewer);
    assert_eq!(scene.begin(3), [9, 9, 9], "3 of 100 are as many as 6 of 200");
    scene.end(7);
    scene.end(7);
    scene.end(8);
    assert_eq!(scene.begin(1), [8], "server 7 is not in the table");
    // A worker may still have the table before.
    let new = std::mem::replace(&mut scene.backend.schedule, old);
    scene.end(8);
    assert_eq!(scene.begin(1), [8]);
    drop(new);
    scene.backend.schedule = Schedule::new(Balance::LeastConn, all);
    assert_eq!(scene.begin(2), [7, 7], "what it had is still counted");
}

#[test]
fn no_server_exceeds_its_limit_and_all_loads_balance_while_workers_choose_at_once() {
    let servers: Vec<_> = (0..100).map(|number| (100, (number < 50).then_some(3))).collect();
    let backend = backend(Balance::LeastConn, &servers);
    let endpoints = &backend.schedule.endpoints;
    let loads = || endpoints.iter().map(|endpoint| endpoint.load.read()).collect::<Vec<_>>();
    let (held, most, pause) = (AtomicUsize::new(0), AtomicU32::new(0), Barrier::new(5));
    let run = |seed: usize| {
        let (worker, mut permits) = (worker(), Vec::new());
        for step in 0..5_000 {
            if step % 5 < 3 && permits.len() < 200 {
                permits.extend(choose(&backend, || None, &[], &worker).ok());
            } else if !permits.is_empty() {
                drop(permits.swap_remove(step * (seed + 7) % permits.len()));
            }
            let limited = endpoints[..50].iter();
            let active = limited.map(|endpoint| endpoint.shared.sessions.active()).max();
            most.fetch_max(active.unwrap(), Ordering::Relaxed);
        }
        held.fetch_add(permits.len(), Ordering::Relaxed);
        pause.wait();
        pause.wait();
    };
    let at_pause = thread::scope(|scope| {
        for seed in 0..4 {
            let run = &run;
            scope.spawn(move || run(seed));
        }
        pause.wait();
        let loads = loads();
        pause.wait();
        loads
    });
    assert_eq!(most.load(Ordering::Relaxed), 3, "sessions of a server with a limit");
    assert_eq!(at_pause.iter().sum::<u32>() as usize, held.load(Ordering::Relaxed));
    assert!(loads().iter().all(|load| *load == 0));
}

#[test]
fn leastconn_passes_over_full_servers() {
    let limits = [(100, Some(1)), (100, Some(2)), (100, Some(9)), (100, Some(0))];
    let mut scene = Scene::new(Balance::LeastConn, &limits);
    scene.begin(12);
    assert_eq!(scene.loads(), [1, 2, 9, 0]);
    assert_eq!(scene.begin_for([10, 0, 0, 1].into()), None, "every server is full");
    scene.end(2);
    assert_eq!(scene.begin(1), [2]);
}

#[test]
fn random_draws_by_weight_and_takes_the_one_with_fewer_sessions() {
    let mut scene = Scene::new(Balance::Random, &[EVEN, EVEN, (200, None), EVEN]);
    scene.begin(5000);
    // One draw alone would be 1,000 each with a deviation of 28; two choices are far closer.
    for (server, expected) in [(0, 1000), (1, 1000), (2, 2000), (3, 1000)] {
        let load = scene.loads()[server];
        assert!(load.abs_diff(expected) < 60, "{server}: {load}");
    }
    let mut full = Scene::new(Balance::Random, &[(100, Some(1)), (100, Some(2))]);
    full.begin(3);
    assert_eq!(full.loads(), [1, 2]);
    assert_eq!(full.begin_for([10, 0, 0, 1].into()), None);
}

#[test]
fn source_gives_a_client_its_server_again() {
    let mut scene = Scene::new(Balance::Source, &[EVEN; 10]);
    let clients = (0..1000).map(|n| IpAddr::from(Ipv4Addr::from_bits(0x0a01_0000 + n)));
    let first: Vec<_> = clients.clone().map(|client| scene.begin_for(client).unwrap()).collect();
    let second: Vec<_> = clients.clone().map(|client| scene.begin_for(client).unwrap()).collect();
    assert_eq!(first, second);
    assert!(scene.loads().iter().all(|load| (120..280).contains(load)), "{:?}", scene.loads());
}

#[test]
fn source_sends_the_clients_of_a_full_server_elsewhere_and_the_same_way_each_time() {
    let mut servers = [EVEN; 4];
    servers[2].1 = Some(0);
    let mut scene = Scene::new(Balance::Source, &servers);
    for n in 0..200 {
        let client = IpAddr::from(Ipv4Addr::from_bits(0x0a01_0000 + n));
        let server = scene.begin_for(client).unwrap();
        assert_ne!(server, 2);
        assert_eq!(scene.begin_for(client), Some(server));
    }
}

#[test]
fn first_fills_servers_in_the_order_of_the_file() {
    let limits = [(100, Some(2)), (900, Some(1)), EVEN];
    let mut scene = Scene::new(Balance::First, &limits);
    assert_eq!(scene.begin(5), [0, 0, 1, 2, 2]);
    scene.end(0);
    scene.end(1);
    assert_eq!(scene.begin(3), [0, 1, 2]);
}

#[test]
fn a_retry_goes_to_another_server_with_every_algorithm() {
    let worker = worker();
    for balance in
        [Balance::RoundRobin, Balance::LeastConn, Balance::Random, Balance::Source, Balance::First]
    {
        let backend = backend(balance, &[EVEN; 3]);
        let mut tried = Vec::new();
        for _ in 0..3 {
            let client = || Some([10, 0, 0, 1].into());
            let id = choose(&backend, client, &tried, &worker).unwrap().endpoint().id;
            assert!(!tried.contains(&id), "{balance:?}: {id:?} after {tried:?}");
            tried.push(id);
        }
        let client = || Some([10, 0, 0, 1].into());
        assert!(choose(&backend, client, &tried, &worker).is_ok(), "{balance:?}: once more");
    }
}
