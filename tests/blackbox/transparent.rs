//! `source = "client"`: servers see the address of the client, with the routes of
//! docs/transparent.md.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::common::balancer::{PROGRAM, printed, write_config};
use crate::common::client::{
    Ending, connect, connect_and_read, exchange, read_to_end, reset, shut_down,
};
use crate::common::process::is_stopped;
use crate::common::wait::{TIMEOUT, until};
use crate::common::{Balancer, Config, Server, TestEnv, skip};
use crate::machines::{Machines, TO_CLIENT, TO_SERVER, at_server};
use crate::network_namespace::{enter, ip};

/// Answers of servers to clients arrive at this machine, which does not have their addresses:
/// they are delivered here.
fn route_answers_here() {
    for family in ["-4", "-6"] {
        ip(&format!("{family} rule add iif to-server ipproto tcp sport 9001 lookup 100"));
        ip(&format!("{family} route add local default dev lo table 100"));
    }
}

/// The same by a mark of packets that belong to a socket of this machine. False: not possible.
fn mark_answers(test: &str) -> bool {
    let rules = "table inet evenkeel {\nchain prerouting {\n\
                 type filter hook prerouting priority mangle;\n\
                 meta l4proto tcp socket transparent 1 meta mark set 1 accept\n}\n}\n";
    let done = Command::new("nft").arg(rules).output();
    if !done.is_ok_and(|output| output.status.success()) {
        skip(test, "nft is missing, or this kernel has no socket expression");
        return false;
    }
    ip("rule add fwmark 1 lookup 100");
    ip("route add local default dev lo table 100");
    true
}

/// A server that tells each client the address that it comes from, and then echoes.
fn telling(address: SocketAddr) -> (Server, Arc<Mutex<Vec<SocketAddr>>>) {
    let seen: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
    let by_server = Arc::clone(&seen);
    let server = Server::start(address, move |mut stream| {
        let Ok(peer) = stream.peer_addr() else { return };
        by_server.lock().unwrap().push(peer);
        drop(stream.write_all(format!("{peer}\n").as_bytes()));
        crate::common::server::echo(&stream);
    });
    (server, seen)
}

/// The address that the server told.
fn told(mut stream: &TcpStream) -> SocketAddr {
    let mut text = String::new();
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() && byte != *b"\n" {
        text.push(char::from(byte[0]));
    }
    text.parse().unwrap()
}

#[test]
fn servers_see_the_address_and_the_port_of_the_client() {
    let Some(machines) = Machines::new("servers_see_the_address_and_the_port_of_the_client") else {
        return;
    };
    route_answers_here();
    let env = TestEnv::new();
    let (v4, _) = machines.server.run(|| telling(at_server(9001)));
    let (v6, _) = machines.server.run(|| telling("[fd00:2::2]:9001".parse().unwrap()));
    let bind = SocketAddr::new(TO_CLIENT, 8000);
    let bind6: SocketAddr = "[fd00:1::1]:8000".parse().unwrap();
    let config = Config::new(&env).workers(2).bind(bind).backend("source = \"client\"");
    let config = config.server("a", v4.address).more(&format!(
        "[frontend.six]\nbind = [\"{bind6}\"]\nbackend = \"six\"\n[backend.six]\n\
         source = \"client\"\n[[backend.six.server]]\nname = \"b\"\naddress = \"{}\"\n",
        v6.address
    ));
    let balancer = Balancer::start(&env, &config);
    for frontend in [bind, bind6] {
        for _ in 0..10 {
            let client = machines.client.run(|| connect(frontend));
            assert_eq!(told(&client), client.local_addr().unwrap());
            assert_eq!(exchange(&client, b"in and out"), b"in and out");
            shut_down(&client);
            assert_eq!(read_to_end(&client), (Vec::new(), Ending::Orderly));
        }
    }
    balancer.assert_no_leaks();
}

#[test]
fn a_client_that_uses_its_port_again_gets_another_one() {
    let test = "a_client_that_uses_its_port_again_gets_another_one";
    let Some(machines) = Machines::new(test) else { return };
    if !mark_answers(test) {
        return;
    }
    let env = TestEnv::new();
    let (server, _) = machines.server.run(|| telling(at_server(9001)));
    let bind = SocketAddr::new(TO_CLIENT, 8000);
    let second = SocketAddr::new(TO_CLIENT, 8001);
    let config = Config::new(&env).bind(bind).backend("source = \"client\"");
    let config = config
        .server("a", server.address)
        .more(&format!("[frontend.more]\nbind = [\"{second}\"]\nbackend = \"web\"\n"));
    let balancer = Balancer::start(&env, &config);
    let from_one_port = |to: SocketAddr| {
        machines.client.run(|| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
            let socket = socket.unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&SocketAddr::from(([10, 1, 0, 2], 45_000)).into()).unwrap();
            socket.connect(&to.into()).unwrap();
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(TIMEOUT)).unwrap();
            stream
        })
    };
    // Both ends of the second connection to the server would be those of the first.
    let (first, other) = (from_one_port(bind), from_one_port(second));
    assert_eq!(told(&first), first.local_addr().unwrap());
    let seen = told(&other);
    assert_eq!(seen.ip(), other.local_addr().unwrap().ip());
    assert_ne!(seen.port(), 45_000);
    assert_eq!(exchange(&first, b"one"), b"one");
    assert_eq!(exchange(&other, b"two"), b"two");
    drop((first, other));
    balancer.assert_no_leaks();
}

