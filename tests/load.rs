//! The balancer under load: a storm of reloads, and a reader that holds back much.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "other suites use the rest")]
mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use common::client::{connect, end, exchange, visit};
use common::server::echo;
use common::wait::{pause, until};
use common::{Balancer, Config, Place, Server};

const MIB: usize = 1 << 20;

/// Connections at a time, and for how long, in the storm.
const CLIENTS: usize = 200;
const STORM: Duration = Duration::from_secs(5);

#[test]
fn a_storm_of_reloads_under_load_fails_no_connection_and_leaves_nothing_behind() {
    let place = Place::new();
    let servers = [Server::naming("a", place.port(9001)), Server::naming("b", place.port(9002))];
    let config = Config::new(&place).workers(2).log("sessions = false");
    let config = config.server("a", servers[0].address).server("b", servers[1].address);
    let balancer = Balancer::start(&place, &config);
    // The first rounds take memory that is kept; the storm must not take more.
    round(&place, &AtomicBool::new(true));
    balancer.books_balance();
    let before = memory(balancer.pid(), "VmRSS");
    let (over, served) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                served.fetch_add(round(&place, &over), Ordering::Relaxed);
            });
        }
        let end = Instant::now() + STORM;
        while Instant::now() < end {
            balancer.signal(Signal::SIGHUP);
            pause(Duration::from_millis(50));
        }
        over.store(true, Ordering::Relaxed);
    });
    let metrics = balancer.books_balance();
    let reloads = metrics.sum("evenkeel_reloads_total", &[]);
    assert!(reloads >= 10.0, "{reloads} reloads, of which more than one may be one");
    assert_eq!(metrics.sum("evenkeel_reloads_total", &[("outcome", "failed")]), 0.0);
    assert!(served.into_inner() > 200);
    // Memory: within what allocators keep.
    until("memory is back", || memory(balancer.pid(), "VmRSS") < before + 8 * 1024);
}

/// Visits until it is `over`, at least once; every visit must be served.
fn round(place: &Place, over: &AtomicBool) -> u64 {
    for count in 1.. {
        let name = visit(place.frontend()).expect("every connection is served");
        assert!(name == "a" || name == "b", "{name:?}");
        if over.load(Ordering::Relaxed) {
            return count;
        }
    }
    unreachable!("there is no end of numbers")
}

#[test]
fn a_reader_that_stops_costs_little_memory_and_no_neighbour_its_speed() {
    let place = Place::new();
    let server = Server::start(place.port(9001), |mut stream| {
        let mut kind = [0];
        if stream.read_exact(&mut kind).is_err() {
            return;
        }
        if kind[0] == b'e' {
            return echo(&stream);
        }
        let chunk = vec![42; MIB];
        for _ in 0..256 {
            if stream.write_all(&chunk).is_err() {
                return;
            }
        }
        end(&stream);
        drop(stream.read(&mut kind));
    });
    let balancer = Balancer::start(&place, &Config::new(&place).server("a", server.address));
    let neighbour = connect(place.frontend());
    (&neighbour).write_all(b"e").unwrap();
    let alone = exchanges(&neighbour);
    let before = memory(balancer.pid(), "VmRSS");
    let mut stopped = connect(place.frontend());
    stopped.write_all(b"d").unwrap();
    // It reads the first of it, and then nothing while 256 MiB want to come.
    stopped.read_exact(&mut vec![0; MIB]).unwrap();
    let (mut highest, mut beside) = (0, 0);
    // Ten windows at least; more while others have the machine, for their load passes.
    for window in 0..60 {
        if window >= 10 && beside * 4 > alone {
            break;
        }
        highest = highest.max(memory(balancer.pid(), "VmRSS"));
        beside = beside.max(exchanges(&neighbour));
    }
    assert!(highest < before + 4 * 1024, "{before} KiB before, {highest} KiB while it is stopped");
    // Another machine's load may halve a speed; a stall would be a hundredth.
    assert!(beside * 4 > alone, "{alone} exchanges alone, {beside} beside it");
    assert_eq!(rest_of(&stopped), 255 * MIB);
    drop((stopped, neighbour));
    balancer.books_balance();
}

/// Exchanges in a fifth of a second.
fn exchanges(stream: &TcpStream) -> usize {
    let end = Instant::now() + Duration::from_millis(200);
    (0..).take_while(|_| exchange(stream, b"ping") == b"ping" && Instant::now() < end).count()
}

fn rest_of(mut stream: &TcpStream) -> usize {
    let (mut chunk, mut total) = (vec![0; 256 * 1024], 0);
    loop {
        match stream.read(&mut chunk).unwrap() {
            0 => return total,
            count => {
                assert!(chunk[..count].iter().all(|byte| *byte == 42));
                total += count;
            }
        }
    }
}

/// A number of `/proc/PID/status`, in KiB.
fn memory(pid: u32, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap()
}
