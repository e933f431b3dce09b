//! The control thread at work: it hears of signals, orders, probes, names and workers, keeps the
//! books, and puts a new table in force when they have changed.
//!
//! Nothing here is waited for by a worker: when this thread hangs, traffic goes on by the last
//! table.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;
use tokio::sync::{mpsc, oneshot};

use crate::config::Config;
use crate::control::budget::Budget;
use crate::control::notify::Notifier;
use crate::control::prober::{ProbeOutcome, Prober, Target};
use crate::control::resolve::{Answer, Follower, Resolved, Resolver};
use crate::control::roster::{Bound, Probe, Probed, Roster};
use crate::control::signals::Signal;
use crate::control::steering::Steering;
use crate::shared::events::WorkerEvent;
use crate::shared::orders::{Order, Request};
use crate::shared::phase::Phase;
use crate::shared::snapshot::Snapshot;
use crate::shared::state::SharedState;
use crate::shared::table::Table;
use crate::sys::interfaces::Here;

mod inbox;
mod reloading;
mod worker_events;

use inbox::{Event, Inbox, Slots};
use reloading::Reloading;

/// Probe outcomes that make one table, at most.
const PROBES_AT_ONCE: usize = 1024;

/// After the deadline of a drain workers need a moment to close what is left; then they are told
/// to stop, and after that long again they are given up.
const GRACE: Duration = Duration::from_secs(3);

/// Between complaints about clients that have to wait.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);

/// What the control thread is started with.
#[derive(Debug)]
pub struct Control {
    /// In force.
    pub config: Config,
    /// The books, with `config` in them; the table of `seam` is theirs.
    pub roster: Roster,
    /// Every address of `config`.
    pub bound: Bound,
    /// What is shared with the workers.
    pub seam: Arc<SharedState>,
    /// What `seam.sessions` was reckoned by.
    pub budget: Budget,
    /// Where pinned workers can be left what their cores receive.
    pub steering: Option<Steering>,
    /// For names.
    pub resolver: Resolver,
    /// What is known of the names of `config`.
    pub answers: BTreeMap<String, Answer>,
    /// The other end of `seam.events`.
    pub events: Receiver<WorkerEvent>,
    /// From HTTP and the control socket.
    pub requests: mpsc::Receiver<Request>,
    /// Answers, or is dropped, when every worker has ended.
    pub ended: oneshot::Receiver<()>,
    /// The program's start.
    pub started: Instant,
}

/// Controls, within a runtime of tokio-uring, until every worker has ended after a drain or a
/// stop.
///
/// # Errors
/// It could not begin; or workers ended, or did not, against its will. For the operator.
pub async fn run(control: Control) -> Result<(), String> {
    let Control { events, requests, ended, .. } = control;
    let (mut inbox, slots) = Inbox::new(events, requests, ended)
        .map_err(|error| format!("the control thread: {error}"))?;
    let mut server = Server {
        prober: Prober::new(slots.probed.clone()),
        followers: BTreeMap::new(),
        slots,
        config: control.config,
        roster: control.roster,
        bound: control.bound,
        sessions_max: control.seam.sessions.max(),
        seam: control.seam,
        budget: control.budget,
        steering: control.steering,
        resolver: control.resolver,
        started: control.started,
        reloading: Reloading::default(),
        retired: VecDeque::new(),
        stale: false,
        notifier: Notifier::from_environment(),
        complained: None,
        stall_logged: None,
        exhaustion_logged: None,
        stopped: None,
    };
    server.follow_names(control.answers);
    server.set_targets();
    server.tell();
    server.notifier.ready();
    let outcome = server.serve(&mut inbox).await;
    server.prober.set_targets(Vec::new());
    outcome
}

/// The control thread's state.
#[derive(Debug)]
struct Server {
    config: Config,
    roster: Roster,
    bound: Bound,
    seam: Arc<SharedState>,
    budget: Budget,
    /// The limit of sessions at the start: workers have room for no more.
    sessions_max: u32,
    steering: Option<Steering>,
    prober: Prober,
    resolver: Resolver,
    followers: BTreeMap<String, Follower>,
    slots: Slots,
    started: Instant,
    reloading: Reloading,
    /// Tables that some worker may still read, each with the version of the one after it.
    retired: VecDeque<(u64, Arc<Table>)>,
    /// The books have changed since the table in force was made.
    stale: bool,
    notifier: Notifier,
    /// When the operator was last told that clients wait.
    complained: Option<Instant>,
    /// When the operator was last told that buffers are held.
    stall_logged: Option<Instant>,
    /// When the operator was last told that sessions were closed for want of them.
    exhaustion_logged: Option<Instant>,
    /// When workers were told to stop at once.
    stopped: Option<Instant>,
}

