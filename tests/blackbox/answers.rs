//! Answers of DNS that are wrong, late or different each time (cases 93 and 94): the last good one
//! stays in use, and the work that they cause is bounded.

use std::fmt::Write;
use std::time::{Duration, Instant};

use hickory_resolver::proto::rr::RecordType;

use crate::common::client::fetch;
use crate::common::dns::{Dns, Mood};
use crate::common::process::Descriptors;
use crate::common::wait::holds_for;
use crate::common::{Balancer, Config, Server, TestEnv, until};

/// What DNS may do to a name after its first good answer.
const WRONG: [(&str, Mood); 10] = [
    ("silent", Mood::Silent),
    ("late", Mood::Late(Duration::from_secs(6))),
    ("failing", Mood::Failing),
    ("no-such-name", Mood::NoSuchName),
    ("empty", Mood::Empty),
    ("malformed", Mood::Malformed),
    ("other-name", Mood::OtherName),
    ("other-type", Mood::OtherType),
    ("other-id", Mood::OtherId),
    ("other-port", Mood::OtherPort),
];

fn named(name: &str) -> String {
    format!("[[backend.web.server]]\nname = \"{name}\"\naddress = \"{name}.test:9001\"\n")
}

/// The addresses of each server, as `evenkeel status` has them.
fn addresses(balancer: &Balancer<'_>) -> Vec<(String, Vec<String>)> {
    let status = balancer.control_ok(&["status", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&status).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let servers = report["servers"].as_array().unwrap().iter();
    let of = |server: &serde_json::Value| {
        let endpoints = server["endpoints"].as_array().unwrap().iter();
        (text(&server["name"]), endpoints.map(|endpoint| text(&endpoint["address"])).collect())
    };
    servers.map(of).collect()
}

#[test]
fn whatever_dns_answers_the_last_good_addresses_stay_in_use() {
    let env = TestEnv::new();
    let (dns, server) = (Dns::start(env.port(5300)), Server::naming("1", env.port(9001)));
    let mut text = String::new();
    for (name, _) in WRONG {
        dns.set_host(&format!("{name}.test"), &[server.address.ip()]);
        text += &named(name);
    }
    let balancer = Balancer::start(&env, &Config::new(&env).global(&dns.resolver()).more(&text));
    let good = addresses(&balancer);
    assert!(good.iter().all(|(_, addresses)| *addresses == [server.address.to_string()]));
    let asked = |name: &str| dns.asked(&format!("{name}.test"), RecordType::A);
    let before = WRONG.map(|(name, _)| asked(name));
    for (name, mood) in WRONG {
        dns.set_mood_of(&format!("{name}.test"), mood);
    }
    for ((name, _), before) in WRONG.iter().zip(before) {
        until(&format!("{name} is asked again"), || asked(name) > before + 1);
    }
    assert_eq!(addresses(&balancer), good);
    for _ in WRONG {
        assert_eq!(fetch(env.frontend()).unwrap(), "1");
    }
    balancer.metrics_until("the sessions have ended", |metrics| metrics.closed("done") > 9.5);
}

#[test]
fn another_order_of_the_same_addresses_changes_nothing() {
    let env = TestEnv::new();
    let dns = Dns::start(env.port(5300));
    let all: Vec<_> = (1..=4).map(|last| [127, 98, 0, last].into()).collect();
    dns.set_host("shuffled.test", &all);
    dns.set_mood_of("shuffled.test", Mood::Shuffled);
    dns.set_alias("first.test", "second.test.");
    dns.set_alias("second.test", "shuffled.test.");
    let servers = named("shuffled") + &named("first");
    let balancer = Balancer::start(&env, &Config::new(&env).global(&dns.resolver()).more(&servers));
    let known = addresses(&balancer);
    assert!(known.iter().all(|(_, addresses)| addresses.len() == 4), "{known:?}");
    let version = balancer.metrics().value("evenkeel_table_version", &[]);
    let asked = || dns.asked("shuffled.test", RecordType::A);
    let before = asked();
    until("it is asked again and again", || asked() > before + 3);
    assert_eq!(addresses(&balancer), known);
    assert_eq!(balancer.metrics().value("evenkeel_table_version", &[]), version);
}

#[test]
fn names_that_move_with_every_answer_cost_a_bounded_amount_of_work_and_memory() {
    const NAMES: usize = 20;
    const TIME: Duration = Duration::from_secs(4);
    let env = TestEnv::new();
    let (dns, server) = (Dns::start(env.port(5300)), Server::naming("1", env.port(9001)));
    dns.set_ttl(0);
    let mut text = String::new();
    for number in 0..NAMES {
        dns.set_mood_of(&format!("anew{number}.test"), Mood::Anew);
        writeln!(text, "{}weight = 0", named(&format!("anew{number}"))).unwrap();
    }
    let config = Config::new(&env).global(&dns.resolver()).server("1", server.address).more(&text);
    let balancer = Balancer::start(&env, &config);
    let asked = || -> usize {
        (0..NAMES).map(|number| dns.asked(&format!("anew{number}.test"), RecordType::A)).sum()
    };
    let (started, before) = (Instant::now(), asked());
    let steady = holds_for(TIME, || fetch(env.frontend()).is_ok_and(|answer| answer == "1"));
    assert!(steady, "a session failed");
    let (times, seconds) = (asked() - before, started.elapsed().as_secs_f64());
    let names = NAMES as f64;
    assert!(times >= NAMES, "they are asked again: {times}");
    assert!((times as f64) < names * (seconds + 2.0), "{times} lookups in {seconds} s");
    let metrics = balancer.metrics();
    let version = metrics.value("evenkeel_table_version", &[]);
    assert!(version < 5.0 + names * (seconds + 4.0), "{version} tables in {seconds} s");
    for (name, addresses) in addresses(&balancer) {
        assert_eq!(addresses.len(), 1, "{name}: {addresses:?}");
    }
    // A lookup has two sockets at most, and 16 of them are made at a time.
    let (base, now) = (balancer.base.sockets, Descriptors::of(balancer.pid()).sockets);
    assert!(now < base + 50, "{base} sockets became {now}");
}
