//! The queue of a backend: clients that wait while every server is at its `sessions_max`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::client::{Ending, connect, fate, read_out, reset};
use crate::common::{Balancer, Config, Place, Server};

/// A server that answers each message with its name, as long as its client stays.
fn answering(place: &Place) -> Server {
    Server::start(place.port(9001), |mut stream| {
        let mut message = [0; 16];
        while let Ok(count @ 1..) = stream.read(&mut message) {
            if stream.write_all(&message[..count]).is_err() {
                return;
            }
        }
    })
}

fn config(place: &Place, server: &Server, sessions_max: u32) -> Config {
    let limit = format!("sessions_max = {sessions_max}");
    Config::new(place).backend("queue_timeout = \"1m\"").server_with("a", server.address, &limit)
}

/// Waits until so many sessions are queued.
fn queued(balancer: &Balancer<'_>, count: f64) {
    balancer.metrics_until(&format!("{count} sessions wait"), |metrics| {
        metrics.value("evenkeel_queue_sessions", &[("backend", "web")]) == count
    });
}

/// A client that has sent one byte.
fn asking(place: &Place, byte: u8) -> TcpStream {
    let mut client = connect(place.frontend());
    client.write_all(&[byte]).unwrap();
    client
}

/// The answer of the server to that client.
fn answer(mut client: &TcpStream) -> u8 {
    let mut byte = [0];
    client.read_exact(&mut byte).unwrap();
    byte[0]
}

/// Whether an answer has come.
fn is_served(client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let served = client.peek(&mut [0]).is_ok();
    client.set_nonblocking(false).unwrap();
    served
}

#[test]
fn clients_are_served_in_the_order_in_which_they_came_over_all_workers() {
    for workers in [1, 2] {
        let place = Place::new();
        let server = answering(&place);
        let balancer = Balancer::start(&place, &config(&place, &server, 1).workers(workers));
        let first = asking(&place, 0);
        assert_eq!(answer(&first), 0);
        let mut waiting = Vec::new();
        for number in 1..=10 {
            waiting.push(asking(&place, number));
            queued(&balancer, number.into());
        }
        drop(first);
        for number in 1..=10 {
            let client = waiting.remove(0);
            assert_eq!(answer(&client), number, "{workers} workers");
            queued(&balancer, (10 - number).into());
            assert!(!waiting.iter().any(is_served), "one at a time");
            drop(client);
        }
        assert_eq!(server.accepted(), 11);
        let metrics = balancer.books_balance();
        let waits = metrics.value("evenkeel_queue_duration_seconds_count", &[("backend", "web")]);
        assert_eq!((waits, metrics.closed("queue_timeout")), (10.0, 0.0));
    }
}

#[test]
fn a_client_that_leaves_the_queue_gives_its_place_up() {
    let place = Place::new();
    let server = answering(&place);
    let mut balancer = Balancer::start(&place, &config(&place, &server, 1).workers(2));
    let first = asking(&place, 0);
    assert_eq!(answer(&first), 0);
    let mut waiting = Vec::new();
    for number in 1..=4 {
        waiting.push(asking(&place, number));
        queued(&balancer, number.into());
    }
    // The first in the queue, and one in the middle.
    reset(waiting.remove(0));
    reset(waiting.remove(1));
    queued(&balancer, 2.0);
    assert!(balancer.session_ended("client_left").contains("CQ"));
    drop(first);
    assert_eq!(answer(&waiting[0]), 2);
    waiting.remove(0);
    assert_eq!(answer(&waiting[0]), 4);
    assert!(balancer.runs());
    drop(waiting);
    balancer.books_balance();
}

#[test]
fn beyond_queue_max_a_client_is_reset_at_once() {
    let place = Place::new();
    let server = answering(&place);
    let config = config(&place, &server, 1).backend("queue_max = 2");
    let balancer = Balancer::start(&place, &config);
    let first = asking(&place, 0);
    assert_eq!(answer(&first), 0);
    let waiting = [asking(&place, 1), asking(&place, 2)];
    queued(&balancer, 2.0);
    assert_eq!(fate(place.frontend()), (Vec::new(), Ending::Reset));
    assert!(balancer.session_ended("queue_full").contains("SQ"));
    queued(&balancer, 2.0);
    drop(first);
    assert_eq!(answer(&waiting[0]), 1);
}

#[test]
fn a_client_waits_for_queue_timeout_at_most() {
    let place = Place::new();
    let server = answering(&place);
    let limit = "sessions_max = 1";
    let config = Config::new(&place).backend("queue_timeout = \"300ms\"");
    let balancer = Balancer::start(&place, &config.server_with("a", server.address, limit));
    let first = asking(&place, 0);
    assert_eq!(answer(&first), 0);
    let began = Instant::now();
    assert_eq!(read_out(&asking(&place, 1)), (Vec::new(), Ending::Reset));
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert!(balancer.session_ended("queue_timeout").contains("sQ"));
    assert_eq!(server.accepted(), 1);
    drop(first);
    balancer.books_balance();
}

#[test]
fn room_that_a_reload_or_an_order_makes_is_taken_by_those_that_wait() {
    let place = Place::new();
    let server = answering(&place);
    let other = Server::echo(place.port(9002));
    let two = |state: &str, max| {
        config(&place, &server, max).server_with(
            "b",
            other.address,
            &format!("state = \"{state}\""),
        )
    };
    let balancer = Balancer::start(&place, &two("maint", 1).workers(2));
    let first = asking(&place, 0);
    assert_eq!(answer(&first), 0);
    let waiting: Vec<_> = (1..=4).map(|number| asking(&place, number)).collect();
    queued(&balancer, 4.0);
    balancer.reload(&two("maint", 2).workers(2));
    queued(&balancer, 3.0);
    balancer.obeys(&["ready", "web/b"]);
    queued(&balancer, 0.0);
    for (client, number) in waiting.iter().zip(1..) {
        assert_eq!(answer(client), number);
    }
    drop((first, waiting));
    balancer.books_balance();
}

#[test]
fn clients_that_wait_are_told_when_the_last_server_is_taken_away() {
    let place = Place::new();
    let server = answering(&place);
    let balancer = Balancer::start(&place, &config(&place, &server, 1));
    let first = asking(&place, 0);
    assert_eq!(answer(&first), 0);
    let waiting = [asking(&place, 1), asking(&place, 2)];
    queued(&balancer, 2.0);
    balancer.obeys(&["maint", "web/a"]);
    for client in &waiting {
        assert_eq!(read_out(client), (Vec::new(), Ending::Reset));
    }
    assert_eq!(balancer.metrics().closed("no_server"), 2.0);
    drop(first);
    balancer.books_balance();
}
