//! A worker runs under `SCHED_BATCH`, except beside a thread that computes on its core.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use evenkeel::sys::thread::{allowed_cores, pin};

use crate::common::balancer::{PROGRAM, write_config};
use crate::common::client::visit;
use crate::common::wait::until;
use crate::common::{Balancer, Config, Place, Server};

/// Scheduling policies by their numbers in sched(7).
const OTHER: u32 = 0;
const BATCH: u32 = 3;
const IDLE: u32 = 5;

/// The scheduling policy of the worker (field 41 of its stat, proc(5)).
fn policy(balancer: &Balancer<'_>) -> u32 {
    let threads = fs::read_dir(format!("/proc/{}/task", balancer.pid())).unwrap();
    let stats = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("stat")));
    let worker = stats.map(Result::unwrap).find(|stat| stat.contains("(worker-0)")).unwrap();
    let behind_name = worker.rsplit_once(") ").unwrap().1;
    behind_name.split(' ').nth(38).unwrap().parse().unwrap()
}

/// Computes on a core while `then` runs.
fn with_the_core_taken(core: usize, then: impl FnOnce()) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            pin(core).unwrap();
            while !done.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        then();
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_worker_runs_under_batch_except_beside_a_thread_that_computes() {
    let place = Place::new();
    let server = Server::naming("a", place.port(9001));
    let config = Config::new(&place).global("pin = true").server("a", server.address);
    let balancer = Balancer::start(&place, &config);
    let becomes = |wanted: u32, what: &str| {
        until(what, || {
            assert_eq!(visit(place.frontend()).unwrap(), "a");
            policy(&balancer) == wanted
        });
    };
    becomes(BATCH, "the worker lets others go on");
    with_the_core_taken(allowed_cores().unwrap()[0], || {
        becomes(OTHER, "the worker takes its core from one who computes");
    });
    becomes(BATCH, "the worker lets others go on again");
}

#[test]
fn the_policy_that_an_operator_gave_it_stands() {
    let place = Place::new();
    let server = Server::naming("a", place.port(9001));
    let config = Config::new(&place).server("a", server.address);
    let mut command = Command::new("chrt");
    command.args(["--idle", "0", PROGRAM, "run", "-c"]).arg(write_config(&place, &config.text()));
    let balancer = Balancer::start_command(&place, command);
    for _ in 0..10 {
        assert_eq!(visit(place.frontend()).unwrap(), "a");
    }
    assert_eq!(policy(&balancer), IDLE);
}
