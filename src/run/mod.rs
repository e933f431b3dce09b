//! Runs the balancer: first every step that can fail, then it drops privileges and starts the
//! threads. This thread becomes the control thread.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver};
use tokio::sync::{mpsc, oneshot};
use tokio::task;
use tokio::time::timeout;

use crate::config::Config;
use crate::control::budget::{self, Memory};
use crate::control::cluster::{Bound, Cluster};
use crate::control::controller::{self, UpgradeParts, WorkerEvents};
use crate::control::reload::{self, Found, Names};
use crate::control::resolve::Resolver;
use crate::control::signals::Signals;
use crate::control::sources;
use crate::control::upgrade::{Inherited, Start, Taken, Takeover};
use crate::observe::{admin, application_log, http, log};
use crate::proxy::PIPES_PER_WORKER;
use crate::proxy::worker::Worker;
use crate::run::prepared::Prepared;
use crate::shared::orders::Request;
use crate::shared::phase::{Phase, PhaseCell};
use crate::shared::records::Records;
use crate::shared::state::SharedState;
use crate::shared::table::Table;
use crate::sys::features;
use crate::sys::local_addresses::LocalAddresses;
use crate::sys::pipe::{PipeLimits, size_of_each};
use crate::sys::waker::Waker;
use crate::sys::zone::Shown;
use crate::terms::{WorkerIndex, counted};

pub(crate) mod confinement;
mod failure;
pub(crate) mod identity;
pub(crate) mod limits;
mod memory;
mod prepared;
mod runtime;

pub use failure::Failure;

/// Worker events in the channel to the control thread; a worker drops an event while it is full.
const EVENTS_WAITING: usize = 4096;

/// Requests in the channel to the control thread; a sender waits while it is full.
const REQUESTS_WAITING: usize = 64;

/// How long HTTP and the control socket may take to send the answers under way.
const OBSERVERS_TIMEOUT: Duration = Duration::from_secs(6);

/// How long the session log may take to write the remaining records at the end.
const LOG_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs until a signal stops it. Everything is closed when it returns.
///
/// # Errors
/// It could not start, or had to stop.
pub fn run(config: Config, start: &mut Start) -> Result<(), Failure> {
    let started = Instant::now();
    // Dropped last: every line is written, whatever the outcome.
    let mut application_log = application_log::init(config.observe.log.format);
    features::ring_available()
        .map_err(|problem| Failure::of(format!("evenkeel: {problem}; see `evenkeel doctor`")))?;
    if start.takeover.is_none() {
        start.inherited = Inherited::from_service_manager();
    }
    let prepared = Prepared::new(&config, std::mem::take(&mut start.inherited))?;
    // No other thread exists yet, so that limits and privileges hold for all threads.
    limits::raise_locked_memory();
    prepared.drop_privileges(&config)?;
    confinement::confine(&config);
    application_log.start().map_err(|error| Failure::of(format!("evenkeel: no log: {error}")))?;

    let (workers, sessions) = (prepared.workers, prepared.sessions_max);
    let runtime = runtime::start().map_err(|error| {
        let what = "evenkeel: the control thread";
        Failure::of(limits::no_ring(what, &error, (workers, 0), sessions))
    })?;
    let (records, writer) = start_log(&config)?.unzip();
    let outcome = runtime.block_on(control(config, prepared, records, started, start));
    // Tasks of the control thread hold the shared state, and with it the channel to the log.
    drop(runtime);
    if let Some(writer) = writer {
        end_log(writer);
    }
    outcome
}

/// Starts the session log, unless it is turned off.
fn start_log(config: &Config) -> Result<Option<(Records, JoinHandle<()>)>, Failure> {
    let wanted = config.observe.log.sessions;
    let log = wanted.then(|| log::start_writer(&config.observe.log)).transpose();
    log.map_err(|error| Failure::of(format!("evenkeel: no session log: {error}")))
}

