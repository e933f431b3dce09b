//! The control thread's books: every frontend, backend and server, as configured, as an operator
//! wants them, as probes and DNS find them. Out of them come the table and what is reported.
//!
//! No socket and no clock: what happened is told, with the time, and a test can tell anything.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{self, AdminState, Check, Config};
use crate::control::health::Transition;
use crate::shared::counters::PerWorker;
use crate::shared::limit::Limit;
use crate::shared::orders::ServerName;
use crate::shared::snapshot::ProbeResult;
use crate::shared::table::{Frontend, FrontendShared, Listener, Table};
use crate::sys::interfaces::Here;
use crate::terms::ServerId;

mod backend;
mod mint;
mod news;
mod report;
mod server;

pub use news::{News, What};
pub use report::{Probed, Strength};

use backend::{AllOrders, BackendBook, Facts};
use mint::Past;
use server::ServerBook;

/// Addresses by host name, as DNS has them. A name without an answer is not in it.
pub type Answers = BTreeMap<String, Vec<IpAddr>>;

/// Listening sockets by address.
pub type Bound = BTreeMap<SocketAddr, Arc<Listener>>;

/// How one probe went.
#[derive(Debug)]
pub struct Probe {
    /// Of which server.
    pub server: ServerId,
    /// Where that was when it was asked.
    pub address: SocketAddr,
    /// For the metrics.
    pub result: ProbeResult,
    /// For people.
    pub detail: String,
    /// From connect to answer.
    pub duration: Duration,
}

/// The books.
#[derive(Debug)]
pub struct Roster {
    frontends: Vec<FrontendBook>,
    backends: Vec<BackendBook>,
    /// Backend, server and member by id.
    places: HashMap<ServerId, (usize, usize, usize)>,
    orders: AllOrders,
    answers: Answers,
    /// Where frontends listen.
    own: Vec<SocketAddr>,
    past: Past,
    /// Frontends that are gone and that somebody still has.
    removed: Vec<FrontendBook>,
    news: Vec<News>,
}

#[derive(Debug)]
struct FrontendBook {
    name: Arc<str>,
    config: Arc<config::FrontendSettings>,
    shared: Arc<FrontendShared>,
}

