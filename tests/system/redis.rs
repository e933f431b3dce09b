//! Redis: pipelining, large values, subscribers, and a failover that the health check follows.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::common::wait::{holds_for, until};
use crate::common::{Balancer, Config, TestEnv};
use crate::program::{Program, run, run_text};
use crate::support::{assert_same, command, has_programs, noise};

const PROGRAMS: [&str; 2] = ["redis-server", "redis-cli"];

const PASSWORD: &str = "secret";

/// The master in rotation: it authenticates, and its role is asked for.
const MASTER_CHECK: &str = r#"check = "exchange"
exchange = [
    { send = "AUTH secret\r\n", expect = "+OK" },
    { send = "INFO replication\r\n", contains = "role:master" },
]
interval = "100ms"
interval_down = "100ms"
timeout = "1s"
rise = 2
fall = 2"#;

/// Starts a server; `more` are further options.
fn start(env: &TestEnv, port: u16, more: &[&str]) -> (SocketAddr, Program) {
    let address = env.port(port);
    let folder = env.file(&format!("redis-{port}"));
    fs::create_dir_all(&folder).unwrap();
    let mut server = command("redis-server");
    server.args(["--port", &port.to_string(), "--bind", &address.ip().to_string(), "--dir"]);
    server.arg(folder).args(["--save", "", "--appendonly", "no"]).args(more);
    let mut server = Program::start(env, server);
    server.until_listens(address);
    (address, server)
}

fn cli(address: SocketAddr, words: &[&str]) -> Command {
    let mut command = command("redis-cli");
    command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
    command.args(["--no-auth-warning", "--raw"]).args(words);
    command
}

/// A pipeline of `SET` commands in the protocol of Redis.
fn pipeline(count: usize) -> String {
    let bulk = |word: &str| format!("${}\r\n{word}\r\n", word.len());
    let set = |n| {
        let words = ["SET".to_owned(), format!("key-{n}"), format!("value-{n}")];
        format!("*3\r\n{}", words.map(|word| bulk(&word)).concat())
    };
    (0..count).map(set).collect()
}

#[test]
fn ten_thousand_pipelined_commands_are_answered() {
    if !has_programs("ten_thousand_pipelined_commands_are_answered", &PROGRAMS) {
        return;
    }
    let env = TestEnv::new();
    let (address, _server) = start(&env, 6379, &[]);
    let balancer = Balancer::start(&env, &Config::new(&env).server("a", address));
    let file = env.file("pipeline");
    fs::write(&file, pipeline(10_000)).unwrap();
    let pipe = cli(env.frontend(), &["--pipe"]);
    let pipe = Program::start_with(&env, pipe, File::open(file).unwrap().into()).wait();
    let report = pipe.text();
    assert!(report.contains("errors: 0, replies: 10000"), "{report} {}", pipe.stderr);
    assert_eq!(run_text(&env, cli(address, &["dbsize"])), "10000");
    assert_eq!(run_text(&env, cli(env.frontend(), &["get", "key-9999"])), "value-9999");
    let answers = run_text(&env, cli(env.frontend(), &["-r", "200", "incr", "n"]));
    assert_eq!(answers.lines().last(), Some("200"));
    balancer.assert_no_leaks();
}

#[test]
fn a_large_value_is_the_same_after_it_went_both_ways() {
    if !has_programs("a_large_value_is_the_same_after_it_went_both_ways", &PROGRAMS) {
        return;
    }
    let env = TestEnv::new();
    let (address, _server) = start(&env, 6379, &[]);
    let balancer = Balancer::start(&env, &Config::new(&env).server("a", address));
    let (file, value) = (env.file("value"), noise(32 << 20));
    fs::write(&file, &value).unwrap();
    let set = cli(env.frontend(), &["-x", "set", "large"]);
    let set = Program::start_with(&env, set, File::open(file).unwrap().into()).wait();
    assert_eq!(set.text(), "OK", "{}", set.stderr);
    let mut got = run(&env, cli(env.frontend(), &["get", "large"]));
    assert_eq!(got.pop(), Some(b'\n'), "redis-cli ends with a line break");
    assert_same(&got, &value);
    balancer.assert_no_leaks();
}

/// A subscriber whose subscription the server has confirmed.
fn subscribe(env: &TestEnv) -> Program {
    let subscriber = Program::start(env, cli(env.frontend(), &["subscribe", "news"]));
    until("it has subscribed", || subscriber.stdout().contains("subscribe\nnews\n1"));
    subscriber
}

