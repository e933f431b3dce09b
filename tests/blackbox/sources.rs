//! `backend.source`: the addresses that connections to servers come from.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use socket2::{Domain, Socket, Type};

use crate::common::balancer::{PROGRAM, printed, write_config};
use crate::common::client::{Ending, connect_and_read, fetch};
use crate::common::wait::{TIMEOUT, until};
use crate::common::{Balancer, Config, Server, TestEnv};
use crate::network_namespace::{enter, ip};

/// A server that sends each client the address that it comes from.
fn telling(address: SocketAddr) -> Server {
    Server::start(address, |mut stream| {
        let peer = stream.peer_addr().unwrap().ip();
        drop(write!(stream, "{peer}"));
    })
}

#[test]
fn source_addresses_take_turns() {
    let env = TestEnv::new();
    let server = telling(env.port(9001));
    let config = Config::new(&env).backend("source = [\"127.0.0.11\", \"127.0.0.12\"]");
    let balancer = Balancer::start(&env, &config.server("a", server.address));
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..10 {
        *seen.entry(fetch(env.frontend()).unwrap()).or_default() += 1;
    }
    let expected = BTreeMap::from([("127.0.0.11".to_owned(), 5), ("127.0.0.12".to_owned(), 5)]);
    assert_eq!(seen, expected);
    balancer.assert_no_leaks();
}

#[test]
fn a_reload_changes_the_source_of_new_connections() {
    let env = TestEnv::new();
    let server = telling(env.port(9001));
    let config = |source: &str| {
        let config = Config::new(&env).backend(&format!("source = {source}"));
        config.server("a", server.address)
    };
    let balancer = Balancer::start(&env, &config("\"127.0.0.11\""));
    assert_eq!(fetch(env.frontend()).unwrap(), "127.0.0.11");
    balancer.reload(&config("[\"127.0.0.12\"]"));
    assert_eq!(fetch(env.frontend()).unwrap(), "127.0.0.12");
    balancer.reload(&config("[]"));
    assert_eq!(fetch(env.frontend()).unwrap(), "127.0.0.1");
    balancer.assert_no_leaks();
}

#[test]
fn probes_come_from_each_source_in_turn() {
    let env = TestEnv::new();
    let seen: Arc<Mutex<Vec<IpAddr>>> = Arc::default();
    let by_server = Arc::clone(&seen);
    let server = Server::start(env.port(9001), move |stream| {
        if let Ok(peer) = stream.peer_addr() {
            by_server.lock().unwrap().push(peer.ip());
        }
    });
    let config = Config::new(&env).backend("source = [\"127.0.0.11\", \"127.0.0.12\"]");
    let _balancer = Balancer::start(&env, &config.quick_health("http").server("a", server.address));
    let sources: [IpAddr; 2] = ["127.0.0.11".parse().unwrap(), "127.0.0.12".parse().unwrap()];
    until("both sources were seen", || {
        sources.iter().all(|source| seen.lock().unwrap().contains(source))
    });
    assert!(seen.lock().unwrap().iter().all(|source| sources.contains(source)));
}

#[test]
fn an_address_of_another_machine_is_named_in_the_log_the_status_and_by_doctor() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let config = Config::new(&env).backend("source = [\"192.0.2.77\"]").quick_health("tcp");
    let config = config.server("a", server.address);
    let balancer = Balancer::start(&env, &config);
    assert_eq!(connect_and_read(env.frontend()), (Vec::new(), Ending::Reset));
    balancer.session_ended("SC connect_failed");
    let metrics = balancer.assert_no_leaks();
    let labels = [("server", "a"), ("reason", "no_source")];
    assert_eq!(metrics.sum("evenkeel_server_connect_failures_total", &labels), 3.0);
    assert!(metrics.up("a"), "the server is not to blame");
    let named = "source 192.0.2.77 is not an address of this machine (EADDRNOTAVAIL)";
    until("the status names it", || balancer.control_ok(&["status"]).contains(named));
    until("the log names it", || {
        balancer.application_log().contains(&format!("a connect failed (no_source): {named}"))
    });
    for command in ["doctor", "check"] {
        let file = write_config(&env, &config.text());
        let output = Command::new(PROGRAM).arg(command).arg("-c").arg(file).output().unwrap();
        assert!(printed(&output).contains(named), "{command}: {}", printed(&output));
    }
}

