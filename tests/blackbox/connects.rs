//! Connecting to servers that refuse, are silent, cannot be reached, or are ourselves.

use std::io::{Read, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::common::client::{Ending, ask, connect, fate, visit};
use crate::common::server::BlackHole;
use crate::common::{Balancer, Config, Place, Server};

#[test]
fn one_dead_server_of_three_costs_no_client_a_connection() {
    let place = Place::new(); // case 18
    let a = Server::naming("a", place.port(9001));
    let c = Server::naming("c", place.port(9003));
    let config = Config::new(&place).server("a", a.address).server("dead", place.port(9002));
    let balancer = Balancer::start(&place, &config.server("c", c.address));
    for _ in 0..30 {
        visit(place.frontend()).unwrap();
    }
    let metrics = balancer.books_balance();
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
    let place = Place::new(); // case 20
    let config = Config::new(&place).server("a", place.port(9001));
    let balancer = Balancer::start(&place, &config.server("b", place.port(9002)));
    for _ in 0..10 {
        let begun = Instant::now();
        assert_eq!(fate(place.frontend()), (Vec::new(), Ending::Reset));
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
    balancer.session_ended("SC connect_failed");
    let metrics = balancer.books_balance();
    assert_eq!(metrics.closed("connect_failed"), 10.0);
    // Two servers, two retries: three attempts, not a spin.
    assert_eq!(metrics.sum("evenkeel_server_connect_failures_total", &[]), 30.0);
}

#[test]
fn retries_are_as_many_as_configured() {
    let place = Place::new();
    let config = Config::new(&place).backend("retries = 0").server("a", place.port(9001));
    let balancer = Balancer::start(&place, &config);
    assert_eq!(fate(place.frontend()).1, Ending::Reset);
    let metrics = balancer.books_balance();
    assert_eq!(metrics.sum("evenkeel_server_connect_failures_total", &[]), 1.0);
    assert_eq!(metrics.sum("evenkeel_server_retries_total", &[]), 0.0);
}

#[test]
fn a_server_that_is_silent_is_left_for_the_next_one_in_time() {
    let place = Place::new(); // case 19
    let hole = BlackHole::open(place.port(9001));
    let b = Server::naming("b", place.port(9002));
    let config = Config::new(&place).backend("connect_timeout = \"300ms\"");
    let config = config.server("hole", hole.address).server("b", b.address);
    let balancer = Balancer::start(&place, &config);
    for _ in 0..4 {
        assert_eq!(visit(place.frontend()).unwrap(), "b");
    }
    let metrics = balancer.books_balance();
    let of_hole = [("server", "hole"), ("reason", "timeout")];
    assert!(metrics.value("evenkeel_server_connect_failures_total", &of_hole) >= 1.0);
}

#[test]
fn six_silent_servers_of_seven_cost_no_client_more_than_one_connect_timeout() {
    let place = Place::new();
    let holes: Vec<BlackHole> =
        (9001..9007).map(|port| BlackHole::open(place.port(port))).collect();
    let good = Server::naming("good", place.port(9007));
    // Their first probes have not ended when the clients give them up.
    let health = "check = \"tcp\"\ntimeout = \"10s\"";
    let mut config = Config::new(&place).backend("connect_timeout = \"2s\"").health(health);
    for (index, hole) in holes.iter().enumerate() {
        config = config.server(&format!("hole{index}"), hole.address);
    }
    let balancer = Balancer::start(&place, &config.server("good", good.address));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..14 {
            scope.spawn(|| assert_eq!(visit(place.frontend()).unwrap(), "good"));
        }
    });
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let metrics = balancer.books_balance();
    let by_timeout = [("reason", "timeout")];
    assert_eq!(metrics.sum("evenkeel_server_connect_failures_total", &by_timeout), 12.0);
}

#[test]
fn a_connect_timeout_of_the_last_server_resets_the_client() {
    let place = Place::new(); // case 19
    let hole = BlackHole::open(place.port(9001));
    let config = Config::new(&place).backend("connect_timeout = \"200ms\"\nretries = 1");
    let balancer = Balancer::start(&place, &config.server("hole", hole.address));
    assert_eq!(fate(place.frontend()), (Vec::new(), Ending::Reset));
    balancer.session_ended("sC connect_timeout");
    let metrics = balancer.books_balance();
    assert_eq!(metrics.closed("connect_timeout"), 1.0);
    let by_timeout = [("reason", "timeout")];
    assert_eq!(metrics.sum("evenkeel_server_connect_failures_total", &by_timeout), 2.0);
}

#[test]
fn a_server_that_cannot_be_reached_is_counted_as_such_and_left_for_the_next() {
    let place = Place::new(); // case 30: TCP to a subnet broadcast address has no route
    let b = Server::naming("b", place.port(9002));
    let far = "127.255.255.255:80".parse().unwrap();
    let config = Config::new(&place).server("far", far).server("b", b.address);
    let balancer = Balancer::start(&place, &config);
    for _ in 0..4 {
        assert_eq!(visit(place.frontend()).unwrap(), "b");
    }
    let metrics = balancer.books_balance();
    let of_far = [("server", "far"), ("reason", "unreachable")];
    assert!(metrics.sum("evenkeel_server_connect_failures_total", &of_far) >= 2.0);
}

#[test]
fn a_request_is_not_sent_twice_once_a_server_has_had_a_byte_of_it() {
    let place = Place::new(); // case 21
    let a = Server::start(place.port(9001), |mut stream| {
        use std::io::Read;
        stream.read_exact(&mut [0; 7]).unwrap();
        crate::common::client::reset(stream);
    });
    let b = Server::echo(place.port(9002));
    let config = Config::new(&place).server("a", a.address).server("b", b.address);
    let balancer = Balancer::start(&place, &config);
    assert!(ask(place.frontend(), b"pay me!").is_err());
    assert_eq!((a.accepted(), b.accepted()), (1, 0));
    balancer.session_ended("SD server_reset");
    balancer.books_balance();
}

#[test]
fn a_server_that_speaks_first_is_not_kept_waiting_for_a_silent_client() {
    let place = Place::new();
    let a = Server::naming("a", place.port(9001));
    let balancer = Balancer::start(&place, &Config::new(&place).server("a", a.address));
    let begun = Instant::now();
    for _ in 0..50 {
        // The client says nothing: the server's accept waits for our side of the handshake alone.
        assert_eq!(fate(place.frontend()), (b"a".to_vec(), Ending::Orderly));
    }
    // Left to the kernel's timer, each would have taken a fifth of a second.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(balancer);
}

#[test]
fn the_second_of_two_small_messages_is_not_held_back() {
    let place = Place::new();
    let (heard, has_heard) = mpsc::channel();
    let a = Server::start(place.port(9001), move |mut stream| {
        while stream.read_exact(&mut [0]).is_ok() && heard.send(()).is_ok() {
            if stream.read_exact(&mut [0]).is_err() || stream.write_all(b"!").is_err() {
                return;
            }
        }
    });
    let balancer = Balancer::start(&place, &Config::new(&place).server("a", a.address));
    let mut client = connect(place.frontend());
    let begun = Instant::now();
    for _ in 0..100 {
        client.write_all(b"1").unwrap();
        has_heard.recv().unwrap();
        client.write_all(b"2").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    // Held back until the first is acknowledged (RFC 896), each second would take 40 ms.
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    drop(balancer);
}
