//! A worker whose event loop is blocked: evenkeel reports it, and no client waits for it. The tests
//! stop one thread, as a debugger does ("frozen").

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::client::{connect, exchange, set_timeouts};
use crate::common::frozen::Frozen;
use crate::common::wait::{TIMEOUT, holds_for, pause, until};
use crate::common::{Balancer, Config, TestEnv, echoing, http, skip};

const NO_PTRACE: &str = "a thread cannot be stopped here (ptrace(2))";

fn status(env: &TestEnv, path: &str) -> u16 {
    http::get(env.observe(), path).unwrap().0
}

fn stuck(worker: &'static str) -> [(&'static str, &'static str); 1] {
    [("worker", worker)]
}

#[track_caller]
fn until_stuck(balancer: &Balancer<'_>) {
    until("a stuck worker is logged", || balancer.application_log().contains(" is stuck: "));
}

#[track_caller]
fn until_it_runs(balancer: &Balancer<'_>) {
    until("that it runs again is logged", || balancer.application_log().contains(" runs again "));
}

/// So many connections, each of which sends "hello".
#[track_caller]
fn clients(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut clients: Vec<TcpStream> = (0..count).map(|_| connect(address)).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"hello").unwrap());
    clients
}

#[track_caller]
fn assert_served(clients: &[TcpStream]) {
    for (number, mut client) in clients.iter().enumerate() {
        let mut answer = [0; 5];
        client.read_exact(&mut answer).unwrap_or_else(|why| panic!("client {number}: {why}"));
        assert_eq!(&answer, b"hello");
    }
}

#[test]
fn a_stuck_worker_is_reported_and_new_clients_go_to_others() {
    let env = TestEnv::new(); // case 60
    let (config, _server) = echoing(&env);
    let balancer = Balancer::start(&env, &config.workers(2));
    let served = clients(env.frontend(), 20);
    assert_served(&served);
    let Some(frozen) = Frozen::thread(balancer.pid(), "worker-1") else {
        return skip("a_stuck_worker_is_reported_and_new_clients_go_to_others", NO_PTRACE);
    };
    // Half of them wait in its queue.
    let before = clients(env.frontend(), 40);
    until_stuck(&balancer);
    assert_eq!((status(&env, "/readyz"), status(&env, "/healthz")), (503, 503));
    let metrics = balancer.metrics();
    assert_eq!(metrics.value("evenkeel_worker_stuck", &stuck("1")), 1.0);
    assert_eq!(metrics.value("evenkeel_worker_stuck", &stuck("0")), 0.0);
    assert!(metrics.value("evenkeel_worker_heartbeat_age_seconds", &stuck("1")) >= 1.5);
    assert!(metrics.value("evenkeel_worker_heartbeat_age_seconds", &stuck("0")) < 1.5);
    let shown = balancer.control_ok(&["status"]);
    assert!(shown.contains("\nstuck workers: 1 "), "{shown}");
    assert_served(&before);
    let after = clients(env.frontend(), 80);
    assert_served(&after);
    drop(frozen);
    until_it_runs(&balancer);
    assert_eq!((status(&env, "/readyz"), status(&env, "/healthz")), (200, 200));
    let log = balancer.application_log();
    assert!(log.contains("worker 1 is stuck: ") && log.contains("worker 1 runs again "), "{log}");
    assert_eq!(log.matches(" is stuck: ").count(), 1, "{log}");
    let metrics = balancer.metrics();
    assert_eq!(metrics.value("evenkeel_worker_stuck", &stuck("1")), 0.0);
    drop((served, before, after));
    until("the worker gets clients again", || {
        let some = clients(env.frontend(), 8);
        assert_served(&some);
        balancer.control_ok(&["sessions"]).lines().any(|line| line.starts_with("1-"))
    });
    balancer.assert_no_leaks();
}

