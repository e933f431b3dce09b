//! The backend by what a TLS client asks for: `sni` and `alpn`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use evenkeel::shared::proxy_header::{ProxyTlvs, ProxyVersion, header};

use crate::common::client::{
    Ending, connect, connect_and_read, fetch_with, read_to_end, reset, shut_down,
};
use crate::common::server::echo;
use crate::common::wait::{pause, until};
use crate::common::{Balancer, Config, Server, TestEnv};

fn with_length(bytes: &[u8]) -> Vec<u8> {
    [u16::try_from(bytes.len()).unwrap().to_be_bytes().as_slice(), bytes].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [kind.to_be_bytes().to_vec(), with_length(content)].concat()
}

/// A `ClientHello` with a server name and protocols, and so many bytes of padding before them.
fn message(name: &str, protocols: &[&str], padding: usize) -> Vec<u8> {
    let mut extensions = Vec::new();
    if padding > 0 {
        extensions.extend(extension(21, &vec![0; padding]));
    }
    if !name.is_empty() {
        let host = [vec![0], with_length(name.as_bytes())].concat();
        extensions.extend(extension(0, &with_length(&host)));
    }
    if !protocols.is_empty() {
        let one = |name: &&str| {
            [[u8::try_from(name.len()).unwrap()].as_slice(), name.as_bytes()].concat()
        };
        let list: Vec<u8> = protocols.iter().flat_map(one).collect();
        extensions.extend(extension(16, &with_length(&list)));
    }
    let body = [
        [3, 3].as_slice(),
        &[7; 32],
        &[0],
        &with_length(&[0x13, 1]),
        &[1, 0],
        &with_length(&extensions),
    ]
    .concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [[1].as_slice(), &length[1..], &body].concat()
}

/// A handshake message in TLS records of this length.
fn records(message: &[u8], length: usize) -> Vec<u8> {
    let record = |part: &[u8]| [[22, 3, 1].to_vec(), with_length(part)].concat();
    message.chunks(length).flat_map(record).collect()
}

fn hello(name: &str, protocols: &[&str]) -> Vec<u8> {
    records(&message(name, protocols, 0), 1 << 14)
}

/// A server that says its name, then sends back what it gets.
fn server(env: &TestEnv, name: &'static str, port: u16) -> Server {
    Server::start(env.port(port), move |mut stream| {
        drop(stream.write_all(name.as_bytes()));
        echo(&stream);
    })
}

/// A backend with one server.
fn backend(name: &str, server: &Server) -> String {
    format!(
        "[backend.{name}.health]\ncheck = \"off\"\n\
         [[backend.{name}.server]]\nname = \"{name}\"\naddress = \"{}\"\n",
        server.address
    )
}

/// The backends `web` (which says "w"), `a` and `b`, with these lines in the frontend.
fn three(env: &TestEnv, frontend: &str) -> (Config, [Server; 3]) {
    let servers = [server(env, "w", 9001), server(env, "a", 9002), server(env, "b", 9003)];
    let config = Config::new(env).frontend(frontend).server("web", servers[0].address);
    let more = backend("a", &servers[1]) + &backend("b", &servers[2]);
    (config.more(&more), servers)
}

/// The text without a backend for what matches nothing.
fn without_backend(config: &Config) -> String {
    config.text().replace("\nbackend = \"web\"\n", "\n")
}

/// Which server gets this, and that it gets it unchanged, with what follows.
fn served_by(mut client: &TcpStream, bytes: &[u8]) -> String {
    let mut name = [0];
    client.read_exact(&mut name).unwrap();
    client.write_all(b"later").unwrap();
    shut_down(client);
    let (found, ending) = read_to_end(client);
    assert_eq!(ending, Ending::Orderly);
    assert!(found == [bytes, b"later"].concat(), "the bytes are not those that were sent");
    String::from_utf8(name.to_vec()).unwrap()
}

fn sending(env: &TestEnv, bytes: &[u8]) -> TcpStream {
    let mut client = connect(env.frontend());
    client.write_all(bytes).unwrap();
    client
}

