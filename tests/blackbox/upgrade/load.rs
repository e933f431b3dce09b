//! Upgrades and reloads under load: no connection is refused or reset.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::*;
use crate::common::Server;
use crate::common::client::{connect, exchange, set_timeouts};
use crate::common::wait::{StopOnDrop, TIMEOUT, holds_for, pause, until_some};

/// Connections at a time.
const CLIENTS: usize = 300;

/// How many, from the environment: `EVENKEEL_UPGRADES=100 EVENKEEL_RELOADS=1000
/// EVENKEEL_CONNECTS=1000000` is the whole test.
pub(super) fn amount(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().unwrap())
}

/// What the clients have seen.
#[derive(Default)]
struct Seen {
    connects: AtomicU64,
    failed: Mutex<Vec<String>>,
    stopped: AtomicBool,
}

impl Seen {
    /// Connects, reads a name and closes, until it is stopped.
    fn connect_until_stopped(&self, address: SocketAddr) {
        while !self.stopped.load(Ordering::Relaxed) {
            if let Err(error) = fetch_a(address) {
                let mut failed = self.failed.lock().unwrap();
                failed.push(format!("{:?}: {error}", self.connects.load(Ordering::Relaxed)));
            }
            self.connects.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn fetch_a(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    set_timeouts(&stream);
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer == "a" { Ok(()) } else { Err(io::Error::other(format!("{answer:?}"))) }
}

/// Runs `change` while clients connect, and until there were `connects`, however long that takes.
pub(super) fn under_load(address: SocketAddr, connects: u64, change: impl FnOnce()) {
    let (seen, begun) = (Seen::default(), Instant::now());
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let client = thread::Builder::new().stack_size(128 << 10);
            client.spawn_scoped(scope, || seen.connect_until_stopped(address)).unwrap();
        }
        // Clients end with the scope, also if an assertion fails.
        let stop = StopOnDrop(&seen.stopped);
        change();
        let made = || seen.connects.load(Ordering::Relaxed);
        while made() < connects {
            let before = made();
            until("a client connects", || made() > before);
        }
        drop(stop);
    });
    let (all, failed) = (seen.connects.into_inner(), seen.failed.into_inner().unwrap());
    #[expect(clippy::print_stderr, reason = "the figures of the test")]
    {
        eprintln!("{all} connects in {:?}, {} failed", begun.elapsed(), failed.len());
    }
    assert!(failed.is_empty(), "{} of {all}: {:?}", failed.len(), &failed[..failed.len().min(5)]);
}

/// A server that keeps up with the clients of a busy machine: a SYN that finds a full backlog is
/// dropped, and is sent again after a second at the earliest.
pub(super) fn naming(env: &TestEnv) -> (Config, Server) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&env.port(9001).into()).unwrap();
    socket.listen(4096).unwrap();
    let server = Server::with(socket.into(), |mut stream| {
        drop(stream.write_all(b"a"));
        drop(stream.shutdown(Shutdown::Write));
        drop(io::copy(&mut stream, &mut io::sink()));
    });
    let config = Config::new(env).backend("connect_timeout = \"20s\"");
    (config.log("sessions = true").server("a", server.address), server)
}

