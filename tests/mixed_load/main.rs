//! Mixed load for as long as wanted, while servers die, the configuration is reloaded, the program
//! is replaced, and clients reset and stop reading. Every byte is checked, and every end needs a
//! reason.
//!
//! `EVENKEEL_SOAK` sets the time in seconds; `tests/soak` sets it from minutes and hours.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "the summary of a run")]

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "other suites use the rest")]
mod common;

mod client;
mod report;
mod server;
mod stream;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use client::Clients;
use common::chain::Chain;
use common::metrics::Metrics;
use common::process::{Descriptors, resident_kib};
use common::wait::{StopOnDrop, pause, until, until_some};
use common::{Config, TestEnv};
use report::Report;
use server::Mortal;
use stream::mixed;

/// Sessions at a time.
const CLIENTS: u64 = 48;

/// How long a server stays dead, and between two events.
const BETWEEN_EVENTS: Duration = Duration::from_millis(300);

/// Runs of at least this length check that memory is flat: before, the allocator still grows.
const FLAT_AFTER: Duration = Duration::from_secs(60);

/// In a run of at least this length, memory is touched for the first time in its first half: it
/// takes 100 s.
const LONG: Duration = Duration::from_secs(600);

fn duration() -> Duration {
    let seconds = std::env::var("EVENKEEL_SOAK").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(6))
}

/// Three servers; the weights and the number of servers change with `round`.
fn config(env: &TestEnv, round: u64) -> Config {
    let mut config = Config::new(env).workers(2).log("sessions = false").quick_health("tcp");
    config = config.backend("retries = 3");
    for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
        let port = 9001 + u16::try_from(index).unwrap();
        // The second and third server come and go.
        if index > 0 && mixed(round + index as u64).is_multiple_of(4) {
            continue;
        }
        let weight = 50 + mixed(round ^ index as u64) % 100;
        config = config.server_with(name, env.port(port), &format!("weight = {weight}"));
    }
    config
}

#[test]
fn mixed_load_loses_no_byte_and_no_session_without_a_reason() {
    let time = duration();
    let env = TestEnv::exclusive();
    let report = Arc::new(Report::default());
    let deaths = Arc::new(AtomicU64::new(0));
    let mortal = |port| Mortal::start(env.port(port), Arc::clone(&deaths), Arc::clone(&report));
    // The first one never dies, so that a session always finds a server.
    let (_immortal, mut mortals) = (mortal(9001), [mortal(9002), mortal(9003)]);
    let mut balancer = Chain::start(&env, &config(&env, 0));
    let clients = Clients {
        frontend: env.frontend(),
        deaths: Arc::clone(&deaths),
        report: Arc::clone(&report),
        stopped: AtomicBool::new(false),
        connections: AtomicU64::new(0),
    };
    let seed = u64::from(std::process::id());
    println!("seed {seed}, {} s", time.as_secs());
    let mut memory = Vec::new();
    thread::scope(|scope| {
        let handles: Vec<_> = (0..CLIENTS)
            .map(|index| {
                let clients = &clients;
                scope.spawn(move || clients.run(mixed(seed ^ index << 32)))
            })
            .collect();
        let stop = StopOnDrop(&clients.stopped);
        let (started, mut random) = (Instant::now(), seed);
        while started.elapsed() < time {
            random = mixed(random);
            let mortal = &mut mortals[usize::from(random & 1 == 0)];
            // Not later, so that the memory of one process is seen for half of the time.
            let may_upgrade = started.elapsed() < time / 4;
            if may_upgrade && random >> 8 & 7 == 7 {
                balancer.upgrade();
                report.count("upgrades", 1);
            } else if random >> 8 & 3 == 0 {
                mortal.die();
                pause(BETWEEN_EVENTS);
                mortal.revive();
                report.count("deaths of servers", 1);
            } else {
                balancer.rewrite(&config(&env, random >> 16).text());
                balancer.signal(balancer.pids.len() - 1, Signal::SIGHUP);
                report.count("reloads", 1);
                // Two signals in quick succession count as one.
                balancer.metrics_until("the reload is done", |metrics| {
                    metrics.sum("evenkeel_reloads_total", &[]) == report.of("reloads") as f64
                });
            }
            pause(BETWEEN_EVENTS);
            memory.push((started.elapsed(), resident_kib(balancer.pid())));
        }
        drop(stop);
        handles.into_iter().for_each(|handle| handle.join().unwrap());
    });
    let metrics = idle(&balancer);
    let mut summary = report.to_string();
    let opened = metrics.value("evenkeel_sessions_total", &[]);
    writeln!(summary, "{opened:>12} sessions of the balancer").unwrap();
    println!("{summary}");
    report.assert_nothing_wrong();
    assert_eq!(metrics.sum("evenkeel_upgrades_total", &[("outcome", "failed")]), 0.0);
    for reason in ["internal", "exhausted", "no_server", "drain_timeout", "killed", "idle_timeout"]
    {
        assert_eq!(metrics.closed(reason), 0.0, "{reason}");
    }
    let reloads = report.of("reloads") as f64;
    assert_eq!(metrics.value("evenkeel_reloads_total", &[("outcome", "done")]), reloads);
    let connections = clients.connections.load(Ordering::Relaxed);
    assert!(opened >= report.of("sessions complete") as f64, "{opened}");
    assert!(report.of("sessions complete") > connections / 2, "of {connections} connections");
    assert_flat(&memory, time);
    assert_released(&balancer, memory.first().unwrap().1);
}

