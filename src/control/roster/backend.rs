//! One backend: its servers, and which of them may be picked.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use crossbeam::utils::CachePadded;

use crate::config::{self, AdminState, AllDown, ServerAddress};
use crate::control::roster::Answers;
use crate::control::roster::mint::{Mint, Past};
use crate::control::roster::news::{News, SERVERS_MAX, What};
use crate::control::roster::server::{Happened, Member, Orders, ServerBook};
use crate::shared::schedule::{Schedule, Share};
use crate::shared::server::Server;
use crate::shared::table;
use crate::sys::interfaces::Here;

/// A backend as configured.
#[derive(Debug)]
pub(super) struct BackendBook {
    pub(super) name: Arc<str>,
    pub(super) config: Arc<config::BackendSettings>,
    pub(super) servers: Vec<ServerBook>,
    turn: Arc<CachePadded<AtomicUsize>>,
    /// As it stands in the newest table; none: something has changed since.
    in_force: Option<Arc<table::Backend>>,
    /// Whether the newest table has no server of it to pick.
    empty: bool,
    /// Whether the newest table leaves some out for want of numbers.
    crowded: bool,
}

/// What operators have ordered, by backend and server.
pub(super) type AllOrders = HashMap<(String, String), Orders>;

/// What the books are brought up to date with.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) answers: &'a Answers,
    /// Where this balancer itself listens.
    pub(super) own: &'a [SocketAddr],
    /// The addresses of the machine that it runs on.
    pub(super) here: &'a Here,
    pub(super) orders: &'a AllOrders,
    pub(super) past: &'a mut Past,
    pub(super) news: &'a mut Vec<News>,
    pub(super) now: Instant,
}

impl Facts<'_> {
    fn tell(&mut self, backend: &Arc<str>, happened: impl IntoIterator<Item = Happened>) {
        let news = happened.into_iter().map(|(server, what)| News {
            backend: Arc::clone(backend),
            server: Some(server),
            what,
        });
        self.news.extend(news);
    }
}

impl BackendBook {
    /// A backend that no file before had.
    pub(super) fn new(config: &Arc<config::BackendSettings>, facts: &mut Facts<'_>) -> Self {
        let mut book = Self {
            name: Arc::clone(&config.name),
            config: Arc::clone(config),
            servers: Vec::new(),
            turn: Arc::default(),
            in_force: None,
            empty: false,
            crowded: false,
        };
        for server in &config.servers {
            book.add(server.clone(), facts);
        }
        book
    }

    /// Takes over what a newer file says of it.
    pub(super) fn update(&mut self, config: &Arc<config::BackendSettings>, facts: &mut Facts<'_>) {
        let configured = &config.servers;
        self.config = Arc::clone(config);
        // Who goes, goes first: another server may want its name.
        let stays = |server: &ServerBook| {
            let mut same = configured.iter().filter(|new| new.name == server.config.name);
            same.any(|new| new.address == server.config.address)
        };
        let (known, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.servers).into_iter().partition(stays);
        self.retire(&gone, facts);
        let named = |server: ServerBook| (server.config.name.clone(), server);
        let mut known: HashMap<_, _> = known.into_iter().map(named).collect();
        for config in configured {
            let Some(mut server) = known.remove(&config.name) else {
                let index = self.add(config.clone(), facts);
                let added = |member: &Member| {
                    (Arc::clone(&member.shared.name), What::Added(member.address))
                };
                facts.tell(&self.name, self.servers[index].members.iter().map(added));
                continue;
            };
            server.update(config.clone(), &self.config.health, facts.now);
            self.servers.push(server);
            self.follow(self.servers.len() - 1, facts);
        }
        self.touch();
    }

    /// A server with such a name may have other addresses now; whether there is one.
    pub(super) fn follow_host(&mut self, name: &str, facts: &mut Facts<'_>) -> bool {
        let mut any = false;
        for index in 0..self.servers.len() {
            if self.servers[index].host() == Some(name) {
                any |= self.follow(index, facts);
            }
        }
        any
    }