#[test]
fn upgrades_and_reloads_under_load_lose_no_connection_and_no_count() {
    let env = TestEnv::new();
    let (config, _server) = naming(&env);
    let mut chain = Chain::start(&env, &config.clone().workers(2));
    let (upgrades, reloads) = (amount("EVENKEEL_UPGRADES", 5), amount("EVENKEEL_RELOADS", 20));
    let connects = amount("EVENKEEL_CONNECTS", 10_000);
    let (mut last, mut reloaded) = (0.0, 0);
    under_load(env.frontend(), connects, || {
        for number in 0..upgrades {
            // As many before each upgrade, and all before the last one.
            while reloaded * upgrades < reloads * (number + 1) {
                chain.control_ok(&["reload"]);
                reloaded += 1;
            }
            let workers = [1, 3, 2][usize::try_from(number % 3).unwrap()];
            chain.upgrade_to(&config.clone().workers(workers));
            // No counter goes back.
            let opened = chain.metrics().value("evenkeel_sessions_total", &[]);
            assert!(opened >= last, "{opened} after {last}");
            last = opened;
        }
    });
    for index in 0..chain.pids.len() - 1 {
        chain.ended(index);
    }
    let metrics = chain.metrics_until("every session has ended", |metrics| {
        metrics.value("evenkeel_sessions_active", &[]) == 0.0
    });
    let opened = metrics.value("evenkeel_sessions_total", &[]);
    assert!(opened >= connects as f64, "{opened}");
    assert_eq!(metrics.sum("evenkeel_sessions_closed_total", &[]), opened);
    assert_eq!(metrics.closed("done"), opened, "nothing else than an orderly end");
    assert_eq!(metrics.value("evenkeel_server_sessions_total", &[("server", "a")]), opened);
    assert_eq!(metrics.value("evenkeel_upgrades_total", &[("outcome", "done")]), upgrades as f64);
    assert_eq!(metrics.value("evenkeel_reloads_total", &[("outcome", "done")]), reloaded as f64);
}

#[test]
fn one_worker_becomes_three_and_one_again_without_a_lost_connection() {
    let env = TestEnv::new();
    let (config, _server) = naming(&env);
    let mut chain = Chain::start(&env, &config.clone().workers(1));
    under_load(env.frontend(), 1000, || {
        chain.upgrade_to(&config.clone().workers(3));
        assert_eq!(listening(chain.pid(), env.frontend()), 3, "a socket for each worker");
        chain.upgrade_to(&config.clone().workers(1));
        assert_eq!(listening(chain.pid(), env.frontend()), 3, "none is closed");
    });
    chain.ended(1);
    under_load(env.frontend(), 1000, || {});
}

/// Sockets of a process that listen at an address.
pub(super) fn listening(pid: u32, address: SocketAddr) -> usize {
    let sockets: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| {
            Some(link.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned())
        })
        .collect();
    let SocketAddr::V4(address) = address else { panic!("{address}") };
    let ip = u32::from_ne_bytes(address.ip().octets());
    let local = format!("{ip:08X}:{:04X}", address.port());
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    // sl, local, remote, state (0A: LISTEN), ..., inode: proc(5).
    let of_address = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listening = of_address.filter(|fields| fields[1] == local && fields[3] == "0A");
    listening.filter(|fields| sockets.iter().any(|inode| inode == fields[9])).count()
}

#[test]
fn a_client_that_waits_in_the_backlog_is_served_by_the_new_process() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let config = config.global("sessions_max = 1");
    let mut chain = Chain::start(&env, &config);
    let first = connect(env.frontend());
    assert_eq!(exchange(&first, b"first"), b"first");
    // There is no room for it in the old process.
    let second = connect(env.frontend());
    chain.upgrade();
    assert_eq!(exchange(&second, b"second"), b"second");
    assert_eq!(exchange(&first, b"first lives"), b"first lives");
    drop(first);
    chain.ended(0);
    assert_eq!(exchange(&second, b"still"), b"still");
}

#[test]
fn a_client_that_was_accepted_and_waits_for_a_session_gets_one_at_the_upgrade() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let limited = config.clone().workers(2).global("sessions_max = 1");
    let mut chain = Chain::start(&env, &limited);
    let first = connect(env.frontend());
    assert_eq!(exchange(&first, b"first"), b"first");
    // The other worker takes the first of those that come to its socket; there is no room for it.
    let others: Vec<TcpStream> = (0..20).map(|_| connect(env.frontend())).collect();
    chain.upgrade_to(&config.workers(2).global("sessions_max = 100"));
    for other in &others {
        assert_eq!(exchange(other, b"served"), b"served");
    }
    assert_eq!(exchange(&first, b"first lives"), b"first lives");
    drop((first, others));
    chain.ended(0);
}

