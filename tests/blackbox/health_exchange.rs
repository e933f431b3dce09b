//! Health checks that send bytes and expect bytes: check = "exchange".

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use evenkeel::sys::child::die_with_parent;

use crate::common::client::{connect, reset};
use crate::common::wait::{holds_for, pause};
use crate::common::{Balancer, Config, Server, TestEnv, skip, until};

/// Probes ten times a second; each decides.
pub(crate) fn exchange(steps: &str) -> String {
    format!(
        "check = \"exchange\"\ninterval = \"100ms\"\ninterval_down = \"100ms\"\ntimeout = \"1s\"\n\
         rise = 1\nfall = 1\nexchange = {steps}"
    )
}

/// A balancer with one server, `a`, that runs `handler` for each connection.
fn probing(
    env: &TestEnv,
    steps: &str,
    handler: impl Fn(TcpStream) + Send + Sync + 'static,
) -> (Server, Config) {
    let server = Server::start(env.port(9001), handler);
    let config = Config::new(env).health(&exchange(steps)).server("a", server.address);
    (server, config)
}

/// Waits for a line of the application log.
#[track_caller]
pub(crate) fn until_logged(balancer: &Balancer<'_>, text: &str) {
    until(&format!("the log has {text}"), || balancer.application_log().contains(text));
}

/// Asserts that the first probe takes the server down, and what the log says of it.
#[track_caller]
fn fails(env: &TestEnv, steps: &str, said: &str, handler: fn(TcpStream)) {
    let (_server, config) = probing(env, steps, handler);
    let balancer = Balancer::start(env, &config);
    until_logged(&balancer, &format!("server web/a is down: {said} (first probe)"));
}

/// Reads a line.
fn line(mut stream: &TcpStream) -> Vec<u8> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\n") && matches!(stream.read(&mut byte), Ok(1)) {
        line.push(byte[0]);
    }
    line
}

/// Writes byte by byte, each a segment of its own.
fn trickle(mut stream: &TcpStream, bytes: &[u8]) {
    for byte in bytes {
        // The probe may have ended.
        drop(stream.write_all(&[*byte]));
        pause(Duration::from_millis(1));
    }
}

/// A probe has passed, and none before it took the server down.
#[track_caller]
fn assert_passes(balancer: &Balancer<'_>) {
    balancer.metrics_until("a probe has passed", |metrics| {
        metrics.sum("evenkeel_probes_total", &[("result", "passed")]) >= 1.0
    });
    let log = balancer.application_log();
    assert!(!log.contains("is down"), "{log}");
}

#[test]
fn a_dialogue_goes_on_step_by_step_however_small_the_pieces_are() {
    let env = TestEnv::new();
    let (sender, received) = mpsc::channel();
    let steps = r#"[{ send = "AUTH secret\r\n", expect = "+OK\r\n" },
        { send = "PING\r\n", expect = "+PONG\r\n" },
        { send = "INFO replication\r\n", expect = "$", contains = "role:master" }]"#
        .replace('\n', "");
    let (_server, config) = probing(&env, &steps, move |stream| {
        for answer in ["+OK\r\n", "+PONG\r\n", "$20\r\n# x\r\nrole:master\r\n\r\n"] {
            drop(sender.send(line(&stream)));
            trickle(&stream, answer.as_bytes());
        }
    });
    let balancer = Balancer::start(&env, &config);
    balancer.metrics_until("three probes have passed", |metrics| {
        metrics.sum("evenkeel_probes_total", &[("result", "passed")]) >= 3.0
    });
    assert!(balancer.metrics().up("a"));
    assert!(!balancer.application_log().contains("is down"), "{}", balancer.application_log());
    let sent: Vec<Vec<u8>> = received.iter().take(3).collect();
    assert_eq!(sent.concat(), b"AUTH secret\r\nPING\r\nINFO replication\r\n");
}

#[test]
fn a_server_may_speak_first_and_a_step_may_only_send() {
    let env = TestEnv::new();
    let (sender, received) = mpsc::channel();
    let steps = r#"[{ expect = "220 " }, { send = "QUIT\r\n" }]"#;
    let (_server, config) = probing(&env, steps, move |mut stream| {
        drop(stream.write_all(b"220 mail.test ESMTP\r\n"));
        drop(sender.send(line(&stream)));
    });
    let balancer = Balancer::start(&env, &config);
    assert_eq!(received.recv().unwrap(), b"QUIT\r\n");
    until("the probe is shown", || balancer.control_ok(&["status"]).contains("  sent ("));
    assert!(balancer.metrics().up("a"));
}

