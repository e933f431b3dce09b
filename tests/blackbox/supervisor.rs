//! Messages to a supervisor (`sd_notify(3)`), which may wait for them.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::common::balancer::{PROGRAM, run_command};
use crate::common::client::{connect, exchange};
use crate::common::wait::{TIMEOUT, until};
use crate::common::{Balancer, Config, Server, TestEnv, echoing};

/// The receiver of `NOTIFY_SOCKET`.
struct Supervisor(UnixDatagram);

impl Supervisor {
    fn of(env: &TestEnv, command: &mut Command) -> Self {
        let path = env.file("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
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

    /// The next change of state: the first line of a message that is not only a `STATUS`.
    #[track_caller]
    fn next(&self) -> String {
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

    /// All messages that are left.
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

/// Starts evenkeel under a supervisor, and waits until it is ready.
fn start_supervised<'a>(env: &'a TestEnv, config: &Config) -> (Balancer<'a>, Supervisor) {
    let mut command = run_command(env, &config.text());
    let supervisor = Supervisor::of(env, &mut command);
    (Balancer::start_command(env, command), supervisor)
}

#[test]
fn a_reload_without_a_configuration_file_ends_with_ready() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--bind", &env.frontend().to_string()]);
    command.args(["--server", &server.address.to_string()]);
    let supervisor = Supervisor::of(&env, &mut command);
    let balancer = Balancer::spawn(&env, command);
    assert_eq!(supervisor.next(), "READY=1");
    balancer.signal(Signal::SIGHUP);
    assert_eq!([supervisor.next(), supervisor.next()], ["RELOADING=1", "READY=1"]);
}

#[test]
fn after_stopping_no_ready_follows_and_the_last_reload_has_not_failed() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let (mut balancer, supervisor) = start_supervised(&env, &config);
    let client = connect(env.frontend());
    assert_eq!(exchange(&client, b"in"), b"in");
    assert_eq!(supervisor.next(), "READY=1");
    // A file so large that SIGTERM comes while it is read.
    balancer.rewrite(&(config.text() + &"# \n".repeat(300_000)));
    balancer.signal(Signal::SIGHUP);
    assert_eq!(supervisor.next(), "RELOADING=1");
    balancer.signal(Signal::SIGTERM);
    let message = supervisor.next();
    assert!(message == "STOPPING=1" || supervisor.next() == "STOPPING=1", "{message}");
    until("the reload has ended", || {
        let log = balancer.application_log();
        log.contains("no reload: evenkeel is draining") || log.contains("reloaded: ")
    });
    let failed = [("outcome", "failed")];
    assert_eq!(balancer.metrics().sum("evenkeel_reloads_total", &failed), 0.0);
    drop(client);
    assert!(balancer.wait().success());
    let rest = supervisor.rest();
    assert!(!rest.iter().any(|message| message.contains("READY=1")), "{rest:?}");
}

#[test]
fn a_supervisor_that_does_not_read_blocks_nothing_and_gets_ready_later() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let mut command = run_command(&env, &config.text());
    let supervisor = Supervisor::of(&env, &mut command);
    supervisor.fill();
    let _balancer = Balancer::start_command(&env, command);
    assert_eq!(exchange(&connect(env.frontend()), b"in"), b"in");
    assert_eq!(supervisor.next(), "READY=1");
}

#[test]
fn messages_that_did_not_fit_are_sent_later_in_order_unless_they_are_outdated() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let (mut balancer, supervisor) = start_supervised(&env, &config);
    let client = connect(env.frontend());
    assert_eq!(exchange(&client, b"in"), b"in");
    assert_eq!(supervisor.next(), "READY=1");
    supervisor.fill();
    for _ in 0..20 {
        balancer.control_ok(&["reload"]);
    }
    assert_eq!([supervisor.next(), supervisor.next()], ["RELOADING=1", "READY=1"]);
    supervisor.fill();
    balancer.control_ok(&["reload"]);
    balancer.signal(Signal::SIGTERM);
    until("the drain has begun", || balancer.application_log().contains("draining for"));
    assert_eq!(supervisor.next(), "STOPPING=1");
    drop(client);
    assert!(balancer.wait().success());
}

#[test]
fn the_socket_of_a_supervisor_may_be_abstract() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let mut command = run_command(&env, &config.text());
    let name = env.file("notify").display().to_string();
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let supervisor = Supervisor(UnixDatagram::bind_addr(&address).unwrap());
    supervisor.0.set_read_timeout(Some(TIMEOUT)).unwrap();
    command.env("NOTIFY_SOCKET", format!("@{name}"));
    let _balancer = Balancer::spawn(&env, command);
    assert_eq!(supervisor.next(), "READY=1");
}
