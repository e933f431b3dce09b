//! Every step that can fail, before anything is started: limits, accounts, addresses.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::config::{self, Config, Span};
use crate::control::budget::Budget;
use crate::control::cluster::Bound;
use crate::control::controller::Observed;
use crate::control::listeners;
use crate::control::probe_tls;
use crate::control::reload::Found;
use crate::control::sources;
use crate::control::upgrade::{Inherited, Offered, Role, UnopenedSocket};
use crate::observe::{CONNECTIONS_MAX, admin};
use crate::proxy::PIPES_PER_WORKER;
use crate::run::failure::Failure;
use crate::run::{identity, limits};
use crate::sys::local_addresses::LocalAddresses;
use crate::sys::reuseport;

/// The result of every step that can fail.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) cores: Vec<usize>,
    pub(super) workers: usize,
    pub(super) budget: Budget,
    pub(super) sessions_max: u32,
    pub(super) identity: Option<identity::Identity>,
    pub(super) bound: Bound,
    pub(super) http: Option<TcpListener>,
    pub(super) admin: Option<admin::Socket>,
    /// Sockets that listen when nothing can fail any more.
    unopened: Vec<UnopenedSocket>,
    /// Those of `bound` that another process has bound.
    taken: Bound,
    /// Offers of the old process that are not used.
    pub(super) unused: Vec<usize>,
}

impl Prepared {
    pub(super) fn new(config: &Config, mut inherited: Inherited) -> Result<Self, Failure> {
        let descriptors = limits::raise_descriptors().map_err(Failure::of)?;
        let cores = limits::cores();
        let workers = config.global.workers.map_or(cores.len(), |number| number.get() as usize);
        let mut wrong = Vec::new();
        let budget = Budget {
            descriptors,
            workers,
            inherited: limits::inherited_descriptors().saturating_sub(inherited.listening(workers)),
            pipes_per_worker: PIPES_PER_WORKER,
            observe_connections: CONNECTIONS_MAX,
        };
        // Host names are not resolved yet.
        let sessions_max = budget.sessions_max(config, |_| 1);
        let identity = identity::configured(config);
        wrong.extend(sessions_max.as_ref().err().cloned());
        wrong.extend(identity.as_ref().err().into_iter().flatten().cloned());
        let (Ok(sessions_max), Ok(identity)) = (sessions_max, identity) else {
            return Err(Failure::configuration(wrong));
        };
        config::on_this_machine(config, &LocalAddresses::now())
            .map_err(|problems| Failure::configuration(problems.lines().collect()))?;
        let mut failed = Vec::new();
        match probe_tls::load_roots(config) {
            Ok(roots) => probe_tls::put_in_force(roots),
            Err(lines) => failed.extend(lines),
        }
        let taken = inherited.listeners(config, workers);
        let (taken, unopened) = taken.map_err(Failure::of)?;
        let bound = match listeners::bind_at_start(config, workers, &taken) {
            Ok(bound) => bound,
            Err(unbound) => {
                failed.extend(unbound.lines);
                Bound::new()
            }
        };
        let http = http(config, &mut inherited, &mut failed);
        let admin = admin_socket(config, &mut inherited, &mut failed);
        let missing = config::missing_interfaces(config).into_iter();
        failed.extend(
            missing
                .chain(sources::denied_all(config))
                .map(|(span, problem)| format!("{}{problem}", config.locate(span))),
        );
        if !failed.is_empty() {
            return Err(Failure::cannot(failed));
        }
        let unused = inherited.unused();
        Ok(Self {
            cores,
            workers,
            budget,
            sessions_max,
            identity,
            bound,
            http,
            admin,
            unopened,
            taken,
            unused,
        })
    }

    /// Counts the addresses of host names: each is probed, so that an automatic `sessions_max` is
    /// lowered to leave descriptors for the probes. A configured one stays, since DNS must not
    /// decide whether evenkeel starts; the descriptors reserved for spare sockets then shrink.
    pub(super) fn count_names(&mut self, config: &Config, found: &Found) {
        let addresses = |name: &str| found.address_count(name).unwrap_or(1);
        let auto = config.global.sessions_max.is_none();
        match self.budget.refit(config, addresses, self.sessions_max, auto) {
            Ok(max) => self.sessions_max = max,
            Err(line) => tracing::warn!("{line}"),
        }
    }

