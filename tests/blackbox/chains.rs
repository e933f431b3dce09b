//! Frontends that are servers of other frontends: a chain serves clients, and a cycle is not used.

use std::fs;
use std::net::SocketAddr;

use crate::common::client::{Ending, connect_and_read, fetch};
use crate::common::{Balancer, Config, Server, TestEnv};
use crate::endpoints::{can_mount, command};
use crate::network_namespace::enter;

/// The frontend and the backend `inner`, with one server.
fn inner(bind: SocketAddr, server: &str) -> String {
    format!(
        "[frontend.inner]\nbind = [\"{bind}\"]\nbackend = \"inner\"\n\
         [backend.inner.health]\ncheck = \"off\"\n\
         [[backend.inner.server]]\nname = \"b\"\naddress = \"{server}\"\n"
    )
}

/// A server of the backend `web`.
fn server(address: &str) -> String {
    format!("[[backend.web.server]]\nname = \"a\"\naddress = \"{address}\"\n")
}

/// What `status` reports as the last probe of a server.
fn last_probe(balancer: &Balancer<'_>, server: &str) -> String {
    let status = balancer.control_ok(&["status", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&status).unwrap();
    let servers = report["servers"].as_array().unwrap();
    let found = servers.iter().find(|one| one["name"] == server).unwrap();
    found["last_probe"].as_str().unwrap().to_owned()
}

#[test]
fn a_chain_of_two_frontends_serves_clients_by_name_as_by_number() {
    // In a network namespace of its own, as `localhost` is an address that other tests share.
    if !enter("a_chain_of_two_frontends_serves_clients_by_name_as_by_number") {
        return;
    }
    // Two ports: the kernel may release that of the first process after its end.
    for (host, port) in [("localhost", 9090), ("127.0.0.1", 9091)] {
        let address = format!("{host}:{port}");
        let env = TestEnv::new();
        let good = Server::naming("good", env.port(9001));
        let bind = SocketAddr::from(([127, 0, 0, 1], port));
        let config = Config::new(&env).more(&server(&address));
        let config = config.more(&inner(bind, &good.address.to_string()));
        let balancer = Balancer::start(&env, &config);
        for _ in 0..4 {
            assert_eq!(fetch(env.frontend()).unwrap(), "good", "{address}");
        }
        assert!(!balancer.application_log().contains("is not used"), "{address}");
        let metrics = balancer.assert_no_leaks();
        let sessions = metrics.sum("evenkeel_server_sessions_total", &[("server", "a")]);
        assert_eq!(sessions, 4.0, "{address}");
        assert_eq!(metrics.closed("done"), 8.0, "{address}: each fetch is two sessions");
    }
}

#[test]
fn of_two_frontends_whose_names_lead_to_each_other_one_is_not_used() {
    if !can_mount("of_two_frontends_whose_names_lead_to_each_other_one_is_not_used") {
        return;
    }
    let env = TestEnv::new();
    let (first, second) = (env.frontend(), env.port(8001));
    fs::write(env.file("hosts"), format!("{} one.test two.test\n", first.ip())).unwrap();
    let config = Config::new(&env).global("sessions_max = 200").more(&server("two.test:8001"));
    let config = config.more(&inner(second, "one.test:8000"));
    let balancer = Balancer::start_command(&env, command(&env, &config));
    for _ in 0..2 {
        assert_eq!(connect_and_read(first), (Vec::new(), Ending::Reset));
    }
    let metrics = balancer.assert_no_leaks();
    let opened = metrics.value("evenkeel_sessions_total", &[]);
    // For each client one of `web`, and one of `inner` for each attempt (`retries` is 2).
    assert!(opened <= 8.0, "{opened} sessions for two clients");
    let said = balancer.application_log();
    let not_used = format!("server inner/b is not used at {first}: that is frontend web, which");
    assert!(said.contains(&not_used) && said.contains("correct what the host name"), "{said}");
    assert!(!said.contains("server web/a is not used"), "{said}");
    let why = format!("no address: {first} is frontend web, which leads back to backend inner");
    assert_eq!(last_probe(&balancer, "b"), why);
}

#[test]
fn a_name_that_a_dns_filter_answers_with_zeros_does_not_lead_to_loopback() {
    // In a network namespace of its own: the unspecified address is 127.0.0.1, which others share.
    let test = "a_name_that_a_dns_filter_answers_with_zeros_does_not_lead_to_loopback";
    if !enter(test) || !can_mount(test) {
        return;
    }
    let env = TestEnv::new();
    let frontend = "127.0.0.1:8000".parse().unwrap();
    fs::write(env.file("hosts"), "0.0.0.0 blocked.test\n:: blocked.test\n").unwrap();
    let config = Config::new(&env).bind(frontend).global("sessions_max = 200");
    let config = config.more(&server("blocked.test:8000"));
    let balancer = Balancer::start_command(&env, command(&env, &config));
    assert_eq!(connect_and_read(frontend), (Vec::new(), Ending::Reset));
    balancer.session_ended("SC no_server");
    let metrics = balancer.assert_no_leaks();
    assert_eq!(metrics.value("evenkeel_sessions_total", &[]), 1.0);
    let said = balancer.application_log();
    for address in ["0.0.0.0", "::"] {
        let not_used = format!("server web/a is not used at {address}, the unspecified");
        assert!(said.contains(&not_used), "{said}");
    }
    assert!(last_probe(&balancer, "a").starts_with("no address: "), "{said}");
}
