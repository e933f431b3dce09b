//! Limits: beyond each, new work waits or is refused, and running work goes on.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::common::balancer::{PROGRAM, write_config};
use crate::common::books::{Descriptors, ticks};
use nix::sys::signal::Signal;
use socket2::SockRef;

use crate::common::client::{connect, exchange, is_reset, patient};
use crate::common::wait::{PATIENCE, holds_for, until, until_some};
use crate::common::{Balancer, Config, Place, Server};

/// Whether an echo has come within a tick.
fn answered(client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let answered = matches!(client.peek(&mut [0]), Ok(1..));
    client.set_nonblocking(false).unwrap();
    answered
}

/// Sets the soft limit of descriptors of a running process.
fn limit_descriptors(pid: u32, limit: usize) {
    let arguments = [format!("--pid={pid}"), format!("--nofile={limit}:")];
    assert!(Command::new("prlimit").args(arguments).status().unwrap().success());
}

#[test]
fn beyond_sessions_max_clients_wait_and_are_served_in_turn() {
    for limit in ["global", "frontend"] {
        let place = Place::new(); // case 52
        let server = Server::echo(place.port(9001));
        let config = Config::new(&place).workers(2).server("a", server.address);
        let config = match limit {
            "global" => config.global("sessions_max = 10"),
            _ => config.frontend("sessions_max = 10"),
        };
        let balancer = Balancer::start(&place, &config);
        let mut clients: Vec<TcpStream> = (0..10).map(|_| connect(place.frontend())).collect();
        for client in &clients {
            assert_eq!(exchange(client, b"in"), b"in");
        }
        let mut eleventh = connect(place.frontend());
        eleventh.write_all(b"me too").unwrap();
        assert!(holds_for(Duration::from_millis(500), || !answered(&eleventh)), "{limit}");
        assert_eq!(server.accepted(), 10, "{limit}");
        clients.pop();
        let mut answer = [0; 6];
        eleventh.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"me too");
        drop((clients, eleventh));
        assert_eq!(balancer.books_balance().closed("done"), 11.0, "{limit}");
    }
}

#[test]
fn a_server_at_its_sessions_max_gets_no_more() {
    let place = Place::new();
    let (a, b) = (Server::echo(place.port(9001)), Server::echo(place.port(9002)));
    let config = Config::new(&place).server_with("a", a.address, "sessions_max = 2");
    let balancer = Balancer::start(&place, &config.server("b", b.address));
    let clients: Vec<TcpStream> = (0..10).map(|_| connect(place.frontend())).collect();
    for client in &clients {
        assert_eq!(exchange(client, b"in"), b"in");
    }
    assert_eq!((a.accepted(), b.accepted()), (2, 8));
    drop(clients);
    balancer.books_balance();
}

/// What becomes of the first client for whom there are not enough descriptors.
#[derive(Debug, PartialEq, Eq)]
enum Starved {
    /// None for the client's own connection: it stays in the backlog.
    Waits,
    /// One for the client, none for the server.
    IsReset,
}

/// Lets clients come until `spare` descriptors are used up, looks at what happens, and gives some
/// back.
fn starve(spare: usize) -> Starved {
    let place = Place::alone();
    let server = Server::echo(place.port(9001));
    // So few sessions that accepts are armed one by one: each knows the limit of its moment.
    let config = Config::new(&place).global("sessions_max = 20").server("a", server.address);
    let balancer = Balancer::start(&place, &config);
    limit_descriptors(balancer.pid(), descriptors_at_rest(&balancer) + spare);
    let mut served = Vec::new();
    let starved = loop {
        match enter(&balancer) {
            Entry::Served(client) => served.push(client),
            Entry::Waits(client) => {
                assert_waits_in_peace(&balancer, &client, &mut served);
                served.push(client);
                break Starved::Waits;
            }
            Entry::Reset => {
                balancer.session_ended("RC exhausted");
                break Starved::IsReset;
            }
        }
    };
    for client in &served[..served.len() - 1] {
        assert_eq!(exchange(client, b"unhurt"), b"unhurt");
    }
    limit_descriptors(balancer.pid(), 1000);
    drop(served);
    balancer.books_balance();
    starved
}

/// How many it has once the last request for its page is closed, which a busy machine delays.
fn descriptors_at_rest(balancer: &Balancer<'_>) -> usize {
    let count = || Descriptors::of(balancer.pid()).all();
    until_some("its descriptors are at rest", || {
        let first = count();
        holds_for(Duration::from_millis(500), || count() == first).then_some(first)
    })
}

/// How a client fares that comes now.
enum Entry {
    Served(TcpStream),
    /// Connected (the kernel does that), and nothing comes.
    Waits(TcpStream),
    Reset,
}

