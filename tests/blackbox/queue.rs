//! The queue of a backend: clients that wait while every server is at its `sessions_max`.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::common::client::{Ending, connect, connect_and_read, read_to_end, reset};
use crate::common::wait::holds_for;
use crate::common::{Balancer, Config, Server, TestEnv};
use crate::unix::{dial, drain, frontend, socket_of};

fn config(env: &TestEnv, server: &Server, sessions_max: u32) -> Config {
    let limit = format!("sessions_max = {sessions_max}");
    Config::new(env).backend("queue_timeout = \"1m\"").server_with("a", server.address, &limit)
}

/// Waits until so many sessions are queued.
fn queued(balancer: &Balancer<'_>, count: f64) {
    balancer.metrics_until(&format!("{count} sessions wait"), |metrics| {
        metrics.value("evenkeel_queue_sessions", &[("backend", "web")]) == count
    });
}

/// A client that has sent one byte.
fn asking(env: &TestEnv, byte: u8) -> TcpStream {
    let mut client = connect(env.frontend());
    client.write_all(&[byte]).unwrap();
    client
}

/// The answer of the server to that client.
fn answer(mut client: &TcpStream) -> u8 {
    let mut byte = [0];
    client.read_exact(&mut byte).unwrap();
    byte[0]
}

/// Whether an answer has come.
fn is_served(client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let served = client.peek(&mut [0]).is_ok();
    client.set_nonblocking(false).unwrap();
    served
}

#[test]
fn clients_are_served_in_the_order_in_which_they_came_over_all_workers() {
    for workers in [1, 2] {
        let env = TestEnv::new();
        let server = Server::echo(env.port(9001));
        let balancer = Balancer::start(&env, &config(&env, &server, 1).workers(workers));
        let first = asking(&env, 0);
        assert_eq!(answer(&first), 0);
        let mut waiting = Vec::new();
        for number in 1..=10 {
            waiting.push(asking(&env, number));
            queued(&balancer, number.into());
        }
        drop(first);
        for number in 1..=10 {
            let client = waiting.remove(0);
            assert_eq!(answer(&client), number, "{workers} workers");
            queued(&balancer, (10 - number).into());
            assert!(!waiting.iter().any(is_served), "one at a time");
            drop(client);
        }
        assert_eq!(server.accepted(), 11);
        let metrics = balancer.assert_no_leaks();
        let waits = metrics.value("evenkeel_queue_duration_seconds_count", &[("backend", "web")]);
        assert_eq!((waits, metrics.closed("queue_timeout")), (10.0, 0.0));
    }
}

#[test]
fn a_client_that_leaves_the_queue_gives_its_place_up() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let mut balancer = Balancer::start(&env, &config(&env, &server, 1).workers(2));
    let first = asking(&env, 0);
    assert_eq!(answer(&first), 0);
    let mut waiting = Vec::new();
    for number in 1..=4 {
        waiting.push(asking(&env, number));
        queued(&balancer, number.into());
    }
    // The first in the queue, and one in the middle.
    reset(waiting.remove(0));
    reset(waiting.remove(1));
    queued(&balancer, 2.0);
    assert!(balancer.session_ended("client_left").contains("CQ"));
    drop(first);
    assert_eq!(answer(&waiting[0]), 2);
    waiting.remove(0);
    assert_eq!(answer(&waiting[0]), 4);
    assert!(balancer.runs());
    drop(waiting);
    balancer.assert_no_leaks();
}

/// A client of the unix socket that has sent these bytes.
fn asking_unix(env: &TestEnv, bytes: &[u8]) -> Socket {
    let mut client = dial(&socket_of(env)).unwrap();
    client.write_all(bytes).unwrap();
    client
}

#[test]
fn a_unix_client_that_closes_gives_its_place_up() {
    // More than a session receives before it has a server.
    let much = vec![7; 100_000];
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let config = config(&env, &server, 1).backend("queue_max = 1").more(&frontend(&env, ""));
    let mut balancer = Balancer::start(&env, &config);
    let first = asking(&env, 0);
    assert_eq!(answer(&first), 0);
    for bytes in [&b""[..], b"1", &much] {
        let client = asking_unix(&env, bytes);
        queued(&balancer, 1.0);
        drop(client);
        queued(&balancer, 0.0);
        // After an end, which is not a close.
        let client = asking_unix(&env, &bytes[..bytes.len().min(1)]);
        queued(&balancer, 1.0);
        client.shutdown(Shutdown::Write).unwrap();
        assert!(holds_for(Duration::from_millis(50), || balancer.runs()));
        drop(client);
        queued(&balancer, 0.0);
    }
    assert!(balancer.session_ended("client_left").contains("CQ"));
    let next = asking_unix(&env, b"5");
    queued(&balancer, 1.0);
    drop(first);
    assert_eq!((&next).read(&mut [0]).unwrap(), 1);
    drop(next);
    assert_eq!(server.accepted(), 2);
    let metrics = balancer.assert_no_leaks();
    assert_eq!((metrics.closed("client_left"), metrics.closed("queue_full")), (6.0, 0.0));
}

