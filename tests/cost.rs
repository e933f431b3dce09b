//! What a session costs in allocations, and a request in system calls.

#![expect(unsafe_code, reason = "an allocator that counts is one by an unsafe trait")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(dead_code, reason = "what the suites share is more than this one needs")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use common::balancer::{PROGRAM, write_config};
use common::client::{connect, end, exchange, read_out};
use common::{Balancer, Config, Place, Server, skip, until};
use crossbeam::utils::CachePadded;
use evenkeel::config::Balance;
use evenkeel::proxy::worker::Worker;
use evenkeel::shared::counters::PerWorker;
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

/// Counts what one thread allocates.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// The kernel's number of the thread that is counted.
static COUNTED: AtomicI32 = AtomicI32::new(0);

thread_local! {
    /// Its own number; 0 until it is known.
    static THREAD: Cell<i32> = const { Cell::new(0) };
}

// SAFETY: everything is left to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.dealloc(pointer, layout) };
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the system allocator's.
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

/// The thread of this process that has this name.
fn thread_named(name: &str) -> i32 {
    let threads = fs::read_dir("/proc/self/task").unwrap().map(Result::unwrap);
    let named = threads.filter(|thread| {
        fs::read_to_string(thread.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    });
    let numbers = named.map(|thread| thread.file_name().to_str().unwrap().parse().unwrap());
    numbers.last().expect("the worker runs")
}

/// A worker of this process before one server, with what it shares.
struct Own {
    seam: Arc<SharedState>,
    address: SocketAddr,
    thread: Option<thread::JoinHandle<()>>,
}

impl Own {
    fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = ServerShared {
            id: ServerId(1),
            backend: Arc::from("b"),
            name: Arc::from("a"),
            sessions: Limit::new(None),
            cells: PerWorker::new(1),
            queue: Arc::new(Queue::new(1, 0)),
        };
        let id = EndpointId { server: shared.id, number: 1 };
        let endpoint = Endpoint::new(id, server, Arc::new(shared), Loads::default().take());
        let backend = Backend {
            settings: Arc::default(),
            schedule: Schedule::new(Balance::RoundRobin, vec![(vec![Arc::new(endpoint)], 100)]),
            turn: Arc::new(CachePadded::new(AtomicUsize::new(0))),
            queue: Arc::new(Queue::new(1, 0)),
            turn_offset: 0,
        };
        let frontend = Frontend {
            settings: Arc::default(),
            backend: Arc::new(backend),
            shared: Arc::new(FrontendShared::new(None, 1)),
        };
        let frontend = Arc::new(frontend);
        let listener = Arc::new(Listener::new(address, vec![listener.into()]));
        let listeners = vec![(listener, Arc::clone(&frontend))];
        let table = Table { version: 1, frontends: vec![frontend], listeners };
        let phase = PhaseCell::new(Instant::now());
        let (seen, nobody) = crossbeam::channel::unbounded();
        drop(nobody);
        let seam = SharedState::new(table, phase, 1000, seen, None, vec![Waker::new().unwrap()]);
        let seam = Arc::new(seam);
        let worker = Worker {
            index: WorkerIndex(0),
            shared: Arc::clone(&seam),
            sessions_max: 1000,
            buffers: 16 << 20,
            pipes: PipeLimits { count: 64, size: 512 << 10 },
            core: None,
        };
        let thread = Some(worker.start().unwrap());
        Self { seam, address, thread }
    }

    /// Waits until no session is left.
    fn rest(&self) {
        until("sessions have ended", || self.seam.sessions.active() == 0);
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.seam.phase.store(Phase::Stopped);
        self.seam.wake();
        drop(self.thread.take().map(thread::JoinHandle::join));
    }
}

/// One test, as all count on the same counter.
#[test]
fn a_steady_session_allocates_nothing_and_a_session_s_life_at_most_twice() {
    let place = Place::new();
    let server = Server::echo(place.port(9001));
    let worker = Own::start(server.address);
    COUNTED.store(thread_named("worker-0"), Ordering::Relaxed);
    let life = || {
        let client = connect(worker.address);
        assert_eq!(exchange(&client, b"hello"), b"hello");
        end(&client);
        read_out(&client);
    };
    // Tables and lists grow to their size once.
    (0..50).for_each(|_| life());
    let steady = connect(worker.address);
    (0..50).for_each(|_| drop(exchange(&steady, b"hello")));

    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..1000 {
        assert_eq!(exchange(&steady, b"hello"), b"hello");
    }
    let steadily = ALLOCATIONS.load(Ordering::Relaxed) - before;
    end(&steady);
    read_out(&steady);
    worker.rest();

    let before = ALLOCATIONS.load(Ordering::Relaxed);
    (0..200).for_each(|_| life());
    worker.rest();
    let lives = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert!(before > 0, "the first sessions are known to allocate, and nothing was counted");
    assert_eq!(steadily, 0, "allocations of 1000 exchanges");
    assert!(lives <= 2 * 200, "{lives} allocations of 200 sessions");
}

/// Connections that keep the worker busy.
const BUSY: usize = 256;
/// Requests of each, so many that starting and ending do not count.
const ROUNDS: usize = 300;

#[test]
fn at_saturation_a_request_costs_less_than_a_tenth_of_a_system_call() {
    let traced = Command::new("strace").args(["-c", "-f", "true"]).output();
    if !traced.is_ok_and(|output| output.status.success()) {
        let name = "at_saturation_a_request_costs_less_than_a_tenth_of_a_system_call";
        skip(name, "needs strace, and to be allowed ptrace: apt-get install strace");
        return;
    }
    let place = Place::new();
    pin_to_one_core();
    let server = Server::echo(place.port(9001));
    let config = Config::new(&place).server("a", server.address);
    let counts = place.file("counts");
    let mut command = Command::new("strace");
    command.args(["-c", "-f", "-U", "calls,name", "-o"]).arg(&counts).arg(PROGRAM);
    command.args(["run", "-c"]).arg(write_config(&place, &config.text()));
    let mut balancer = Balancer::start_command(&place, command);
    let mut connections: Vec<TcpStream> = (0..BUSY).map(|_| connect(place.frontend())).collect();
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
    assert!(total > 100, "strace has counted something: {table}");
    assert!(total * 10 < BUSY * ROUNDS, "{total} calls for {} requests: {table}", BUSY * ROUNDS);
}

/// The kernel from which on a ring can say that its waiting is for no disk.
const SAYS_SO: KernelVersion = KernelVersion(6, 15, 0);

#[test]
fn who_waits_for_clients_does_not_count_as_waiting_for_a_disk() {
    if KernelVersion::of_this_kernel().unwrap() < SAYS_SO {
        let name = "who_waits_for_clients_does_not_count_as_waiting_for_a_disk";
        skip(name, "needs kernel 6.15: an older one counts every wait of a ring so");
        return;
    }
    let place = Place::new();
    let server = Server::echo(place.port(9001));
    let _balancer = Balancer::start(&place, &Config::new(&place).server("a", server.address));
    let client = connect(place.frontend());
    exchange(&client, b"still there");
    // Others may wait for a disk, but not all the time.
    until("nobody waits for a disk", || {
        let counts = fs::read_to_string("/proc/stat").unwrap();
        counts.lines().any(|line| line == "procs_blocked 0")
    });
}

/// This thread and all that it starts: what waits for nothing but the core is at saturation.
fn pin_to_one_core() {
    pin(*allowed_cores().unwrap().last().unwrap()).unwrap();
}
