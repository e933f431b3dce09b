//! When and where servers are probed, and what that costs them.

use std::io::{Read, Write};
use std::sync::mpsc;
use std::time::Duration;

use crate::common::client::fetch;
use crate::common::wait::{TIMEOUT, holds_for, until};
use crate::common::{Balancer, Config, Server, TestEnv};
use crate::health_exchange::until_logged;

#[test]
fn a_server_program_does_not_see_tcp_probes() {
    let env = TestEnv::new();
    let server = Server::naming("a", env.port(9001));
    let config = Config::new(&env).quick_health("tcp").server("a", server.address);
    let balancer = Balancer::start(&env, &config);
    let passed = || balancer.metrics().sum("evenkeel_probes_total", &[("result", "passed")]);
    // The kernel completes a handshake if the balancer does not run for 200 ms (`TCP_DELACK_MAX`),
    // as on a busy machine: then another 20 probes are counted.
    let (mut seen, mut first) = (server.accepted(), passed());
    until("the program has seen none of 20 probes in a row", || {
        let (now, count) = (server.accepted(), passed());
        if now != seen {
            (seen, first) = (now, count);
        }
        count - first >= 20.0
    });
    assert_eq!(fetch(env.frontend()).unwrap(), "a");
}

#[test]
fn probes_go_to_a_port_of_their_own() {
    let env = TestEnv::new();
    let server = Server::naming("a", env.port(9001));
    let probed = Server::http("health", env.port(9099));
    let health = "check = \"http\"\ninterval = \"100ms\"\nport = 9099";
    let config = Config::new(&env).health(health).server("a", server.address);
    let balancer = Balancer::start(&env, &config);
    balancer.metrics_until("probes have passed", |metrics| {
        metrics.sum("evenkeel_probes_total", &[("result", "passed")]) >= 3.0
    });
    assert!(probed.accepted() >= 3 && server.accepted() == 0);
    assert_eq!(fetch(env.frontend()).unwrap(), "a");
}

#[test]
fn an_http_probe_has_the_configured_method_path_and_host() {
    // Each check, and how its request begins.
    for (http, expected) in [
        ("", "GET / HTTP/1.1\r\nHost: ADDRESS\r\n"),
        (
            "http = { method = \"HEAD\", path = \"/ok?a=b\", host = \"www.example.org:81\" }",
            "HEAD /ok?a=b HTTP/1.1\r\nHost: www.example.org:81\r\n",
        ),
    ] {
        let env = TestEnv::new();
        let (sender, requests) = mpsc::channel();
        let server = Server::start(env.port(9001), move |mut stream| {
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap_or(0);
            drop(sender.send(String::from_utf8_lossy(&request[..length]).into_owned()));
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"));
        });
        let health = format!("check = \"http\"\ninterval = \"100ms\"\n{http}");
        let config = Config::new(&env).health(&health).server("a", server.address);
        let balancer = Balancer::start(&env, &config);
        let request = requests.recv_timeout(TIMEOUT).unwrap();
        let expected = expected.replace("ADDRESS", &server.address.to_string());
        assert!(request.starts_with(&expected), "{request}");
        balancer.metrics_until("probes have passed", |metrics| {
            metrics.sum("evenkeel_probes_total", &[("result", "passed")]) >= 2.0
        });
    }
}

#[test]
fn a_server_that_is_down_is_probed_at_another_interval() {
    let env = TestEnv::new();
    let server = Server::start(env.port(9001), |mut stream| {
        drop(stream.read(&mut [0; 4096]));
        drop(stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"));
    });
    let health = "check = \"http\"\ninterval = \"50ms\"\ninterval_down = \"1h\"";
    let config = Config::new(&env).health(health).server("a", server.address);
    let balancer = Balancer::start(&env, &config);
    // The first probe decides alone, whatever `fall` is.
    until_logged(&balancer, "server web/a is down: status 503, expected 200-399 (first probe)");
    assert!(holds_for(Duration::from_millis(700), || server.accepted() == 1));
}

#[test]
fn an_interim_response_is_not_the_status() {
    let env = TestEnv::new();
    let server = Server::start(env.port(9001), |mut stream| {
        drop(stream.read(&mut [0; 4096]));
        drop(stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"));
        drop(stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n"));
    });
    let config = Config::new(&env).quick_health("http").server("a", server.address);
    let balancer = Balancer::start(&env, &config);
    balancer.metrics_until("probes have passed", |metrics| {
        metrics.sum("evenkeel_probes_total", &[("result", "passed")]) >= 2.0
    });
    let log = balancer.application_log();
    assert!(!log.contains("is down"), "{log}");
}