impl Roster {
    /// Empty books of a process with that many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            frontends: Vec::new(),
            backends: Vec::new(),
            places: HashMap::new(),
            orders: HashMap::new(),
            answers: Answers::new(),
            own: Vec::new(),
            past: Past::new(workers),
            removed: Vec::new(),
            news: Vec::new(),
        }
    }

    /// Takes over a configuration, with answers for the names in it that had none yet. What is
    /// the same as before keeps its health, its counters and what an operator has set. No name may
    /// lead from `here`, the machine that this runs on, back to it.
    pub fn merge(&mut self, config: &Config, answers: Answers, here: &Here, now: Instant) {
        for (host, found) in answers.into_iter().filter(|(_, found)| !found.is_empty()) {
            // What has been answered since these were asked for is newer.
            self.answers.entry(host).or_insert(found);
        }
        let listened = config.frontends.iter().flat_map(|frontend| &frontend.bind);
        self.own = listened.map(|(address, _)| *address).collect();
        let Self { answers, own, orders, past, news, .. } = self;
        let mut facts = Facts { answers, own, here, orders, past, news, now };
        let named = |book: BackendBook| (book.name.to_string(), book);
        let mut known: HashMap<_, _> = self.backends.drain(..).map(named).collect();
        for config in &config.backends {
            self.backends.push(match known.remove(&*config.name) {
                Some(mut book) => {
                    book.update(config, &mut facts);
                    book
                }
                None => BackendBook::new(config, &mut facts),
            });
        }
        let mut gone: Vec<_> = known.into_values().collect();
        gone.sort_by(|a, b| a.name.cmp(&b.name));
        for book in gone {
            book.remove(&mut facts);
        }
        self.merge_frontends(&config.frontends);
        let hosts: BTreeSet<String> = self.hosts().map(str::to_owned).collect();
        self.answers.retain(|host, _| hosts.contains(host));
        self.find_places();
    }

    fn merge_frontends(&mut self, frontends: &[Arc<config::FrontendSettings>]) {
        let gone = self.frontends.drain(..).chain(self.removed.drain(..));
        let mut known: BTreeMap<Arc<str>, FrontendBook> =
            gone.map(|book| (Arc::clone(&book.name), book)).collect();
        for config in frontends {
            let max = config.sessions_max.map(Into::into);
            let config = Arc::clone(config);
            let book = match known.remove(&config.name) {
                Some(book) => FrontendBook { config, ..book },
                None => FrontendBook {
                    name: Arc::clone(&config.name),
                    config,
                    shared: Arc::new(FrontendShared {
                        sessions: Limit::new(max),
                        cells: PerWorker::new(self.past.workers()),
                    }),
                },
            };
            book.shared.sessions.set_max(max);
            self.frontends.push(book);
        }
        self.removed = known.into_values().collect();
    }

    /// What DNS says of a name now. No address changes nothing: the last good answer holds.
    /// Whether a server moved, came or went.
    pub fn resolved(
        &mut self,
        host: &str,
        addresses: &[IpAddr],
        here: &Here,
        now: Instant,
    ) -> bool {
        if addresses.is_empty() || self.answers.get(host).is_some_and(|known| known == addresses) {
            return false;
        }
        self.answers.insert(host.to_owned(), addresses.to_owned());
        let Self { answers, own, orders, past, news, .. } = self;
        let mut facts = Facts { answers, own, here, orders, past, news, now };
        let mut any = false;
        for backend in &mut self.backends {
            any |= backend.follow_host(host, &mut facts);
        }
        self.find_places();
        any
    }

    /// DNS has no answer for a name, and why. Servers that have an address keep it.
    pub fn unanswered(&mut self, host: &str, why: &str) {
        let servers = self.backends.iter_mut().flat_map(|backend| &mut backend.servers);
        for server in servers.filter(|server| server.host() == Some(host)) {
            server.say_unanswered(why);
        }
    }

    /// A probe has ended, with a verdict on its server or, for want of something of this
    /// machine's, without. Whether that brought the server up or down. What was asked of a server
    /// that has moved since, or is not to be probed any more, says nothing.
    pub fn probed(&mut self, probe: Probe, verdict: Option<bool>, now: Instant) -> bool {
        let Probe { server, address, result, detail, duration } = probe;
        let Some((b, s, m)) = self.places.get(&server).copied() else { return false };
        let backend = &mut self.backends[b];
        let member = &mut backend.servers[s].members[m];
        if member.address != Some(address) || backend.config.health.check == Check::Off {
            return false;
        }
        member.probes.results[result as usize].add(1);
        member.probes.duration.record(duration);
        member.last_probe.clone_from(&detail);
        let transition = verdict.and_then(|passed| member.health.on_probe(passed));
        let Some(transition) = transition else { return false };
        member.since = now;
        let health = &backend.config.health;
        let what = match transition {
            Transition::Up => What::Up { detail, probes: health.rise },
            Transition::Down => What::Down { detail, probes: health.fall },
        };
        let name = Arc::clone(&member.shared.name);
        let news = News { backend: Arc::clone(&backend.name), server: Some(name), what };
        backend.touch();
        self.news.push(news);
        true
    }

    /// An operator wants a server in that state; the answer is for the operator.
    ///
    /// # Errors
    /// There is no such server.
    pub fn set_state(&mut self, name: &ServerName, state: AdminState) -> Result<String, String> {
        self.order(name, |orders| orders.state = Some(state))?;
        let word = state.word();
        let sessions = self.server(name).map_or(0, ServerBook::sessions);
        let rest = match (state, sessions) {
            (AdminState::Ready, _) | (_, 0) => String::new(),
            (_, 1) => "; its session lives on".to_owned(),
            (_, sessions) => format!("; its {sessions} sessions live on"),
        };
        Ok(format!("{}/{} is in state {word}{rest}", name.backend, name.server))
    }

    /// An operator gives a server another weight; the answer is for the operator.
    ///
    /// # Errors
    /// There is no such server, or no such weight.
    pub fn set_weight(&mut self, name: &ServerName, weight: u32) -> Result<String, String> {
        if weight > 1000 {
            return Err(format!("a weight is 0 to 1000, not {weight}"));
        }
        self.order(name, |orders| orders.weight = Some(weight))?;
        Ok(format!("{}/{} has weight {weight}", name.backend, name.server))
    }

    /// What operators have ordered otherwise than the file has it, a server each.
    #[must_use]
    pub fn ordered(&self) -> Vec<String> {
        let servers = self
            .backends
            .iter()
            .flat_map(|backend| backend.servers.iter().map(|server| (&*backend.name, server)));
        let ordered = servers.filter_map(|(backend, server)| {
            let server::Orders { state, weight } = server.orders;
            let state = state.filter(|state| *state != server.config.state).map(AdminState::word);
            let weight = weight.filter(|weight| *weight != server.config.weight);
            let weight = weight.map(|weight| format!("weight {weight}"));
            let what: Vec<&str> = state.into_iter().chain(weight.as_deref()).collect();
            let name = &server.config.name;
            (!what.is_empty()).then(|| format!("{backend}/{name} {}", what.join(" ")))
        });
        ordered.collect()
    }

    /// Servers whose names have no address, as BACKEND/SERVER.
    #[must_use]
    pub fn without_address(&self) -> Vec<String> {
        let backends = self.backends.iter();
        let servers = backends
            .flat_map(|backend| backend.servers.iter().map(|server| (&*backend.name, server)));
        let none = servers
            .filter(|(_, server)| server.members.iter().all(|member| member.address.is_none()));
        none.map(|(backend, server)| format!("{backend}/{}", server.config.name)).collect()
    }

    fn order(
        &mut self,
        name: &ServerName,
        order: impl FnOnce(&mut server::Orders),
    ) -> Result<(), String> {
        if self.server(name).is_none() {
            return Err(self.no_such(name));
        }
        let key = (name.backend.clone(), name.server.clone());
        let orders = self.orders.entry(key).or_default();
        order(orders);
        for backend in self.backends.iter_mut().filter(|book| *book.name == *name.backend) {
            for server in &mut backend.servers {
                if server.config.name == name.server {
                    server.orders = *orders;
                }
            }
            backend.touch();
        }
        Ok(())
    }

    fn no_such(&self, name: &ServerName) -> String {
        let ServerName { backend, server } = name;
        let Some(book) = self.backends.iter().find(|book| *book.name == **backend) else {
            let names: Vec<&str> = self.backends.iter().map(|book| &*book.name).take(20).collect();
            return format!("there is no backend {backend:?}; there is {}", names.join(", "));
        };
        let whole = server.rsplit_once('#').map(|(whole, _)| whole);
        if let Some(whole) = whole.filter(|whole| book.has(whole)) {
            return format!(
                "{backend}/{server} is one address of a server, and an order is for every address \
                 of it: {backend}/{whole}"
            );
        }
        let names = book.servers.iter().map(|server| server.config.name.as_str());
        let names: Vec<&str> = names.take(20).collect();
        format!("backend {backend} has no server {server:?}; it has {}", names.join(", "))
    }

    /// The table that should be in force.
    pub fn table(&mut self, version: u64, bound: &Bound) -> Table {
        let mut backends = BTreeMap::new();
        for book in &mut self.backends {
            backends.insert(Arc::clone(&book.name), book.build(&mut self.news));
        }
        let mut table = Table { version, frontends: Vec::new(), listeners: Vec::new() };
        for book in &self.frontends {
            let Some(backend) = backends.get(book.config.backend.0.as_str()) else { continue };
            let frontend = Arc::new(Frontend {
                settings: Arc::clone(&book.config),
                backend: Arc::clone(backend),
                shared: Arc::clone(&book.shared),
            });
            let listeners = book.config.bind.iter().filter_map(|(address, _)| bound.get(address));
            let listeners = listeners.map(|listener| (Arc::clone(listener), Arc::clone(&frontend)));
            table.listeners.extend(listeners);
            table.frontends.push(frontend);
        }
        table
    }

    /// What has happened since the last call, in order.
    pub fn news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Forgets what is gone and used by nobody: no session has it, and no worker has a table in
    /// which one could still get it. What would be counted after that, nobody could see.
    pub fn forget(&mut self) {
        self.past.forget();
        self.removed.retain(|book| Arc::strong_count(&book.shared) > 1);
    }

    /// Names that servers have, each once or more.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.backends.iter().flat_map(|book| &book.servers).filter_map(ServerBook::host)
    }

    /// Whether DNS has ever answered for that name.
    #[must_use]
    pub fn knows(&self, host: &str) -> bool {
        self.answers.contains_key(host)
    }

    /// How many addresses DNS has for that name; 0: it has never answered.
    #[must_use]
    pub fn count_of(&self, host: &str) -> usize {
        self.answers.get(host).map_or(0, Vec::len)
    }

    /// Whether a server has that name.
    #[must_use]
    pub fn has_host(&self, host: &str) -> bool {
        self.hosts().any(|known| known == host)
    }

    /// The name of a server, if it has one.
    #[must_use]
    pub fn host_of(&self, id: ServerId) -> Option<&str> {
        let (backend, server, _) = self.places.get(&id)?;
        self.backends[*backend].servers[*server].host()
    }

    fn server(&self, name: &ServerName) -> Option<&ServerBook> {
        let backend = self.backends.iter().find(|book| *book.name == *name.backend)?;
        backend.servers.iter().find(|server| server.config.name == name.server)
    }

    fn find_places(&mut self) {
        self.places.clear();
        for (b, backend) in self.backends.iter().enumerate() {
            for (s, server) in backend.servers.iter().enumerate() {
                for (m, member) in server.members.iter().enumerate() {
                    self.places.insert(member.shared.id, (b, s, m));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