    /// Whether it has a server configured by that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.servers.iter().any(|server| server.config.name == name)
    }

    /// Every server of it goes.
    pub(super) fn remove(self, facts: &mut Facts<'_>) {
        self.retire(&self.servers, facts);
    }

    fn add(&mut self, config: config::Server, facts: &mut Facts<'_>) -> usize {
        let (addresses, _) = self.located(&config, facts);
        let key = (self.name.to_string(), config.name.clone());
        let mut mint = Mint { backend: &self.name, past: facts.past };
        let mut server =
            ServerBook::new(config, &self.config.health, &addresses, &mut mint, facts.now);
        server.orders = facts.orders.get(&key).copied().unwrap_or_default();
        self.servers.push(server);
        self.servers.len() - 1
    }

    fn follow(&mut self, index: usize, facts: &mut Facts<'_>) -> bool {
        let (addresses, itself) = self.located(&self.servers[index].config, facts);
        let server = &mut self.servers[index];
        let mut mint = Mint { backend: &self.name, past: facts.past };
        let health = &self.config.health;
        let happened = if addresses.is_empty() && itself {
            server.lead_nowhere(health, &mut mint, facts.now)
        } else {
            server.follow(&addresses, health, &mut mint, facts.now)
        };
        let any = !happened.is_empty();
        if any {
            self.touch();
        }
        facts.tell(&self.name, happened);
        any
    }

    /// Where a server is, by the answers of DNS; empty: its name has none. And whether its name
    /// leads back here as well, which is no server: each connection would make another one, until
    /// descriptors end. (Such a number is refused with the file.)
    fn located(&self, server: &config::Server, facts: &mut Facts<'_>) -> (Vec<SocketAddr>, bool) {
        let (host, port) = match &server.address {
            ServerAddress::Ip(address) => return (vec![*address], false),
            ServerAddress::Name { host, port } => (host, *port),
        };
        let answer: &[IpAddr] = facts.answers.get(host).map(Vec::as_slice).unwrap_or_default();
        let found = answer.iter().map(|address| SocketAddr::from((*address, port)));
        let (own, found): (Vec<_>, Vec<_>) = found
            .partition(|address| facts.own.iter().any(|own| facts.here.leads_to(*address, *own)));
        let leads_here = !own.is_empty();
        let itself = own.into_iter().map(|own| (server.name.as_str().into(), What::Itself(own)));
        facts.tell(&self.name, itself);
        (found, leads_here)
    }

    fn retire(&self, servers: &[ServerBook], facts: &mut Facts<'_>) {
        for server in servers {
            let mut mint = Mint { backend: &self.name, past: facts.past };
            let retire = |member| server.retire(member, &mut mint);
            let happened: Vec<_> = server.members.iter().map(retire).collect();
            facts.tell(&self.name, happened);
        }
    }

    /// Something has changed: the next table has it built anew.
    pub(super) fn touch(&mut self) {
        self.in_force = None;
    }

    /// As it should be in the next table.
    pub(super) fn build(&mut self, news: &mut Vec<News>) -> Arc<table::Backend> {
        if let Some(in_force) = &self.in_force {
            return Arc::clone(in_force);
        }
        let (shares, all_down) = self.shares();
        let left = shares.len().saturating_sub(SERVERS_MAX);
        if (left > 0) != self.crowded {
            self.crowded = left > 0;
            if self.crowded {
                let what = What::Crowded(left);
                news.push(News { backend: Arc::clone(&self.name), server: None, what });
            }
        }
        let schedule = Schedule::new(shares);
        let tried = all_down && !schedule.is_empty();
        let empty = all_down || schedule.is_empty();
        if empty != self.empty {
            let what = if empty { What::Empty { tried } } else { What::Serving };
            news.push(News { backend: Arc::clone(&self.name), server: None, what });
            self.empty = empty;
        }
        let backend = Arc::new(table::Backend {
            settings: Arc::clone(&self.config),
            schedule,
            turn: Arc::clone(&self.turn),
        });
        self.in_force = Some(Arc::clone(&backend));
        backend
    }

    /// Who may be picked: those that are up; when none is, the backup servers that are; when none
    /// of them is, perhaps everybody (and then true). A server in drain or maint never is.
    fn shares(&self) -> (Vec<Share>, bool) {
        let of = |backup: Option<bool>, all: bool| -> Vec<Share> {
            let servers = self.servers.iter().filter(|server| {
                server.state() == AdminState::Ready
                    && server.weight() > 0
                    && backup.is_none_or(|backup| server.config.backup == backup)
            });
            servers
                .flat_map(|server| server.members.iter().map(|member| (server.weight(), member)))
                .filter(|(_, member)| member.is_up() || all)
                .filter_map(|(weight, member)| Some((in_force(member)?, weight)))
                .collect()
        };
        let up = of(Some(false), false);
        if !up.is_empty() {
            return (up, false);
        }
        let backup = of(Some(true), false);
        if !backup.is_empty() || self.config.all_down == AllDown::Refuse {
            return (backup, false);
        }
        (of(None, true), true)
    }
}

fn in_force(member: &Member) -> Option<Arc<Server>> {
    Some(Arc::new(Server::new(member.address?, Arc::clone(&member.shared))))
}
