//! Logs to a stream that is full, closed or not read: only log lines are lost.

use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;

use crate::common::balancer::{Outputs, PROGRAM, write_config};
use crate::common::client::{Ending, connect, connect_and_read, exchange, fetch};
use crate::common::metrics::Metrics;
use crate::common::wait::until;
use crate::common::{Balancer, Config, Server, TestEnv};

fn naming(env: &TestEnv) -> (Config, Server) {
    let server = Server::naming("a", env.port(9001));
    (Config::new(env).server("a", server.address), server)
}

fn run_command(env: &TestEnv, config: &Config) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("run").arg("-c").arg(write_config(env, &config.text()));
    command
}

fn with_stderr<'a>(env: &'a TestEnv, config: &Config, stderr: impl Into<Stdio>) -> Balancer<'a> {
    let outputs = Outputs { stderr: stderr.into(), ..Outputs::of(env) };
    Balancer::start_with(env, run_command(env, config), outputs)
}

fn full_disk() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// Asserts that evenkeel serves, reloads, and stops in order.
#[track_caller]
fn assert_works(env: &TestEnv, mut balancer: Balancer<'_>) {
    let reloads = |balancer: &Balancer<'_>, outcome| {
        balancer.metrics().sum("evenkeel_reloads_total", &[("outcome", outcome)])
    };
    balancer.signal(Signal::SIGHUP);
    until("a reload is done", || reloads(&balancer, "done") == 1.0);
    balancer.rewrite("no [ configuration");
    balancer.signal(Signal::SIGHUP);
    until("a reload has failed", || reloads(&balancer, "failed") == 1.0);
    assert_eq!(fetch(env.frontend()).unwrap(), "a");
    balancer.signal(Signal::SIGTERM);
    assert!(balancer.wait().success());
}

/// A pipe that is full.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while writer.write(&[b'.'; 512]).is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    (reader, writer)
}

#[test]
fn without_log_empty_only_sessions_with_bytes_and_failures_are_logged() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let config = |server| Config::new(&env).log("empty = false").server("a", server);
    let balancer = Balancer::start(&env, &config(server.address));
    for _ in 0..3 {
        drop(connect(env.frontend()));
    }
    balancer.metrics_until("the empty sessions have ended", |metrics| {
        metrics.sum("evenkeel_sessions_closed_total", &[]) == 3.0
    });
    let client = connect(env.frontend());
    assert_eq!(exchange(&client, b"four"), b"four");
    drop(client);
    assert!(balancer.session_ended("done").contains(" 4/4 "));
    assert_eq!(balancer.sessions().len(), 1, "{:?}", balancer.sessions());
    // Nobody listens there: a failure without a byte.
    balancer.reload(&config(env.port(9009)));
    assert_eq!(connect_and_read(env.frontend()), (Vec::new(), Ending::Reset));
    balancer.session_ended("connect_failed");
    assert_eq!(balancer.sessions().len(), 2);
}

#[test]
fn it_runs_with_a_stderr_that_is_full() {
    let env = TestEnv::new();
    let (config, _server) = naming(&env);
    assert_works(&env, with_stderr(&env, &config, full_disk()));
}

#[test]
fn records_that_a_full_disk_loses_are_counted() {
    let env = TestEnv::new();
    let (config, _server) = naming(&env);
    let outputs = Outputs { stdout: full_disk().into(), ..Outputs::of(&env) };
    let balancer = Balancer::start_with(&env, run_command(&env, &config), outputs);
    let drops = |metrics: &Metrics, reason| {
        metrics.value("evenkeel_log_drops_total", &[("reason", reason)])
    };
    assert_eq!(drops(&balancer.metrics(), "write_failed"), 0.0);
    for _ in 0..5 {
        assert_eq!(fetch(env.frontend()).unwrap(), "a");
    }
    let metrics = balancer
        .metrics_until("five records are counted", |metrics| drops(metrics, "write_failed") == 5.0);
    assert_eq!(drops(&metrics, "queue_full"), 0.0);
    balancer.assert_no_leaks();
    until("the loss is logged", || {
        balancer.application_log().contains(" records lost: stdout: No space left")
    });
}

#[test]
fn a_session_log_beyond_the_file_size_limit_loses_records_and_nothing_else() {
    let env = TestEnv::new();
    let (config, _server) = naming(&env);
    let mut command = Command::new("prlimit");
    command.args(["--fsize=1000", PROGRAM, "run", "-c"]);
    command.arg(write_config(&env, &config.text()));
    let balancer = Balancer::start_command(&env, command);
    for _ in 0..50 {
        assert_eq!(fetch(env.frontend()).unwrap(), "a");
    }
    balancer.assert_no_leaks();
    let (sessions, lost) = (50.0, [("reason", "write_failed")]);
    balancer.metrics_until("each record is written or counted", |metrics| {
        let lost = metrics.value("evenkeel_log_drops_total", &lost);
        let written = fs::read_to_string(env.file("sessions.log")).unwrap().matches('\n').count();
        lost > 0.0 && lost + written as f64 == sessions
    });
    until("the loss is logged", || {
        balancer.application_log().contains(" records lost: stdout: File too large")
    });
    assert_works(&env, balancer);
}

#[test]
fn it_runs_after_the_reader_of_stderr_has_closed() {
    let env = TestEnv::new();
    let (config, _server) = naming(&env);
    let (reader, writer) = pipe().unwrap();
    let balancer = with_stderr(&env, &config, writer);
    drop(reader);
    assert_works(&env, balancer);
}

#[test]
fn it_runs_with_a_stderr_that_is_not_read() {
    let env = TestEnv::new();
    let (config, _server) = naming(&env);
    let (_reader, writer) = full_pipe();
    assert_works(&env, with_stderr(&env, &config, writer));
}

#[test]
fn lines_logged_while_stderr_is_not_read_are_kept() {
    let env = TestEnv::new();
    let (config, _server) = naming(&env);
    let (mut reader, writer) = full_pipe();
    let mut balancer = with_stderr(&env, &config, writer);
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    balancer.signal(Signal::SIGTERM);
    assert!(balancer.wait().success());
    drop(balancer);
    let text = reading.join().unwrap();
    assert!(text.contains(" runs: 1 worker,"), "{text}");
    assert!(text.contains("every worker has ended"), "{text}");
}

#[test]
fn a_failed_start_exits_with_a_stderr_that_is_not_read() {
    let env = TestEnv::new();
    let (config, _server) = naming(&env);
    let _taken = Server::echo(env.frontend());
    let (_reader, writer) = full_pipe();
    let outputs = Outputs { stderr: writer.into(), ..Outputs::of(&env) };
    let mut balancer = Balancer::spawn_with(&env, run_command(&env, &config), outputs);
    assert_eq!(balancer.wait().code(), Some(1));
}
