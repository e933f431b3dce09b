//! Tests in a network namespace of their own: it holds the thread of the test and the processes
//! that it starts, and ends with them.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use crate::common::client::{Ending, connect_and_read, fetch};
use crate::common::wait::{holds_for, until};
use crate::common::{Balancer, Config, Server, TestEnv, skip};

/// Moves this thread to a new network namespace that has only loopback. False: that is not
/// possible, and the test is reported as skipped.
pub(crate) fn enter(test: &str) -> bool {
    if !geteuid().is_root() {
        skip(test, "only root may create a network namespace");
        return false;
    }
    if Command::new("ip").arg("-V").output().is_err() {
        skip(test, "not installed: ip (tests/run installs it)");
        return false;
    }
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    ip("link set lo up");
    true
}

pub(crate) fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success());
}

#[test]
fn each_kind_of_unreachable_server_is_counted_separately() {
    // Case 30.
    if !enter("each_kind_of_unreachable_server_is_counted_separately") {
        return;
    }
    ip("route add unreachable 192.0.2.1/32");
    ip("route add prohibit 192.0.2.2/32");
    let env = TestEnv::new();
    let good = Server::naming("good", env.port(9001));
    let config = Config::new(&env).server("good", good.address);
    let config = config.server("nowhere", "192.0.2.1:80".parse().unwrap());
    let config = config.server("forbidden", "192.0.2.2:80".parse().unwrap());
    let config = config.server("no-route", "198.51.100.1:80".parse().unwrap());
    let balancer = Balancer::start(&env, &config.backend("retries = 3"));
    for _ in 0..8 {
        assert_eq!(fetch(env.frontend()).unwrap(), "good");
    }
    let metrics = balancer.assert_no_leaks();
    let failures = |server, reason| {
        let labels = [("server", server), ("reason", reason)];
        metrics.sum("evenkeel_server_connect_failures_total", &labels)
    };
    assert!(failures("nowhere", "unreachable") >= 2.0);
    assert!(failures("forbidden", "denied") >= 2.0);
    assert!(failures("no-route", "unreachable") >= 2.0);
}

#[test]
fn a_connection_to_a_dead_server_on_an_ephemeral_port_never_connects_to_itself() {
    // Case 32.
    if !enter("a_connection_to_a_dead_server_on_an_ephemeral_port_never_connects_to_itself") {
        return;
    }
    // With four ports to connect from, the kernel often chooses the server's own.
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "45000 45003").unwrap();
    let env = TestEnv::new();
    let dead = "127.0.0.1:45000".parse().unwrap();
    let config = Config::new(&env).health(
        "check = \"tcp\"\ninterval = \"50ms\"\ninterval_down = \"50ms\"\nrise = 1\nfall = 1",
    );
    let config = config.backend("all_down = \"try\"").server("dead", dead);
    let balancer = Balancer::start(&env, &config);
    until("it is down", || !up(&balancer));
    assert!(holds_for(std::time::Duration::from_secs(2), || !up(&balancer)));
    for _ in 0..20 {
        assert_eq!(connect_and_read(env.frontend()), (Vec::new(), Ending::Reset));
    }
    let metrics = balancer.assert_no_leaks();
    let to_itself = [("server", "dead"), ("reason", "self_connect")];
    let to_itself = metrics.sum("evenkeel_server_connect_failures_total", &to_itself);
    assert!(to_itself >= 1.0, "no attempt connected to itself, so that nothing was tested");
}

fn up(balancer: &Balancer<'_>) -> bool {
    balancer.metrics().up("dead")
}
