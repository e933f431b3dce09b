//! Workers that are stuck (a debugger, a fault of the kernel, a disk that does not answer): they
//! are reported, get no new clients, and those that wait for them are given to other workers.

use std::net::Shutdown;
use std::sync::Arc;
use std::time::Instant;

use socket2::SockRef;

use crate::control::cluster::Bound;
use crate::control::controller::state::Controller;
use crate::control::heartbeats::Finding;
use crate::shared::orders::{WaitingClient, WorkerOrder};
use crate::shared::phase::Phase;
use crate::shared::table::{Frontend, Listener};
use crate::sys::reuseport::{accept_waiting, select_all, select_among};
use crate::terms::WorkerIndex;

/// Clients that are given to other workers in one tick: a few milliseconds of this thread.
const GIVEN_AT_ONCE: u32 = 1024;

impl Controller {
    /// Looks at the heartbeat of every worker, at each tick.
    pub(super) fn watch_workers(&mut self, now: Instant) {
        let workers = (0..self.shared.wakers.len()).map(WorkerIndex);
        let turns = workers.map(|worker| {
            let has_ended = self.shared.has_ended(worker);
            (!has_ended).then(|| self.shared.cells.of(worker).turns.read())
        });
        let findings = self.watch.look(turns, now);
        for (index, (age, stuck)) in self.watch.all().enumerate() {
            self.shared.heartbeats.set(WorkerIndex(index), age, stuck);
        }
        let mut changed = false;
        for (worker, finding) in findings {
            changed |= finding != Finding::Wake;
            match finding {
                Finding::Wake => self.shared.wakers[worker].wake(),
                Finding::Stuck => {
                    tracing::error!(
                        "worker {worker} is stuck: its event loop has not run for {:.1} s; its \
                         sessions make no progress, and new clients go to other workers; if this \
                         lasts, restart evenkeel (thread worker-{worker} of process {})",
                        self.watch.age(worker).as_secs_f64(),
                        std::process::id()
                    );
                }
                Finding::Recovered(age) => {
                    tracing::warn!(
                        "worker {worker} runs again after {:.1} s; other workers got {} of its \
                         waiting clients",
                        age.as_secs_f64(),
                        self.remedy.given.remove(&worker).unwrap_or(0)
                    );
                    self.shared.order(WorkerIndex(worker), WorkerOrder::RejoinQueues);
                }
                Finding::Ended => drop(self.remedy.given.remove(&worker)),
            }
        }
        let is_stuck = self.shared.heartbeats.stuck().next().is_some();
        if changed || (self.remedy.steered && self.shared.phase.load() != Phase::Running) {
            self.steer_clients();
        }
        if is_stuck {
            self.give_clients_to_others();
        } else {
            self.notifier.watchdog(now);
        }
        let before = self.remedy.removed.len();
        self.remedy.removed.retain(|(listener, _)| listener.sockets().next().is_some());
        // The table in force has them, and so their frontends.
        self.stale |= self.remedy.removed.len() < before;
    }

    /// Tells the kernel which workers get new clients. While the process drains, its sockets may be
    /// those of another process, too.
    pub(super) fn steer_clients(&mut self) {
        let stuck: Vec<WorkerIndex> = self.shared.heartbeats.stuck().collect();
        let is_running = self.shared.phase.load() == Phase::Running;
        let all = stuck.is_empty() || stuck.len() == self.shared.wakers.len() || !is_running;
        if all && !self.remedy.steered {
            return;
        }
        for listener in self.bound.values().filter(|listener| !listener.address.is_unix()) {
            let Some(socket) = listener.sockets().next() else { continue };
            // The sockets listen in the order of their slots, which is that of their group.
            let living: Vec<u32> = listener.slots_without(&stuck).collect();
            let all = all || living.is_empty();
            let told = if all { select_all(&socket) } else { select_among(&socket, &living) };
            if let Err(error) = told {
                let address = &listener.address;
                tracing::warn!("{address}: the kernel cannot be told which workers serve: {error}");
            }
        }
        self.remedy.steered = !all;
    }

