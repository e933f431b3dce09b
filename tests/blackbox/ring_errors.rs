//! Calls of `io_uring_enter(2)` that fail in a worker: strace(1) makes the kernel answer with an
//! error.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::common::client::{connect, exchange};
use crate::common::process::ticks;
use crate::common::wait::{TIMEOUT, holds_for, until};
use crate::common::{Balancer, Config, Server, TestEnv, skip};

/// strace(1), attached to the first worker. Dropping it detaches it.
struct Injection(Child);

impl Injection {
    /// Lets calls of `io_uring_enter(2)` answer with an error from now on: `rule` is the end of an
    /// `inject` of strace. None if strace is missing or not permitted.
    fn start(balancer: &Balancer<'_>, rule: &str) -> Option<Self> {
        let threads = format!("/proc/{}/task", balancer.pid());
        let worker =
            fs::read_dir(threads).unwrap().flatten().map(|task| task.path()).find(|task| {
                fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "worker-0")
            });
        let worker = worker.unwrap();
        let mut command = Command::new("strace");
        command.args(["-qq", "-o", "/dev/null", "-e", "trace=io_uring_enter", "-e"]);
        command.arg(format!("inject=io_uring_enter:{rule}"));
        command.arg("-p").arg(worker.file_name().unwrap());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut strace = Self(command.spawn().ok()?);
        let mut permitted = true;
        until("strace is attached", || {
            permitted = strace.0.try_wait().unwrap().is_none();
            let status = fs::read_to_string(worker.join("status")).unwrap_or_default();
            !permitted || !status.contains("TracerPid:\t0\n")
        });
        permitted.then_some(strace)
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A balancer with one worker and an echo server.
fn balancer(env: &TestEnv) -> (Balancer<'_>, Server) {
    let server = Server::echo(env.port(9001));
    (Balancer::start(env, &Config::new(env).server("a", server.address)), server)
}

#[test]
fn a_worker_without_memory_for_requests_continues_when_there_is_some() {
    let env = TestEnv::new();
    let (balancer, _server) = balancer(&env);
    let session = connect(env.frontend());
    assert_eq!(exchange(&session, b"before"), b"before");
    for error in ["EAGAIN", "ENOMEM", "EBUSY"] {
        let Some(_injection) = Injection::start(&balancer, &format!("error={error}:when=1..40"))
        else {
            return skip(
                "a_worker_without_memory_for_requests_continues_when_there_is_some",
                "strace is missing or not permitted",
            );
        };
        for _ in 0..50 {
            assert_eq!(exchange(&session, b"during"), b"during", "{error}");
        }
        assert_eq!(exchange(&connect(env.frontend()), b"new"), b"new", "{error}");
    }
    drop(session);
    balancer.assert_no_leaks();
}

#[test]
fn a_worker_that_gets_no_memory_for_requests_waits_then_ends_the_process_with_the_reason() {
    let env = TestEnv::new();
    let (mut balancer, _server) = balancer(&env);
    let session = connect(env.frontend());
    assert_eq!(exchange(&session, b"before"), b"before");
    // Every second call: those between only wait.
    let Some(_injection) = Injection::start(&balancer, "error=EAGAIN:when=1+2") else {
        return skip(
            "a_worker_that_gets_no_memory_for_requests_waits_then_ends_the_process_with_the_reason",
            "strace is missing or not permitted",
        );
    };
    let (started, before) = (Instant::now(), ticks(balancer.pid()));
    let mut used = 0;
    // 10 seconds, in three waits, so that a busy machine has the time.
    assert!((0..3).any(|_| !holds_for(TIMEOUT, || {
        let runs = balancer.runs();
        used = if runs { ticks(balancer.pid()) - before } else { used };
        runs
    })));
    let log = balancer.application_log();
    assert!(log.contains("no memory for io_uring requests for 10 s (EAGAIN"), "{log}");
    let hundredths = started.elapsed().as_millis() / 10;
    assert!(u128::from(used) < hundredths / 2, "{used} of {hundredths} hundredths: it spins");
}

#[test]
fn lost_completions_end_the_process_with_a_message_that_names_the_cause() {
    let env = TestEnv::new();
    let (mut balancer, _server) = balancer(&env);
    let session = connect(env.frontend());
    assert_eq!(exchange(&session, b"before"), b"before");
    let Some(_injection) = Injection::start(&balancer, "error=EBADR:when=3") else {
        return skip(
            "lost_completions_end_the_process_with_a_message_that_names_the_cause",
            "strace is missing or not permitted",
        );
    };
    // Its own exchange is one of the calls that the kernel answers with the error.
    let other = connect(env.frontend());
    assert!(!balancer.wait().success());
    let log = balancer.application_log();
    assert!(log.contains("worker-0") && log.contains("dropped them (EBADR)"), "{log}");
    drop((session, other));
}
