//! `evenkeel explain`: which server a client would get, and why; it changes nothing.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use nix::sys::signal::Signal;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::common::balancer::printed;
use crate::common::client::{connect, is_reset, set_timeouts};
use crate::common::wait::until;
use crate::common::{Balancer, Config, Server, TestEnv};

/// A client with this address, and what its server said first; none: it was reset.
fn named_by(client: &str, to: SocketAddr) -> Option<(TcpStream, String)> {
    let ip: IpAddr = client.parse().unwrap();
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(ip, 0).into()).unwrap();
    match socket.connect(&to.into()) {
        Err(error) if is_reset(&error) => return None,
        outcome => outcome.unwrap(),
    }
    let mut stream = TcpStream::from(socket);
    set_timeouts(&stream);
    let mut name = [0];
    match stream.read_exact(&mut name) {
        Ok(()) => Some((stream, String::from_utf8(name.to_vec()).unwrap())),
        Err(error) => {
            assert!(is_reset(&error), "{error}");
            None
        }
    }
}

/// The answer for a client; empty: for any.
fn explained(balancer: &Balancer<'_>, client: &str) -> Value {
    let mut arguments = vec!["explain", "web", "--json"];
    arguments.extend(Some(client).filter(|client| !client.is_empty()));
    serde_json::from_str(&balancer.control_ok(&arguments)).unwrap()
}

/// What is said about a server: whether it is chosen, and why or why not.
fn server<'a>(explanation: &'a Value, name: &str) -> (bool, &'a str) {
    let servers = explanation["backends"][0]["servers"].as_array().unwrap();
    let server = servers.iter().find(|one| one["name"] == name).unwrap();
    (server["chosen"].as_bool().unwrap(), server["why"].as_str().unwrap())
}

/// What is said about a rule: the verdict, and why.
fn rule<'a>(explanation: &'a Value, key: &str) -> (&'a str, &'a str) {
    let rules = explanation["rules"].as_array().unwrap();
    let rule = rules.iter().find(|one| one["key"] == key);
    let rule = rule.unwrap_or_else(|| panic!("no rule {key}: {explanation}"));
    (rule["verdict"].as_str().unwrap(), rule["why"].as_str().unwrap())
}

fn three_naming(env: &TestEnv) -> (Config, Vec<Server>) {
    let names = ["a", "b", "c"];
    let servers: Vec<Server> =
        (9001..).zip(names).map(|(port, name)| Server::naming(name, env.port(port))).collect();
    (Config::new(env), servers)
}

#[test]
fn the_server_that_is_named_is_the_one_that_the_next_client_gets() {
    for balance in ["roundrobin", "leastconn", "source", "first"] {
        let env = TestEnv::new();
        let (config, servers) = three_naming(&env);
        let config = config.workers(2).backend(&format!("balance = \"{balance}\""));
        let config = config
            .server_with("a", servers[0].address, "weight = 200\nsessions_max = 4")
            .server_with("b", servers[1].address, "sessions_max = 3")
            .server("c", servers[2].address);
        let balancer = Balancer::start(&env, &config);
        let mut sessions = Vec::new();
        let mut chosen = std::collections::BTreeSet::new();
        for number in 1..=16 {
            let client = format!("127.7.{number}.1");
            let before = explained(&balancer, &client);
            for _ in 0..3 {
                assert_eq!(
                    explained(&balancer, &client),
                    before,
                    "{balance}: it changed something"
                );
            }
            let backend = &before["backends"][0];
            assert_eq!(
                (&backend["outcome"], &before["verdict"]),
                (&"server".into(), &"admitted".into())
            );
            let (stream, name) = named_by(&client, env.frontend()).unwrap();
            assert_eq!(backend["server"], name, "{balance}, session {number}: {before}");
            assert!(server(&before, &name).0, "{before}");
            assert_eq!(before["client"], client);
            sessions.push(stream);
            chosen.insert(name);
        }
        assert!(chosen.len() > 1, "{balance}: {chosen:?}");
        drop(sessions);
        balancer.assert_no_leaks();
        assert_eq!(balancer.metrics().value("evenkeel_table_version", &[]), 1.0);
    }
}

