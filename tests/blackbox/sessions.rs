//! `evenkeel sessions`, `kill` and `drain --wait`.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::signal::Signal;

use crate::common::balancer::PROGRAM;
use crate::common::client::{Ending, connect, exchange, read_to_end};
use crate::common::wait::until;
use crate::common::{Balancer, Config, Server, TestEnv, echoing};

/// The open sessions.
#[track_caller]
pub(crate) fn listed(balancer: &Balancer<'_>) -> Vec<serde_json::Value> {
    let json = balancer.control_ok(&["sessions", "--json"]);
    serde_json::from_str(&json).unwrap()
}

#[test]
fn sessions_lists_every_session_with_its_client_server_and_bytes() {
    for sessions_log in [true, false] {
        let env = TestEnv::new();
        let (config, server) = echoing(&env);
        let config = config.workers(2).log(&format!("sessions = {sessions_log}"));
        let balancer = Balancer::start(&env, &config);
        assert_eq!(listed(&balancer).len(), 0);
        let clients: Vec<_> = (0..20).map(|_| connect(env.frontend())).collect();
        for client in &clients {
            assert_eq!(exchange(client, b"four"), b"four");
        }
        let sessions = listed(&balancer);
        assert_eq!(sessions.len(), 20);
        for client in &clients {
            let address = client.local_addr().unwrap().to_string();
            let found: Vec<_> = sessions.iter().filter(|one| one["client"] == address).collect();
            let [session] = &found[..] else { panic!("{address}: {sessions:?}") };
            assert_eq!((&session["frontend"], &session["backend"]), (&"web".into(), &"web".into()));
            assert_eq!(session["server"], "a");
            assert_eq!(session["state"], "relaying");
            assert_eq!((&session["bytes_in"], &session["bytes_out"]), (&4.into(), &4.into()));
        }
        let text = balancer.control_ok(&["sessions"]);
        assert!(text.starts_with("sessions: 20"), "{text}");
        assert_eq!(text.lines().filter(|line| line.contains("web/a")).count(), 20, "{text}");
        assert_eq!(server.accepted(), 20);
    }
}

#[test]
fn kill_resets_both_sides_of_one_session_and_no_other() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let balancer = Balancer::start(&env, &config.workers(2));
    let clients = [connect(env.frontend()), connect(env.frontend())];
    for client in &clients {
        assert_eq!(exchange(client, b"in"), b"in");
    }
    let address = clients[0].local_addr().unwrap().to_string();
    let sessions = listed(&balancer);
    let session = sessions.iter().find(|one| one["client"] == address).unwrap();
    let id = session["id"].as_str().unwrap();
    let done = balancer.control_ok(&["kill", id]);
    assert!(done.contains(&address) && done.contains("web/a"), "{done}");
    assert_eq!(read_to_end(&clients[0]), (Vec::new(), Ending::Reset));
    assert!(balancer.session_ended("killed").contains("KD"));
    assert_eq!(exchange(&clients[1], b"still"), b"still");
    let again = balancer.control(&["kill", id]);
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(!again.status.success() && said.contains("no open session has the ID"), "{said}");
    for wrong in ["7", "0-0-x", "999-0-0"] {
        assert!(!balancer.control(&["kill", wrong]).status.success(), "{wrong}");
    }
    drop(clients);
    balancer.assert_no_leaks();
}

/// Workers that have not ended.
fn workers(balancer: &Balancer<'_>) -> usize {
    let threads = fs::read_dir(format!("/proc/{}/task", balancer.pid())).unwrap();
    let names = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("comm")));
    names.filter(|name| name.as_ref().is_ok_and(|name| name.starts_with("worker-"))).count()
}

#[test]
fn sessions_are_listed_and_killed_during_a_drain_when_a_worker_has_ended() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let config = config.workers(2).global("drain_timeout = \"1h\"");
    let mut balancer = Balancer::start(&env, &config);
    let client = connect(env.frontend());
    assert_eq!(exchange(&client, b"in"), b"in");
    balancer.signal(Signal::SIGTERM);
    until("the worker without a session has ended", || workers(&balancer) == 1);
    let sessions = listed(&balancer);
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    balancer.control_ok(&["kill", sessions[0]["id"].as_str().unwrap()]);
    assert_eq!(read_to_end(&client), (Vec::new(), Ending::Reset));
    assert!(balancer.wait().success());
}

