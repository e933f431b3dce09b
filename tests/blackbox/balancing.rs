//! The balancing algorithms as clients see them. (Round robin: `rotation`.)

use std::net::TcpStream;

use crate::common::client::{connect, fetch};
use crate::common::wait::until;
use crate::common::{Balancer, Config, Server, TestEnv};

/// A server that answers each message with its name, as long as its client stays.
pub(crate) fn answering(name: &'static str, env: &TestEnv, port: u16) -> Server {
    Server::start(env.port(port), move |mut stream| {
        use std::io::{Read, Write};
        let mut message = [0; 16];
        while matches!(stream.read(&mut message), Ok(1..)) {
            if stream.write_all(name.as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// A session that stays open, and the name of its server.
fn open(env: &TestEnv) -> (TcpStream, String) {
    let client = connect(env.frontend());
    let name = ask_name(&client);
    (client, name)
}

/// The name of the server of a session.
pub(crate) fn ask_name(mut client: &TcpStream) -> String {
    use std::io::{Read, Write};
    client.write_all(b"?").unwrap();
    let mut name = [0; 16];
    let count = client.read(&mut name).unwrap();
    String::from_utf8(name[..count].to_vec()).unwrap()
}

#[test]
fn leastconn_gives_a_client_to_the_server_with_the_fewest_sessions() {
    for workers in [1, 2] {
        let env = TestEnv::new();
        let servers = ["a", "b", "c"].map(|name| (name, answering(name, &env, port_of(name))));
        let mut config = Config::new(&env).workers(workers).backend("balance = \"leastconn\"");
        for (name, server) in &servers {
            config = config.server(name, server.address);
        }
        let balancer = Balancer::start(&env, &config);
        let mut open_sessions: Vec<_> = (0..9).map(|_| open(&env)).collect();
        for (name, _) in &servers {
            let count = open_sessions.iter().filter(|(_, server)| server == name).count();
            assert_eq!(count, 3, "{name}, {workers} workers");
        }
        // All sessions of b end: it gets the next three, whatever the turn.
        open_sessions.retain(|(_, server)| server != "b");
        until("the sessions of b have ended", || {
            let metrics = balancer.metrics();
            metrics.value("evenkeel_server_sessions_active", &[("server", "b")]) == 0.0
        });
        for _ in 0..3 {
            let (client, name) = open(&env);
            assert_eq!(name, "b", "{workers} workers");
            open_sessions.push((client, name));
        }
        drop(open_sessions);
        balancer.assert_no_leaks();
    }
}

fn port_of(name: &str) -> u16 {
    9000 + u16::from(name.as_bytes()[0])
}

#[test]
fn leastconn_follows_weights() {
    let env = TestEnv::new();
    let (a, b) = (answering("a", &env, 9001), answering("b", &env, 9002));
    let config = Config::new(&env).backend("balance = \"leastconn\"");
    let config = config.server_with("a", a.address, "weight = 300").server("b", b.address);
    let balancer = Balancer::start(&env, &config);
    let sessions: Vec<_> = (0..8).map(|_| open(&env)).collect();
    assert_eq!(sessions.iter().filter(|(_, server)| server == "a").count(), 6);
    drop(sessions);
    balancer.assert_no_leaks();
}

#[test]
fn source_keeps_a_client_on_its_server_over_a_reload_and_moves_it_only_while_that_is_down() {
    let env = TestEnv::new();
    let names = ["a", "b", "c", "d"];
    let start = |name: &str| Server::naming(name, env.port(port_of(name)));
    let mut servers = names.map(start);
    let mut config = Config::new(&env).workers(2).backend("balance = \"source\"");
    config = config.quick_health("tcp");
    for (server, name) in servers.iter().zip(names) {
        config = config.server(name, server.address);
    }
    let balancer = Balancer::start(&env, &config);
    let home = fetch(env.frontend()).unwrap();
    for _ in 0..10 {
        assert_eq!(fetch(env.frontend()).unwrap(), home);
    }
    let address = env.port(9009);
    let fifth = Server::naming(&home, address);
    balancer.reload(&config.clone().server_with("e", address, "state = \"drain\""));
    assert_eq!(fetch(env.frontend()).unwrap(), home, "another server that gets nobody");
    drop(fifth);
    let index = names.iter().position(|name| *name == home).unwrap();
    servers[index].kill();
    let elsewhere = fetch(env.frontend()).unwrap();
    assert_ne!(elsewhere, home);
    assert_eq!(fetch(env.frontend()).unwrap(), elsewhere);
    servers[index] = start(&home);
    until("the client is back on its server", || fetch(env.frontend()).unwrap() == home);
}

#[test]
fn random_uses_every_server() {
    let env = TestEnv::new();
    let names = ["a", "b", "c"];
    let servers = names.map(|name| Server::naming(name, env.port(port_of(name))));
    let mut config = Config::new(&env).backend("balance = \"random\"");
    for (server, name) in servers.iter().zip(names) {
        config = config.server(name, server.address);
    }
    let balancer = Balancer::start(&env, &config);
    let fetch_names: String = (0..90).map(|_| fetch(env.frontend()).unwrap()).collect();
    for name in names {
        // One of 90 draws of three has less than 5 for a server in 10^9 runs.
        assert!(fetch_names.matches(name).count() >= 5, "{fetch_names}");
    }
    balancer.assert_no_leaks();
}

#[test]
fn first_fills_one_server_after_the_other() {
    let env = TestEnv::new();
    let (a, b) = (answering("a", &env, 9001), answering("b", &env, 9002));
    let config = Config::new(&env).workers(2).backend("balance = \"first\"");
    let config = config.server_with("a", a.address, "sessions_max = 2").server("b", b.address);
    let balancer = Balancer::start(&env, &config);
    let sessions: Vec<_> = (0..4).map(|_| open(&env)).collect();
    let names: String = sessions.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, "aabb");
    drop(sessions);
    balancer.assert_no_leaks();
}

#[test]
fn backups_first_uses_only_the_first_backup_that_is_up() {
    let env = TestEnv::new();
    let servers = ["a", "b"].map(|name| Server::naming(name, env.port(port_of(name))));
    let config = |backups| {
        Config::new(&env)
            .backend(&format!("backups = \"{backups}\""))
            .server_with("main", env.port(9099), "state = \"maint\"")
            .server_with("a", servers[0].address, "backup = true")
            .server_with("b", servers[1].address, "backup = true")
    };
    let balancer = Balancer::start(&env, &config("first"));
    let fetch_names = || (0..4).map(|_| fetch(env.frontend()).unwrap()).collect::<String>();
    assert_eq!(fetch_names(), "aaaa");
    balancer.reload(&config("all"));
    let both = fetch_names();
    assert!(both == "abab" || both == "baba", "{both}");
}

#[test]
fn a_changed_weight_keeps_the_rotation() {
    let env = TestEnv::new();
    let names = ["a", "b", "c"];
    let servers = names.map(|name| Server::naming(name, env.port(port_of(name))));
    let mut config = Config::new(&env);
    for (server, name) in servers.iter().zip(names) {
        config = config.server(name, server.address);
    }
    let balancer = Balancer::start(&env, &config);
    assert_eq!(fetch(env.frontend()).unwrap(), "a");
    balancer.control_ok(&["weight", "web/a", "50"]);
    assert_eq!(fetch(env.frontend()).unwrap(), "b");
    balancer.control_ok(&["weight", "web/a", "100"]);
    assert_eq!(fetch(env.frontend()).unwrap(), "c");
}

#[test]
fn the_weight_of_a_server_that_comes_up_grows_over_slow_start() {
    let env = TestEnv::new();
    let a = Server::naming("a", env.port(9001));
    let config = Config::new(&env).backend("slow_start = \"1h\"");
    let config = config.quick_health("tcp");
    let config = config.server("a", a.address).server("b", env.port(9002));
    let balancer = Balancer::start(&env, &config);
    until("b is down", || {
        balancer.metrics().value("evenkeel_server_up", &[("server", "b")]) == 0.0
    });
    let _b = Server::naming("b", env.port(9002));
    until("b is up", || balancer.metrics().value("evenkeel_server_up", &[("server", "b")]) == 1.0);
    // b has a twentieth of its weight for three minutes: one session of 21.
    let fetch_names: String = (0..42).map(|_| fetch(env.frontend()).unwrap()).collect();
    assert_eq!(fetch_names.matches('b').count(), 2, "{fetch_names}");
}