#[test]
fn a_subscriber_hears_after_a_long_silence_without_an_idle_timeout() {
    if !has_programs("a_subscriber_hears_after_a_long_silence_without_an_idle_timeout", &PROGRAMS) {
        return;
    }
    let env = TestEnv::new();
    let (address, _server) = start(&env, 6379, &[]);
    let config = Config::new(&env).frontend("idle_timeout = \"off\"").server("a", address);
    let balancer = Balancer::start(&env, &config);
    let mut subscriber = subscribe(&env);
    let lives = || !subscriber.has_ended() && balancer.metrics().closed("done") == 0.0;
    assert!(holds_for(Duration::from_secs(3), lives));
    assert_eq!(run_text(&env, cli(address, &["publish", "news", "at last"])), "1");
    until("it hears", || subscriber.stdout().contains("message\nnews\nat last"));
    drop(subscriber);
    balancer.assert_no_leaks();
}

#[test]
fn a_silent_subscriber_is_closed_after_the_idle_timeout() {
    if !has_programs("a_silent_subscriber_is_closed_after_the_idle_timeout", &PROGRAMS) {
        return;
    }
    let env = TestEnv::new();
    let (address, _server) = start(&env, 6379, &[]);
    let config = Config::new(&env).frontend("idle_timeout = \"1s\"").server("a", address);
    let balancer = Balancer::start(&env, &config);
    let subscriber = subscribe(&env);
    balancer.session_ended("idle_timeout");
    let clients = || run_text(&env, cli(address, &["pubsub", "numsub", "news"]));
    drop(subscriber);
    until("the server has noticed", || clients() == "news\n0");
    balancer.assert_no_leaks();
}

#[test]
fn writes_follow_the_master_over_a_failover() {
    let name = "writes_follow_the_master_over_a_failover";
    if !has_programs(name, &PROGRAMS) {
        return;
    }
    let env = TestEnv::new();
    let secrets = ["--requirepass", PASSWORD, "--masterauth", PASSWORD];
    let (a, b) = (env.port(6379), env.port(6380));
    let config = Config::new(&env).workers(2).health(MASTER_CHECK).backend("on_down = \"close\"");
    let config = config.server("a", a).server("b", b);
    let (_, mut master) = start(&env, 6379, &secrets);
    let of = [a.ip().to_string(), a.port().to_string()].join(" ");
    let (_, replica) = start(&env, 6380, &[&secrets[..], &["--replicaof", &of]].concat());
    let ask = |address, words: &[&str]| {
        let mut command = cli(address, words);
        command.env("REDISCLI_AUTH", PASSWORD);
        Program::start(&env, command).wait().text()
    };
    until("the replica follows", || {
        ask(b, &["info", "replication"]).contains("master_link_status:up")
    });
    let balancer = Balancer::start(&env, &config);
    let up = |server: &str| balancer.metrics().up(server);
    until("the replica is out of rotation", || up("a") && !up("b"));
    for number in 0..20 {
        assert_eq!(ask(env.frontend(), &["set", &format!("before-{number}"), "1"]), "OK");
    }
    until("the replica has it all", || ask(b, &["dbsize"]) == "20");

    // A client that stays connected, on the master that is about to die.
    let mut listener = cli(env.frontend(), &["subscribe", "news"]);
    listener.env("REDISCLI_AUTH", PASSWORD);
    let listener = Program::start(&env, listener);
    until("it has subscribed", || listener.stdout().contains("subscribe\nnews\n1"));
    master.stop();
    balancer.metrics_until("the master is down", |metrics| !metrics.up("a"));
    assert_eq!(ask(b, &["replicaof", "no", "one"]), "OK");
    until("the new master is in rotation", || up("b"));
    for number in 0..20 {
        assert_eq!(ask(env.frontend(), &["set", &format!("after-{number}"), "1"]), "OK");
    }
    assert_eq!(ask(b, &["dbsize"]), "40");

    // The old master comes back as a replica: it answers, and stays out of rotation.
    let of = [b.ip().to_string(), b.port().to_string()].join(" ");
    let (_, old) = start(&env, 6379, &[&secrets[..], &["--replicaof", &of]].concat());
    until("the old master follows", || {
        ask(a, &["info", "replication"]).contains("master_link_status:up")
    });
    assert!(holds_for(Duration::from_secs(1), || up("b") && !up("a")));
    assert_eq!(ask(env.frontend(), &["set", "last", "1"]), "OK");
    drop((listener, old, replica));
}
