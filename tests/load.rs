//! The balancer under load: many reloads, and a client that stops reading a large answer.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "other suites use the rest")]
mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use common::client::{connect, exchange, fetch, shut_down};
use common::process::resident_kib;
use common::server::echo;
use common::wait::{StopOnDrop, pause, until};
use common::{Balancer, Config, Server, TestEnv, echoing};

const MIB: usize = 1 << 20;

/// Concurrent connections during the reloads, and for how long.
const CLIENTS: usize = 200;
const RELOADS: Duration = Duration::from_secs(5);

#[test]
fn many_reloads_under_load_fail_no_connection_and_leak_nothing() {
    let env = TestEnv::new();
    let servers = [Server::naming("a", env.port(9001)), Server::naming("b", env.port(9002))];
    let config = Config::new(&env).workers(2).log("sessions = false");
    let config = config.server("a", servers[0].address).server("b", servers[1].address);
    let balancer = Balancer::start(&env, &config);
    // Memory that is allocated once; the reloads must not allocate more.
    round(&env, &AtomicBool::new(true));
    balancer.assert_no_leaks();
    let before = resident_kib(balancer.pid());
    let (stopped, served) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                served.fetch_add(round(&env, &stopped), Ordering::Relaxed);
            });
        }
        let stop = StopOnDrop(&stopped);
        let end = Instant::now() + RELOADS;
        while Instant::now() < end {
            balancer.signal(Signal::SIGHUP);
            pause(Duration::from_millis(50));
        }
        drop(stop);
    });
    let metrics = balancer.assert_no_leaks();
    let reloads = metrics.sum("evenkeel_reloads_total", &[]);
    assert!(reloads >= 10.0, "{reloads} reloads: signals in quick succession count as one");
    assert_eq!(metrics.sum("evenkeel_reloads_total", &[("outcome", "failed")]), 0.0);
    assert!(served.into_inner() > 200);
    // The allocator keeps some memory.
    until("the memory is released", || resident_kib(balancer.pid()) < before + 8 * 1024);
}

/// Connects until `stopped`, at least once. Every connection must be served.
fn round(env: &TestEnv, stopped: &AtomicBool) -> u64 {
    for count in 1.. {
        let name = fetch(env.frontend()).expect("every connection is served");
        assert!(name == "a" || name == "b", "{name:?}");
        if stopped.load(Ordering::Relaxed) {
            return count;
        }
    }
    unreachable!("the range has no end")
}

#[test]
fn a_client_that_stops_reading_uses_little_memory_and_does_not_slow_others() {
    let env = TestEnv::new();
    let server = Server::start(env.port(9001), |mut stream| {
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
        shut_down(&stream);
        drop(stream.read(&mut kind));
    });
    let balancer = Balancer::start(&env, &Config::new(&env).server("a", server.address));
    let other = connect(env.frontend());
    (&other).write_all(b"e").unwrap();
    assert_eq!(exchange(&other, b"ping"), b"ping");
    // Through another balancer, at the same time: it has the same share of a busy machine.
    let elsewhere = env.another();
    let (config, _echo) = echoing(&elsewhere);
    let _undisturbed = Balancer::start(&elsewhere, &config);
    let undisturbed = connect(elsewhere.frontend());
    let before = resident_kib(balancer.pid());
    let mut stopped = connect(env.frontend());
    stopped.write_all(b"d").unwrap();
    // It reads the first MiB of 256, and then stops.
    stopped.read_exact(&mut vec![0; MIB]).unwrap();
    let (mut highest, mut alone, mut beside) = (0, 0, 0);
    // Ten measurements at least; more if another program uses the machine.
    for window in 0..60 {
        if window >= 10 && beside * 4 > alone {
            break;
        }
        highest = highest.max(resident_kib(balancer.pid()));
        alone = alone.max(exchanges(&undisturbed));
        beside = beside.max(exchanges(&other));
    }
    assert!(highest < before + 4 * 1024, "{before} KiB before, {highest} KiB then");
    // Load on the machine may halve one of the rates. A stall would reduce it to a hundredth.
    assert!(beside * 4 > alone, "{alone} exchanges alone, {beside} beside the stopped client");
    assert_eq!(rest_of(&stopped), 255 * MIB);
    drop((stopped, other));
    balancer.assert_no_leaks();
}

/// The number of exchanges in 200 ms.
fn exchanges(stream: &TcpStream) -> usize {
    let end = Instant::now() + Duration::from_millis(200);
    (0..).take_while(|_| exchange(stream, b"ping") == b"ping" && Instant::now() < end).count()
}

/// Reads until the stream ends: the number of bytes.
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
