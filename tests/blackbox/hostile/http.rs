//! `observe.bind` (case 98).

use crate::common::{Balancer, Config, Server, TestEnv};
use crate::hostile::flood::Manner;
use crate::hostile::garbage::{self, Sent};
use crate::hostile::{HTTP_MAX, Quiet, Sessions, slow_clients_are_cut_off, until_scraped};

/// More clients than are served at a time; all fit into the backlog of 128.
const SLOW: &[(Manner, usize)] = &[
    (Manner::Silent, 60),
    (Manner::Drip(b"GET /metrics HTTP/1.1\r\nHost: a\r\nA: "), 120),
    (Manner::HalfClosed(b"GET /metrics HT"), 40),
];

#[test]
fn slow_clients_are_cut_off_while_scrapes_orders_probes_and_sessions_go_on() {
    let env = TestEnv::exclusive();
    // Those of one place after the other.
    slow_clients_are_cut_off(&env, &env.observe().into(), SLOW, 2 * HTTP_MAX);
}

#[test]
fn megabytes_that_are_no_request_are_refused_without_memory_for_them() {
    let env = TestEnv::exclusive();
    let echo = Server::echo(env.port(9001));
    let config = Config::new(&env).quick_health("tcp").server("echo", echo.address);
    let balancer = Balancer::start(&env, &config);
    balancer.metrics_until("the server is up", |metrics| metrics.up("echo"));
    let quiet = Quiet::of(&balancer);
    let sessions = Sessions::start(env.frontend());
    for Sent { what, bytes, answers } in garbage::http() {
        for received in garbage::all_at_once(&env.observe().into(), &bytes) {
            let text = String::from_utf8_lossy(&received);
            let found: Vec<&str> = text.split("HTTP/1.1 ").skip(1).collect();
            // The answer is lost if the connection was reset since bytes were left.
            assert!(found.len() <= 1, "{what} is one request: {text}");
            let is_expected =
                |answer: &str| answers.iter().any(|status| answer.starts_with(status));
            assert!(found.iter().all(|answer| is_expected(answer)), "{what}: {text}");
            assert!(found.len() == 1 || text.is_empty(), "{what}: {text}");
        }
        quiet.assert_bounded(&balancer, 3 + garbage::CLIENTS);
        until_scraped(env.observe());
        sessions.assert_go_on();
    }
    sessions.end();
    quiet.assert_back(&balancer);
}
