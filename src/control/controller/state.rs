//! The state of the control thread, and what every event may need: a new table, the names to
//! follow, the limit of sessions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::config::Config;
use crate::control::budget::Budget;
use crate::control::cluster::{Bound, Cluster};
use crate::control::controller::events::Senders;
use crate::control::controller::limits_reached::ReachedLimits;
use crate::control::controller::pace::TablePace;
use crate::control::controller::requester::Requester;
use crate::control::controller::upgrade_state::Upgrading;
use crate::control::heartbeats::Watch;
use crate::control::notify::Notifier;
use crate::control::prober::Prober;
use crate::control::resolve::{Follower, Resolver};
use crate::shared::orders::WorkerOrder;
use crate::shared::phase::Phase;
use crate::shared::state::SharedState;
use crate::shared::table::{Frontend, Listener, Table};
use crate::sys::address::Address;
use crate::terms::WorkerIndex;

/// The state of the control thread.
#[derive(Debug)]
pub(super) struct Controller {
    pub(super) config: Config,
    /// The text of the file at the start: keys that need a restart still have its values.
    pub(super) started_with: Arc<str>,
    pub(super) cluster: Cluster,
    pub(super) bound: Bound,
    pub(super) shared: Arc<SharedState>,
    pub(super) budget: Budget,
    /// The limit of sessions at the start: workers have room for no more.
    pub(super) sessions_max: u32,
    pub(super) prober: Prober,
    pub(super) resolver: Resolver,
    /// By host name.
    pub(super) followers: BTreeMap<String, Follower>,
    /// By SRV name.
    pub(super) srv_followers: BTreeMap<String, Follower>,
    /// Sessions that found no server, when that was last read.
    pub(super) unserved: u64,
    pub(super) senders: Senders,
    pub(super) started: Instant,
    pub(super) reloading: Reloading,
    pub(super) upgrading: Upgrading,
    /// Tables that some worker may still read, each with the version of the one after it.
    pub(super) retired: VecDeque<(u64, Arc<Table>)>,
    /// The cluster has changed since the table in force was made.
    pub(super) stale: bool,
    /// Probes have taken endpoints up or down since then, and nothing else has changed.
    pub(super) probes_moved: bool,
    pub(super) pace: TablePace,
    pub(super) notifier: Notifier,
    /// Which workers turn.
    pub(super) watch: Watch,
    pub(super) remedy: Remedy,
    /// The limit of descriptors is lower than at the start.
    pub(super) descriptors_lowered: bool,
    pub(super) reached: ReachedLimits,
    /// When it was last logged that a worker cannot accept.
    pub(super) accept_logged: Option<Instant>,
    /// When it was last logged that a connect had no source address.
    pub(super) source_logged: Option<Instant>,
    /// When it was last logged that buffers are held.
    pub(super) stall_logged: Option<Instant>,
    /// When it was last logged that sessions were closed because no buffer was left.
    pub(super) exhaustion_logged: Option<Instant>,
    /// When the drain that was announced begins.
    pub(super) drain_at: Option<Instant>,
    /// When workers were told to stop at once.
    pub(super) stopped: Option<Instant>,
}

/// The state of reloads.
#[derive(Debug, Default)]
pub(super) struct Reloading {
    /// Reloads that took effect.
    pub(super) done: u64,
    /// Reloads that changed nothing.
    pub(super) failed: u64,
    /// The requests that wait for the reload under way, if there is one.
    pub(super) running: Option<Vec<Requester>>,
    /// The requests that came meanwhile: they share the next reload.
    pub(super) next: Option<Vec<Requester>>,
    /// Every address that was ever released: our own sockets may still be bound to it.
    pub(super) released: BTreeSet<Address>,
}

/// What is done about workers that are stuck.
#[derive(Debug, Default)]
pub(super) struct Remedy {
    /// New clients are kept away from some workers.
    pub(super) steered: bool,
    /// Listeners that reloads have removed, until every worker has closed its socket.
    pub(super) removed: Vec<(Arc<Listener>, Arc<Frontend>)>,
    /// Clients of each stuck worker that were given to other workers.
    pub(super) given: BTreeMap<usize, u64>,
    /// The worker that gets the next client.
    pub(super) turn: usize,
}

impl Controller {
    /// Puts a new table in force if the cluster has changed. If probes have changed it, that may
    /// have to wait ([`TablePace::due`]).
    pub(super) fn settle(&mut self) {
        let began = Instant::now();
        if !self.stale && self.probes_moved && self.pace.wait(began) {
            return self.log_changes();
        }
        let changed = std::mem::take(&mut self.stale);
        if std::mem::take(&mut self.probes_moved) || changed {
            let version = self.shared.table.load().version + 1;
            let mut table = self.cluster.table(version, &self.bound);
            table.removed.clone_from(&self.remedy.removed);
            let old = self.shared.publish(table);
            // A server may have come up or have a higher limit, and a frontend another backend.
            for frontend in old.frontends.iter().chain(&self.shared.table.load().frontends) {
                for backend in frontend.backends() {
                    self.shared.tell_first(&backend.queue);
                }
            }
            self.retired.push_back((version, old));
            if changed {
                self.set_targets();
            }
            self.pace.made(began, Instant::now());
        }
        for server in self.cluster.closing() {
            for worker in 0..self.workers() {
                self.shared.order(WorkerIndex(worker), WorkerOrder::CloseSessionsOf(server));
            }
        }
        self.log_changes();
    }

    /// How many workers there are.
    pub(super) fn workers(&self) -> usize {
        self.shared.wakers.len()
    }

    /// Logs the changes of the cluster.
    pub(super) fn log_changes(&mut self) {
        for change in self.cluster.changes() {
            if change.is_warning() {
                tracing::warn!("{change}");
            } else {
                tracing::info!("{change}");
            }
        }
    }

    pub(super) fn set_targets(&mut self) {
        if self.upgrading.publisher.is_some() {
            return; // the new process probes
        }
        self.prober.set_targets(self.cluster.probe_targets().collect());
    }

    /// Sets the limit of sessions to what the descriptors hold beside the configuration in force,
    /// if `global.sessions_max` is "auto". While the limit of descriptors is lowered, each tick
    /// sets it.
    pub(super) fn fit_sessions(&self) {
        if self.descriptors_lowered {
            return;
        }
        let was = self.shared.sessions.max();
        let max = match self.sessions_fitting() {
            Ok(max) => max,
            Err(line) => return tracing::warn!("{line}"),
        };
        if max < was {
            tracing::warn!(
                "sessions_max (auto) is lowered from {was} to {max}: listening sockets and probes \
                 need more file descriptors; raise the limit (LimitNOFILE=) and restart"
            );
        } else if max > was {
            tracing::info!("sessions_max (auto) is raised from {was} to {max}");
        }
        self.shared.sessions.set_max(Some(max));
    }

    /// The limit of sessions that fits beside the configuration in force.
    pub(super) fn sessions_fitting(&self) -> Result<u32, String> {
        let auto = self.config.global.sessions_max.is_none();
        let addresses = |name: &str| self.address_count(name);
        self.budget.refit(&self.config, addresses, self.sessions_max, auto)
    }

    /// Removes the files of unix sockets: clients that come from now on find no socket, instead of
    /// one that resets them.
    pub(super) fn remove_socket_files(&self) {
        self.bound.values().for_each(|listener| listener.remove_file());
    }

    /// Ends every session at once.
    pub(super) fn stop(&mut self) {
        self.shared.phase.store(Phase::Stopped);
        self.shared.wake();
        self.stopped.get_or_insert_with(Instant::now);
    }
}
