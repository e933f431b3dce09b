//! The loop of the control thread: it receives signals, orders, results of probes, answers of DNS
//! and events of workers, updates the cluster, and puts a new table in force if that has changed.
//!
//! No worker waits for this thread: when it hangs, traffic goes on by the last table.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout_at;

use crate::config::Config;
use crate::control::budget::Budget;
use crate::control::cluster::{Bound, Cluster};
use crate::control::controller::events::{Event, Events, WorkerEvents};
use crate::control::controller::limits_reached::ReachedLimits;
use crate::control::controller::pace::TablePace;
use crate::control::controller::requester::Requester;
use crate::control::controller::state::{Controller, Reloading, Remedy};
use crate::control::controller::upgrade_state::{Observed, Upgrading};
use crate::control::heartbeats::Watch;
use crate::control::notify::Notifier;
use crate::control::prober::Prober;
use crate::control::reload::Found;
use crate::control::resolve::Resolver;
use crate::control::signals::{Signal, Signals};
use crate::control::upgrade::{Program, Taken};
use crate::shared::orders::{Order, Request};
use crate::shared::phase::Phase;
use crate::shared::snapshot::Snapshot;
use crate::shared::state::SharedState;
use crate::shared::totals::Totals;

/// Workers get this time after the deadline of a drain to close what is left; then they are told to
/// stop, and get as long again.
const GRACE: Duration = Duration::from_secs(3);

/// What the control thread is started with.
#[derive(Debug)]
pub struct Parts {
    /// In force.
    pub config: Config,
    /// With `config` applied; the table of `shared` is made from it.
    pub cluster: Cluster,
    /// Every address of `config`.
    pub bound: Bound,
    /// What is shared with the workers.
    pub shared: Arc<SharedState>,
    /// By which the limit of sessions was set.
    pub budget: Budget,
    /// For host names.
    pub resolver: Resolver,
    /// What the names of `config` have in DNS.
    pub found: Found,
    /// Signals of this process.
    pub signals: Signals,
    /// From the other end of `shared.events`.
    pub events: WorkerEvents,
    /// From HTTP and the control socket.
    pub requests: mpsc::Receiver<Request>,
    /// Answers, or is dropped, when every worker has ended.
    pub ended: oneshot::Receiver<()>,
    /// The program's start.
    pub started: Instant,
    /// For upgrades.
    pub upgrade: UpgradeParts,
}

/// What upgrades need.
#[derive(Debug, Default)]
pub struct UpgradeParts {
    /// What is started; none: it is not known.
    pub program: Option<Program>,
    /// The sockets of `observe.bind` and `observe.control`.
    pub observed: Vec<Observed>,
    /// The upgrade that led to this process.
    pub taken: Option<Taken>,
    /// The table of `shared` has no listeners: others have bound some of them, and they were not to
    /// be used while the start could fail.
    pub without_listeners: bool,
}

