//! `evenkeel reload --dry-run`: what a reload would change, and that it changes nothing.

use std::fs;
use std::net::TcpStream;

use nix::sys::signal::Signal;

use crate::common::balancer::printed;
use crate::common::client::{connect, exchange, fetch};
use crate::common::metrics::Metrics;
use crate::common::wait::until;
use crate::common::{Balancer, Config, Server, TestEnv};

const NOTHING: &str = "a reload would change nothing\n";

fn plan(balancer: &Balancer<'_>) -> String {
    balancer.control_ok(&["reload", "--dry-run"])
}

/// The one line of error, if a reload would be rejected.
#[track_caller]
fn rejected(balancer: &Balancer<'_>) -> String {
    let output = balancer.control(&["reload", "--dry-run"]);
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    let error = printed(&output);
    assert!(error.starts_with("evenkeel: a reload would be rejected: "), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    error.trim_end().to_owned()
}

/// Asserts that no reload was counted and no table was made.
#[track_caller]
fn assert_unchanged(metrics: &Metrics, version: f64) {
    assert_eq!(metrics.value("evenkeel_table_version", &[]), version);
    assert_eq!(metrics.sum("evenkeel_reloads_total", &[("outcome", "failed")]), 0.0);
    assert_eq!(metrics.sum("evenkeel_reloads_total", &[("outcome", "done")]), version - 1.0);
}

#[test]
fn every_change_is_named_and_nothing_changes_until_the_reload() {
    let env = TestEnv::new();
    let (a, b) = (Server::echo(env.port(9001)), Server::naming("b", env.port(9002)));
    let config = Config::new(&env);
    let before = config.clone().server("a", a.address).server("gone", env.port(9003));
    let balancer = Balancer::start(&env, &before);
    assert_eq!(plan(&balancer), NOTHING);
    let session = connect(env.frontend());
    assert_eq!(exchange(&session, b"in"), b"in");
    balancer.control_ok(&["weight", "web/a", "7"]);
    let more = format!(
        "[frontend.other]\nbind = [\"{}\"]\nbackend = \"web\"\n\
         [backend.spare]\nhealth.check = \"off\"\n[[backend.spare.server]]\nname = \"s\"\n\
         address = \"no-such-host.invalid:80\"",
        env.port(8001)
    );
    let after = config
        .frontend("idle_timeout = \"60s\"")
        .backend("balance = \"leastconn\"")
        .server_with("a", a.address, "weight = 50")
        .server("b", b.address)
        .more(&more);
    balancer.rewrite(&after.text());
    let planned = plan(&balancer);
    for line in [
        "frontend web: idle_timeout: \"5m\" -> \"60s\"",
        &format!("frontend other: added, bind = [\"{}\"], backend = \"web\"", env.port(8001)),
        "backend web: balance: \"roundrobin\" -> \"leastconn\"",
        "server web/a: weight: 100 -> 50; the operator set 7, which stays in force",
        &format!("server web/b: added, address = \"{}\"", b.address),
        "server web/gone: removed",
        "backend spare: added, health.check = \"off\"",
        "server spare/s: added, address = \"no-such-host.invalid:80\"; host name \
         no-such-host.invalid has no address: the server is down",
    ] {
        assert!(planned.lines().any(|found| found.trim_start() == line), "{line}\nin {planned}");
    }
    assert_eq!(planned.lines().count(), 9, "{planned}");
    assert!(!planned.contains("restart"), "{planned}");
    // The order of the operator made the second table.
    let metrics = balancer.metrics();
    assert_eq!(metrics.value("evenkeel_table_version", &[]), 2.0);
    assert_eq!(metrics.sum("evenkeel_reloads_total", &[]), 0.0);
    assert!(TcpStream::connect(env.port(8001)).is_err());
    assert!(!balancer.control_ok(&["status"]).contains("spare"));
    balancer.control_ok(&["reload"]);
    assert_eq!(plan(&balancer), NOTHING);
    assert!(TcpStream::connect(env.port(8001)).is_ok());
    drop(session);
}

#[test]
fn sessions_of_a_server_that_would_be_removed_are_counted() {
    let env = TestEnv::new();
    let (a, b) = (Server::echo(env.port(9001)), Server::naming("b", env.port(9002)));
    let balancer = Balancer::start(&env, &Config::new(&env).server("a", a.address));
    let sessions = [connect(env.frontend()), connect(env.frontend())];
    for session in &sessions {
        assert_eq!(exchange(session, b"in"), b"in");
    }
    balancer.rewrite(&Config::new(&env).server("b", b.address).text());
    let planned = plan(&balancer);
    assert!(planned.contains("server web/a: removed; its 2 sessions continue\n"), "{planned}");
    balancer.rewrite(&Config::new(&env).server("a", b.address).text());
    let planned = plan(&balancer);
    let change = format!("\"{}\" -> \"{}\"; a new server", a.address, b.address);
    assert!(planned.contains(&format!("server web/a: address: {change}")), "{planned}");
    assert_unchanged(&balancer.metrics(), 1.0);
}

#[test]
fn a_file_with_problems_is_one_line_of_error() {
    let env = TestEnv::new();
    let a = Server::naming("a", env.port(9001));
    let config = Config::new(&env).server("a", a.address);
    let balancer = Balancer::start(&env, &config);
    let bad = "retires = 3\nbalance = \"dice\"\nqueue_max = -1\nconnect_timeout = 5";
    balancer.rewrite(&config.clone().backend(bad).text());
    let line = rejected(&balancer);
    for part in ["retires", "dice", "queue_max", "connect_timeout"] {
        assert!(line.contains(part), "{line}");
    }
    fs::remove_file(env.file("evenkeel.toml")).unwrap();
    assert!(rejected(&balancer).contains("cannot be read"));
    assert_unchanged(&balancer.metrics(), 1.0);
    assert_eq!(fetch(env.frontend()).unwrap(), "a");
}

#[test]
fn an_address_that_is_in_use_is_a_reason_to_reject_and_stays_free_otherwise() {
    let env = TestEnv::new();
    let a = Server::naming("a", env.port(9001));
    let taken = Server::echo(env.port(8002));
    let config = Config::new(&env).server("a", a.address);
    let balancer = Balancer::start(&env, &config);
    let frontend = |name: &str, bind: String| {
        format!("[frontend.{name}]\nbind = [\"{bind}\"]\nbackend = \"web\"\n")
    };
    let here = env.observe().to_string();
    let two = frontend("taken", taken.address.to_string())
        + &frontend("free", env.port(8003).to_string());
    balancer.rewrite(&config.clone().more(&two).text());
    assert!(rejected(&balancer).contains("8002 is in use"));
    drop(std::net::TcpListener::bind(env.port(8003)).unwrap());
    let moved = config.text().replace(&here, &env.port(8405).to_string());
    balancer.rewrite(&(moved + &frontend("observe", here)));
    assert!(rejected(&balancer).contains("observe.bind"));
    assert_unchanged(&balancer.metrics(), 1.0);
}

#[test]
fn keys_that_need_a_restart_are_listed_until_the_restart() {
    let env = TestEnv::new();
    let a = Server::naming("a", env.port(9001));
    let config = Config::new(&env).server("a", a.address);
    let balancer = Balancer::start(&env, &config);
    let changed =
        config.clone().global("pin = true\ndrain_timeout = \"7s\"").log("sessions = false");
    balancer.rewrite(&changed.text());
    let at_restart = "takes effect after a restart or `evenkeel upgrade`:\n  \
                      global.pin: false -> true\n  observe.log.sessions: true -> false\n";
    let now = "a reload would change:\n  global.drain_timeout: \"30s\" -> \"7s\"\n";
    assert_eq!(plan(&balancer), format!("{now}{at_restart}"));
    balancer.control_ok(&["reload"]);
    assert_eq!(plan(&balancer), at_restart);
    balancer.rewrite(&config.text());
    let back = "a reload would change:\n  global.drain_timeout: \"7s\" -> \"30s\"\n";
    assert_eq!(plan(&balancer), back);
}

#[test]
fn a_file_of_networks_that_has_changed_is_named() {
    let env = TestEnv::new();
    let a = Server::naming("a", env.port(9001));
    fs::write(env.file("denied"), "192.0.2.0/24\n").unwrap();
    let config = Config::new(&env).frontend("deny = { file = \"denied\" }");
    let balancer = Balancer::start(&env, &config.server("a", a.address));
    fs::write(env.file("denied"), "# the same\n192.0.2.0/25\n192.0.2.128/25\n").unwrap();
    assert_eq!(plan(&balancer), NOTHING);
    fs::write(env.file("denied"), "127.0.0.0/8\n").unwrap();
    assert!(plan(&balancer).contains("frontend web: deny: the networks in denied have changed\n"));
    assert_eq!(fetch(env.frontend()).unwrap(), "a");
    fs::write(env.file("denied"), "one\n10.0.0.0/8\ntwo\n").unwrap();
    let line = rejected(&balancer);
    assert!(line.contains("line 1") && line.contains("line 3"), "{line}");
}

#[test]
fn a_file_of_balancers_in_front_that_has_changed_is_named() {
    let env = TestEnv::new();
    let a = Server::naming("a", env.port(9001));
    fs::write(env.file("front"), "192.0.2.0/24\n").unwrap();
    let lines = "proxy_protocol = \"required\"\nproxy_protocol_from = { file = \"front\" }";
    let config = Config::new(&env).frontend(lines).server("a", a.address);
    let balancer = Balancer::start(&env, &config);
    assert_eq!(plan(&balancer), NOTHING);
    fs::write(env.file("front"), "127.0.0.0/8\n").unwrap();
    let line = "frontend web: proxy_protocol_from: the networks in front have changed\n";
    assert!(plan(&balancer).contains(line), "{}", plan(&balancer));
}

#[test]
fn an_optional_table_that_is_added_or_removed_is_a_change() {
    let env = TestEnv::new();
    let a = Server::naming("a", env.port(9001));
    let config = Config::new(&env).server("a", a.address).health("check = \"tcp\"");
    let with_tls = config.clone().health("check = \"tcp\"\ntls = {}");
    let balancer = Balancer::start(&env, &config);
    let change = "a reload would change:\n  backend web: health.tls: ";
    balancer.rewrite(&with_tls.text());
    assert_eq!(plan(&balancer), format!("{change}not set -> {{}}\n"));
    balancer.reload(&with_tls);
    assert_eq!(plan(&balancer), NOTHING);
    balancer.rewrite(&config.text());
    assert_eq!(plan(&balancer), format!("{change}{{}} -> not set\n"));
}

#[test]
fn a_balancer_that_drains_or_will_drain_plans_no_reload_and_does_none() {
    let env = TestEnv::new();
    let a = Server::echo(env.port(9001));
    let config = Config::new(&env).global("drain_delay = \"1h\"").server("a", a.address);
    let balancer = Balancer::start(&env, &config);
    balancer.signal(Signal::SIGTERM);
    until("the drain is announced", || balancer.application_log().contains("draining in 3600s"));
    for arguments in [&["reload", "--dry-run"][..], &["reload"]] {
        let output = balancer.control(arguments);
        assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
        assert!(printed(&output).contains("evenkeel is draining"), "{}", printed(&output));
    }
    let session = connect(env.frontend());
    assert_eq!(exchange(&session, b"accepted"), b"accepted");
}