impl Server {
    async fn serve(&mut self, inbox: &mut Inbox) -> Result<(), String> {
        loop {
            match inbox.next().await {
                Event::Signal(Signal::Reload) => self.want_reload(None),
                Event::Signal(Signal::End) => self.end(),
                Event::Signal(Signal::HandOver) => {
                    tracing::warn!("SIGUSR2: handing over to a new binary is not supported yet");
                }
                Event::Request(request) => self.answer(request),
                Event::Workers(batch) => self.on_worker_events(&batch)?,
                Event::Probed(outcome) => self.on_probed_all(outcome, inbox),
                Event::Resolved(resolved) => self.on_resolved(resolved),
                Event::Read(read) => self.on_read(*read),
                Event::Tick => self.on_tick()?,
                Event::Ended => return self.on_ended(),
            }
            self.settle();
        }
    }

    /// Puts a new table in force if the books have changed.
    fn settle(&mut self) {
        if std::mem::take(&mut self.stale) {
            let version = self.seam.table.load().version + 1;
            let old = self.seam.publish(self.roster.table(version, &self.bound));
            self.retired.push_back((version, old));
            self.set_targets();
        }
        self.tell();
    }

    /// Tells the operator's log what has happened.
    fn tell(&mut self) {
        for news in self.roster.news() {
            if news.is_bad() {
                tracing::warn!("{news}");
            } else {
                tracing::info!("{news}");
            }
        }
    }

