//! Commands over the control socket.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::balancer::{PROGRAM, printed};
use crate::common::client::{connect, exchange, fetch};
use crate::common::metrics::Metrics;
use crate::common::wait::{holds_for, until};
use crate::common::{Balancer, Config, Server, TestEnv};

fn two_naming(env: &TestEnv) -> (Config, [Server; 2]) {
    let (a, b) = (Server::naming("a", env.port(9001)), Server::naming("b", env.port(9002)));
    let config = Config::new(env).server("a", a.address).server("b", b.address);
    (config, [a, b])
}

fn fetch_names(env: &TestEnv, count: usize) -> String {
    (0..count).map(|_| fetch(env.frontend()).unwrap()).collect()
}

#[test]
fn only_the_owner_may_use_the_control_socket() {
    let env = TestEnv::new();
    let (config, _servers) = two_naming(&env);
    let _balancer = Balancer::start(&env, &config);
    let mode = std::fs::metadata(env.file("control.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_draining_server_gets_no_new_session_and_keeps_its_old_ones() {
    for order in ["drain", "maint"] {
        let env = TestEnv::new();
        let (a, b) = (Server::echo(env.port(9001)), Server::naming("b", env.port(9002)));
        let config = Config::new(&env).server("a", a.address).server("b", b.address);
        let balancer = Balancer::start(&env, &config);
        let old = connect(env.frontend());
        assert_eq!(exchange(&old, b"before"), b"before");
        balancer.control_ok(&[order, "web/a"]);
        assert_eq!(fetch_names(&env, 6), "bbbbbb", "{order}");
        assert_eq!(a.accepted(), 1, "{order}");
        assert_eq!(exchange(&old, b"after"), b"after", "{order}");
        let state = [("server", "a"), ("state", order)];
        assert_eq!(balancer.metrics().value("evenkeel_server_state", &state), 1.0);
        assert!(balancer.control_ok(&["status"]).contains(order));
        balancer.control_ok(&["ready", "web/a"]);
        let new = connect(env.frontend());
        let again = connect(env.frontend());
        drop((old, new, again));
        balancer.assert_no_leaks();
        assert_eq!(a.accepted(), 2, "{order}");
    }
}

#[test]
fn an_order_that_leaves_no_server_for_new_sessions_says_so() {
    let env = TestEnv::new();
    let (config, _servers) = two_naming(&env);
    let balancer = Balancer::start(&env, &config);
    let none = "; backend web has no server left: new client connections are reset";
    let up = |count: usize| {
        let text = balancer.control_ok(&["status"]);
        let expected = format!("{count} of 2");
        let row = text.lines().find(|line| line.starts_with("web ") && line.contains(" of 2"));
        assert!(row.is_some_and(|row| row.contains(&expected)), "{expected}: {text}");
    };
    up(2);
    assert_eq!(balancer.control_ok(&["drain", "web/a"]).trim(), "web/a is in state drain");
    up(1);
    let last = balancer.control_ok(&["drain", "web/b"]);
    assert_eq!(last.trim(), format!("web/b is in state drain{none}"));
    up(0);
    assert_eq!(balancer.control_ok(&["ready", "web/b"]).trim(), "web/b is in state ready");
    let last = balancer.control_ok(&["weight", "web/b", "0"]);
    assert_eq!(last.trim(), format!("web/b has weight 0{none}"));
}

#[test]
fn a_server_in_maintenance_is_not_probed_and_a_draining_one_is() {
    let env = TestEnv::new();
    let (config, _servers) = two_naming(&env);
    let balancer = Balancer::start(&env, &config.quick_health("tcp"));
    let probes = |server| balancer.metrics().sum("evenkeel_probes_total", &[("server", server)]);
    balancer.control_ok(&["maint", "web/a"]);
    balancer.control_ok(&["drain", "web/b"]);
    // A probe that is in flight still counts.
    let before = probes("b");
    until("probes of b go on", || probes("b") > before + 3.0);
    let before = probes("a");
    assert!(holds_for(Duration::from_millis(500), || probes("a") == before));
}

#[test]
fn after_maintenance_the_first_probe_decides() {
    let env = TestEnv::new();
    let broken = Arc::new(AtomicBool::new(false));
    let is_broken = Arc::clone(&broken);
    let a = Server::start(env.port(9001), move |mut stream| {
        let status = if is_broken.load(Ordering::Relaxed) { "503 No" } else { "200 OK" };
        drop(stream.read(&mut [0; 4096]));
        drop(write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
    });
    let health = "check = \"http\"\ninterval = \"20s\"\ntimeout = \"10s\"\nrise = 2\nfall = 3";
    let config = Config::new(&env).health(health).server("a", a.address);
    let balancer = Balancer::start(&env, &config);
    let passed = [("result", "passed")];
    let probed = |metrics: &Metrics| metrics.sum("evenkeel_probes_total", &passed) > 0.0;
    balancer.metrics_until("the first probe passed", probed);
    balancer.control_ok(&["maint", "web/a"]);
    broken.store(true, Ordering::Relaxed);
    balancer.control_ok(&["ready", "web/a"]);
    let metrics = balancer.metrics_until("it is down", |metrics| !metrics.up("a"));
    assert_eq!(metrics.sum("evenkeel_probes_total", &[("result", "bad_answer")]), 1.0);
}

#[test]
fn a_weight_can_be_changed_and_survives_a_reload() {
    let env = TestEnv::new();
    let (config, _servers) = two_naming(&env);
    let balancer = Balancer::start(&env, &config);
    balancer.control_ok(&["weight", "web/a", "300"]);
    let turns = fetch_names(&env, 8);
    assert_eq!(turns.matches('a').count(), 6, "{turns}");
    let weight = || balancer.metrics().value("evenkeel_server_weight", &[("server", "a")]);
    assert_eq!(weight(), 300.0);
    balancer.reload(&config);
    assert_eq!(weight(), 300.0);
    balancer.control_ok(&["weight", "web/a", "0"]);
    assert_eq!(fetch_names(&env, 4), "bbbb");
}

#[test]
fn a_failed_command_prints_one_line_and_exits_with_1() {
    let env = TestEnv::new();
    let (config, _servers) = two_naming(&env);
    let balancer = Balancer::start(&env, &config);
    for order in [["drain", "web/nobody"], ["maint", "nowhere/a"]] {
        let output = balancer.control(&order);
        assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
        assert_eq!(output.stderr.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert!(output.stdout.is_empty());
    }
    let output = balancer.control(&["weight", "web/a", "1001"]);
    assert_eq!(output.status.code(), Some(64), "{}", printed(&output));
}

#[test]
fn a_command_says_what_is_wrong_with_the_socket_the_file_or_the_name() {
    let env = TestEnv::new();
    let (config, _servers) = two_naming(&env);
    let balancer = Balancer::start(&env, &config);
    for (arguments, parts) in [
        (["kill", "9-9-9"].as_slice(), ["no open session has the ID 9-9-9", "evenkeel sessions"]),
        (&["drain", "wob/a"], ["there is no backend \"wob\"", "the backends are: web"]),
        (&["drain", "web/c"], ["has no server \"c\"", "its servers are: a, b"]),
    ] {
        let output = balancer.control(arguments);
        let text = printed(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
    let run = |arguments: &[&str]| Command::new(PROGRAM).args(arguments).output().unwrap();
    let file = env.file("evenkeel.toml");
    for other in [file.to_str().unwrap(), "/"] {
        let output = run(&["status", "--control", other]);
        let text = printed(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(&format!("{other} is not a socket; --control takes")), "{text}");
    }
    let output = run(&["status", "-c", "/nonexistent.toml"]);
    let text = printed(&output);
    assert!(text.contains("/nonexistent.toml: cannot be read") && text.contains("--control PATH"));
}

#[test]
fn commands_find_the_control_socket_through_the_configuration() {
    let env = TestEnv::new();
    let (config, _servers) = two_naming(&env);
    let _balancer = Balancer::start(&env, &config);
    let file = env.file("evenkeel.toml");
    let output = Command::new(PROGRAM).args(["status", "--json", "-c"]).arg(file).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["phase"], "running");
    assert_eq!(report["servers"][1]["name"], "b");
}

#[test]
fn commands_find_the_control_socket_through_an_invalid_file() {
    let env = TestEnv::new();
    let (config, _servers) = two_naming(&env);
    let balancer = Balancer::start(&env, &config);
    balancer.rewrite(&config.backend("retires = 3\nbalance = \"dice\"").text());
    let order = |words: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(words).arg("-c").arg(env.file("evenkeel.toml")).output().unwrap()
    };
    for words in [&["status"][..], &["drain", "web/a"]] {
        let output = order(words);
        assert!(output.status.success(), "{}", printed(&output));
    }
    assert_eq!(fetch_names(&env, 4), "bbbb");
    let output = order(&["reload"]);
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    assert_eq!(output.stderr.iter().filter(|byte| **byte == b'\n').count(), 1);
    for part in ["reload rejected, the old configuration stays active: ", "retires", "dice"] {
        assert!(printed(&output).contains(part), "{}", printed(&output));
    }
    let metrics = balancer.metrics();
    assert_eq!(metrics.sum("evenkeel_reloads_total", &[("outcome", "failed")]), 1.0);
    until("it is logged", || balancer.application_log().contains("retires"));
}
