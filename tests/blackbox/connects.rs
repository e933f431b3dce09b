//! Connecting to servers that refuse, do not answer or cannot be reached.

use std::io::{Read, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::common::client::{Ending, connect, connect_and_read, fetch, fetch_with};
use crate::common::server::BlackHole;
use crate::common::{Balancer, Config, Server, TestEnv};

/// Runs `act` so often: a quarter of the runs took this long at most. A busy machine delays some of
/// them, a delay of evenkeel or the kernel all.
fn quicker_quarter(runs: usize, mut act: impl FnMut()) -> Duration {
    let run = |_| {
        let begun = Instant::now();
        act();
        begun.elapsed()
    };
    let mut times: Vec<Duration> = (0..runs).map(run).collect();
    times.sort_unstable();
    times[runs / 4]
}

#[test]
fn one_dead_server_of_three_fails_no_client() {
    let env = TestEnv::new(); // case 18
    let a = Server::naming("a", env.port(9001));
    let c = Server::naming("c", env.port(9003));
    let config = Config::new(&env).server("a", a.address).server("dead", env.port(9002));
    let balancer = Balancer::start(&env, &config.server("c", c.address));
    for _ in 0..30 {
        fetch(env.frontend()).unwrap();
    }
    let metrics = balancer.assert_no_leaks();
    let of_dead = [("server", "dead"), ("reason", "refused")];
    assert!(metrics.value("evenkeel_server_connect_failures_total", &of_dead) >= 10.0);
    let refused = [("reason", "refused")];
    assert!(metrics.sum("evenkeel_server_retries_total", &refused) >= 10.0);
    let retries = metrics.sum("evenkeel_server_retries_total", &[]);
    assert_eq!(metrics.sum("evenkeel_server_retries_total", &refused), retries);
    assert_eq!(metrics.closed("done"), 30.0);
}

#[test]
fn with_all_servers_dead_a_client_is_reset_at_once() {
    let env = TestEnv::new(); // case 20
    let config = Config::new(&env).backend("connect_timeout = \"1m\"").server("a", env.port(9001));
    let balancer = Balancer::start(&env, &config.server("b", env.port(9002)));
    let begun = Instant::now();
    for _ in 0..10 {
        assert_eq!(connect_and_read(env.frontend()), (Vec::new(), Ending::Reset));
    }
    // With half a second before each retry, it would be as long.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    balancer.session_ended("SC connect_failed");
    let metrics = balancer.assert_no_leaks();
    assert_eq!(metrics.closed("connect_failed"), 10.0);
    // Two servers, two retries: three attempts, not a spin.
    assert_eq!(metrics.sum("evenkeel_server_connect_failures_total", &[]), 30.0);
}

#[test]
fn the_number_of_retries_is_the_configured_one() {
    let env = TestEnv::new();
    let config = Config::new(&env).backend("retries = 0").server("a", env.port(9001));
    let balancer = Balancer::start(&env, &config);
    assert_eq!(connect_and_read(env.frontend()).1, Ending::Reset);
    let metrics = balancer.assert_no_leaks();
    assert_eq!(metrics.sum("evenkeel_server_connect_failures_total", &[]), 1.0);
    assert_eq!(metrics.sum("evenkeel_server_retries_total", &[]), 0.0);
}

#[test]
fn after_the_connect_timeout_another_server_is_tried() {
    let env = TestEnv::new(); // case 19
    let hole = BlackHole::open(env.port(9001));
    let b = Server::naming("b", env.port(9002));
    let config = Config::new(&env).backend("connect_timeout = \"300ms\"");
    let config = config.server("hole", hole.address).server("b", b.address);
    let balancer = Balancer::start(&env, &config);
    for _ in 0..4 {
        assert_eq!(fetch(env.frontend()).unwrap(), "b");
    }
    let metrics = balancer.assert_no_leaks();
    let of_hole = [("server", "hole"), ("reason", "timeout")];
    assert!(metrics.value("evenkeel_server_connect_failures_total", &of_hole) >= 1.0);
}

#[test]
fn with_six_silent_servers_of_seven_a_client_waits_at_most_one_connect_timeout() {
    let env = TestEnv::new();
    let holes: Vec<BlackHole> = (9001..9007).map(|port| BlackHole::open(env.port(port))).collect();
    let good = Server::naming("good", env.port(9007));
    // The attempts of the clients time out before the first probes do.
    let health = "check = \"tcp\"\ntimeout = \"15s\"";
    let mut config = Config::new(&env).backend("connect_timeout = \"6s\"").health(health);
    for (index, hole) in holes.iter().enumerate() {
        config = config.server(&format!("hole{index}"), hole.address);
    }
    let balancer = Balancer::start(&env, &config.server("good", good.address));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..14 {
            scope.spawn(|| assert_eq!(fetch(env.frontend()).unwrap(), "good"));
        }
    });
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    let metrics = balancer.assert_no_leaks();
    let by_timeout = [("reason", "timeout")];
    assert_eq!(metrics.sum("evenkeel_server_connect_failures_total", &by_timeout), 12.0);
}