#[test]
fn a_choice_that_is_open_has_the_chance_of_each_server() {
    for (balance, expected) in [("random", [0.5, 0.25, 0.25]), ("source", [0.5, 0.25, 0.25])] {
        let env = TestEnv::new();
        let (config, servers) = three_naming(&env);
        let config = config.backend(&format!("balance = \"{balance}\""));
        let config = config
            .server_with("a", servers[0].address, "weight = 200")
            .server("b", servers[1].address)
            .server("c", servers[2].address);
        let balancer = Balancer::start(&env, &config);
        let explanation = explained(&balancer, "");
        assert_eq!(explanation["backends"][0]["outcome"], "open");
        for (index, expected) in expected.into_iter().enumerate() {
            let chance = &explanation["backends"][0]["servers"][index]["chance"];
            let chance = chance.as_f64().unwrap_or_else(|| panic!("{explanation}"));
            assert!((chance - expected).abs() < 0.01, "{balance}: {explanation}");
        }
        if balance == "random" {
            // A session on a: b and c are lighter.
            let held: Vec<_> = std::iter::repeat_with(|| named_by("127.0.0.1", env.frontend()))
                .flatten()
                .take_while(|(_, name)| name != "a")
                .collect();
            let explanation = explained(&balancer, "");
            let chance = |index: usize| {
                explanation["backends"][0]["servers"][index]["chance"].as_f64().unwrap()
            };
            let sum: f64 = (0..3).map(chance).sum();
            assert!((sum - 1.0).abs() < 0.01, "{explanation}");
            drop(held);
        }
    }
}

#[test]
fn a_rule_that_refuses_a_client_is_named_and_no_token_is_taken() {
    let env = TestEnv::new();
    let (config, servers) = three_naming(&env);
    let rules = "allow = [\"127.8.0.0/16\"]\ndeny = [\"127.8.9.0/24\"]\nclients_max = 1\n\
                 rate.sessions = \"3/h\"\nrate.per_client = \"2/h\"\nsessions_max = 50";
    let balancer = Balancer::start(&env, &config.frontend(rules).server("a", servers[0].address));
    for (client, key) in [("127.9.0.1", "allow"), ("127.8.9.1", "deny")] {
        let explanation = explained(&balancer, client);
        assert_eq!(explanation["verdict"], "refused");
        assert_eq!(rule(&explanation, key).0, "refused", "{explanation}");
        let backend = &explanation["backends"][0];
        assert_eq!((&backend["outcome"], &backend["server"]), (&"reset".into(), &Value::Null));
        let why = format!("{key} refuses the client before a server is chosen");
        assert_eq!(backend["why"], why.as_str(), "{explanation}");
        let servers = backend["servers"].as_array().unwrap();
        assert!(servers.iter().all(|server| server["chosen"] == false), "{explanation}");
        let text = balancer.control_ok(&["explain", "web", client]);
        assert!(text.contains("the client is reset") && !text.contains("->"), "{text}");
    }
    let any = explained(&balancer, "");
    assert_eq!(any["verdict"], "depends");
    for key in ["allow", "deny", "clients_max", "rate.per_client"] {
        assert_eq!(rule(&any, key).0, "depends");
    }
    for _ in 0..10 {
        assert_eq!(explained(&balancer, "127.8.0.1")["verdict"], "admitted");
    }
    // The address as the log has it.
    assert_eq!(explained(&balancer, "127.8.0.1:50123")["client"], "127.8.0.1");
    let first = named_by("127.8.0.1", env.frontend()).unwrap();
    let explanation = explained(&balancer, "127.8.0.1");
    let (verdict, why) = rule(&explanation, "clients_max");
    assert_eq!((verdict, why), ("refused", "1 of 1 sessions of this client are open"));
    assert_eq!(rule(&explanation, "sessions_max").1, "1 of 50 sessions are open");
    drop(first);
    until("the session has ended", || explained(&balancer, "127.8.0.1")["verdict"] == "admitted");
    drop(named_by("127.8.0.1", env.frontend()).unwrap());
    until("its rate is reached", || {
        rule(&explained(&balancer, "127.8.0.1"), "rate.per_client").0 == "refused"
    });
    drop(named_by("127.8.0.2", env.frontend()).unwrap());
    let explanation = explained(&balancer, "127.8.0.3");
    assert_eq!(rule(&explanation, "rate.sessions").0, "refused", "{explanation}");
    let refused = balancer.metrics().sum("evenkeel_sessions_refused_total", &[]);
    assert_eq!(refused, 0.0, "nothing was counted");
    assert!(named_by("127.8.0.3", env.frontend()).is_none());
}