#[test]
fn an_old_process_that_ends_while_another_upgrade_starts_is_counted_to_its_end() {
    let env = TestEnv::new();
    let (mut config, _server) = echoing(&env);
    // The counters of so many fill the buffer of the stream within seconds.
    for port in 20_000..21_000 {
        config = config.server_with(&format!("s{port}"), env.port(port), "weight = 0");
    }
    let program = copied_program(&env);
    let config = config.global("drain_timeout = \"1h\"");
    let mut chain = start_program(&env, &program, &config);
    let session = connect(env.frontend());
    assert_eq!(exchange(&session, b"in"), b"in");
    chain.upgrade();
    let gate = env.file("gate");
    let wait = format!("while [ ! -e {} ]; do sleep 0.05; done; exit 3", gate.display());
    replace_by_script(&program, &wait);
    chain.signal(1, Signal::SIGUSR2);
    until("the second upgrade starts", || {
        chain.application_log().matches(" is started with ").count() == 2
    });
    let full = || runs(chain.pids[0]);
    assert!(holds_for(Duration::from_secs(5), full), "it publishes, and nobody reads");
    drop(session);
    // Longer than it would wait for a process that reads.
    pause(Duration::from_secs(4));
    fs::write(&gate, "").unwrap();
    chain.ended(0);
    chain.logged("upgrade failed");
    let metrics = chain.metrics_until("its end is counted", |metrics| {
        metrics.value("evenkeel_sessions_active", &[]) == 0.0
    });
    assert_eq!((metrics.closed("done"), metrics.closed("killed")), (1.0, 0.0));
}

#[test]
fn a_session_survives_several_upgrades_and_is_counted_until_its_end() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let mut chain = Chain::start(&env, &config.global("drain_timeout = \"1h\""));
    let session = connect(env.frontend());
    assert_eq!(exchange(&session, b"before"), b"before");
    for _ in 0..3 {
        chain.upgrade();
        assert_eq!(exchange(&session, b"after"), b"after");
        let metrics = chain.metrics();
        assert_eq!(metrics.value("evenkeel_sessions_active", &[]), 1.0);
        assert_eq!(metrics.value("evenkeel_sessions_total", &[]), 1.0);
        assert_eq!(metrics.value("evenkeel_server_sessions_active", &[("server", "a")]), 1.0);
    }
    chain.ended(1);
    chain.ended(2);
    drop(session);
    chain.ended(0);
    let metrics = chain.metrics_until("its end is counted", |metrics| {
        metrics.closed("done") == 1.0 && metrics.value("evenkeel_sessions_active", &[]) == 0.0
    });
    assert_eq!(metrics.value("evenkeel_bytes_total", &[("direction", "in")]), 21.0);
    chain.session_ended("-- done");
}

#[test]
fn sessions_of_an_old_process_that_is_killed_count_as_killed() {
    let env = TestEnv::new();
    let (chain, _session, _server) = replaced_with_a_session(&env);
    chain.signal(0, Signal::SIGKILL);
    let metrics =
        chain.metrics_until("they are counted", |metrics| metrics.closed("killed") == 1.0);
    assert_eq!(metrics.value("evenkeel_sessions_active", &[]), 0.0);
    assert_eq!(metrics.value("evenkeel_sessions_total", &[]), 1.0);
    chain.logged("an earlier process has ended before its sessions");
}

#[test]
fn descriptors_are_back_after_upgrades() {
    let env = TestEnv::new();
    let (config, _server) = naming(&env);
    let mut chain = Chain::start(&env, &config);
    let base = chain.base;
    for number in 1..=3 {
        chain.upgrade();
        chain.ended(number - 1);
    }
    let new = chain.pid();
    let now = || crate::common::process::Descriptors::of(new);
    until_some("it has as many descriptors as the first process", || (now() == base).then_some(()));
}
