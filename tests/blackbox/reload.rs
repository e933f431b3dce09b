//! Reloads: a valid file takes effect as a whole, an invalid one changes nothing.

use std::fs;
use std::net::TcpStream;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::common::balancer::{PROGRAM, printed};
use crate::common::client::{connect, exchange, fetch};
use crate::common::wait::until;
use crate::common::{Balancer, Config, Server, TestEnv};

fn failed(balancer: &Balancer<'_>) -> f64 {
    balancer.metrics().sum("evenkeel_reloads_total", &[("outcome", "failed")])
}

fn fetch_names(env: &TestEnv, count: usize) -> String {
    (0..count).map(|_| fetch(env.frontend()).unwrap()).collect()
}

#[test]
fn a_reload_names_its_file_which_is_that_of_the_start() {
    let env = TestEnv::new();
    let a = Server::naming("a", env.port(9001));
    let config = Config::new(&env).server("a", a.address);
    let balancer = Balancer::start(&env, &config);
    // Here -c only says where the control socket is.
    fs::write(env.file("other.toml"), config.text()).unwrap();
    let mut command = Command::new(PROGRAM);
    let output = command.args(["reload", "-c"]).arg(env.file("other.toml")).output().unwrap();
    let file = env.file("evenkeel.toml");
    let expected = format!("reloaded: {}: 1 frontend, 1 backend, 1 server;", file.display());
    assert!(printed(&output).starts_with(&expected), "{}", printed(&output));
    balancer.assert_no_leaks();
}

#[test]
fn a_reload_adds_and_removes_servers_and_sessions_of_a_removed_server_continue() {
    let env = TestEnv::new();
    let a = Server::echo(env.port(9001));
    let b = Server::naming("b", env.port(9002));
    let c = Server::naming("c", env.port(9003));
    let first = Config::new(&env).server("a", a.address);
    let balancer = Balancer::start(&env, &first);
    let old = connect(env.frontend());
    assert_eq!(exchange(&old, b"before"), b"before");
    balancer.reload(&Config::new(&env).server("b", b.address).server("c", c.address));
    let turns = fetch_names(&env, 6);
    assert!(turns == "bcbcbc" || turns == "cbcbcb", "{turns}");
    assert_eq!(exchange(&old, b"after"), b"after");
    assert_eq!(a.accepted(), 1);
    drop(old);
    let metrics = balancer.assert_no_leaks();
    assert_eq!(metrics.value("evenkeel_table_version", &[]), 2.0);
    until("the series of the removed server are removed", || {
        !balancer.metrics().has("evenkeel_server_up", &[("server", "a")])
    });
}

#[test]
fn a_server_in_both_files_keeps_its_health_and_its_counters() {
    let env = TestEnv::new();
    let a = Server::naming("a", env.port(9001));
    let config = Config::new(&env).quick_health("tcp").server("a", a.address);
    let config = config.server("dead", env.port(9002));
    let balancer = Balancer::start(&env, &config);
    balancer.metrics_until("the server is down", |metrics| !metrics.up("dead"));
    assert_eq!(fetch_names(&env, 5), "aaaaa");
    let more = Server::naming("b", env.port(9003));
    balancer.reload(&config.server("b", more.address));
    let metrics = balancer.metrics();
    assert!(!metrics.up("dead"));
    assert_eq!(metrics.value("evenkeel_server_sessions_total", &[("server", "a")]), 5.0);
}

#[test]
fn a_reload_adds_and_removes_frontends() {
    let env = TestEnv::new();
    let a = Server::echo(env.port(9001));
    let config = Config::new(&env).server("a", a.address);
    let balancer = Balancer::start(&env, &config);
    assert!(TcpStream::connect(env.port(8001)).is_err());
    let other = format!("[frontend.other]\nbind = [\"{}\"]\nbackend = \"web\"", env.port(8001));
    balancer.reload(&config.clone().more(&other));
    let session = connect(env.port(8001));
    assert_eq!(exchange(&session, b"new"), b"new");
    balancer.reload(&config);
    until("connections are refused", || TcpStream::connect(env.port(8001)).is_err());
    assert_eq!(exchange(&session, b"old"), b"old");
    drop(session);
    balancer.assert_no_leaks();
}

