//! Who may connect, how fast, and how many at a time: `allow`, `deny`, `rate`, `clients_max`.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::common::client::{Ending, connect, connect_and_read, exchange, is_reset};
use crate::common::wait::{TIMEOUT, until};
use crate::common::{Balancer, Config, Server, TestEnv};

/// A client with this address; none if it was reset before connect(2) has returned.
pub(crate) fn client_from(address: &str, to: SocketAddr) -> Option<TcpStream> {
    let ip: IpAddr = address.parse().unwrap();
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(ip, 0).into()).unwrap();
    match socket.connect(&to.into()) {
        Err(error) if is_reset(&error) => return None,
        outcome => outcome.unwrap(),
    }
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
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
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let lists = "allow = [\"127.1.0.0/16\", \"127.2.0.1\"]\ndeny = [\"127.1.9.0/24\"]";
    let config = Config::new(&env).frontend(lists).server("a", server.address);
    let balancer = Balancer::start(&env, &config);
    for (address, expected) in [
        ("127.1.0.1", true),
        ("127.1.255.255", true),
        ("127.2.0.1", true),
        ("127.2.0.2", false),
        ("127.1.9.7", false),
        ("127.0.0.1", false),
    ] {
        let client = client_from(address, env.frontend());
        assert_eq!(is_served(&client), expected, "{address}");
    }
    assert_eq!(refused(&balancer, "denied"), 3.0);
    assert_eq!(server.accepted(), 3);
    balancer.assert_no_leaks();
}

#[test]
fn a_file_of_networks_is_read_again_at_a_reload() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    fs::write(env.file("denied"), "# none yet\n").unwrap();
    let config = Config::new(&env).frontend("deny = { file = \"denied\" }");
    let config = config.server("a", server.address);
    let balancer = Balancer::start(&env, &config);
    assert!(is_served(&client_from("127.3.0.1", env.frontend())));
    fs::write(env.file("denied"), "127.3.0.0/16 # all of it\n").unwrap();
    balancer.reload(&config);
    assert!(!is_served(&client_from("127.3.0.1", env.frontend())));
    assert!(is_served(&client_from("127.4.0.1", env.frontend())));
    fs::write(env.file("denied"), "127.3.0.0/16\nnonsense\n\n10.0.0.1/8\n").unwrap();
    let answer = balancer.control(&["reload"]);
    let said = String::from_utf8(answer.stderr).unwrap();
    assert!(said.contains("line 2") && said.contains("not a network"), "{said}");
    assert!(said.contains("line 4") && said.contains("10.0.0.0/8"), "{said}");
    assert!(!is_served(&client_from("127.3.0.1", env.frontend())), "the old list stays");
}

#[test]
fn beyond_the_rate_of_sessions_clients_are_reset() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let config = Config::new(&env).workers(2).frontend("rate.sessions = \"5/h\"");
    let balancer = Balancer::start(&env, &config.server("a", server.address));
    for _ in 0..5 {
        assert_eq!(exchange(&connect(env.frontend()), b"in"), b"in");
    }
    for _ in 0..3 {
        assert_eq!(connect_and_read(env.frontend()), (Vec::new(), Ending::Reset));
    }
    assert_eq!(refused(&balancer, "rate"), 3.0);
    balancer.assert_no_leaks();
}

#[test]
fn each_client_has_a_rate_of_its_own() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let config = Config::new(&env).workers(2).frontend("rate.per_client = \"2/h\"");
    let balancer = Balancer::start(&env, &config.server("a", server.address));
    for address in ["127.5.0.1", "127.5.0.2"] {
        let served: Vec<bool> =
            (0..4).map(|_| is_served(&client_from(address, env.frontend()))).collect();
        assert_eq!(served, [true, true, false, false], "{address}");
    }
    assert_eq!(refused(&balancer, "rate"), 4.0);
    // Whoever is refused has no session that would be logged.
    let logged = || balancer.application_log().contains("refused, by reason: rate ");
    until("the log says that clients are refused", logged);
    balancer.assert_no_leaks();
}

#[test]
fn a_client_has_clients_max_sessions_at_a_time() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let config = Config::new(&env).workers(2).frontend("clients_max = 2");
    let balancer = Balancer::start(&env, &config.server("a", server.address));
    let open = [client_from("127.6.0.1", env.frontend()), client_from("127.6.0.1", env.frontend())];
    assert!(open.iter().all(is_served));
    assert!(!is_served(&client_from("127.6.0.1", env.frontend())));
    assert_eq!(refused(&balancer, "limit"), 1.0);
    assert!(is_served(&client_from("127.6.0.2", env.frontend())), "another client");
    drop(open);
    until("the client may come again", || is_served(&client_from("127.6.0.1", env.frontend())));
    balancer.assert_no_leaks();
}
