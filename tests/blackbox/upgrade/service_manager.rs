//! Upgrades under a service manager: the order of its messages, and sockets that it passes.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{self, UnixListener};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use socket2::{Domain, Socket, Type};

use super::load::listening;
use super::*;
use crate::common::http;
use crate::common::process::status_number;
use crate::supervisor::Supervisor;

#[test]
fn the_main_process_changes_before_the_new_one_is_ready_and_the_old_one_is_not_stopping() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let mut command = run_command(&env, &config.text());
    let supervisor = Supervisor::abstract_of(&env, &mut command);
    let mut chain = Chain::of(Balancer::start_command(&env, command));
    assert_eq!(supervisor.next(), "READY=1");
    for number in 1..=2 {
        chain.upgrade();
        // Only the main process may name another one; then that one speaks.
        assert_eq!(supervisor.next(), format!("MAINPID={}", chain.pid()));
        let parent = status_number(chain.pid(), "PPid").unwrap();
        assert_ne!(parent, u64::from(chain.pids[number - 1]), "systemd waits for its children");
        let mut rest = [supervisor.next(), supervisor.next()];
        rest.sort();
        // The old process waits until what it sent was read, and says no more.
        assert_eq!(rest, ["BARRIER=1", "READY=1"]);
        chain.ended(number - 1);
    }
    chain.signal(2, Signal::SIGTERM);
    assert_eq!(supervisor.next(), "STOPPING=1");
    chain.ended(2);
}

#[test]
fn an_upgrade_that_fails_says_nothing_to_the_service_manager() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let mut command = run_command(&env, &config.text());
    let supervisor = Supervisor::abstract_of(&env, &mut command);
    let chain = Chain::of(Balancer::start_command(&env, command));
    assert_eq!(supervisor.next(), "READY=1");
    chain.rewrite("junk");
    chain.fails();
    chain.rewrite(&config.text());
    chain.first.signal(Signal::SIGHUP);
    assert_eq!([supervisor.next(), supervisor.next()], ["RELOADING=1", "READY=1"]);
}

/// Starts evenkeel with descriptors from 3 on, as systemd passes sockets. For a test that runs
/// alone: programs that others start meanwhile would have them too.
pub(super) fn with_passed<'a>(
    env: &'a TestEnv,
    config: &Config,
    sockets: &[&dyn AsFd],
    names: &str,
) -> Chain<'a> {
    let file = write_config(env, &config.text());
    let numbers = sockets.iter().map(|socket| socket.as_fd().as_raw_fd()).zip(3..);
    // First to numbers that nothing has: one of them may be 3 itself.
    let first: String =
        numbers.clone().map(|(from, to)| format!("{}<&{from} ", 200 + to)).collect();
    let then: String = numbers.map(|(_, to)| format!("{to}<&{0} {0}<&- ", 200 + to)).collect();
    let script = format!("export LISTEN_PID=$$; exec {first}; exec {then}; exec \"$@\"");
    let mut command = Command::new("bash");
    command.args(["-c", &script, "bash", PROGRAM, "run", "-c"]).arg(file);
    command.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDNAMES", names);
    let closed_by_exec = |flags: FdFlag| {
        for socket in sockets {
            fcntl(socket.as_fd(), FcntlArg::F_SETFD(flags)).unwrap();
        }
    };
    closed_by_exec(FdFlag::empty());
    let chain = Chain::of(Balancer::start_command(env, command));
    closed_by_exec(FdFlag::FD_CLOEXEC);
    chain
}

fn bound(address: SocketAddr) -> TcpListener {
    TcpListener::bind(address).unwrap()
}

#[test]
fn sockets_of_a_service_manager_are_used_by_their_addresses() {
    let env = TestEnv::exclusive();
    let (config, _server) = echoing(&env);
    let path = env.file("in.sock");
    let more = format!("[frontend.path]\nbind = [\"unix:{}\"]\nbackend = \"web\"", path.display());
    let config = config.workers(2).more(&more);
    // Clients that came before evenkeel was started wait in the backlog.
    let frontend = bound(env.frontend());
    let early = connect(env.frontend());
    let observe = bound(env.observe());
    let unix = UnixListener::bind(&path).unwrap();
    let control = UnixListener::bind(env.file("control.sock")).unwrap();
    let other = bound(env.port(8009));
    let sockets: [&dyn AsFd; 5] = [&frontend, &observe, &unix, &control, &other];
    let mut chain = with_passed(&env, &config, &sockets, "web:status:path:control:other");
    drop((observe, control, other));
    assert_eq!(exchange(&early, b"early"), b"early");
    chain.logged("(other) is not used");
    chain.control_ok(&["status"]);
    net::UnixStream::connect(&path).unwrap();
    chain.upgrade();
    chain.logged("process");
    assert_eq!(exchange(&early, b"still"), b"still");
    drop(early);
    chain.ended(0);
    let late = connect(env.frontend());
    assert_eq!(exchange(&late, b"late"), b"late");
    assert_eq!(http::get(env.observe(), "/readyz").unwrap().0, 200);
    let environment = fs::read_to_string(format!("/proc/{}/environ", chain.pid())).unwrap();
    assert!(!environment.contains("LISTEN_"), "{environment}");
    drop(late);
    chain.signal(1, Signal::SIGTERM);
    chain.ended(1);
    // The files are the service manager's.
    assert!(path.exists() && env.file("control.sock").exists());
    drop(frontend);
    until("nobody listens any more", || TcpStream::connect(env.frontend()).is_err());
}

#[test]
fn each_worker_accepts_at_an_address_of_which_a_service_manager_has_one_socket() {
    let env = TestEnv::exclusive();
    let (config, _server) = echoing(&env);
    // As with `ReusePort=true`.
    let frontend = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    frontend.set_reuse_port(true).unwrap();
    frontend.bind(&env.frontend().into()).unwrap();
    frontend.listen(64).unwrap();
    let chain = with_passed(&env, &config.workers(4), &[&frontend], "web");
    assert_eq!(listening(chain.pid(), env.frontend()), 4);
    for _ in 0..80 {
        assert_eq!(exchange(&connect(env.frontend()), b"served"), b"served");
    }
}