#[test]
fn each_backend_of_a_routed_frontend_is_explained_once() {
    let env = TestEnv::new();
    let (config, servers) = three_naming(&env);
    let backend = |name: &str, server: &Server| {
        format!(
            "[backend.{name}.health]\ncheck = \"off\"\n[[backend.{name}.server]]\n\
             name = \"{name}\"\naddress = \"{}\"\n",
            server.address
        )
    };
    let routes: Vec<String> = (1..=6).map(|n| format!("\"{n}.many.test\" = \"many\"")).collect();
    let routes = format!(
        "sni = {{ \"one.test\" = \"few\", \"web.test\" = \"web\", {} }}\n\
         alpn = {{ h2 = \"few\", mqtt = \"many\" }}",
        routes.join(", ")
    );
    let config = config.frontend(&routes).server("a", servers[0].address);
    let more = backend("few", &servers[1]) + &backend("many", &servers[2]);
    let config = config.more(&more);
    let balancer = Balancer::start(&env, &config);
    let clients = |explanation: &Value| -> Vec<(String, String)> {
        let backends = explanation["backends"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        backends.map(|one| (text(&one["name"]), text(&one["clients"]))).collect()
    };
    let (few, many) = (
        "clients with the server name one.test; clients with the protocol h2",
        "clients with the server name 1.many.test, 2.many.test, 3.many.test, 4.many.test, \
         5.many.test, ...; clients with the protocol ...",
    );
    let pair = |name: &str, clients: &str| (name.to_owned(), clients.to_owned());
    let explanation = explained(&balancer, "");
    let web = "clients with the server name web.test; all other clients";
    assert_eq!(clients(&explanation), [pair("web", web), pair("few", few), pair("many", many)]);
    let keys = |explanation: &Value| -> Vec<String> {
        let rules = explanation["rules"].as_array().unwrap().iter();
        rules.map(|rule| rule["key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(keys(&explanation), ["global.sessions_max"]);
    let without = config.text().replace("\nbackend = \"web\"\n", "\n");
    balancer.rewrite(&without);
    balancer.control_ok(&["reload"]);
    let explanation = explained(&balancer, "127.0.0.1");
    let web = "clients with the server name web.test";
    assert_eq!(clients(&explanation)[0], pair("web", web));
    let reset = "not set: a connection that no sni or alpn matches is reset";
    assert_eq!(rule(&explanation, "backend"), ("depends", reset));
    assert_eq!(keys(&explanation), ["global.sessions_max", "backend"]);
}

#[test]
fn a_frontend_with_proxy_headers_checks_the_peer_and_the_limits_first() {
    let env = TestEnv::new();
    let (config, servers) = three_naming(&env);
    let rules = "deny = [\"127.8.9.0/24\"]\nclients_max = 1\nrate.sessions = \"3/h\"\n\
                 sessions_max = 50";
    let proxy = "proxy_protocol = \"required\"\nproxy_protocol_from = [\"127.0.0.0/8\"]";
    let config = config.frontend(rules).server("a", servers[0].address);
    let balancer = Balancer::start(&env, &config);
    let keys = || {
        let explanation = explained(&balancer, "127.8.0.1");
        let rules = explanation["rules"].as_array().unwrap().iter();
        rules.map(|rule| rule["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let of_clients = ["deny", "rate.sessions", "clients_max"];
    let limits = ["global.sessions_max", "sessions_max"];
    assert_eq!(keys(), [&of_clients[..], &limits].concat());
    balancer.reload(&config.frontend(proxy));
    assert_eq!(keys(), [&["proxy_protocol_from"][..], &limits, &of_clients].concat());
    let explanation = explained(&balancer, "127.8.0.1");
    let (verdict, why) = rule(&explanation, "proxy_protocol_from");
    assert_eq!(verdict, "depends");
    assert!(why.contains("CLIENT is the address in its PROXY header"), "{why}");
    assert_eq!(explained(&balancer, "127.8.9.1")["verdict"], "refused");
}

#[test]
fn every_server_that_is_not_chosen_has_a_reason() {
    let env = TestEnv::new();
    let (config, servers) = three_naming(&env);
    let config = config
        .quick_health("tcp")
        .server("a", servers[0].address)
        .server_with("m", env.port(9011), "state = \"maint\"")
        .server("dead", env.port(9012))
        .server_with("b", servers[1].address, "backup = true")
        .server("c", servers[2].address);
    let balancer = Balancer::start(&env, &config);
    balancer.metrics_until("the server is down", |metrics| !metrics.up("dead"));
    balancer.control_ok(&["weight", "web/c", "0"]);
    let explanation = explained(&balancer, "");
    for (name, part) in [
        ("a", "it is its turn"),
        ("m", "set to maint by the configuration"),
        ("dead", "down: connection refused"),
        ("b", "backup: used if all others are down"),
        ("c", "weight 0"),
    ] {
        let (chosen, why) = server(&explanation, name);
        assert!(why.starts_with(part), "{name}: {why}");
        assert_eq!(chosen, name == "a");
    }
    balancer.control_ok(&["drain", "web/a"]);
    let explanation = explained(&balancer, "");
    assert_eq!(explanation["backends"][0]["server"], "b");
    assert!(server(&explanation, "a").1.starts_with("set to drain by the operator"));
    balancer.control_ok(&["maint", "web/b"]);
    let explanation = explained(&balancer, "");
    let backend = &explanation["backends"][0];
    assert_eq!(backend["outcome"], "reset", "{explanation}");
    assert!(backend["why"].as_str().unwrap().contains("no_server"), "{explanation}");
}

#[test]
fn full_servers_and_a_full_queue_are_explained() {
    let env = TestEnv::new();
    let (config, servers) = three_naming(&env);
    let config = config.backend("queue_max = 1\nqueue_timeout = \"1m\"");
    let config = config.server_with("a", servers[0].address, "sessions_max = 1");
    let balancer = Balancer::start(&env, &config);
    let held = named_by("127.0.0.1", env.frontend()).unwrap();
    let explanation = explained(&balancer, "");
    assert_eq!(explanation["backends"][0]["outcome"], "queue");
    assert_eq!(server(&explanation, "a"), (false, "full: 1 of 1 sessions"));
    let waits = connect(env.frontend());
    until("the queue is full", || explained(&balancer, "")["backends"][0]["outcome"] == "reset");
    let text = balancer.control_ok(&["explain", "web"]);
    assert!(text.contains("queue: 1 of 1") && text.contains("the queue is full"), "{text}");
    drop((held, waits));
    balancer.assert_no_leaks();
}

#[test]
fn an_unknown_frontend_is_an_error_with_the_nearest_name() {
    let env = TestEnv::new();
    let (config, servers) = three_naming(&env);
    let balancer = Balancer::start(&env, &config.server("a", servers[0].address));
    for (name, part) in
        [("wbe", "did you mean \"web\"?"), ("entirely-else", "the frontends are: web")]
    {
        let output = balancer.control(&["explain", name]);
        assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
        assert!(printed(&output).contains(part), "{}", printed(&output));
    }
    let output = balancer.control(&["explain", "web", "no-address"]);
    assert_eq!(output.status.code(), Some(64), "{}", printed(&output));
    let text = balancer.control_ok(&["explain", "web", "192.0.2.7"]);
    assert!(text.starts_with("frontend web, client 192.0.2.7: admitted\n"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("->  web/a ")), "{text}");
}

#[test]
fn a_balancer_that_drains_says_that_it_accepts_nobody() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let balancer = Balancer::start(&env, &Config::new(&env).server("a", server.address));
    let mut client = connect(env.frontend());
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    balancer.signal(Signal::SIGTERM);
    until("it drains", || explained(&balancer, "")["verdict"] == "refused");
    assert_eq!(rule(&explained(&balancer, ""), "drain").0, "refused");
}