    /// The sockets of `observe.bind` and `observe.control`, for an upgrade.
    pub(super) fn observed(&self) -> io::Result<Vec<Observed>> {
        let http = self.http.as_ref().map(|http| (Role::Observe, http.as_fd(), None));
        let admin = self.admin.as_ref();
        let admin = admin.map(|one| (Role::Control, one.descriptor(), one.file_identity()));
        let copy = |(role, socket, file): (Role, BorrowedFd<'_>, _)| {
            let socket = Arc::new(socket.try_clone_to_owned()?);
            Ok(Observed { offered: Offered { role, file }, socket })
        };
        http.into_iter().chain(admin).map(copy).collect()
    }

    /// Whether another process has bound some of the sockets of frontends.
    pub(super) fn has_taken(&self) -> bool {
        !self.taken.is_empty()
    }

    /// Nothing can fail any more, and no other process is to use the sockets: they get the options
    /// of the configuration, the files of unix sockets are removed at the end, and workers without
    /// a socket of an address get one.
    pub(super) fn own(&mut self, config: &Config) {
        for unopened in std::mem::take(&mut self.unopened) {
            if let Err(error) = unopened.listen() {
                tracing::warn!("a worker accepts no clients of an address: {error}");
            }
        }
        listeners::change_options(config, &self.bound, &self.taken);
        for socket in self.taken.values().flat_map(|listener| listener.sockets().next()) {
            // One of its workers may have been stuck.
            drop(reuseport::select_all(&socket));
        }
        self.bound.values().for_each(|listener| listener.own_file());
        self.admin.iter_mut().for_each(admin::Socket::own_file);
    }

    /// The core that a worker is pinned to.
    pub(super) fn core_of(&self, worker: usize) -> usize {
        self.cores[worker % self.cores.len()]
    }

    pub(super) fn drop_privileges(&self, config: &Config) -> Result<(), Failure> {
        if let Some(identity) = self.identity {
            self.give_sockets_to(identity, config)?;
        }
        let transparent = config.backends.iter().any(|backend| backend.source.client().is_some());
        identity::assume(self.identity, transparent).map_err(Failure::of)
    }

    fn give_sockets_to(
        &self,
        identity::Identity { user, group }: identity::Identity,
        config: &Config,
    ) -> Result<(), Failure> {
        if let (Some(socket), Some((_, span))) = (&self.admin, &config.observe.control) {
            let given = socket.give_to(user, group);
            given.map_err(|error| Failure::of(format!("{}{error}", config.locate(*span))))?;
        }
        for (address, listener) in &self.bound {
            let given = listener.give_to(user, group);
            given.map_err(|error| Failure::of(format!("evenkeel: {address}: {error}")))?;
        }
        Ok(())
    }
}

/// The socket of `observe.bind`.
fn http(
    config: &Config,
    inherited: &mut Inherited,
    failed: &mut Vec<String>,
) -> Option<TcpListener> {
    let (address, span) = config.observe.bind?;
    let listener = inherited.observe(address).map_or_else(|| listeners::bind_observe(address), Ok);
    let remedy = "; or set observe.bind to another address, or to false";
    let listener = listener.map_err(|problem| problem + remedy);
    let optional = config.file.is_none();
    required(config, (span, optional), "observe.bind", listener, failed)
}

/// The socket of `observe.control`.
fn admin_socket(
    config: &Config,
    inherited: &mut Inherited,
    failed: &mut Vec<String>,
) -> Option<admin::Socket> {
    let (path, span) = config.observe.control.as_ref()?;
    let socket = match inherited.control(path) {
        Some((socket, file)) => Ok(admin::Socket::inherited(socket, file, path)),
        None => admin::bind(path).map_err(|error| error.to_string()),
    };
    // Traffic does not depend on the control socket: a default that fails is a warning.
    required(config, (*span, true), "observe.control", socket, failed)
}

/// Collects the failure of a key that is set in the file, or whose default is not `optional`: with
/// a configuration file, the default address of the metrics is required, since monitoring relies on
/// it. If an `optional` default fails, evenkeel logs a warning and runs without it: a plain user
/// may not create /run/evenkeel, and a second balancer finds it in use.
fn required<T>(
    config: &Config,
    (span, optional): (Span, bool),
    key: &str,
    outcome: Result<T, String>,
    failed: &mut Vec<String>,
) -> Option<T> {
    match outcome {
        Ok(done) => Some(done),
        Err(problem) if optional && span == Span::default() => {
            let where_it_is_set = if config.file.is_none() { " in a file (-c FILE)" } else { "" };
            tracing::warn!("{key} is off: {problem}{where_it_is_set}");
            None
        }
        Err(problem) => {
            failed.push(format!("{}{problem}", config.locate(span)));
            None
        }
    }
}
