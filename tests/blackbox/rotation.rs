//! Who is picked: the rotation, weights, health, backups.

use std::net::TcpListener;

use crate::common::books::Metrics;
use crate::common::client::{Ending, connect, exchange, fate, visit};
use crate::common::wait::until;
use crate::common::{Balancer, Config, Place, Server, skip};

/// As many naming servers as there are `names`, on ports 9001 and up.
fn named(place: &Place, names: &[&str]) -> Vec<Server> {
    (9001..).zip(names).map(|(port, name)| Server::naming(name, place.port(port))).collect()
}

fn visits(place: &Place, count: usize) -> Vec<String> {
    (0..count).map(|_| visit(place.frontend()).unwrap()).collect()
}

#[test]
fn servers_take_turns_exactly() {
    for workers in [1, 2] {
        let place = Place::new();
        let servers = named(&place, &["a", "b", "c"]);
        let mut config = Config::new(&place).workers(workers);
        for (server, name) in servers.iter().zip(["a", "b", "c"]) {
            config = config.server(name, server.address);
        }
        let balancer = Balancer::start(&place, &config);
        assert_eq!(visits(&place, 9).concat(), "abcabcabc", "{workers} workers");
        let metrics = balancer.books_balance();
        for name in ["a", "b", "c"] {
            let sessions = metrics.value("evenkeel_server_sessions_total", &[("server", name)]);
            assert_eq!(sessions, 3.0, "{workers} workers");
        }
        assert_eq!(metrics.closed("done"), 9.0);
    }
}

#[test]
fn clients_at_once_get_equal_shares_whichever_worker_serves_them() {
    let place = Place::new();
    let servers = named(&place, &["a", "b", "c"]);
    let config = Config::new(&place).workers(2);
    let config = config.server("a", servers[0].address).server("b", servers[1].address);
    let balancer = Balancer::start(&place, &config.server("c", servers[2].address));
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| visits(&place, 30));
        }
    });
    assert!(servers.iter().all(|server| server.accepted() == 100));
    balancer.books_balance();
}

#[test]
fn weights_are_exact_and_spread() {
    let place = Place::new();
    let servers = named(&place, &["a", "b"]);
    let config = Config::new(&place).server_with("a", servers[0].address, "weight = 300");
    let balancer = Balancer::start(&place, &config.server("b", servers[1].address));
    let turns = visits(&place, 40).concat();
    assert_eq!(turns.matches('a').count(), 30);
    assert!(!turns.contains("bb") && !turns.contains("aaaa"), "{turns}");
    balancer.books_balance();
}

#[test]
fn a_weight_of_zero_gets_no_new_session() {
    let place = Place::new();
    let servers = named(&place, &["a", "b"]);
    let config = Config::new(&place).server_with("a", servers[0].address, "weight = 0");
    let balancer = Balancer::start(&place, &config.server("b", servers[1].address));
    assert_eq!(visits(&place, 4).concat(), "bbbb");
    balancer.books_balance();
}

