//! HAProxy and evenkeel.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use super::case::{Case, Original, other_ip};
use super::clients::{
    answering, answers, ask, client_address, client_hello, count, name_at, name_from,
    name_of_answer, names_at, naming, open, port_of, with_role,
};
use crate::common::client::{connect, connect_and_read, fetch_with, read_to_end, shut_down};
use crate::common::wait::{holds_for, until};
use crate::common::{Server, TestEnv};

#[track_caller]
fn same<T: PartialEq + std::fmt::Debug>(case: Case, scene: impl Fn(&TestEnv) -> T) {
    case.run(Original::Haproxy, scene);
}

#[test]
fn servers_take_turns_by_weight() {
    let config = "
listen x
    bind {ip}:8001
    balance roundrobin
    server a {ip}:9001 weight 30
    server b {ip}:9002 weight 10
    server c {ip}:9003 weight 0
listen y
    bind {ip}:8002
    server a {ip}:9001
    server b {ip}:9002
";
    let case = Case { name: "servers_take_turns_by_weight", config };
    same(case, |env| {
        let _servers = ["a", "b", "c"].map(|name| naming(env, name));
        let weighted = names_at(env.port(8001), 12);
        let equal = names_at(env.port(8002), 8);
        let alternate = equal.windows(2).all(|pair| pair[0] != pair[1]);
        (["a", "b", "c"].map(|name| count(&weighted, name)), alternate)
    });
}

#[test]
fn a_client_that_no_server_can_serve_gets_nothing() {
    let config = "
defaults
    mode tcp
    timeout connect 300ms
    timeout client 5s
    timeout server 5s
    retries 1
listen closed
    bind {ip}:8001
    server a {ip}:9001
listen down
    bind {ip}:8002
    server a {ip}:9001 check inter 100ms fall 1
";
    let case = Case { name: "a_client_that_no_server_can_serve_gets_nothing", config };
    same(case, |env| [8001, 8002].map(|port| name_at(env.port(port))));
}

#[test]
fn rules_on_client_addresses_refuse_the_same_clients() {
    let config = "
frontend x
    bind {ip}:8001
    acl office src 127.1.1.0/28
    acl guest src 127.1.1.9
    tcp-request connection reject if guest
    tcp-request content reject if !office
    default_backend b
backend b
    server a {ip}:9001
";
    let case = Case { name: "rules_on_client_addresses_refuse_the_same_clients", config };
    same(case, |env| {
        let _server = naming(env, "a");
        [1, 9, 15, 16, 200].map(|number| name_from(client_address(number), env.port(8001)))
    });
}

#[test]
fn a_frontend_at_its_limit_lets_clients_wait() {
    let config = "
listen x
    bind {ip}:8001
    maxconn 2
    server a {ip}:9001
";
    let case = Case { name: "a_frontend_at_its_limit_lets_clients_wait", config };
    same(case, |env| {
        let _server = answering(env, "a");
        let (first, second) = (open(env.port(8001)), open(env.port(8001)));
        let mut third = connect(env.port(8001));
        third.write_all(b"?").unwrap();
        third.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let waits = third.read(&mut [0; 8]).is_err();
        drop(first);
        third.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let is_served = third.read(&mut [0; 8]).is_ok_and(|count| count > 0);
        (waits, is_served, ask(&second.stream))
    });
}

#[test]
fn a_full_server_queues_clients_until_the_queue_timeout() {
    let config = "
listen x
    bind {ip}:8001
    timeout queue 15s
    server a {ip}:9001 maxconn 1
listen y
    bind {ip}:8002
    timeout queue 200ms
    server a {ip}:9002 maxconn 1
";
    let case = Case { name: "a_full_server_queues_clients_until_the_queue_timeout", config };
    same(case, |env| {
        let _servers = (answering(env, "a"), answering(env, "b"));
        let first = open(env.port(8001));
        let mut waiting = connect(env.port(8001));
        waiting.write_all(b"?").unwrap();
        let waits = holds_for(Duration::from_millis(200), || {
            waiting.set_nonblocking(true).unwrap();
            let is_silent = waiting.read(&mut [0; 8]).is_err();
            waiting.set_nonblocking(false).unwrap();
            is_silent
        });
        drop(first);
        let is_served = waiting.read(&mut [0; 8]).is_ok_and(|count| count > 0);
        let _busy = open(env.port(8002));
        let (bytes, _) = connect_and_read(env.port(8002));
        (waits, is_served, bytes)
    });
}

