//! Micro-benchmarks of what runs for each session or each change: `cargo bench`. `cargo test` runs
//! them with small numbers and without a table, to show that they work. `cargo bench --bench micro
//! -- leastconn 1000` runs the rows whose names contain both words.
//!
//! Figures are nanoseconds of one operation: the median of the rounds, minimum and maximum. They
//! show whether a part became slower on the same machine; `bench/run` measures what clients see.
//! The last lines compare leastconn with 1,000 servers to leastconn with 2: the ratios of these
//! three figures.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;
use evenkeel::config::{self, BackendSettings, Balance};
use evenkeel::control::cluster::{Bound, Cluster};
use evenkeel::proxy::route::choose;
use evenkeel::proxy::timer_wheel::{Tick, TimerWheel};
use evenkeel::proxy::worker_handle::WorkerHandle;
use evenkeel::shared::counters::{BackendCells, PerWorker};
use evenkeel::shared::limit::Limit;
use evenkeel::shared::load::Loads;
use evenkeel::shared::phase::PhaseCell;
use evenkeel::shared::queue::Queue;
use evenkeel::shared::schedule::Schedule;
use evenkeel::shared::server::{Endpoint, ServerShared};
use evenkeel::shared::state::SharedState;
use evenkeel::shared::table::{Backend, Table};
use evenkeel::sys::local_addresses::LocalAddresses;
use evenkeel::sys::waker::Waker;
use evenkeel::terms::{EndpointId, ServerId, WorkerIndex};

const THREADS: [usize; 4] = [1, 2, 4, 8];
const THREADS_MAX: usize = 8;
const SERVERS: [u32; 3] = [2, 100, 1000];
const ALGORITHMS: [Balance; 5] =
    [Balance::RoundRobin, Balance::LeastConn, Balance::Random, Balance::Source, Balance::First];

/// Sessions of all servers together that stay open in the rows that say so: each operation ends one
/// of them, whichever it is, and begins another one.
const OPEN: u32 = 16_000;

/// Median, minimum and maximum of a row.
type Figures = [f64; 3];

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Effort {
    rounds: usize,
    /// Operations in a round, of those that take nanoseconds.
    operations: u32,
}

fn main() {
    let effort = if is_measuring() {
        Effort { rounds: 9, operations: 1_000_000 }
    } else {
        Effort { rounds: 1, operations: 1_000 }
    };
    say(&format!("{:<46} {:>10} {:>10} {:>10}", "ns an operation", "median", "min", "max"));
    let mut leastconn = BTreeMap::new();
    // With open sessions, round robin shows what their memory costs whichever server is chosen.
    let among = [Balance::RoundRobin, Balance::LeastConn].map(|balance| (balance, OPEN));
    for (balance, open) in ALGORITHMS.map(|balance| (balance, 0)).into_iter().chain(among) {
        for servers in SERVERS {
            for threads in THREADS {
                let figures = picks(balance, servers, threads, open, effort);
                if balance == Balance::LeastConn {
                    leastconn.extend(figures.map(|figures| ((open, threads, servers), figures)));
                }
            }
        }
    }
    for sessions in [100, 10_000] {
        deadlines(sessions, effort);
    }
    for servers in SERVERS {
        tables(servers, effort);
    }
    growth(&leastconn);
}

/// Compares the largest number of servers with the smallest.
fn growth(rows: &BTreeMap<(u32, usize, u32), Figures>) {
    for (&(open, threads, servers), many) in rows.iter().filter(|row| row.0.2 == SERVERS[2]) {
        let Some(few) = rows.get(&(open, threads, SERVERS[0])) else { continue };
        let ratios = [0, 1, 2].map(|index| many[index] / few[index]);
        let name = name(Balance::LeastConn, servers, threads, open);
        say(&line(&format!("{name}, to {}", SERVERS[0]), ratios, 2));
    }
}

/// Whether cargo asks for figures: it passes `--bench` to a benchmark, and nothing to a test.
fn is_measuring() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// Whether the arguments ask for this row.
fn is_wanted(name: &str) -> bool {
    std::env::args().skip(1).all(|word| word.starts_with("--") || name.contains(&word))
}

fn name(balance: Balance, servers: u32, threads: usize, open: u32) -> String {
    let among = if open > 0 { format!(", {open} open") } else { String::new() };
    format!("{}, {servers} servers{among}, {threads} threads", balance.word())
}

/// A session's place is taken and given back, in all threads at once, while `open` sessions of the
/// servers stay open. None if nobody asks for the row.
fn picks(
    balance: Balance,
    servers: u32,
    threads: usize,
    open: u32,
    effort: Effort,
) -> Option<Figures> {
    let name = name(balance, servers, threads, open);
    if !is_wanted(&name) {
        return None;
    }
    let backend = Arc::new(backend(balance, servers));
    let operations = effort.operations;
    let shared = Arc::new(shared_state());
    let rounds = (0..effort.rounds).map(|_| {
        let start = Arc::new(Barrier::new(threads));
        let running: Vec<_> = (0..threads)
            .map(|index| {
                let (backend, shared) = (Arc::clone(&backend), Arc::clone(&shared));
                let start = Arc::clone(&start);
                thread::spawn(move || {
                    let local = Rc::new(WorkerHandle::new(shared, WorkerIndex(index)));
                    let pick = |client| {
                        let client = || Some(Ipv4Addr::from_bits(client).into());
                        choose(&backend, client, &[], &local)
                    };
                    let mut sessions: Vec<_> =
                        (0..open).skip(index).step_by(threads).map(pick).collect();
                    start.wait();
                    let began = Instant::now();
                    (0..operations).for_each(|client| replace(&mut sessions, client, pick));
                    began.elapsed()
                })
            })
            .collect();
        let times = running.into_iter().filter_map(|thread| thread.join().ok());
        times.max().unwrap_or_default()
    });
    // With more threads than cores they take turns: the figure is of all threads together.
    #[expect(clippy::cast_possible_truncation, reason = "8 at most")]
    print(&name, rounds.collect(), operations * threads as u32)
}