#[test]
fn a_reload_that_moves_a_bind_while_a_worker_is_stuck_leaves_nobody_hanging() {
    for noticed in [true, false] {
        let env = TestEnv::new();
        let (config, _server) = echoing(&env);
        let config = config.workers(2);
        let balancer = Balancer::start(&env, &config);
        let Some(frozen) = Frozen::thread(balancer.pid(), "worker-0") else {
            let test = "a_reload_that_moves_a_bind_while_a_worker_is_stuck_leaves_nobody_hanging";
            return skip(test, NO_PTRACE);
        };
        if noticed {
            until_stuck(&balancer);
        }
        let waiting = clients(env.frontend(), 40);
        balancer.reload(&config.bind(env.port(8001)));
        let moved = clients(env.port(8001), 40);
        assert_served(&waiting);
        assert_served(&moved);
        // A client of the old address is served or refused.
        until("the old address is closed", || {
            let Ok(mut client) = TcpStream::connect_timeout(&env.frontend(), TIMEOUT) else {
                return true;
            };
            set_timeouts(&client);
            drop(client.write_all(b"hello"));
            let answer = client.read(&mut [0; 5]);
            let timed_out = answer.is_err_and(|why| why.kind() == std::io::ErrorKind::WouldBlock);
            assert!(!timed_out, "it hangs");
            false
        });
        drop(frozen);
        until_it_runs(&balancer);
        drop((waiting, moved));
        let old = TcpStream::connect_timeout(&env.frontend(), TIMEOUT);
        assert!(old.is_err(), "it is open again");
        until("both workers serve the new address", || {
            let some = clients(env.port(8001), 8);
            assert_served(&some);
            let listed = balancer.control_ok(&["sessions"]);
            ["0-", "1-"].iter().all(|id| listed.lines().any(|line| line.starts_with(id)))
        });
    }
}

#[test]
fn clients_of_a_unix_socket_do_not_wait_for_a_stuck_worker() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let path = env.file("web.sock");
    let frontend =
        format!("[frontend.unix]\nbind = [\"unix:{}\"]\nbackend = \"web\"\n", path.display());
    let balancer = Balancer::start(&env, &config.workers(2).more(&frontend));
    let Some(frozen) = Frozen::thread(balancer.pid(), "worker-0") else {
        return skip("clients_of_a_unix_socket_do_not_wait_for_a_stuck_worker", NO_PTRACE);
    };
    let ask = || {
        let mut client = UnixStream::connect(&path).unwrap();
        client.set_read_timeout(Some(TIMEOUT)).unwrap();
        client.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
    };
    (0..10).for_each(|_| ask());
    until_stuck(&balancer);
    (0..40).for_each(|_| ask());
    drop(frozen);
    until_it_runs(&balancer);
    (0..10).for_each(|_| ask());
    balancer.assert_no_leaks();
}

#[test]
fn a_stop_of_the_whole_process_is_no_stuck_worker() {
    let env = TestEnv::new(); // case 45
    let (config, _server) = echoing(&env);
    let balancer = Balancer::start(&env, &config.workers(2));
    let client = connect(env.frontend());
    assert_eq!(exchange(&client, b"before"), b"before");
    for _ in 0..2 {
        balancer.signal(Signal::SIGSTOP);
        pause(Duration::from_secs(4));
        balancer.signal(Signal::SIGCONT);
        assert!(holds_for(Duration::from_secs(1), || status(&env, "/readyz") == 200));
    }
    assert_eq!(exchange(&client, b"after"), b"after");
    let log = balancer.application_log();
    assert!(!log.contains(" is stuck: "), "{log}");
}

#[test]
fn sessions_do_not_queue_behind_those_of_a_stuck_worker() {
    let env = TestEnv::new();
    let server = crate::common::Server::echo(env.port(9001));
    let config = Config::new(&env).workers(2).backend("queue_timeout = \"60s\"");
    let config = config.server_with("a", server.address, "sessions_max = 1");
    let balancer = Balancer::start(&env, &config);
    let first = clients(env.frontend(), 1);
    assert_served(&first);
    let waiting = clients(env.frontend(), 30);
    let queued = |wanted: f64| {
        balancer.metrics_until("they are queued", |metrics| {
            metrics.value("evenkeel_queue_sessions", &[]) == wanted
        })
    };
    queued(30.0);
    let listed = balancer.control_ok(&["sessions"]);
    let of = |worker: &str| listed.lines().filter(|line| line.starts_with(worker)).count();
    // The worker that the first session is not of, so that its server becomes free.
    let serving = listed.lines().find(|line| line.contains("web/a")).map(|line| &line[..2]);
    let (worker, name) =
        if serving == Some("0-") { ("1-", "worker-1") } else { ("0-", "worker-0") };
    let of_stuck = of(worker);
    let Some(_frozen) = Frozen::thread(balancer.pid(), name) else {
        return skip("sessions_do_not_queue_behind_those_of_a_stuck_worker", NO_PTRACE);
    };
    until_stuck(&balancer);
    drop(first);
    let mut waiting: Vec<Option<TcpStream>> = waiting.into_iter().map(Some).collect();
    let mut served = 0;
    until("every session of the other worker is served", || {
        for place in &mut waiting {
            let Some(client) = place else { continue };
            client.set_nonblocking(true).unwrap();
            if matches!(client.peek(&mut [0]), Ok(1..)) {
                served += 1;
                *place = None;
            }
        }
        served == 30 - of_stuck
    });
}
