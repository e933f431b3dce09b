//! The PROXY protocol in both directions: `proxy_protocol`, `proxy_protocol_from`, `send_proxy`.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use evenkeel::shared::proxy_header::{ProxyTlvs, ProxyVersion, header};
use socket2::{Domain, SockRef, Socket, Type};

use crate::common::client::{
    Ending, connect, connect_and_read, exchange, read_to_end, reset, set_timeouts, shut_down,
};
use crate::common::process::ticks;
use crate::common::server::echo;
use crate::common::wait::{holds_for, pause, until};
use crate::common::{Balancer, Config, Server, TestEnv};

/// A client in front of the balancer, and the address that it connected to.
const SOURCE: &str = "192.0.2.7:4711";
const DESTINATION: &str = "198.51.100.1:443";

/// Believes everybody on loopback.
const REQUIRED: &str = "proxy_protocol = \"required\"\nproxy_protocol_from = [\"127.0.0.0/8\"]";

fn headers() -> [Vec<u8>; 2] {
    [ProxyVersion::V1, ProxyVersion::V2].map(|version| {
        let (source, destination) = (SOURCE.parse().ok(), DESTINATION.parse().ok());
        header(version, source, destination, &ProxyTlvs::default())
    })
}

fn header_from(source: &str) -> Vec<u8> {
    let destination = DESTINATION.parse().ok();
    header(ProxyVersion::V2, source.parse().ok(), destination, &ProxyTlvs::default())
}

/// The server that sends everything back gets a header of version 1, so that it is seen.
fn seeing(env: &TestEnv) -> (Config, Server) {
    let server = Server::echo(env.port(9001));
    let config = Config::new(env).frontend(REQUIRED).backend("send_proxy = \"v1\"");
    (config.server("a", server.address), server)
}

/// What a server is told about a client.
fn line(source: SocketAddr, destination: SocketAddr) -> String {
    let tlvs = ProxyTlvs::default();
    let line = header(ProxyVersion::V1, Some(source), Some(destination), &tlvs);
    String::from_utf8(line).unwrap()
}

/// The next bytes, as many as are expected.
fn read(mut stream: &TcpStream, expected: &[u8]) {
    let mut found = vec![0; expected.len()];
    stream.read_exact(&mut found).unwrap();
    assert_eq!(found.escape_ascii().to_string(), expected.escape_ascii().to_string());
}

/// Connects, and sends this.
fn sending(env: &TestEnv, bytes: &[u8]) -> TcpStream {
    let mut client = connect(env.frontend());
    client.write_all(bytes).unwrap();
    client
}

/// Sends this and reads: whether something came back. A reset may be quicker than the write.
fn is_served(env: &TestEnv, bytes: &[u8]) -> bool {
    let mut client = connect(env.frontend());
    client.write_all(bytes).is_ok() && client.read(&mut [0]).is_ok_and(|count| count == 1)
}

fn refused(balancer: &Balancer<'_>, reason: &str) -> f64 {
    balancer.metrics().value("evenkeel_sessions_refused_total", &[("reason", reason)])
}

#[test]
fn both_versions_are_read_wherever_a_segment_ends_and_what_follows_is_unchanged() {
    let env = TestEnv::new();
    let (config, _server) = seeing(&env);
    let balancer = Balancer::start(&env, &config);
    let line = line(SOURCE.parse().unwrap(), DESTINATION.parse().unwrap());
    let expected = [line.as_bytes(), b"PROXY \r\n"].concat();
    let mut sessions = 0.0;
    for header in headers() {
        let whole = [header.as_slice(), b"PROXY \r\n"].concat();
        for end in 0..whole.len() {
            let mut client = sending(&env, &whole[..end]);
            // As the peer of a slow line.
            pause(Duration::from_millis(1));
            client.write_all(&whole[end..]).unwrap();
            read(&client, &expected);
            sessions += 1.0;
        }
        let mut client = connect(env.frontend());
        for byte in &whole {
            client.write_all(&[*byte]).unwrap();
        }
        read(&client, &expected);
        shut_down(&client);
        assert_eq!(read_to_end(&client), (Vec::new(), Ending::Orderly));
        sessions += 1.0;
    }
    let metrics = balancer.assert_no_leaks();
    assert_eq!(metrics.value("evenkeel_sessions_total", &[]), sessions);
    let received = metrics.value("evenkeel_bytes_total", &[("direction", "in")]);
    assert_eq!(received, 8.0 * sessions, "no header is counted");
}

