//! Reloads, one after the other: the file is read outside the loop, and comes into force whole or
//! not at all.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::control::cluster::Bound;
use crate::control::controller::events::Read;
use crate::control::controller::requester::Requester;
use crate::control::controller::state::Controller;
use crate::control::listeners::{self, Unbound};
use crate::control::probe_tls;
use crate::control::reload::{self, Names, NewConfig};
use crate::control::sources;
use crate::shared::phase::Phase;
use crate::sys::local_addresses::LocalAddresses;
use crate::terms::counted;

/// An address that an earlier reload released is free once the workers have closed their sockets,
/// which takes them a turn: after this pause it is tried again, so many times.
const RELEASE_PAUSE: Duration = Duration::from_millis(20);
const RELEASE_ATTEMPTS_MAX: u32 = 50;

pub(super) const DRAINING: &str = "no reload: evenkeel is draining";

/// How the answer and the log begin when a new configuration cannot be put in force.
const REJECTED: &str = "reload rejected, the old configuration stays active";

/// Problems of a file that an answer lists; the log has all of them.
const PROBLEMS_ANSWERED: usize = 3;

/// Servers and names that the answer to a reload lists, of each kind.
const NAMES_SHOWN: usize = 10;

impl Controller {
    /// A reload is requested. All requests that come while one is under way share one more.
    pub(super) fn want_reload(&mut self, requester: Requester) {
        if self.is_ending() {
            return requester.refuse(DRAINING);
        }
        if self.upgrading.running.is_some() {
            return requester
                .refuse("no reload: an upgrade is under way; try again when it has ended");
        }
        let Some(path) = self.config.file.clone() else {
            // The service manager that sent SIGHUP waits for both, whatever the outcome.
            self.notifier.reloading();
            requester
                .refuse("nothing to reload: evenkeel was started without a file (run -c FILE)");
            return self.notifier.ready();
        };
        if self.reloading.running.is_some() {
            self.reloading.next.get_or_insert_default().push(requester);
            return;
        }
        self.reloading.running = Some(vec![requester]);
        self.notifier.reloading();
        tracing::info!("reloading {}", path.display());
        let reading = reload::read(path, self.resolver.clone(), self.known_names());
        let sender = self.senders.read.clone();
        tokio_uring::spawn(async move {
            let outcome = reading.await;
            // Fails only while the process ends.
            drop(sender.send(Read { outcome, attempts: 0, dry_run: None }));
        });
    }

    /// Names that have an answer already.
    pub(super) fn known_names(&self) -> Names {
        let hosts = self.cluster.hosts().filter(|host| self.cluster.knows(host));
        let srv = self.cluster.srv_names().filter(|name| self.cluster.knows_srv(name));
        Names { hosts: hosts.map(str::to_owned).collect(), srv: srv.map(str::to_owned).collect() }
    }

    /// Refuses every reload from now on.
    pub(super) fn refuse_reloads(&mut self) {
        for waiting in self.reloading.next.take().into_iter().flatten() {
            waiting.refuse(DRAINING);
        }
    }

    /// The file was read: all of it comes into force now, or nothing.
    pub(super) fn on_read(&mut self, read: Read) {
        if let Some(dry_run) = read.dry_run {
            return self.answer_dry_run(read.outcome, dry_run);
        }
        if self.is_ending() {
            // The file is not to blame, and a process that stops is not ready.
            tracing::warn!("{DRAINING}");
            return self.answer_all(&Err(DRAINING.to_owned()));
        }
        let outcome = match read.outcome {
            Ok(fresh) => match self.bind(&fresh) {
                Ok(bound) => Ok(self.commit(fresh, bound)),
                Err(unbound) if self.is_being_released(&unbound, read.attempts) => {
                    return self.try_again(fresh, read.attempts);
                }
                Err(Unbound { lines, .. }) => Err(lines),
            },
            Err(lines) => Err(lines),
        };
        let answer = match outcome {
            Ok(done) => {
                self.reloading.done += 1;
                tracing::info!("{done}");
                Ok(done)
            }
            Err(lines) => {
                self.reloading.failed += 1;
                let rejected = format!("{REJECTED}: {}", in_one_line(&lines));
                tracing::error!("{rejected}");
                for line in lines.iter().filter(|_| lines.len() > 1) {
                    tracing::error!("{line}");
                }
                Err(rejected)
            }
        };
        self.answer_all(&answer);
        self.notifier.ready();
        if let Some(next) = self.reloading.next.take() {
            self.want_reload(Requester::signal());
            if let Some(running) = &mut self.reloading.running {
                running.extend(next);
            }
        } else if let Some(requester) = self.upgrading.next.take() {
            self.want_upgrade(requester);
        }
    }

    /// Answers the requests of the reload under way.
    fn answer_all(&mut self, answer: &Result<String, String>) {
        for waiting in self.reloading.running.take().into_iter().flatten() {
            waiting.answer(answer.clone());
        }
    }

    /// Listens on every address of a new configuration, if the descriptors are there for it.
    fn bind(&self, fresh: &NewConfig) -> Result<Bound, Unbound> {
        self.check_limits(fresh).map_err(|lines| Unbound { lines, in_use: BTreeSet::new() })?;
        listeners::bind(&fresh.config, self.workers(), &self.bound)
    }

