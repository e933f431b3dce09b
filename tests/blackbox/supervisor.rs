//! Messages to a supervisor (`sd_notify(3)`), which may wait for them.

use std::io::{ErrorKind, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use socket2::SockRef;

use crate::common::balancer::{PROGRAM, run_command};
use crate::common::chain::Chain;
use crate::common::client::{connect, exchange};
use crate::common::frozen::Frozen;
use crate::common::wait::{TIMEOUT, holds_for, until};
use crate::common::{Balancer, Config, Server, TestEnv, echoing, skip};

/// The receiver of `NOTIFY_SOCKET`.
pub(crate) struct Supervisor(UnixDatagram);

impl Supervisor {
    fn of(env: &TestEnv, command: &mut Command) -> Self {
        let path = env.file("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        command.env("NOTIFY_SOCKET", path);
        Self(socket)
    }

    /// With an abstract socket.
    pub(crate) fn abstract_of(env: &TestEnv, command: &mut Command) -> Self {
        let name = format!("evenkeel-test-{}-{}", std::process::id(), env.frontend().ip());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        command.env("NOTIFY_SOCKET", format!("@{name}"));
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
    pub(crate) fn next(&self) -> String {
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

    /// The messages of the next `time`.
    fn messages(&self, time: Duration) -> Vec<String> {
        let mut messages = Vec::new();
        holds_for(time, || {
            messages.append(&mut self.rest());
            true
        });
        self.0.set_nonblocking(false).unwrap();
        messages
    }

    /// Waits until the watchdog is told that all is well.
    #[track_caller]
    fn until_told(&self) {
        drop(self.rest());
        self.0.set_nonblocking(false).unwrap();
        while self.next() != "WATCHDOG=1" {}
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

/// A watchdog of this time.
const WATCHDOG: Duration = Duration::from_secs(2);

/// Starts evenkeel under a supervisor with a watchdog.
fn start_watched<'a>(env: &'a TestEnv, config: &Config) -> (Balancer<'a>, Supervisor) {
    let mut command = run_command(env, &config.text());
    let supervisor = Supervisor::of(env, &mut command);
    command.env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    (Balancer::start_command(env, command), supervisor)
}

fn is_told(messages: &[String]) -> bool {
    messages.iter().any(|message| message.contains("WATCHDOG=1"))
}

#[test]
fn a_watchdog_is_told_only_while_every_worker_runs() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let (balancer, supervisor) = start_watched(&env, &config.workers(2));
    (0..3).for_each(|_| supervisor.until_told());
    let Some(frozen) = Frozen::thread(balancer.pid(), "worker-1") else {
        return skip("a_watchdog_is_told_only_while_every_worker_runs", "no ptrace(2) here");
    };
    until("the stuck worker is noticed", || balancer.application_log().contains(" is stuck: "));
    drop(supervisor.rest());
    let messages = supervisor.messages(2 * WATCHDOG);
    assert!(!is_told(&messages), "{messages:?}");
    drop(frozen);
    supervisor.until_told();
}

#[test]
fn a_process_that_was_replaced_does_not_tell_the_watchdog() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let (balancer, supervisor) = start_watched(&env, &config.global("drain_timeout = \"1h\""));
    let mut chain = Chain::of(balancer);
    // The old process does not end.
    let client = connect(env.frontend());
    assert_eq!(exchange(&client, b"in"), b"in");
    chain.upgrade();
    supervisor.until_told();
    chain.signal(1, Signal::SIGSTOP);
    let messages = supervisor.messages(2 * WATCHDOG);
    // One may have been on its way.
    let told = messages.iter().filter(|message| message.contains("WATCHDOG=1")).count();
    assert!(told <= 1, "{messages:?}");
    chain.signal(1, Signal::SIGCONT);
    supervisor.until_told();
}

#[test]
fn a_stuck_control_thread_does_not_stop_traffic_and_the_watchdog_is_not_told() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let (balancer, supervisor) = start_watched(&env, &config.workers(2));
    supervisor.until_told();
    let old = connect(env.frontend());
    assert_eq!(exchange(&old, b"before"), b"before");
    let Some(frozen) = Frozen::control_thread(balancer.pid()) else {
        let test = "a_stuck_control_thread_does_not_stop_traffic_and_the_watchdog_is_not_told";
        return skip(test, "no ptrace(2) here");
    };
    drop(supervisor.rest());
    let messages = supervisor.messages(2 * WATCHDOG);
    assert!(!is_told(&messages), "{messages:?}");
    for _ in 0..40 {
        assert_eq!(exchange(&connect(env.frontend()), b"new"), b"new");
    }
    assert_eq!(exchange(&old, b"old"), b"old");
    drop(frozen);
    supervisor.until_told();
    assert!(!balancer.application_log().contains(" is stuck: "));
}

#[test]
fn a_watchdog_of_another_process_is_not_told() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let mut command = run_command(&env, &config.text());
    let supervisor = Supervisor::of(&env, &mut command);
    command.env("WATCHDOG_USEC", "1000000").env("WATCHDOG_PID", "1");
    let _balancer = Balancer::start_command(&env, command);
    assert_eq!(supervisor.next(), "READY=1");
    let messages = supervisor.messages(WATCHDOG);
    assert!(!is_told(&messages), "{messages:?}");
}

/// How long it takes to end beside a supervisor and clients that do not read.
fn time_to_exit() -> Duration {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let (mut balancer, supervisor) = start_watched(&env, &config);
    supervisor.fill();
    // Requests whose answers nobody reads, halves of requests, and nothing at all.
    let mut silent = Vec::new();
    for request in ["GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "GET /metr", ""] {
        for _ in 0..20 {
            let mut client = connect(env.observe());
            SockRef::from(&client).set_recv_buffer_size(4096).unwrap();
            client.write_all(request.as_bytes()).unwrap();
            silent.push(client);
        }
    }
    let mut control = UnixStream::connect(env.file("control.sock")).unwrap();
    control.write_all(b"half of a line").unwrap();
    balancer.signal(Signal::SIGTERM);
    let begun = Instant::now();
    assert!(balancer.wait().success());
    let time = begun.elapsed();
    drop((silent, control));
    time
}

#[test]
fn a_supervisor_and_clients_that_do_not_read_do_not_delay_the_exit() {
    // Less than what any of them may take while evenkeel runs. A busy machine may delay one try.
    let is_quick = |_| time_to_exit() < Duration::from_secs(8);
    assert!((0..3).any(is_quick), "8 s or more, three times");
}