#[test]
fn the_log_and_the_list_of_sessions_have_the_address_of_the_header() {
    let env = TestEnv::new();
    let (config, _server) = seeing(&env);
    let balancer = Balancer::start(&env, &config);
    let [_, header] = headers();
    let client = sending(&env, &header);
    read(&client, line(SOURCE.parse().unwrap(), DESTINATION.parse().unwrap()).as_bytes());
    assert_eq!(exchange(&client, b"x"), b"x");
    let list = balancer.control_ok(&["sessions", "--json"]);
    assert!(list.contains(SOURCE), "{list}");
    drop(client);
    let record = balancer.session_ended("-- done");
    assert!(record.contains(SOURCE), "{record}");
    balancer.assert_no_leaks();
}

#[test]
fn an_unknown_source_is_the_peer_itself() {
    let env = TestEnv::new();
    let (config, _server) = seeing(&env);
    let balancer = Balancer::start(&env, &config);
    let local = header(ProxyVersion::V2, None, None, &ProxyTlvs::default());
    for bytes in [b"PROXY UNKNOWN\r\n".as_slice(), b"PROXY UNKNOWN a b c\r\n", &local] {
        let client = sending(&env, bytes);
        let peer = client.local_addr().unwrap();
        read(&client, line(peer, env.frontend()).as_bytes());
        assert_eq!(exchange(&client, b"x"), b"x");
    }
    balancer.assert_no_leaks();
}

#[test]
fn a_client_of_another_family_than_its_destination_is_named_all_the_same() {
    let env = TestEnv::new();
    let (config, _server) = seeing(&env);
    let balancer = Balancer::start(&env, &config);
    for (text, expected) in [
        (
            "PROXY TCP6 2001:db8::1 ::ffff:192.0.2.2 1 2\r\n",
            "PROXY TCP6 2001:db8::1 ::ffff:192.0.2.2 1 2\r\n",
        ),
        ("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", "PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n"),
    ] {
        let client = sending(&env, text.as_bytes());
        read(&client, expected.as_bytes());
    }
    balancer.assert_no_leaks();
}

#[test]
fn a_peer_that_is_not_believed_is_reset_and_counted() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let lines = "proxy_protocol = \"required\"\nproxy_protocol_from = [\"127.1.0.0/16\"]";
    let config = Config::new(&env).frontend(lines).server("a", server.address);
    let balancer = Balancer::start(&env, &config);
    let [header, _] = headers();
    for (address, expected) in [("127.1.0.9", true), ("127.2.0.9", false)] {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let ip: IpAddr = address.parse().unwrap();
        socket.bind(&SocketAddr::new(ip, 0).into()).unwrap();
        let connected = socket.connect(&env.frontend().into()).is_ok();
        let mut client = TcpStream::from(socket);
        set_timeouts(&client);
        let sent = connected && client.write_all(&[&header, b"x".as_slice()].concat()).is_ok();
        let served = sent && client.read(&mut [0]).is_ok_and(|count| count == 1);
        assert_eq!(served, expected, "{address}");
    }
    assert_eq!(refused(&balancer, "bad_proxy_header"), 1.0);
    let metrics = balancer.assert_no_leaks();
    assert_eq!(metrics.value("evenkeel_sessions_total", &[]), 1.0);
    assert_eq!(server.accepted(), 1);
}

#[test]
fn what_is_no_header_ends_the_session_and_reaches_no_server() {
    let env = TestEnv::new();
    let (config, server) = seeing(&env);
    let balancer = Balancer::start(&env, &config);
    let bad = [b"GET / HTTP/1.1\r\n\r\n".as_slice(), b"PROXY TCP4 1 2 3 4\r\n", &[0; 4096]];
    for bytes in bad {
        let client = sending(&env, bytes);
        assert_eq!(read_to_end(&client), (Vec::new(), Ending::Reset));
    }
    assert!(balancer.session_ended("PR bad_preface").contains("bad_preface"));
    let metrics = balancer.assert_no_leaks();
    assert_eq!((metrics.closed("bad_preface"), server.accepted()), (3.0, 0));
}

