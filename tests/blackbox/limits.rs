//! Limits: beyond each, new sessions wait or are refused, and existing ones continue.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::balancer::{PROGRAM, write_config};
use crate::common::client::{connect, exchange, fill, is_reset, set_timeouts};
use crate::common::process::{Descriptors, ticks};
use crate::common::wait::{TIMEOUT, holds_for, until, until_some};
use crate::common::{Balancer, Config, Server, TestEnv, skip};

/// Whether an answer can be read now.
fn answered(client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let answered = matches!(client.peek(&mut [0]), Ok(1..));
    client.set_nonblocking(false).unwrap();
    answered
}

/// Sets the soft limit of descriptors of a running process.
fn limit_descriptors(pid: u32, limit: usize) {
    let arguments = [format!("--pid={pid}"), format!("--nofile={limit}:")];
    assert!(Command::new("prlimit").args(arguments).status().unwrap().success());
}

#[test]
fn a_client_beyond_sessions_max_waits_until_a_session_ends() {
    for limit in ["global", "frontend"] {
        let env = TestEnv::new(); // case 52
        let server = Server::echo(env.port(9001));
        let config = Config::new(&env).workers(2).server("a", server.address);
        let config = match limit {
            "global" => config.global("sessions_max = 10"),
            _ => config.frontend("sessions_max = 10"),
        };
        let balancer = Balancer::start(&env, &config);
        let mut clients: Vec<TcpStream> = (0..10).map(|_| connect(env.frontend())).collect();
        for client in &clients {
            assert_eq!(exchange(client, b"in"), b"in");
        }
        let mut eleventh = connect(env.frontend());
        eleventh.write_all(b"me too").unwrap();
        assert!(holds_for(Duration::from_millis(500), || !answered(&eleventh)), "{limit}");
        assert_eq!(server.accepted(), 10, "{limit}");
        let log = || balancer.application_log();
        until("the limit is logged", || log().contains("sessions_max (10) is reached"));
        clients.pop();
        let mut answer = [0; 6];
        eleventh.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"me too");
        drop((clients, eleventh));
        assert_eq!(balancer.assert_no_leaks().closed("done"), 11.0, "{limit}");
    }
}

#[test]
fn a_server_at_its_sessions_max_gets_no_new_session() {
    let env = TestEnv::new();
    let (a, b) = (Server::echo(env.port(9001)), Server::echo(env.port(9002)));
    let config = Config::new(&env).server_with("a", a.address, "sessions_max = 2");
    let balancer = Balancer::start(&env, &config.server("b", b.address));
    let clients: Vec<TcpStream> = (0..10).map(|_| connect(env.frontend())).collect();
    for client in &clients {
        assert_eq!(exchange(client, b"in"), b"in");
    }
    assert_eq!((a.accepted(), b.accepted()), (2, 8));
    drop(clients);
    balancer.assert_no_leaks();
}

/// Connects clients until `spare` descriptors are used up, and then frees some.
fn starve(spare: usize) {
    let env = TestEnv::exclusive();
    let server = Server::echo(env.port(9001));
    // With so few sessions, accepts are armed one by one: each meets the limit of that moment.
    let config = Config::new(&env).global("sessions_max = 20").server("a", server.address);
    let balancer = Balancer::start(&env, &config);
    limit_descriptors(balancer.pid(), stable_descriptors(&balancer) + spare);
    let mut served = Vec::new();
    loop {
        match enter(&balancer) {
            Entry::Served(client) => served.push(client),
            Entry::Waits(client) => {
                assert_waits(&balancer, &client, &mut served);
                served.push(client);
                break;
            }
            Entry::Reset => panic!("it is reset: {}", balancer.sessions().join("\n")),
        }
    }
    for client in &served[..served.len() - 1] {
        assert_eq!(exchange(client, b"goes on"), b"goes on");
    }
    limit_descriptors(balancer.pid(), 1000);
    drop(served);
    assert_eq!(balancer.assert_no_leaks().closed("exhausted"), 0.0);
}

