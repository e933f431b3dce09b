//! Logs on a stream that is full, gone or not read: it costs lines, nothing else.

use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;

use crate::common::balancer::{Outputs, PROGRAM, write_config};
use crate::common::books::Metrics;
use crate::common::client::visit;
use crate::common::wait::until;
use crate::common::{Balancer, Config, Place, Server};

fn naming(place: &Place) -> (Config, Server) {
    let server = Server::naming("a", place.port(9001));
    (Config::new(place).server("a", server.address), server)
}

fn run_command(place: &Place, config: &Config) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("run").arg("-c").arg(write_config(place, &config.text()));
    command
}

fn with_stderr<'a>(place: &'a Place, config: &Config, stderr: impl Into<Stdio>) -> Balancer<'a> {
    let outputs = Outputs { stderr: stderr.into(), ..Outputs::of(place) };
    Balancer::start_with(place, run_command(place, config), outputs)
}

fn full_disk() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// It serves, takes a reload, and ends in order.
#[track_caller]
fn works(place: &Place, mut balancer: Balancer<'_>) {
    let reloads = |balancer: &Balancer<'_>, outcome| {
        balancer.metrics().sum("evenkeel_reloads_total", &[("outcome", outcome)])
    };
    balancer.signal(Signal::SIGHUP);
    until("a reload is done", || reloads(&balancer, "done") == 1.0);
    balancer.rewrite("no [ configuration");
    balancer.signal(Signal::SIGHUP);
    until("a reload has failed", || reloads(&balancer, "failed") == 1.0);
    assert_eq!(visit(place.frontend()).unwrap(), "a");
    balancer.signal(Signal::SIGTERM);
    assert!(balancer.wait().success());
}

/// A pipe into which not one byte more goes.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while writer.write(&[b'.'; 512]).is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    (reader, writer)
}

#[test]
fn it_runs_with_a_stderr_that_is_full() {
    let place = Place::new();
    let (config, _server) = naming(&place);
    works(&place, with_stderr(&place, &config, full_disk()));
}

#[test]
fn a_session_that_a_full_disk_does_not_log_is_counted() {
    let place = Place::new();
    let (config, _server) = naming(&place);
    let outputs = Outputs { stdout: full_disk().into(), ..Outputs::of(&place) };
    let balancer = Balancer::start_with(&place, run_command(&place, &config), outputs);
    let drops = |metrics: &Metrics, reason| {
        metrics.value("evenkeel_log_drops_total", &[("reason", reason)])
    };
    assert_eq!(drops(&balancer.metrics(), "write_failed"), 0.0);
    for _ in 0..5 {
        assert_eq!(visit(place.frontend()).unwrap(), "a");
    }
    let metrics = balancer
        .metrics_until("five records are counted", |metrics| drops(metrics, "write_failed") == 5.0);
    assert_eq!(drops(&metrics, "queue_full"), 0.0);
    balancer.books_balance();
    until("it is told", || balancer.complaints().contains(" records lost: stdout: No space left"));
}

#[test]
fn a_session_log_beyond_the_file_size_limit_loses_records_and_nothing_else() {
    let place = Place::new();
    let (config, _server) = naming(&place);
    let mut command = Command::new("prlimit");
    command.args(["--fsize=1000", PROGRAM, "run", "-c"]);
    command.arg(write_config(&place, &config.text()));
    let balancer = Balancer::start_command(&place, command);
    for _ in 0..50 {
        assert_eq!(visit(place.frontend()).unwrap(), "a");
    }
    balancer.books_balance();
    let (sessions, lost) = (50.0, [("reason", "write_failed")]);
    balancer.metrics_until("each record is written or counted", |metrics| {
        let lost = metrics.value("evenkeel_log_drops_total", &lost);
        let written = fs::read_to_string(place.file("sessions.log")).unwrap().matches('\n').count();
        lost > 0.0 && lost + written as f64 == sessions
    });
    until("it is told", || balancer.complaints().contains(" records lost: stdout: File too large"));
    works(&place, balancer);
}

#[test]
fn it_runs_when_the_reader_of_stderr_has_gone() {
    let place = Place::new();
    let (config, _server) = naming(&place);
    let (reader, writer) = pipe().unwrap();
    let balancer = with_stderr(&place, &config, writer);
    drop(reader);
    works(&place, balancer);
}

#[test]
fn it_runs_when_nobody_reads_its_stderr() {
    let place = Place::new();
    let (config, _server) = naming(&place);
    let (_reader, writer) = full_pipe();
    works(&place, with_stderr(&place, &config, writer));
}

#[test]
fn what_it_said_while_nobody_read_is_read_later() {
    let place = Place::new();
    let (config, _server) = naming(&place);
    let (mut reader, writer) = full_pipe();
    let mut balancer = with_stderr(&place, &config, writer);
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    balancer.signal(Signal::SIGTERM);
    assert!(balancer.wait().success());
    drop(balancer);
    let text = reading.join().unwrap();
    assert!(text.contains(" runs: 1 workers"), "{text}");
    assert!(text.contains("every worker has ended"), "{text}");
}

#[test]
fn a_failure_to_start_ends_when_nobody_reads_its_stderr() {
    let place = Place::new();
    let (config, _server) = naming(&place);
    let _taken = Server::echo(place.frontend());
    let (_reader, writer) = full_pipe();
    let outputs = Outputs { stderr: writer.into(), ..Outputs::of(&place) };
    let mut balancer = Balancer::spawn_with(&place, run_command(&place, &config), outputs);
    assert_eq!(balancer.wait().code(), Some(1));
}
