//! The `stream` block of nginx and evenkeel.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::case::{Case, Original};
use super::clients::{
    answering, client_address, client_hello, count, name_at, name_from, names_at, naming, open,
};
use crate::common::TestEnv;
use crate::common::client::{connect, connect_and_read, read_to_end};
use crate::common::wait::until;

#[track_caller]
fn same<T: PartialEq + std::fmt::Debug>(case: Case, scene: impl Fn(&TestEnv) -> T) {
    case.run(Original::Nginx, scene);
}

#[test]
fn an_upstream_takes_turns_by_weight() {
    let config = "
upstream u { server {ip}:9001 weight=3; server {ip}:9002; server {ip}:9003 down; }
server { listen {ip}:8001; proxy_pass u; }
";
    let case = Case { name: "an_upstream_takes_turns_by_weight", config };
    same(case, |env| {
        let _servers = ["a", "b", "c"].map(|name| naming(env, name));
        let names = names_at(env.port(8001), 12);
        ["a", "b", "c"].map(|name| count(&names, name))
    });
}

#[test]
fn least_conn_levels_the_open_sessions() {
    let config = "
upstream u { least_conn; server {ip}:9001 max_fails=0; server {ip}:9002 max_fails=0; }
server { listen {ip}:8001; proxy_pass u; }
";
    let case = Case { name: "least_conn_levels_the_open_sessions", config };
    same(case, |env| {
        let _servers = ["a", "b"].map(|name| answering(env, name));
        let sessions: Vec<_> = (0..8).map(|_| open(env.port(8001))).collect();
        let names: Vec<String> = sessions.iter().map(|session| session.name.clone()).collect();
        ["a", "b"].map(|name| count(&names, name))
    });
}

#[test]
fn a_server_that_refuses_is_passed_over() {
    let config = "
upstream u { server {ip}:9001 max_fails=0; server {ip}:9002 max_fails=0; }
server { listen {ip}:8001; proxy_pass u; }
server { listen {ip}:8002; proxy_pass {ip}:9001; }
";
    let case = Case { name: "a_server_that_refuses_is_passed_over", config };
    same(case, |env| {
        let _server = naming(env, "b");
        (names_at(env.port(8001), 6), name_at(env.port(8002)))
    });
}

#[test]
fn allow_and_deny_refuse_the_same_clients() {
    let config = "
server {
    listen {ip}:8001;
    proxy_pass {ip}:9001;
    deny 127.1.1.9;
    allow 127.1.1.0/28;
    deny all;
}
";
    let case = Case { name: "allow_and_deny_refuse_the_same_clients", config };
    same(case, |env| {
        let _server = naming(env, "a");
        [1, 9, 15, 16, 200].map(|number| name_from(client_address(number), env.port(8001)))
    });
}

#[test]
fn a_client_is_limited_to_its_connections() {
    let config = "
limit_conn_zone $binary_remote_addr zone=clients:1m;
server {
    listen {ip}:8001;
    proxy_pass {ip}:9001;
    limit_conn clients 2;
}
";
    let case = Case { name: "a_client_is_limited_to_its_connections", config };
    same(case, |env| {
        let _server = answering(env, "a");
        let place = || {
            let mut stream = TcpStream::connect(env.port(8001)).ok()?;
            let answers = stream.write_all(b"?").is_ok()
                && stream.read(&mut [0; 8]).is_ok_and(|count| count > 0);
            answers.then_some(stream)
        };
        // The connection that asked whether the balancer is ready may still be counted.
        let mut held = Vec::new();
        until("two places are taken", || {
            held.extend(place());
            held.len() == 2
        });
        connect_and_read(env.port(8001)).0
    });
}

#[test]
fn an_idle_session_ends_after_proxy_timeout() {
    let config = "
server { listen {ip}:8001; proxy_pass {ip}:9001; proxy_timeout 3s; }
";
    let case = Case { name: "an_idle_session_ends_after_proxy_timeout", config };
    same(case, |env| {
        let _server = answering(env, "a");
        let session = open(env.port(8001));
        (session.name, read_to_end(&session.stream).0)
    });
}

#[test]
fn a_map_of_server_names_chooses_upstreams() {
    let config = "
map $ssl_preread_server_name $target {
    hostnames;
    one.example {ip}:9001;
    *.two.example {ip}:9002;
    default {ip}:9003;
}
server { listen {ip}:8001; ssl_preread on; proxy_pass $target; }
";
    let case = Case { name: "a_map_of_server_names_chooses_upstreams", config };
    same(case, |env| {
        let _servers = ["a", "b", "c"].map(|name| answering(env, name));
        ["one.example", "x.two.example", "other.example"].map(|name| {
            let mut stream = connect(env.port(8001));
            stream.write_all(&client_hello(name)).unwrap();
            let mut answer = [0; 1];
            stream.read_exact(&mut answer).unwrap();
            answer
        })
    });
}
