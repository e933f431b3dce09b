//! The control thread as data: the real cluster state, what changes it, and the tables that it puts
//! in force, each of which is compared with what the cluster reports.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use evenkeel::config::{AdminState, AllDown, Config};
use evenkeel::control::cluster::{
    Answers, Bound, Cluster, HostAddress, ProbeReport, Records, SrvRecord,
};
use evenkeel::control::health::ProbeTaskId;
use evenkeel::shared::events::FailedConnects;
use evenkeel::shared::orders::ServerName;
use evenkeel::shared::queue::Queue;
use evenkeel::shared::server::ServerShared;
use evenkeel::shared::snapshot::{ProbeResult, ServerStatus};
use evenkeel::shared::table::{Backend, FrontendShared, Listener, Table};
use evenkeel::sys::address::Address;
use evenkeel::sys::local_addresses::LocalAddresses;
use evenkeel::terms::ConnectFailure;

use crate::configuration;
use crate::context::Context;
use crate::random::Random;

const STATES: [AdminState; 3] = [AdminState::Ready, AdminState::Drain, AdminState::Maint];

/// The control thread.
#[derive(Debug)]
pub(crate) struct Control {
    cluster: Cluster,
    config: Config,
    bound: Bound,
    local: LocalAddresses,
    /// What the operator set last, by backend and server.
    states: BTreeMap<(String, String), AdminState>,
    /// Probes that have begun.
    probes: Vec<ProbeTaskId>,
    /// Tables that some worker may still read, each with the version of the one after it.
    retired: VecDeque<(u64, Arc<Table>)>,
    /// Every server and every frontend that there was.
    pub(crate) servers: Vec<Weak<ServerShared>>,
    pub(crate) frontends: Vec<Weak<FrontendShared>>,
    /// Every queue of a backend that a frontend had.
    pub(crate) queues: Vec<Weak<Queue>>,
}

impl Control {
    /// With the first table.
    pub(crate) fn new(workers: usize, random: &mut Random, now: Instant) -> (Self, Table) {
        let mut control = Self {
            cluster: Cluster::new(workers),
            config: configuration::random(random),
            bound: Bound::new(),
            local: LocalAddresses::default(),
            states: BTreeMap::new(),
            probes: Vec::new(),
            retired: VecDeque::new(),
            servers: Vec::new(),
            frontends: Vec::new(),
            queues: Vec::new(),
        };
        control.merge(random, now);
        let table = control.table(1, now);
        (control, table)
    }

    /// Something changes the cluster, or nothing.
    pub(crate) fn step(&mut self, context: &mut Context) {
        let now = context.instant();
        let ended = self.cluster.end_downtimes(now);
        let random = &mut context.random;
        let changed = match random.below(10) {
            0..=4 => self.probe(random, now),
            5 => self.resolve(random, now),
            6 => self.set_state(random, now),
            7 => self.set_weight(random, now),
            8 if random.one_in(2) => {
                self.config = configuration::random(random);
                context.shared.sessions.set_max(Some(configuration::sessions_max(random)));
                self.merge(random, now);
                true
            }
            9 => self.fail_connects(&context.shared.table.load(), random, now),
            _ => false,
        };
        if changed || ended {
            let version = context.shared.table.load().version + 1;
            let old = context.shared.publish(self.table(version, now));
            // As `control::controller` does it.
            let table = context.shared.table.load();
            let frontends = old.frontends.iter().chain(&table.frontends);
            for backend in frontends.flat_map(|frontend| frontend.backends()) {
                context.shared.tell_first(&backend.queue);
            }
            self.retired.push_back((version, old));
        }
        self.forget(context);
    }

    /// Forgets what nobody uses any more.
    pub(crate) fn forget(&mut self, context: &Context) {
        let seen = context.shared.seen_by_all();
        while self.retired.front().is_some_and(|(newer, _)| *newer <= seen) {
            self.retired.pop_front();
        }
        self.cluster.forget();
    }

    /// Every worker has ended: what the newest table does not have is gone.
    pub(crate) fn assert_nothing_left(&self, now: Instant) {
        assert!(self.retired.is_empty(), "a table is held: {:?}", self.retired);
        let known = self.cluster.server_statuses(now);
        for server in self.servers.iter().filter_map(Weak::upgrade) {
            let known = known.iter().any(|known| Arc::ptr_eq(&known.shared, &server));
            assert!(known, "a server that was removed is held: {server:?}");
        }
    }

