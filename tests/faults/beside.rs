//! Faults beside the matrix: what is about more than one session, or about the process.

use std::thread;

use nix::sys::signal::Signal;

use crate::common::client::{connect, exchange, reset};
use crate::common::wait::until;
use crate::common::{Balancer, TestEnv, echoing};

#[test]
fn thousands_of_connects_and_resets_leave_nothing_and_the_next_client_is_served() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let balancer = Balancer::start(&env, &config.workers(2).log("sessions = false"));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..1500).for_each(|_| reset(connect(env.frontend()))));
        }
    });
    let client = connect(env.frontend());
    assert_eq!(exchange(&client, b"served"), b"served");
    drop(client);
    let metrics = balancer.assert_no_leaks();
    assert!(metrics.value("evenkeel_sessions_total", &[]) > 2000.0);
}

#[test]
fn signals_in_any_number_end_in_a_drain_with_status_0() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let mut balancer = Balancer::start(&env, &config.workers(2));
    let client = connect(env.frontend());
    for _ in 0..200 {
        balancer.signal(Signal::SIGHUP);
        balancer.signal(Signal::SIGPIPE);
    }
    assert_eq!(exchange(&client, b"goes on"), b"goes on");
    until("a reload has been made", || {
        balancer.metrics().sum("evenkeel_reloads_total", &[("outcome", "done")]) >= 1.0
    });
    assert_eq!(exchange(&client, b"goes on"), b"goes on");
    balancer.signal(Signal::SIGTERM);
    until("the drain has begun", || balancer.application_log().contains("draining for"));
    for _ in 0..20 {
        balancer.signal(Signal::SIGHUP);
        balancer.signal(Signal::SIGPIPE);
    }
    assert_eq!(exchange(&client, b"goes on"), b"goes on");
    assert!(balancer.runs());
    drop(client);
    let status = balancer.wait();
    assert!(status.success(), "{status}");
}
