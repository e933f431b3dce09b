//! Hostile clients of `observe.bind` and of the control socket (cases 98 and 99): they are slow,
//! silent, or send what nobody asked for. Others are answered, sessions go on, and memory and
//! descriptors return to what they were.

mod control;
mod flood;
mod garbage;
mod http;
mod text;

use std::env;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use nix::sys::signal::Signal;
use socket2::SockAddr;

use crate::common::client::{connect, exchange};
use crate::common::process::{Descriptors, resident_kib};
use crate::common::wait::{holds_for, until, until_ok, until_some};
use crate::common::{Balancer, Config, Server, TestEnv, http as client};
use crate::hostile::flood::{Flood, Manner};

/// Connections that are open at a time: to HTTP, and to the control socket.
const HTTP_MAX: usize = 128;
const CONTROL_MAX: usize = 16;

/// For hostile connections whose answer is short. (Each may have the head of a request, 16 KiB, and
/// a task; the rest is for the allocator.)
const ROOM_KIB: u64 = 16 * 1024;

/// What a balancer uses and has logged while nobody is hostile.
struct Quiet {
    resident_kib: u64,
    lines: usize,
    /// Memory that hostile connections may use. None if it cannot be told: `AddressSanitizer` keeps
    /// what is freed (tests/sanitize).
    room_kib: Option<u64>,
}

/// None with `AddressSanitizer`.
fn room(kib: u64) -> Option<u64> {
    env::var_os("ASAN_OPTIONS").is_none().then_some(kib)
}

impl Quiet {
    /// Of a balancer that has served each kind of client once.
    #[track_caller]
    fn of(balancer: &Balancer<'_>) -> Self {
        drop(balancer.metrics());
        balancer.control_ok(&["status"]);
        let resident_kib = until_some("memory is stable", || {
            let first = resident_kib(balancer.pid());
            let is_stable = || resident_kib(balancer.pid()) == first;
            holds_for(std::time::Duration::from_millis(300), is_stable).then_some(first)
        });
        let lines = balancer.application_log().lines().count();
        Self { resident_kib, lines, room_kib: room(ROOM_KIB) }
    }

    /// Asserts that descriptors and memory are bounded. `sessions`: connections of this test that
    /// are not hostile.
    #[track_caller]
    fn assert_bounded(&self, balancer: &Balancer<'_>, sessions: usize) {
        let (base, now) = (balancer.base, Descriptors::of(balancer.pid()));
        let most = base.sockets + HTTP_MAX + CONTROL_MAX + 2 * sessions;
        assert!(now.sockets <= most, "{base:?}, now {now:?}");
        let (before, resident) = (self.resident_kib, resident_kib(balancer.pid()));
        let is_bounded = self.room_kib.is_none_or(|room| resident < before + room);
        assert!(is_bounded, "{resident} KiB, {before} KiB before");
    }

    /// Waits until everything is as it was, and asserts that no line was logged.
    #[track_caller]
    fn assert_back(&self, balancer: &Balancer<'_>) {
        balancer.assert_no_leaks();
        let before = self.resident_kib;
        until_ok("memory is back", || match resident_kib(balancer.pid()) {
            now if self.room_kib.is_none() || now <= before + before / 4 => Ok(()),
            now => Err(format!("{now} KiB, {before} KiB before")),
        });
        let log = balancer.application_log();
        assert_eq!(log.lines().count(), self.lines, "a client can fill the log: {log}");
    }
}

/// Sessions through the frontend, one after the other, beside one that stays open.
struct Sessions {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Sessions {
    fn start(frontend: SocketAddr) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (is_over, count) = (Arc::clone(&stop), Arc::clone(&done));
        let thread = thread::spawn(move || {
            let old = connect(frontend);
            while !is_over.load(Ordering::Relaxed) {
                let new: TcpStream = connect(frontend);
                for client in [&old, &new] {
                    assert_eq!(exchange(client, b"hello"), b"hello");
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { stop, done, thread: Some(thread) }
    }

    /// Waits until ten more have ended well.
    #[track_caller]
    fn assert_go_on(&self) {
        let before = self.done.load(Ordering::Relaxed);
        until("ten sessions end", || self.done.load(Ordering::Relaxed) >= before + 10);
    }

    /// Ends them; a session that failed fails the test.
    fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Waits until a scrape and a supervisor are answered over HTTP.
#[track_caller]
fn until_scraped(observe: SocketAddr) {
    for path in ["/healthz", "/metrics"] {
        until_ok(path, || match client::get(observe, path) {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

/// Waits until `evenkeel status` is answered.
#[track_caller]
fn until_status(balancer: &Balancer<'_>) {
    until_ok("evenkeel status", || {
        let output = balancer.control(&["status"]);
        let text = crate::common::balancer::printed(&output);
        if output.status.success() { Ok(()) } else { Err(text) }
    });
}

/// Slow clients of an address are cut off, more than `many` of them, while scrapes, orders, probes
/// and sessions go on; and they do not delay the end of the process.
fn slow_clients_are_cut_off(
    env: &TestEnv,
    address: &SockAddr,
    clients: &[(Manner, usize)],
    many: usize,
) {
    let echo = Server::echo(env.port(9001));
    let config = Config::new(env).quick_health("tcp").server("echo", echo.address);
    let mut balancer = Balancer::start(env, &config);
    balancer.metrics_until("the server is up", |metrics| metrics.up("echo"));
    let quiet = Quiet::of(&balancer);
    let sessions = Sessions::start(env.frontend());
    let flood = Flood::start(address.clone(), clients);
    until("slow clients are cut off", || {
        until_scraped(env.observe());
        until_status(&balancer);
        sessions.assert_go_on();
        quiet.assert_bounded(&balancer, 3);
        flood.cut() > many
    });
    sessions.end();
    drop(flood);
    quiet.assert_back(&balancer);
    let flood = Flood::start(address.clone(), clients);
    until("a slow client is cut off", || flood.cut() > 0);
    balancer.signal(Signal::SIGTERM);
    assert!(balancer.wait().success());
    drop(flood);
}
