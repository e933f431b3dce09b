//! `fast_open` on both sides, and `defer_accept`.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use evenkeel::sys::socket_options::set_fast_open;
use nix::libc;
use socket2::{Domain, Socket, Type};

use crate::common::client::{connect, exchange, read_to_end, shut_down};
use crate::common::server::{BlackHole, echo};
use crate::common::wait::{TIMEOUT, holds_for, until};
use crate::common::{Balancer, Config, Server, TestEnv, echoing};
use crate::network_namespace::enter;

/// Allows TCP Fast Open on both sides in a network namespace of the test.
fn enter_with_fast_open(test: &str) -> bool {
    let entered = enter(test);
    if entered {
        std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "3").unwrap();
    }
    entered
}

/// A counter of the kernel, of the network namespace of this thread.
fn counted(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let names: Vec<&str> = lines.next().unwrap().split(' ').collect();
    let place = names.iter().position(|known| *known == name).unwrap();
    lines.next().unwrap().split(' ').nth(place).unwrap().parse().unwrap()
}

/// A client that sends its first bytes with the SYN, if it has a cookie.
fn connect_with(bytes: &[u8], to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let sent = socket.send_to_with_flags(bytes, &to.into(), libc::MSG_FASTOPEN).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(&bytes[sent..]).unwrap();
    stream
}

/// An echo server that accepts bytes with the SYN.
fn fast_server(address: SocketAddr) -> Server {
    let listener = TcpListener::bind(address).unwrap();
    set_fast_open(&listener, 16).unwrap();
    Server::with(listener, |stream| echo(&stream))
}

/// Sends `bytes` at once, reads them back, and ends in order.
fn echoed(stream: &TcpStream) -> Vec<u8> {
    shut_down(stream);
    read_to_end(stream).0
}

#[test]
fn a_client_sends_its_first_bytes_with_the_syn() {
    if !enter_with_fast_open("a_client_sends_its_first_bytes_with_the_syn") {
        return;
    }
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let balancer = Balancer::start(&env, &config.clone().workers(2).frontend("fast_open = true"));
    // The first connection gets the cookie.
    assert_eq!(echoed(&connect_with(b"hello", env.frontend())), b"hello");
    let before = counted("TCPFastOpenPassive");
    for _ in 0..10 {
        assert_eq!(echoed(&connect_with(b"hello again", env.frontend())), b"hello again");
    }
    assert_eq!(counted("TCPFastOpenPassive"), before + 10);
    balancer.assert_no_leaks();
    balancer.reload(&config.workers(2));
    let before = counted("TCPFastOpenPassive");
    assert_eq!(echoed(&connect_with(b"hello", env.frontend())), b"hello");
    assert_eq!(counted("TCPFastOpenPassive"), before, "a reload has turned it off");
}

#[test]
fn a_server_gets_the_first_bytes_with_the_syn() {
    if !enter_with_fast_open("a_server_gets_the_first_bytes_with_the_syn") {
        return;
    }
    let env = TestEnv::new();
    let server = fast_server(env.port(9001));
    let config = Config::new(&env).frontend("defer_accept = true").backend("fast_open = true");
    let balancer = Balancer::start(&env, &config.server("a", server.address));
    let send = |bytes: &[u8]| {
        let mut client = connect(env.frontend());
        client.write_all(bytes).unwrap();
        assert_eq!(echoed(&client), bytes);
    };
    send(b"the cookie");
    let before = (counted("TCPFastOpenActive"), counted("TCPFastOpenPassive"));
    let long: Vec<u8> = (0..200_000).map(|n: u32| n.to_le_bytes()[n as usize % 3]).collect();
    for length in [1, 5, 1400, 1460, 5000, 16_384, 200_000] {
        send(&long[..length]);
    }
    let after = (counted("TCPFastOpenActive"), counted("TCPFastOpenPassive"));
    assert_eq!(after, (before.0 + 7, before.1 + 7));
    let metrics = balancer.assert_no_leaks();
    let bytes = metrics.sum("evenkeel_bytes_total", &[("direction", "in")]);
    assert_eq!(bytes, 10.0 + 1.0 + 5.0 + 1400.0 + 1460.0 + 5000.0 + 16_384.0 + 200_000.0);
}