#[test]
fn an_invalid_file_changes_nothing_and_is_reported() {
    let env = TestEnv::new();
    let a = Server::naming("a", env.port(9001));
    let config = Config::new(&env).server("a", a.address);
    let balancer = Balancer::start(&env, &config);
    balancer.rewrite(&config.clone().backend("retires = 3").text());
    let output = balancer.control(&["reload"]);
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    assert!(printed(&output).contains("retires"), "{}", printed(&output));
    balancer.rewrite("this is [ not TOML");
    balancer.signal(Signal::SIGHUP);
    until("both failures are counted", || failed(&balancer) == 2.0);
    let log = balancer.application_log();
    let file = env.file("evenkeel.toml");
    assert!(log.contains(&format!("{}:1:", file.display())), "{log}");
    let metrics = balancer.metrics();
    assert_eq!(metrics.value("evenkeel_table_version", &[]), 1.0);
    assert_eq!(fetch_names(&env, 2), "aa");
    // A valid file takes effect again.
    balancer.reload(&config);
    assert_eq!(fetch_names(&env, 2), "aa");
    balancer.assert_no_leaks();
}

#[test]
fn a_reload_with_a_port_in_use_changes_nothing() {
    let env = TestEnv::new();
    let (a, b) = (Server::naming("a", env.port(9001)), Server::naming("b", env.port(9002)));
    let taken = Server::echo(env.port(8002));
    let balancer = Balancer::start(&env, &Config::new(&env).server("a", a.address));
    let more = format!(
        "[frontend.free]\nbind = [\"{}\"]\nbackend = \"web\"\n\
         [frontend.taken]\nbind = [\"{}\"]\nbackend = \"web\"",
        env.port(8001),
        taken.address
    );
    balancer.rewrite(&Config::new(&env).server("b", b.address).more(&more).text());
    let output = balancer.control(&["reload"]);
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    assert!(printed(&output).contains("8002"), "{}", printed(&output));
    assert_eq!(fetch_names(&env, 3), "aaa");
    assert!(TcpStream::connect(env.port(8001)).is_err());
    assert_eq!(failed(&balancer), 1.0);
    balancer.assert_no_leaks();
}

#[test]
fn timeouts_of_a_new_file_apply_to_new_sessions() {
    let env = TestEnv::new();
    let a = Server::echo(env.port(9001));
    let config = Config::new(&env).server("a", a.address);
    let balancer = Balancer::start(&env, &config);
    let old = connect(env.frontend());
    assert_eq!(exchange(&old, b"old"), b"old");
    balancer.reload(&config.frontend("idle_timeout = \"300ms\""));
    let new = connect(env.frontend());
    assert!(crate::common::client::read_to_end(&new).0.is_empty());
    balancer.session_ended("cD idle_timeout");
    assert_eq!(exchange(&old, b"old"), b"old");
    drop(old);
    balancer.assert_no_leaks();
}

#[test]
fn the_answer_to_a_reload_names_the_keys_that_need_a_restart() {
    let env = TestEnv::new();
    let a = Server::naming("a", env.port(9001));
    let config = Config::new(&env).server("a", a.address);
    let balancer = Balancer::start(&env, &config);
    balancer.rewrite(&config.clone().global("pin = true").log("sessions = false").text());
    let answer = balancer.control_ok(&["reload"]);
    let wanted =
        "; takes effect after a restart or `evenkeel upgrade`: global.pin, observe.log.sessions\n";
    assert!(answer.ends_with(wanted), "{answer}");
    balancer.rewrite(&config.text());
    let answer = balancer.control_ok(&["reload"]);
    assert!(!answer.contains("restart"), "{answer}");
}

#[test]
fn a_frontend_on_the_address_of_the_metrics_needs_a_restart() {
    let env = TestEnv::new();
    let a = Server::naming("a", env.port(9001));
    let config = Config::new(&env).server("a", a.address);
    let balancer = Balancer::start(&env, &config);
    let (here, there) = (env.observe().to_string(), env.port(8405).to_string());
    let more = format!("[frontend.other]\nbind = [\"{here}\"]\nbackend = \"web\"");
    let text = config.text().replace(&here, &there) + &more;
    balancer.rewrite(&text);
    let output = balancer.control(&["reload"]);
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    for part in [here.as_str(), "observe.bind", "restart"] {
        assert!(printed(&output).contains(part), "{}", printed(&output));
    }
    assert_eq!(fetch_names(&env, 2), "aa");
}
