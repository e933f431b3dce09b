//! An idle worker follows a new table, a new phase and orders at once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;
use evenkeel::config::Balance;
use evenkeel::proxy::worker::Worker;
use evenkeel::shared::counters::{BackendCells, PerWorker};
use evenkeel::shared::limit::Limit;
use evenkeel::shared::load::Loads;
use evenkeel::shared::orders::WorkerOrder;
use evenkeel::shared::phase::{Phase, PhaseCell};
use evenkeel::shared::queue::Queue;
use evenkeel::shared::schedule::Schedule;
use evenkeel::shared::server::{Endpoint, ServerShared};
use evenkeel::shared::state::SharedState;
use evenkeel::shared::table::{Backend, Frontend, FrontendShared, Listener, Table};
use evenkeel::sys::pipe::PipeLimits;
use evenkeel::sys::waker::Waker;
use evenkeel::terms::{EndpointId, ServerId, WorkerIndex};

/// For conditions that take microseconds on an idle machine: this one may be busy.
const TIMEOUT: Duration = Duration::from_secs(20);

/// So many that a worker needs a while to follow a table, in which the next one is published.
const LISTENERS: usize = 100;

fn frontend() -> Arc<Frontend> {
    frontend_of(Vec::new())
}

fn frontend_of(endpoints: Vec<Arc<Endpoint>>) -> Arc<Frontend> {
    let backend = Backend {
        settings: Arc::default(),
        schedule: Schedule::new(Balance::RoundRobin, vec![(endpoints, 100)]),
        turn: Arc::new(CachePadded::new(AtomicUsize::new(0))),
        queue: Arc::new(Queue::new(1, 0)),
        turn_offset: 0,
    };
    let shared = FrontendShared::new("f".into(), None, 1);
    Arc::new(Frontend {
        settings: Arc::default(),
        backend: Some(Arc::new(backend)),
        routes: None,
        shared: Arc::new(shared),
    })
}

fn listeners() -> Vec<(Arc<Listener>, Arc<Frontend>)> {
    let frontend = frontend();
    let listener = |_| {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (Arc::new(Listener::new(address, vec![socket.into()])), Arc::clone(&frontend))
    };
    (0..LISTENERS).map(listener).collect()
}

fn shared_state(table: Table) -> Arc<SharedState> {
    let (events, receiver) = crossbeam::channel::unbounded();
    drop(receiver);
    let phase = PhaseCell::new(Instant::now());
    Arc::new(SharedState::new(table, phase, 10, events, None, vec![Waker::new().unwrap()]))
}

fn worker(shared: &Arc<SharedState>) -> Worker {
    Worker {
        index: WorkerIndex(0),
        shared: Arc::clone(shared),
        sessions_max: 10,
        buffers: 8 << 20,
        pipes: PipeLimits { count: 64, size: 512 << 10 },
        core: None,
    }
}

/// Waits until `condition` holds, without sleeping: that takes microseconds.
#[track_caller]
fn until(mut condition: impl FnMut() -> bool, what: impl Fn() -> String) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < TIMEOUT, "{}", what());
        thread::yield_now();
    }
}

/// The time from the publication of a table with so many listeners until the worker has reported
/// that it follows it: the shortest of ten, since the machine may be busy.
fn time_to_follow(listeners: usize) -> Duration {
    let frontend = frontend();
    // Without sockets, so that there can be many: only following the table is measured.
    let listener = |port: usize| {
        let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()));
        (Arc::new(Listener::new(address, Vec::new())), Arc::clone(&frontend))
    };
    let listeners: Vec<_> = (1..=listeners).map(listener).collect();
    let table = |version| Table {
        version,
        frontends: Vec::new(),
        listeners: listeners.clone(),
        ..Table::default()
    };
    let shared = shared_state(table(1));
    let _thread = worker(&shared).start().unwrap();
    let mut old = Vec::new();
    let measure = |version| {
        let table = table(version);
        let begun = Instant::now();
        old.push(shared.publish(table));
        let followed = || shared.seen_by_all() == version;
        until(followed, || format!("{version} is not followed"));
        begun.elapsed()
    };
    (2..12).map(measure).min().unwrap()
}

