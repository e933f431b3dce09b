//! The phases of the process (ready, draining, stopped) and its logs.

use std::fs;
use std::net::{TcpStream, UdpSocket};
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::common::balancer::{PROGRAM, write_config};
use crate::common::client::{Ending, connect, connect_and_read, exchange, read_to_end};
use crate::common::wait::{TIMEOUT, until};
use crate::common::{Balancer, Config, TestEnv, echoing, http, skip};

/// Each of these signals starts a drain. SIGUSR1 is the soft stop of HAProxy.
const DRAINS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGUSR1];

#[test]
fn readyz_answers_503_during_a_drain_and_healthz_200() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let balancer = Balancer::start(&env, &config);
    let status = |path| http::get(env.observe(), path).unwrap().0;
    assert_eq!((status("/healthz"), status("/readyz"), status("/nothing")), (200, 200, 404));
    let client = connect(env.frontend());
    assert_eq!(exchange(&client, b"in"), b"in");
    balancer.signal(Signal::SIGTERM);
    until("/readyz answers 503", || status("/readyz") == 503);
    assert_eq!(status("/healthz"), 200);
}

#[test]
fn during_drain_delay_clients_are_accepted_and_readyz_answers_503() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let mut balancer = Balancer::start(&env, &config.global("drain_delay = \"8s\""));
    let status = |path| http::get(env.observe(), path).unwrap().0;
    balancer.signal(Signal::SIGTERM);
    until("/readyz answers 503", || status("/readyz") == 503);
    let client = connect(env.frontend());
    assert_eq!(exchange(&client, b"accepted"), b"accepted");
    assert_eq!(status("/readyz"), 503);
    let shown = balancer.control_ok(&["status"]);
    assert!(shown.contains(", running (draining soon), "), "{shown}");
    until("new connections are refused", || TcpStream::connect(env.frontend()).is_err());
    assert_eq!(exchange(&client, b"continues"), b"continues");
    drop(client);
    assert!(balancer.wait().success());
}

#[test]
fn a_second_signal_during_drain_delay_stops_at_once() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let mut balancer = Balancer::start(&env, &config.global("drain_delay = \"1h\""));
    let client = connect(env.frontend());
    assert_eq!(exchange(&client, b"in"), b"in");
    balancer.signal(Signal::SIGTERM);
    let log = || balancer.application_log();
    until("the drain is announced", || log().contains("draining in 3600s"));
    balancer.signal(Signal::SIGTERM);
    assert_eq!(read_to_end(&client), (Vec::new(), Ending::Reset));
    assert!(balancer.wait().success());
}

#[test]
fn a_drain_refuses_new_sessions_and_lets_existing_ones_continue() {
    for signal in DRAINS {
        let env = TestEnv::new();
        let (config, _server) = echoing(&env);
        let mut balancer = Balancer::start(&env, &config.workers(2));
        let client = connect(env.frontend());
        assert_eq!(exchange(&client, b"before"), b"before");
        balancer.signal(signal);
        until("new connections are refused", || TcpStream::connect(env.frontend()).is_err());
        assert!(balancer.runs());
        assert_eq!(exchange(&client, b"after"), b"after");
        drop(client);
        assert!(balancer.wait().success());
        balancer.session_ended("-- done");
    }
}

