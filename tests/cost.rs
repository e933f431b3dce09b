//! Costs: the allocations of a session, and the system calls of a request.

#![expect(unsafe_code, reason = "the trait of allocators is unsafe")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(dead_code, reason = "other suites use the rest")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::rc::Rc;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use common::balancer::{PROGRAM, write_config};
use common::client::{connect, exchange, read_to_end, shut_down};
use common::{Balancer, Config, Server, TestEnv, skip, until};
use crossbeam::utils::CachePadded;
use evenkeel::config::{BackendSettings, Balance};
use evenkeel::proxy::route::choose;
use evenkeel::proxy::state::PickError;
use evenkeel::proxy::worker::Worker;
use evenkeel::proxy::worker_handle::WorkerHandle;
use evenkeel::shared::counters::{BackendCells, PerWorker};
use evenkeel::shared::limit::Limit;
use evenkeel::shared::load::Loads;
use evenkeel::shared::phase::{Phase, PhaseCell};
use evenkeel::shared::queue::Queue;
use evenkeel::shared::schedule::Schedule;
use evenkeel::shared::server::{Endpoint, ServerShared};
use evenkeel::shared::state::SharedState;
use evenkeel::shared::table::{Backend, Frontend, FrontendShared, Listener, Table};
use evenkeel::sys::kernel_version::KernelVersion;
use evenkeel::sys::pipe::PipeLimits;
use evenkeel::sys::thread::{allowed_cores, pin};
use evenkeel::sys::waker::Waker;
use evenkeel::terms::{EndpointId, ServerId, WorkerIndex};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, gettid};

/// An allocator that counts the allocations of one thread.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// The id of the thread that is counted.
static COUNTED: AtomicI32 = AtomicI32::new(0);
/// Held by the test that counts.
static COUNTING: Mutex<()> = Mutex::new(());

