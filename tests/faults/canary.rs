//! Proofs that the matrix tests something: each kind of fault happens between a client and a server
//! that are connected directly, and a scenario with a wrong expectation fails.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use crate::common::client::Ending;
use crate::common::wait::{pause, until};
use crate::common::{TestEnv, skip};
use crate::matrix::{Scenario, scene};
use crate::network::{self, Network};
use crate::peer::{PAUSE, Peer};
use crate::proxy::{Proxy, Trouble};
use crate::scene::{Path, play};
use crate::world::World;

/// For what must happen, and in the tests of wrong expectations for what does not.
const DEADLINE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_secs(1);

/// A client and a server of a connection without a balancer; to `address`, and from there to the
/// listener.
fn pair(listener: &TcpListener, address: SocketAddr) -> (Peer, Peer) {
    let client = Peer::connect('c', address, false, DEADLINE).unwrap();
    let (stream, _) = listener.accept().unwrap();
    (client, Peer::new('s', stream, DEADLINE).unwrap())
}

fn direct(env: &TestEnv) -> (Peer, Peer, TcpListener) {
    let listener = TcpListener::bind(env.port(9001)).unwrap();
    let (client, server) = pair(&listener, env.port(9001));
    (client, server, listener)
}

#[test]
fn a_fin_and_a_reset_are_told_apart() {
    let env = TestEnv::new();
    let (mut client, mut server, listener) = direct(&env);
    client.send(1000, 100).unwrap();
    client.fin().unwrap();
    assert_eq!(server.read_to_end('c'), Ok(Ending::Orderly));
    assert_eq!(server.received, 1000);
    assert!(server.until_reset_within(PAUSE).is_err(), "it is not reset");
    client.rst().unwrap();
    // Behind a FIN, a reset shows only in the error of the socket.
    server.until_reset().unwrap();
    let (mut client, mut server) = pair(&listener, env.port(9001));
    client.send_ahead(1000, 100).unwrap();
    client.rst().unwrap();
    assert_eq!(server.read_to_end('c'), Ok(Ending::Reset));
    assert_eq!(server.received, 1000, "what came before the reset is read");
}

#[test]
fn silence_slowness_and_bursts_are_what_they_say() {
    let env = TestEnv::new();
    let (mut client, mut server, _listener) = direct(&env);
    assert_eq!(server.hears_nothing(PAUSE * 10), Ok(true));
    let begun = std::time::Instant::now();
    client.drip(20).unwrap();
    assert!(begun.elapsed() >= PAUSE * 20);
    assert_eq!(server.hears_nothing(DEADLINE), Ok(false));
    server.read('c', 20, 100, false).unwrap();
    // More than the kernel of a late reader takes waits for it, and is complete.
    let listener = TcpListener::bind(env.port(9002)).unwrap();
    let address = env.port(9002);
    let mut late = Peer::connect('c', address, true, DEADLINE).unwrap();
    let mut ahead = Peer::new('s', listener.accept().unwrap().0, DEADLINE).unwrap();
    thread::scope(|scope| {
        let sends = scope.spawn(|| ahead.send_ahead(200_000, 1000));
        pause(PAUSE * 20);
        assert!(!sends.is_finished(), "the kernel of the reader has taken everything");
        late.read('s', 200_000, 8 * 1024, true).unwrap();
        sends.join().unwrap().unwrap();
    });
}

#[test]
fn an_urgent_byte_is_beside_the_stream_and_a_foreign_byte_is_found_in_it() {
    let env = TestEnv::new();
    let (mut client, mut server, _listener) = direct(&env);
    client.send(5, 5).unwrap();
    client.urgent().unwrap();
    client.send(5, 5).unwrap();
    server.read('c', 5, 100, false).unwrap();
    until("the urgent byte has arrived", || server.has_urgent_byte());
    server.read('c', 5, 100, false).unwrap();
    client.send_raw(b"foreign").unwrap();
    let found = server.read('c', 7, 100, false).unwrap_err();
    assert!(found.contains("other bytes"), "{found}");
}

#[test]
fn a_bad_network_slices_delays_ends_and_resets() {
    let env = TestEnv::new();
    for (port, trouble) in (9100..).zip([
        Trouble::Slices,
        Trouble::Latency,
        Trouble::EndAfter(1000),
        Trouble::ResetAfter(1000),
    ]) {
        let listener = TcpListener::bind(env.port(port)).unwrap();
        let proxy = Proxy::start(env.port(port + 100), env.port(port), trouble);
        let (mut client, mut server) = pair(&listener, env.port(port + 100));
        let begun = std::time::Instant::now();
        assert_eq!(proxy.acted(), 0);
        client.send(1000, 1000).unwrap();
        server.read('c', 1000, 100_000, false).unwrap();
        match trouble {
            Trouble::Slices => assert!(proxy.acted() >= 20, "{}", proxy.acted()),
            Trouble::Latency => assert!(begun.elapsed() >= Duration::from_millis(50)),
            Trouble::EndAfter(_) => {
                assert_eq!(client.read_to_end('s'), Ok(Ending::Orderly));
                assert_eq!(server.read_to_end('c'), Ok(Ending::Orderly));
            }
            Trouble::ResetAfter(_) => {
                assert_eq!(client.read_to_end('s'), Ok(Ending::Reset));
                assert_eq!(server.read_to_end('c'), Ok(Ending::Reset));
            }
        }
        assert!(proxy.acted() > 0, "{trouble:?}");
    }
}

