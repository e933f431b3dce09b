//! The life of the process: ready, draining, stopped; and its logs.

use std::fs;
use std::net::{TcpStream, UdpSocket};
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::common::balancer::{PROGRAM, write_config};
use crate::common::client::{Ending, connect, exchange, fate, read_out};
use crate::common::wait::{PATIENCE, until};
use crate::common::{Balancer, Config, Place, Server, http, skip};

/// Each of them drains; SIGUSR1 is HAProxy's soft stop.
const DRAINS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGUSR1];

fn echoing(place: &Place) -> (Config, Server) {
    let server = Server::echo(place.port(9001));
    (Config::new(place).server("a", server.address), server)
}

#[test]
fn health_pages_tell_a_running_one_from_a_draining_one() {
    let place = Place::new();
    let (config, _server) = echoing(&place);
    let balancer = Balancer::start(&place, &config);
    let status = |path| http::get(place.observe(), path).unwrap().0;
    assert_eq!((status("/healthz"), status("/readyz"), status("/nothing")), (200, 200, 404));
    let client = connect(place.frontend());
    assert_eq!(exchange(&client, b"in"), b"in");
    balancer.signal(Signal::SIGTERM);
    until("it says that it drains", || status("/readyz") == 503);
    assert_eq!(status("/healthz"), 200);
}

#[test]
fn on_sigterm_running_sessions_end_by_themselves_and_new_ones_are_refused() {
    for signal in DRAINS {
        let place = Place::new();
        let (config, _server) = echoing(&place);
        let mut balancer = Balancer::start(&place, &config.workers(2));
        let client = connect(place.frontend());
        assert_eq!(exchange(&client, b"before"), b"before");
        balancer.signal(signal);
        until("new ones are refused", || TcpStream::connect(place.frontend()).is_err());
        assert!(balancer.runs());
        assert_eq!(exchange(&client, b"after"), b"after");
        drop(client);
        assert!(balancer.wait().success());
        balancer.session_ended("-- done");
    }
}

#[test]
fn on_a_signal_that_comes_while_names_are_resolved_it_ends_before_it_is_ready() {
    if !geteuid().is_root() {
        let test = "on_a_signal_that_comes_while_names_are_resolved_it_ends_before_it_is_ready";
        return skip(test, "only root may put another /etc/resolv.conf in place");
    }
    for signal in DRAINS {
        let place = Place::new();
        // A DNS server that does not answer.
        let dns = UdpSocket::bind(place.port(53)).unwrap();
        dns.set_read_timeout(Some(PATIENCE)).unwrap();
        let resolv_conf = place.file("resolv.conf");
        fs::write(&resolv_conf, format!("nameserver {}\n", place.port(53).ip())).unwrap();
        let text = Config::new(&place).server("a", place.port(9001)).text();
        let text = text.replace(&place.port(9001).to_string(), "web1.example:80");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c"]);
        command.arg("mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"").arg(resolv_conf);
        command.args([PROGRAM, "run", "-c"]).arg(write_config(&place, &text));
        let mut balancer = Balancer::spawn(&place, command);
        dns.recv(&mut [0; 512]).unwrap();
        balancer.signal(signal);
        let status = balancer.wait();
        let said = balancer.complaints();
        assert!(status.success(), "{signal}: {status}: {said}");
        assert!(said.contains("stopped before it was ready"), "{signal}: {said}");
        assert!(!said.contains(" runs: "), "{signal}: {said}");
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    let place = Place::new();
    let (config, _server) = echoing(&place);
    let mut balancer = Balancer::start(&place, &config.global("drain_timeout = \"1h\""));
    let client = connect(place.frontend());
    assert_eq!(exchange(&client, b"in"), b"in");
    balancer.signal(Signal::SIGTERM);
    until("it drains", || TcpStream::connect(place.frontend()).is_err());
    balancer.signal(Signal::SIGTERM);
    assert!(balancer.wait().success());
    assert!(read_out(&client).0.is_empty());
    balancer.session_ended("KD killed");
}

#[test]
fn a_drain_ends_at_its_timeout() {
    let place = Place::new();
    let (config, _server) = echoing(&place);
    let mut balancer = Balancer::start(&place, &config.global("drain_timeout = \"300ms\""));
    let client = connect(place.frontend());
    assert_eq!(exchange(&client, b"in"), b"in");
    balancer.signal(Signal::SIGTERM);
    assert!(balancer.wait().success());
    assert!(read_out(&client).0.is_empty());
    balancer.session_ended("KD drain_timeout");
}

#[test]
fn nothing_is_left_where_it_listened() {
    let place = Place::new();
    let (config, _server) = echoing(&place);
    let mut balancer = Balancer::start(&place, &config);
    assert_eq!(exchange(&connect(place.frontend()), b"in"), b"in");
    balancer.signal(Signal::SIGTERM);
    balancer.signal(Signal::SIGTERM);
    assert!(balancer.wait().success());
    assert!(!place.file("control.sock").exists());
    // And it can be started again at once.
    drop(balancer);
    Balancer::start(&place, &config);
}

#[test]
fn a_session_is_one_line_in_the_log() {
    let place = Place::new();
    let (config, _server) = echoing(&place);
    let balancer = Balancer::start(&place, &config);
    let client = connect(place.frontend());
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
    let place = Place::new();
    let (config, _server) = echoing(&place);
    let balancer = Balancer::start(&place, &config.log("format = \"json\""));
    let client = connect(place.frontend());
    let from = client.local_addr().unwrap().to_string();
    assert_eq!(exchange(&client, b"five!"), b"five!");
    drop(client);
    until("it is logged", || balancer.sessions().len() == 1);
    let record: serde_json::Value = serde_json::from_str(&balancer.sessions()[0]).unwrap();
    assert_eq!(record["client"], from.as_str());
    assert!(record["timestamp"].is_string(), "{record}");
    assert_eq!((&record["server"], &record["bytes_in"]), (&"a".into(), &5.into()));
    assert_eq!((&record["letters"], &record["reason"]), (&"--".into(), &"done".into()));
    for line in balancer.complaints().lines() {
        let line = serde_json::from_str::<serde_json::Value>(line).unwrap();
        assert!(line["timestamp"].is_string(), "as in a session record: {line}");
    }
}

#[test]
fn a_session_log_that_nobody_wants_is_not_written() {
    let place = Place::new();
    let (config, _server) = echoing(&place);
    let balancer = Balancer::start(&place, &config.log("sessions = false"));
    let client = connect(place.frontend());
    assert_eq!(exchange(&client, b"in"), b"in");
    drop(client);
    balancer.books_balance();
    assert!(balancer.sessions().is_empty());
}

#[test]
fn a_client_that_was_refused_at_the_end_was_reset_and_not_answered() {
    let place = Place::new();
    let config = Config::new(&place).server("a", place.port(9001));
    let balancer = Balancer::start(&place, &config);
    assert_eq!(fate(place.frontend()), (Vec::new(), Ending::Reset));
    balancer.session_ended("SC connect_failed");
}