    fn probe(&mut self, random: &mut Random, now: Instant) -> bool {
        if random.one_in(2) {
            let targets = self.cluster.probe_targets().map(|target| target.task);
            let begun = pick(&targets.collect::<Vec<_>>(), random);
            self.probes.extend(begun);
            return false;
        }
        if self.probes.is_empty() {
            return false;
        }
        // Its task may have been replaced since it began.
        let task = self.probes.swap_remove(random.below(self.probes.len() as u64) as usize);
        let passed = !random.one_in(3);
        let report = ProbeReport {
            task,
            result: if passed { ProbeResult::Passed } else { ProbeResult::Refused },
            detail: "".into(),
            duration: Duration::from_millis(1),
            verdict: (!random.one_in(8)).then_some(passed),
        };
        self.cluster.probed(report, now)
    }

    fn resolve(&mut self, random: &mut Random, now: Instant) -> bool {
        let names: Vec<String> = self.cluster.srv_names().map(str::to_owned).collect();
        if let Some(name) = pick(&names, random).filter(|_| random.one_in(3)) {
            return self.cluster.supplied(&name, records(random), &self.local, now);
        }
        let hosts: Vec<String> = self.cluster.hosts().map(str::to_owned).collect();
        let Some(host) = pick(&hosts, random) else { return false };
        self.cluster.resolved([(host.as_str(), addresses(random).as_slice())], &self.local, now)
    }

    /// Workers report failed connects, of an endpoint that may have left since.
    fn fail_connects(&mut self, table: &Table, random: &mut Random, now: Instant) -> bool {
        let backends = table.frontends.iter().flat_map(|frontend| frontend.backends());
        let endpoints = backends.flat_map(|backend| &backend.schedule.endpoints);
        let ids: Vec<_> = endpoints.map(|endpoint| endpoint.id).collect();
        let Some(id) = pick(&ids, random) else { return false };
        let count = 1 + random.below(3) as u32;
        let failed = FailedConnects { count, last: ConnectFailure::Refused };
        self.cluster.connects_failed(id, failed, now)
    }

    fn set_state(&mut self, random: &mut Random, now: Instant) -> bool {
        let Some(name) = self.server_name(random) else { return false };
        let state = STATES[if random.one_in(2) { 0 } else { random.below(3) as usize }];
        let done = self.cluster.set_state(&name, state, now);
        assert!(done.is_ok(), "{done:?}");
        self.states.insert((name.backend, name.server), state);
        true
    }

    fn set_weight(&mut self, random: &mut Random, now: Instant) -> bool {
        let Some(name) = self.server_name(random) else { return false };
        let done = self.cluster.set_weight(&name, [0, 1, 50, 100][random.below(4) as usize], now);
        assert!(done.is_ok(), "{done:?}");
        true
    }

    fn server_name(&self, random: &mut Random) -> Option<ServerName> {
        let names = self.config.backends.iter().flat_map(|backend| {
            backend.servers.iter().map(|server| (backend.name.to_string(), server.name.clone()))
        });
        let (backend, server) = pick(&names.collect::<Vec<_>>(), random)?;
        Some(ServerName { backend, server })
    }

    /// Puts the configuration into the cluster, and listens on its addresses.
    fn merge(&mut self, random: &mut Random, now: Instant) {
        let servers = self.config.backends.iter().flat_map(|backend| &backend.servers);
        let names = servers.filter_map(|server| server.address.host()).map(str::to_owned);
        let answers: Answers = names.map(|host| (host, addresses(random))).collect();
        let srv = self.config.backends.iter().filter_map(|backend| backend.srv.clone());
        let found: Records = srv.map(|name| (name, records(random))).collect();
        self.cluster.add_records(found);
        self.cluster.merge(&self.config, answers, &self.local, now);
        let binds = self.config.frontends.iter().flat_map(|frontend| &frontend.bind);
        let listener = |address: Address| {
            let known = self.bound.get(&address).cloned();
            let new = || Arc::new(Listener::new(address.clone(), Vec::new()));
            (address.clone(), known.unwrap_or_else(new))
        };
        self.bound = binds.flat_map(|(bind, _)| bind.addresses()).map(listener).collect();
    }