#[test]
fn a_rule_of_the_network_hits_packets_and_is_removed() {
    let test = "a_rule_of_the_network_hits_packets_and_is_removed";
    let outcome = thread::spawn(|| network::enter().map(|()| network_faults())).join().unwrap();
    if let Err(why) = outcome {
        skip(test, &why);
    }
}

/// In a namespace.
fn network_faults() {
    let env = TestEnv::new();
    let port = env.port(9001).port();
    let (mut client, mut server, listener) = direct(&env);
    let mut network = Network::default();
    network.act("drop", port, false).unwrap();
    client.send(5, 5).unwrap();
    assert_eq!(server.hears_nothing(PAUSE * 20), Ok(true), "a black hole");
    network.finish().unwrap();
    server.read('c', 5, 5, false).unwrap();
    for verb in ["stall", "loss", "flap"] {
        let mut network = Network::default();
        network.act(verb, port, false).unwrap();
        client.drip(60).unwrap();
        server.read('c', 60, 60, false).unwrap();
        network.finish().unwrap_or_else(|why| panic!("{verb}: {why}"));
    }
    let mut network = Network::default();
    network.act("drop-out", port, false).unwrap();
    server.send(5, 5).unwrap();
    assert_eq!(client.hears_nothing(PAUSE * 20), Ok(true), "one way only");
    network.finish().unwrap();
    client.read('s', 5, 5, false).unwrap();
    let mut network = Network::default();
    network.act("reset", port, false).unwrap();
    client.send(5, 5).unwrap();
    assert_eq!(client.read_to_end('s'), Ok(Ending::Reset));
    network.finish().unwrap();
    let mut unused = Network::default();
    unused.act("drop", port, false).unwrap();
    let why = unused.finish().unwrap_err();
    assert!(why.contains("was not injected"), "{why}");
    drop(listener);
}

/// Scenarios with a mistake, and a part of the message that must name it.
const WRONG: &[(&str, &str, &str, &str)] = &[
    // An ending that is not that of the session.
    ("plain", "c.connect s.accept c.rst s.ends:rst", "c -- done", "not -- done"),
    ("plain", "c.connect s.accept c.rst s.ends:rst", "c SD server_reset", "not SD server_reset"),
    // An orderly end instead of a reset, and the other way round.
    ("plain", "c.connect s.accept c.rst s.ends:fin", "c CD client_reset", "s.ends:fin: Reset"),
    ("plain", "c.connect s.accept c.fin s.ends:rst", "c -- done", "s.ends:rst: Orderly"),
    // A byte that cannot be sent.
    ("plain", "c.connect s.accept c.fin c.urgent", "c -- done", "c.urgent: c sends"),
    // A session that is not expected, and one that does not come.
    (
        "plain",
        "c.connect s.accept c.close s.close b.ended h.connect g.accept",
        "c -- done",
        "sessions",
    ),
    ("plain", "c.connect s.accept", "c -- done, h -- done", "there was no h"),
    // A connection that the server should not get, and one to no server.
    ("plain", "c.connect b.relaying c.pause:2000", "c -- done", "does not expect"),
    ("refused", "s.accept", "", "no server"),
    // A bad network that is not used.
    ("ended", "c.connect s.accept c.fin s.ends:fin", "c -- done", "was not injected"),
    // Words that do not exist.
    ("plain", "c.connect s.accept c.vanish", "c -- done", "unknown word"),
    ("nowhere", "c.connect", "", "no frontend nowhere"),
];

/// Scenarios that wait for what never comes.
const IN_VAIN: &[(&str, &str, &str, &str)] = &[
    ("plain", "c.connect s.accept c.send:5 s.read:6", "c -- done", "s.read:6: s reads byte 5"),
    ("queue", "h.connect g.accept c.connect s.accept", "h -- done", "no connection"),
    ("plain", "c.connect s.accept b.queued", "c -- done", "b.queued: not within"),
    ("plain", "c.connect s.accept b.ended", "c -- done", "b.ended: not within"),
];

#[test]
fn a_scenario_with_a_wrong_expectation_fails_and_says_why() {
    let wrong = WRONG.iter().map(|wrong| (DEADLINE, wrong));
    let all: Vec<_> = wrong.chain(IN_VAIN.iter().map(|wrong| (SHORT, wrong))).collect();
    thread::scope(|scope| {
        for part in all.chunks(all.len().div_ceil(3)) {
            scope.spawn(move || {
                let env = TestEnv::new();
                let mut world = World::start(&env, DEADLINE);
                for (deadline, (frontend, script, ends, why)) in part {
                    world.deadline = DEADLINE;
                    world.quiet().unwrap();
                    world.deadline = *deadline;
                    let scenario: Scenario = scene(frontend, script, ends);
                    let found = play(&mut world, scenario, Path::Copied).expect_err(script);
                    assert!(found.contains(why), "{script}: {found}");
                }
            });
        }
    });
}