#[test]
fn after_root_is_dropped_one_capability_is_left_if_it_is_needed() {
    let Some(machines) =
        Machines::new("after_root_is_dropped_one_capability_is_left_if_it_is_needed")
    else {
        return;
    };
    route_answers_here();
    let env = TestEnv::new();
    let (server, _) = machines.server.run(|| telling(at_server(9001)));
    // The kernel closes the sockets of a ring a while after its process has ended.
    let (first, bind) = (SocketAddr::new(TO_CLIENT, 8001), SocketAddr::new(TO_CLIENT, 8000));
    let plain = Config::new(&env).bind(bind).global("user = \"nobody\"");
    let plain = plain.server("a", server.address);
    let config = plain.clone().backend("source = \"client\"");
    let capabilities = |balancer: &Balancer<'_>| {
        let status = fs::read_to_string(format!("/proc/{}/status", balancer.pid())).unwrap();
        let line = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"), "{status}");
        ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:", "CapBnd:"].map(line)
    };
    let balancer = Balancer::start(&env, &config.clone().bind(first));
    assert_eq!(capabilities(&balancer), [1 << 12; 5], "CAP_NET_ADMIN alone");
    let client = machines.client.run(|| connect(first));
    assert_eq!(told(&client), client.local_addr().unwrap());
    drop(client);
    balancer.assert_no_leaks();
    drop(balancer);
    let balancer = Balancer::start(&env, &plain);
    assert_eq!(capabilities(&balancer), [0; 5]);
    // It would need the capability, which is gone for good.
    balancer.rewrite(&config.text());
    let answer = printed(&balancer.control(&["reload"]));
    assert!(answer.contains("grant CAP_NET_ADMIN") && answer.contains("restart"), "{answer}");
    let client = machines.client.run(|| connect(bind));
    assert_eq!(told(&client).ip(), TO_SERVER, "the old configuration stays active");
}

#[test]
fn probes_come_from_the_balancer_itself() {
    let Some(machines) = Machines::new("probes_come_from_the_balancer_itself") else { return };
    route_answers_here();
    let env = TestEnv::new();
    let (server, seen) = machines.server.run(|| telling(at_server(9001)));
    let config = Config::new(&env).bind(SocketAddr::new(TO_CLIENT, 8000));
    let config = config.backend("source = \"client\"").quick_health("http");
    let _balancer = Balancer::start(&env, &config.server("a", server.address));
    until("it is probed", || !seen.lock().unwrap().is_empty());
    let sources: Vec<IpAddr> = seen.lock().unwrap().iter().map(SocketAddr::ip).collect();
    assert!(sources.iter().all(|source| *source == TO_SERVER), "{sources:?}");
}

#[test]
fn a_client_of_another_family_than_its_server_has_no_source() {
    if !enter("a_client_of_another_family_than_its_server_has_no_source") {
        return;
    }
    let env = TestEnv::new();
    let server = Server::echo("[::1]:9001".parse().unwrap());
    let config = Config::new(&env).backend("source = \"client\"");
    let balancer = Balancer::start(&env, &config.server("a", server.address));
    assert_eq!(connect_and_read(env.frontend()), (Vec::new(), Ending::Reset));
    balancer.session_ended("SC connect_failed");
    let labels = [("server", "a"), ("reason", "no_source")];
    assert!(balancer.metrics().sum("evenkeel_server_connect_failures_total", &labels) >= 1.0);
    balancer.assert_no_leaks();
}

#[test]
fn a_client_that_has_left_is_no_failure_of_the_server() {
    if !enter("a_client_that_has_left_is_no_failure_of_the_server") {
        return;
    }
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let config = Config::new(&env).backend("source = \"client\"");
    let balancer = Balancer::start(&env, &config.server("a", server.address));
    balancer.signal(Signal::SIGSTOP);
    until("every thread of it has stopped", || is_stopped(balancer.pid()));
    for _ in 0..5 {
        reset(connect(env.frontend()));
    }
    balancer.signal(Signal::SIGCONT);
    balancer.metrics_until("they are told", |metrics| metrics.closed("client_left") >= 5.0);
    let metrics = balancer.assert_no_leaks();
    assert_eq!(metrics.sum("evenkeel_server_connect_failures_total", &[]), 0.0);
    assert_eq!(metrics.closed("client_left"), 5.0);
    assert_eq!(server.accepted(), 0);
}

#[test]
fn without_the_capability_it_does_not_start_and_says_what_to_grant() {
    let test = "without_the_capability_it_does_not_start_and_says_what_to_grant";
    if !geteuid().is_root() {
        return skip(test, "only root can change to another user");
    }
    let env = TestEnv::new();
    let config = Config::new(&env).backend("source = \"client\"").server("a", env.port(9001));
    let mut command = Command::new(PROGRAM);
    command.args(["run", "-c"]).arg(write_config(&env, &config.text()));
    // It may not write the control socket into the directory either.
    let output = command.uid(65_534).gid(65_534).output().unwrap();
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("source = \"client\" is not permitted"), "{text}");
    assert!(text.contains("grant CAP_NET_ADMIN"), "{text}");
}
