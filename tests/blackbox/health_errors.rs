//! Failed connects of sessions take a server down: `health.errors`.

use std::time::{Duration, Instant};

use crate::common::client::{Ending, connect, connect_and_read, exchange, fetch, read_to_end};
use crate::common::metrics::Metrics;
use crate::common::{Balancer, Config, Server, TestEnv};
use crate::health_exchange::until_logged;

fn failures(metrics: &Metrics, server: &str) -> f64 {
    metrics.sum("evenkeel_server_connect_failures_total", &[("server", server)])
}

#[test]
fn without_probes_a_dead_server_is_left_alone_for_the_configured_time() {
    let env = TestEnv::new();
    let good = Server::naming("good", env.port(9001));
    let errors = "errors = { count = 3, within = \"1m\", down = \"3s\" }";
    let config = Config::new(&env).health(&format!("check = \"off\"\n{errors}"));
    let config = config.server("good", good.address).server("dead", env.port(9002));
    let balancer = Balancer::start(&env, &config);
    let begun = Instant::now();
    balancer.metrics_until("the dead server is down", |metrics| {
        assert_eq!(fetch(env.frontend()).unwrap(), "good", "another server is tried");
        !metrics.up("dead")
    });
    until_logged(
        &balancer,
        "server web/dead is down: connects of sessions failed 3 times within 60s (last: refused)",
    );
    let tried = failures(&balancer.metrics(), "dead");
    for _ in 0..20 {
        assert_eq!(fetch(env.frontend()).unwrap(), "good");
    }
    if begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(failures(&balancer.metrics(), "dead"), tried);
    }
    until_logged(&balancer, "server web/dead is up: 3s after connects of sessions failed");
    assert!(begun.elapsed() >= Duration::from_secs(3));
    // It counts from the beginning.
    balancer.metrics_until("the dead server is tried again", |metrics| {
        fetch(env.frontend()).unwrap();
        failures(metrics, "dead") > tried
    });
    balancer.assert_no_leaks();
}

#[test]
fn with_probes_it_comes_up_again_by_them() {
    let env = TestEnv::new();
    let good = Server::naming("good", env.port(9001));
    let probed = Server::naming("probed", env.port(9003));
    let health = "check = \"tcp\"\ninterval = \"100ms\"\ninterval_down = \"100ms\"\nrise = 3\n\
                  errors = { count = 2, within = \"1m\", down = \"24d\" }";
    // Probes reach a port on which both are alive.
    let config = Config::new(&env).health(&format!("{health}\nport = {}", probed.address.port()));
    let config = config.server("good", good.address).server("dead", env.port(9002));
    let balancer = Balancer::start(&env, &config);
    balancer.metrics_until("the dead server is down", |metrics| {
        fetch(env.frontend()).unwrap();
        !metrics.up("dead")
    });
    until_logged(
        &balancer,
        "server web/dead is down: connects of sessions failed 2 times within 60s (last: refused)",
    );
    until_logged(&balancer, "server web/dead is up: connected (3 in a row)");
}

#[test]
fn connects_that_fail_together_count_one_by_one() {
    let env = TestEnv::new();
    let config = Config::new(&env)
        .workers(2)
        .backend("retries = 0")
        .health("check = \"off\"\nerrors = { count = 20, within = \"1m\", down = \"1h\" }");
    let balancer = Balancer::start(&env, &config.server("dead", env.port(9002)));
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(connect_and_read(env.frontend()).1, Ending::Reset));
        }
    });
    balancer.metrics_until("the server is down", |metrics| !metrics.up("dead"));
    assert_eq!(failures(&balancer.metrics(), "dead"), 20.0);
    // No server is left.
    assert_eq!(connect_and_read(env.frontend()).1, Ending::Reset);
    balancer.session_ended("SC no_server");
}

#[test]
fn on_down_and_a_reload_hold_for_them_too() {
    let env = TestEnv::new();
    let mut server = Server::echo(env.port(9001));
    let config = Config::new(&env).backend("on_down = \"close\"\nretries = 0");
    let errors = "check = \"off\"\nerrors = { count = 1, within = \"1m\", down = \"1h\" }";
    let config = config.server("a", server.address);
    let balancer = Balancer::start(&env, &config.clone().health(errors));
    let open = connect(env.frontend());
    assert_eq!(exchange(&open, b"hello"), b"hello");
    server.kill();
    assert_eq!(connect_and_read(env.frontend()).1, Ending::Reset);
    assert_eq!(read_to_end(&open).1, Ending::Reset);
    balancer.session_ended("DD server_down");
    until_logged(&balancer, "failed once within 60s (last: refused)");
    // Without the key it is up again, and so is it after other keys.
    balancer.reload(&config.clone().backend("queue_max = 1").health(errors));
    assert!(!balancer.metrics().up("a"), "the reload keeps its state");
    balancer.reload(&config.health("check = \"off\""));
    until_logged(&balancer, "server web/a is up: health.errors was removed");
    assert!(balancer.metrics().up("a"));
    balancer.assert_no_leaks();
}
