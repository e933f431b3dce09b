//! What clients lose with evenkeel and with HAProxy in the same situations. The table is printed by
//! `cargo test --test blackbox losses -- --nocapture`. Only the column of evenkeel is a promise.

use std::fmt;
use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::case::Process;
use crate::common::balancer::{PROGRAM, write_config};
use crate::common::client::{connect, exchange, fetch, fill, is_reset};
use crate::common::metrics::Metrics;
use crate::common::wait::{StopOnDrop, pause, until};
use crate::common::{Config, Server, TestEnv, http, skip};

/// What became of clients.
#[derive(Debug, Default, PartialEq, Eq)]
struct Clients {
    served: usize,
    /// Served after others had left.
    served_later: usize,
    failed: usize,
}

impl fmt::Display for Clients {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { served, served_later, failed } = self;
        write!(out, "{served:>6} {served_later:>6} {failed:>6}")
    }
}

/// A balancer in front of two servers.
struct Subject<'a> {
    env: &'a TestEnv,
    process: Process,
    /// What makes it read its configuration again.
    reload: Signal,
    /// Waits until it has read it so often.
    until_reloaded: fn(&TestEnv, u32),
}

impl Subject<'_> {
    fn pid(&self) -> Pid {
        Pid::from_raw(self.process.pid().cast_signed())
    }
}

fn evenkeel<'a>(env: &'a TestEnv, servers: &[Server], descriptors: u32) -> Subject<'a> {
    let config = Config::new(env).workers(2).log("sessions = false");
    let config = config.server("a", servers[0].address).server("b", servers[1].address).text();
    let mut command = limited(descriptors);
    command.arg(PROGRAM).args(["run", "-c"]).arg(write_config(env, &config));
    let until_reloaded = |env: &TestEnv, times: u32| {
        until("the reload is done", || {
            // 503 without any metric, if the control thread is late.
            let (_, text) = http::get(env.observe(), "/metrics").unwrap();
            let done = [("outcome", "done")];
            Metrics::parse(&text).sum("evenkeel_reloads_total", &done) == f64::from(times)
        });
    };
    Subject { env, process: Process::ready(env, command), reload: Signal::SIGHUP, until_reloaded }
}

/// With what its manual advises for reloads: a master process, and listeners that are handed
/// over.
fn haproxy<'a>(env: &'a TestEnv, servers: &[Server], descriptors: u32) -> Subject<'a> {
    let file = env.file("haproxy.cfg");
    let text = format!(
        "global\n    nbthread 2\n    stats socket {}/haproxy.sock mode 600 level admin \
         expose-fd listeners\ndefaults\n    mode tcp\n    timeout connect 3s\n    \
         timeout client 5m\n    timeout server 5m\nlisten web\n    bind {} backlog 4096\n    \
         server a {}\n    server b {}\nlisten ready\n    bind {}\n    server a {}\n",
        env.folder().display(),
        env.frontend(),
        servers[0].address,
        servers[1].address,
        env.observe(),
        servers[0].address
    );
    fs::write(&file, text).unwrap();
    let mut command = limited(descriptors);
    command.args(["haproxy", "-W", "-db", "-f"]).arg(file);
    // What it does is no promise.
    let until_reloaded = |_: &TestEnv, _| {};
    Subject { env, process: Process::ready(env, command), reload: Signal::SIGUSR2, until_reloaded }
}

fn limited(descriptors: u32) -> Command {
    let mut command = Command::new("prlimit");
    command.arg(format!("--nofile={descriptors}:{descriptors}"));
    command
}

