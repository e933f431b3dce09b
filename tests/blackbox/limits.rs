//! Limits: beyond each, new work waits or is refused, and running work goes on.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::common::balancer::{PROGRAM, write_config};
use crate::common::books::ticks;
use crate::common::client::{Ending, ask_and_read_out, connect, exchange};
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
        until("the eleventh is served", || answered(&eleventh));
        eleventh.read_exact(&mut [0; 6]).unwrap();
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

#[test]
fn out_of_descriptors_clients_wait_and_nothing_spins() {
    let place = Place::new(); // case 46
    let server = Server::echo(place.port(9001));
    let balancer = Balancer::start(&place, &Config::new(&place).server("a", server.address));
    limit_descriptors(balancer.pid(), leaving(balancer.pid(), 6));
    let mut clients: Vec<TcpStream> = Vec::new();
    for _ in 0..3 {
        let client = connect(place.frontend());
        assert_eq!(exchange(&client, b"in"), b"in");
        clients.push(client);
    }
    let mut fourth = connect(place.frontend());
    fourth.write_all(b"and me").unwrap();
    let before = ticks(balancer.pid());
    assert!(holds_for(Duration::from_secs(1), || !answered(&fourth)));
    let used = ticks(balancer.pid()) - before;
    assert!(used < 20, "{used} ticks of 10 ms in a second of waiting");
    assert_eq!(exchange(&clients[0], b"unhurt"), b"unhurt");
    clients.pop();
    until("the fourth is served", || answered(&fourth));
    fourth.read_exact(&mut [0; 6]).unwrap();
    drop((clients, fourth));
    let complaints = balancer.complaints();
    let lines = complaints.matches("cannot accept").count();
    assert!((1..=10).contains(&lines), "{lines} lines: {complaints}");
    limit_descriptors(balancer.pid(), 1000);
    assert_eq!(balancer.books_balance().closed("done"), 4.0);
}

#[test]
fn out_of_descriptors_for_the_server_the_client_is_reset_and_the_gauges_return() {
    let place = Place::new(); // case 47
    let server = Server::echo(place.port(9001));
    let balancer = Balancer::start(&place, &Config::new(&place).server("a", server.address));
    limit_descriptors(balancer.pid(), leaving(balancer.pid(), 3));
    let first = connect(place.frontend());
    assert_eq!(exchange(&first, b"in"), b"in");
    let second = ask_and_read_out(place.frontend(), b"");
    assert_eq!(second, (Vec::new(), Ending::Reset));
    balancer.session_ended("RC exhausted");
    assert_eq!(exchange(&first, b"unhurt"), b"unhurt");
    limit_descriptors(balancer.pid(), 1000);
    drop(first);
    let metrics = balancer.books_balance();
    assert!(metrics.closed("exhausted") >= 1.0);
    assert_eq!(server.accepted(), 1);
}

/// The limit that leaves `free` descriptors to a process at rest. Some may be numbered above it:
/// those that it inherited.
fn leaving(pid: u32, free: usize) -> usize {
    let open = || -> BTreeSet<usize> {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
    };
    let mut last = open();
    until("no descriptor comes or goes", || {
        let before = std::mem::replace(&mut last, open());
        before == last && holds_for(Duration::from_millis(300), || open() == last)
    });
    (0..).filter(|number| !last.contains(number)).nth(free).unwrap()
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
    let greedy: Vec<TcpStream> = (0..20).map(|_| connect(place.frontend())).collect();
    for client in &greedy {
        client.set_nonblocking(true).unwrap();
    }
    // They write until nothing more goes, and read nothing of the echo.
    let pour = |mut client: &TcpStream| (0..).find(|_| client.write(&[9; 16 * 1024]).is_err());
    let full = || greedy.iter().filter_map(pour).sum::<i32>() == 0;
    until("the way is full", || holds_for(Duration::from_millis(200), full));
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