/// The part that runs in the runtime of the control thread.
async fn control(
    config: Config,
    mut prepared: Prepared,
    records: Option<Records>,
    started: Instant,
    start: &mut Start,
) -> Result<(), Failure> {
    let mut signals =
        Signals::new().map_err(|error| Failure::of(format!("evenkeel: signals: {error}")))?;
    let resolver = Resolver::with_servers(&config.global.resolver.0);
    let found = tokio::select! {
        found = reload::resolve(&resolver, Names::of(&config)) => found,
        () = signals.end() => {
            tracing::info!("stopped before it was ready");
            return Ok(());
        }
    };
    prepared.count_names(&config, &found);
    sources::warn(&config);
    let mut cluster = first_cluster(&config, &prepared, start, &found, started);
    // A client that this process accepts is lost if it then fails to start. Sockets that it has not
    // bound keep their clients, so that the workers get them only when nothing can fail any more.
    let without_listeners = start.takeover.is_some() || prepared.has_taken();
    let no_listeners = Bound::new();
    let listeners = if without_listeners { &no_listeners } else { &prepared.bound };
    let table = cluster.table(1, listeners);

    let (shared, events) = share(table, &prepared, records, started)?;
    let observed = prepared.observed();
    let observed =
        observed.map_err(|error| Failure::of(format!("evenkeel: no descriptor: {error}")))?;
    let stop = |_: &Failure| {
        shared.phase.store(Phase::Stopped);
        shared.wake();
    };
    let ended = start_workers(&config, &prepared, &shared).inspect_err(stop)?;
    let taken = take_over(start, &mut prepared).await.inspect_err(stop)?;
    prepared.own(&config);
    tracing::info!(
        "evenkeel {} runs: {}, {} at most; {}",
        env!("CARGO_PKG_VERSION"),
        counted(prepared.workers, "worker"),
        counted(prepared.sessions_max as usize, "session"),
        where_it_listens(&config, prepared.http.is_some())
    );
    let program = start.program.take();
    let upgrade = UpgradeParts { program, observed, taken, without_listeners };
    let Prepared { bound, budget, http, admin, .. } = prepared;
    let (requests, observers) = observe(http, admin, &shared);
    let parts = controller::Parts {
        config,
        cluster,
        bound,
        shared: Arc::clone(&shared),
        budget,
        resolver,
        found,
        signals,
        events,
        requests,
        ended,
        started,
        upgrade,
    };
    let outcome = Box::pin(controller::run(parts)).await;
    for observer in observers {
        // Answers under way are sent.
        drop(timeout(OBSERVERS_TIMEOUT, observer).await);
    }
    outcome.map_err(|line| Failure::of(format!("evenkeel: {line}")))
}

/// What the threads share, and the events of workers for the control thread.
fn share(
    table: Table,
    prepared: &Prepared,
    records: Option<Records>,
    started: Instant,
) -> Result<(Arc<SharedState>, WorkerEvents), Failure> {
    let (sender, events) = channel::bounded(EVENTS_WAITING);
    let events = WorkerEvents::forward(events)
        .map_err(|error| Failure::of(format!("evenkeel: no thread: {error}")))?;
    let wakers: io::Result<Vec<Waker>> = (0..prepared.workers).map(|_| Waker::new()).collect();
    let wakers = wakers.map_err(|error| Failure::of(format!("evenkeel: no waker: {error}")))?;
    let phase = PhaseCell::new(started);
    let shared = SharedState::new(table, phase, prepared.sessions_max, sender, records, wakers);
    Ok((Arc::new(shared), events))
}

/// The state of the cluster at the start, with what an old process knew.
fn first_cluster(
    config: &Config,
    prepared: &Prepared,
    start: &Start,
    found: &Found,
    started: Instant,
) -> Cluster {
    let mut cluster = Cluster::new(prepared.workers);
    let known = start.takeover.as_ref().and_then(Takeover::state).map(|state| &state.cluster);
    if let Some(known) = known {
        cluster.restore_orders(known, started);
    }
    let mut addresses = found.addresses();
    cluster.add_records(found.records());
    // What DNS does not answer now has its last good answer.
    if let Some(known) = known {
        cluster.add_records(known.records());
        for (host, answer) in known.answers() {
            addresses.entry(host).or_insert(answer);
        }
    }
    cluster.merge(config, addresses, &LocalAddresses::now(), started);
    if let Some(known) = known {
        cluster.restore_health(known, started);
    }
    cluster
}

/// Tells the old process of an upgrade, if this is one, that nothing can fail here any more, and
/// waits until this process is in charge.
async fn take_over(start: &mut Start, prepared: &mut Prepared) -> Result<Option<Taken>, Failure> {
    let Some(takeover) = start.takeover.take() else { return Ok(None) };
    takeover.note().iter().for_each(|note| tracing::warn!("{note}"));
    let unused = std::mem::take(&mut prepared.unused);
    let taken = takeover.ready(unused).await.map_err(|error| {
        Failure::of(format!("evenkeel: the old process has not handed over: {error}"))
    })?;
    let Taken { pid, version, .. } = &taken;
    tracing::info!("replaces process {pid} (evenkeel {version})");
    Ok(Some(taken))
}

