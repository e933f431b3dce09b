//! How sessions end: idle, half-closed, reset by either side; each with its reason and letters.

use std::io::{Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::common::client::{Ending, ask, connect, end, exchange, is_reset, read_out, reset};
use crate::common::server::BlackHole;
use crate::common::wait::pause;
use crate::common::{Balancer, Config, Place, Server};

/// A server that takes part in nothing: it holds each connection until the other side is done.
fn silent(place: &Place) -> Server {
    Server::start(place.port(9001), |mut stream| {
        drop(std::io::copy(&mut stream, &mut std::io::sink()));
    })
}

fn with_idle<'a>(place: &'a Place, server: &Server) -> Balancer<'a> {
    let config = Config::new(place).frontend("idle_timeout = \"500ms\"");
    Balancer::start(place, &config.server("a", server.address))
}

#[test]
fn a_client_that_says_nothing_is_left_at_the_idle_timeout() {
    let place = Place::new(); // case 1
    let server = silent(&place);
    let balancer = with_idle(&place, &server);
    let client = connect(place.frontend());
    assert!(read_out(&client).0.is_empty());
    balancer.session_ended("cD idle_timeout");
    assert_eq!(balancer.books_balance().closed("idle_timeout"), 1.0);
}

#[test]
fn a_server_that_owes_an_answer_is_left_at_the_idle_timeout() {
    let place = Place::new(); // case 25
    let server = silent(&place);
    let balancer = with_idle(&place, &server);
    let mut client = connect(place.frontend());
    client.write_all(b"a question").unwrap();
    assert!(read_out(&client).0.is_empty());
    balancer.session_ended("sD idle_timeout");
    assert_eq!(balancer.books_balance().closed("idle_timeout"), 1.0);
}

#[test]
fn a_session_in_use_is_not_idle() {
    let place = Place::new();
    let server = Server::echo(place.port(9001));
    let balancer = with_idle(&place, &server);
    let client = connect(place.frontend());
    for _ in 0..10 {
        assert_eq!(exchange(&client, b"tick"), b"tick");
        pause(Duration::from_millis(150));
    }
    drop(client);
    assert_eq!(balancer.books_balance().closed("done"), 1.0);
}

#[test]
fn a_half_closed_session_ends_at_its_own_timeout() {
    let place = Place::new(); // case 4
    let server = Server::start(place.port(9001), |mut stream| {
        drop(std::io::copy(&mut stream, &mut std::io::sink()));
        // Has heard the end, and says neither a word nor the end, longer than the test is patient.
        pause(Duration::from_secs(30));
    });
    let config = Config::new(&place).frontend("half_closed_timeout = \"500ms\"");
    let balancer = Balancer::start(&place, &config.server("a", server.address));
    let client = connect(place.frontend());
    end(&client);
    assert!(read_out(&client).0.is_empty());
    balancer.session_ended("sL half_closed_timeout");
    let metrics = balancer.books_balance();
    assert_eq!(metrics.closed("half_closed_timeout"), 1.0);
}

#[test]
fn a_client_that_keeps_its_side_open_in_silence_is_left_too() {
    let place = Place::new();
    let server = Server::start(place.port(9001), |stream| {
        end(&stream);
        drop(read_out(&stream));
    });
    let config = Config::new(&place).frontend("half_closed_timeout = \"500ms\"");
    let balancer = Balancer::start(&place, &config.server("a", server.address));
    let client = connect(place.frontend());
    assert_eq!(read_out(&client), (Vec::new(), Ending::Orderly));
    balancer.session_ended("cL half_closed_timeout");
    balancer.books_balance();
}

#[test]
fn a_reset_by_the_client_reaches_the_server_as_a_reset() {
    let place = Place::new(); // case 6
    let (sender, heard) = mpsc::channel();
    let server = Server::start(place.port(9001), move |stream| {
        sender.send(read_out(&stream)).unwrap();
    });
    let balancer = Balancer::start(&place, &Config::new(&place).server("a", server.address));
    let mut client = connect(place.frontend());
    client.write_all(b"half a sent").unwrap();
    balancer.metrics_until("it has arrived", |metrics| {
        metrics.sum("evenkeel_bytes_total", &[("direction", "in")]) == 11.0
    });
    reset(client);
    assert_eq!(heard.recv().unwrap(), (b"half a sent".to_vec(), Ending::Reset));
    balancer.session_ended("CD client_reset");
    assert_eq!(balancer.books_balance().closed("client_reset"), 1.0);
}