#[test]
fn leastconn_levels_the_open_sessions() {
    let config = "
listen x
    bind {ip}:8001
    balance leastconn
    server a {ip}:9001
    server b {ip}:9002
    server c {ip}:9003
";
    let case = Case { name: "leastconn_levels_the_open_sessions", config };
    same(case, |env| {
        let _servers = ["a", "b", "c"].map(|name| answering(env, name));
        let sessions: Vec<_> = (0..9).map(|_| open(env.port(8001))).collect();
        let names: Vec<String> = sessions.iter().map(|session| session.name.clone()).collect();
        ["a", "b", "c"].map(|name| count(&names, name))
    });
}

#[test]
fn a_client_keeps_its_server_by_source_address() {
    let config = "
listen x
    bind {ip}:8001
    balance source
    server a {ip}:9001
    server b {ip}:9002
    server c {ip}:9003
listen y
    bind {ip}:8002
    stick-table type ip size 1k expire 1m
    stick on src
    server a {ip}:9001
    server b {ip}:9002
    server c {ip}:9003
";
    let case = Case { name: "a_client_keeps_its_server_by_source_address", config };
    same(case, |env| {
        let _servers = ["a", "b", "c"].map(|name| naming(env, name));
        [8001, 8002].map(|port| {
            let mut used: Vec<String> = Vec::new();
            let sticks = (1..=20).all(|client| {
                let name = || name_from(client_address(client), env.port(port));
                let first = name();
                used.push(first.clone());
                !first.is_empty() && (0..4).all(|_| name() == first)
            });
            used.sort();
            used.dedup();
            (sticks, used.len() > 1)
        })
    });
}

#[test]
fn a_backup_serves_while_the_others_are_down() {
    let config = "
listen x
    bind {ip}:8001
    default-server inter 100ms rise 1 fall 1
    server a {ip}:9001 check
    server b {ip}:9002 check backup
    server c {ip}:9003 check backup
";
    let case = Case { name: "a_backup_serves_while_the_others_are_down", config };
    same(case, |env| {
        let mut a = naming(env, "a");
        let mut others = ["b", "c"].map(|name| naming(env, name));
        let front = env.port(8001);
        let reaches = |name: &str| until(name, || names_at(front, 4) == [name; 4]);
        reaches("a");
        a.kill();
        reaches("b");
        others[0].kill();
        reaches("c");
        let _a = naming(env, "a");
        reaches("a");
    });
}

