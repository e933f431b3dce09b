//! What a supervisor is told (`sd_notify(3)`), which may wait for it.

use std::os::unix::net::UnixDatagram;
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