/// Runs within a runtime of tokio-uring until every worker has ended after a drain or a stop.
///
/// # Errors
/// A worker ended by itself, or did not end in time. For the operator.
pub async fn run(parts: Parts) -> Result<(), String> {
    let Parts { signals, events, requests, ended, .. } = parts;
    let UpgradeParts { program, observed, taken, without_listeners } = parts.upgrade;
    let taken = taken.unwrap_or_default();
    let known = taken.state.unwrap_or_default();
    let (mut events, senders) = Events::new(signals, events, requests, ended);
    let mut controller = Controller {
        watch: Watch::new(parts.shared.wakers.len()),
        remedy: Remedy::default(),
        descriptors_lowered: false,
        prober: Prober::new(senders.probed.clone()),
        followers: BTreeMap::new(),
        srv_followers: BTreeMap::new(),
        unserved: 0,
        senders,
        cluster: parts.cluster,
        bound: parts.bound,
        sessions_max: parts.shared.sessions.max(),
        started_with: Arc::clone(&parts.config.text),
        config: parts.config,
        shared: parts.shared,
        budget: parts.budget,
        resolver: parts.resolver,
        started: parts.started,
        reloading: Reloading {
            done: known.reloads_done,
            failed: known.reloads_failed,
            ..Reloading::default()
        },
        upgrading: Upgrading {
            program,
            observed,
            done: known.upgrades_done + u64::from(taken.pid != 0),
            failed: known.upgrades_failed,
            running: None,
            next: None,
            earlier: taken.earlier,
            ended: Totals::default(),
            publisher: None,
            asked_to_end: false,
        },
        retired: VecDeque::new(),
        stale: without_listeners,
        probes_moved: false,
        pace: TablePace::default(),
        notifier: Notifier::from_environment(),
        reached: ReachedLimits::default(),
        accept_logged: None,
        source_logged: None,
        stall_logged: None,
        exhaustion_logged: None,
        drain_at: None,
        stopped: None,
    };
    // From here on clients are served.
    controller.settle();
    controller.follow_earlier();
    controller.follow_names(parts.found);
    controller.set_targets();
    controller.log_changes();
    if !controller.is_ending() {
        controller.notifier.ready();
    }
    let outcome = controller.serve(&mut events).await;
    controller.prober.set_targets(Vec::new());
    // On a thread of the pool: answers of the control socket are still under way.
    let mut notifier = controller.notifier;
    drop(spawn_blocking(move || notifier.finish()).await);
    outcome
}

impl Controller {
    async fn serve(&mut self, events: &mut Events) -> Result<(), String> {
        loop {
            let next = events.next();
            let event = match self.pace.due {
                Some(due) => timeout_at(due.into(), next).await.unwrap_or(Event::TableDue),
                None => next.await,
            };
            match event {
                Event::Signal(Signal::Reload) if self.defer_reload() => {}
                Event::Signal(Signal::Reload) => self.want_reload(Requester::signal()),
                Event::Signal(Signal::End) => self.end(),
                Event::Signal(Signal::Upgrade) => self.want_upgrade(Requester::signal()),
                Event::Upgraded(outcome) => self.on_upgraded(outcome),
                Event::Counted => self.on_counted(),
                Event::Request(request) => self.answer(request),
                Event::Workers(batch) => self.on_worker_events(&batch)?,
                Event::Probed(report) => self.on_probed(report, events),
                Event::Resolved(resolved) => self.on_resolved(resolved, events),
                Event::Supplied(supplied) => self.on_supplied(supplied),
                Event::Read(read) => self.on_read(*read),
                Event::TableDue => {}
                Event::Tick => self.on_tick()?,
                Event::Ended => return self.on_ended(),
            }
            self.settle();
        }
    }

    fn answer(&mut self, request: Request) {
        // The sender may have given up waiting.
        match request {
            Request::Snapshot(answer) => drop(answer.send(self.snapshot())),
            Request::Explain(frontend, client, answer) => {
                drop(answer.send(self.explain(&frontend, client)));
            }
            Request::PlanReload(answer) => self.plan_reload(answer),
            Request::Order(Order::Reload, answer) => self.want_reload(Requester::command(answer)),
            Request::Order(Order::Upgrade, answer) => self.want_upgrade(Requester::command(answer)),
            // The state that the new process has does not have it.
            Request::Order(_, answer) if self.upgrading.is_handing_over() => {
                let why = "no order: an upgrade is under way; try again when it has ended";
                drop(answer.send(Err(why.to_owned())));
            }
            Request::Order(Order::SetState(name, state), answer) => {
                let outcome = self.cluster.set_state(&name, state, Instant::now());
                self.finish_order(outcome, answer);
            }
            Request::Order(Order::SetWeight(name, weight), answer) => {
                let outcome = self.cluster.set_weight(&name, weight, Instant::now());
                self.finish_order(outcome, answer);
            }
        }
    }