fn enter(balancer: &Balancer<'_>) -> Entry {
    let mut client = match TcpStream::connect_timeout(&balancer.place.frontend(), PATIENCE) {
        Ok(client) => client,
        Err(error) if is_reset(&error) => return Entry::Reset,
        Err(error) => panic!("{error}"),
    };
    if client.write_all(b"in").is_err() {
        return Entry::Reset;
    }
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    until_some("the client is served, reset, or known to wait", || {
        // Looked at first: a client that is reset is so before the log tells, and is read below.
        let waits = balancer.complaints().contains("cannot accept");
        match client.read_exact(&mut [0; 2]) {
            Ok(()) => {
                patient(&client);
                Some(Entry::Served(client.try_clone().unwrap()))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && waits => {
                patient(&client);
                Some(Entry::Waits(client.try_clone().unwrap()))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) if is_reset(&error) => Some(Entry::Reset),
            Err(error) => panic!("an orderly end without an answer: {error}"),
        }
    })
}

/// A client waits for a descriptor: nobody spins meanwhile, the operator is told, others go on;
/// and it is served when one of them has left.
fn assert_waits_in_peace(
    balancer: &Balancer<'_>,
    waiting: &TcpStream,
    served: &mut Vec<TcpStream>,
) {
    let before = ticks(balancer.pid());
    assert!(holds_for(Duration::from_secs(1), || !answered(waiting)));
    let used = ticks(balancer.pid()) - before;
    assert!(used < 20, "{used} ticks of 10 ms in a second of waiting");
    let leaver = served.pop().expect("somebody was served before descriptors ran out");
    assert_eq!(exchange(&leaver, b"unhurt"), b"unhurt");
    drop(leaver);
    until("who waited is served", || answered(waiting));
    let complaints = balancer.complaints();
    let lines = complaints.matches("cannot accept").count();
    assert!((1..=10).contains(&lines), "{lines} lines: {complaints}");
}

#[test]
fn out_of_descriptors_clients_wait_or_are_reset_and_running_sessions_are_unhurt() {
    // Cases 46 and 47: a session takes two, so that one of two neighbours leaves a client without
    // a server, and the other leaves it in the backlog.
    let mut outcomes = [starve(6), starve(7)];
    outcomes.sort_by_key(|outcome| *outcome == Starved::IsReset);
    assert_eq!(outcomes, [Starved::Waits, Starved::IsReset]);
}

#[test]
fn of_more_who_wait_at_a_drain_than_there_are_descriptors_each_is_served() {
    let place = Place::alone();
    let server = Server::echo(place.port(9001));
    let config = Config::new(&place).global("sessions_max = 4").server("a", server.address);
    let balancer = Balancer::start(&place, &config);
    let inside: Vec<TcpStream> = (0..4).map(|_| connect(place.frontend())).collect();
    for client in &inside {
        assert_eq!(exchange(client, b"in"), b"in");
    }
    limit_descriptors(balancer.pid(), balancer.base.all() + 60);
    let mut waiting: Vec<TcpStream> = (0..120).map(|_| connect(place.frontend())).collect();
    for client in &mut waiting {
        client.write_all(b"me too").unwrap();
    }
    balancer.signal(Signal::SIGTERM);
    until("it drains", || balancer.complaints().contains("draining for"));
    drop(inside);
    for (number, mut client) in waiting.into_iter().enumerate() {
        let mut answer = [0; 6];
        client.read_exact(&mut answer).unwrap_or_else(|why| panic!("client {number}: {why}"));
        assert_eq!(&answer, b"me too");
    }
    drop(server);
}

#[test]
fn whoever_waits_at_a_drain_on_another_worker_is_served_as_sessions_end() {
    let place = Place::new();
    let server = Server::echo(place.port(9001));
    let config = Config::new(&place).workers(2).global("sessions_max = 1");
    let mut balancer = Balancer::start(&place, &config.server("a", server.address));
    let first = connect(place.frontend());
    assert_eq!(exchange(&first, b"in"), b"in");
    let mut waiting: Vec<TcpStream> = (0..16).map(|_| connect(place.frontend())).collect();
    for client in &mut waiting {
        client.write_all(b"me too").unwrap();
    }
    balancer.signal(Signal::SIGTERM);
    until("new ones are refused", || TcpStream::connect(place.frontend()).is_err());
    drop(first);
    until("each is served", || {
        waiting.retain(|client| !answered(client));
        waiting.is_empty()
    });
    assert!(balancer.wait().success());
}

#[test]
fn a_sessions_max_beyond_the_descriptors_is_refused_with_the_numbers() {
    let place = Place::new(); // case 53
    let config = Config::new(&place).global("sessions_max = 5000");
    let file = write_config(&place, &config.server("a", place.port(9001)).text());
    let output = Command::new("prlimit")
        .args(["--nofile=1024:1024", PROGRAM, "run", "-c"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    for part in [&format!("{}:3:", file.display()), "5000", "1024", "LimitNOFILE"] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
}

#[test]
fn one_that_does_not_read_cannot_take_the_buffers_of_others() {
    let place = Place::alone(); // case 54
    let server = Server::echo(place.port(9001));
    let config = Config::new(&place).global("buffers = \"256KiB\"");
    let balancer = Balancer::start(&place, &config.server("a", server.address));
    let greedy: Vec<TcpStream> = (0..12).map(|_| connect(place.frontend())).collect();
    for client in &greedy {
        SockRef::from(client).set_recv_buffer_size(16 * 1024).unwrap();
        client.set_nonblocking(true).unwrap();
    }
    // They write until nothing more goes, and read nothing of the echo.
    let fill = |mut client: &TcpStream| {
        (0..).take_while(|_| client.write(&[9; 64 * 1024]).is_ok()).count()
    };
    let mut calm = 0;
    until("the way is full", || {
        calm = if greedy.iter().map(fill).sum::<usize>() == 0 { calm + 1 } else { 0 };
        calm == 50
    });
    let meek = connect(place.frontend());
    for _ in 0..20 {
        assert_eq!(exchange(&meek, b"some bytes"), b"some bytes");
    }
    drop((greedy, meek));
    balancer.books_balance();
}

#[test]
fn clients_that_connect_and_say_nothing_are_in_nobodys_way() {
    let place = Place::alone();
    let server = Server::echo(place.port(9001));
    let balancer =
        Balancer::start(&place, &Config::new(&place).workers(2).server("a", server.address));
    let silent: Vec<TcpStream> = (0..500).map(|_| connect(place.frontend())).collect();
    for _ in 0..50 {
        let client = connect(place.frontend());
        assert_eq!(exchange(&client, b"hello"), b"hello");
    }
    drop(silent);
    assert_eq!(balancer.books_balance().closed("done"), 550.0);
}