#[test]
fn every_byte_can_be_sent_and_expected() {
    let env = TestEnv::new();
    let steps = r#"{ send = '\x00\xff\\\r\n', expect = "\\xff\u0000", contains = '\\' }"#;
    let (_server, config) = probing(&env, steps, |mut stream| {
        if line(&stream) == b"\x00\xff\\\r\n" {
            drop(stream.write_all(b"\xff\x00 \\"));
        }
    });
    let balancer = Balancer::start(&env, &config);
    assert_passes(&balancer);
}

#[test]
fn a_step_that_sends_drops_what_came_before_and_another_one_continues() {
    let env = TestEnv::new();
    // What is left of the banner is no answer to EHLO; both answers after it come together.
    let steps = r#"[{ expect = "220" }, { send = "EHLO x\r\n", expect = "250 x\r\n" },
        { expect = "334 y" }, { contains = "\r\n" }]"#
        .replace('\n', "");
    let (_server, config) = probing(&env, &steps, |mut stream| {
        drop(stream.write_all(b"220 250 x\r\n"));
        line(&stream);
        drop(stream.write_all(b"250 x\r\n334 y\r\n"));
        line(&stream);
    });
    let balancer = Balancer::start(&env, &config);
    assert_passes(&balancer);
}

#[test]
fn another_response_than_the_expected_one_is_shown_in_the_log() {
    let steps = r#"[{ send = "AUTH x\r\n", expect = "+OK" }, { send = "PING\r\n" }]"#;
    let said = r#"step 1: received "-NOAUTH Authentication required.\r\n", expected "+OK""#;
    fails(&TestEnv::new(), steps, said, |mut stream| {
        line(&stream);
        drop(stream.write_all(b"-NOAUTH Authentication required.\r\n"));
        // It does not wait for the end.
        line(&stream);
    });
}

#[test]
fn a_close_before_the_expected_response_is_a_failure() {
    let steps = r#"{ expect = "220 ready" }"#;
    let closed = r#"closed after "22", expected "220 ready""#;
    fails(&TestEnv::new(), steps, closed, |mut stream| drop(stream.write_all(b"22")));
    let closed = r#"closed without a response, expected "220 ready""#;
    fails(&TestEnv::new(), steps, closed, drop);
    let was_reset = r#"connection reset by peer"#;
    fails(&TestEnv::new(), steps, was_reset, reset);
}

#[test]
fn a_response_that_does_not_come_in_time_is_a_failure() {
    let silent = r#"no "role:master" within 1s"#;
    let steps = r#"{ send = "INFO\r\n", contains = "role:master" }"#;
    fails(&TestEnv::new(), steps, silent, |stream| while !line(&stream).is_empty() {});
    let slave = r#"no "role:master" within 1s, received "role:slave\r\n""#;
    fails(&TestEnv::new(), steps, slave, |mut stream| {
        drop(stream.write_all(b"role:slave\r\n"));
        while !line(&stream).is_empty() {}
    });
}

#[test]
fn a_response_has_a_limit() {
    let steps = r#"{ contains = "role:master" }"#;
    let shown = "#".repeat(80);
    let said = format!("16384 bytes without \"role:master\": \"{shown}\"...");
    fails(
        &TestEnv::new(),
        steps,
        &said,
        |mut stream| {
            while stream.write_all(&[b'#'; 1000]).is_ok() {}
        },
    );
}

#[test]
fn probes_of_bad_servers_leave_no_descriptor() {
    let env = TestEnv::new();
    let steps = r#"[{ send = "PING\r\n", expect = "+PONG" }, { send = "x", contains = "y" }]"#;
    let silent = Server::start(env.port(9001), |stream| while !line(&stream).is_empty() {});
    let closing = Server::start(env.port(9002), drop);
    let resetting = Server::start(env.port(9003), reset);
    let wrong = Server::start(env.port(9004), |mut stream| {
        drop(stream.write_all(b"+PONG\r\n"));
        while stream.write_all(&[b'#'; 1000]).is_ok() {}
    });
    let config = Config::new(&env).server("silent", silent.address);
    let config = config.server("closing", closing.address);
    let config = config.server("resetting", resetting.address).server("wrong", wrong.address);
    let config = config.server("dead", env.port(9005));
    let balancer = Balancer::start(&env, &config);
    let checked = config.clone().health(&exchange(steps).replace("\"1s\"", "\"300ms\""));
    balancer.reload(&checked);
    balancer.metrics_until("each server was probed often", |metrics| {
        ["silent", "closing", "resetting", "wrong", "dead"].iter().all(|server| {
            let labels = [("server", *server)];
            metrics.sum("evenkeel_probes_total", &labels) >= 5.0
        })
    });
    assert!(!balancer.metrics().up("silent"));
    balancer.reload(&config);
    balancer.assert_no_leaks();
}