    fn finish_order(
        &mut self,
        outcome: Result<String, String>,
        answer: oneshot::Sender<Result<String, String>>,
    ) {
        if let Ok(done) = &outcome {
            tracing::info!("{done} (by the operator)");
            self.stale = true;
            // In force when the answer arrives.
            self.settle();
        }
        drop(answer.send(outcome));
    }

    fn snapshot(&self) -> Snapshot {
        let now = Instant::now();
        Snapshot {
            phase: self.shared.phase.load(),
            uptime: now.duration_since(self.started),
            table_version: self.shared.table.load().version,
            reloads_done: self.reloading.done,
            reloads_failed: self.reloading.failed,
            upgrades_done: self.upgrading.done,
            upgrades_failed: self.upgrading.failed,
            sessions_max: self.shared.sessions.max(),
            frontends: self.cluster.frontend_statuses(),
            backends: self.cluster.backend_statuses(),
            servers: self.cluster.server_statuses(now),
        }
    }

    /// A signal to end: the first one starts the drain, after `drain_delay`; the second one stops
    /// at once.
    fn end(&mut self) {
        if self.is_first_end_after_upgrade() {
            return;
        }
        self.abandon_upgrade();
        if self.shared.phase.load() != Phase::Running || self.drain_at.is_some() {
            tracing::info!("stopping at once");
            self.stop();
            return;
        }
        let delay = self.config.global.drain_delay;
        self.notifier.stopping();
        if delay.is_zero() {
            return self.drain();
        }
        self.shared.phase.announce_drain();
        self.drain_at = Some(Instant::now() + delay);
        self.refuse_reloads();
        tracing::info!(
            "draining in {delay:?}: /readyz answers 503, and clients are still accepted; a second \
             signal stops at once"
        );
    }

    /// Starts the drain.
    fn drain(&mut self) {
        let deadline = Instant::now() + self.config.global.drain_timeout;
        self.remove_socket_files();
        self.shared.phase.store(Phase::Draining(deadline));
        self.shared.wake();
        tracing::info!(
            "draining for {:?} at most; sessions: {}; a second signal stops at once",
            self.config.global.drain_timeout,
            self.shared.sessions.active()
        );
        self.refuse_reloads();
    }

    fn on_tick(&mut self) -> Result<(), String> {
        self.watch_workers(Instant::now());
        self.follow_descriptor_limit();
        let seen = self.shared.seen_by_all();
        while self.retired.front().is_some_and(|(newer, _)| *newer <= seen) {
            self.retired.pop_front();
        }
        if self.upgrading.publisher.is_none() {
            // Or the new process would miss the last counters of what was removed.
            self.cluster.forget();
        }
        self.publish_totals();
        self.notify_status();
        self.ask_for_unserved();
        let now = Instant::now();
        self.log_reached_limits(now);
        self.stale |= self.cluster.grow(now);
        self.stale |= self.cluster.end_downtimes(now);
        self.cluster.sample_connects(now);
        if self.drain_at.is_some_and(|at| now >= at) && self.shared.phase.load() == Phase::Running {
            self.drain();
        }
        match (self.shared.phase.load(), self.stopped) {
            (Phase::Draining(deadline), _) if now > deadline + GRACE => self.stop(),
            (_, Some(stopped)) if now > stopped + GRACE => {
                return Err("workers did not end in time".to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    fn on_ended(&mut self) -> Result<(), String> {
        self.publish_last();
        match self.shared.phase.load() {
            Phase::Running => Err("the workers ended without a signal to stop".to_owned()),
            Phase::Draining(_) | Phase::Stopped => {
                tracing::info!("every worker has ended");
                Ok(())
            }
        }
    }

    fn notify_status(&mut self) {
        let servers = self.cluster.server_counts();
        let doing = match self.shared.phase.load() {
            Phase::Running => "running",
            Phase::Draining(_) => "draining",
            Phase::Stopped => "stopping",
        };
        let status = format!("{doing}: {} of {} servers up", servers.up, servers.all);
        self.notifier.status(&status);
    }
}
