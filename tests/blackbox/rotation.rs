//! How servers are chosen: the rotation, weights, health, backups.

use std::net::TcpListener;

use crate::common::client::{Ending, connect, connect_and_read, exchange, fetch};
use crate::common::metrics::Metrics;
use crate::common::wait::until;
use crate::common::{Balancer, Config, Server, TestEnv, skip};

/// Servers with these names, on ports 9001 and up.
fn named(env: &TestEnv, names: &[&str]) -> Vec<Server> {
    (9001..).zip(names).map(|(port, name)| Server::naming(name, env.port(port))).collect()
}

fn fetch_names(env: &TestEnv, count: usize) -> Vec<String> {
    (0..count).map(|_| fetch(env.frontend()).unwrap()).collect()
}

#[test]
fn the_rotation_is_exact_with_one_and_with_two_workers() {
    for workers in [1, 2] {
        let env = TestEnv::new();
        let servers = named(&env, &["a", "b", "c"]);
        let mut config = Config::new(&env).workers(workers);
        for (server, name) in servers.iter().zip(["a", "b", "c"]) {
            config = config.server(name, server.address);
        }
        let balancer = Balancer::start(&env, &config);
        assert_eq!(fetch_names(&env, 9).concat(), "abcabcabc", "{workers} workers");
        let metrics = balancer.assert_no_leaks();
        for name in ["a", "b", "c"] {
            let sessions = metrics.value("evenkeel_server_sessions_total", &[("server", name)]);
            assert_eq!(sessions, 3.0, "{workers} workers");
        }
        assert_eq!(metrics.closed("done"), 9.0);
    }
}

#[test]
fn servers_get_equal_shares_of_concurrent_clients_over_all_workers() {
    let env = TestEnv::new();
    let servers = named(&env, &["a", "b", "c"]);
    let config = Config::new(&env).workers(2);
    let config = config.server("a", servers[0].address).server("b", servers[1].address);
    let balancer = Balancer::start(&env, &config.server("c", servers[2].address));
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| fetch_names(&env, 30));
        }
    });
    assert!(servers.iter().all(|server| server.accepted() == 100));
    balancer.assert_no_leaks();
}

#[test]
fn weights_are_exact_and_turns_are_spread() {
    let env = TestEnv::new();
    let servers = named(&env, &["a", "b"]);
    let config = Config::new(&env).server_with("a", servers[0].address, "weight = 300");
    let balancer = Balancer::start(&env, &config.server("b", servers[1].address));
    let turns = fetch_names(&env, 40).concat();
    assert_eq!(turns.matches('a').count(), 30);
    assert!(!turns.contains("bb") && !turns.contains("aaaa"), "{turns}");
    balancer.assert_no_leaks();
}

#[test]
fn a_weight_of_zero_gets_no_new_session() {
    let env = TestEnv::new();
    let servers = named(&env, &["a", "b"]);
    let config = Config::new(&env).server_with("a", servers[0].address, "weight = 0");
    let balancer = Balancer::start(&env, &config.server("b", servers[1].address));
    assert_eq!(fetch_names(&env, 4).concat(), "bbbb");
    balancer.assert_no_leaks();
}

#[test]
fn probes_take_a_dead_server_down_and_bring_it_up_again() {
    for check in ["tcp", "http"] {
        let env = TestEnv::new();
        let address = env.port(9002);
        let a = Server::http("a", env.port(9001));
        let mut b = Server::http("b", address);
        let config = Config::new(&env).quick_health(check);
        let balancer = Balancer::start(&env, &config.server("a", a.address).server("b", b.address));
        // After the first probe, which decides alone, `fall` applies.
        let passed = [("server", "b"), ("result", "passed")];
        let probed = |metrics: &Metrics| metrics.sum("evenkeel_probes_total", &passed) > 0.0;
        balancer.metrics_until("b was probed", probed);
        b.kill();
        balancer.metrics_until("b is down", |metrics| !metrics.up("b"));
        assert!(balancer.metrics().up("a"));
        b = Server::http("b", address);
        balancer.metrics_until("b is up again", |metrics| metrics.up("b"));
        let metrics = balancer.metrics();
        let probes = |result| metrics.sum("evenkeel_probes_total", &[("result", result)]);
        assert!(probes("passed") > 0.0 && probes("refused") >= 2.0, "{check}");
        drop(b);
    }
}

