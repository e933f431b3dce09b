//! What a new process knows of the old one: health, orders of the operator, counters.

use std::net::TcpStream;
use std::time::Duration;

use super::*;
use crate::common::client::{connect, exchange, fetch};
use crate::common::metrics::Metrics;
use crate::common::wait::holds_for;
use crate::common::{Server, http};

fn names(env: &TestEnv, count: usize) -> String {
    (0..count).map(|_| fetch(env.frontend()).unwrap()).collect()
}

#[test]
fn health_and_orders_pass_to_the_new_process() {
    let env = TestEnv::new();
    let (a, b) = (Server::naming("a", env.port(9001)), Server::naming("b", env.port(9002)));
    // The probe of a server decides alone only once: after that, an hour passes.
    let config = Config::new(&env)
        .health("check = \"tcp\"\ninterval = \"1h\"\ninterval_down = \"1h\"")
        .server("a", a.address)
        .server("b", b.address)
        .server("dead", env.port(9003))
        .server("heavy", env.port(9004));
    let mut chain = Chain::start(&env, &config);
    chain.metrics_until("probes have decided", |metrics| {
        !metrics.up("dead") && !metrics.up("heavy")
    });
    chain.control_ok(&["maint", "web/b"]);
    chain.control_ok(&["weight", "web/heavy", "7"]);
    assert_eq!(names(&env, 4), "aaaa");
    // Alone, one probe of a new process would bring it up; `rise` is 2.
    let _revived = Server::naming("dead", env.port(9003));
    chain.upgrade();
    let probed = |metrics: &Metrics| {
        let labels = [("server", "dead"), ("result", "passed")];
        metrics.value("evenkeel_probes_total", &labels) == 1.0
    };
    let metrics = chain.metrics_until("the new process has probed", probed);
    assert!(!metrics.up("dead") && metrics.up("a"), "as the old process knew it");
    let of = |name: &str, labels: &[(&str, &str)]| metrics.value(name, labels);
    assert_eq!(of("evenkeel_server_weight", &[("server", "heavy")]), 7.0);
    assert_eq!(of("evenkeel_server_state", &[("server", "b"), ("state", "maint")]), 1.0);
    assert_eq!(of("evenkeel_server_sessions_total", &[("server", "a")]), 4.0);
    assert_eq!(names(&env, 4), "aaaa");
    let text = chain.control_ok(&["status"]);
    assert!(text.contains("maint"), "{text}");
    chain.control_ok(&["ready", "web/b"]);
    until("b is chosen again", || names(&env, 2).contains('b'));
}

#[test]
fn no_counter_of_a_scrape_goes_back() {
    let env = TestEnv::new();
    let a = Server::naming("a", env.port(9001));
    let config = Config::new(&env).quick_health("tcp").workers(3).server("a", a.address);
    let mut chain = Chain::start(&env, &config);
    let mut before = counters(&env);
    for workers in [2, 1, 3] {
        names(&env, 10);
        chain.upgrade_to(&config.clone().workers(workers));
        let after = counters(&env);
        for (series, was) in &before {
            // The series of workers that are gone have ended; their sum is kept.
            let Some(is) = after.iter().find(|(name, _)| name == series).map(|(_, is)| *is) else {
                assert!(series.contains("worker="), "{series}");
                continue;
            };
            assert!(is >= *was, "{series}: {is} after {was}");
        }
        let sum = |of: &[(String, f64)], name: &str| -> f64 {
            of.iter().filter(|(series, _)| series.starts_with(name)).map(|(_, value)| value).sum()
        };
        for name in ["evenkeel_worker_turns_total", "evenkeel_sessions_closed_total"] {
            assert!(sum(&after, name) >= sum(&before, name), "{name}");
        }
        before = after;
    }
}

#[test]
fn a_removed_server_that_returns_with_the_new_process_keeps_its_counters() {
    let env = TestEnv::new();
    let (a, b) = (Server::echo(env.port(9001)), Server::echo(env.port(9002)));
    let only = |config: Config| config.server("a", a.address);
    let more = |env: &TestEnv| {
        let bind = env.port(8001);
        format!("[frontend.more]\nbind = [\"{bind}\"]\nbackend = \"web\"")
    };
    let new = || Config::new(&env).global("drain_timeout = \"1h\"");
    let both = only(new()).server("b", b.address).more(&more(&env));
    let mut chain = Chain::start(&env, &both);
    let clients: Vec<TcpStream> = (0..2).map(|_| connect(env.port(8001))).collect();
    clients.iter().for_each(|client| assert_eq!(exchange(client, b"in"), b"in"));
    chain.reload(&only(new()));
    chain.upgrade_to(&both);
    let counted = |metrics: &Metrics| {
        let server = metrics.value("evenkeel_server_sessions_total", &[("server", "b")]);
        (server, metrics.value("evenkeel_sessions_total", &[("frontend", "more")]))
    };
    assert_eq!(counted(&chain.metrics()), (1.0, 2.0));
    drop(clients);
    let is_whole = |chain: &Chain<'_>| {
        let metrics = chain.metrics();
        assert_eq!(counted(&metrics), (1.0, 2.0));
        let of_more = [("frontend", "more")];
        let closed = metrics.sum("evenkeel_sessions_closed_total", &of_more);
        let active = metrics.value("evenkeel_sessions_active", &of_more);
        assert_eq!(closed + active, 2.0, "opened = closed + active");
        active
    };
    until("the sessions have ended", || is_whole(&chain) == 0.0);
    chain.ended(0);
    assert!(holds_for(Duration::from_millis(500), || is_whole(&chain) == 0.0));
}

/// Every counter of evenkeel, with its labels.
fn counters(env: &TestEnv) -> Vec<(String, f64)> {
    let (status, text) = http::get(env.observe(), "/metrics").unwrap();
    assert_eq!(status, 200);
    let is_counter = |series: &str| {
        let name = series.split('{').next().unwrap_or_default();
        series.starts_with("evenkeel_")
            && ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end))
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let series = lines.filter_map(|line| line.rsplit_once(' '));
    series
        .filter(|(series, _)| is_counter(series))
        .map(|(series, value)| (series.to_owned(), value.parse().unwrap()))
        .collect()
}
