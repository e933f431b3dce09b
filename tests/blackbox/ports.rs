//! Ranges of ports, and servers without a port: a session goes to the port that its client
//! connected to.

use crate::common::client::{Ending, connect_and_read, fetch};
use crate::common::wait::until;
use crate::common::{Balancer, Config, Server, TestEnv};

/// A frontend beside that of each test, and lines of `backend.ports`.
fn ports(bind: &str, server: &str, lines: &str) -> String {
    format!(
        "[frontend.ports]\nbind = [\"{bind}\"]\nbackend = \"ports\"\n[backend.ports.health]\n\
         {lines}\n[[backend.ports.server]]\nname = \"p\"\naddress = \"{server}\"\n"
    )
}

const QUICK: &str = "interval = \"100ms\"\ninterval_down = \"100ms\"\nrise = 1\nfall = 1";

/// The configuration of a test, and its own backend, which has to have a server.
fn config(env: &TestEnv, more: &str) -> Config {
    Config::new(env).workers(2).server("a", env.port(9001)).more(more)
}

fn up(balancer: &Balancer<'_>) -> bool {
    balancer.metrics().up("p")
}

#[test]
fn eleven_ports_lead_to_the_same_ports_of_the_server() {
    let env = TestEnv::new();
    let other = env.another();
    let at = |port: u16| Server::naming(&port.to_string(), other.port(port));
    let servers: Vec<Server> = (8100..=8110).map(at).collect();
    let bind = format!("{}:8100-8110", env.frontend().ip());
    let address = other.frontend().ip().to_string();
    let config = config(&env, &ports(&bind, &address, "check = \"off\""));
    let balancer = Balancer::start(&env, &config);
    for port in 8100..=8110 {
        assert_eq!(fetch(env.port(port)).unwrap(), port.to_string());
    }
    for port in [8099, 8111] {
        assert!(fetch(env.port(port)).is_err(), "{port}");
    }
    let status: serde_json::Value =
        serde_json::from_str(&balancer.control_ok(&["status", "--json"])).unwrap();
    assert_eq!(status["frontends"][1]["addresses"][0], bind.as_str());
    let server = &status["servers"][1];
    assert_eq!((&server["name"], &server["address"]), (&"p".into(), &address.as_str().into()));
    let text = balancer.control_ok(&["status"]);
    assert!(text.contains(&bind), "{text}");
    let log = balancer.application_log();
    assert!(log.contains(&format!("{}, {bind}", env.frontend())), "{log}");
    // A reload that shortens the range closes the ports that are gone, and no other.
    let shorter = format!("{}:8100-8104", env.frontend().ip());
    let config = self::config(&env, &ports(&shorter, &address, "check = \"off\""));
    balancer.reload(&config);
    until("connections are refused", || fetch(env.port(8110)).is_err());
    assert_eq!(fetch(env.port(8104)).unwrap(), "8104");
    drop(servers);
    assert_eq!(connect_and_read(env.port(8100)), (Vec::new(), Ending::Reset));
    balancer.reload(&self::config(&env, &ports(&bind, &address, "check = \"off\"")));
    balancer.assert_no_leaks();
}

/// A TCP probe resets its connection before the server program sees it.
fn has_passed_a_probe(balancer: &Balancer<'_>) -> bool {
    let passed = [("server", "p"), ("result", "passed")];
    up(balancer) && balancer.metrics().sum("evenkeel_probes_total", &passed) > 0.0
}

#[test]
fn the_port_of_the_health_check_is_probed_whatever_the_client_connected_to() {
    let env = TestEnv::new();
    let other = env.another();
    let _server = Server::naming("web", other.port(8101));
    let mut probed = Server::echo(other.port(9100));
    let bind = format!("{}:8100-8110", env.frontend().ip());
    let address = other.frontend().ip().to_string();
    let lines = format!("port = 9100\n{QUICK}");
    let balancer = Balancer::start(&env, &config(&env, &ports(&bind, &address, &lines)));
    until("it was probed", || has_passed_a_probe(&balancer));
    assert_eq!(fetch(env.port(8101)).unwrap(), "web");
    probed.kill();
    until("the server is down", || !up(&balancer));
    assert_eq!(connect_and_read(env.port(8101)), (Vec::new(), Ending::Reset));
    balancer.assert_no_leaks();
}

#[test]
fn the_only_port_of_the_frontend_is_probed_and_a_reload_moves_it() {
    let env = TestEnv::new();
    let other = env.another();
    let _first = Server::naming("first", other.port(8100));
    let (bind, address) = (env.port(8100).to_string(), other.frontend().ip().to_string());
    let balancer = Balancer::start(&env, &config(&env, &ports(&bind, &address, QUICK)));
    until("it was probed", || has_passed_a_probe(&balancer));
    assert_eq!(fetch(env.port(8100)).unwrap(), "first");
    let moved = env.port(8101).to_string();
    balancer.reload(&config(&env, &ports(&moved, &address, QUICK)));
    until("nobody listens on the other port", || !up(&balancer));
    let _second = Server::naming("second", other.port(8101));
    until("it was probed", || up(&balancer));
    assert_eq!(fetch(env.port(8101)).unwrap(), "second");
    balancer.assert_no_leaks();
}

#[test]
fn a_port_in_use_within_a_range_is_named() {
    let env = TestEnv::new();
    let taken = Server::echo(env.port(8105));
    let balancer = Balancer::start(&env, &config(&env, ""));
    let bind = format!("{}:8100-8110", env.frontend().ip());
    let more = ports(&bind, "192.0.2.1:80", "check = \"off\"");
    balancer.rewrite(&config(&env, &more).text());
    let said = String::from_utf8(balancer.control(&["reload"]).stderr).unwrap();
    assert!(said.contains(&format!("{} is in use", taken.address)), "{said}");
    assert!(fetch(env.port(8100)).is_err(), "none of them is bound");
    balancer.assert_no_leaks();
}
