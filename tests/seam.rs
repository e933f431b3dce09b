//! What the control thread puts in force is seen by a worker that nothing else wakes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;
use evenkeel::proxy::worker::Worker;
use evenkeel::shared::counters::PerWorker;
use evenkeel::shared::limit::Limit;
use evenkeel::shared::phase::{Phase, PhaseCell};
use evenkeel::shared::schedule::Schedule;
use evenkeel::shared::state::SharedState;
use evenkeel::shared::table::{Backend, Frontend, FrontendShared, Listener, Table};
use evenkeel::sys::waker::Waker;
use evenkeel::terms::WorkerIndex;

/// For what takes microseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// So many that following a table takes a while: the while in which the next one comes.
const LISTENERS: usize = 100;

fn listeners() -> Vec<(Arc<Listener>, Arc<Frontend>)> {
    let backend = Backend {
        settings: Arc::default(),
        schedule: Schedule::new(Vec::new()),
        turn: Arc::new(CachePadded::new(AtomicUsize::new(0))),
    };
    let shared = FrontendShared { sessions: Limit::new(None), cells: PerWorker::new(1) };
    let frontend = Arc::new(Frontend {
        settings: Arc::default(),
        backend: Arc::new(backend),
        shared: Arc::new(shared),
    });
    let listener = |_| {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (Arc::new(Listener::new(address, vec![socket.into()])), Arc::clone(&frontend))
    };
    (0..LISTENERS).map(listener).collect()
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

#[test]
fn of_two_changes_in_a_row_the_second_is_seen_however_close_they_are() {
    let listeners = listeners();
    let table = |version| Table { version, frontends: Vec::new(), listeners: listeners.clone() };
    let (seen, _nobody) = crossbeam::channel::unbounded();
    let phase = PhaseCell::new(Instant::now());
    let seam = SharedState::new(table(1), phase, 10, seen, None, vec![Waker::new().unwrap()]);
    let seam = Arc::new(seam);
    let worker = Worker {
        index: WorkerIndex(0),
        shared: Arc::clone(&seam),
        sessions_max: 10,
        buffers: 8 << 20,
        core: None,
    };
    let thread = worker.start().unwrap();
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