#[test]
fn the_name_decides_then_the_protocol_then_the_default() {
    let env = TestEnv::new();
    let lines = "sni = { \"www.a.test\" = \"a\", \"*.a.test\" = \"b\", \"*.test\" = \"web\" }\n\
                 alpn = { h2 = \"a\", \"acme-tls/1\" = \"b\" }";
    let (config, _servers) = three(&env, lines);
    let balancer = Balancer::start(&env, &config);
    for (name, protocols, expected) in [
        ("www.a.test", ["h2", "acme-tls/1"].as_slice(), "a"),
        ("WWW.A.Test.", &[], "a"),
        ("x.a.test", &["h2"], "b"),
        ("x.www.a.test", &[], "b"),
        ("a.test", &["h2"], "w"),
        ("b.test", &[], "w"),
        ("example.org", &["h2", "http/1.1"], "a"),
        ("example.org", &["http/1.1", "acme-tls/1", "h2"], "b"),
        ("example.org", &["http/1.1"], "w"),
        ("", &["acme-tls/1"], "b"),
        ("", &[], "w"),
    ] {
        let bytes = hello(name, protocols);
        let found = served_by(&sending(&env, &bytes), &bytes);
        assert_eq!(found, expected, "{name} {protocols:?}");
    }
    balancer.assert_no_leaks();
}

#[test]
fn a_hello_is_read_wherever_segments_and_records_end() {
    let env = TestEnv::new();
    let (config, _servers) = three(&env, "sni = { \"*.a.test\" = \"a\" }");
    let balancer = Balancer::start(&env, &config);
    let message = message("www.a.test", &["h2"], 0);
    for length in [1, 3, 4, 30, 1 << 14] {
        let bytes = records(&message, length);
        for end in (0..bytes.len()).step_by(if length == 1 { 41 } else { 7 }) {
            let mut client = sending(&env, &bytes[..end]);
            // As the peer of a slow line.
            pause(Duration::from_millis(1));
            client.write_all(&bytes[end..]).unwrap();
            assert_eq!(served_by(&client, &bytes), "a", "{length} {end}");
        }
        let mut client = connect(env.frontend());
        for byte in &bytes {
            client.write_all(&[*byte]).unwrap();
        }
        assert_eq!(served_by(&client, &bytes), "a", "{length}");
    }
    balancer.assert_no_leaks();
}

#[test]
fn a_hello_of_nearly_16_kib_is_read_and_a_longer_one_ends_the_session() {
    let env = TestEnv::new();
    let (config, _servers) = three(&env, "sni = { \"www.a.test\" = \"a\" }");
    let balancer = Balancer::start(&env, &config);
    for length in [200, 4096, 1 << 14] {
        let bytes = records(&message("www.a.test", &[], 16_200), length);
        assert_eq!(served_by(&sending(&env, &bytes), &bytes), "a", "{length}");
    }
    for length in [1, 200, 4096] {
        // The whole of it may not be taken before the reset.
        let mut client = connect(env.frontend());
        let bytes = records(&message("www.a.test", &[], 16_400), length);
        drop(client.write_all(&bytes));
        assert_eq!(read_to_end(&client).1, Ending::Reset);
    }
    balancer.session_ended("PR bad_preface");
    let metrics = balancer.assert_no_leaks();
    assert_eq!(metrics.closed("bad_preface"), 3.0);
}

#[test]
fn what_is_not_tls_goes_to_the_default_at_once() {
    let env = TestEnv::new();
    let (config, _servers) =
        three(&env, "sni = { \"www.a.test\" = \"a\" }\npreface_timeout = \"1h\"");
    let balancer = Balancer::start(&env, &config);
    for bytes in [b"G".as_slice(), b"GET / HTTP/1.1\r\n\r\n", b"\x80\x2e", b"\x16\x02", &[0; 3000]]
    {
        assert_eq!(served_by(&sending(&env, bytes), bytes), "w");
    }
    balancer.assert_no_leaks();
}

