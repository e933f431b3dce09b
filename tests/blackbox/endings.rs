//! How sessions end: idle, half-closed, reset by either side; with reason and letters.

use std::io::{Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::common::client::{
    Ending, connect, exchange, fetch_with, is_reset, read_to_end, reset, shut_down, unacknowledged,
};
use crate::common::server::BlackHole;
use crate::common::wait::{holds_for, pause, until};
use crate::common::{Balancer, Config, Server, TestEnv, echoing};

/// A server that sends nothing, and closes after the client has shut down.
fn silent(env: &TestEnv) -> Server {
    Server::start(env.port(9001), |mut stream| {
        drop(std::io::copy(&mut stream, &mut std::io::sink()));
    })
}

fn with_idle<'a>(env: &'a TestEnv, server: &Server) -> Balancer<'a> {
    let config = Config::new(env).frontend("idle_timeout = \"2s\"");
    Balancer::start(env, &config.server("a", server.address))
}

#[test]
fn a_client_that_sends_nothing_is_closed_at_the_idle_timeout() {
    let env = TestEnv::new(); // case 1
    let server = silent(&env);
    let balancer = with_idle(&env, &server);
    let client = connect(env.frontend());
    assert!(read_to_end(&client).0.is_empty());
    balancer.session_ended("cD idle_timeout");
    assert_eq!(balancer.assert_no_leaks().closed("idle_timeout"), 1.0);
}

#[test]
fn an_idle_timeout_of_off_never_ends_a_session() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let balancer = Balancer::start(&env, &config.frontend("idle_timeout = \"off\""));
    let client = connect(env.frontend());
    assert_eq!(exchange(&client, b"in"), b"in");
    assert!(holds_for(Duration::from_secs(1), || {
        balancer.metrics().sum("evenkeel_sessions_active", &[]) == 1.0
    }));
    assert_eq!(exchange(&client, b"still"), b"still");
    drop(client);
    balancer.assert_no_leaks();
}

#[test]
fn a_server_that_owes_an_answer_is_closed_at_the_idle_timeout() {
    let env = TestEnv::new(); // case 25
    let server = silent(&env);
    let balancer = with_idle(&env, &server);
    let mut client = connect(env.frontend());
    client.write_all(b"a question").unwrap();
    assert!(read_to_end(&client).0.is_empty());
    balancer.session_ended("sD idle_timeout");
    assert_eq!(balancer.assert_no_leaks().closed("idle_timeout"), 1.0);
}

#[test]
fn a_session_in_use_is_not_idle() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let balancer = Balancer::start(&env, &config.frontend("idle_timeout = \"3s\""));
    let client = connect(env.frontend());
    for _ in 0..10 {
        assert_eq!(exchange(&client, b"tick"), b"tick");
        // Seven seconds in all: more than twice the idle timeout.
        pause(Duration::from_millis(700));
    }
    drop(client);
    assert_eq!(balancer.assert_no_leaks().closed("done"), 1.0);
}

#[test]
fn a_half_closed_session_ends_at_its_own_timeout() {
    let env = TestEnv::new(); // case 4
    let server = Server::start(env.port(9001), |mut stream| {
        drop(std::io::copy(&mut stream, &mut std::io::sink()));
        // Has read the end, and sends nothing and no end for longer than the test waits.
        pause(Duration::from_secs(30));
    });
    let config = Config::new(&env).frontend("half_closed_timeout = \"500ms\"");
    let balancer = Balancer::start(&env, &config.server("a", server.address));
    let client = connect(env.frontend());
    shut_down(&client);
    assert!(read_to_end(&client).0.is_empty());
    balancer.session_ended("sL half_closed_timeout");
    let metrics = balancer.assert_no_leaks();
    assert_eq!(metrics.closed("half_closed_timeout"), 1.0);
}

#[test]
fn a_silent_client_is_closed_at_the_half_closed_timeout_after_the_server_has_ended() {
    let env = TestEnv::new();
    let server = Server::start(env.port(9001), |stream| {
        shut_down(&stream);
        drop(read_to_end(&stream));
    });
    let config = Config::new(&env).frontend("half_closed_timeout = \"500ms\"");
    let balancer = Balancer::start(&env, &config.server("a", server.address));
    let client = connect(env.frontend());
    assert_eq!(read_to_end(&client), (Vec::new(), Ending::Orderly));
    balancer.session_ended("cL half_closed_timeout");
    balancer.assert_no_leaks();
}

#[test]
fn a_reset_by_the_client_reaches_the_server_as_a_reset() {
    let env = TestEnv::new(); // case 6
    let (sender, received) = mpsc::channel();
    let server = Server::start(env.port(9001), move |stream| {
        sender.send(read_to_end(&stream)).unwrap();
    });
    let balancer = Balancer::start(&env, &Config::new(&env).server("a", server.address));
    let mut client = connect(env.frontend());
    client.write_all(b"half a sent").unwrap();
    balancer.metrics_until("the bytes are relayed", |metrics| {
        metrics.sum("evenkeel_bytes_total", &[("direction", "in")]) == 11.0
    });
    reset(client);
    assert_eq!(received.recv().unwrap(), (b"half a sent".to_vec(), Ending::Reset));
    balancer.session_ended("CD client_reset");
    assert_eq!(balancer.assert_no_leaks().closed("client_reset"), 1.0);
}