    fn table(&mut self, version: u64, now: Instant) -> Table {
        let table = self.cluster.table(version, &self.bound);
        drop(self.cluster.changes());
        let statuses = self.cluster.server_statuses(now);
        for frontend in &table.frontends {
            let backend = frontend.backend.as_ref().expect("every frontend has a backend");
            self.assert_backend(backend, &statuses);
            note(&mut self.frontends, &frontend.shared);
            note(&mut self.queues, &backend.queue);
        }
        for status in &statuses {
            note(&mut self.servers, &status.shared);
        }
        table
    }

    /// The endpoints that can be chosen are those that should be, by what the cluster reports.
    fn assert_backend(&self, backend: &Backend, statuses: &[ServerStatus]) {
        let own = |status: &&ServerStatus| *status.backend == *backend.settings.name;
        let present = || statuses.iter().filter(own).filter(|status| status.removed.is_none());
        for status in present() {
            assert_eq!(status.admin, self.state_of(backend, &status.shared.name), "{status:?}");
        }
        let ready = present()
            .filter(|status| status.admin == AdminState::Ready && status.weight > 0)
            .collect::<Vec<_>>();
        let chosen = |is_wanted: &dyn Fn(&ServerStatus, bool) -> bool| {
            let mut wanted = BTreeSet::new();
            for status in &ready {
                let endpoints = status.endpoints.iter();
                let endpoints = endpoints.filter(|endpoint| is_wanted(status, endpoint.up));
                wanted.extend(endpoints.map(|one| (status.shared.id, one.address.clone())));
            }
            wanted
        };
        let mut expected = chosen(&|status, up| up && !status.backup);
        if expected.is_empty() {
            expected = chosen(&|status, up| up && status.backup);
        }
        if expected.is_empty() && backend.settings.all_down == AllDown::Try {
            expected = chosen(&|_, _| true);
        }
        let endpoints = &backend.schedule.endpoints;
        let found = endpoints.iter().map(|one| (one.id.server, one.address.clone()));
        let found: BTreeSet<_> = found.collect();
        assert_eq!(found, expected, "of {}", backend.settings.name);
        let rotation: BTreeSet<u16> = backend.schedule.rotation.iter().copied().collect();
        assert_eq!(rotation.len(), endpoints.len(), "each has a turn");
    }

    /// As the operator set it, or else as it is configured.
    fn state_of(&self, backend: &Backend, server: &str) -> AdminState {
        let set = self.states.get(&(backend.settings.name.to_string(), server.to_owned()));
        let mut servers = backend.settings.servers.iter();
        let configured = servers.find(|known| known.name == server).map(|known| known.state);
        // The name of a server that an SRV record supplies has a port.
        let supplied = server.contains(':').then_some(AdminState::Ready);
        set.copied().or(configured).or(supplied).expect("the server is configured")
    }
}

/// Zero to three addresses of four.
fn addresses(random: &mut Random) -> Vec<HostAddress> {
    let (first, count) = (random.below(4), random.below(4));
    (first..first + count).map(|n| IpAddr::from([192, 0, 2, n as u8 % 4]).into()).collect()
}

/// Zero to three records of one priority.
fn records(random: &mut Random) -> Vec<SrvRecord> {
    let mut record = |port| SrvRecord {
        target: format!("t{}.test.", port % 2),
        port,
        priority: 1,
        weight: [0, 1, 50][random.below(3) as usize],
    };
    let all: Vec<SrvRecord> = (80..84).map(&mut record).collect();
    let (first, count) = (random.below(4) as usize, random.below(4) as usize);
    all.into_iter().cycle().skip(first).take(count).collect()
}

fn pick<T: Clone>(items: &[T], random: &mut Random) -> Option<T> {
    items.get(random.below(items.len() as u64) as usize).cloned()
}

/// Remembers a value without keeping it alive.
fn note<T>(known: &mut Vec<Weak<T>>, new: &Arc<T>) {
    if !known.iter().any(|known| known.as_ptr() == Arc::as_ptr(new)) {
        known.push(Arc::downgrade(new));
    }
}