#[test]
fn a_header_that_does_not_come_or_stops_half_way_ends_with_its_timeout() {
    let env = TestEnv::new();
    let (config, server) = seeing(&env);
    let balancer = Balancer::start(&env, &config.frontend("preface_timeout = \"2s\""));
    let [text, binary] = headers();
    assert_eq!(connect_and_read(env.frontend()), (Vec::new(), Ending::Reset));
    let parts = [&text[..text.len() - 1], &binary[..1], &binary[..20]];
    for client in parts.map(|bytes| sending(&env, bytes)) {
        assert_eq!(read_to_end(&client), (Vec::new(), Ending::Reset));
    }
    balancer.session_ended("cR preface_timeout");
    let metrics = balancer.assert_no_leaks();
    assert_eq!((metrics.closed("preface_timeout"), server.accepted()), (4.0, 0));
}

#[test]
fn a_client_that_goes_before_its_header_is_complete_is_told_from_one_that_is_late() {
    let env = TestEnv::new();
    let (config, server) = seeing(&env);
    let balancer = Balancer::start(&env, &config.frontend("preface_timeout = \"1m\""));
    let [text, binary] = headers();
    let parts = [b"".as_slice(), &text[..10], &binary[..5], &binary[..27]];
    for bytes in parts {
        let client = sending(&env, bytes);
        shut_down(&client);
        assert_eq!(read_to_end(&client), (Vec::new(), Ending::Reset));
        reset(sending(&env, bytes));
    }
    balancer.session_ended("CR client_left");
    // The last ones may not be accepted yet.
    until("all have left", || balancer.metrics().closed("client_left") >= 8.0);
    let metrics = balancer.assert_no_leaks();
    assert_eq!((metrics.closed("client_left"), server.accepted()), (8.0, 0));
}

#[test]
fn an_urgent_byte_in_a_header_costs_no_processor_time() {
    let env = TestEnv::new();
    let (config, _server) = seeing(&env);
    let balancer = Balancer::start(&env, &config.frontend("preface_timeout = \"1500ms\""));
    let before = ticks(balancer.pid());
    let client = sending(&env, b"PROXY");
    SockRef::from(&client).send_out_of_band(b" ").unwrap();
    (&client).write_all(b"TCP4 ").unwrap();
    assert_eq!(read_to_end(&client), (Vec::new(), Ending::Reset));
    balancer.session_ended("cR preface_timeout");
    let spent = ticks(balancer.pid()) - before;
    assert!(spent < 75, "{spent} ticks of a hundredth of a second");
    balancer.assert_no_leaks();
}

#[test]
fn lists_rates_and_limits_are_of_the_address_in_the_header() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let lines = "deny = [\"192.0.2.128/25\"]\nallow = [\"192.0.2.0/24\", \"2001:db8::/32\"]\n\
                 clients_max = 2\nrate.per_client = \"3/h\"";
    let config = Config::new(&env).workers(2).frontend(REQUIRED).frontend(lines);
    let balancer = Balancer::start(&env, &config.server("a", server.address));
    let ask = |source: &str| {
        let client = sending(&env, &[header_from(source).as_slice(), b"x"].concat());
        let served = (&client).read(&mut [0]).is_ok_and(|count| count == 1);
        (served, client)
    };
    assert!(!ask("192.0.2.128:1").0 && !ask("198.51.100.1:1").0);
    assert_eq!(refused(&balancer, "denied"), 2.0);
    let one = [ask("192.0.2.1:1"), ask("192.0.2.1:2")];
    assert!(one.iter().all(|(served, _)| *served));
    assert!(!ask("192.0.2.1:3").0 && ask("192.0.2.2:1").0);
    assert_eq!(refused(&balancer, "limit"), 1.0);
    drop(one);
    until("the client may come again", || ask("192.0.2.1:4").0);
    assert!(!ask("192.0.2.1:5").0);
    let record = balancer.session_ended("PR refused");
    assert!(record.contains("192.0.2.") || record.contains("198.51.100."), "{record}");
    let metrics = balancer.assert_no_leaks();
    let refused = metrics.sum("evenkeel_sessions_refused_total", &[]);
    assert_eq!(metrics.closed("refused"), refused);
    assert_eq!(metrics.closed("done"), 4.0);
}

