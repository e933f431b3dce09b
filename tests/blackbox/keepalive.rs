//! `keepalive`: evenkeel detects peers that no longer respond, whether bytes are in flight or not.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::client::{Ending, connect, exchange, read_to_end};
use crate::common::wait::{holds_for, until};
use crate::common::{Balancer, Config, Server, TestEnv, echoing, skip};
use crate::machines::{Machines, TO_CLIENT, at_server};

/// The time that the documentation states for `keepalive = "1s"`: 1 s of silence and three probes,
/// a second apart; and at most an eighth more for the timers of the kernel.
const STATED: Duration = Duration::from_millis(4500);

/// For a machine that is busy with other tests.
const SLACK: Duration = Duration::from_secs(8);

/// Reads until the stream ends; how it ended, and how long that took from `start`.
fn ending(stream: &TcpStream, start: Instant) -> (Ending, Duration) {
    (read_to_end(stream).1, start.elapsed())
}

#[track_caller]
fn assert_in_time(took: Duration) {
    assert!(took > Duration::from_secs(2), "before the probes had time: {took:?}");
    assert!(took < STATED + SLACK, "{took:?}");
}

/// A session between two machines: the client's end, and the server's.
fn session(machines: &Machines, frontend: SocketAddr, server: &Received) -> (TcpStream, TcpStream) {
    let client = machines.client.run(|| connect(frontend));
    let server = server.recv_timeout(Duration::from_secs(20)).unwrap();
    (client, server)
}

type Received = std::sync::mpsc::Receiver<TcpStream>;

fn start<'a>(
    env: &'a TestEnv,
    machines: &Machines,
    lines: (&str, &str),
) -> (Balancer<'a>, SocketAddr, Server, Received) {
    let (server, received) = machines.server.run(|| Server::handing_over(at_server(9001)));
    let frontend = SocketAddr::new(TO_CLIENT, 8000);
    let config = Config::new(env).bind(frontend).frontend(lines.0).backend(lines.1);
    let balancer = Balancer::start(env, &config.server("a", server.address));
    (balancer, frontend, server, received)
}

#[test]
fn a_silent_session_ends_when_the_link_of_its_server_dies() {
    let Some(machines) = Machines::new("a_silent_session_ends_when_the_link_of_its_server_dies")
    else {
        return;
    };
    let env = TestEnv::new();
    let (balancer, frontend, _server, received) =
        start(&env, &machines, ("idle_timeout = \"off\"", "keepalive = \"1s\""));
    let (client, _at_server) = session(&machines, frontend, &received);
    machines.server.cut_off();
    let (ended, took) = ending(&client, Instant::now());
    assert_eq!(ended, Ending::Reset);
    assert_in_time(took);
    balancer.session_ended("SD server_reset");
    balancer.assert_no_leaks();
}

#[test]
fn a_silent_session_ends_when_the_link_of_its_client_dies() {
    let Some(machines) = Machines::new("a_silent_session_ends_when_the_link_of_its_client_dies")
    else {
        return;
    };
    let env = TestEnv::new();
    let (balancer, frontend, _server, received) =
        start(&env, &machines, ("idle_timeout = \"off\"\nkeepalive = \"1s\"", ""));
    let (_client, at_server) = session(&machines, frontend, &received);
    machines.client.cut_off();
    let (ended, took) = ending(&at_server, Instant::now());
    assert_eq!(ended, Ending::Reset);
    assert_in_time(took);
    balancer.session_ended("CD client_reset");
    balancer.assert_no_leaks();
}

#[test]
fn a_dead_peer_is_noticed_with_bytes_in_flight_to_it() {
    let Some(machines) = Machines::new("a_dead_peer_is_noticed_with_bytes_in_flight_to_it") else {
        return;
    };
    let env = TestEnv::new();
    let lines = ("idle_timeout = \"off\"\nkeepalive = \"1s\"", "keepalive = \"1s\"");
    let (balancer, frontend, _server, received) = start(&env, &machines, lines);
    let (mut client, _at_server) = session(&machines, frontend, &received);
    machines.server.cut_off();
    let started = Instant::now();
    client.write_all(b"are you there?").unwrap();
    let (ended, took) = ending(&client, started);
    assert_eq!(ended, Ending::Reset);
    assert_in_time(took);
    balancer.session_ended("SD server_reset");
    balancer.assert_no_leaks();
}

