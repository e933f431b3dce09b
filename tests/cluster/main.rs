//! The cluster of `deploy/raspberry-pi-cluster.toml`, end to end: web servers (lighttpd and PHP),
//! each on a host of its own (a network namespace), a DNS server (dnsmasq), Prometheus, and curl as
//! the client.
//!
//! evenkeel runs with that file, or with what `evenkeel convert` makes of the configuration of
//! HAProxy that the file replaces. Metrics are read on its own host, where the file leaves them.
//! Needs root and a few programs, which `tests/run` installs.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "a failed test shows the output of its programs")]

use std::fs;

use cluster::{Cluster, PROGRAMS, request_pages_during, until_page_of};
use wait::{has_programs, skip, until, until_ok};

mod cluster;
mod network;
mod program;
mod prometheus;
mod wait;

/// The default, which deploy/raspberry-pi-cluster.toml does not change.
const RISE: f64 = 2.0;

#[test]
fn every_request_of_the_page_shows_the_next_host_name() {
    if !can_run("every_request_of_the_page_shows_the_next_host_name", &[]) {
        return;
    }
    let cluster = Cluster::start();
    let seen = cluster.pages(50);
    let exact = ["rpi-b", "rpi-c"].repeat(25);
    assert_eq!(seen, exact);
}

#[test]
fn the_converted_configuration_of_haproxy_rotates_as_well() {
    if !can_run("the_converted_configuration_of_haproxy_rotates_as_well", &[]) {
        return;
    }
    let mut cluster = Cluster::start_converted();
    assert_rotates(&cluster.pages(20), &["rpi-b", "rpi-c"]);
    cluster.kill_web("rpi-c");
    let seen = cluster.pages(20);
    assert!(seen.iter().all(|page| page == "rpi-b"), "the killed server answered");
    until("evenkeel_server_up falls", || !cluster.metrics().is_up("web2"));
    cluster.restart_web("rpi-c");
    until_page_of(&cluster, "rpi-c");
}

#[test]
fn a_killed_web_server_fails_no_request_and_is_up_again_after_rise_probes() {
    let name = "a_killed_web_server_fails_no_request_and_is_up_again_after_rise_probes";
    if !can_run(name, &[]) {
        return;
    }
    let mut cluster = Cluster::start();
    let mut seen = cluster.pages(20);
    cluster.kill_web("rpi-c");
    seen.extend(cluster.pages(180));
    assert!(seen[20..].iter().all(|page| page == "rpi-b"), "the killed server answered");
    until("evenkeel_server_up falls", || {
        cluster.pages(1);
        !cluster.metrics().is_up("web2")
    });
    assert!(cluster.metrics().is_up("web1"));

    let before = cluster.metrics().passed("web2");
    cluster.restart_web("rpi-c");
    let passed = until_ok("the server is up again", || {
        let metrics = cluster.metrics();
        let passed = metrics.passed("web2") - before;
        if metrics.is_up("web2") { Ok(passed) } else { Err(format!("{passed} passed")) }
    });
    // One more probe may have passed between two scrapes.
    assert!((RISE..=RISE + 1.0).contains(&passed), "up after {passed} probes");
    until_page_of(&cluster, "rpi-c");
    let seen = cluster.pages(20);
    assert_eq!(seen, ["rpi-b", "rpi-c"].repeat(10));
}

#[test]
fn a_third_pi_is_added_by_an_edit_and_sighup_without_a_failed_request() {
    if !can_run("a_third_pi_is_added_by_an_edit_and_sighup_without_a_failed_request", &[]) {
        return;
    }
    let (cluster, file) = Cluster::start_editable();
    let ((), count) = request_pages_during(&cluster, || {
        let old = fs::read_to_string(&file).unwrap();
        let server = "\n[[backend.web-backend.server]]\nname = \"web3\"\naddress = \"rpi-d:80\"\n";
        fs::write(&file, old + server).unwrap();
        cluster.reload();
        until_page_of(&cluster, "rpi-d");
    });
    assert!(count > 0, "there were requests meanwhile");
    assert_rotates(&cluster.pages(30), &["rpi-b", "rpi-c", "rpi-d"]);
}

#[test]
fn a_host_name_without_an_address_is_reported_by_the_reload() {
    if !can_run("a_host_name_without_an_address_is_reported_by_the_reload", &[]) {
        return;
    }
    let (cluster, file) = Cluster::start_editable();
    let old = fs::read_to_string(&file).unwrap();
    let server = "\n[[backend.web-backend.server]]\nname = \"web3\"\naddress = \"rpi-x:80\"\n";
    fs::write(&file, old + server).unwrap();
    cluster.reload();
    let line = "down, as their names have no address: web-backend/web3\n";
    until("the reload reports it", || cluster.log().contains(line));
    assert_eq!(cluster.pages(4), ["rpi-b", "rpi-c"].repeat(2));
}

#[test]
fn a_changed_address_in_dns_is_followed() {
    if !can_run("a_changed_address_in_dns_is_followed", &[]) {
        return;
    }
    let cluster = Cluster::start();
    let ((), count) = request_pages_during(&cluster, || {
        cluster.move_name("rpi-c", "rpi-d");
        until_page_of(&cluster, "rpi-d");
    });
    assert!(count > 0, "there were requests meanwhile");
    assert_rotates(&cluster.pages(20), &["rpi-b", "rpi-d"]);
}

#[test]
fn prometheus_returns_the_rate_of_each_server() {
    let programs = ["prometheus", "promtool"];
    if !can_run("prometheus_returns_the_rate_of_each_server", &programs) {
        return;
    }
    let cluster = Cluster::start();
    let prometheus = cluster.start_prometheus();
    let query = "sum by (server) (rate(evenkeel_server_sessions_total[1m]))";
    let ((), _) = request_pages_during(&cluster, || {
        until_ok("both servers have a rate above 0", || {
            let series = prometheus.query(query)?;
            let mut active: Vec<&str> = series
                .iter()
                .filter(|series| series.value > 0.0)
                .map(|series| series.label("server"))
                .collect();
            active.sort_unstable();
            if active == ["web1", "web2"] { Ok(()) } else { Err(format!("{series:?}")) }
        });
    });
    assert_eq!(prometheus.query("up{job=\"evenkeel\"}").unwrap()[0].value, 1.0);
    assert_eq!(cluster.check_metrics(), "", "promtool check metrics");
}

/// Whether this machine can run the test; if not, it is reported as skipped, with the reason.
fn can_run(test: &str, more: &[&str]) -> bool {
    if !has_programs(test, &[&PROGRAMS[..], more].concat()) {
        return false;
    }
    if let Err(why) = network::allowed() {
        skip(test, &why);
        return false;
    }
    true
}

/// Asserts an exact rotation of `names` in this order, from any of them on.
#[track_caller]
fn assert_rotates(seen: &[String], names: &[&str]) {
    let first = names.iter().position(|name| *name == seen[0]);
    let first = first.unwrap_or_else(|| panic!("{seen:?}"));
    let exact: Vec<&str> = names.iter().copied().cycle().skip(first).take(seen.len()).collect();
    assert_eq!(seen, exact);
}
