//! `evenkeel sessions`, `kill` and `drain --wait`.

use std::thread;

use crate::common::client::{Ending, connect, exchange, read_to_end};
use crate::common::wait::until;
use crate::common::{Balancer, Config, Server, TestEnv, echoing};

fn listed(balancer: &Balancer<'_>) -> Vec<serde_json::Value> {
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
    assert!(!again.status.success() && said.contains("has ended"), "{said}");
    for wrong in ["7", "0-0-x", "999-0-0"] {
        assert!(!balancer.control(&["kill", wrong]).status.success(), "{wrong}");
    }
    drop(clients);
    balancer.assert_no_leaks();
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