    /// What a new configuration needs of this process, beside addresses that can be bound.
    pub(super) fn check_limits(&self, fresh: &NewConfig) -> Result<(), Vec<String>> {
        let lines = reload::held_until_restart(&self.config, &fresh.config);
        if !lines.is_empty() {
            return Err(lines);
        }
        let new = |name: &str| fresh.found.address_count(name);
        let addresses = |name: &str| new(name).unwrap_or_else(|| self.address_count(name));
        let auto = self.config.global.sessions_max.is_none();
        // What needs a restart stays as it is, with its descriptors.
        let mut config = fresh.config.clone();
        reload::keep_until_restart(&self.config, &mut config);
        if let Err(line) = self.budget.refit(&config, addresses, self.sessions_max, auto) {
            // Host names may have too many addresses for the configuration in force: that is no
            // reason to refuse one that takes no more.
            let now = self.budget.reserve(&self.config, |name| self.address_count(name));
            if self.budget.reserve(&config, addresses) > now {
                return Err(vec![line]);
            }
        }
        Ok(())
    }

    /// Whether a drain has begun, or was announced: a process that stops reloads nothing.
    pub(super) fn is_ending(&self) -> bool {
        self.drain_at.is_some() || self.shared.phase.load() != Phase::Running
    }

    fn commit(&mut self, fresh: NewConfig, bound: Bound) -> String {
        let NewConfig { mut config, found, roots } = fresh;
        let wanted = config.clone();
        let kept = reload::keep_until_restart(&self.config, &mut config);
        let note = |key| format!("{key}{}", reload::restart_note(key, &self.config, &wanted));
        let kept: Vec<String> = kept.into_iter().map(note).collect();
        let later =
            format!("takes effect after a restart or `evenkeel upgrade`: {}", kept.join(", "));
        if !kept.is_empty() {
            tracing::warn!("the reload does not apply every change: {later}");
        }
        sources::warn(&config);
        probe_tls::put_in_force(roots);
        self.resolver.set_servers(&config.global.resolver.0);
        self.cluster.add_records(found.records());
        self.cluster.merge(&config, found.addresses(), &LocalAddresses::now(), Instant::now());
        for (address, listener) in &self.bound {
            match bound.get(address) {
                Some(kept) if Arc::ptr_eq(kept, listener) => {}
                // The file of its unix socket was removed by somebody else.
                Some(_) => listener.remove_file(),
                None => {
                    listener.remove_file();
                    self.reloading.released.insert(address.clone());
                }
            }
        }
        self.note_removed(&bound);
        self.bound = bound;
        self.config = config;
        self.steer_clients();
        self.fit_sessions();
        self.follow_names(found);
        for follower in self.followers.values().chain(self.srv_followers.values()) {
            // The operator may have reloaded because of a change in DNS.
            follower.refresh();
        }
        self.stale = true;
        self.settle();
        self.give_clients_to_others();
        let mut rest = String::new();
        if !kept.is_empty() {
            rest = format!("; {later}");
        }
        let named = [
            ("set by the operator, differently from the file", self.cluster.overridden()),
            ("down, as their names have no address", self.cluster.without_address()),
            ("SRV names without a usable record", self.cluster.without_records()),
        ];
        for (what, names) in named.iter().filter(|(_, names)| !names.is_empty()) {
            let (names, more) = first(names, NAMES_SHOWN, ", ");
            let others = if more > 0 { ", ..." } else { "" };
            rest.push_str(&format!("; {what}: {names}{others}"));
        }
        format!(
            "reloaded: {}: {}, {}, {}; table {}{rest}",
            self.config.file.as_deref().unwrap_or_else(|| Path::new("")).display(),
            counted(self.config.frontends.len(), "frontend"),
            counted(self.config.backends.len(), "backend"),
            counted(self.cluster.server_counts().all, "server"),
            self.shared.table.load().version
        )
    }

    fn is_being_released(&self, unbound: &Unbound, attempts: u32) -> bool {
        attempts < RELEASE_ATTEMPTS_MAX
            && unbound.in_use.len() == unbound.lines.len()
            && unbound.in_use.is_subset(&self.reloading.released)
    }

    fn try_again(&self, fresh: NewConfig, attempts: u32) {
        let sender = self.senders.read.clone();
        let read = Read { outcome: Ok(fresh), attempts: attempts + 1, dry_run: None };
        tokio_uring::spawn(async move {
            tokio::time::sleep(RELEASE_PAUSE).await;
            drop(sender.send(read));
        });
    }
}

fn in_one_line(lines: &[String]) -> String {
    match first(lines, PROBLEMS_ANSWERED, "; ") {
        (shown, 0) => shown,
        (shown, more) => format!("{shown}; and {more} more (the log lists all)"),
    }
}

/// The first `most` of them, and how many were left out.
fn first(lines: &[String], most: usize, separator: &str) -> (String, usize) {
    let shown = &lines[..lines.len().min(most)];
    (shown.join(separator), lines.len() - shown.len())
}
