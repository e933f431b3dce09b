//! Reloads, one after the other: read off the loop, put in force whole or not at all.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::control::listeners::{self, Unbound};
use crate::control::reload::{self, Fresh};
use crate::control::roster::{Answers, Bound};
use crate::control::server::Server;
use crate::control::server::inbox::Read;
use crate::shared::phase::Phase;
use crate::sys::local_addresses::LocalAddresses;

/// An address that an earlier reload gave up is free once the workers have left it, which takes
/// them a turn. So long, and so often, it is tried again.
const LEAVING: Duration = Duration::from_millis(20);
const LEAVING_ATTEMPTS_MAX: u32 = 50;

const DRAINING: &str = "no reload: evenkeel is draining";

/// Problems of a file that an answer names; the log has all of them.
const PROBLEMS_ANSWERED: usize = 3;

/// Servers that the answer of a reload names, of each kind that it names.
const SERVERS_SHOWN: usize = 10;

type Waiting = Vec<oneshot::Sender<Result<String, String>>>;

/// How reloads stand.
#[derive(Debug, Default)]
pub(super) struct Reloading {
    /// Those that took effect.
    pub(super) done: u64,
    /// Those that changed nothing.
    pub(super) failed: u64,
    /// One is under way; who waits for it.
    running: Option<Waiting>,
    /// Another one is wanted after it, however often it was asked for; who waits for that.
    next: Option<Waiting>,
    /// Every address that was ever given up: it may be our own sockets that still have it.
    given_up: BTreeSet<SocketAddr>,
}

impl Server {
    /// Somebody wants a reload. Those who ask while one is under way all wait for one more.
    pub(super) fn want_reload(&mut self, answer: Option<oneshot::Sender<Result<String, String>>>) {
        if self.seam.phase.load() != Phase::Running {
            return refuse(answer, DRAINING);
        }
        let Some(path) = self.config.file.clone() else {
            // A supervisor that sent SIGHUP waits for both, whatever came of it.
            self.notifier.reloading();
            refuse(answer, "nothing to reload: evenkeel was started without a file (run -c FILE)");
            return self.notifier.ready();
        };
        if self.reloading.running.is_some() {
            self.reloading.next.get_or_insert_default().extend(answer);
            return;
        }
        self.reloading.running = Some(answer.into_iter().collect());
        self.notifier.reloading();
        tracing::info!("reloading {}", path.display());
        let known = self.roster.hosts().filter(|host| self.roster.knows(host));
        let known = known.map(str::to_owned).collect();
        let reading = reload::read(path, self.resolver.clone(), known);
        let slot = self.slots.read.clone();
        tokio_uring::spawn(async move {
            let outcome = reading.await;
            // Nobody is there any more: the process ends.
            drop(slot.send(Read { outcome, attempts: 0 }));
        });
    }

    /// No reload from here on.
    pub(super) fn refuse_reloads(&mut self) {
        for waiting in self.reloading.next.take().into_iter().flatten() {
            refuse(Some(waiting), DRAINING);
        }
    }

