//! The control thread without workers: the tests read the shared state as they would.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::config;
use crate::config::AdminState;
use crate::control::budget::Budget;
use crate::control::cluster::{Answers, Bound, Cluster};
use crate::control::listeners;
use crate::control::reload::Found;
use crate::control::resolve::Resolver;
use crate::control::signals::Signals;
use crate::shared::events::WorkerEvent;
use crate::shared::orders::{Order, Request, ServerName};
use crate::shared::phase::{Phase, PhaseCell};
use crate::shared::state::SharedState;
use crate::sys::address::Address;
use crate::sys::local_addresses::LocalAddresses;
use crate::sys::waker::Waker;
use crate::terms::WorkerIndex;

const REJECTED: &str = "reload rejected, the old configuration stays active: ";

/// Enough for 100 sessions, one server, ten connections to `observe.bind` and about twenty
/// addresses to listen on.
const DESCRIPTORS: u64 = 48 + 3 + 2 + 200 + 20 + 10;

/// A running control thread, and a folder of its own.
struct Scene {
    folder: PathBuf,
    bind: SocketAddr,
    shared: Arc<SharedState>,
    events: Sender<WorkerEvent>,
    requests: mpsc::Sender<Request>,
    ended: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), String>>,
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn write(path: &Path, binds: &[SocketAddr], servers: &[SocketAddr]) {
    let binds: Vec<String> = binds.iter().map(|bind| format!("{:?}", bind.to_string())).collect();
    let mut text = format!(
        "[frontend.f]\nbind = [{}]\nbackend = \"b\"\n[backend.b.health]\ninterval = \"50ms\"\n",
        binds.join(", ")
    );
    for (index, server) in servers.iter().enumerate() {
        text += &format!("[[backend.b.server]]\nname = \"s{index}\"\naddress = \"{server}\"\n");
    }
    fs::write(path, text).unwrap();
}

impl Scene {
    fn new(servers: &[SocketAddr]) -> Self {
        Self::with(servers, "")
    }

    /// So many addresses to listen on, each on the port of the first file's.
    fn many(&self, count: u8) -> Vec<SocketAddr> {
        (1..=count).map(|n| ([127, 0, 1, n], self.bind.port()).into()).collect()
    }

    /// `more`: further text of its first file.
    fn with(servers: &[SocketAddr], more: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("evenkeel-control-{}-{count}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        let bind = free();
        write(&folder.join("e.toml"), &[bind], servers);
        let text = fs::read_to_string(folder.join("e.toml")).unwrap();
        fs::write(folder.join("e.toml"), text + more).unwrap();
        let config = config::load(&folder.join("e.toml")).unwrap();
        let started = Instant::now();
        let mut cluster = Cluster::new(1);
        cluster.merge(&config, Answers::new(), &LocalAddresses::default(), started);
        let bound = listeners::bind(&config, 1, &Bound::new()).unwrap();
        let (events, events_receiver) = crossbeam::channel::bounded(8);
        let (requests, requests_receiver) = mpsc::channel(8);
        let shared = Arc::new(SharedState::new(
            cluster.table(1, &bound),
            PhaseCell::new(started),
            100,
            events.clone(),
            None,
            vec![Waker::new().unwrap()],
        ));
        let (ended, has_ended) = oneshot::channel();
        let of_thread = Arc::clone(&shared);
        let control = move || {
            let resolver = Resolver::new();
            tokio_uring::start(async move {
                let parts = Parts {
                    signals: Signals::new().unwrap(),
                    config,
                    cluster,
                    bound,
                    shared: of_thread,
                    budget: Budget {
                        descriptors: DESCRIPTORS,
                        workers: 1,
                        inherited: 0,
                        pipes_per_worker: 1,
                        observe_connections: [10, 0],
                    },
                    resolver,
                    found: Found::default(),
                    events: WorkerEvents::forward(events_receiver).unwrap(),
                    requests: requests_receiver,
                    ended: has_ended,
                    started,
                    upgrade: UpgradeParts::default(),
                };
                Box::pin(run(parts)).await
            })
        };
        let thread = std::thread::spawn(control);
        Self { folder, bind, shared, events, requests, ended, thread }
    }

    fn file(&self) -> PathBuf {
        self.folder.join("e.toml")
    }

    fn order(&self, order: Order) -> Result<String, String> {
        let (answer, outcome) = oneshot::channel();
        self.requests.blocking_send(Request::Order(order, answer)).unwrap();
        outcome.blocking_recv().unwrap()
    }

    /// Addresses of servers that may be picked now.
    fn picked(&self) -> Vec<SocketAddr> {
        let table = self.shared.table.load();
        let schedule = &table.frontends[0].backend.as_ref().unwrap().schedule;
        schedule.endpoints.iter().filter_map(|one| one.address.for_client(None)).collect()
    }

    fn wait_until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !holds(self) {
            assert!(Instant::now() < deadline, "{what}: not within 10 s");
            std::thread::yield_now();
        }
    }

