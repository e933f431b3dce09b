//! The cluster: all frontends and backends, the events that change them, and the table that they
//! make.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{self, Config, OnDown, Route, only_client_port};
use crate::control::cluster::backend::{AllOverrides, BackendState, Update};
use crate::control::cluster::chains;
use crate::control::cluster::change::{Change, ChangeKind};
use crate::control::cluster::input::{Answers, Bound, HostAddress, ProbeReport, usable};
use crate::control::cluster::registry::Registry;
use crate::control::cluster::server::ServerState;
use crate::control::cluster::srv::Records;
use crate::control::health::ProbeTaskId;
use crate::shared::routes::Routes;
use crate::shared::table::{Backend, Frontend, FrontendShared, Table};
use crate::sys::local_addresses::LocalAddresses;
use crate::terms::{EndpointId, ServerId};

/// The state of the cluster.
#[derive(Debug)]
pub struct Cluster {
    pub(super) frontends: Vec<FrontendState>,
    pub(super) backends: Vec<BackendState>,
    /// Frontends that were removed and still have sessions.
    pub(super) removed: Vec<FrontendState>,
    pub(super) overrides: AllOverrides,
    pub(super) registry: Registry,
    /// Backend, server and endpoint of each task that probes.
    pub(super) tasks: HashMap<ProbeTaskId, (usize, usize, usize)>,
    /// The same of each endpoint.
    places: HashMap<EndpointId, (usize, usize, usize)>,
    /// Only addresses that a server can have.
    pub(super) answers: Answers,
    pub(super) records: Records,
    pub(super) changes: Vec<Change>,
    /// Servers that went down, and whose sessions are to be closed.
    pub(super) closing: Vec<ServerId>,
    /// When connect times were last sampled.
    pub(super) sampled: Option<Instant>,
}

/// A frontend of the configuration.
#[derive(Debug)]
pub(super) struct FrontendState {
    pub(super) name: Arc<str>,
    pub(super) config: Arc<config::FrontendSettings>,
    pub(super) shared: Arc<FrontendShared>,
}