#[test]
fn a_dead_client_is_noticed_with_bytes_in_flight_to_it() {
    let Some(machines) = Machines::new("a_dead_client_is_noticed_with_bytes_in_flight_to_it")
    else {
        return;
    };
    let env = TestEnv::new();
    let lines = ("idle_timeout = \"off\"\nkeepalive = \"1s\"", "");
    let (balancer, frontend, _server, received) = start(&env, &machines, lines);
    let (_client, mut at_server) = session(&machines, frontend, &received);
    machines.client.cut_off();
    let started = Instant::now();
    at_server.write_all(b"are you there?").unwrap();
    let (ended, took) = ending(&at_server, started);
    assert_eq!(ended, Ending::Reset);
    assert_in_time(took);
    balancer.session_ended("CD client_reset");
    balancer.assert_no_leaks();
}

#[test]
fn without_keepalive_a_dead_link_is_not_noticed() {
    let Some(machines) = Machines::new("without_keepalive_a_dead_link_is_not_noticed") else {
        return;
    };
    let env = TestEnv::new();
    let (balancer, frontend, _server, received) =
        start(&env, &machines, ("idle_timeout = \"off\"", ""));
    let (_client, _at_server) = session(&machines, frontend, &received);
    machines.server.cut_off();
    let active = || balancer.metrics().value("evenkeel_sessions_active", &[]);
    assert!(holds_for(STATED + Duration::from_secs(1), || active() == 1.0));
}

#[test]
fn a_peer_that_answers_probes_is_left_alone() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let config = config.frontend("keepalive = \"1s\"").backend("keepalive = \"1s\"");
    let balancer = Balancer::start(&env, &config);
    let client = connect(env.frontend());
    assert_eq!(exchange(&client, b"x"), b"x");
    let active = || balancer.metrics().value("evenkeel_sessions_active", &[]);
    assert!(holds_for(STATED + Duration::from_secs(1), || active() == 1.0));
    assert_eq!(exchange(&client, b"y"), b"y");
}

#[test]
fn a_client_that_keeps_its_window_closed_counts_as_dead() {
    let env = TestEnv::new();
    let server = Server::start(env.port(9001), |mut stream| {
        let chunk = vec![7; 64 * 1024];
        while stream.write_all(&chunk).is_ok() {}
    });
    let config = Config::new(&env).frontend("idle_timeout = \"off\"\nkeepalive = \"1s\"");
    let balancer = Balancer::start(&env, &config.server("a", server.address));
    let _client = connect(env.frontend());
    balancer.session_ended("CD client_reset");
    balancer.assert_no_leaks();
}

/// The balancer's end of the connection of `client`, as `ss` shows it.
fn shown(client: &TcpStream) -> String {
    let (own, peer) = (client.peer_addr().unwrap(), client.local_addr().unwrap());
    let filter = format!("src {own} and dst {peer}");
    let output = Command::new("ss").args(["-Htno", &filter]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.is_empty(), "no connection {filter}");
    text
}

#[test]
fn a_change_over_a_reload_applies_to_new_connections() {
    if Command::new("ss").arg("-V").output().is_err() {
        skip("a_change_over_a_reload_applies_to_new_connections", "not installed: ss");
        return;
    }
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let balancer = Balancer::start(&env, &config);
    let has_timer = |client: &TcpStream| shown(client).contains("timer:(keepalive,");
    let old = connect(env.frontend());
    assert_eq!(exchange(&old, b"x"), b"x");
    balancer.reload(&config.clone().frontend("keepalive = \"1h\""));
    let new = connect(env.frontend());
    assert_eq!(exchange(&new, b"x"), b"x");
    // A timer of a retransmission may be shown until the last bytes are acknowledged.
    until("the new connection has a timer", || has_timer(&new));
    assert!(!has_timer(&old));
    balancer.reload(&config);
    let off = connect(env.frontend());
    assert_eq!(exchange(&off, b"x"), b"x");
    assert!(!has_timer(&off) && has_timer(&new));
}