thread_local! {
    /// The id of this thread; 0 until it is known.
    static THREAD: Cell<i32> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system allocator, and counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller upholds the contract of the system allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract of the system allocator.
        unsafe { System.dealloc(pointer, layout) };
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller upholds the contract of the system allocator.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    let own = THREAD.try_with(|thread| {
        if thread.get() == 0 {
            thread.set(gettid().as_raw());
        }
        thread.get()
    });
    if own.is_ok_and(|own| own == COUNTED.load(Ordering::Relaxed)) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

/// The id of the thread of this process with this name.
fn thread_named(name: &str) -> i32 {
    let threads = fs::read_dir("/proc/self/task").unwrap().map(Result::unwrap);
    let named = threads.filter(|thread| {
        fs::read_to_string(thread.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    });
    let numbers = named.map(|thread| thread.file_name().to_str().unwrap().parse().unwrap());
    numbers.last().expect("there is such a thread")
}

/// A backend with a server at each of `addresses`, each for so many sessions.
fn backend(balance: Balance, addresses: &[SocketAddr], sessions_max: Option<u32>) -> Backend {
    let mut loads = Loads::default();
    let shares = (1..).zip(addresses).map(|(number, address)| {
        let server_shared = ServerShared {
            id: ServerId(number),
            backend: Arc::from("b"),
            name: Arc::from("a"),
            sessions: Limit::new(sessions_max),
            cells: PerWorker::new(1),
            backend_cells: Arc::new(BackendCells::new(1)),
            queue: Arc::new(Queue::new(1, 0)),
        };
        let id = EndpointId { server: server_shared.id, number };
        let endpoint = Endpoint::new(id, *address, Arc::new(server_shared), loads.take());
        (vec![Arc::new(endpoint)], 100)
    });
    Backend {
        settings: Arc::new(BackendSettings { balance, ..BackendSettings::default() }),
        schedule: Schedule::new(balance, shares.collect()),
        turn: Arc::new(CachePadded::new(AtomicUsize::new(0))),
        queue: Arc::new(Queue::new(1, 0)),
        turn_offset: 0,
    }
}

fn shared_state(table: Table) -> Arc<SharedState> {
    let phase = PhaseCell::new(Instant::now());
    let (events, receiver) = crossbeam::channel::unbounded();
    drop(receiver);
    let wakers = vec![Waker::new().unwrap()];
    Arc::new(SharedState::new(table, phase, 1000, events, None, wakers))
}

/// A worker in this process, with one server.
struct TestWorker {
    shared: Arc<SharedState>,
    address: SocketAddr,
    thread: Option<thread::JoinHandle<()>>,
}

impl TestWorker {
    fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let frontend = Frontend {
            settings: Arc::default(),
            backend: Some(Arc::new(backend(Balance::RoundRobin, &[server], None))),
            routes: None,
            shared: Arc::new(FrontendShared::new("f".into(), None, 1)),
        };
        let frontend = Arc::new(frontend);
        let listener = Arc::new(Listener::new(address, vec![listener.into()]));
        let listeners = vec![(listener, Arc::clone(&frontend))];
        let table = Table { version: 1, frontends: vec![frontend], listeners, ..Table::default() };
        let shared = shared_state(table);
        let worker = Worker {
            index: WorkerIndex(0),
            shared: Arc::clone(&shared),
            sessions_max: 1000,
            buffers: 16 << 20,
            pipes: PipeLimits { count: 64, size: 512 << 10 },
            core: None,
        };
        let thread = Some(worker.start().unwrap());
        Self { shared, address, thread }
    }

    /// Waits until every session has ended.
    fn until_idle(&self) {
        until("every session has ended", || self.shared.sessions.active() == 0);
    }
}

impl Drop for TestWorker {
    fn drop(&mut self) {
        self.shared.phase.store(Phase::Stopped);
        self.shared.wake();
        drop(self.thread.take().map(thread::JoinHandle::join));
    }
}

/// Counts the allocations of `thread` from now on, until the guard is dropped.
fn count_thread(thread: i32) -> impl Drop {
    let guard = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    COUNTED.store(thread, Ordering::Relaxed);
    guard
}

#[test]
fn a_session_allocates_at_most_twice_and_not_while_it_relays() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let worker = TestWorker::start(server.address);
    let _counting = count_thread(thread_named("worker-0"));
    let run_session = || {
        let client = connect(worker.address);
        assert_eq!(exchange(&client, b"hello"), b"hello");
        shut_down(&client);
        read_to_end(&client);
    };
    // Tables and lists grow to their final size once.
    (0..50).for_each(|_| run_session());
    let steady = connect(worker.address);
    (0..50).for_each(|_| drop(exchange(&steady, b"hello")));

    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..1000 {
        assert_eq!(exchange(&steady, b"hello"), b"hello");
    }
    let relaying = ALLOCATIONS.load(Ordering::Relaxed) - before;
    shut_down(&steady);
    read_to_end(&steady);
    worker.until_idle();

    let before = ALLOCATIONS.load(Ordering::Relaxed);
    (0..200).for_each(|_| run_session());
    worker.until_idle();
    let sessions = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert!(before > 0, "the first sessions allocate, and nothing was counted");
    assert_eq!(relaying, 0, "allocations of 1000 exchanges");
    assert!(sessions <= 2 * 200, "{sessions} allocations of 200 sessions");
}

#[test]
fn choosing_a_server_allocates_nothing_whatever_the_algorithm() {
    let _counting = count_thread(gettid().as_raw());
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let worker = Rc::new(WorkerHandle::new(shared_state(Table::default()), WorkerIndex(0)));
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > before, "nothing is counted");
    let client = || Some([192, 0, 2, 7].into());
    for balance in
        [Balance::RoundRobin, Balance::LeastConn, Balance::Random, Balance::Source, Balance::First]
    {
        // From 64 servers on, leastconn searches a tree.
        for count in [1, 3, 63, 64, 1000] {
            let address = SocketAddr::from(([127, 0, 0, 1], 1));
            let backend = backend(balance, &vec![address; count], Some(2));
            let tried: Vec<EndpointId> =
                backend.schedule.endpoints.iter().take(2).map(|endpoint| endpoint.id).collect();
            let mut permits = Vec::with_capacity(2 * count);

            let before = ALLOCATIONS.load(Ordering::Relaxed);
            for tried in [&[], &*tried] {
                for _ in 0..100 {
                    drop(choose(&backend, client, tried, &worker).unwrap());
                }
            }
            // Until every server is full.
            permits.extend((0..2 * count).map(|_| choose(&backend, client, &[], &worker).unwrap()));
            for tried in [&[], &*tried] {
                let choice = choose(&backend, client, tried, &worker);
                assert_eq!(choice.err(), Some(PickError::AllFull), "{balance:?}, {count} servers");
            }
            permits.clear();
            let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
            assert_eq!(allocations, 0, "{balance:?}, {count} servers");
        }
    }
}