#[test]
fn a_signal_while_host_names_are_resolved_stops_the_start() {
    if !geteuid().is_root() {
        let test = "a_signal_while_host_names_are_resolved_stops_the_start";
        return skip(test, "only root may replace /etc/resolv.conf");
    }
    for signal in DRAINS {
        let env = TestEnv::new();
        // A DNS server that does not answer.
        let dns = UdpSocket::bind(env.port(53)).unwrap();
        dns.set_read_timeout(Some(TIMEOUT)).unwrap();
        let resolv_conf = env.file("resolv.conf");
        fs::write(&resolv_conf, format!("nameserver {}\n", env.port(53).ip())).unwrap();
        let text = Config::new(&env).server("a", env.port(9001)).text();
        let text = text.replace(&env.port(9001).to_string(), "web1.example:80");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c"]);
        command.arg("mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"").arg(resolv_conf);
        command.args([PROGRAM, "run", "-c"]).arg(write_config(&env, &text));
        let mut balancer = Balancer::spawn(&env, command);
        dns.recv(&mut [0; 512]).unwrap();
        balancer.signal(signal);
        let status = balancer.wait();
        let log = balancer.application_log();
        assert!(status.success(), "{signal}: {status}: {log}");
        assert!(log.contains("stopped before it was ready"), "{signal}: {log}");
        assert!(!log.contains(" runs: "), "{signal}: {log}");
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let mut balancer = Balancer::start(&env, &config.global("drain_timeout = \"1h\""));
    let client = connect(env.frontend());
    assert_eq!(exchange(&client, b"in"), b"in");
    balancer.signal(Signal::SIGTERM);
    until("the drain has begun", || TcpStream::connect(env.frontend()).is_err());
    balancer.signal(Signal::SIGTERM);
    assert!(balancer.wait().success());
    assert!(read_to_end(&client).0.is_empty());
    balancer.session_ended("KD killed");
}

#[test]
fn a_drain_ends_at_its_timeout() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let mut balancer = Balancer::start(&env, &config.global("drain_timeout = \"300ms\""));
    let client = connect(env.frontend());
    assert_eq!(exchange(&client, b"in"), b"in");
    balancer.signal(Signal::SIGTERM);
    assert!(balancer.wait().success());
    assert!(read_to_end(&client).0.is_empty());
    balancer.session_ended("KD drain_timeout");
}

#[test]
fn a_stop_removes_the_control_socket_and_frees_the_ports() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let mut balancer = Balancer::start(&env, &config);
    assert_eq!(exchange(&connect(env.frontend()), b"in"), b"in");
    balancer.signal(Signal::SIGTERM);
    balancer.signal(Signal::SIGTERM);
    assert!(balancer.wait().success());
    assert!(!env.file("control.sock").exists());
    // It can be started again at once.
    drop(balancer);
    Balancer::start(&env, &config);
}

#[test]
fn a_session_is_one_line_in_a_text_log() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let balancer = Balancer::start(&env, &config);
    let client = connect(env.frontend());
    let from = client.local_addr().unwrap().to_string();
    assert_eq!(exchange(&client, b"five!"), b"five!");
    drop(client);
    let line = balancer.session_ended("-- done");
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(words[1], from, "{line}");
    assert_eq!((words[2], words[3], words[5]), ("web", "web/a", "5/5"), "{line}");
    assert_eq!(balancer.sessions().len(), 1);
}

#[test]
fn a_session_is_one_object_in_a_json_log() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let balancer = Balancer::start(&env, &config.log("format = \"json\""));
    let client = connect(env.frontend());
    let from = client.local_addr().unwrap().to_string();
    assert_eq!(exchange(&client, b"five!"), b"five!");
    drop(client);
    until("the session is logged", || balancer.sessions().len() == 1);
    let record: serde_json::Value = serde_json::from_str(&balancer.sessions()[0]).unwrap();
    assert_eq!(record["client"], from.as_str());
    assert!(record["timestamp"].is_string(), "{record}");
    assert_eq!((&record["server"], &record["bytes_in"]), (&"a".into(), &5.into()));
    assert_eq!((&record["letters"], &record["reason"]), (&"--".into(), &"done".into()));
    for line in balancer.application_log().lines() {
        let line = serde_json::from_str::<serde_json::Value>(line).unwrap();
        assert!(line["timestamp"].is_string(), "as in a session record: {line}");
    }
}

#[test]
fn a_session_log_that_is_turned_off_is_not_written() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let balancer = Balancer::start(&env, &config.log("sessions = false"));
    let client = connect(env.frontend());
    assert_eq!(exchange(&client, b"in"), b"in");
    drop(client);
    balancer.assert_no_leaks();
    assert!(balancer.sessions().is_empty());
}

#[test]
fn a_client_without_a_server_is_reset_and_logged() {
    let env = TestEnv::new();
    let config = Config::new(&env).server("a", env.port(9001));
    let balancer = Balancer::start(&env, &config);
    assert_eq!(connect_and_read(env.frontend()), (Vec::new(), Ending::Reset));
    balancer.session_ended("SC connect_failed");
}