/// Waits until no session is open and nothing is held; the metrics of that moment.
fn idle(balancer: &Chain<'_>) -> Metrics {
    until_some("every session has ended", || {
        let metrics = balancer.metrics();
        let of = |name: &str| metrics.value(name, &[]);
        let closed = of("evenkeel_sessions_closed_total");
        let gauges =
            ["evenkeel_sessions_active", "evenkeel_buffers_in_use", "evenkeel_pipes_in_use"];
        let is_idle = gauges.iter().all(|gauge| of(gauge) == 0.0);
        (is_idle && (of("evenkeel_sessions_total") - closed).abs() < 0.5).then_some(metrics)
    })
}

/// Waits until memory and descriptors are back.
fn assert_released(balancer: &Chain<'_>, before: u64) {
    until("memory is released", || resident_kib(balancer.pid()) < before + 16 * 1024);
    // Each process has as many as the first one had at its start, and pipes for the next bulk.
    let (base, pipes) = (balancer.base, 2 * 2 * 64);
    until("its descriptors are back", || {
        let now = Descriptors::of(balancer.pid());
        now.sockets <= base.sockets && now.others <= base.others && now.pipes <= base.pipes + pipes
    });
}

/// Resident memory in the last quarter is at most 2 % above that of the third one, by the median
/// of each: a bulk transfer of the moment is no growth. A run that is not `LONG` may still touch
/// pages of its heap and of its buffers for the first time: 2 MiB more.
fn assert_flat(memory: &[(Duration, u64)], time: Duration) {
    if time < FLAT_AFTER {
        return;
    }
    let usual = |part: u32, parts: u32| {
        let within = |at: Duration| time * part / parts <= at && at < time * (part + 1) / parts;
        let mut of: Vec<u64> =
            memory.iter().filter(|(at, _)| within(*at)).map(|(_, kib)| *kib).collect();
        of.sort_unstable();
        of.get(of.len() / 2).copied().unwrap_or(0)
    };
    let tenths: Vec<u64> = (0..10).map(|part| usual(part, 10)).collect();
    println!("KiB resident in each tenth of the time: {tenths:?}");
    let (early, late) = (usual(2, 4), usual(3, 4));
    println!("{early:>12} KiB resident in the third quarter, {late} KiB in the last");
    let first_touch = if time < LONG { 2048 } else { 0 };
    assert!(late * 100 <= (early + first_touch) * 102, "{early} KiB, then {late} KiB");
}
