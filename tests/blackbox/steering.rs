//! Which worker takes a connection when workers are pinned: its core's own, where all cores receive
//! alike many, and never one worker everything.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use evenkeel::control::steering::HEEDS_CORES;
use evenkeel::sys::kernel_version::KernelVersion;
use evenkeel::sys::thread::{allowed_cores, pin};

use crate::common::client::visit;
use crate::common::wait::until;
use crate::common::{Balancer, Config, Place, Server, skip};

/// Completions of what went before that a worker may count a moment after its sessions.
const A_TURN: f64 = 10.0;

const BEGINS: &str = "new connections go to the worker on the core that receives them";
const ENDS: &str = "new connections go to any worker";

/// The first two cores that we may use; or says why not.
fn two_cores(test: &str) -> Option<[usize; 2]> {
    if let [first, second, ..] = allowed_cores().unwrap()[..] {
        return Some([first, second]);
    }
    skip(test, "here is one core");
    None
}

/// So many visits from a core: on loopback the core that sends is the one that receives.
fn visit_from(core: usize, address: SocketAddr, count: usize) {
    let visits = move || {
        pin(core).unwrap();
        for _ in 0..count {
            assert_eq!(visit(address).unwrap(), "a");
        }
    };
    thread::spawn(visits).join().unwrap();
}

/// How many completions each worker has had, when no session is open.
fn completions(balancer: &Balancer<'_>) -> [f64; 2] {
    let metrics = balancer.metrics_until("every session has ended", |metrics| {
        metrics.value("evenkeel_sessions_active", &[]) < 0.5
    });
    ["0", "1"]
        .map(|worker| metrics.value("evenkeel_worker_completions_total", &[("worker", worker)]))
}

/// How many more each worker has had once `then` is done.
fn more(balancer: &Balancer<'_>, then: impl FnOnce()) -> [f64; 2] {
    let before = completions(balancer);
    then();
    let after = completions(balancer);
    [after[0] - before[0], after[1] - before[1]]
}

#[test]
fn a_pinned_worker_takes_what_its_core_receives_while_all_cores_receive_alike_many() {
    let test = "a_pinned_worker_takes_what_its_core_receives_while_all_cores_receive_alike_many";
    let Some([first, second]) = two_cores(test) else { return };
    if KernelVersion::of_this_kernel().unwrap() < HEEDS_CORES {
        return skip(test, "this kernel is older than 6.2");
    }
    let place = Place::new();
    let a = Server::naming("a", place.port(9001));
    let config = Config::new(&place).workers(2).global("pin = true").server("a", a.address);
    let balancer = Balancer::start(&place, &config);

    until("steering begins", || {
        visit_from(first, place.frontend(), 200);
        visit_from(second, place.frontend(), 200);
        balancer.complaints().contains(BEGINS)
    });
    let [of_first, of_second] = more(&balancer, || visit_from(second, place.frontend(), 50));
    assert!(of_first < A_TURN && of_second > 50.0, "{of_first} and {of_second}");
    let [of_first, of_second] = more(&balancer, || visit_from(first, place.frontend(), 50));
    assert!(of_first > 50.0 && of_second < A_TURN, "{of_first} and {of_second}");

    // An address that a reload brings is no exception.
    let other = place.port(9000);
    let more_binds = format!("[frontend.other]\nbind = [\"{other}\"]\nbackend = \"web\"\n");
    balancer.reload(&config.more(&more_binds));
    let [of_first, of_second] = more(&balancer, || visit_from(second, other, 50));
    assert!(of_first < A_TURN && of_second > 50.0, "{of_first} and {of_second}");

    until("steering ends when one core receives everything", || {
        visit_from(second, place.frontend(), 400);
        balancer.complaints().contains(ENDS)
    });
    let [of_first, of_second] = more(&balancer, || visit_from(second, place.frontend(), 100));
    assert!(of_first > 50.0 && of_second > 50.0, "{of_first} and {of_second}");
}

#[test]
fn one_core_that_receives_everything_does_not_leave_its_worker_all_the_work() {
    let test = "one_core_that_receives_everything_does_not_leave_its_worker_all_the_work";
    let Some([first, _]) = two_cores(test) else { return };
    let place = Place::new();
    let a = Server::naming("a", place.port(9001));
    let config = Config::new(&place).workers(2).global("pin = true").server("a", a.address);
    let balancer = Balancer::start(&place, &config);
    // More than would decide it, for longer than the control thread waits between two looks.
    let begun = Instant::now();
    let mut visits = 0;
    while visits < 8192 || begun.elapsed() < Duration::from_secs(2) {
        visit_from(first, place.frontend(), 512);
        visits += 512;
    }
    let [own, other] = more(&balancer, || visit_from(first, place.frontend(), 500));
    assert!(own < 2.0 * other && other < 2.0 * own, "{own} and {other}");
    assert!(!balancer.complaints().contains(BEGINS), "{}", balancer.complaints());
}