    /// A reload removes the listeners that are not in `bound`.
    pub(super) fn note_removed(&mut self, bound: &Bound) {
        let table = self.shared.table.load();
        let listeners = table.listeners.iter();
        let gone = listeners.filter(|(listener, _)| !bound.contains_key(&listener.address));
        self.remedy.removed.extend(gone.cloned());
    }

    /// Other workers serve the clients that wait for stuck workers: this thread takes them out of
    /// their mailboxes, accepts the connections that wait at their listening sockets, and hands
    /// them on. Sessions of
    /// stuck workers are taken out of the queues of backends, where others wait behind them.
    pub(super) fn give_clients_to_others(&mut self) {
        let table = self.shared.table.load_full();
        let stuck: Vec<WorkerIndex> = self.shared.heartbeats.stuck().collect();
        for backend in table.frontends.iter().flat_map(|frontend| frontend.backends()) {
            let removed = stuck.iter().filter(|worker| backend.queue.remove(**worker)).count();
            if removed > 0 {
                self.shared.tell_first(&backend.queue);
            }
        }
        let workers = (0..self.shared.wakers.len()).map(WorkerIndex);
        let lives =
            |worker: &WorkerIndex| !stuck.contains(worker) && !self.shared.has_ended(*worker);
        let living: Vec<WorkerIndex> = workers.filter(lives).collect();
        if living.is_empty() {
            return;
        }
        for worker in &stuck {
            self.shared.give_clients_on(*worker, &living, &mut self.remedy.turn);
        }
        let mut room = self.shared.sessions.room().min(GIVEN_AT_ONCE);
        // After an upgrade, the new process accepts what waits at the sockets that it has.
        let own = table.listeners.iter().filter(|(listener, _)| !listener.is_handed_over());
        for (listener, frontend) in own {
            for worker in &stuck {
                self.give((listener, frontend), *worker, &living, &mut room);
            }
        }
        // While it runs, this process alone has the sockets that it has bound.
        let is_running = self.shared.phase.load() == Phase::Running;
        for (listener, frontend) in self.remedy.removed.clone() {
            for worker in &stuck {
                let is_empty = self.give((&listener, &frontend), *worker, &living, &mut room);
                if is_empty && is_running && listener.is_exclusive() {
                    stop(&listener, *worker);
                }
            }
        }
    }

    /// Gives the connections that wait at the sockets of a stuck worker to `living` workers, at
    /// most `room` of them and as many as have room in the frontend. Whether none is left.
    fn give(
        &mut self,
        (listener, frontend): (&Arc<Listener>, &Arc<Frontend>),
        stuck: WorkerIndex,
        living: &[WorkerIndex],
        room: &mut u32,
    ) -> bool {
        let mut waits_at = listener.sockets_of(stuck).map(|(_, socket)| socket).peekable();
        let mut most = frontend.shared.sessions.room().min(*room);
        while let Some(queue) = waits_at.peek() {
            if most == 0 {
                return false;
            }
            let socket = match accept_waiting(queue) {
                Ok(Some(socket)) => socket,
                Ok(None) => {
                    waits_at.next();
                    continue;
                }
                // No descriptor is left: they wait where they are.
                Err(_) => return false,
            };
            most -= 1;
            *room -= 1;
            *self.remedy.given.entry(stuck.0).or_default() += 1;
            self.remedy.turn += 1;
            let (listener, frontend) = (Arc::clone(listener), Arc::clone(frontend));
            let client = WaitingClient { socket, listener, frontend };
            let order = WorkerOrder::Serve(Box::new(client));
            self.shared.order(living[self.remedy.turn % living.len()], order);
        }
        true
    }
}

/// Stops the sockets of a stuck worker at an address that a reload has removed: until they are
/// closed, the kernel would accept clients there. Nothing waits at them.
fn stop(listener: &Listener, stuck: WorkerIndex) {
    for (slot, socket) in listener.sockets_of(stuck) {
        // A socket that does not listen any more: ENOTCONN.
        drop(SockRef::from(&socket).shutdown(Shutdown::Both));
        listener.close(slot);
    }
}