#[test]
fn drain_with_wait_returns_when_the_last_session_has_ended() {
    let env = TestEnv::new();
    let (a, b) = (Server::echo(env.port(9001)), Server::echo(env.port(9002)));
    let config = Config::new(&env).server("a", a.address).server("b", b.address);
    let balancer = Balancer::start(&env, &config);
    let clients = [connect(env.frontend()), connect(env.frontend())];
    for client in &clients {
        assert_eq!(exchange(client, b"in"), b"in");
    }
    let timed_out = balancer.control(&["drain", "web/a", "--wait", "--timeout", "300ms"]);
    let said = String::from_utf8(timed_out.stderr).unwrap();
    assert!(!timed_out.status.success() && said.contains("still has sessions: 1"), "{said}");
    thread::scope(|scope| {
        let waits = scope.spawn(|| balancer.control_ok(&["drain", "web/a", "--wait"]));
        until("the order has arrived", || balancer.application_log().matches("web/a").count() >= 2);
        assert!(!waits.is_finished(), "a session is left");
        drop(clients);
        let done = waits.join().unwrap();
        assert!(done.contains("no session any more"), "{done}");
    });
}

#[test]
fn thousands_of_sessions_are_listed_and_one_of_them_is_killed() {
    const COUNT: usize = 9000;
    let env = TestEnv::exclusive();
    let server = Server::echo(env.port(9001));
    // In the queue, a session takes one descriptor of the balancer and none of the server.
    let config = Config::new(&env).workers(2).backend("queue_max = 10000\nqueue_timeout = \"1h\"");
    let config = config.server_with("a", server.address, "sessions_max = 1");
    let balancer = Balancer::start(&env, &config);
    let clients: Vec<_> = (0..COUNT).map(|_| connect(env.frontend())).collect();
    balancer.metrics_until("all are open", |metrics| {
        metrics.value("evenkeel_sessions_active", &[]) == COUNT as f64
    });
    let sessions = listed(&balancer);
    let ids: BTreeSet<&str> = sessions.iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!((sessions.len(), ids.len()), (COUNT, COUNT));
    let text = balancer.control_ok(&["sessions"]);
    assert_eq!(text.lines().count(), COUNT + 3, "a summary, an empty line and a head");
    let address = clients[COUNT / 2].local_addr().unwrap().to_string();
    let session = sessions.iter().find(|one| one["client"] == address).unwrap();
    assert_eq!(session["state"], "queued");
    balancer.control_ok(&["kill", session["id"].as_str().unwrap()]);
    assert_eq!(read_to_end(&clients[COUNT / 2]), (Vec::new(), Ending::Reset));
    assert_eq!(listed(&balancer).len(), COUNT - 1);
    drop(clients);
    balancer.assert_no_leaks();
}

#[test]
fn a_session_that_has_just_ended_is_not_killed_and_neither_is_the_next_one_in_its_slot() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let balancer = Balancer::start(&env, &config);
    for _ in 0..20 {
        let client = connect(env.frontend());
        assert_eq!(exchange(&client, b"in"), b"in");
        let id = listed(&balancer)[0]["id"].as_str().unwrap().to_owned();
        drop(client);
        // It may still be there, and end meanwhile: either answer is right.
        drop(balancer.control(&["kill", &id]));
        until("the session has ended", || listed(&balancer).is_empty());
        let next = connect(env.frontend());
        assert_eq!(exchange(&next, b"in"), b"in");
        let output = balancer.control(&["kill", &id]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8(output.stderr).unwrap().contains("no open session has"));
        assert_eq!(exchange(&next, b"still"), b"still");
    }
    balancer.assert_no_leaks();
}

/// `evenkeel drain web/a --wait`, once the balancer has the order.
fn waiting(balancer: &Balancer<'_>) -> std::process::Child {
    let mut command = Command::new(PROGRAM);
    command.args(["drain", "web/a", "--wait", "--control"]);
    command.arg(balancer.env.file("control.sock"));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("the server drains", || balancer.control_ok(&["status"]).contains("drain (up)"));
    child
}

#[track_caller]
fn fails_with(child: std::process::Child, part: &str) {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(part) && said.lines().count() == 1, "{said}");
}

#[test]
fn drain_with_wait_fails_if_the_balancer_ends_or_the_server_is_ready_again() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let mut balancer = Balancer::start(&env, &config);
    let client = connect(env.frontend());
    assert_eq!(exchange(&client, b"in"), b"in");
    let waits = waiting(&balancer);
    balancer.control_ok(&["ready", "web/a"]);
    fails_with(waits, "it gets new sessions again, and has sessions: 1");
    let waits = waiting(&balancer);
    balancer.signal(Signal::SIGKILL);
    balancer.wait();
    fails_with(waits, "evenkeel has ended before its last session");
}

#[test]
fn a_command_that_dies_while_it_waits_leaves_the_server_in_drain_and_nothing_else() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let balancer = Balancer::start(&env, &config);
    let client = connect(env.frontend());
    assert_eq!(exchange(&client, b"in"), b"in");
    let mut waits = waiting(&balancer);
    waits.kill().unwrap();
    waits.wait().unwrap();
    assert!(balancer.control_ok(&["status"]).contains("drain (up)"));
    assert_eq!(exchange(&client, b"still"), b"still");
    balancer.control_ok(&["ready", "web/a"]);
    drop(client);
    balancer.assert_no_leaks();
}
