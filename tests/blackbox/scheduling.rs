//! A worker runs under `SCHED_BATCH`, unless another thread keeps its core busy.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use evenkeel::sys::thread::{allowed_cores, pin};

use crate::common::balancer::{PROGRAM, write_config};
use crate::common::client::fetch;
use crate::common::wait::until;
use crate::common::{Balancer, Config, Server, TestEnv};

/// Scheduling policies by their numbers in sched(7).
const OTHER: u32 = 0;
const BATCH: u32 = 3;
const IDLE: u32 = 5;

/// The scheduling policy of the worker (field 41 of its stat, proc(5)).
fn policy(balancer: &Balancer<'_>) -> u32 {
    let threads = fs::read_dir(format!("/proc/{}/task", balancer.pid())).unwrap();
    let stats = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("stat")));
    let worker = stats.map(Result::unwrap).find(|stat| stat.contains("(worker-0)")).unwrap();
    let fields = worker.rsplit_once(") ").unwrap().1;
    fields.split(' ').nth(38).unwrap().parse().unwrap()
}

/// Keeps a core busy while `action` runs.
fn with_busy_core(core: usize, action: impl FnOnce()) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            pin(core).unwrap();
            while !done.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        action();
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_worker_runs_under_sched_batch_unless_another_thread_keeps_its_core_busy() {
    let env = TestEnv::new();
    let server = Server::naming("a", env.port(9001));
    let config = Config::new(&env).global("pin = true").server("a", server.address);
    let balancer = Balancer::start(&env, &config);
    let until_policy = |expected: u32, what: &str| {
        until(what, || {
            assert_eq!(fetch(env.frontend()).unwrap(), "a");
            policy(&balancer) == expected
        });
    };
    until_policy(BATCH, "the worker runs under SCHED_BATCH");
    with_busy_core(allowed_cores().unwrap()[0], || {
        until_policy(OTHER, "the worker runs under SCHED_OTHER on a busy core");
    });
    until_policy(BATCH, "the worker runs under SCHED_BATCH again");
}

#[test]
fn a_scheduling_policy_set_by_the_operator_is_kept() {
    let env = TestEnv::new();
    let server = Server::naming("a", env.port(9001));
    let config = Config::new(&env).server("a", server.address);
    let mut command = Command::new("chrt");
    command.args(["--idle", "0", PROGRAM, "run", "-c"]).arg(write_config(&env, &config.text()));
    let balancer = Balancer::start_command(&env, command);
    for _ in 0..10 {
        assert_eq!(fetch(env.frontend()).unwrap(), "a");
    }
    assert_eq!(policy(&balancer), IDLE);
}
