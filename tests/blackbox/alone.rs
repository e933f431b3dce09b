//! A network of one: the thread of a test, and what it starts, alone in a namespace that nobody
//! else sees and that ends with them.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use crate::common::client::{Ending, fate, visit};
use crate::common::wait::{holds_for, until};
use crate::common::{Balancer, Config, Place, Server, skip};

/// Puts this thread into a network namespace of its own, with loopback and no way out; or says why
/// it cannot be.
pub(crate) fn alone(what: &str) -> bool {
    if !geteuid().is_root() {
        skip(what, "only root may make a network namespace");
        return false;
    }
    if Command::new("ip").arg("-V").output().is_err() {
        skip(what, "not installed: ip (tests/run installs it)");
        return false;
    }
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    ip("link set lo up");
    true
}

fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success());
}

#[test]
fn each_way_of_not_being_reached_is_counted_as_its_own() {
    // Case 30.
    if !alone("each_way_of_not_being_reached_is_counted_as_its_own") {
        return;
    }
    ip("route add unreachable 192.0.2.1/32");
    ip("route add prohibit 192.0.2.2/32");
    let place = Place::new();
    let good = Server::naming("good", place.port(9001));
    let config = Config::new(&place).server("good", good.address);
    let config = config.server("nowhere", "192.0.2.1:80".parse().unwrap());
    let config = config.server("forbidden", "192.0.2.2:80".parse().unwrap());
    let config = config.server("no-route", "198.51.100.1:80".parse().unwrap());
    let balancer = Balancer::start(&place, &config.backend("retries = 3"));
    for _ in 0..8 {
        assert_eq!(visit(place.frontend()).unwrap(), "good");
    }
    let metrics = balancer.books_balance();
    let failures = |server, reason| {
        let labels = [("server", server), ("reason", reason)];
        metrics.sum("evenkeel_server_connect_failures_total", &labels)
    };
    assert!(failures("nowhere", "unreachable") >= 2.0);
    assert!(failures("forbidden", "denied") >= 2.0);
    assert!(failures("no-route", "unreachable") >= 2.0);
}

#[test]
fn a_dead_server_among_the_ephemeral_ports_is_never_met_in_ourselves() {
    // Case 32.
    if !alone("a_dead_server_among_the_ephemeral_ports_is_never_met_in_ourselves") {
        return;
    }
    // With so few ports to connect from, the next one is the server's own every other time.
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "45000 45003").unwrap();
    let place = Place::new();
    let dead = "127.0.0.1:45000".parse().unwrap();
    let config = Config::new(&place).health(
        "check = \"tcp\"\ninterval = \"50ms\"\ninterval_down = \"50ms\"\nrise = 1\nfall = 1",
    );
    let config = config.backend("all_down = \"try\"").server("dead", dead);
    let balancer = Balancer::start(&place, &config);
    until("it is down", || !up(&balancer));
    assert!(holds_for(std::time::Duration::from_secs(2), || !up(&balancer)));
    for _ in 0..20 {
        assert_eq!(fate(place.frontend()), (Vec::new(), Ending::Reset));
    }
    let metrics = balancer.books_balance();
    let met = [("server", "dead"), ("reason", "itself")];
    let met = metrics.sum("evenkeel_server_connect_failures_total", &met);
    assert!(met >= 1.0, "not one of the attempts met itself: nothing was shown");
}

fn up(balancer: &Balancer<'_>) -> bool {
    balancer.metrics().up("dead")
}