#[test]
fn a_probe_with_an_error_status_takes_its_server_down() {
    let env = TestEnv::new();
    let good = Server::http("a", env.port(9001));
    let bad = Server::start(env.port(9002), |mut stream| {
        use std::io::{Read, Write};
        drop(stream.read(&mut [0; 4096]));
        drop(stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"));
    });
    let config = Config::new(&env).quick_health("http");
    let config = config.server("good", good.address).server("bad", bad.address);
    let balancer = Balancer::start(&env, &config);
    let metrics = balancer.metrics_until("the server is down", |metrics| !metrics.up("bad"));
    assert!(metrics.up("good"));
    assert!(metrics.sum("evenkeel_probes_total", &[("result", "bad_answer")]) >= 1.0);
}

#[test]
fn a_backup_gets_sessions_only_while_all_others_are_down() {
    let env = TestEnv::new();
    let mut first = Server::naming("first", env.port(9001));
    let spare = Server::naming("spare", env.port(9002));
    let config = Config::new(&env).quick_health("tcp").server("first", first.address);
    let config = config.server_with("spare", spare.address, "backup = true");
    let balancer = Balancer::start(&env, &config);
    assert_eq!(fetch_names(&env, 4).concat(), "first".repeat(4));
    first.kill();
    balancer.metrics_until("the first server is down", |metrics| !metrics.up("first"));
    until("the backup gets sessions", || fetch(env.frontend()).is_ok_and(|name| name == "spare"));
    assert_eq!(fetch_names(&env, 4).concat(), "spare".repeat(4));
    let _first = Server::naming("first", env.port(9001));
    balancer.metrics_until("the first server is up", |metrics| metrics.up("first"));
    until("the first server gets sessions", || {
        fetch(env.frontend()).is_ok_and(|name| name == "first")
    });
    assert_eq!(fetch_names(&env, 4).concat(), "first".repeat(4));
}

/// A server that works, and whose probes go to a port on which nothing listens.
fn wrongly_down(env: &TestEnv, all_down: &str) -> (Config, Server) {
    let server = Server::echo(env.port(9001));
    let config = Config::new(env).backend(&format!("all_down = \"{all_down}\""));
    let config = config.health(
        "check = \"tcp\"\ninterval = \"100ms\"\ninterval_down = \"100ms\"\nfall = 2\nport = 9099",
    );
    (config.server("a", server.address), server)
}

#[test]
fn on_down_decides_what_happens_to_the_sessions_of_a_server_that_goes_down() {
    for (on_down, closes) in [("keep", false), ("close", true)] {
        let env = TestEnv::new();
        // The server stops listening, and keeps its connections.
        let mut server = Server::echo(env.port(9001));
        let other = Server::echo(env.port(9002));
        let config = Config::new(&env).workers(2).quick_health("tcp");
        let config = config.backend(&format!("on_down = \"{on_down}\""));
        let config = config.server("a", server.address).server("b", other.address);
        let balancer = Balancer::start(&env, &config);
        let clients: Vec<_> = (0..8).map(|_| connect(env.frontend())).collect();
        for client in &clients {
            assert_eq!(exchange(client, b"before"), b"before");
        }
        server.kill();
        balancer.metrics_until("a is down", |metrics| {
            metrics.value("evenkeel_server_up", &[("server", "a")]) == 0.0
        });
        let closed = if closes { 4.0 } else { 0.0 };
        balancer.metrics_until("as many sessions are closed", |metrics| {
            metrics.closed("server_down") == closed
        });
        let reset = clients.iter().filter(|client| {
            let mut client = *client;
            let sent = std::io::Write::write_all(&mut client, b"after").is_ok();
            !sent || !client.peek(&mut [0]).is_ok_and(|count| count == 1)
        });
        assert_eq!(reset.count(), if closes { 4 } else { 0 }, "{on_down}");
        assert_eq!(balancer.metrics().closed("server_down"), closed);
        drop(clients);
        balancer.assert_no_leaks();
    }
}

#[test]
fn with_every_server_down_clients_are_reset() {
    let env = TestEnv::new();
    let (config, server) = wrongly_down(&env, "refuse");
    let balancer = Balancer::start(&env, &config);
    balancer.metrics_until("the server is down", |metrics| !metrics.up("a"));
    assert_eq!(connect_and_read(env.frontend()), (Vec::new(), Ending::Reset));
    balancer.session_ended("SC no_server");
    assert!(balancer.assert_no_leaks().closed("no_server") >= 1.0);
    assert_eq!(server.accepted(), 0);
}

#[test]
fn with_every_server_down_all_are_tried_if_all_down_is_try() {
    let env = TestEnv::new();
    let (config, _server) = wrongly_down(&env, "try");
    let balancer = Balancer::start(&env, &config);
    balancer.metrics_until("the server is down", |metrics| !metrics.up("a"));
    let client = connect(env.frontend());
    assert_eq!(exchange(&client, b"a request"), b"a request");
    drop(client);
    balancer.assert_no_leaks();
}

#[test]
fn all_addresses_of_a_frontend_in_both_families_share_one_rotation() {
    // Loopback has one IPv6 address: the kernel finds free ports on it.
    let free = || TcpListener::bind("[::1]:0").ok().and_then(|socket| socket.local_addr().ok());
    let (Some(six), Some(server)) = (free(), free()) else {
        let test = "all_addresses_of_a_frontend_in_both_families_share_one_rotation";
        return skip(test, "loopback has no IPv6 address");
    };
    let env = TestEnv::new();
    let servers = [Server::naming("a", env.port(9001)), Server::naming("b", server)];
    let config = Config::new(&env).workers(2).server("a", servers[0].address);
    let text = config.server("b", servers[1].address).text();
    let four = env.port(8001);
    let own = format!("bind = [\"{}\"", env.frontend());
    let text = text.replace(&own, &format!("{own}, \"{four}\", \"{six}\""));
    let balancer = Balancer::start_text(&env, &text);
    let addresses = [env.frontend(), four, six, six, four, env.frontend()];
    let names: Vec<String> = addresses.map(|address| fetch(address).unwrap()).into();
    assert_eq!(names.concat(), "ababab");
    balancer.assert_no_leaks();
}