#[test]
fn what_matches_nothing_is_reset_if_there_is_no_default() {
    let env = TestEnv::new();
    let (config, servers) = three(&env, "sni = { \"www.a.test\" = \"a\" }\nalpn = { h2 = \"b\" }");
    let balancer = Balancer::start_text(&env, &without_backend(&config));
    for bytes in [hello("b.test", &[]), hello("", &["http/1.1"]), b"GET / HTTP/1.1\r\n".to_vec()] {
        let client = sending(&env, &bytes);
        assert_eq!(read_to_end(&client), (Vec::new(), Ending::Reset));
    }
    let bytes = hello("www.a.test", &[]);
    assert_eq!(served_by(&sending(&env, &bytes), &bytes), "a");
    let bytes = hello("", &["h2"]);
    assert_eq!(served_by(&sending(&env, &bytes), &bytes), "b");
    let record = balancer.session_ended("PR refused");
    assert!(record.contains(" web -/<NOSRV> -1/"), "{record}");
    let status = balancer.control_ok(&["status"]);
    assert!(status.contains("a, b"), "{status}");
    let metrics = balancer.assert_no_leaks();
    assert_eq!((metrics.closed("refused"), servers[0].accepted()), (3.0, 0));
    assert_eq!(metrics.closed("no_server"), 0.0);
}

#[test]
fn a_hello_that_does_not_come_or_stops_half_way_ends_with_its_timeout() {
    let env = TestEnv::new();
    let lines = "sni = { \"www.a.test\" = \"a\" }\npreface_timeout = \"2s\"";
    let (config, servers) = three(&env, lines);
    let balancer = Balancer::start(&env, &config);
    assert_eq!(connect_and_read(env.frontend()), (Vec::new(), Ending::Reset));
    let bytes = hello("www.a.test", &[]);
    let ends = [1, 2, 5, 6, 20, bytes.len() - 1];
    for (client, end) in ends.map(|end| (sending(&env, &bytes[..end]), end)) {
        assert_eq!(read_to_end(&client), (Vec::new(), Ending::Reset), "{end}");
    }
    balancer.session_ended("cR preface_timeout");
    let metrics = balancer.assert_no_leaks();
    assert_eq!(metrics.closed("preface_timeout"), 7.0);
    assert!(servers.iter().all(|server| server.accepted() == 0));
}

#[test]
fn a_client_that_goes_in_the_middle_of_its_hello_reaches_no_server() {
    let env = TestEnv::new();
    let lines = "sni = { \"www.a.test\" = \"a\" }\npreface_timeout = \"1m\"";
    let (config, servers) = three(&env, lines);
    let balancer = Balancer::start(&env, &config);
    let bytes = hello("www.a.test", &[]);
    for end in [0, 1, 5, 20, bytes.len() - 1] {
        let client = sending(&env, &bytes[..end]);
        shut_down(&client);
        assert_eq!(read_to_end(&client), (Vec::new(), Ending::Reset), "{end}");
        reset(sending(&env, &bytes[..end]));
    }
    balancer.session_ended("CR client_left");
    balancer
        .metrics_until("every client has left", |metrics| metrics.closed("client_left") == 10.0);
    balancer.assert_no_leaks();
    assert!(servers.iter().all(|server| server.accepted() == 0));
}

#[test]
fn what_begins_as_a_hello_and_is_none_ends_the_session() {
    let env = TestEnv::new();
    let (config, servers) = three(&env, "sni = { \"www.a.test\" = \"a\" }");
    let balancer = Balancer::start(&env, &config);
    let mut broken = hello("www.a.test", &[]);
    broken[50] ^= 0xff;
    let bad = [broken.as_slice(), b"\x16\x03\x01\x00\x00", b"\x16\x03\x01\x00\x04\x01\x00\x00\x00"];
    for bytes in bad {
        let client = sending(&env, bytes);
        assert_eq!(read_to_end(&client), (Vec::new(), Ending::Reset));
    }
    let metrics = balancer.assert_no_leaks();
    assert_eq!(metrics.closed("bad_preface"), 3.0);
    assert!(servers.iter().all(|server| server.accepted() == 0));
}