#[test]
fn a_reset_by_the_server_reaches_the_client_after_all_that_came_before() {
    let env = TestEnv::new(); // case 22
    let server = Server::start(env.port(9001), |mut stream| {
        stream.read_exact(&mut [0; 1]).unwrap();
        stream.write_all(b"a part of the ans").unwrap();
        // A reset destroys what has not left this socket.
        until("the answer has left the server", || unacknowledged(&stream) == 0);
        reset(stream);
    });
    let balancer = Balancer::start(&env, &Config::new(&env).server("a", server.address));
    for _ in 0..10 {
        let mut client = connect(env.frontend());
        client.write_all(b"?").unwrap();
        assert_eq!(read_to_end(&client), (b"a part of the ans".to_vec(), Ending::Reset));
    }
    balancer.session_ended("SD server_reset");
    assert_eq!(balancer.assert_no_leaks().closed("server_reset"), 10.0);
}

#[test]
fn a_client_that_resets_while_evenkeel_connects_is_no_failure_of_the_server() {
    let env = TestEnv::new(); // case 8
    let hole = BlackHole::open(env.port(9001));
    let config = Config::new(&env).backend("connect_timeout = \"10s\"");
    let balancer = Balancer::start(&env, &config.server("a", hole.address));
    let client = connect(env.frontend());
    balancer.metrics_until("the session is connecting", |metrics| {
        metrics.sum("evenkeel_sessions_active", &[]) == 1.0
    });
    reset(client);
    balancer.session_ended("CC client_left");
    let metrics = balancer.assert_no_leaks();
    assert_eq!(metrics.closed("client_left"), 1.0);
    assert_eq!(metrics.sum("evenkeel_server_connect_failures_total", &[]), 0.0);
}

#[test]
fn a_reset_of_a_spliced_session_leaves_no_bytes_for_other_sessions() {
    let env = TestEnv::new(); // case 7
    let server = Server::start(env.port(9001), |mut stream| {
        let mut kind = [0];
        if stream.read_exact(&mut kind).is_err() {
            return;
        }
        // All bytes are the same letter, so that bytes of another session are noticed.
        let chunk = [kind[0]; 64 * 1024];
        for _ in 0..64 {
            if stream.write_all(&chunk).is_err() {
                return;
            }
        }
        shut_down(&stream);
        drop(read_to_end(&stream));
    });
    let balancer = Balancer::start(&env, &Config::new(&env).server("a", server.address));
    for round in 0..10 {
        let mut first = connect(env.frontend());
        first.write_all(b"x").unwrap();
        // By then the session is spliced. The rest is in the pipe and in sockets.
        first.read_exact(&mut vec![0; 512 * 1024]).unwrap();
        reset(first);
        let mut second = connect(env.frontend());
        second.write_all(b"o").unwrap();
        let (bytes, ending) = read_to_end(&second);
        assert_eq!((bytes.len(), ending), (64 * 64 * 1024, Ending::Orderly), "round {round}");
        assert!(bytes.iter().all(|byte| *byte == b'o'), "round {round}");
    }
    let metrics = balancer.assert_no_leaks();
    assert_eq!(metrics.closed("client_reset") + metrics.closed("done"), 20.0);
}

#[test]
fn a_server_that_accepts_and_resets_is_never_an_orderly_end_for_the_client() {
    let env = TestEnv::new(); // cases 21 and 33
    let server = Server::start(env.port(9001), reset);
    let balancer = Balancer::start(&env, &Config::new(&env).server("a", server.address));
    for _ in 0..20 {
        let error = fetch_with(env.frontend(), b"?").unwrap_err();
        assert!(is_reset(&error), "{error}");
    }
    let metrics = balancer.assert_no_leaks();
    assert_eq!(metrics.closed("server_reset") + metrics.closed("connect_failed"), 20.0);
}

#[test]
fn resets_at_any_moment_leak_nothing() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let balancer = Balancer::start(&env, &Config::new(&env).workers(2).server("a", server.address));
    thread::scope(|scope| {
        for offset in 0..4_u64 {
            let env = &env;
            scope.spawn(move || {
                for round in 0..50 {
                    let mut client = connect(env.frontend());
                    // From at once until after the first answer.
                    let moment = (round * 4 + offset) * 10;
                    drop(client.write_all(&[1; 3000]));
                    pause(Duration::from_micros(moment));
                    reset(client);
                }
            });
        }
    });
    let client = connect(env.frontend());
    assert_eq!(exchange(&client, b"hello"), b"hello");
    drop(client);
    balancer.assert_no_leaks();
}