#[test]
fn a_dead_server_goes_down_and_comes_back_by_its_probes() {
    for check in ["tcp", "http"] {
        let place = Place::new();
        let address = place.port(9002);
        let a = Server::http("a", place.port(9001));
        let mut b = Server::http("b", address);
        let config = Config::new(&place).quick_health(check);
        let balancer =
            Balancer::start(&place, &config.server("a", a.address).server("b", b.address));
        // Not by its first probe, which decides alone.
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
fn a_page_with_a_bad_status_takes_its_server_down() {
    let place = Place::new();
    let good = Server::http("a", place.port(9001));
    let bad = Server::start(place.port(9002), |mut stream| {
        use std::io::{Read, Write};
        drop(stream.read(&mut [0; 4096]));
        drop(stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"));
    });
    let config = Config::new(&place).quick_health("http");
    let config = config.server("good", good.address).server("bad", bad.address);
    let balancer = Balancer::start(&place, &config);
    let metrics = balancer.metrics_until("it is down", |metrics| !metrics.up("bad"));
    assert!(metrics.up("good"));
    assert!(metrics.sum("evenkeel_probes_total", &[("result", "bad_answer")]) >= 1.0);
}

#[test]
fn a_backup_serves_only_while_all_others_are_down() {
    let place = Place::new();
    let mut first = Server::naming("first", place.port(9001));
    let spare = Server::naming("spare", place.port(9002));
    let config = Config::new(&place).quick_health("tcp").server("first", first.address);
    let config = config.server_with("spare", spare.address, "backup = true");
    let balancer = Balancer::start(&place, &config);
    assert_eq!(visits(&place, 4).concat(), "first".repeat(4));
    first.kill();
    balancer.metrics_until("the first is down", |metrics| !metrics.up("first"));
    until("the backup serves", || visit(place.frontend()).is_ok_and(|name| name == "spare"));
    assert_eq!(visits(&place, 4).concat(), "spare".repeat(4));
    let _first = Server::naming("first", place.port(9001));
    balancer.metrics_until("the first is up", |metrics| metrics.up("first"));
    until("the first serves", || visit(place.frontend()).is_ok_and(|name| name == "first"));
    assert_eq!(visits(&place, 4).concat(), "first".repeat(4));
}

/// A server that serves, and whose probes ask a port where nobody is.
fn wrongly_down(place: &Place, all_down: &str) -> (Config, Server) {
    let server = Server::echo(place.port(9001));
    let config = Config::new(place).backend(&format!("all_down = \"{all_down}\""));
    let config = config.health(
        "check = \"tcp\"\ninterval = \"100ms\"\ninterval_down = \"100ms\"\nfall = 2\nport = 9099",
    );
    (config.server("a", server.address), server)
}

#[test]
fn with_every_server_down_clients_are_reset() {
    let place = Place::new();
    let (config, server) = wrongly_down(&place, "refuse");
    let balancer = Balancer::start(&place, &config);
    balancer.metrics_until("it is down", |metrics| !metrics.up("a"));
    assert_eq!(fate(place.frontend()), (Vec::new(), Ending::Reset));
    balancer.session_ended("SC no_server");
    assert!(balancer.books_balance().closed("no_server") >= 1.0);
    assert_eq!(server.accepted(), 0);
}

#[test]
fn with_every_server_down_all_are_tried_if_asked_for() {
    let place = Place::new();
    let (config, _server) = wrongly_down(&place, "try");
    let balancer = Balancer::start(&place, &config);
    balancer.metrics_until("it is down", |metrics| !metrics.up("a"));
    let client = connect(place.frontend());
    assert_eq!(exchange(&client, b"still there?"), b"still there?");
    drop(client);
    balancer.books_balance();
}

#[test]
fn one_rotation_goes_over_all_addresses_of_a_frontend_in_both_families() {
    // Loopback has one IPv6 address: the kernel finds free ports on it.
    let free = || TcpListener::bind("[::1]:0").ok().and_then(|socket| socket.local_addr().ok());
    let (Some(six), Some(server)) = (free(), free()) else {
        let what = "one_rotation_goes_over_all_addresses_of_a_frontend_in_both_families";
        return skip(what, "loopback has no IPv6 address");
    };
    let place = Place::new();
    let servers = [Server::naming("a", place.port(9001)), Server::naming("b", server)];
    let config = Config::new(&place).workers(2).server("a", servers[0].address);
    let text = config.server("b", servers[1].address).text();
    let four = place.port(8001);
    let own = format!("bind = [\"{}\"", place.frontend());
    let text = text.replace(&own, &format!("{own}, \"{four}\", \"{six}\""));
    let balancer = Balancer::start_text(&place, &text);
    let addresses = [place.frontend(), four, six, six, four, place.frontend()];
    let names: Vec<String> = addresses.map(|address| visit(address).unwrap()).into();
    assert_eq!(names.concat(), "ababab");
    balancer.books_balance();
}