    fn end(self) {
        self.shared.phase.store(Phase::Stopped);
        self.ended.send(()).unwrap();
        assert_eq!(self.thread.join().unwrap(), Ok(()));
        fs::remove_dir_all(&self.folder).unwrap();
    }
}

#[test]
fn a_reload_puts_the_file_in_force() {
    let servers = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let servers = servers.each_ref().map(|server| server.local_addr().unwrap());
    let scene = Scene::new(&servers[..1]);
    assert_eq!(scene.picked(), servers[..1]);
    let more = free();
    write(&scene.file(), &[scene.bind, more], &servers);
    scene.order(Order::Reload).unwrap();
    assert_eq!(scene.picked(), servers);
    let table = scene.shared.table.load_full();
    let addresses = table.listeners.iter().map(|(listener, _)| listener.address.clone());
    assert_eq!(addresses.collect::<Vec<_>>(), [scene.bind, more].map(Address::Ip));
    scene.end();
}

#[test]
fn a_bad_file_changes_nothing_and_says_why() {
    let server = free();
    let scene = Scene::new(&[server]);
    let before = Arc::clone(&scene.shared.table.load().listeners[0].0);
    fs::write(scene.file(), "[frontend.f]\nbund = 1\n").unwrap();
    let problem = scene.order(Order::Reload).unwrap_err();
    assert!(problem.contains("e.toml:2:1: ") && problem.starts_with(REJECTED), "{problem}");
    let after = Arc::clone(&scene.shared.table.load().listeners[0].0);
    assert!(Arc::ptr_eq(&before, &after));
    scene.end();
}

#[test]
fn an_address_in_use_changes_nothing() {
    let (server, taken) = (free(), TcpListener::bind("127.0.0.1:0").unwrap());
    let scene = Scene::new(&[server]);
    write(&scene.file(), &[free(), taken.local_addr().unwrap()], &[free()]);
    let problem = scene.order(Order::Reload).unwrap_err();
    assert!(problem.contains("is in use"), "{problem}");
    assert_eq!(scene.shared.table.load().listeners[0].0.address, scene.bind.into());
    scene.end();
}

#[test]
fn addresses_that_would_take_the_descriptors_of_sessions_lower_an_automatic_limit() {
    let scene = Scene::new(&[free()]);
    let many = scene.many(30);
    write(&scene.file(), &many, &[free()]);
    scene.order(Order::Reload).unwrap();
    assert_eq!(scene.shared.sessions.max(), 94);
    write(&scene.file(), &[free()], &[free()]);
    scene.order(Order::Reload).unwrap();
    assert_eq!(scene.shared.sessions.max(), 100);
    scene.end();
}