#[test]
fn a_reset_by_the_server_reaches_the_client_after_all_that_came_before() {
    let place = Place::new(); // case 22
    let server = Server::start(place.port(9001), |mut stream| {
        stream.read_exact(&mut [0; 1]).unwrap();
        stream.write_all(b"a part of the ans").unwrap();
        // Whatever is still here at a reset is gone.
        pause(Duration::from_millis(100));
        reset(stream);
    });
    let balancer = Balancer::start(&place, &Config::new(&place).server("a", server.address));
    for _ in 0..10 {
        let mut client = connect(place.frontend());
        client.write_all(b"?").unwrap();
        assert_eq!(read_out(&client), (b"a part of the ans".to_vec(), Ending::Reset));
    }
    balancer.session_ended("SD server_reset");
    assert_eq!(balancer.books_balance().closed("server_reset"), 10.0);
}

#[test]
fn a_client_that_leaves_while_we_connect_is_no_failure_of_the_server() {
    let place = Place::new(); // case 8
    let hole = BlackHole::open(place.port(9001));
    let config = Config::new(&place).backend("connect_timeout = \"10s\"");
    let balancer = Balancer::start(&place, &config.server("a", hole.address));
    let client = connect(place.frontend());
    balancer.metrics_until("it is connecting", |metrics| {
        metrics.sum("evenkeel_sessions_active", &[]) == 1.0
    });
    reset(client);
    balancer.session_ended("CC client_left");
    let metrics = balancer.books_balance();
    assert_eq!(metrics.closed("client_left"), 1.0);
    assert_eq!(metrics.sum("evenkeel_server_connect_failures_total", &[]), 0.0);
}

#[test]
fn a_reset_while_much_is_on_its_way_leaves_nothing_behind_for_strangers() {
    let place = Place::new(); // case 7
    let server = Server::start(place.port(9001), |mut stream| {
        let mut kind = [0];
        if stream.read_exact(&mut kind).is_err() {
            return;
        }
        // Bulk of one letter, so that a stranger's bytes would be seen.
        let chunk = [kind[0]; 64 * 1024];
        for _ in 0..64 {
            if stream.write_all(&chunk).is_err() {
                return;
            }
        }
        end(&stream);
        drop(read_out(&stream));
    });
    let balancer = Balancer::start(&place, &Config::new(&place).server("a", server.address));
    for round in 0..10 {
        let mut leaver = connect(place.frontend());
        leaver.write_all(b"x").unwrap();
        // Enough has come for splice to have begun; the rest waits in pipe and sockets.
        leaver.read_exact(&mut vec![0; 512 * 1024]).unwrap();
        reset(leaver);
        let mut stayer = connect(place.frontend());
        stayer.write_all(b"o").unwrap();
        let (bytes, ending) = read_out(&stayer);
        assert_eq!((bytes.len(), ending), (64 * 64 * 1024, Ending::Orderly), "round {round}");
        assert!(bytes.iter().all(|byte| *byte == b'o'), "round {round}");
    }
    let metrics = balancer.books_balance();
    assert_eq!(metrics.closed("client_reset") + metrics.closed("done"), 20.0);
}

#[test]
fn a_server_that_accepts_and_resets_never_looks_like_an_orderly_end() {
    let place = Place::new(); // cases 21 and 33
    let server = Server::start(place.port(9001), reset);
    let balancer = Balancer::start(&place, &Config::new(&place).server("a", server.address));
    for _ in 0..20 {
        let error = ask(place.frontend(), b"?").unwrap_err();
        assert!(is_reset(&error), "{error}");
    }
    let metrics = balancer.books_balance();
    assert_eq!(metrics.closed("server_reset") + metrics.closed("connect_failed"), 20.0);
}

#[test]
fn resets_at_every_moment_leave_the_books_in_order() {
    let place = Place::new();
    let server = Server::echo(place.port(9001));
    let balancer =
        Balancer::start(&place, &Config::new(&place).workers(2).server("a", server.address));
    thread::scope(|scope| {
        for offset in 0..4_u64 {
            let place = &place;
            scope.spawn(move || {
                for round in 0..50 {
                    let mut client = connect(place.frontend());
                    // From at once to after the first answer.
                    let moment = (round * 4 + offset) * 10;
                    drop(client.write_all(&[1; 3000]));
                    pause(Duration::from_micros(moment));
                    reset(client);
                }
            });
        }
    });
    let client = connect(place.frontend());
    assert_eq!(exchange(&client, b"well?"), b"well?");
    drop(client);
    balancer.books_balance();
}