#[test]
fn a_unix_client_that_has_only_ended_its_direction_keeps_its_place() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let config = config(&env, &server, 1).more(&frontend(&env, ""));
    let balancer = Balancer::start(&env, &config);
    let first = asking(&env, 0);
    assert_eq!(answer(&first), 0);
    let waiting = [&b""[..], b"one"].map(|bytes| (asking_unix(&env, bytes), bytes));
    for (client, _) in &waiting {
        client.shutdown(Shutdown::Write).unwrap();
    }
    queued(&balancer, 2.0);
    // For longer than a TCP client that has sent nothing but its end.
    assert!(holds_for(Duration::from_secs(2), || {
        balancer.metrics().value("evenkeel_queue_sessions", &[("backend", "web")]) == 2.0
    }));
    drop(first);
    for (client, bytes) in &waiting {
        assert_eq!(drain(client), *bytes);
    }
    drop(waiting);
    let metrics = balancer.assert_no_leaks();
    assert_eq!((metrics.closed("done"), metrics.closed("client_left")), (3.0, 0.0));
}

#[test]
fn beyond_queue_max_a_client_is_reset_at_once() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let config = config(&env, &server, 1).backend("queue_max = 2");
    let balancer = Balancer::start(&env, &config);
    let first = asking(&env, 0);
    assert_eq!(answer(&first), 0);
    let waiting = [asking(&env, 1), asking(&env, 2)];
    queued(&balancer, 2.0);
    assert_eq!(connect_and_read(env.frontend()), (Vec::new(), Ending::Reset));
    assert!(balancer.session_ended("queue_full").contains("SQ"));
    queued(&balancer, 2.0);
    drop(first);
    assert_eq!(answer(&waiting[0]), 1);
}

#[test]
fn a_client_waits_for_queue_timeout_at_most() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let limit = "sessions_max = 1";
    let config = Config::new(&env).backend("queue_timeout = \"1s\"");
    let balancer = Balancer::start(&env, &config.server_with("a", server.address, limit));
    let first = asking(&env, 0);
    assert_eq!(answer(&first), 0);
    let began = Instant::now();
    assert_eq!(read_to_end(&asking(&env, 1)), (Vec::new(), Ending::Reset));
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert!(balancer.session_ended("queue_timeout").contains("sQ"));
    assert_eq!(server.accepted(), 1);
    drop(first);
    balancer.assert_no_leaks();
}

#[test]
fn room_that_a_reload_or_an_order_makes_is_taken_by_those_that_wait() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let other = Server::echo(env.port(9002));
    let two = |state: &str, max| {
        config(&env, &server, max).server_with("b", other.address, &format!("state = \"{state}\""))
    };
    let balancer = Balancer::start(&env, &two("maint", 1).workers(2));
    let first = asking(&env, 0);
    assert_eq!(answer(&first), 0);
    let waiting: Vec<_> = (1..=4).map(|number| asking(&env, number)).collect();
    queued(&balancer, 4.0);
    balancer.reload(&two("maint", 2).workers(2));
    queued(&balancer, 3.0);
    balancer.control_ok(&["ready", "web/b"]);
    queued(&balancer, 0.0);
    for (client, number) in waiting.iter().zip(1..) {
        assert_eq!(answer(client), number);
    }
    drop((first, waiting));
    balancer.assert_no_leaks();
}

#[test]
fn clients_that_wait_follow_their_frontend_to_another_backend() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let other = Server::echo(env.port(9002));
    let backend = |limit: u32| {
        format!(
            "[backend.other]\nqueue_timeout = \"1m\"\n[backend.other.health]\ncheck = \"off\"\n\
             [[backend.other.server]]\nname = \"b\"\naddress = \"{}\"\nsessions_max = {limit}\n",
            other.address
        )
    };
    let moved = |limit| {
        let text = config(&env, &server, 1).workers(2).more(&backend(limit)).text();
        text.replace("backend = \"web\"", "backend = \"other\"")
    };
    let before = config(&env, &server, 1).workers(2);
    let balancer = Balancer::start(&env, &before);
    let first = asking(&env, 0);
    assert_eq!(answer(&first), 0);
    let waiting: Vec<_> = (1..=4).map(|number| asking(&env, number)).collect();
    queued(&balancer, 4.0);
    balancer.rewrite(&moved(2));
    balancer.control_ok(&["reload"]);
    let in_other = |count: f64| {
        balancer
            .metrics_until(&format!("{count} sessions wait for the other backend"), |metrics| {
                metrics.value("evenkeel_queue_sessions", &[("backend", "other")]) == count
            });
    };
    in_other(2.0);
    balancer.rewrite(&moved(9));
    balancer.control_ok(&["reload"]);
    in_other(0.0);
    for (client, number) in waiting.iter().zip(1..) {
        assert_eq!(answer(client), number);
    }
    drop((first, waiting));
    balancer.assert_no_leaks();
}

#[test]
fn clients_that_wait_are_told_when_the_last_server_is_taken_away() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let balancer = Balancer::start(&env, &config(&env, &server, 1));
    let first = asking(&env, 0);
    assert_eq!(answer(&first), 0);
    let waiting = [asking(&env, 1), asking(&env, 2)];
    queued(&balancer, 2.0);
    balancer.control_ok(&["maint", "web/a"]);
    for client in &waiting {
        assert_eq!(read_to_end(client), (Vec::new(), Ending::Reset));
    }
    assert_eq!(balancer.metrics().closed("no_server"), 2.0);
    drop(first);
    balancer.assert_no_leaks();
}