#[test]
fn a_server_whose_check_fails_gets_no_client() {
    let config = "
backend by-status
    option httpchk GET /health
    http-check expect status 200
    default-server inter 100ms rise 1 fall 1
    server a {ip}:9001 check
    server b {ip}:9002 check
frontend x
    bind {ip}:8001
    default_backend by-status
";
    let case = Case { name: "a_server_whose_check_fails_gets_no_client", config };
    same(case, |env| {
        let answer = |status: &'static str, name: &'static str| {
            Server::start(env.port(port_of(name)), move |mut stream| {
                drop(stream.read(&mut [0; 4096]));
                drop(write!(
                    stream,
                    "HTTP/1.1 {status} X\r\nContent-Length: 1\r\nConnection: close\r\n\r\n{name}"
                ));
                drop(stream.shutdown(Shutdown::Write));
            })
        };
        let _servers = (answer("200", "a"), answer("503", "b"));
        let get = || {
            let answer = fetch_with(env.port(8001), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            answer.unwrap_or_default().chars().last()
        };
        until("only a is up", || (0..6).all(|_| get() == Some('a')));
    });
}

#[test]
fn the_sessions_of_a_server_end_when_it_is_marked_down() {
    let config = "
listen x
    bind {ip}:8001
    default-server inter 100ms rise 1 fall 1 on-marked-down shutdown-sessions
    server a {ip}:9001 check
";
    let case = Case { name: "the_sessions_of_a_server_end_when_it_is_marked_down", config };
    same(case, |env| {
        let mut server = answering(env, "a");
        until("the server is up", || answers(env.port(8001)));
        let session = open(env.port(8001));
        server.kill();
        let (bytes, _) = read_to_end(&session.stream);
        (session.name, bytes)
    });
}

#[test]
fn an_idle_session_ends() {
    let config = "
listen short
    bind {ip}:8001
    timeout client 3s
    timeout server 3s
    server a {ip}:9001
listen tunnel
    bind {ip}:8002
    timeout client 1s
    timeout server 1s
    timeout tunnel 20s
    server a {ip}:9001
";
    let case = Case { name: "an_idle_session_ends", config };
    same(case, |env| {
        let _server = answering(env, "a");
        let short = open(env.port(8001));
        let long = open(env.port(8002));
        let (bytes, _) = read_to_end(&short.stream);
        // By now, the other one has been silent for three times its other timeouts.
        (short.name, bytes, ask(&long.stream))
    });
}

#[test]
fn half_a_connection_goes_on_until_its_timeout() {
    let config = "
listen x
    bind {ip}:8001
    timeout client-fin 20s
    timeout server-fin 20s
    server a {ip}:9001
";
    let case = Case { name: "half_a_connection_goes_on_until_its_timeout", config };
    same(case, |env| {
        // It answers after the client has shut down.
        let _server = Server::start(env.port(9001), |mut stream| {
            let (bytes, _) = read_to_end(&stream);
            drop(stream.write_all(&bytes));
        });
        let mut client = connect(env.port(8001));
        client.write_all(b"request").unwrap();
        shut_down(&client);
        read_to_end(&client).0
    });
}

#[test]
fn a_client_is_limited_to_its_connections() {
    let config = "
frontend x
    bind {ip}:8001
    stick-table type ip size 1k expire 10s store conn_cur
    tcp-request connection track-sc0 src
    tcp-request connection reject if { sc0_conn_cur gt 2 }
    default_backend b
backend b
    server a {ip}:9001
";
    let case = Case { name: "a_client_is_limited_to_its_connections", config };
    same(case, |env| {
        let _server = answering(env, "a");
        let held = (open(env.port(8001)), open(env.port(8001)));
        let refused = connect_and_read(env.port(8001)).0;
        let names = (held.0.name.clone(), held.1.name.clone());
        drop(held);
        until("a place is free", || answers(env.port(8001)));
        (names, refused)
    });
}

#[test]
fn the_port_of_the_client_chooses_the_backend() {
    let config = "
frontend x
    bind {ip}:8001
    bind {ip}:8002
    use_backend second if { dst_port 8002 }
    default_backend first
backend first
    server a {ip}:9001
backend second
    server b {ip}:9002
";
    let case = Case { name: "the_port_of_the_client_chooses_the_backend", config };
    same(case, |env| {
        let _servers = ["a", "b"].map(|name| naming(env, name));
        [8001, 8002].map(|port| name_at(env.port(port)))
    });
}

#[test]
fn a_range_of_ports_is_listened_on() {
    let config = "
listen x
    bind {ip}:8001-8003
    bind {ip}:8005
    server a {ip}:9001
";
    let case = Case { name: "a_range_of_ports_is_listened_on", config };
    same(case, |env| {
        let _server = naming(env, "a");
        [8001, 8002, 8003, 8005].map(|port| name_at(env.port(port)))
    });
}

#[test]
fn a_server_without_a_port_gets_that_of_the_client() {
    let config = "
listen x
    bind {ip}:8001
    bind {ip}:8002
    server a {other}
";
    let case = Case { name: "a_server_without_a_port_gets_that_of_the_client", config };
    same(case, |env| {
        let at = |port| (other_ip(env), port).into();
        let _servers = (Server::naming("one", at(8001)), Server::naming("two", at(8002)));
        [8001, 8002].map(|port| name_at(env.port(port)))
    });
}

#[test]
fn tls_server_names_choose_backends() {
    let config = "
frontend x
    bind {ip}:8001
    tcp-request inspect-delay 5s
    tcp-request content accept if { req.ssl_hello_type 1 }
    use_backend a if { req.ssl_sni -i one.example }
    use_backend b if { req.ssl_sni -m end .two.example }
    default_backend c
backend a
    server a {ip}:9001
backend b
    server b {ip}:9002
backend c
    server c {ip}:9003
";
    let case = Case { name: "tls_server_names_choose_backends", config };
    same(case, |env| {
        let _servers = ["a", "b", "c"].map(|name| answering(env, name));
        ["ONE.example", "x.two.example", "two.example", "other.example"].map(|name| {
            let mut stream = connect(env.port(8001));
            stream.write_all(&client_hello(name)).unwrap();
            let mut answer = [0; 1];
            stream.read_exact(&mut answer).unwrap();
            answer
        })
    });
}

#[test]
fn servers_learn_the_address_of_the_client_from_the_proxy_header() {
    let config = "
listen v1
    bind {ip}:8001
    server a {ip}:9001 send-proxy
listen v2
    bind {ip}:8002 accept-proxy
    server b {ip}:9001 send-proxy-v2
";
    let name = "servers_learn_the_address_of_the_client_from_the_proxy_header";
    same(Case { name, config }, |env| {
        // It sends back what it gets, so the client sees the header.
        let _server = Server::echo(env.port(9001));
        let line = |port: u16, request: &[u8]| {
            let mut stream = connect(env.port(port));
            stream.write_all(request).unwrap();
            shut_down(&stream);
            let port_of_client = stream.local_addr().unwrap().port().to_string();
            let (bytes, _) = read_to_end(&stream);
            (bytes, port_of_client)
        };
        let (first, port) = line(8001, b"hello");
        let first = String::from_utf8(first).unwrap();
        let ip = env.frontend().ip().to_string();
        let first = first.replace(&port, "PORT").replace(&ip, "IP");
        let header = b"PROXY TCP4 192.0.2.7 192.0.2.8 1111 2222\r\nhello";
        // Signature, version, family, and addresses; a balancer may add further information.
        let (second, _) = line(8002, header);
        let fixed = [&second[..14], &second[16..28]].concat();
        (first, fixed, second.ends_with(b"hello"))
    });
}

#[test]
fn a_dialogue_finds_the_master() {
    let config = "
listen redis
    bind {ip}:8001
    option tcp-check
    tcp-check send INFO\\r\\n
    tcp-check expect string role:master
    default-server inter 100ms rise 1 fall 1
    server a {ip}:9001 check
    server b {ip}:9002 check
";
    let case = Case { name: "a_dialogue_finds_the_master", config };
    same(case, |env| {
        let _servers =
            (with_role(env, "a", "role:slave\r\n"), with_role(env, "b", "role:master\r\n"));
        until("only b is up", || (0..4).all(|_| name_of_answer(env.port(8001)) == "b"));
    });
}

#[test]
fn a_path_is_an_address_on_both_sides() {
    let config = "
listen front
    bind {folder}/front.sock
    server a {ip}:9001
listen back
    bind {ip}:8001
    server front {folder}/front.sock
";
    let case = Case { name: "a_path_is_an_address_on_both_sides", config };
    same(case, |env| {
        let _server = naming(env, "a");
        name_at(env.port(8001))
    });
}
