//! Servers that DNS supplies: SRV names, `global.resolver`, and when a name is asked again.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use evenkeel::sys::child::die_with_parent;
use hickory_resolver::proto::rr::RecordType;

use crate::common::client::{connect, connect_and_read, exchange, fetch};
use crate::common::dns::{Dns, Mood};
use crate::common::wait::{StopOnDrop, holds_for, pause};
use crate::common::{Balancer, Config, Server, TestEnv, skip, until};

const NAME: &str = "_http._tcp.web.test";

fn dns_of(env: &TestEnv) -> Dns {
    let dns = Dns::start(env.port(5300));
    dns.set_host("a.test", &[env.port(1).ip()]);
    dns
}

fn config(env: &TestEnv, dns: &Dns) -> Config {
    Config::new(env).global(&dns.resolver()).backend(&format!("srv = \"{NAME}\""))
}

/// A server `name` at `host`, without a record.
fn named(name: &str, host: &str) -> String {
    format!("[[backend.web.server]]\nname = \"{name}\"\naddress = \"{host}\"\n")
}

/// The servers that `evenkeel status` has, with the number of their endpoints.
fn servers(balancer: &Balancer<'_>) -> BTreeMap<String, usize> {
    let status = balancer.control_ok(&["status", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&status).unwrap();
    let servers = report["servers"].as_array().unwrap().iter();
    let server = |server: &serde_json::Value| {
        let endpoints = server["endpoints"].as_array().unwrap().len();
        (server["name"].as_str().unwrap().to_owned(), endpoints)
    };
    servers.map(server).collect()
}

fn names(balancer: &Balancer<'_>) -> Vec<String> {
    servers(balancer).into_keys().collect()
}

/// The answers of so many sessions, counted.
fn turns(env: &TestEnv, count: usize) -> BTreeMap<String, usize> {
    let mut turns = BTreeMap::new();
    for _ in 0..count {
        *turns.entry(fetch(env.frontend()).unwrap()).or_default() += 1;
    }
    turns
}

fn counts(of: &[(&str, usize)]) -> BTreeMap<String, usize> {
    of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[test]
fn srv_records_are_servers_with_their_ports_and_weights() {
    let env = TestEnv::new();
    let dns = dns_of(&env);
    let one = Server::naming("1", env.port(9001));
    let _two = Server::naming("2", env.port(9002));
    let _own = Server::naming("own", env.port(9003));
    dns.set_srv(NAME, &[(1, 30, 9001, "a.test."), (1, 10, 9002, "a.test.")]);
    let with_own = config(&env, &dns).server_with("own", env.port(9003), "weight = 40");
    let balancer = Balancer::start(&env, &with_own);
    assert_eq!(names(&balancer), ["a.test:9001", "a.test:9002", "own"]);
    assert_eq!(turns(&env, 8), counts(&[("1", 3), ("2", 1), ("own", 4)]));
    let metrics = balancer.metrics();
    let series = [("server", "a.test:9001")];
    assert_eq!(metrics.value("evenkeel_server_sessions_total", &series), 3.0);
    // A backend without a server of its own.
    balancer.reload(&config(&env, &dns));
    assert_eq!(names(&balancer), ["a.test:9001", "a.test:9002"]);
    assert_eq!(turns(&env, 8), counts(&[("1", 6), ("2", 2)]));
    balancer.assert_no_leaks();
    assert_eq!(one.accepted(), 9);
}

#[test]
fn a_weight_of_zero_is_a_very_small_chance_beside_others_and_an_equal_one_alone() {
    let env = TestEnv::new();
    let dns = dns_of(&env);
    let _one = Server::naming("1", env.port(9001));
    let zero = Server::naming("2", env.port(9002));
    dns.set_srv(NAME, &[(1, 1, 9001, "a.test."), (1, 0, 9002, "a.test.")]);
    let balancer = Balancer::start(&env, &config(&env, &dns));
    // One of 1,001 turns, in the middle of the rotation.
    assert_eq!(turns(&env, 100), counts(&[("1", 100)]));
    dns.set_srv(NAME, &[(1, 0, 9001, "a.test."), (1, 0, 9002, "a.test.")]);
    until("both are used", || {
        drop(fetch(env.frontend()));
        zero.accepted() > 0
    });
    assert_eq!(turns(&env, 8), counts(&[("1", 4), ("2", 4)]));
    balancer.assert_no_leaks();
}

#[test]
fn the_lowest_priority_with_a_server_up_is_used() {
    let env = TestEnv::new();
    let dns = dns_of(&env);
    let mut first = Server::naming("1", env.port(9001));
    let mut second = Server::naming("2", env.port(9002));
    let _third = Server::naming("3", env.port(9003));
    let records = [(10, 1, 9001, "a.test."), (20, 1, 9002, "a.test."), (30, 1, 9003, "a.test.")];
    dns.set_srv(NAME, &records);
    let balancer = Balancer::start(&env, &config(&env, &dns).quick_health("tcp"));
    let uses = |name: &str| {
        until("sessions go to the servers of another priority", || {
            fetch(env.frontend()).is_ok_and(|answer| answer == name)
        });
        assert_eq!(turns(&env, 4), counts(&[(name, 4)]));
    };
    uses("1");
    first.kill();
    uses("2");
    second.kill();
    uses("3");
    let _second = Server::naming("2", env.port(9002));
    uses("2");
    let _first = Server::naming("1", env.port(9001));
    uses("1");
    balancer.assert_no_leaks();
}

#[test]
fn records_that_change_under_traffic_fail_no_connection() {
    let env = TestEnv::new();
    let dns = dns_of(&env);
    let ports = [9001, 9002, 9003, 9004];
    let _servers = ports.map(|port| Server::naming(&port.to_string(), env.port(port)));
    dns.set_srv(NAME, &[(1, 1, 9001, "a.test.")]);
    let balancer = Balancer::start(&env, &config(&env, &dns).workers(2).quick_health("tcp"));
    let (stopped, fetched) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    while !stopped.load(Ordering::Relaxed) {
                        let answer = fetch(env.frontend()).unwrap();
                        assert!(answer.starts_with("900"), "{answer}");
                        fetched.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let stop = StopOnDrop(&stopped);
        for step in [
            &[(1, 1, 9001, "a.test."), (1, 3, 9002, "a.test.")][..],
            &[(1, 5, 9002, "a.test."), (2, 1, 9003, "a.test.")],
            &[(1, 0, 9003, "a.test."), (1, 0, 9004, "a.test."), (1, 9, 9001, "a.test.")],
            &[(7, 65535, 9004, "a.test.")],
        ] {
            dns.set_srv(NAME, step);
            let expected: Vec<String> =
                step.iter().map(|(.., port, _)| format!("a.test:{port}")).collect();
            until("the records are in force", || {
                let mut known = names(&balancer);
                // Removed servers are listed while they have sessions.
                known.retain(|name| expected.contains(name));
                known.len() == expected.len()
            });
            let lowest = step.iter().map(|record| record.0).min();
            for (_, weight, port, _) in step.iter().filter(|record| Some(record.0) == lowest) {
                let name = format!("a.test:{port}");
                let label = [("server", name.as_str())];
                let sessions = || balancer.metrics().sum("evenkeel_server_sessions_total", &label);
                // Beside others, a record of weight 0 gets about one of 1,000 sessions.
                let enough = sessions() + if *weight == 0 { 1.0 } else { 6.0 };
                let served = || fetched.load(Ordering::Relaxed);
                let begun = served();
                while sessions() < enough {
                    let before = served();
                    assert!(before < begun + 20_000, "{port} gets no sessions");
                    until("a client is served", || served() > before);
                }
            }
        }
        drop(stop);
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    assert!(fetched.load(Ordering::Relaxed) > 0);
    until("removed servers are forgotten", || names(&balancer) == ["a.test:9004"]);
    balancer.assert_no_leaks();
}

#[test]
fn a_record_that_leaves_keeps_its_sessions_and_returns_with_its_counters_and_orders() {
    let env = TestEnv::new();
    let dns = dns_of(&env);
    let one = Server::echo(env.port(9001));
    let two = Server::echo(env.port(9002));
    let both = [(1, 1, 9001, "a.test."), (1, 1, 9002, "a.test.")];
    dns.set_srv(NAME, &both);
    let balancer = Balancer::start(&env, &config(&env, &dns));
    balancer.control_ok(&["drain", "web/a.test:9002"]);
    let client = connect(env.frontend());
    assert_eq!(exchange(&client, b"one"), b"one");
    dns.set_srv(NAME, &both[1..]);
    balancer.control_ok(&["ready", "web/a.test:9002"]);
    balancer.control_ok(&["weight", "web/a.test:9002", "7"]);
    let accepted = two.accepted();
    until("new sessions go to the record that is left", || {
        let other = connect(env.frontend());
        exchange(&other, b"x") == b"x" && two.accepted() > accepted + 2
    });
    until("it is removed", || balancer.application_log().contains("a.test:9001 is removed"));
    assert_eq!(exchange(&client, b"still"), b"still");
    let before = one.accepted();
    dns.set_srv(NAME, &both);
    until("the record is back", || {
        let other = connect(env.frontend());
        exchange(&other, b"x") == b"x" && one.accepted() > before
    });
    let total = |port: u16| {
        let name = format!("a.test:{port}");
        balancer.metrics().value("evenkeel_server_sessions_total", &[("server", &name)])
    };
    assert!(total(9001) >= 2.0, "one series: {}", total(9001));
    let status = balancer.control_ok(&["status", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&status).unwrap();
    let weight = report["servers"].as_array().unwrap().iter().find_map(|server| {
        (server["name"] == "a.test:9002").then(|| server["weight"].as_u64().unwrap())
    });
    assert_eq!(weight, Some(7));
    drop(client);
    balancer.assert_no_leaks();
}

#[test]
fn without_a_good_answer_the_last_records_stay_in_use() {
    let env = TestEnv::new();
    let dns = dns_of(&env);
    let _one = Server::naming("1", env.port(9001));
    let _two = Server::naming("2", env.port(9002));
    dns.set_srv(NAME, &[(1, 1, 9001, "a.test.")]);
    let balancer = Balancer::start(&env, &config(&env, &dns));
    for mood in [Mood::Failing, Mood::Malformed, Mood::Silent] {
        let asked = dns.asked(NAME, RecordType::SRV);
        dns.set_mood(mood);
        until("it is asked again", || dns.asked(NAME, RecordType::SRV) > asked + 1);
        assert_eq!(turns(&env, 2), counts(&[("1", 2)]), "{mood:?}");
    }
    dns.set_mood(Mood::Normal);
    dns.set_srv(NAME, &[]);
    let asked = dns.asked(NAME, RecordType::SRV);
    until("it is asked again", || dns.asked(NAME, RecordType::SRV) > asked + 1);
    assert_eq!(turns(&env, 2), counts(&[("1", 2)]), "an empty answer");
    let log = balancer.application_log();
    assert!(log.contains("its last records stay in use"), "{log}");
    dns.set_srv(NAME, &[(1, 1, 9002, "a.test.")]);
    until("a good answer counts", || fetch(env.frontend()).is_ok_and(|answer| answer == "2"));
    balancer.assert_no_leaks();
}

#[test]
fn an_srv_name_without_records_at_the_start_supplies_servers_when_it_has_some() {
    let env = TestEnv::new();
    let dns = dns_of(&env);
    let _one = Server::naming("1", env.port(9001));
    let balancer = Balancer::start(&env, &config(&env, &dns).quick_health("tcp"));
    assert!(names(&balancer).is_empty());
    assert!(fetch(env.frontend()).is_err());
    dns.set_mood(Mood::Late(Duration::from_millis(700)));
    dns.set_srv(NAME, &[(1, 1, 9001, "a.test.")]);
    until("it has a server", || fetch(env.frontend()).is_ok_and(|answer| answer == "1"));
    // A question that is not answered yet holds a descriptor.
    dns.set_mood(Mood::Normal);
    balancer.assert_no_leaks();
}

#[test]
fn an_srv_name_without_a_record_is_named_by_a_reload_and_its_dry_run() {
    let env = TestEnv::new();
    let dns = dns_of(&env);
    let one = Server::naming("1", env.port(9001));
    let before = Config::new(&env).global(&dns.resolver()).server("1", one.address);
    let balancer = Balancer::start(&env, &before);
    let more = format!(
        "[frontend.more]\nbind = [\"{}\"]\nbackend = \"more\"\n[backend.more]\nsrv = \"{NAME}\"\n",
        env.port(8001)
    );
    let with_srv = before.clone().backend("srv = \"_x._tcp.web.test\"").more(&more);
    balancer.rewrite(&with_srv.text());
    let plan = balancer.control_ok(&["reload", "--dry-run"]);
    for (item, name) in [
        ("backend web: srv: not set -> \"_x._tcp.web.test\"", "_x._tcp.web.test"),
        ("backend more: added, srv = \"_http._tcp.web.test\"", NAME),
    ] {
        let line = format!("{item}; SRV name {name} has no usable record: it supplies no server\n");
        assert!(plan.contains(&line), "{line} in {plan}");
    }
    let answer = balancer.control_ok(&["reload"]);
    let names = format!("; SRV names without a usable record: {NAME}, _x._tcp.web.test\n");
    assert!(answer.ends_with(&names), "{answer}");
    dns.set_srv(NAME, &[(1, 1, 9001, "a.test.")]);
    dns.set_srv("_x._tcp.web.test", &[(1, 1, 9002, "a.test.")]);
    until("both have a record", || {
        !balancer.control_ok(&["reload"]).contains("without a usable record")
    });
    assert!(!balancer.control_ok(&["reload", "--dry-run"]).contains("no usable record"));
}

#[test]
fn wrong_records_are_left_out() {
    let env = TestEnv::new();
    let dns = dns_of(&env);
    let _one = Server::naming("1", env.port(9001));
    let _two = Server::naming("2", env.port(9002));
    dns.set_alias("alias.test", "a.test.");
    dns.set_alias("_web._tcp.service.test", &format!("{NAME}."));
    dns.set_srv(
        NAME,
        &[
            (1, 1, 9001, "a.test."),
            (1, 1, 9002, "alias.test."),
            (1, 1, 0, "a.test."),
            (1, 1, 9003, "."),
            (1, 1, 9001, "A.test."),
            (1, 1, 9004, "nowhere.test."),
        ],
    );
    // RFC 2782 forbids a target that is an alias; it can be used all the same.
    let config = Config::new(&env).global(&dns.resolver());
    let config = config.backend("srv = \"_Web._TCP.service.test.\"").quick_health("tcp");
    let balancer = Balancer::start(&env, &config);
    assert_eq!(names(&balancer), ["a.test:9001", "alias.test:9002", "nowhere.test:9004"]);
    until("both are up", || turns(&env, 4) == counts(&[("1", 2), ("2", 2)]));
    balancer.assert_no_leaks();
}

#[test]
fn a_name_has_at_most_1024_servers_or_endpoints_and_says_so() {
    let env = TestEnv::new();
    let dns = dns_of(&env);
    let _one = Server::naming("1", env.port(9001));
    let targets: Vec<String> = (0..1100).map(|n| format!("p{n}.test")).collect();
    for target in &targets {
        dns.set_host(target, &[env.port(1).ip()]);
    }
    let records: Vec<_> = targets.iter().map(|target| (1, 1, 9001, &**target)).collect();
    dns.set_srv(NAME, &records);
    let addresses: Vec<IpAddr> =
        (0..1500_u32).map(|n| Ipv4Addr::from_bits(0x0a4d_0000 + n).into()).collect();
    dns.set_host("many.test", &addresses);
    let config = config(&env, &dns).more(&named("many", "many.test:80"));
    let balancer = Balancer::start(&env, &config);
    // A busy machine may answer too late for the start.
    until("all are there", || servers(&balancer).len() == 1025);
    assert_eq!(servers(&balancer)["many"], 1024);
    until("each has an endpoint", || servers(&balancer).values().all(|count| *count > 0));
    assert!(dns.asked_over_tcp() > 0, "the answer is too long for a datagram");
    let log = balancer.application_log();
    assert!(log.contains("has 1100 records; the first 1024 of them are used"), "{log}");
    assert!(log.contains("has 1500 addresses; the first 1024 of them are used"), "{log}");
    dns.set_srv(NAME, &records[..1]);
    until("the others are gone", || servers(&balancer).len() == 2);
    balancer.assert_no_leaks();
}

#[test]
fn a_failed_connect_asks_again_before_the_ttl_ends_in_growing_pauses() {
    let env = TestEnv::new();
    let other = env.another();
    let dns = dns_of(&env);
    dns.set_ttl(3600);
    let mut old = Server::naming("old", env.port(9001));
    let _new = Server::naming("new", other.port(9001));
    let config = Config::new(&env).global(&dns.resolver()).more(&named("a", "a.test:9001"));
    let balancer = Balancer::start(&env, &config);
    assert_eq!(fetch(env.frontend()).unwrap(), "old");
    old.kill();
    let before = dns.asked("a.test", RecordType::A);
    let asked = || dns.asked("a.test", RecordType::A) - before;
    holds_for(Duration::from_secs(6), || fetch(env.frontend()).is_err());
    // After 1, 3, and 7 seconds.
    assert!((1..=4).contains(&asked()), "asked {} times", asked());
    dns.set_host("a.test", &[other.port(1).ip()]);
    until("it has moved", || fetch(env.frontend()).is_ok_and(|answer| answer == "new"));
    balancer.assert_no_leaks();
}

#[test]
fn a_failed_probe_asks_again_for_the_srv_name_too() {
    let env = TestEnv::new();
    let dns = dns_of(&env);
    dns.set_ttl(3600);
    let mut old = Server::naming("old", env.port(9001));
    let _new = Server::naming("new", env.port(9002));
    dns.set_srv(NAME, &[(1, 1, 9001, "a.test.")]);
    let balancer = Balancer::start(&env, &config(&env, &dns).quick_health("tcp"));
    assert_eq!(fetch(env.frontend()).unwrap(), "old");
    dns.set_srv(NAME, &[(1, 1, 9002, "a.test.")]);
    old.kill();
    // No client comes.
    until("the other record is known", || names(&balancer) == ["a.test:9002"]);
    until("it is up", || fetch(env.frontend()).is_ok_and(|answer| answer == "new"));
    balancer.assert_no_leaks();
}

#[test]
fn a_session_that_finds_no_server_asks_again() {
    let env = TestEnv::new();
    let other = env.another();
    let dns = dns_of(&env);
    dns.set_ttl(3600);
    let _new = Server::naming("new", other.port(9001));
    // After the first probe, none comes for an hour.
    let health = "check = \"tcp\"\ninterval = \"1h\"\ninterval_down = \"1h\"\nrise = 1\nfall = 1";
    let config = Config::new(&env).global(&dns.resolver()).health(health);
    let balancer = Balancer::start(&env, &config.more(&named("a", "a.test:9001")));
    until("it is down", || balancer.application_log().contains("is down"));
    let asked = || dns.asked("a.test", RecordType::A);
    until("the failed probe has asked", || asked() > 1);
    let before = asked();
    assert!(holds_for(Duration::from_secs(3), || asked() == before), "nothing asks");
    dns.set_host("a.test", &[other.port(1).ip()]);
    assert!(fetch(env.frontend()).is_err(), "it asks for the next one");
    until("it has moved", || {
        pause(Duration::from_millis(100));
        asked() > before && fetch(env.frontend()).is_ok_and(|answer| answer == "new")
    });
    balancer.assert_no_leaks();
}

#[test]
fn names_of_containers_with_underscores_are_resolved() {
    let env = TestEnv::new();
    let dns = dns_of(&env);
    let _one = Server::naming("1", env.port(9001));
    let _two = Server::naming("2", env.port(9002));
    dns.set_host("tasks.web_api", &[env.port(1).ip()]);
    dns.set_host("my_service", &[env.port(1).ip()]);
    let config = Config::new(&env).global(&dns.resolver());
    let config = config.more(&(named("1", "tasks.web_api:9001") + &named("2", "my_service.:9002")));
    let balancer = Balancer::start(&env, &config);
    assert_eq!(turns(&env, 4), counts(&[("1", 2), ("2", 2)]));
    let status = balancer.control_ok(&["status"]);
    assert!(status.contains("my_service:9002"), "{status}");
    balancer.assert_no_leaks();
}

#[test]
fn a_reload_changes_the_dns_servers() {
    let env = TestEnv::new();
    let other = env.another();
    let (here, there) = (dns_of(&env), dns_of(&other));
    let _one = Server::naming("1", env.port(9001));
    let _two = Server::naming("2", other.port(9001));
    let config =
        |dns: &Dns| Config::new(&env).global(&dns.resolver()).more(&named("a", "a.test:9001"));
    let balancer = Balancer::start(&env, &config(&here));
    assert_eq!(fetch(env.frontend()).unwrap(), "1");
    balancer.reload(&config(&there));
    until("the other one is asked", || fetch(env.frontend()).is_ok_and(|answer| answer == "2"));
    // A configuration that is refused changes nothing.
    balancer.rewrite(&config(&here).more("nonsense = 1").text());
    assert!(!balancer.control(&["reload"]).status.success());
    let asked = here.asked("a.test", RecordType::A);
    let before = there.asked("a.test", RecordType::A);
    until("the one in force is asked", || there.asked("a.test", RecordType::A) > before + 1);
    assert_eq!(here.asked("a.test", RecordType::A), asked);
    balancer.assert_no_leaks();
}

#[test]
fn a_refused_client_is_reset_while_a_dns_server_is_silent() {
    // DNS costs traffic nothing.
    let env = TestEnv::new();
    let dns = dns_of(&env);
    dns.set_mood(Mood::Silent);
    let server = Server::naming("own", env.port(9001));
    let config = config(&env, &dns).server("own", server.address);
    let balancer = Balancer::start(&env, &config);
    assert_eq!(connect_and_read(env.frontend()).0, b"own");
    assert_eq!(names(&balancer), ["own"]);
    balancer.assert_no_leaks();
}

/// dnsmasq, which ends with the test.
struct Dnsmasq(Child);

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Dnsmasq {
    fn start(env: &TestEnv, records: &[String]) -> Self {
        let mut command = Command::new("dnsmasq");
        let listen = format!("--listen-address={}", env.port(5300).ip());
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv"]);
        command.args(["--no-hosts", "--bind-interfaces", "--port=5300", "--pid-file="]);
        command.args(["--local=//", "--local-ttl=1", "--log-facility=-", &listen]);
        command.args(records).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(env.file("dnsmasq.log")).unwrap());
        die_with_parent(&mut command);
        let dnsmasq = Self(command.spawn().unwrap());
        until("dnsmasq has started", || {
            fs::read_to_string(env.file("dnsmasq.log")).unwrap().contains("started")
        });
        dnsmasq
    }
}

#[test]
fn dnsmasq_supplies_servers() {
    if Command::new("dnsmasq").arg("--version").output().is_err() {
        return skip("dnsmasq_supplies_servers", "not installed: dnsmasq (tests/run installs it)");
    }
    let env = TestEnv::new();
    let _one = Server::naming("1", env.port(9001));
    let _two = Server::naming("2", env.port(9002));
    let host = |host: &str| format!("--host-record={host},{}", env.port(1).ip());
    let srv = |host: &str, port: u16| format!("--srv-host={NAME},{host},{port},10,1");
    let pods = ["web-0.web.default.svc.cluster.local", "0a000001.addr.dc1.consul"];
    let mut records = vec![host(pods[0]), host(pods[1]), srv(pods[0], 9001)];
    let dnsmasq = Dnsmasq::start(&env, &records);
    let global = format!("resolver = [\"{}\"]", env.port(5300));
    let config = Config::new(&env).global(&global).backend(&format!("srv = \"{NAME}\""));
    let balancer = Balancer::start(&env, &config.quick_health("tcp"));
    assert_eq!(names(&balancer), [format!("{}:9001", pods[0])]);
    assert_eq!(turns(&env, 2), counts(&[("1", 2)]));
    drop(dnsmasq);
    records.push(srv(pods[1], 9002));
    let _dnsmasq = Dnsmasq::start(&env, &records);
    until("both are used", || turns(&env, 4) == counts(&[("1", 2), ("2", 2)]));
    balancer.assert_no_leaks();
}