#[test]
fn a_server_speaks_first_to_a_client_that_has_sent_nothing() {
    if !enter_with_fast_open("a_server_speaks_first_to_a_client_that_has_sent_nothing") {
        return;
    }
    let env = TestEnv::new();
    let server = Server::naming("a", env.port(9001));
    let config = Config::new(&env).backend("fast_open = true").server("a", server.address);
    let balancer = Balancer::start(&env, &config);
    for _ in 0..3 {
        assert_eq!(read_to_end(&connect(env.frontend())).0, b"a");
    }
    balancer.assert_no_leaks();
}

#[test]
fn a_refused_fast_open_is_tried_again_on_another_server_with_the_same_bytes() {
    let test = "a_refused_fast_open_is_tried_again_on_another_server_with_the_same_bytes";
    if !enter_with_fast_open(test) {
        return;
    }
    let env = TestEnv::new();
    let (mut dies, lives) = (fast_server(env.port(9001)), fast_server(env.port(9002)));
    let config = Config::new(&env).frontend("defer_accept = true").backend("fast_open = true");
    let config = config.server("dies", dies.address).server("lives", lives.address);
    let balancer = Balancer::start(&env, &config);
    let send = || {
        let mut client = connect(env.frontend());
        client.write_all(b"exactly once").unwrap();
        assert_eq!(echoed(&client), b"exactly once");
    };
    // Both cookies.
    (0..4).for_each(|_| send());
    dies.kill();
    (0..6).for_each(|_| send());
    let metrics = balancer.assert_no_leaks();
    let labels = [("server", "dies"), ("reason", "refused")];
    assert!(metrics.sum("evenkeel_server_connect_failures_total", &labels) >= 3.0);
    assert_eq!(metrics.closed("done"), 10.0);
    let bytes = metrics.sum("evenkeel_bytes_total", &[("direction", "in")]);
    assert_eq!(bytes, 10.0 * 12.0, "bytes of a failed attempt do not count");
}

#[test]
fn a_fast_open_without_an_answer_times_out_and_is_tried_again() {
    if !enter_with_fast_open("a_fast_open_without_an_answer_times_out_and_is_tried_again") {
        return;
    }
    let env = TestEnv::new();
    let server = fast_server(env.port(9001));
    // A cookie belongs to an IP address, so that the hole gets bytes with the SYN, too.
    let hole = BlackHole::open(env.port(9002));
    let config = Config::new(&env).frontend("defer_accept = true");
    let config = config.backend("fast_open = true\nconnect_timeout = \"300ms\"\nretries = 1");
    let config = config.server("lives", server.address).server("hole", hole.address);
    let balancer = Balancer::start(&env, &config);
    for _ in 0..6 {
        let mut client = connect(env.frontend());
        client.write_all(b"exactly once").unwrap();
        assert_eq!(echoed(&client), b"exactly once");
    }
    let metrics = balancer.assert_no_leaks();
    let labels = [("server", "hole"), ("reason", "timeout")];
    assert!(metrics.sum("evenkeel_server_connect_failures_total", &labels) >= 3.0);
    assert_eq!(metrics.closed("done"), 6.0);
    let bytes = metrics.sum("evenkeel_bytes_total", &[("direction", "in")]);
    assert_eq!(bytes, 6.0 * 12.0, "bytes of a failed attempt do not count");
}

#[test]
fn a_silent_client_reaches_no_server() {
    let env = TestEnv::new();
    let (config, server) = echoing(&env);
    let balancer = Balancer::start(&env, &config.clone().frontend("defer_accept = true"));
    let client = connect(env.frontend());
    let sessions = || balancer.metrics().sum("evenkeel_sessions_total", &[]);
    assert!(holds_for(Duration::from_millis(800), || server.accepted() == 0 && sessions() == 0.0));
    assert_eq!(exchange(&client, b"hello"), b"hello");
    assert_eq!((server.accepted(), sessions()), (1, 1.0));
    // After its time a client is accepted all the same: it may wait for the server to speak.
    let _silent = connect(env.frontend());
    until("it is accepted", || sessions() == 2.0);
    balancer.reload(&config);
    let _at_once = connect(env.frontend());
    until("it is accepted without a byte", || sessions() == 3.0);
}