/// Serves HTTP and the control socket in the runtime of the control thread, until the receiver of
/// their requests is dropped.
fn observe(
    http: Option<TcpListener>,
    admin: Option<admin::Socket>,
    shared: &Arc<SharedState>,
) -> (mpsc::Receiver<Request>, Vec<task::JoinHandle<()>>) {
    let (sender, requests) = mpsc::channel(REQUESTS_WAITING);
    let mut observers = Vec::new();
    if let Some(listener) = http {
        let serve = http::serve(listener, sender.clone(), Arc::clone(shared));
        observers.push(watch("observe.bind", serve));
    }
    if let Some(socket) = admin {
        let serve = admin::serve(socket, sender, Arc::clone(shared));
        observers.push(watch("observe.control", serve));
    }
    (requests, observers)
}

/// Reports a service that ends before the process does.
fn watch(
    key: &'static str,
    serve: impl Future<Output = io::Result<()>> + 'static,
) -> task::JoinHandle<()> {
    tokio_uring::spawn(async move {
        if let Err(error) = serve.await {
            tracing::error!("{key} is not served: {error}");
        }
    })
}

/// For the operator: the addresses of the frontends, and that of the status page.
fn where_it_listens(config: &Config, observed: bool) -> String {
    const SHOWN: usize = 4;
    let binds = config.frontends.iter().flat_map(|frontend| &frontend.bind);
    let addresses: Vec<String> = binds.map(|(bind, _)| bind.to_string()).collect();
    let (shown, rest) = addresses.split_at(addresses.len().min(SHOWN));
    let mut text = format!("listens on {}", shown.join(", "));
    if !rest.is_empty() {
        text += &format!(" and {} more", rest.len());
    }
    if let Some((address, _)) = config.observe.bind.filter(|_| observed) {
        text += &format!("; http://{}/ shows its state", Shown(address));
    }
    text
}

/// Starts every worker. The receiver is notified when all of them have ended.
fn start_workers(
    config: &Config,
    prepared: &Prepared,
    shared: &Arc<SharedState>,
) -> Result<oneshot::Receiver<()>, Failure> {
    let mut threads = Vec::new();
    let Prepared { workers, sessions_max, .. } = *prepared;
    let size = size_of_each(workers * usize::from(PIPES_PER_WORKER));
    let pipes = PipeLimits { count: PIPES_PER_WORKER, size };
    let Memory { buffers, pipes } =
        budget::memory(config, workers, sessions_max, memory::available(), pipes);
    let ring_sessions = limits::ring_sessions(workers, sessions_max);
    if ring_sessions < sessions_max {
        tracing::warn!(
            "RLIMIT_MEMLOCK is low: the rings of {workers} workers are made smaller; {}",
            limits::locked_memory_remedy(workers, sessions_max)
        );
    }
    for index in 0..prepared.workers {
        let worker = Worker {
            index: WorkerIndex(index),
            shared: Arc::clone(shared),
            sessions_max: ring_sessions,
            buffers,
            pipes,
            core: config.global.pin.then(|| prepared.core_of(index)),
        };
        threads.push(worker.start().map_err(|error| {
            let what = format!("evenkeel: worker {index} does not start");
            Failure::of(limits::no_ring(&what, &error, (workers, index), sessions_max))
        })?);
    }
    let (ended, all_ended) = oneshot::channel();
    let join = move || {
        for thread in threads {
            // A panic in a worker ends the process before this.
            drop(thread.join());
        }
        ended.send(()).ok();
    };
    thread::Builder::new()
        .name("join".to_owned())
        .spawn(join)
        .map_err(|error| Failure::of(format!("evenkeel: no thread: {error}")))?;
    Ok(all_ended)
}

/// Waits until the log is written, for `LOG_TIMEOUT` at most: its reader may not read.
fn end_log(writer: JoinHandle<()>) {
    let (ended, has_ended): (_, Receiver<()>) = channel::bounded(1);
    let join = thread::Builder::new().name("join-log".to_owned()).spawn(move || {
        drop(writer.join());
        drop(ended);
    });
    if join.is_ok()
        && has_ended.recv_timeout(LOG_TIMEOUT) == Err(channel::RecvTimeoutError::Timeout)
    {
        tracing::warn!("nobody reads the session log; its last records are lost");
    }
}