#[test]
fn following_a_table_takes_time_in_proportion_to_its_listeners() {
    let (few, many) = (time_to_follow(2_000), time_to_follow(32_000));
    // 16 times as many: linear is about 16 times as long, quadratic 256 times.
    assert!(many < few * 64, "2,000 listeners: {few:?}, 32,000: {many:?}");
}

#[test]
fn the_second_of_two_tables_is_followed_however_soon_it_comes() {
    let listeners = listeners();
    let table = |version| Table {
        version,
        frontends: Vec::new(),
        listeners: listeners.clone(),
        ..Table::default()
    };
    let shared = shared_state(table(1));
    let thread = worker(&shared).start().unwrap();
    let mut old = Vec::new();
    // Tries different pauses, since the time at which the worker loads the first table is unknown.
    for round in 1..=4000 {
        old.push(shared.publish(table(2 * round)));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_nanos(round * 20) {}
        old.push(shared.publish(table(2 * round + 1)));
        let last = || shared.seen_by_all() == 2 * round + 1;
        until(last, || format!("round {round}: the worker follows {}", shared.seen_by_all()));
        old.clear();
    }
    shared.phase.store(Phase::Stopped);
    shared.wake();
    until(|| thread.is_finished(), || "the worker does not end".to_owned());
    drop(shared.publish(table(10_000)));
    let seen = shared.seen_by_all();
    assert!(seen > 10_000, "{seen}: a worker that has ended must not delay the release of tables");
}

/// The only server of the test of orders.
const SERVER: ServerId = ServerId(7);

#[test]
fn an_order_to_a_worker_closes_one_session_or_those_of_a_server() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let server_shared = ServerShared {
        id: SERVER,
        backend: Arc::from("b"),
        name: Arc::from("a"),
        sessions: Limit::new(None),
        cells: PerWorker::new(1),
        backend_cells: Arc::new(BackendCells::new(1)),
        queue: Arc::new(Queue::new(1, 0)),
    };
    let id = EndpointId { server: SERVER, number: 1 };
    let load = Loads::default().take();
    let endpoint = Endpoint::new(id, server.local_addr().unwrap(), Arc::new(server_shared), load);
    let frontend = frontend_of(vec![Arc::new(endpoint)]);
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listening.local_addr().unwrap();
    let listener = Arc::new(Listener::new(address, vec![listening.into()]));
    let listeners = vec![(listener, Arc::clone(&frontend))];
    let shared = shared_state(Table {
        version: 1,
        frontends: vec![frontend],
        listeners,
        ..Table::default()
    });
    let thread = worker(&shared).start().unwrap();
    let open = || {
        let client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(TIMEOUT)).unwrap();
        (client, server.accept().unwrap())
    };
    let is_reset = |mut client: &TcpStream| {
        let error = client.read(&mut [0]).expect_err("no orderly end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    };

    let (first, _first_server) = open();
    // The first session of a worker is in its first slot, in the first generation.
    shared.order(WorkerIndex(0), WorkerOrder::Kill { slot: 0, generation: 0 });
    is_reset(&first);

    let (second, _second_server) = open();
    shared.order(WorkerIndex(0), WorkerOrder::Kill { slot: 0, generation: 0 });
    shared.order(WorkerIndex(0), WorkerOrder::CloseSessionsOf(ServerId(8)));
    second.set_nonblocking(true).unwrap();
    let error = (&second).read(&mut [0]).expect_err("orders for others do not close it");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    second.set_nonblocking(false).unwrap();
    shared.order(WorkerIndex(0), WorkerOrder::CloseSessionsOf(SERVER));
    is_reset(&second);

    shared.phase.store(Phase::Stopped);
    shared.wake();
    until(|| thread.is_finished(), || "the worker does not end".to_owned());
}
