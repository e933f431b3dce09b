//! What follows when a worker that was stuck runs again. The tests stop one thread, as a debugger
//! does ("frozen").

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::common::client::{connect, exchange};
use crate::common::frozen::Frozen;
use crate::common::wait::until;
use crate::common::{Balancer, Config, Server, TestEnv, echoing, skip};

const NO_PTRACE: &str = "a thread cannot be stopped here (ptrace(2))";

/// Waits until so many workers are stuck.
#[track_caller]
fn stuck(balancer: &Balancer<'_>, count: f64) {
    balancer.metrics_until(&format!("{count} workers are stuck"), |metrics| {
        metrics.sum("evenkeel_worker_stuck", &[]) == count
    });
}

/// Waits until so many sessions are queued.
#[track_caller]
fn queued(balancer: &Balancer<'_>, count: u8) {
    balancer.metrics_until(&format!("{count} sessions wait"), |metrics| {
        metrics.value("evenkeel_queue_sessions", &[("backend", "web")]) == f64::from(count)
    });
}

/// A client that has sent one byte.
#[track_caller]
fn asking(env: &TestEnv, byte: u8) -> TcpStream {
    let mut client = connect(env.frontend());
    client.write_all(&[byte]).unwrap();
    client
}

/// The answer of the server to that client.
#[track_caller]
fn answer(mut client: &TcpStream) -> u8 {
    let mut byte = [0];
    client.read_exact(&mut byte).unwrap();
    byte[0]
}

#[test]
fn sessions_of_a_worker_that_was_stuck_have_their_places_in_the_queue_again() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let config = Config::new(&env).workers(2).backend("queue_timeout = \"10m\"");
    let config = config.server_with("a", server.address, "sessions_max = 1");
    let balancer = Balancer::start(&env, &config);
    let first = asking(&env, 0);
    assert_eq!(answer(&first), 0);
    let mut waiting = Vec::new();
    for number in 1..=16 {
        waiting.push(asking(&env, number));
        queued(&balancer, number);
    }
    let listed = balancer.control_ok(&["sessions"]);
    // The worker that the first session is not of, so that its server becomes free.
    let serving = listed.lines().find(|line| line.contains("web/a")).unwrap();
    let (id, name) =
        if serving.starts_with("0-") { ("1-", "worker-1") } else { ("0-", "worker-0") };
    let of_stuck = listed.lines().filter(|line| line.starts_with(id)).count();
    let Some(frozen) = Frozen::thread(balancer.pid(), name) else {
        let test = "sessions_of_a_worker_that_was_stuck_have_their_places_in_the_queue_again";
        return skip(test, NO_PTRACE);
    };
    stuck(&balancer, 1.0);
    queued(&balancer, 16 - u8::try_from(of_stuck).unwrap());
    drop(frozen);
    stuck(&balancer, 0.0);
    queued(&balancer, 16);
    drop(first);
    for (number, client) in (1..).zip(waiting) {
        assert_eq!(answer(&client), number);
    }
    balancer.assert_no_leaks();
}

#[test]
fn the_log_says_for_each_stuck_worker_how_many_clients_others_got() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let balancer = Balancer::start(&env, &config.workers(3));
    let frozen = ["worker-1", "worker-2"].map(|name| Frozen::thread(balancer.pid(), name));
    let [Some(one), Some(two)] = frozen else {
        return skip("the_log_says_for_each_stuck_worker_how_many_clients_others_got", NO_PTRACE);
    };
    let clients: Vec<TcpStream> = (0..60).map(|number| asking(&env, number)).collect();
    stuck(&balancer, 2.0);
    for (number, client) in (0..).zip(&clients) {
        assert_eq!(answer(client), number);
    }
    let logged = |worker: &str| {
        let log = balancer.application_log();
        let mut lines = log.lines().filter_map(|line| line.split_once("other workers got "));
        let (_, rest) = lines.find(|(before, _)| before.contains(worker))?;
        rest.split(' ').next().unwrap().parse::<u64>().ok()
    };
    let mut given = Vec::new();
    for (frozen, worker) in [(one, "worker 1 "), (two, "worker 2 ")] {
        assert_eq!(logged(worker), None);
        drop(frozen);
        until("it is logged that the worker runs again", || logged(worker).is_some());
        given.extend(logged(worker));
    }
    // Each had about a third of the clients.
    assert!(given.iter().all(|given| (1..60).contains(given)), "{given:?}");
    assert!(given.iter().sum::<u64>() <= 60, "{given:?}");
}

#[test]
fn clients_that_are_given_to_a_worker_that_is_stuck_too_do_not_wait_for_it() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let balancer = Balancer::start(&env, &config.workers(3));
    let Some(one) = Frozen::thread(balancer.pid(), "worker-1") else {
        let test = "clients_that_are_given_to_a_worker_that_is_stuck_too_do_not_wait_for_it";
        return skip(test, NO_PTRACE);
    };
    // Worker 2 stops so much later that clients of worker 1 are given to it.
    let age = "evenkeel_worker_heartbeat_age_seconds";
    balancer.metrics_until("worker 1 has not run for a second", |metrics| {
        metrics.value(age, &[("worker", "1")]) >= 1.0
    });
    let two = Frozen::thread(balancer.pid(), "worker-2").unwrap();
    let clients: Vec<TcpStream> = (0..60).map(|number| asking(&env, number)).collect();
    stuck(&balancer, 2.0);
    for (number, client) in (0..).zip(&clients) {
        assert_eq!(answer(client), number);
    }
    drop((one, two));
}

#[test]
fn a_frontend_that_is_added_and_removed_while_a_worker_does_not_run_is_closed() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let config = config.workers(2);
    let balancer = Balancer::start(&env, &config);
    let other = format!("[frontend.other]\nbind = [\"{}\"]\nbackend = \"web\"", env.port(8001));
    let with_other = config.clone().more(&other);
    let Some(frozen) = Frozen::thread(balancer.pid(), "worker-0") else {
        let test = "a_frontend_that_is_added_and_removed_while_a_worker_does_not_run_is_closed";
        return skip(test, NO_PTRACE);
    };
    balancer.reload(&with_other);
    let clients: Vec<TcpStream> = (0..16).map(|_| connect(env.port(8001))).collect();
    balancer.reload(&config);
    drop(frozen);
    // Those that had connected are served, by whichever worker.
    for (number, client) in (0..).zip(&clients) {
        assert_eq!(exchange(client, &[number]), [number]);
    }
    drop(clients);
    until("connections are refused", || TcpStream::connect(env.port(8001)).is_err());
    until("the frontend is gone", || !balancer.control_ok(&["status"]).contains("other"));
    balancer.reload(&with_other);
    assert_eq!(exchange(&connect(env.port(8001)), b"again"), b"again");
    balancer.reload(&config);
    until("connections are refused again", || TcpStream::connect(env.port(8001)).is_err());
    balancer.assert_no_leaks();
}