#[test]
fn the_source_algorithm_goes_by_the_address_in_the_header() {
    let env = TestEnv::new();
    let servers = ["a", "b"].map(|name| {
        let port = if name == "a" { 9001 } else { 9002 };
        Server::start(env.port(port), move |mut stream| {
            drop(stream.read(&mut [0; 64]));
            drop(stream.write_all(name.as_bytes()));
        })
    });
    let config = Config::new(&env).frontend(REQUIRED).backend("balance = \"source\"");
    let config = config.server("a", servers[0].address).server("b", servers[1].address);
    let balancer = Balancer::start(&env, &config);
    let name = |client: usize, port: usize| {
        let header = header_from(&format!("192.0.2.{client}:{port}"));
        let (name, _) = read_to_end(&sending(&env, &[header.as_slice(), b"x"].concat()));
        String::from_utf8(name).unwrap()
    };
    let first: Vec<String> = (0..20).map(|client| name(client, 1)).collect();
    let second: Vec<String> = (0..20).map(|client| name(client, 2)).collect();
    assert_eq!(first, second, "a client keeps its server");
    assert!(first.contains(&"a".to_owned()) && first.contains(&"b".to_owned()), "{first:?}");
    balancer.assert_no_leaks();
}

#[test]
fn authority_and_unique_id_are_passed_on_in_version_2() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let config = Config::new(&env).frontend(REQUIRED).backend("send_proxy = \"v2\"");
    let balancer = Balancer::start(&env, &config.server("a", server.address));
    let tlvs = ProxyTlvs {
        authority: Some(b"www.example.org".as_slice().into()),
        unique_id: Some([9; 128].as_slice().into()),
    };
    for address in [(SOURCE, DESTINATION), ("[2001:db8::7]:1", "[2001:db8::8]:2")] {
        let (source, destination) = (address.0.parse().ok(), address.1.parse().ok());
        let header = header(ProxyVersion::V2, source, destination, &tlvs);
        let client = sending(&env, &[header.as_slice(), b"x"].concat());
        read(&client, &[header.as_slice(), b"x"].concat());
    }
    balancer.assert_no_leaks();
}

#[test]
fn a_server_gets_the_header_first_without_a_byte_of_the_client() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let env = TestEnv::new();
        let server = Server::echo(env.port(9001));
        let name = if version == ProxyVersion::V1 { "v1" } else { "v2" };
        let config = Config::new(&env).backend(&format!("send_proxy = \"{name}\""));
        let balancer = Balancer::start(&env, &config.server("a", server.address));
        let client = connect(env.frontend());
        let (peer, tlvs) = (client.local_addr().unwrap(), ProxyTlvs::default());
        read(&client, &header(version, Some(peer), Some(env.frontend()), &tlvs));
        assert_eq!(exchange(&client, b"later"), b"later");
        shut_down(&client);
        assert_eq!(read_to_end(&client), (Vec::new(), Ending::Orderly));
        let metrics = balancer.assert_no_leaks();
        let bytes = |direction| metrics.value("evenkeel_bytes_total", &[("direction", direction)]);
        assert_eq!(bytes("in"), 5.0, "the header is not counted");
        assert!(bytes("out") > 5.0, "the server has sent it back");
    }
}

