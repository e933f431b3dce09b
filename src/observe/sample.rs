//! A sample snapshot, for tests and fuzzing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use crate::config::{AdminState, Balance};
use crate::shared::counters::{BackendCells, PerWorker};
use crate::shared::limit::Limit;
use crate::shared::orders::{Order, Request};
use crate::shared::phase::{Phase, PhaseCell};
use crate::shared::plan::ReloadPlan;
use crate::shared::queue::{Queue, Waiter};
use crate::shared::server::ServerShared;
use crate::shared::snapshot::{
    BackendStatus, EndpointStatus, FrontendStatus, LastProbe, ProbeCounts, ServerStatus, Snapshot,
};
use crate::shared::state::SharedState;
use crate::shared::table::{FrontendShared, Table};
use crate::sys::waker::Waker;
use crate::terms::{ConnectFailure, Direction, Reason, Refusal, ServerId, WorkerIndex};

/// Two workers, running.
pub(super) fn shared() -> Arc<SharedState> {
    let table = Table { version: 1, ..Table::default() };
    let phase = PhaseCell::new(Instant::now());
    let (seen, _) = crossbeam::channel::unbounded();
    let wakers = (0..2).map(|_| Waker::new().unwrap()).collect();
    Arc::new(SharedState::new(table, phase, 1000, seen, None, wakers))
}

/// A frontend and two servers with some sessions; the second server is down.
pub(super) fn snapshot() -> Snapshot {
    let shared = Arc::new(FrontendShared::new("http".into(), None, 2));
    for (worker, sessions) in [(0, 3), (1, 4)] {
        let cell = shared.cells.of(WorkerIndex(worker));
        cell.sessions.add(sessions);
        cell.active.add(1);
        cell.refused[Refusal::Denied as usize].add(1);
        cell.closed[Reason::Done as usize].add(sessions - 1);
        cell.bytes[Direction::Out as usize].add(2048);
        cell.session_duration.record(Duration::from_millis(30));
    }
    let frontend = FrontendStatus {
        name: "http".into(),
        backend: "web".into(),
        addresses: vec![SocketAddr::from(([127, 0, 0, 1], 80)).into()],
        shared,
    };
    Snapshot {
        phase: Phase::Running,
        uptime: Duration::from_secs(3725),
        table_version: 7,
        reloads_done: 2,
        upgrades_done: 1,
        upgrades_failed: 0,
        reloads_failed: 1,
        sessions_max: 1000,
        frontends: vec![frontend],
        backends: vec![backend()],
        servers: vec![server("web1", true), server("web2", false)],
    }
}

/// Backend `web`, with a session in its queue.
fn backend() -> BackendStatus {
    let queue = Queue::new(2, 1024);
    queue.join(Waiter { worker: WorkerIndex(0), slot: 1, generation: 1 }).unwrap();
    let cells = BackendCells::new(2);
    for worker in 0..2 {
        cells.retries.of(WorkerIndex(worker))[ConnectFailure::Refused as usize].add(1);
    }
    cells.probe_duration.of(WorkerIndex(0)).record(Duration::from_millis(2));
    let (queue, cells) = (Arc::new(queue), Arc::new(cells));
    BackendStatus { name: "web".into(), balance: Balance::LeastConn, queue, cells }
}

/// A server of backend `web`.
pub(super) fn server(name: &str, up: bool) -> ServerStatus {
    let shared = ServerShared {
        id: ServerId(0),
        backend: Arc::from("b"),
        name: name.into(),
        sessions: Limit::new((!up).then_some(9)),
        cells: PerWorker::new(2),
        backend_cells: Arc::new(BackendCells::new(2)),
        queue: Arc::new(Queue::new(2, 0)),
    };
    let cell = shared.cells.of(WorkerIndex(1));
    cell.sessions.add(5);
    cell.active.add(1);
    cell.connect_duration.record(Duration::from_micros(200));
    let duration = Some(Duration::from_micros(1234));
    let last_probe = LastProbe { detail: "status 200".into(), duration };
    ServerStatus {
        backend: "web".into(),
        endpoints: vec![EndpointStatus {
            address: SocketAddr::from(([192, 0, 2, 1], 80)).into(),
            up,
            sessions: 1,
            last_probe: last_probe.clone(),
        }],
        written: "rpi-b:80".into(),
        up,
        admin: AdminState::Ready,
        weight: 100,
        backup: false,
        removed: None,
        since: Duration::from_secs(65),
        admin_since: Duration::from_secs(5),
        probes: Arc::new(ProbeCounts::new(1)),
        last_probe,
        connect_mean: up.then_some(Duration::from_micros(200)),
        shared: Arc::new(shared),
    }
}

/// A control thread that answers with [`snapshot`], and has only the server web/web1.
pub(super) async fn control(mut requests: mpsc::Receiver<Request>) {
    while let Some(request) = requests.recv().await {
        match request {
            Request::Snapshot(sender) => drop(sender.send(snapshot())),
            Request::Explain(frontend, _, sender) => {
                drop(sender.send(Err(format!("no frontend {frontend}"))));
            }
            Request::PlanReload(sender) => drop(sender.send(Ok(ReloadPlan::default()))),
            Request::Order(order, sender) => {
                let outcome = match order {
                    Order::Reload => Ok("reloaded".to_owned()),
                    Order::Upgrade => Ok("upgraded".to_owned()),
                    Order::SetState(name, _) | Order::SetWeight(name, _)
                        if name.server != "web1" =>
                    {
                        Err(format!("no server {}/{}", name.backend, name.server))
                    }
                    Order::SetState(_, state) => Ok(format!("web/web1: {state:?}")),
                    Order::SetWeight(_, weight) => Ok(format!("web/web1: weight {weight}")),
                };
                drop(sender.send(outcome));
            }
        }
    }
}

/// A runtime with the control thread of [`control`], and two workers.
pub(super) struct World {
    pub(super) runtime: Runtime,
    pub(super) control: mpsc::Sender<Request>,
    pub(super) shared: Arc<SharedState>,
}

/// The one of this process: its start would take most of the time of an input.
pub(super) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (sender, requests) = mpsc::channel(8);
        runtime.spawn(control(requests));
        World { runtime, control: sender, shared: shared() }
    })
}