#[test]
fn a_configured_limit_that_no_longer_fits_refuses_the_reload_with_the_numbers() {
    let scene = Scene::with(&[free()], "[global]\nsessions_max = 100\n");
    let many = scene.many(30);
    write(&scene.file(), &many, &[free()]);
    let problem = scene.order(Order::Reload).unwrap_err();
    for part in ["294 file descriptors are needed", "283", "sessions_max = 94", REJECTED] {
        assert!(problem.contains(part), "no {part}: {problem}");
    }
    assert_eq!(scene.shared.table.load().listeners[0].0.address, scene.bind.into());
    scene.end();
}

#[test]
fn a_reload_that_needs_no_more_descriptors_is_not_refused() {
    // As after names have got more addresses than there are descriptors for.
    let port = free().port();
    let servers: Vec<SocketAddr> = (1..=40).map(|n| ([127, 0, 2, n], port).into()).collect();
    let scene = Scene::with(&servers, "[global]\nsessions_max = 100\n");
    write(&scene.file(), &[scene.bind], &servers[1..]);
    scene.order(Order::Reload).unwrap();
    write(&scene.file(), &[scene.bind], &servers);
    let problem = scene.order(Order::Reload).unwrap_err();
    assert!(problem.contains("file descriptors are needed"), "{problem}");
    scene.end();
}

#[test]
fn a_reload_cannot_use_descriptors_that_only_a_restart_releases() {
    let scene = Scene::with(&[free()], "[global]\nsessions_max = 100\n");
    let many = scene.many(25);
    write(&scene.file(), &many, &[free()]);
    let text = fs::read_to_string(scene.file()).unwrap();
    fs::write(scene.file(), text + "[observe]\nbind = false\n").unwrap();
    let problem = scene.order(Order::Reload).unwrap_err();
    assert!(problem.contains("289 file descriptors are needed"), "{problem}");
    scene.end();
}

#[test]
fn an_old_table_lives_until_every_worker_has_seen_a_newer_one() {
    let scene = Scene::new(&[free()]);
    let old = Arc::downgrade(&scene.shared.table.load_full());
    scene.order(Order::Reload).unwrap();
    assert!(old.upgrade().is_some());
    scene.shared.acknowledge(WorkerIndex(0), scene.shared.table.load().version);
    scene.wait_until("the old table is gone", |_| old.upgrade().is_none());
    scene.end();
}

#[test]
fn a_server_that_refuses_is_no_longer_chosen() {
    let scene = Scene::new(&[free()]);
    scene.wait_until("no server is picked", |scene| scene.picked().is_empty());
    scene.end();
}

#[test]
fn an_order_is_in_force_when_its_answer_comes() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let scene = Scene::new(&[server.local_addr().unwrap()]);
    let name = || ServerName { backend: "b".to_owned(), server: "s0".to_owned() };
    scene.order(Order::SetState(name(), AdminState::Drain)).unwrap();
    assert!(scene.picked().is_empty());
    scene.order(Order::SetState(name(), AdminState::Ready)).unwrap();
    assert_eq!(scene.picked().len(), 1);
    scene.order(Order::SetWeight(name(), 0)).unwrap();
    assert!(scene.picked().is_empty());
    scene.end();
}

#[test]
fn reloads_that_come_together_are_all_answered() {
    let scene = Scene::new(&[free()]);
    std::thread::scope(|scope| {
        let orders: Vec<_> = (0..10).map(|_| scope.spawn(|| scene.order(Order::Reload))).collect();
        for order in orders {
            order.join().unwrap().unwrap();
        }
    });
    scene.end();
}

#[test]
fn a_worker_that_ends_by_itself_ends_the_process() {
    let scene = Scene::new(&[free()]);
    scene.events.send(WorkerEvent::WorkerEnded(WorkerIndex(0))).unwrap();
    let outcome = scene.thread.join().unwrap();
    assert!(outcome.unwrap_err().contains("worker 0"));
    assert_eq!(scene.shared.phase.load(), Phase::Stopped);
    fs::remove_dir_all(&scene.folder).unwrap();
}