/// A Redis server of this test.
struct Redis(Child);

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Starts redis-server at `address` with further arguments. None: it is not installed.
fn redis(env: &TestEnv, port: u16, arguments: &[&str]) -> Option<Redis> {
    let address = env.port(port);
    let folder = env.file(&format!("redis-{port}"));
    std::fs::create_dir_all(&folder).unwrap();
    let mut command = Command::new("redis-server");
    command.args(["--bind", &address.ip().to_string(), "--port", &port.to_string()]);
    command.args(["--save", "", "--requirepass", "secret", "--masterauth", "secret", "--dir"]);
    command.arg(folder).args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    die_with_parent(&mut command);
    let redis = Redis(command.spawn().ok()?);
    until("Redis listens", || TcpStream::connect(address).is_ok());
    Some(redis)
}

/// Sends commands to a Redis server, and reads so many lines of its answer.
fn redis_command(env: &TestEnv, port: u16, commands: &str, lines: usize) {
    let mut stream = connect(env.port(port));
    stream.write_all(format!("AUTH secret\r\n{commands}\r\n").as_bytes()).unwrap();
    for _ in 0..=lines {
        let answer = String::from_utf8(line(&stream)).unwrap();
        assert!(answer.starts_with('+'), "{answer}");
    }
}

/// Of a Redis master behind AUTH.
pub(crate) const MASTER: &str = r#"[
    { send = "AUTH secret\r\n", expect = "+OK\r\n" },
    { send = "PING\r\n", expect = "+PONG\r\n" },
    { send = "INFO replication\r\n", contains = "role:master" },
]"#;

#[test]
fn of_two_redis_servers_behind_auth_the_master_is_up() {
    let env = TestEnv::new();
    let (one, other) = (env.port(9001), env.port(9002));
    let Some(_one) = redis(&env, 9001, &[]) else {
        return skip("of_two_redis_servers_behind_auth_the_master_is_up", "no redis-server");
    };
    let _other = redis(&env, 9002, &["--replicaof", &one.ip().to_string(), "9001"]).unwrap();
    let config = Config::new(&env).health(&exchange(MASTER));
    let balancer = Balancer::start(&env, &config.server("one", one).server("other", other));
    balancer.metrics_until("the replica is down", |metrics| !metrics.up("other"));
    let up = || {
        let metrics = balancer.metrics();
        metrics.up("one") && !metrics.up("other")
    };
    assert!(holds_for(Duration::from_millis(500), up));
    assert!(balancer.application_log().contains("step 3: no \"role:master\" within 1s, received"));
    // The roles change.
    redis_command(&env, 9002, "REPLICAOF NO ONE", 1);
    redis_command(&env, 9001, &format!("REPLICAOF {} 9002", one.ip()), 1);
    balancer.metrics_until("the new master is up and the old one is down", |metrics| {
        metrics.up("other") && !metrics.up("one")
    });
    // A client reaches it.
    let mut client = connect(env.frontend());
    client.write_all(b"AUTH secret\r\nSET a b\r\n").unwrap();
    assert_eq!((line(&client), line(&client)), (b"+OK\r\n".to_vec(), b"+OK\r\n".to_vec()));
    drop(client);
}

#[test]
fn a_redis_server_with_another_password_is_down() {
    let env = TestEnv::new();
    let Some(_redis) = redis(&env, 9001, &[]) else {
        return skip("a_redis_server_with_another_password_is_down", "no redis-server");
    };
    let config = Config::new(&env).health(&exchange(&MASTER.replace("secret", "wrong")));
    let balancer = Balancer::start(&env, &config.server("a", env.port(9001)));
    until_logged(&balancer, "server web/a is down: step 1: received \"-WRONGPASS ");
    // The password itself is not logged.
    assert!(!balancer.application_log().contains("AUTH"), "{}", balancer.application_log());
}
