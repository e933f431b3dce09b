//! The cluster's page, balanced end to end: real web servers with real names, each on a host of its
//! own (a network namespace), a real DNS server, a real Prometheus, and curl as the browser.
//!
//! evenkeel runs with `deploy/raspberry-pi-cluster.toml`. Metrics are read on its own host, where
//! that file leaves them. Needs root and a few programs, which `tests/run` installs.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "a test that failed shows what its programs said")]

use std::fs;

use cluster::{Cluster, PROGRAMS, reload_page_while, until_page_of};
use patience::{has_programs, skip, until, until_ok};

mod cluster;
mod network;
mod patience;
mod program;
mod prometheus;

/// As deploy/raspberry-pi-cluster.toml leaves it.
const RISE: f64 = 2.0;

#[test]
fn the_name_on_the_page_changes_with_every_reload() {
    if !can_play("the_name_on_the_page_changes_with_every_reload", &[]) {
        return;
    }
    let cluster = Cluster::start();
    let seen = cluster.pages(50);
    let exact = ["rpi-b", "rpi-c"].repeat(25);
    assert_eq!(seen, exact);
}

#[test]
fn a_web_server_that_is_killed_costs_no_request_and_is_back_after_rise_probes() {
    let name = "a_web_server_that_is_killed_costs_no_request_and_is_back_after_rise_probes";
    if !can_play(name, &[]) {
        return;
    }
    let mut cluster = Cluster::start();
    let mut seen = cluster.pages(20);
    cluster.kill_web("rpi-c");
    seen.extend(cluster.pages(180));
    assert!(seen[20..].iter().all(|page| page == "rpi-b"), "a dead server answered");
    until("evenkeel_server_up falls", || {
        cluster.pages(1);
        !cluster.metrics().is_up("web2")
    });
    assert!(cluster.metrics().is_up("web1"));

    let before = cluster.metrics().passed("web2");
    cluster.restart_web("rpi-c");
    let passed = until_ok("it is up again", || {
        let metrics = cluster.metrics();
        let passed = metrics.passed("web2") - before;
        if metrics.is_up("web2") { Ok(passed) } else { Err(format!("{passed} passed")) }
    });
    // One more may have passed between two looks.
    assert!((RISE..=RISE + 1.0).contains(&passed), "up after {passed} probes");
    until_page_of(&cluster, "rpi-c");
    let seen = cluster.pages(20);
    assert_eq!(seen, ["rpi-b", "rpi-c"].repeat(10));
}

#[test]
fn a_third_pi_joins_by_an_edit_and_a_signal_while_requests_run() {
    if !can_play("a_third_pi_joins_by_an_edit_and_a_signal_while_requests_run", &[]) {
        return;
    }
    let (cluster, file) = Cluster::start_editable();
    let ((), count) = reload_page_while(&cluster, || {
        let old = fs::read_to_string(&file).unwrap();
        let server = "\n[[backend.web-backend.server]]\nname = \"web3\"\naddress = \"rpi-d:80\"\n";
        fs::write(&file, old + server).unwrap();
        cluster.reload();
        until_page_of(&cluster, "rpi-d");
    });
    assert!(count > 0, "requests ran meanwhile");
    assert_takes_turns(&cluster.pages(30), &["rpi-b", "rpi-c", "rpi-d"]);
}

#[test]
fn a_name_that_dns_does_not_know_is_named_by_the_reload() {
    if !can_play("a_name_that_dns_does_not_know_is_named_by_the_reload", &[]) {
        return;
    }
    let (cluster, file) = Cluster::start_editable();
    let old = fs::read_to_string(&file).unwrap();
    let server = "\n[[backend.web-backend.server]]\nname = \"web3\"\naddress = \"rpi-x:80\"\n";
    fs::write(&file, old + server).unwrap();
    cluster.reload();
    let named = "down, as their names have no address: web-backend/web3\n";
    until("the reload names it", || cluster.log().contains(named));
    assert_eq!(cluster.pages(4), ["rpi-b", "rpi-c"].repeat(2));
}

#[test]
fn a_name_that_moves_in_dns_is_followed() {
    if !can_play("a_name_that_moves_in_dns_is_followed", &[]) {
        return;
    }
    let cluster = Cluster::start();
    let ((), count) = reload_page_while(&cluster, || {
        cluster.move_name("rpi-c", "rpi-d");
        until_page_of(&cluster, "rpi-d");
    });
    assert!(count > 0, "requests ran meanwhile");
    assert_takes_turns(&cluster.pages(20), &["rpi-b", "rpi-d"]);
}

#[test]
fn prometheus_knows_the_rate_of_each_server() {
    let programs = ["prometheus", "promtool"];
    if !can_play("prometheus_knows_the_rate_of_each_server", &programs) {
        return;
    }
    let cluster = Cluster::start();
    let prometheus = cluster.start_prometheus();
    let query = "sum by (server) (rate(evenkeel_server_sessions_total[1m]))";
    let ((), _) = reload_page_while(&cluster, || {
        until_ok("a rate above 0 of both servers", || {
            let series = prometheus.query(query)?;
            let mut used: Vec<&str> = series
                .iter()
                .filter(|series| series.value > 0.0)
                .map(|series| series.label("server"))
                .collect();
            used.sort_unstable();
            if used == ["web1", "web2"] { Ok(()) } else { Err(format!("{series:?}")) }
        });
    });
    assert_eq!(prometheus.query("up{job=\"evenkeel\"}").unwrap()[0].value, 1.0);
    assert_eq!(cluster.check_metrics(), "", "promtool check metrics");
}

/// Whether the scene can be played on this machine; if not, says that it is skipped, and why.
fn can_play(test: &str, more: &[&str]) -> bool {
    if !has_programs(test, &[&PROGRAMS[..], more].concat()) {
        return false;
    }
    if let Err(why) = network::allowed() {
        skip(test, &why);
        return false;
    }
    true
}

/// Each of `names` in turn, in this order, from whichever the rotation has reached.
#[track_caller]
fn assert_takes_turns(seen: &[String], names: &[&str]) {
    let first = names.iter().position(|name| *name == seen[0]);
    let first = first.unwrap_or_else(|| panic!("{seen:?}"));
    let exact: Vec<&str> = names.iter().copied().cycle().skip(first).take(seen.len()).collect();
    assert_eq!(seen, exact);
}
