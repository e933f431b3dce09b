//! Sockets of servers that serve again: nobody notices, and they are given back.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use crossbeam::channel::{self, Sender};

use crate::common::balancer::{PROGRAM, write_config};
use crate::common::client::{Ending, connect, end, exchange, read_out, reset};
use crate::common::wait::{PATIENCE, until};
use crate::common::{Balancer, Config, Place, Server, skip};

/// The sockets of the process, by the kernel's number of each.
fn sockets(balancer: &Balancer<'_>) -> BTreeSet<String> {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", balancer.pid())).unwrap();
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let targets = targets.map(|target| target.to_string_lossy().into_owned());
    targets.filter(|target| target.starts_with("socket:")).collect()
}

#[test]
fn a_servers_socket_serves_the_next_session() {
    let place = Place::new();
    let server = Server::echo(place.port(9001));
    let config = Config::new(&place).workers(1).server("a", server.address);
    let balancer = Balancer::start(&place, &config);
    let before = sockets(&balancer);
    let during_visit = || {
        let client = connect(place.frontend());
        assert_eq!(exchange(&client, b"in"), b"in");
        let of_session = sockets(&balancer).difference(&before).cloned().collect::<BTreeSet<_>>();
        end(&client);
        assert_eq!(read_out(&client), (Vec::new(), Ending::Orderly));
        of_session
    };
    // One that is not needed soon is closed: on a busy machine the next may come too late.
    until("a socket is met in two sessions", || {
        let [first, second] = [during_visit(), during_visit()];
        first.intersection(&second).count() > 0
    });
    balancer.books_balance();
}

#[test]
fn a_socket_that_has_carried_much_is_not_kept() {
    let place = Place::new();
    let server = Server::echo(place.port(9001));
    let config = Config::new(&place).workers(1).server("a", server.address);
    let balancer = Balancer::start(&place, &config);
    let before = sockets(&balancer);
    let much = vec![b'x'; 14_601];
    let mut met = BTreeSet::new();
    for _ in 0..50 {
        let client = connect(place.frontend());
        assert_eq!(exchange(&client, &much), much);
        for socket in sockets(&balancer).difference(&before) {
            assert!(met.insert(socket.clone()), "{socket} is met in two sessions");
        }
        end(&client);
        assert_eq!(read_out(&client), (Vec::new(), Ending::Orderly));
        balancer.metrics_until("the session has ended", |metrics| {
            metrics.value("evenkeel_sessions_active", &[]) < 0.5
        });
    }
    balancer.books_balance();
}

#[test]
fn they_make_room_for_what_a_reload_adds() {
    let place = Place::new();
    let server = Server::echo(place.port(9001));
    // Sessions leave fewer than a full row for each worker.
    let config = || {
        let config = Config::new(&place).workers(2).global("sessions_max = 50");
        config.server("a", server.address)
    };
    let mut command = Command::new("prlimit");
    command.args(["--nofile=600:600", PROGRAM, "run", "-c"]);
    command.arg(write_config(&place, &config().text()));
    let balancer = Balancer::start_command(&place, command);
    let more = (8001..8009).map(|port| place.port(port));
    balancer.reload(&more.fold(config(), Config::bind));
    assert_eq!(exchange(&connect(place.port(8008)), b"in"), b"in");
}

/// Who ends first, by the letter that the client says first.
const SERVER: u8 = b's';
const CLIENT: u8 = b'c';
const RESETS: u8 = b'r';

/// Answers with what it hears; says how its client ended.
fn part(mut stream: TcpStream, heard: &Sender<(u8, Ending)>) {
    let mut message = [0; 9];
    stream.read_exact(&mut message).unwrap();
    let letter = message[0];
    if letter == RESETS {
        reset(stream);
        return;
    }
    let mut rest = None;
    if letter == CLIENT {
        rest = Some(read_out(&stream));
    }
    stream.write_all(&message).unwrap();
    end(&stream);
    let (rest, ending) = rest.unwrap_or_else(|| read_out(&stream));
    assert_eq!(rest, b"");
    heard.send((letter, ending)).unwrap();
}

/// One session; its message is nobody else's.
fn visit(address: SocketAddr, letter: u8, number: usize) {
    let mut client = connect(address);
    let message = [&[letter][..], &number.to_be_bytes()].concat();
    client.write_all(&message).unwrap();
    if letter == CLIENT {
        end(&client);
    }
    let heard = read_out(&client);
    match letter {
        RESETS => assert_eq!(heard, (Vec::new(), Ending::Reset)),
        _ => assert_eq!(heard, (message, Ending::Orderly)),
    }
}

#[test]
fn whatever_ended_before_on_it_no_server_is_reset_and_no_byte_goes_astray() {
    let place = Place::new();
    let (say, heard) = channel::unbounded();
    let mut addresses = vec![place.port(9001), place.port(9002)];
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        addresses.push((Ipv6Addr::LOCALHOST, 0).into());
    } else {
        skip("whatever_ended_before_on_it, the part with two families", "here is no IPv6");
    }
    let servers = addresses.into_iter().map(|address| {
        let say = say.clone();
        Server::start(address, move |stream| part(stream, &say))
    });
    let servers: Vec<Server> = servers.collect();
    let config = Config::new(&place).workers(2).backend("retries = 0");
    let config = servers
        .iter()
        .zip(["a", "b", "c"])
        .fold(config, |config, (server, name)| config.server(name, server.address));
    let balancer = Balancer::start(&place, &config);
    let address = place.frontend();
    let visitors = (0..8).map(|visitor| {
        thread::spawn(move || {
            for turn in 0..120 {
                let letter = [SERVER, CLIENT, SERVER, CLIENT, RESETS][turn % 5];
                visit(address, letter, visitor * 1000 + turn);
            }
        })
    });
    visitors.collect::<Vec<_>>().into_iter().for_each(|visitor| visitor.join().unwrap());
    for _ in 0..768 {
        let (letter, ending) = heard.recv_timeout(PATIENCE).unwrap();
        assert_eq!(ending, Ending::Orderly, "who ends first: {}", char::from(letter));
    }
    let metrics = balancer.books_balance();
    assert_eq!(metrics.closed("done"), 768.0);
    assert_eq!(metrics.closed("server_reset"), 192.0);
}