#[test]
fn after_failed_attempts_the_next_server_gets_the_whole_header_once() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9003));
    let config = Config::new(&env).backend("send_proxy = \"v1\"\nbalance = \"first\"");
    let config = config.server("dead", env.port(9001)).server("gone", env.port(9002));
    let balancer = Balancer::start(&env, &config.server("good", server.address));
    for _ in 0..10 {
        let client = sending(&env, b"x");
        let expected = line(client.local_addr().unwrap(), env.frontend()) + "x";
        read(&client, expected.as_bytes());
        shut_down(&client);
        assert_eq!(read_to_end(&client), (Vec::new(), Ending::Orderly));
    }
    let metrics = balancer.assert_no_leaks();
    assert_eq!(metrics.sum("evenkeel_server_retries_total", &[]), 20.0);
}

#[test]
fn a_chain_of_two_balancers_carries_the_address_through() {
    for version in ["v1", "v2"] {
        let front = TestEnv::new();
        let back = front.another();
        let server = Server::start(back.port(9001), |stream| echo(&stream));
        let config = Config::new(&back).frontend(REQUIRED).backend("send_proxy = \"v1\"");
        let behind = Balancer::start(&back, &config.server("a", server.address));
        let config = Config::new(&front).backend(&format!("send_proxy = \"{version}\""));
        let before = Balancer::start(&front, &config.server("a", back.frontend()));
        let client = connect(front.frontend());
        let expected = line(client.local_addr().unwrap(), front.frontend());
        read(&client, expected.as_bytes());
        assert_eq!(exchange(&client, &[7; 100_000]), [7; 100_000]);
        shut_down(&client);
        assert_eq!(read_to_end(&client), (Vec::new(), Ending::Orderly));
        before.assert_no_leaks();
        behind.assert_no_leaks();
    }
}

#[test]
fn a_reload_while_a_header_is_read_leads_to_the_new_servers() {
    let env = TestEnv::new();
    let old = Server::naming("old", env.port(9001));
    let new = Server::naming("new", env.port(9002));
    let config = Config::new(&env).frontend(REQUIRED).frontend("preface_timeout = \"1m\"");
    let balancer = Balancer::start(&env, &config.clone().server("old", old.address));
    let [_, header] = headers();
    let mut client = sending(&env, &header[..9]);
    until("the session is listed", || balancer.control_ok(&["sessions"]).contains("preface"));
    balancer.reload(&config.server("new", new.address));
    client.write_all(&header[9..]).unwrap();
    assert_eq!(read_to_end(&client), (b"new".to_vec(), Ending::Orderly));
    drop(client);
    balancer.assert_no_leaks();
    assert_eq!(old.accepted(), 0);
}

#[test]
fn a_session_can_be_killed_while_its_header_is_read() {
    let env = TestEnv::new();
    let (config, _server) = seeing(&env);
    let balancer = Balancer::start(&env, &config.frontend("preface_timeout = \"1m\""));
    let client = sending(&env, b"PROXY ");
    let id = || {
        let list = balancer.control_ok(&["sessions", "--json"]);
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        let sessions = list["sessions"].as_array().or_else(|| list.as_array()).cloned();
        let first = sessions.unwrap_or_default().into_iter().next();
        first.and_then(|session| session["id"].as_str().map(str::to_owned))
    };
    until("the session is listed", || id().is_some());
    assert!(holds_for(Duration::from_millis(50), || id().is_some()));
    balancer.control_ok(&["kill", &id().unwrap()]);
    assert_eq!(read_to_end(&client), (Vec::new(), Ending::Reset));
    balancer.session_ended("KD killed");
    balancer.assert_no_leaks();
}

#[test]
fn clients_that_come_together_are_told_apart() {
    let env = TestEnv::new();
    let (config, _server) = seeing(&env);
    let balancer = Balancer::start(&env, &config.workers(2));
    let clients: Vec<_> = (1..200_u16)
        .map(|port| {
            let source = format!("192.0.2.{}:{port}", port % 250);
            let bytes = [header_from(&source).as_slice(), b"x"].concat();
            (source, sending(&env, &bytes))
        })
        .collect();
    for (source, client) in &clients {
        let expected = line(source.parse().unwrap(), DESTINATION.parse().unwrap()) + "x";
        read(client, expected.as_bytes());
    }
    drop(clients);
    assert!(is_served(&env, &[headers()[0].as_slice(), b"x"].concat()));
    balancer.assert_no_leaks();
}