/// Ends one of the open sessions, if there are any, and begins another one; else one that ends at
/// once.
fn replace<T>(sessions: &mut Vec<T>, client: u32, pick: impl Fn(u32) -> T) {
    if sessions.is_empty() {
        drop(black_box(pick(client)));
        return;
    }
    let ends = (client.wrapping_mul(2_654_435_761) >> 8) as usize % sessions.len();
    drop(sessions.swap_remove(ends));
    sessions.push(black_box(pick(client)));
}

/// A deadline is moved on, as each byte of a session does; now and then the clock moves.
fn deadlines(sessions: u32, effort: Effort) {
    let name = format!("timer wheel, {sessions} sessions");
    if !is_wanted(&name) {
        return;
    }
    let mut wheel = TimerWheel::new();
    let mut now = Tick::START;
    let mut due = Vec::new();
    let rounds = (0..effort.rounds).map(|_| {
        let began = Instant::now();
        for operation in 0..effort.operations {
            let slot = operation % sessions;
            wheel.set(slot, now.after(Duration::from_secs(u64::from(30 + slot % 7))));
            if operation % 64 == 0 {
                now = now.after(Duration::from_micros(500));
                wheel.advance(now, &mut due);
                due.clear();
            }
        }
        began.elapsed()
    });
    print(&name, rounds.collect(), effort.operations);
}

/// What a reload and what each change of a server's state costs the control thread.
fn tables(servers: u32, effort: Effort) {
    if !is_wanted(&format!("a table of {servers} servers")) {
        return;
    }
    let few = (effort.operations / 1000 / servers.max(10)).max(1);
    let text = configuration(servers);
    let timed = |operation: &mut dyn FnMut()| -> Vec<Duration> {
        let round = |_| {
            let began = Instant::now();
            (0..few).for_each(|_| operation());
            began.elapsed()
        };
        (0..effort.rounds).map(round).collect()
    };
    let parsed = timed(&mut || drop(black_box(config::parse(&text, "bench.toml"))));
    print(&format!("parse a file of {servers} servers"), parsed, few);
    let config = config::parse(&text, "bench.toml").expect("it is a valid file");
    let (mut cluster, here) = (Cluster::new(2), LocalAddresses::of([]));
    let merged = timed(&mut || cluster.merge(&config, BTreeMap::new(), &here, Instant::now()));
    print(&format!("merge {servers} servers"), merged, few);
    let bound = Bound::new();
    let built = timed(&mut || drop(black_box(cluster.table(1, &bound))));
    print(&format!("build a table of {servers} servers"), built, few);
}

fn configuration(servers: u32) -> String {
    let mut text =
        "[frontend.f]\nbind = [\"127.0.0.1:1\"]\nbackend = \"b\"\n[backend.b]\n".to_owned();
    for server in 0..servers {
        let (high, low) = (server / 250, server % 250 + 1);
        let weight = server % 3 + 1; // so that the rotation is more than a list
        text += &format!(
            "[[backend.b.server]]\nname = \"s{server}\"\naddress = \"127.1.{high}.{low}:80\"\n\
             weight = {weight}\n"
        );
    }
    text
}

fn backend(balance: Balance, servers: u32) -> Backend {
    let mut loads = Loads::default();

    let mut server = |number: u32| {
        let shared = ServerShared {
            id: ServerId(number),
            backend: Arc::from("b"),
            name: Arc::from("s"),
            sessions: Limit::new(None),
            cells: PerWorker::new(THREADS_MAX),
            backend_cells: Arc::new(BackendCells::new(THREADS_MAX)),
            queue: Arc::new(Queue::new(THREADS_MAX, 0)),
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let id = EndpointId { server: shared.id, number };
        let endpoint = Endpoint::new(id, address, Arc::new(shared), loads.take());
        (vec![Arc::new(endpoint)], 100)
    };
    Backend {
        settings: Arc::new(BackendSettings { balance, ..BackendSettings::default() }),
        schedule: Schedule::new(balance, (0..servers).map(&mut server).collect()),
        turn: Arc::new(CachePadded::new(AtomicUsize::new(0))),
        queue: Arc::new(Queue::new(THREADS_MAX, 0)),
        turn_offset: 0,
    }
}

fn shared_state() -> SharedState {
    let table = Table { version: 1, ..Table::default() };
    let (seen, _) = crossbeam::channel::unbounded();
    let wakers = (0..THREADS_MAX).map(|_| Waker::new().expect("there are descriptors"));
    SharedState::new(table, PhaseCell::new(Instant::now()), 100, seen, None, wakers.collect())
}

/// Prints one row; returns its figures.
fn print(name: &str, rounds: Vec<Duration>, operations: u32) -> Option<Figures> {
    let one = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(operations);
    let mut costs: Vec<f64> = rounds.into_iter().map(one).collect();
    costs.sort_by(f64::total_cmp);
    let (min, max) = (*costs.first()?, *costs.last()?);
    let figures = [costs[costs.len() / 2], min, max];
    say(&line(name, figures, 1));
    Some(figures)
}

fn line(name: &str, [median, min, max]: Figures, digits: usize) -> String {
    format!("{name:<46} {median:>10.digits$} {min:>10.digits$} {max:>10.digits$}")
}

#[expect(clippy::print_stdout, reason = "the one place where results are printed")]
fn say(line: &str) {
    if is_measuring() {
        println!("{line}");
    }
}