/// The number of its descriptors once the last connection of a scrape is closed, which a busy
/// machine delays.
fn stable_descriptors(balancer: &Balancer<'_>) -> usize {
    let count = || Descriptors::of(balancer.pid()).all();
    until_some("the number of its descriptors is stable", || {
        let first = count();
        holds_for(Duration::from_millis(500), || count() == first).then_some(first)
    })
}

/// What happens to a new client.
enum Entry {
    Served(TcpStream),
    /// Connected by the kernel, and not accepted.
    Waits(TcpStream),
    Reset,
}

/// Connects a client, and waits until it is served, reset, or known to wait.
fn enter(balancer: &Balancer<'_>) -> Entry {
    let mut client = match TcpStream::connect_timeout(&balancer.env.frontend(), TIMEOUT) {
        Ok(client) => client,
        Err(error) if is_reset(&error) => return Entry::Reset,
        Err(error) => panic!("{error}"),
    };
    if client.write_all(b"in").is_err() {
        return Entry::Reset;
    }
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    until_some("the client is served, reset, or known to wait", || {
        // Read first: if the client is reset, that happens before the line is logged, and the read
        // below returns it.
        let log = balancer.application_log();
        let waits = log.contains("cannot accept") || log.contains("descriptors was lowered");
        match client.read_exact(&mut [0; 2]) {
            Ok(()) => {
                set_timeouts(&client);
                Some(Entry::Served(client.try_clone().unwrap()))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && waits => {
                set_timeouts(&client);
                Some(Entry::Waits(client.try_clone().unwrap()))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) if is_reset(&error) => Some(Entry::Reset),
            Err(error) => panic!("an orderly end without an answer: {error}"),
        }
    })
}

/// While a client waits for a descriptor, the worker does not use the processor, the operator is
/// told, and other sessions continue. The client is served once another one has closed.
fn assert_waits(balancer: &Balancer<'_>, waiting: &TcpStream, served: &mut Vec<TcpStream>) {
    let before = ticks(balancer.pid());
    assert!(holds_for(Duration::from_secs(1), || !answered(waiting)));
    let used = ticks(balancer.pid()) - before;
    assert!(used < 20, "{used} ticks of 10 ms within a second");
    let first = served.pop().expect("a client was served before descriptors ran out");
    assert_eq!(exchange(&first, b"goes on"), b"goes on");
    drop(first);
    until("the waiting client is served", || answered(waiting));
    let log = balancer.application_log();
    let lines = log.matches("cannot accept").count() + log.matches("was lowered").count();
    assert!((1..=10).contains(&lines), "{lines} lines: {log}");
}

#[test]
fn without_descriptors_new_clients_wait_and_sessions_continue() {
    // Cases 46 and 47: a session takes two descriptors. Of an odd and an even limit, one leaves a
    // client without a server socket, and the other one leaves none for the client.
    [8, 9].into_iter().for_each(starve);
}

#[test]
fn a_drain_serves_every_waiting_client_even_if_they_are_more_than_descriptors() {
    let env = TestEnv::exclusive();
    let server = Server::echo(env.port(9001));
    let config = Config::new(&env).global("sessions_max = 4").server("a", server.address);
    let balancer = Balancer::start(&env, &config);
    let inside: Vec<TcpStream> = (0..4).map(|_| connect(env.frontend())).collect();
    for client in &inside {
        assert_eq!(exchange(client, b"in"), b"in");
    }
    limit_descriptors(balancer.pid(), balancer.base.all() + 60);
    let mut waiting: Vec<TcpStream> = (0..120).map(|_| connect(env.frontend())).collect();
    for client in &mut waiting {
        client.write_all(b"me too").unwrap();
    }
    balancer.signal(Signal::SIGTERM);
    until("the drain has begun", || balancer.application_log().contains("draining for"));
    drop(inside);
    for (number, mut client) in waiting.into_iter().enumerate() {
        let mut answer = [0; 6];
        client.read_exact(&mut answer).unwrap_or_else(|why| panic!("client {number}: {why}"));
        assert_eq!(&answer, b"me too");
    }
    drop(server);
}

#[test]
fn a_drain_serves_clients_that_wait_on_another_worker_as_sessions_end() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let config = Config::new(&env).workers(2).global("sessions_max = 1");
    let mut balancer = Balancer::start(&env, &config.server("a", server.address));
    let first = connect(env.frontend());
    assert_eq!(exchange(&first, b"in"), b"in");
    let mut waiting: Vec<TcpStream> = (0..16).map(|_| connect(env.frontend())).collect();
    for client in &mut waiting {
        client.write_all(b"me too").unwrap();
    }
    balancer.signal(Signal::SIGTERM);
    until("new connections are refused", || TcpStream::connect(env.frontend()).is_err());
    drop(first);
    until("each waiting client is served", || {
        waiting.retain(|client| !answered(client));
        waiting.is_empty()
    });
    assert!(balancer.wait().success());
}