    fn set_targets(&mut self) {
        let target = |probed: Probed<'_>| Target {
            id: probed.id,
            address: probed.address,
            host_header: probed.written.to_string(),
            health: probed.health.clone(),
            up: probed.up,
        };
        let targets = self.roster.to_probe().map(target).collect();
        self.prober.set_targets(targets);
    }

    /// Follows the names that servers have, and no others; `answers` are the first ones.
    fn follow_names(&mut self, mut answers: BTreeMap<String, Answer>) {
        let mut followers = std::mem::take(&mut self.followers);
        for host in self.roster.hosts() {
            if self.followers.contains_key(host) {
                continue;
            }
            let follower = followers.remove(host).unwrap_or_else(|| {
                let (resolver, sender) = (self.resolver.clone(), self.slots.resolved.clone());
                Follower::start(resolver, host.to_owned(), answers.remove(host), sender)
            });
            self.followers.insert(host.to_owned(), follower);
        }
    }

    /// One outcome, and those that have come meanwhile: many make one table.
    fn on_probed_all(&mut self, first: ProbeOutcome, inbox: &mut Inbox) {
        self.on_probed(first);
        for _ in 1..PROBES_AT_ONCE {
            let Some(outcome) = inbox.another_probe() else { break };
            self.on_probed(outcome);
        }
    }

    fn on_probed(&mut self, outcome: ProbeOutcome) {
        let verdict = outcome.verdict();
        let ProbeOutcome { server, address, result, detail, duration, .. } = outcome;
        let probe = Probe { server, address, result, detail, duration };
        self.stale |= self.roster.probed(probe, verdict, Instant::now());
    }

    fn on_resolved(&mut self, resolved: Resolved) {
        let Resolved { host, answer } = resolved;
        if !self.roster.has_host(&host) {
            return; // a reload was quicker; kept, it would pass for a fresh answer one day
        }
        match answer {
            Ok(answer) => {
                let moved =
                    self.roster.resolved(&host, &answer.addresses, &Here::now(), Instant::now());
                if moved {
                    self.fit_sessions();
                } else {
                    tracing::info!("name {host} is answered again");
                }
                self.stale |= moved;
            }
            Err(why) if self.roster.knows(&host) => {
                tracing::warn!("name {host} is not answered: {why}; its last addresses hold");
            }
            Err(why) => {
                tracing::warn!(
                    "name {host} has no address: {why}; its servers are down until it has one \
                     (is it spelt right?)"
                );
                self.roster.unanswered(&host, &why);
            }
        }
    }

    fn answer(&mut self, request: Request) {
        // Who no longer waits for an answer needs none.
        match request {
            Request::Snapshot(answer) => drop(answer.send(self.snapshot())),
            Request::Order(Order::Reload, answer) => self.want_reload(Some(answer)),
            Request::Order(Order::SetState(name, state), answer) => {
                let outcome = self.roster.set_state(&name, state);
                self.obey(outcome, answer);
            }
            Request::Order(Order::SetWeight(name, weight), answer) => {
                let outcome = self.roster.set_weight(&name, weight);
                self.obey(outcome, answer);
            }
        }
    }

    fn obey(
        &mut self,
        outcome: Result<String, String>,
        answer: oneshot::Sender<Result<String, String>>,
    ) {
        if let Ok(done) = &outcome {
            tracing::info!("by order: {done}");
            self.stale = true;
            // Who reads the answer may count on it.
            self.settle();
        }
        drop(answer.send(outcome));
    }

    fn snapshot(&self) -> Snapshot {
        let now = Instant::now();
        Snapshot {
            phase: self.seam.phase.load(),
            uptime: now.duration_since(self.started),
            table_version: self.seam.table.load().version,
            reloads_done: self.reloading.done,
            reloads_failed: self.reloading.failed,
            sessions_max: self.seam.sessions.max(),
            frontends: self.roster.frontends(),
            servers: self.roster.servers(now),
        }
    }

    /// The first time: new sessions are refused and old ones live on for a while. The second time
    /// they end.
    fn end(&mut self) {
        if self.seam.phase.load() != Phase::Running {
            tracing::info!("stopping at once");
            self.stop();
            return;
        }
        let deadline = Instant::now() + self.config.global.drain_timeout;
        self.seam.phase.store(Phase::Draining(deadline));
        self.seam.wake();
        self.notifier.stopping();
        tracing::info!(
            "draining for {:?} at most; sessions: {}; a second signal stops at once",
            self.config.global.drain_timeout,
            self.seam.sessions.active()
        );
        self.refuse_reloads();
    }

    fn stop(&mut self) {
        self.seam.phase.store(Phase::Stopped);
        self.seam.wake();
        self.stopped.get_or_insert_with(Instant::now);
    }

    fn on_tick(&mut self) -> Result<(), String> {
        let seen = self.seam.seen_by_all();
        while self.retired.front().is_some_and(|(newer, _)| *newer <= seen) {
            self.retired.pop_front();
        }
        self.roster.forget();
        self.steer();
        self.tell_supervisor();
        let now = Instant::now();
        match (self.seam.phase.load(), self.stopped) {
            (Phase::Draining(deadline), _) if now > deadline + GRACE => self.stop(),
            (_, Some(stopped)) if now > stopped + GRACE => {
                return Err("workers did not end in time".to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    /// Leaves connections to the cores that receive them, or no longer.
    fn steer(&mut self) {
        let Some(steering) = &mut self.steering else { return };
        if self.seam.phase.load() != Phase::Running {
            return;
        }
        let received = self.seam.cells.cells().map(|cell| cell.received_here.read());
        if steering.look(received.collect()) {
            steering.apply(&self.bound);
            tracing::info!(
                "new connections go to {}",
                if steering.is_steered() {
                    "the worker on the core that receives them: all cores receive alike many"
                } else {
                    "any worker: their cores no longer receive alike many"
                }
            );
        }
    }

    fn on_ended(&self) -> Result<(), String> {
        match self.seam.phase.load() {
            Phase::Running => Err("the workers ended by themselves".to_owned()),
            Phase::Draining(_) | Phase::Stopped => {
                tracing::info!("every worker has ended");
                Ok(())
            }
        }
    }

    fn tell_supervisor(&mut self) {
        let strength = self.roster.strength();
        let doing = match self.seam.phase.load() {
            Phase::Running => "running",
            Phase::Draining(_) => "draining",
            Phase::Stopped => "stopping",
        };
        let status = format!("{doing}: {} of {} servers up", strength.up, strength.all);
        self.notifier.status(&status);
    }
}

#[cfg(test)]
mod tests;
