//! What the control thread puts in force is seen by a worker that nothing else wakes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;
use evenkeel::config::Balance;
use evenkeel::proxy::worker::Worker;
use evenkeel::shared::counters::PerWorker;
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

/// For what takes microseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// So many that following a table takes a while: the while in which the next one comes.
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
    let shared = FrontendShared::new(None, 1);
    Arc::new(Frontend {
        settings: Arc::default(),
        backend: Arc::new(backend),
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

fn seam(table: Table) -> Arc<SharedState> {
    let (seen, nobody) = crossbeam::channel::unbounded();
    drop(nobody);
    let phase = PhaseCell::new(Instant::now());
    Arc::new(SharedState::new(table, phase, 10, seen, None, vec![Waker::new().unwrap()]))
}

fn worker(seam: &Arc<SharedState>) -> Worker {
    Worker {
        index: WorkerIndex(0),
        shared: Arc::clone(seam),
        sessions_max: 10,
        buffers: 8 << 20,
        pipes: PipeLimits { count: 64, size: 512 << 10 },
        core: None,
    }
}

/// Without sleeping: what is looked for happens within microseconds.
#[track_caller]
fn within_patience(mut so: impl FnMut() -> bool, what: impl Fn() -> String) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "{}", what());
        thread::yield_now();
    }
}

/// The time from a new table of so many listeners to the worker's word that it follows it, at the
/// least of a few tries: the machine may be busy.
fn time_to_follow(listeners: usize) -> Duration {
    let frontend = frontend();
    // Without sockets, so that there can be many: following a table is all that is timed.
    let listener = |port: usize| {
        let address = ([127, 0, 0, 1], u16::try_from(port).unwrap()).into();
        (Arc::new(Listener::new(address, Vec::new())), Arc::clone(&frontend))
    };
    let listeners: Vec<_> = (1..=listeners).map(listener).collect();
    let table = |version| Table { version, frontends: Vec::new(), listeners: listeners.clone() };
    let seam = seam(table(1));
    let _thread = worker(&seam).start().unwrap();
    let mut old = Vec::new();
    let try_once = |version| {
        let table = table(version);
        let begun = Instant::now();
        old.push(seam.publish(table));
        let followed = || seam.seen_by_all() == version;
        within_patience(followed, || format!("{version} is not followed"));
        begun.elapsed()
    };
    (2..12).map(try_once).min().unwrap()
}

#[test]
fn following_a_table_takes_time_in_proportion_to_its_listeners() {
    let (few, many) = (time_to_follow(2_000), time_to_follow(32_000));
    // 16 times as many: linear is about 16 times as long, quadratic 256 times.
    assert!(many < few * 64, "2,000 listeners: {few:?}, 32,000: {many:?}");
}

#[test]
fn of_two_changes_in_a_row_the_second_is_seen_however_close_they_are() {
    let listeners = listeners();
    let table = |version| Table { version, frontends: Vec::new(), listeners: listeners.clone() };
    let seam = seam(table(1));
    let thread = worker(&seam).start().unwrap();
    let mut old = Vec::new();
    // The second comes while the worker is about to look at the first: nobody knows when that is.
    for round in 1..=4000 {
        old.push(seam.publish(table(2 * round)));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_nanos(round * 20) {}
        old.push(seam.publish(table(2 * round + 1)));
        let last = || seam.seen_by_all() == 2 * round + 1;
        within_patience(last, || format!("round {round}: {} is seen", seam.seen_by_all()));
        old.clear();
    }
    seam.phase.store(Phase::Stopped);
    seam.wake();
    within_patience(|| thread.is_finished(), || "it does not end".to_owned());
    drop(seam.publish(table(10_000)));
    assert!(seam.seen_by_all() > 10_000, "a worker that has ended holds up no table");
}

/// The only server of the tests of orders.
const SERVER: ServerId = ServerId(7);

#[test]
fn an_order_to_a_worker_closes_one_session_or_those_of_a_server() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let shared = ServerShared {
        id: SERVER,
        backend: Arc::from("b"),
        name: Arc::from("a"),
        sessions: Limit::new(None),
        cells: PerWorker::new(1),
        queue: Arc::new(Queue::new(1, 0)),
    };
    let id = EndpointId { server: SERVER, number: 1 };
    let endpoint =
        Endpoint::new(id, server.local_addr().unwrap(), Arc::new(shared), Loads::default().take());
    let frontend = frontend_of(vec![Arc::new(endpoint)]);
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listening.local_addr().unwrap();
    let listener = Arc::new(Listener::new(address, vec![listening.into()]));
    let listeners = vec![(listener, Arc::clone(&frontend))];
    let seam = seam(Table { version: 1, frontends: vec![frontend], listeners });
    let thread = worker(&seam).start().unwrap();
    let open = || {
        let client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        (client, server.accept().unwrap())
    };
    let is_reset = |mut client: &TcpStream| {
        let error = client.read(&mut [0]).expect_err("no orderly end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    };

    let (first, _first_server) = open();
    // The first session of a worker is in its first slot, in the first generation.
    seam.order(WorkerIndex(0), WorkerOrder::Kill { slot: 0, generation: 0 });
    is_reset(&first);

    let (second, _second_server) = open();
    seam.order(WorkerIndex(0), WorkerOrder::Kill { slot: 0, generation: 0 });
    seam.order(WorkerIndex(0), WorkerOrder::CloseSessionsOf(ServerId(8)));
    second.set_nonblocking(true).unwrap();
    let error = (&second).read(&mut [0]).expect_err("orders for others do not touch it");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    second.set_nonblocking(false).unwrap();
    seam.order(WorkerIndex(0), WorkerOrder::CloseSessionsOf(SERVER));
    is_reset(&second);

    seam.phase.store(Phase::Stopped);
    seam.wake();
    within_patience(|| thread.is_finished(), || "it does not end".to_owned());
}
