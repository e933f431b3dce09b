//! Who may connect, how fast, and how many at a time: `allow`, `deny`, `rate`, `clients_max`.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::common::client::{Ending, connect, exchange, fate, is_reset};
use crate::common::wait::{PATIENCE, until};
use crate::common::{Balancer, Config, Place, Server};

/// A client with this address; none if it was reset before connect(2) has returned.
fn from(address: &str, to: SocketAddr) -> Option<TcpStream> {
    let ip: IpAddr = address.parse().unwrap();
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(ip, 0).into()).unwrap();
    match socket.connect(&to.into()) {
        Err(error) if is_reset(&error) => return None,
        outcome => outcome.unwrap(),
    }
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Some(stream)
}

/// Whether a client gets its byte back; else it was reset.
fn is_served(client: &Option<TcpStream>) -> bool {
    let Some(mut client) = client.as_ref() else { return false };
    client.write_all(b"x").is_ok() && client.peek(&mut [0]).is_ok_and(|count| count == 1)
}

fn refused(balancer: &Balancer<'_>, reason: &str) -> f64 {
    balancer.metrics().value("evenkeel_sessions_refused_total", &[("reason", reason)])
}

#[test]
fn a_denied_network_is_reset_and_counted_and_deny_comes_before_allow() {
    let place = Place::new();
    let server = Server::echo(place.port(9001));
    let lists = "allow = [\"127.1.0.0/16\", \"127.2.0.1\"]\ndeny = [\"127.1.9.0/24\"]";
    let config = Config::new(&place).frontend(lists).server("a", server.address);
    let balancer = Balancer::start(&place, &config);
    for (address, expected) in [
        ("127.1.0.1", true),
        ("127.1.255.255", true),
        ("127.2.0.1", true),
        ("127.2.0.2", false),
        ("127.1.9.7", false),
        ("127.0.0.1", false),
    ] {
        let client = from(address, place.frontend());
        assert_eq!(is_served(&client), expected, "{address}");
    }
    assert_eq!(refused(&balancer, "denied"), 3.0);
    assert_eq!(server.accepted(), 3);
    balancer.books_balance();
}

#[test]
fn a_file_of_networks_is_read_again_at_a_reload() {
    let place = Place::new();
    let server = Server::echo(place.port(9001));
    fs::write(place.file("denied"), "# none yet\n").unwrap();
    let config = Config::new(&place).frontend("deny = { file = \"denied\" }");
    let config = config.server("a", server.address);
    let balancer = Balancer::start(&place, &config);
    assert!(is_served(&from("127.3.0.1", place.frontend())));
    fs::write(place.file("denied"), "127.3.0.0/16 # all of it\n").unwrap();
    balancer.reload(&config);
    assert!(!is_served(&from("127.3.0.1", place.frontend())));
    assert!(is_served(&from("127.4.0.1", place.frontend())));
    fs::write(place.file("denied"), "127.3.0.0/16\nnonsense\n").unwrap();
    let answer = balancer.order(&["reload"]);
    let said = String::from_utf8(answer.stderr).unwrap();
    assert!(said.contains("line 2") && said.contains("not a network"), "{said}");
    assert!(!is_served(&from("127.3.0.1", place.frontend())), "the old list stays");
}

#[test]
fn beyond_the_rate_of_sessions_clients_are_reset() {
    let place = Place::new();
    let server = Server::echo(place.port(9001));
    let config = Config::new(&place).workers(2).frontend("rate.sessions = \"5/h\"");
    let balancer = Balancer::start(&place, &config.server("a", server.address));
    for _ in 0..5 {
        assert_eq!(exchange(&connect(place.frontend()), b"in"), b"in");
    }
    for _ in 0..3 {
        assert_eq!(fate(place.frontend()), (Vec::new(), Ending::Reset));
    }
    assert_eq!(refused(&balancer, "rate"), 3.0);
    balancer.books_balance();
}

#[test]
fn each_client_has_a_rate_of_its_own() {
    let place = Place::new();
    let server = Server::echo(place.port(9001));
    let config = Config::new(&place).workers(2).frontend("rate.per_client = \"2/h\"");
    let balancer = Balancer::start(&place, &config.server("a", server.address));
    for address in ["127.5.0.1", "127.5.0.2"] {
        let served: Vec<bool> =
            (0..4).map(|_| is_served(&from(address, place.frontend()))).collect();
        assert_eq!(served, [true, true, false, false], "{address}");
    }
    assert_eq!(refused(&balancer, "rate"), 4.0);
    balancer.books_balance();
}

#[test]
fn a_client_has_clients_max_sessions_at_a_time() {
    let place = Place::new();
    let server = Server::echo(place.port(9001));
    let config = Config::new(&place).workers(2).frontend("clients_max = 2");
    let balancer = Balancer::start(&place, &config.server("a", server.address));
    let open = [from("127.6.0.1", place.frontend()), from("127.6.0.1", place.frontend())];
    assert!(open.iter().all(is_served));
    assert!(!is_served(&from("127.6.0.1", place.frontend())));
    assert_eq!(refused(&balancer, "limit"), 1.0);
    assert!(is_served(&from("127.6.0.2", place.frontend())), "another client");
    drop(open);
    until("the client may come again", || is_served(&from("127.6.0.1", place.frontend())));
    balancer.books_balance();
}