    /// The file is read: all of it comes into force now, or nothing.
    pub(super) fn on_read(&mut self, read: Read) {
        if self.seam.phase.load() != Phase::Running {
            // Nothing is wrong with the file; and who is stopping is not ready any more.
            tracing::warn!("{DRAINING}");
            return self.answer_all(&Err(DRAINING.to_owned()));
        }
        let outcome = match read.outcome {
            Ok(fresh) => match self.bind(&fresh) {
                Ok(bound) => Ok(self.commit(fresh, bound)),
                Err(unbound) if self.is_leaving(&unbound, read.attempts) => {
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
                for line in &lines {
                    tracing::error!("{line}");
                }
                tracing::error!("reload failed: nothing has changed");
                Err(format!("nothing has changed: {}", in_one_line(&lines)))
            }
        };
        self.answer_all(&answer);
        self.notifier.ready();
        if let Some(next) = self.reloading.next.take() {
            self.want_reload(None);
            if let Some(running) = &mut self.reloading.running {
                running.extend(next);
            }
        }
    }

    /// Answers those who wait for the reload under way.
    fn answer_all(&mut self, answer: &Result<String, String>) {
        for waiting in self.reloading.running.take().into_iter().flatten() {
            drop(waiting.send(answer.clone()));
        }
    }

    /// Listens on every address of a new configuration, if the descriptors are there for it.
    fn bind(&self, fresh: &Fresh) -> Result<Bound, Unbound> {
        let lines = reload::held_until_restart(&self.config, &fresh.config);
        if !lines.is_empty() {
            return Err(Unbound { lines, in_use: BTreeSet::new() });
        }
        let new = |host: &str| fresh.answers.get(host).map(|answer| answer.addresses.len());
        let addresses = |host: &str| new(host).unwrap_or_else(|| self.roster.count_of(host));
        let auto = self.config.global.sessions_max.is_none();
        // What needs a restart stays as it is, and so do the descriptors that it takes.
        let mut config = fresh.config.clone();
        reload::keep_until_restart(&self.config, &mut config);
        if let Err(line) = self.budget.refit(&config, addresses, self.sessions_max, auto) {
            // Names may have got too many addresses for what is in force: no reason to keep that.
            let now = self.budget.reserve(&self.config, |host| self.roster.count_of(host));
            if self.budget.reserve(&config, addresses) > now {
                return Err(Unbound { lines: vec![line], in_use: BTreeSet::new() });
            }
        }
        listeners::bind(&fresh.config, self.workers(), &self.bound)
    }

    /// Lets as many sessions in as the descriptors hold beside what is in force now, if nobody
    /// wrote how many.
    pub(super) fn fit_sessions(&self) {
        let (auto, was) = (self.config.global.sessions_max.is_none(), self.seam.sessions.max());
        let addresses = |host: &str| self.roster.count_of(host);
        let max = match self.budget.refit(&self.config, addresses, self.sessions_max, auto) {
            Ok(max) => max,
            Err(line) => {
                self.seam.allow_spares(0);
                return tracing::warn!("{line}");
            }
        };
        if max < was {
            tracing::warn!(
                "sessions_max (auto) is lowered from {was} to {max}: listening sockets and probes \
                 take the file descriptors; raise the limit (LimitNOFILE=) and restart"
            );
        } else if max > was {
            tracing::info!("sessions_max (auto) rises from {was} to {max}");
        }
        self.seam.sessions.set_max(Some(max));
        self.seam.allow_spares(self.budget.spares(&self.config, addresses, max));
    }

    fn commit(&mut self, fresh: Fresh, bound: Bound) -> String {
        let Fresh { mut config, answers } = fresh;
        let kept = reload::keep_until_restart(&self.config, &mut config);
        if !kept.is_empty() {
            tracing::warn!("what has changed of {} needs a restart", kept.join(", "));
        }
        let addresses: Answers =
            answers.iter().map(|(host, answer)| (host.clone(), answer.addresses.clone())).collect();
        self.roster.merge(&config, addresses, &LocalAddresses::now(), Instant::now());
        let gone = self.bound.keys().filter(|address| !bound.contains_key(address));
        self.reloading.given_up.extend(gone);
        self.bound = bound;
        if let Some(steering) = &self.steering {
            steering.apply(&self.bound);
        }
        self.config = config;
        self.fit_sessions();
        self.follow_names(answers);
        for follower in self.followers.values() {
            // An operator who reloads after a change in DNS wants it seen.
            follower.poke();
        }
        self.stale = true;
        self.settle();
        let counted = |count: usize, noun: &str| {
            format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
        };
        let mut rest = String::new();
        if !kept.is_empty() {
            rest = format!("; takes effect at the next start: {}", kept.join(", "));
        }
        let servers = [
            ("as ordered, not as in the file", self.roster.ordered()),
            ("down, as their names have no address", self.roster.without_address()),
        ];
        for (what, servers) in servers.iter().filter(|(_, servers)| !servers.is_empty()) {
            let (names, more) = first(servers, SERVERS_SHOWN, ", ");
            let others = if more > 0 { ", ..." } else { "" };
            rest.push_str(&format!("; {what}: {names}{others}"));
        }
        format!(
            "reloaded: {}, {}, {}; table {}{rest}",
            counted(self.config.frontends.len(), "frontend"),
            counted(self.config.backends.len(), "backend"),
            counted(self.roster.strength().all, "server"),
            self.seam.table.load().version
        )
    }

    fn is_leaving(&self, unbound: &Unbound, attempts: u32) -> bool {
        attempts < LEAVING_ATTEMPTS_MAX
            && unbound.in_use.len() == unbound.lines.len()
            && unbound.in_use.is_subset(&self.reloading.given_up)
    }

    fn try_again(&self, fresh: Fresh, attempts: u32) {
        let slot = self.slots.read.clone();
        tokio_uring::spawn(async move {
            tokio::time::sleep(LEAVING).await;
            drop(slot.send(Read { outcome: Ok(fresh), attempts: attempts + 1 }));
        });
    }

    fn workers(&self) -> usize {
        self.seam.wakers.len()
    }
}

fn in_one_line(lines: &[String]) -> String {
    match first(lines, PROBLEMS_ANSWERED, "; ") {
        (shown, 0) => shown,
        (shown, more) => format!("{shown}; and {more} more (evenkeel check names them)"),
    }
}

/// The first `most` of them, and how many are left out.
fn first(lines: &[String], most: usize, separator: &str) -> (String, usize) {
    let shown = &lines[..lines.len().min(most)];
    (shown.join(separator), lines.len() - shown.len())
}

fn refuse(answer: Option<oneshot::Sender<Result<String, String>>>, line: &str) {
    tracing::warn!("{line}");
    if let Some(answer) = answer {
        drop(answer.send(Err(line.to_owned())));
    }
}