/// Connections that keep the worker busy.
const BUSY: usize = 256;
/// Requests of each connection: so many that the start and the end do not matter.
const ROUNDS: usize = 300;

#[test]
fn at_saturation_a_request_costs_less_than_a_tenth_of_a_system_call() {
    let traced = Command::new("strace").args(["-c", "-f", "true"]).output();
    if !traced.is_ok_and(|output| output.status.success()) {
        let name = "at_saturation_a_request_costs_less_than_a_tenth_of_a_system_call";
        skip(name, "needs strace, and to be allowed ptrace: apt-get install strace");
        return;
    }
    let env = TestEnv::new();
    pin_to_one_core();
    let server = Server::echo(env.port(9001));
    let config = Config::new(&env).server("a", server.address);
    let counts = env.file("counts");
    let mut command = Command::new("strace");
    command.args(["-c", "-f", "-U", "calls,name", "-o"]).arg(&counts).arg(PROGRAM);
    command.args(["run", "-c"]).arg(write_config(&env, &config.text()));
    let mut balancer = Balancer::start_command(&env, command);
    let mut connections: Vec<TcpStream> = (0..BUSY).map(|_| connect(env.frontend())).collect();
    let mut chunk = [7; 128];
    for _ in 0..ROUNDS {
        connections.iter_mut().for_each(|client| client.write_all(&chunk).unwrap());
        connections.iter_mut().for_each(|client| client.read_exact(&mut chunk).unwrap());
    }
    drop(connections);
    let tracer = balancer.pid();
    let children = fs::read_to_string(format!("/proc/{tracer}/task/{tracer}/children")).unwrap();
    let traced = children.trim().parse().unwrap();
    kill(Pid::from_raw(traced), Signal::SIGTERM).unwrap();
    balancer.wait();
    let table = fs::read_to_string(&counts).unwrap();
    let total = table.lines().find_map(|line| line.trim().strip_suffix("total"));
    let total: usize = total.unwrap_or_else(|| panic!("{table}")).trim().parse().unwrap();
    assert!(total > 100, "strace has counted system calls: {table}");
    assert!(total * 10 < BUSY * ROUNDS, "{total} calls for {} requests: {table}", BUSY * ROUNDS);
}

/// The first kernel on which a ring can wait without counting as I/O wait.
const NO_IO_WAIT: KernelVersion = KernelVersion(6, 15, 0);

#[test]
fn a_worker_that_waits_for_clients_does_not_count_as_waiting_for_io() {
    if KernelVersion::of_this_kernel().unwrap() < NO_IO_WAIT {
        let name = "a_worker_that_waits_for_clients_does_not_count_as_waiting_for_io";
        skip(name, "needs kernel 6.15: older kernels count every wait of a ring as I/O wait");
        return;
    }
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let _balancer = Balancer::start(&env, &Config::new(&env).server("a", server.address));
    let client = connect(env.frontend());
    exchange(&client, b"hello");
    // Other processes may wait for a disk, but not all the time.
    until("no thread waits for I/O", || {
        let counts = fs::read_to_string("/proc/stat").unwrap();
        counts.lines().any(|line| line == "procs_blocked 0")
    });
}

/// Pins this thread and the threads and processes that it starts to one core, which saturates it.
fn pin_to_one_core() {
    pin(*allowed_cores().unwrap().last().unwrap()).unwrap();
}
