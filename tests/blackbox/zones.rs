//! Link-local addresses with the name of their interface.

use std::fs;
use std::process::{Command, Output};

use crate::common::balancer::{PROGRAM, printed, write_config};
use crate::common::client::fetch;
use crate::common::wait::until;
use crate::common::{Balancer, Config, Server, TestEnv, http};
use crate::network_namespace::{enter, ip};

/// A configuration whose frontend and server are at these addresses.
fn text(env: &TestEnv, bind: &str, server: &str) -> String {
    let text = Config::new(env).server("a", env.port(9001)).text();
    let text =
        text.replace(&format!("bind = [\"{}\"]", env.frontend()), &format!("bind = [{bind}]"));
    text.replace(&env.port(9001).to_string(), server)
}

fn run(command: &str, env: &TestEnv, text: &str) -> Output {
    Command::new(PROGRAM).args([command, "-c"]).arg(write_config(env, text)).output().unwrap()
}

#[test]
fn an_interface_is_named_in_the_addresses_of_frontends_servers_and_the_status_page() {
    let test = "an_interface_is_named_in_the_addresses_of_frontends_servers_and_the_status_page";
    if !enter(test) {
        return;
    }
    ip("-6 addr add fe80::1/64 dev lo nodad");
    let env = TestEnv::new();
    let lo = fs::read_to_string("/sys/class/net/lo/ifindex").unwrap();
    let at = |port: u16| format!("[fe80::1%{}]:{port}", lo.trim()).parse().unwrap();
    let _server = Server::naming("a", at(9001));
    let text = text(&env, "\"[fe80::1%lo]:8000\"", "[fe80::1%lo]:9001");
    let text =
        text.replace(&format!("bind = \"{}\"", env.observe()), "bind = \"[fe80::1%lo]:8404\"");
    let mut command = Command::new(PROGRAM);
    command.args(["run", "-c"]).arg(write_config(&env, &text));
    let balancer = Balancer::spawn(&env, command);
    until("it serves", || fetch(at(8000)).is_ok_and(|name| name == "a"));
    assert_eq!(http::get(at(8404), "/readyz").unwrap().0, 200);
    let status = balancer.control_ok(&["status"]);
    for address in ["[fe80::1%lo]:8000", "[fe80::1%lo]:9001"] {
        assert!(status.contains(address), "{address} in {status}");
    }
    let log = balancer.application_log();
    assert!(log.contains("listens on [fe80::1%lo]:8000"), "{log}");
    assert!(log.contains("http://[fe80::1%lo]:8404/"), "{log}");
    until("the client is logged with its interface", || {
        balancer.sessions().iter().any(|line| line.contains(" [fe80::1%lo]:"))
    });
}

#[test]
fn a_missing_interface_is_an_error_at_the_start_and_at_a_reload_with_a_remedy() {
    let env = TestEnv::new();
    let good = env.port(9001).to_string();
    let bind = format!("\"{}\"", env.frontend());
    let missing = "[fe80::1%nope0]:8000";
    let said = "this machine has no interface nope0; `ip link` lists its interfaces";
    let quoted = format!("\"{missing}\"");
    let cases = [text(&env, &quoted, &good), text(&env, &bind, missing)];
    for text in &cases {
        let output = run("run", &env, text);
        assert_eq!(output.status.code(), Some(1), "it may come later: {}", printed(&output));
        assert!(printed(&output).contains(said), "{}", printed(&output));
        assert!(printed(&output).contains(missing), "{}", printed(&output));
        let output = run("check", &env, text);
        assert_eq!(output.status.code(), Some(0), "a warning: {}", printed(&output));
        assert!(printed(&output).contains(said), "{}", printed(&output));
    }
    let _server = Server::naming("a", env.port(9001));
    let balancer = Balancer::start_text(&env, &text(&env, &bind, &good));
    for text in &cases {
        balancer.rewrite(text);
        let answer = printed(&balancer.control(&["reload"]));
        assert!(answer.contains("reload rejected") && answer.contains(said), "{answer}");
        assert_eq!(fetch(env.frontend()).unwrap(), "a");
    }
}