impl Cluster {
    /// An empty cluster in a process with that many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            frontends: Vec::new(),
            backends: Vec::new(),
            removed: Vec::new(),
            overrides: HashMap::new(),
            registry: Registry::new(workers),
            tasks: HashMap::new(),
            places: HashMap::new(),
            answers: Answers::new(),
            records: Records::new(),
            changes: Vec::new(),
            closing: Vec::new(),
            sampled: None,
        }
    }

    /// Applies a configuration, with answers of DNS for host names that had none yet. What is the
    /// same as before keeps its health, its counters and what the operator set. `local` are the
    /// addresses of this machine, at each of which a frontend on a wildcard address is reached.
    pub fn merge(
        &mut self,
        config: &Config,
        answers: Answers,
        local: &LocalAddresses,
        now: Instant,
    ) {
        let mut unusable = Vec::new();
        for (host, found) in answers {
            let (found, others) = usable(&found);
            if !others.is_empty() {
                unusable.push((host.clone(), others));
            }
            if !found.is_empty() {
                // An answer that has come since these were asked for is newer.
                self.answers.entry(host).or_insert(found);
            }
        }
        self.merge_frontends(&config.frontends);
        let Self { frontends, backends, answers, records, overrides, registry, changes, .. } = self;
        let served = frontends.iter().map(|frontend| &frontend.config);
        let chains = chains::find(served, &config.backends, local, (answers, records), backends);
        let mut update =
            Update { answers, records, chains: &chains, overrides, registry, changes, now };
        let named = |backend: BackendState| (backend.name.to_string(), backend);
        let mut known: HashMap<_, _> = backends.drain(..).map(named).collect();
        for config in &config.backends {
            backends.push(match known.remove(&*config.name) {
                Some(mut backend) => {
                    backend.update(config, &mut update);
                    backend
                }
                None => BackendState::new(config, &mut update),
            });
        }
        let mut gone: Vec<_> = known.into_values().collect();
        gone.sort_by(|a, b| a.name.cmp(&b.name));
        for backend in gone {
            backend.remove(&mut update);
        }
        for backend in backends {
            let port = only_client_port(&config.frontends, &backend.name);
            backend.set_client_port(port, registry);
        }
        for (host, others) in unusable {
            self.note_unusable(&host, &others);
        }
        self.forget_names();
        self.find_tasks();
    }

    fn merge_frontends(&mut self, frontends: &[Arc<config::FrontendSettings>]) {
        let gone = self.frontends.drain(..).chain(self.removed.drain(..));
        let mut known: BTreeMap<Arc<str>, FrontendState> =
            gone.map(|frontend| (Arc::clone(&frontend.name), frontend)).collect();
        for config in frontends {
            let max = config.sessions_max.map(Into::into);
            let config = Arc::clone(config);
            let frontend = match known.remove(&config.name) {
                Some(frontend) => FrontendState { config, ..frontend },
                None => FrontendState {
                    name: Arc::clone(&config.name),
                    shared: Arc::new(FrontendShared::new(
                        Arc::clone(&config.name),
                        max,
                        self.registry.workers(),
                    )),
                    config,
                },
            };
            frontend.shared.sessions.set_max(max);
            self.frontends.push(frontend);
        }
        self.removed = known.into_values().collect();
    }

    /// DNS has answered for host names. Without an address that a server can have, the last good
    /// answer of a name holds. Returns whether an endpoint was added or removed, of any name: an
    /// address is left out while it closes a cycle of frontends.
    pub fn resolved<'a>(
        &mut self,
        found: impl IntoIterator<Item = (&'a str, &'a [HostAddress])>,
        local: &LocalAddresses,
        now: Instant,
    ) -> bool {
        let mut hosts = HashSet::new();
        for (host, addresses) in found {
            let (addresses, others) = usable(addresses);
            if !others.is_empty() {
                self.note_unusable(host, &others);
            }
            if !addresses.is_empty() && !self.has_answer(host, &addresses) {
                self.answers.insert(host.to_owned(), addresses);
                hosts.insert(host);
            }
        }
        if hosts.is_empty() {
            return false;
        }
        let Self { frontends, backends, answers, records, overrides, registry, changes, .. } = self;
        let served = frontends.iter().map(|frontend| &frontend.config);
        let configured = backends.iter().map(|backend| &backend.config);
        let chains = chains::find(served, configured, local, (answers, records), backends);
        let mut update =
            Update { answers, records, chains: &chains, overrides, registry, changes, now };
        let mut any = false;
        for backend in backends {
            any |= backend.resolved(&hosts, &mut update);
        }
        self.find_tasks();
        any
    }

    /// DNS has answered for a host name with addresses that no server has.
    fn note_unusable(&mut self, host: &str, addresses: &[(IpAddr, &'static str)]) {
        for backend in &mut self.backends {
            let servers = backend.servers.iter_mut();
            for server in servers.filter(|server| server.host() == Some(host)) {
                for (address, what) in addresses {
                    server.note_unanswered(&format!("{address} is {what}"));
                    let kind = ChangeKind::NotAServer(*address, what);
                    let server = Some(Arc::clone(server.name()));
                    self.changes.push(Change { backend: Arc::clone(&backend.name), server, kind });
                }
            }
        }
    }

    /// DNS has no answer for these host names, each with the reason. Servers that have an address
    /// keep it.
    pub fn unanswered(&mut self, reasons: &HashMap<String, String>) {
        for server in self.backends.iter_mut().flat_map(|backend| &mut backend.servers) {
            if let Some(why) = server.host().and_then(|host| reasons.get(host)) {
                server.note_unanswered(why);
            }
        }
    }

    /// A probe has ended. Whether an endpoint went up or down. The result of a task that was
    /// replaced does not count.
    pub fn probed(&mut self, report: ProbeReport, now: Instant) -> bool {
        let Some((backend, server, endpoint)) = self.tasks.get(&report.task).copied() else {
            return false;
        };
        let at = (server, endpoint);
        let was_up = self.backends[backend].servers[server].is_up();
        let change = self.backends[backend].probed(at, report, &mut self.registry, now);
        let backend = &self.backends[backend];
        let server = &backend.servers[server];
        if was_up && !server.is_up() && backend.config.on_down == OnDown::Close {
            self.closing.push(server.id());
        }
        let any = change.is_some();
        self.changes.extend(change);
        any
    }

    /// Lets the weights of servers in a slow start grow; whether that changed one.
    pub fn grow(&mut self, now: Instant) -> bool {
        self.backends.iter_mut().fold(false, |any, backend| backend.grow(now) | any)
    }

    /// The table that should be in force.
    pub fn table(&mut self, version: u64, bound: &Bound) -> Table {
        let mut backends = BTreeMap::new();
        for backend in &mut self.backends {
            backends.insert(Arc::clone(&backend.name), backend.build(&mut self.changes));
        }
        let mut table = Table { version, ..Table::default() };
        for FrontendState { config, shared, .. } in &self.frontends {
            let backend = config.backend.as_ref();
            let frontend = Arc::new(Frontend {
                settings: Arc::clone(config),
                backend: backend.and_then(|(name, _)| backends.get(name.as_str())).cloned(),
                routes: config.is_routed().then(|| routes(config, &backends)),
                shared: Arc::clone(shared),
            });
            let addresses = config.bind.iter().flat_map(|(bind, _)| bind.addresses());
            let listeners = addresses.filter_map(|address| bound.get(&address));
            let listeners = listeners.map(|listener| (Arc::clone(listener), Arc::clone(&frontend)));
            table.listeners.extend(listeners);
            table.frontends.push(frontend);
        }
        table
    }

    /// The changes since the last call, in order.
    pub fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The servers that went down since the last call, and whose sessions are to be closed.
    pub fn closing(&mut self) -> Vec<ServerId> {
        std::mem::take(&mut self.closing)
    }

    /// Forgets what was removed and is no longer used: no session holds it, and no worker has a
    /// table from which one could still get it.
    pub fn forget(&mut self) {
        self.registry.forget();
        self.removed.retain(|frontend| Arc::strong_count(&frontend.shared) > 1);
    }

    /// Host names of servers, each once or more.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.servers().filter_map(ServerState::host)
    }

    /// Whether DNS has ever answered for that host name.
    #[must_use]
    pub fn knows(&self, host: &str) -> bool {
        self.answers.contains_key(host)
    }

    /// Whether these are the addresses that the host name has.
    #[must_use]
    pub fn has_answer(&self, host: &str, addresses: &[HostAddress]) -> bool {
        self.answers.get(host).is_some_and(|known| known == addresses)
    }

    /// How many addresses DNS has for that host name; 0: it has never answered.
    #[must_use]
    pub fn address_count(&self, host: &str) -> usize {
        self.answers.get(host).map_or(0, Vec::len)
    }

    /// Backend, server and endpoint, as long as they are in the configuration.
    pub(super) fn place_of(&self, id: EndpointId) -> Option<(usize, usize, usize)> {
        self.places.get(&id).copied()
    }

    /// The settings of the backend of a server.
    #[must_use]
    pub fn settings_of(&self, id: ServerId) -> Option<&config::BackendSettings> {
        let has = |backend: &&BackendState| backend.servers.iter().any(|server| server.id() == id);
        self.backends.iter().find(has).map(|backend| &*backend.config)
    }

    pub(super) fn servers(&self) -> impl Iterator<Item = &ServerState> {
        self.backends.iter().flat_map(|backend| &backend.servers)
    }

    /// To be called whenever an endpoint or its task changed.
    pub(super) fn find_tasks(&mut self) {
        self.tasks.clear();
        self.places.clear();
        for (b, backend) in self.backends.iter().enumerate() {
            for (s, server) in backend.servers.iter().enumerate() {
                for (e, endpoint) in server.endpoints.iter().enumerate() {
                    self.tasks.insert(endpoint.task, (b, s, e));
                    self.places.insert(endpoint.shared.id, (b, s, e));
                }
            }
        }
    }
}

/// The backends that `sni` and `alpn` of a frontend name.
fn routes(
    config: &config::FrontendSettings,
    backends: &BTreeMap<Arc<str>, Arc<Backend>>,
) -> Routes<Arc<Backend>> {
    let backend = |route: &Route| backends.get(route.backend.as_str()).cloned();
    let [sni, alpn] = [&config.sni, &config.alpn].map(|routes| {
        routes.iter().filter_map(|route| Some((route.name.as_str(), backend(route)?)))
    });
    Routes::new(sni, alpn)
}