#[test]
fn with_one_of_two_sources_gone_sessions_are_tried_again_from_the_other() {
    let env = TestEnv::new();
    let server = telling(env.port(9001));
    let config = Config::new(&env).backend("source = [\"192.0.2.77\", \"127.0.0.12\"]");
    let balancer = Balancer::start(&env, &config.server("a", server.address));
    for _ in 0..10 {
        assert_eq!(fetch(env.frontend()).unwrap(), "127.0.0.12");
    }
    balancer.assert_no_leaks();
}

#[test]
fn a_server_without_a_source_of_its_family_is_an_error_of_the_file() {
    let env = TestEnv::new();
    let config = Config::new(&env).backend("source = [\"::1\"]").server("a", env.port(9001));
    let output = Command::new(PROGRAM)
        .args(["check", "-c"])
        .arg(write_config(&env, &config.text()))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let text = printed(&output);
    assert!(text.contains("server \"a\" needs a source of its family"), "{text}");
    assert!(text.contains("add an IPv4 address"), "{text}");
}

/// A client with this address. As for evenkeel, the kernel chooses its port when it connects: one
/// that is bound before is not given to any other connection, whatever its address is.
///
/// # Errors
/// It was reset at once.
fn client(ip: [u8; 4], to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    setsockopt(&socket, IpBindAddressNoPort, &true).unwrap();
    socket.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
    socket.connect_timeout(&to.into(), TIMEOUT)?;
    Ok(socket.into())
}

#[test]
fn two_sources_have_ports_for_twice_as_many_sessions() {
    let test = "two_sources_have_ports_for_twice_as_many_sessions";
    if !enter(test) {
        return;
    }
    // A thousand ports to connect from, with each address.
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40999").unwrap();
    let env = TestEnv::exclusive();
    let (server, connections) = Server::handing_over(env.port(9001));
    let config =
        Config::new(&env).backend("source = [\"127.0.0.11\", \"127.0.0.12\"]\nretries = 0");
    let balancer = Balancer::start(&env, &config.server("a", server.address));
    let mut open = Vec::new();
    for number in 0..1900_u32 {
        let group = u8::try_from(number / 400).unwrap();
        let client = client([127, 0, 1, group], env.frontend()).unwrap();
        open.push((client, connections.recv_timeout(TIMEOUT).unwrap()));
    }
    let metrics = balancer.metrics();
    assert_eq!(metrics.value("evenkeel_sessions_active", &[]), 1900.0);
    assert_eq!(metrics.sum("evenkeel_server_connect_failures_total", &[]), 0.0);
    // Beyond both, a session ends with the reason that says so.
    let more: Vec<io::Result<TcpStream>> =
        (0..200).map(|_| client([127, 0, 2, 1], env.frontend())).collect();
    balancer.session_ended("RC exhausted");
    let labels = [("server", "a"), ("reason", "no_port")];
    assert!(balancer.metrics().sum("evenkeel_server_connect_failures_total", &labels) >= 1.0);
    drop((open, more, connections));
    balancer.assert_no_leaks();
}

#[test]
fn a_source_of_ipv6_is_used_with_its_servers() {
    let test = "a_source_of_ipv6_is_used_with_its_servers";
    if !enter(test) {
        return;
    }
    ip("-6 addr add fd00::7/128 dev lo nodad");
    let env = TestEnv::new();
    let (v6, v4) = (telling("[::1]:9001".parse().unwrap()), telling(env.port(9001)));
    let config = Config::new(&env).backend("source = [\"127.0.0.11\", \"fd00::7\"]");
    let config = config.server("six", v6.address).server("four", v4.address);
    let balancer = Balancer::start(&env, &config);
    let mut seen: Vec<String> = (0..2).map(|_| fetch(env.frontend()).unwrap()).collect();
    seen.sort();
    assert_eq!(seen, ["127.0.0.11", "fd00::7"]);
    balancer.assert_no_leaks();
}
