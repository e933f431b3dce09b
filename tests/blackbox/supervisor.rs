//! What a supervisor is told (`sd_notify(3)`), which may wait for it.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::common::balancer::{PROGRAM, write_config};
use crate::common::client::{connect, exchange};
use crate::common::wait::{PATIENCE, until};
use crate::common::{Balancer, Config, Place, Server};

/// The other end of `NOTIFY_SOCKET`.
struct Supervisor(UnixDatagram);

impl Supervisor {
    fn of(place: &Place, command: &mut Command) -> Self {
        let path = place.file("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        command.env("NOTIFY_SOCKET", path);
        Self(socket)
    }

    /// Sends messages to it until its queue is full; it reads none of them yet.
    fn fill(&self) {
        let (sender, address) = (UnixDatagram::unbound().unwrap(), self.0.local_addr().unwrap());
        sender.set_nonblocking(true).unwrap();
        let full = (0..10_000).find_map(|_| sender.send_to_addr(b"STATUS=full", &address).err());
        assert_eq!(full.map(|error| error.kind()), Some(ErrorKind::WouldBlock));
    }

    /// The next change of state: the first word of a message that is no mere status.
    #[track_caller]
    fn told(&self) -> String {
        loop {
            let mut message = [0; 4096];
            let length = self.0.recv(&mut message).unwrap();
            let text = String::from_utf8_lossy(&message[..length]);
            let first = text.lines().next().unwrap_or_default();
            if !first.starts_with("STATUS=") {
                return first.to_owned();
            }
        }
    }

    /// What has been told and not been heard.
    fn rest(&self) -> Vec<String> {
        self.0.set_nonblocking(true).unwrap();
        let mut message = [0; 4096];
        let mut rest = Vec::new();
        while let Ok(length) = self.0.recv(&mut message) {
            rest.push(String::from_utf8_lossy(&message[..length]).into_owned());
        }
        rest
    }
}

#[test]
fn a_reload_that_is_refused_for_want_of_a_file_is_over_for_the_supervisor_too() {
    let place = Place::new();
    let server = Server::echo(place.port(9001));
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--bind", &place.frontend().to_string()]);
    command.args(["--server", &server.address.to_string()]);
    let supervisor = Supervisor::of(&place, &mut command);
    let balancer = Balancer::spawn(&place, command);
    assert_eq!(supervisor.told(), "READY=1");
    balancer.signal(Signal::SIGHUP);
    assert_eq!([supervisor.told(), supervisor.told()], ["RELOADING=1", "READY=1"]);
}

#[test]
fn who_is_stopping_is_not_ready_again_and_its_last_reload_has_not_failed() {
    let place = Place::new();
    let server = Server::echo(place.port(9001));
    let config = Config::new(&place).server("a", server.address);
    let mut command = Command::new(PROGRAM);
    command.arg("run").arg("-c").arg(write_config(&place, &config.text()));
    let supervisor = Supervisor::of(&place, &mut command);
    let mut balancer = Balancer::start_command(&place, command);
    let client = connect(place.frontend());
    assert_eq!(exchange(&client, b"in"), b"in");
    assert_eq!(supervisor.told(), "READY=1");
    // So large that the signal comes while it is read.
    balancer.rewrite(&(config.text() + &"# \n".repeat(600_000)));
    balancer.signal(Signal::SIGHUP);
    assert_eq!(supervisor.told(), "RELOADING=1");
    balancer.signal(Signal::SIGTERM);
    let told = supervisor.told();
    assert!(told == "STOPPING=1" || supervisor.told() == "STOPPING=1", "{told}");
    until("the reload has ended", || {
        let said = balancer.complaints();
        said.contains("no reload: evenkeel is draining") || said.contains("reloaded: ")
    });
    let failed = [("outcome", "failed")];
    assert_eq!(balancer.metrics().sum("evenkeel_reloads_total", &failed), 0.0);
    drop(client);
    assert!(balancer.wait().success());
    let rest = supervisor.rest();
    assert!(!rest.iter().any(|message| message.contains("READY=1")), "{rest:?}");
}

#[test]
fn a_supervisor_that_does_not_read_stops_nothing_and_is_told_of_the_start_once_it_reads() {
    let place = Place::new();
    let server = Server::echo(place.port(9001));
    let config = Config::new(&place).server("a", server.address);
    let mut command = Command::new(PROGRAM);
    command.arg("run").arg("-c").arg(write_config(&place, &config.text()));
    let supervisor = Supervisor::of(&place, &mut command);
    supervisor.fill();
    let _balancer = Balancer::start_command(&place, command);
    assert_eq!(exchange(&connect(place.frontend()), b"in"), b"in");
    assert_eq!(supervisor.told(), "READY=1");
}

#[test]
fn what_a_supervisor_did_not_read_is_sent_again_in_order_and_only_as_far_as_it_still_holds() {
    let place = Place::new();
    let server = Server::echo(place.port(9001));
    let config = Config::new(&place).server("a", server.address);
    let mut command = Command::new(PROGRAM);
    command.arg("run").arg("-c").arg(write_config(&place, &config.text()));
    let supervisor = Supervisor::of(&place, &mut command);
    let mut balancer = Balancer::start_command(&place, command);
    let client = connect(place.frontend());
    assert_eq!(exchange(&client, b"in"), b"in");
    assert_eq!(supervisor.told(), "READY=1");
    supervisor.fill();
    for _ in 0..20 {
        balancer.obeys(&["reload"]);
    }
    assert_eq!([supervisor.told(), supervisor.told()], ["RELOADING=1", "READY=1"]);
    supervisor.fill();
    balancer.obeys(&["reload"]);
    balancer.signal(Signal::SIGTERM);
    until("it drains", || balancer.complaints().contains("draining for"));
    assert_eq!(supervisor.told(), "STOPPING=1");
    drop(client);
    assert!(balancer.wait().success());
}

#[test]
fn a_supervisor_may_listen_on_an_abstract_socket() {
    let place = Place::new();
    let server = Server::echo(place.port(9001));
    let config = Config::new(&place).server("a", server.address);
    let mut command = Command::new(PROGRAM);
    command.arg("run").arg("-c").arg(write_config(&place, &config.text()));
    let name = place.file("notify").display().to_string();
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let supervisor = Supervisor(UnixDatagram::bind_addr(&address).unwrap());
    supervisor.0.set_read_timeout(Some(PATIENCE)).unwrap();
    command.env("NOTIFY_SOCKET", format!("@{name}"));
    let _balancer = Balancer::spawn(&place, command);
    assert_eq!(supervisor.told(), "READY=1");
}
