//! Probes that begin with a PROXY header: `health.send_proxy`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;

use crate::common::{Balancer, Config, Server, TestEnv};
use crate::tls_server::Identity;

/// A header of version 2 by which a proxy says that it connects by itself.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// Reads so many bytes at most.
fn read(mut stream: &TcpStream, most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    drop(Read::by_ref(&mut stream).take(most as u64).read_to_end(&mut bytes));
    bytes
}

/// A configuration whose probes have the header of that version.
fn probing(env: &TestEnv, version: &str, health: &str) -> Config {
    let health = format!("interval = \"100ms\"\nsend_proxy = true\n{health}");
    Config::new(env).backend(&format!("send_proxy = \"{version}\"")).health(&health)
}

#[test]
fn version_1_has_the_addresses_of_the_probe() {
    let env = TestEnv::new();
    let (sender, received) = mpsc::channel();
    let server = Server::start(env.port(9001), move |mut stream| {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            match read(&stream, 1)[..] {
                [byte] => request.push(byte),
                _ => return,
            }
        }
        drop(sender.send((stream.peer_addr().unwrap(), request)));
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n"));
    });
    let config = probing(&env, "v1", "check = \"http\"").server("a", server.address);
    let balancer = Balancer::start(&env, &config);
    let (peer, request) = received.recv().unwrap();
    let request = String::from_utf8(request).unwrap();
    let (ip, port) = (peer.ip(), peer.port());
    let header = format!("PROXY TCP4 {ip} {} {port} 9001\r\nGET / HTTP/1.1\r\n", env.port(1).ip());
    assert!(request.starts_with(&header), "{request}");
    balancer.metrics_until("probes have passed", |metrics| {
        metrics.sum("evenkeel_probes_total", &[("result", "passed")]) >= 2.0
    });
}

#[test]
fn version_2_says_that_the_proxy_itself_connects() {
    for (port, check) in [(9001, "tcp"), (9002, "exchange")] {
        let env = TestEnv::new();
        let (sender, received) = mpsc::channel();
        let server = Server::start(env.port(port), move |mut stream| {
            drop(sender.send(read(&stream, LOCAL.len())));
            drop(stream.write_all(b"220 ready\r\n"));
            read(&stream, 1);
        });
        let exchange = if check == "exchange" { "exchange = { expect = \"220 \" }" } else { "" };
        let health = format!("check = \"{check}\"\n{exchange}");
        let config = probing(&env, "v2", &health).server("a", server.address);
        let balancer = Balancer::start(&env, &config);
        assert_eq!(received.recv().unwrap(), LOCAL);
        balancer.metrics_until("probes have passed", |metrics| {
            metrics.sum("evenkeel_probes_total", &[("result", "passed")]) >= 2.0
        });
        assert!(balancer.metrics().up("a"));
    }
}

#[test]
fn the_header_comes_before_tls() {
    let env = TestEnv::new();
    let identity = Identity::self_signed(&["web.test"]);
    let (sender, received) = mpsc::channel();
    let server = identity.serve(env.port(9001), move |mut stream| {
        drop(sender.send(read(&stream.sock, LOCAL.len())));
        drop(stream.write_all(b"220 ready\r\n"));
        drop(stream.read(&mut [0; 1]));
    });
    let health = "check = \"exchange\"\ntls = {}\nexchange = { expect = \"220 \" }";
    let config = probing(&env, "v2", health).server("a", server.address);
    let balancer = Balancer::start(&env, &config);
    assert_eq!(received.recv().unwrap(), LOCAL);
    balancer.metrics_until("probes have passed", |metrics| {
        metrics.sum("evenkeel_probes_total", &[("result", "passed")]) >= 2.0
    });
}