/// Connections from 30 clients while the configuration is reloaded ten times.
fn over_ten_reloads(subject: &Subject<'_>) -> Clients {
    let (stopped, served, failed) =
        (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let fetch_until_stopped = || {
        while !stopped.load(Ordering::Relaxed) {
            let is_served = fetch(subject.env.frontend()).is_ok_and(|name| !name.is_empty());
            let count = if is_served { &served } else { &failed };
            count.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        for _ in 0..30 {
            scope.spawn(fetch_until_stopped);
        }
        let stop = StopOnDrop(&stopped);
        for times in 1..=10 {
            pause(Duration::from_millis(300));
            kill(subject.pid(), subject.reload).unwrap();
            (subject.until_reloaded)(subject.env, times);
        }
        pause(Duration::from_millis(300));
        drop(stop);
    });
    Clients { served: served.into_inner(), failed: failed.into_inner(), served_later: 0 }
}

/// Whether a client has its answer (true), or its end without one; none while it waits.
fn outcome(client: &TcpStream) -> Option<bool> {
    match client.peek(&mut [0]) {
        Ok(count) => Some(count > 0),
        Err(error) if is_reset(&error) => Some(false),
        Err(_) => None,
    }
}

/// More clients than there are descriptors for; those that are served leave later, so that each of
/// the others has its turn.
fn beyond_the_descriptors(subject: &Subject<'_>) -> Clients {
    let mut waiting: Vec<TcpStream> = (0..400)
        .map(|_| {
            let client = connect(subject.env.frontend());
            client.set_nonblocking(true).unwrap();
            client
        })
        .collect();
    let (mut last, mut same) = (0, 0);
    until("as many clients are served as there is room for", || {
        pause(Duration::from_millis(100));
        let now = waiting.iter().filter(|client| outcome(client).is_some()).count();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        now > 0 && same == 10
    });
    let served = waiting.iter().filter(|client| outcome(client) == Some(true)).count();
    let (mut failed, mut all_served) = (0, 0);
    until("every client had its turn", || {
        waiting.retain(|client| {
            let outcome = outcome(client);
            failed += usize::from(outcome == Some(false));
            all_served += usize::from(outcome == Some(true));
            outcome.is_none()
        });
        waiting.is_empty()
    });
    Clients { served, served_later: all_served - served, failed }
}

/// 60 clients write and do not read; then 50 others want an answer.
fn beside_readers_that_stop(subject: &Subject<'_>) -> Clients {
    let stopped: Vec<TcpStream> = (0..60).map(|_| connect(subject.env.frontend())).collect();
    fill(&stopped, 4096);
    let mut counts = Clients::default();
    for _ in 0..50 {
        let client = connect(subject.env.frontend());
        if exchange(&client, &[7; 10_000]) == [7; 10_000] {
            counts.served += 1;
        } else {
            counts.failed += 1;
        }
    }
    counts
}

/// A situation: its name, descriptors of the balancer, whether the servers echo (or send their
/// name), and what clients do.
type Situation = (&'static str, u32, bool, fn(&Subject<'_>) -> Clients);

const SITUATIONS: [Situation; 3] = [
    ("ten reloads", 4000, false, over_ten_reloads),
    ("400 clients, 600 descriptors", 600, false, beyond_the_descriptors),
    ("60 readers that stop", 4000, true, beside_readers_that_stop),
];

#[test]
fn the_table_of_losses_has_none_for_evenkeel() {
    let name = "the_table_of_losses_has_none_for_evenkeel";
    let has_haproxy = Command::new("haproxy").arg("-v").output().is_ok();
    if !has_haproxy {
        skip(name, "without the column of HAProxy: haproxy is not installed");
    }
    println!("{:<30} {:>20}   {:>20}", "", "evenkeel", "HAProxy");
    println!("{:<30} served  later failed   served  later failed", "");
    for (situation, descriptors, echo, act) in SITUATIONS {
        let run = |start: for<'a> fn(&'a TestEnv, &[Server], u32) -> Subject<'a>| {
            let env = TestEnv::new();
            let server = |name, port| {
                let address = env.port(port);
                if echo { Server::echo(address) } else { Server::naming(name, address) }
            };
            let servers = [server("a", 9001), server("b", 9002)];
            act(&start(&env, &servers, descriptors))
        };
        let ours = run(evenkeel);
        let theirs = if has_haproxy { run(haproxy).to_string() } else { String::new() };
        println!("{situation:<30} {ours}   {theirs}");
        assert_eq!(ours.failed, 0, "{situation}");
        assert!(ours.served + ours.served_later > 0, "{situation}");
    }
}
