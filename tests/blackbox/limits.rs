//! Limits: beyond each, new work waits or is refused, and running work goes on.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::common::balancer::{PROGRAM, write_config};
use crate::common::books::ticks;
use socket2::SockRef;

use crate::common::client::{connect, exchange};
use crate::common::wait::{holds_for, until};
use crate::common::{Balancer, Config, Place, Server};

/// Whether an echo has come within a tick.
fn answered(client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let answered = matches!(client.peek(&mut [0]), Ok(1..));
    client.set_nonblocking(false).unwrap();
    answered
}

/// Sets the limit of descriptors of a running process.
fn limit_descriptors(pid: u32, limit: usize) {
    let arguments = [format!("--pid={pid}"), format!("--nofile={limit}:20000")];
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
    let place = Place::new();
    let server = Server::echo(place.port(9001));
    // So few sessions that accepts are armed one by one: each knows the limit of its moment.
    let config = Config::new(&place).global("sessions_max = 20").server("a", server.address);
    let balancer = Balancer::start(&place, &config);
    limit_descriptors(balancer.pid(), balancer.base.all() + spare);
    let mut served: Vec<TcpStream> = Vec::new();
    let mut last = connect(place.frontend());
    last.write_all(b"in").unwrap();
    while let Some(answer) = within(Duration::from_millis(500), &mut last)
        && answer == b"in"
    {
        served.push(std::mem::replace(&mut last, connect(place.frontend())));
        // It may be reset before it has said anything.
        drop(last.write_all(b"in"));
    }
    let starved = if within(Duration::from_millis(1), &mut last).is_none() {
        let before = ticks(balancer.pid());
        assert!(holds_for(Duration::from_secs(1), || !answered(&last)));
        let used = ticks(balancer.pid()) - before;
        assert!(used < 20, "{used} ticks of 10 ms in a second of waiting");
        assert!(!served.is_empty(), "{spare} spare descriptors serve nobody");
        assert_eq!(exchange(&served[0], b"unhurt"), b"unhurt");
        served.pop();
        until("who waited is served", || answered(&last));
        let complaints = balancer.complaints();
        let lines = complaints.matches("cannot accept").count();
        assert!((1..=10).contains(&lines), "{lines} lines: {complaints}");
        Starved::Waits
    } else {
        balancer.session_ended("RC exhausted");
        Starved::IsReset
    };
    assert_eq!(exchange(&served[0], b"unhurt"), b"unhurt");
    limit_descriptors(balancer.pid(), 1000);
    drop((served, last));
    balancer.books_balance();
    starved
}

/// What comes within `time`: nothing at all, or bytes, or (as no bytes) an end.
fn within(time: Duration, client: &mut TcpStream) -> Option<Vec<u8>> {
    client.set_read_timeout(Some(time)).unwrap();
    let mut bytes = vec![0; 64];
    match client.read(&mut bytes) {
        Ok(count) => Some(bytes[..count].to_vec()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(_) => Some(Vec::new()),
    }
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
    let place = Place::new(); // case 54
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
    let place = Place::new();
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