#[test]
fn the_routed_backend_has_its_own_retries_queue_and_proxy_header() {
    let env = TestEnv::new();
    let echoing = Server::echo(env.port(9005));
    let lines = "sni = { \"www.r.test\" = \"r\", \"www.q.test\" = \"q\" }";
    let (config, _servers) = three(&env, lines);
    let more = format!(
        "[backend.r]\nretries = 3\nbalance = \"first\"\nsend_proxy = \"v1\"\n\
         health.check = \"off\"\n\
         server = [{{ name = \"d\", address = \"{}\" }}, {{ name = \"e\", address = \"{}\" }},\n\
         {{ name = \"f\", address = \"{}\" }}, {{ name = \"g\", address = \"{}\" }}]\n\
         [backend.q]\nqueue_timeout = \"200ms\"\nhealth.check = \"off\"\n\
         server = [{{ name = \"q\", address = \"{}\", sessions_max = 1 }}]\n",
        env.port(9011),
        env.port(9012),
        env.port(9013),
        echoing.address,
        echoing.address,
    );
    let balancer = Balancer::start(&env, &config.backend("retries = 0\nqueue_max = 0").more(&more));
    let bytes = hello("www.r.test", &[]);
    let mut client = sending(&env, &bytes);
    let (peer, tlvs) = (client.local_addr().unwrap(), ProxyTlvs::default());
    let line = header(ProxyVersion::V1, Some(peer), Some(env.frontend()), &tlvs);
    let mut found = vec![0; line.len() + bytes.len()];
    client.read_exact(&mut found).unwrap();
    assert!(found == [line, bytes].concat());
    drop(client);
    let bytes = hello("www.q.test", &[]);
    let first = sending(&env, &bytes);
    (&first).read_exact(&mut vec![0; bytes.len()]).unwrap();
    let second = sending(&env, &bytes);
    assert_eq!(read_to_end(&second), (Vec::new(), Ending::Reset));
    balancer.session_ended("sQ queue_timeout");
    drop(first);
    balancer.assert_no_leaks();
}

#[test]
fn a_proxy_header_comes_before_the_hello() {
    let env = TestEnv::new();
    let lines = "sni = { \"www.a.test\" = \"a\" }\nproxy_protocol = \"required\"\n\
                 proxy_protocol_from = [\"127.0.0.0/8\"]";
    let (config, _servers) = three(&env, lines);
    let balancer = Balancer::start(&env, &config);
    let address = |text: &str| text.parse().ok();
    let (source, destination) = (address("192.0.2.7:4711"), address("198.51.100.1:443"));
    let bytes = hello("www.a.test", &[]);
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let header = header(version, source, destination, &ProxyTlvs::default());
        let whole = [header.as_slice(), &bytes].concat();
        for end in [0, 1, 14, header.len() - 1, header.len(), header.len() + 7, whole.len()] {
            let mut client = sending(&env, &whole[..end]);
            // As the peer of a slow line.
            pause(Duration::from_millis(1));
            client.write_all(&whole[end..]).unwrap();
            assert_eq!(served_by(&client, &bytes), "a", "{version:?} {end}");
        }
    }
    let record = balancer.session_ended("-- done");
    assert!(record.contains("192.0.2.7:4711"), "{record}");
    balancer.assert_no_leaks();
}

#[test]
fn a_reload_while_a_hello_is_read_leads_by_the_new_routes() {
    let env = TestEnv::new();
    let (config, _servers) = three(&env, "preface_timeout = \"1m\"");
    let route = |backend: &str| format!("sni = {{ \"www.a.test\" = \"{backend}\" }}");
    let balancer = Balancer::start(&env, &config.clone().frontend(&route("a")));
    let bytes = hello("www.a.test", &[]);
    let mut client = sending(&env, &bytes[..9]);
    until("the session is listed", || balancer.control_ok(&["sessions"]).contains("preface"));
    balancer.reload(&config.frontend(&route("b")));
    client.write_all(&bytes[9..]).unwrap();
    assert_eq!(served_by(&client, &bytes), "b");
    balancer.assert_no_leaks();
}

#[test]
fn a_client_of_a_frontend_without_routes_need_not_speak_first() {
    let env = TestEnv::new();
    let (config, servers) = three(&env, "");
    let inner = format!(
        "[frontend.tls]\nbind = [\"{}\"]\nsni = {{ \"www.a.test\" = \"a\" }}\n",
        env.port(8443)
    );
    let balancer = Balancer::start(&env, &config.more(&inner));
    let client = connect(env.frontend());
    assert_eq!((&client).read(&mut [0]).unwrap(), 1);
    drop(client);
    assert!(fetch_with(env.port(8443), b"GET / HTTP/1.1\r\n\r\n").is_err());
    assert_eq!(servers[1].accepted(), 0);
    balancer.assert_no_leaks();
}