#[test]
fn a_sessions_max_beyond_the_descriptor_limit_is_refused_with_the_numbers() {
    let env = TestEnv::new(); // case 53
    let config = Config::new(&env).global("sessions_max = 5000");
    let file = write_config(&env, &config.server("a", env.port(9001)).text());
    let output = Command::new("prlimit")
        .args(["--nofile=1024:1024", PROGRAM, "run", "-c"])
        .arg(&file)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{stderr}");
    for part in [&format!("{}:3:", file.display()), "5000", "1024", "LimitNOFILE"] {
        assert!(stderr.contains(part), "{part} is not in: {stderr}");
    }
}

#[test]
fn clients_that_do_not_read_leave_buffers_to_others() {
    let env = TestEnv::exclusive(); // case 54
    let server = Server::echo(env.port(9001));
    let config = Config::new(&env).global("buffers = \"256KiB\"");
    let balancer = Balancer::start(&env, &config.server("a", server.address));
    let stopped: Vec<TcpStream> = (0..12).map(|_| connect(env.frontend())).collect();
    fill(&stopped, 16 * 1024);
    let other = connect(env.frontend());
    for _ in 0..20 {
        assert_eq!(exchange(&other, b"some bytes"), b"some bytes");
    }
    drop((stopped, other));
    balancer.assert_no_leaks();
}

#[test]
fn clients_that_connect_and_send_nothing_do_not_delay_others() {
    let env = TestEnv::exclusive();
    let server = Server::echo(env.port(9001));
    let balancer = Balancer::start(&env, &Config::new(&env).workers(2).server("a", server.address));
    let silent: Vec<TcpStream> = (0..500).map(|_| connect(env.frontend())).collect();
    for _ in 0..50 {
        let client = connect(env.frontend());
        assert_eq!(exchange(&client, b"hello"), b"hello");
    }
    drop(silent);
    assert_eq!(balancer.assert_no_leaks().closed("done"), 550.0);
}

/// The backlog of the socket that listens at the frontend: what `ss` shows as its Send-Q.
fn backlog(env: &TestEnv) -> String {
    let filter = format!("src {}", env.frontend());
    let output = Command::new("ss").args(["-Hltn", &filter]).output().unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    line.split_whitespace().nth(2).unwrap_or_else(|| panic!("no socket: {line}")).to_owned()
}

#[test]
fn the_listen_backlog_is_the_configured_one_and_follows_a_reload() {
    if Command::new("ss").arg("-V").output().is_err() {
        let name = "the_listen_backlog_is_the_configured_one_and_follows_a_reload";
        skip(name, "needs ss: apt-get install iproute2");
        return;
    }
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let with = |lines| Config::new(&env).frontend(lines).server("a", server.address);
    let balancer = Balancer::start(&env, &with("backlog = 77"));
    assert_eq!(backlog(&env), "77");
    balancer.reload(&with("backlog = 33"));
    assert_eq!(backlog(&env), "33");
    let limit = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    balancer.reload(&with(""));
    let default = 4096.min(limit.trim().parse().unwrap());
    assert_eq!(backlog(&env), default.to_string());
}