#[test]
fn a_connect_timeout_of_the_last_server_resets_the_client() {
    let env = TestEnv::new(); // case 19
    let hole = BlackHole::open(env.port(9001));
    let config = Config::new(&env).backend("connect_timeout = \"200ms\"\nretries = 1");
    let balancer = Balancer::start(&env, &config.server("hole", hole.address));
    assert_eq!(connect_and_read(env.frontend()), (Vec::new(), Ending::Reset));
    balancer.session_ended("sC connect_timeout");
    let metrics = balancer.assert_no_leaks();
    assert_eq!(metrics.closed("connect_timeout"), 1.0);
    let by_timeout = [("reason", "timeout")];
    assert_eq!(metrics.sum("evenkeel_server_connect_failures_total", &by_timeout), 2.0);
}

#[test]
fn an_unreachable_server_is_counted_and_another_one_is_tried() {
    let env = TestEnv::new(); // case 30: TCP to a subnet broadcast address has no route
    let b = Server::naming("b", env.port(9002));
    let far = "127.255.255.255:80".parse().unwrap();
    let config = Config::new(&env).server("far", far).server("b", b.address);
    let balancer = Balancer::start(&env, &config);
    for _ in 0..4 {
        assert_eq!(fetch(env.frontend()).unwrap(), "b");
    }
    let metrics = balancer.assert_no_leaks();
    let of_far = [("server", "far"), ("reason", "unreachable")];
    assert!(metrics.sum("evenkeel_server_connect_failures_total", &of_far) >= 2.0);
}

#[test]
fn a_request_of_which_a_server_got_a_byte_is_not_sent_again() {
    let env = TestEnv::new(); // case 21
    let a = Server::start(env.port(9001), |mut stream| {
        use std::io::Read;
        stream.read_exact(&mut [0; 7]).unwrap();
        crate::common::client::reset(stream);
    });
    let b = Server::echo(env.port(9002));
    let config = Config::new(&env).server("a", a.address).server("b", b.address);
    let balancer = Balancer::start(&env, &config);
    assert!(fetch_with(env.frontend(), b"pay me!").is_err());
    assert_eq!((a.accepted(), b.accepted()), (1, 0));
    balancer.session_ended("SD server_reset");
    balancer.assert_no_leaks();
}

#[test]
fn a_server_that_sends_first_does_not_wait_for_a_silent_client() {
    let env = TestEnv::new();
    let a = Server::naming("a", env.port(9001));
    let balancer = Balancer::start(&env, &Config::new(&env).server("a", a.address));
    // The client sends nothing: the server accepts as soon as it gets the ACK of the handshake.
    let took = quicker_quarter(50, || {
        assert_eq!(connect_and_read(env.frontend()), (b"a".to_vec(), Ending::Orderly));
    });
    // If the kernel delayed that ACK, each session would take 200 ms.
    assert!(took < Duration::from_millis(150), "{took:?}");
    drop(balancer);
}

#[test]
fn the_second_of_two_small_messages_is_not_held_back() {
    let env = TestEnv::new();
    let (received, has_received) = mpsc::channel();
    let a = Server::start(env.port(9001), move |mut stream| {
        while stream.read_exact(&mut [0]).is_ok() && received.send(()).is_ok() {
            if stream.read_exact(&mut [0]).is_err() || stream.write_all(b"!").is_err() {
                return;
            }
        }
    });
    let balancer = Balancer::start(&env, &Config::new(&env).server("a", a.address));
    let mut client = connect(env.frontend());
    let took = quicker_quarter(100, || {
        client.write_all(b"1").unwrap();
        has_received.recv().unwrap();
        client.write_all(b"2").unwrap();
        client.read_exact(&mut [0]).unwrap();
    });
    // Held back until the first is acknowledged (RFC 896), each second would take 40 ms.
    assert!(took < Duration::from_millis(30), "{took:?}");
    drop(balancer);
}
