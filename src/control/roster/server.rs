//! One configured server: what the file and an operator say of it, and its addresses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{self, AdminState, Check, ServerAddress};
use crate::control::health::Health;
use crate::control::roster::mint::Mint;
use crate::control::roster::news::What;
use crate::shared::server::ServerShared;
use crate::shared::snapshot::ProbeCounts;

/// What stands in the place of a probe's result where nothing can be probed.
const NO_ADDRESS: &str = "no address";

/// A server as configured.
#[derive(Debug)]
pub(super) struct ServerBook {
    pub(super) config: config::Server,
    /// `address` as the file has it.
    pub(super) written: Arc<str>,
    pub(super) orders: Orders,
    /// One an address; never empty: a name without an answer has one without an address.
    pub(super) members: Vec<Member>,
}

/// What an operator has ordered; it outdoes the file until it is ordered otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Orders {
    pub(super) state: Option<AdminState>,
    pub(super) weight: Option<u32>,
}

/// One address of a server: a row of the status page.
#[derive(Debug)]
pub(super) struct Member {
    /// n of `name#n`; 0 for the only one, which is `name`.
    number: u32,
    pub(super) address: Option<SocketAddr>,
    pub(super) health: Health,
    pub(super) since: Instant,
    pub(super) probes: Arc<ProbeCounts>,
    pub(super) last_probe: String,
    pub(super) shared: Arc<ServerShared>,
}

/// Something that happened to the member of that name.
pub(super) type Happened = (Arc<str>, What);

impl ServerBook {
    /// A server that no file before had.
    pub(super) fn new(
        config: config::Server,
        health: &config::Health,
        addresses: &[SocketAddr],
        mint: &mut Mint<'_>,
        now: Instant,
    ) -> Self {
        let written = written(&config.address);
        let mut book = Self { config, written, orders: Orders::default(), members: Vec::new() };
        let numbers = if addresses.len() > 1 { 1.. } else { 0.. };
        for (number, address) in numbers.zip(addresses) {
            book.members.push(book.member(number, Some(*address), true, health, mint, now));
        }
        if addresses.is_empty() {
            book.members.push(book.member(0, None, false, health, mint, now));
        }
        book
    }

    /// The host name that its address has, if it is no number.
    pub(super) fn host(&self) -> Option<&str> {
        match &self.config.address {
            ServerAddress::Ip(_) => None,
            ServerAddress::Name { host, .. } => Some(host),
        }
    }

    /// As set by the file or an operator.
    pub(super) fn state(&self) -> AdminState {
        self.orders.state.unwrap_or(self.config.state)
    }

    /// As set by the file or an operator.
    pub(super) fn weight(&self) -> u32 {
        self.orders.weight.unwrap_or(self.config.weight)
    }

    /// Takes over what a newer file says of the same server.
    pub(super) fn update(&mut self, config: config::Server, health: &config::Health, now: Instant) {
        for member in &mut self.members {
            member.shared.sessions.set_max(config.sessions_max.map(Into::into));
            member.up_if_unprobed(health, now);
            member.health.set_thresholds(health.rise, health.fall);
        }
        self.config = config;
    }

    /// Why its name has no address, for whoever looks at it.
    pub(super) fn say_unanswered(&mut self, why: &str) {
        for member in self.members.iter_mut().filter(|member| member.address.is_none()) {
            member.last_probe = format!("{NO_ADDRESS}: {why}");
        }
    }

    /// Makes the members those of `addresses`. An address that stays keeps its member, in
    /// whatever order the answer came; one that went gives its member to one that is new. No
    /// address at all changes nothing: the last good answer holds.
    pub(super) fn follow(
        &mut self,
        addresses: &[SocketAddr],
        health: &config::Health,
        mint: &mut Mint<'_>,
        now: Instant,
    ) -> Vec<Happened> {
        let mut happened = Vec::new();
        if addresses.is_empty() {
            return happened;
        }
        // Of a server that was down for want of an address, none is up before it is probed.
        let had_one = self.members.iter().any(|member| member.address.is_some());
        let stays = |member: &Member| member.address.is_some_and(|own| addresses.contains(&own));
        let is_new = |address: &SocketAddr| {
            self.members.iter().all(|member| member.address != Some(*address))
        };
        let new: Vec<_> = addresses.iter().copied().filter(is_new).collect();
        let mut new = new.into_iter();
        for member in self.members.iter_mut().filter(|member| !stays(member)) {
            let Some(address) = new.next() else { break };
            happened.push((Arc::clone(&member.shared.name), member.move_to(address)));
            member.up_if_unprobed(health, now);
        }
        let (staying, gone) = std::mem::take(&mut self.members).into_iter().partition(stays);
        self.members = staying;
        happened.extend(gone.iter().map(|member| self.retire(member, mint)));
        self.renumber(self.members.len() + new.len() == 1, mint);
        for address in new {
            let number = self.free_number();
            let mut member = self.member(number, Some(address), had_one, health, mint, now);
            member.up_if_unprobed(health, now);
            happened.push((Arc::clone(&member.shared.name), What::Added(Some(address))));
            self.members.push(member);
        }
        self.members.sort_by_key(|member| member.number);
        happened
    }

    /// Its name leads to this balancer alone, and such addresses are not used: it is down until it
    /// leads elsewhere.
    pub(super) fn lead_nowhere(
        &mut self,
        health: &config::Health,
        mint: &mut Mint<'_>,
        now: Instant,
    ) -> Vec<Happened> {
        if self.members.iter().all(|member| member.address.is_none()) {
            return Vec::new();
        }
        let gone = self.members.split_off(1);
        let mut happened: Vec<_> = gone.iter().map(|member| self.retire(member, mint)).collect();
        self.renumber(true, mint);
        let member = &mut self.members[0];
        member.address = None;
        member.health = Health::new(health.rise, health.fall, false);
        member.since = now;
        NO_ADDRESS.clone_into(&mut member.last_probe);
        happened.push((Arc::clone(&member.shared.name), What::LeadsNowhere));
        happened
    }

    /// The only address is `name`, several are `name#1`, `name#2`. Who goes from one to the other
    /// begins a row of its own; its health goes with it.
    fn renumber(&mut self, only: bool, mint: &mut Mint<'_>) {
        for index in 0..self.members.len() {
            let number = match (self.members[index].number, only) {
                (1.., true) => 0,
                (0, false) => self.free_number(),
                _ => continue,
            };
            // The rename says nothing that the new row does not show.
            drop(self.retire(&self.members[index], mint));
            let (shared, probes) = mint.shared(&self.name_of(number), &self.config);
            let member = &mut self.members[index];
            (member.number, member.shared, member.probes) = (number, shared, probes);
        }
    }

    /// The lowest number of several that no member has.
    fn free_number(&self) -> u32 {
        let taken = |n: &u32| self.members.iter().any(|member| member.number == *n);
        (1..).find(|n| !taken(n)).unwrap_or(u32::MAX)
    }

    /// Sessions that its addresses have now.
    pub(super) fn sessions(&self) -> u32 {
        self.members.iter().map(|member| member.shared.sessions.active()).sum()
    }

    /// Whoever goes is reported until its last session ends.
    pub(super) fn retire(&self, member: &Member, mint: &mut Mint<'_>) -> Happened {
        mint.retire(self, member);
        let sessions = member.shared.sessions.active();
        (Arc::clone(&member.shared.name), What::Removed { sessions })
    }

    fn member(
        &self,
        number: u32,
        address: Option<SocketAddr>,
        up: bool,
        health: &config::Health,
        mint: &mut Mint<'_>,
        now: Instant,
    ) -> Member {
        let (shared, probes) = mint.shared(&self.name_of(number), &self.config);
        Member {
            number,
            address,
            health: Health::new(health.rise, health.fall, up),
            since: now,
            probes,
            last_probe: if address.is_none() { NO_ADDRESS.to_owned() } else { String::new() },
            shared,
        }
    }

    fn name_of(&self, number: u32) -> String {
        match number {
            0 => self.config.name.clone(),
            n => format!("{}#{n}", self.config.name),
        }
    }
}

impl Member {
    /// Whether it serves, by what its probes say.
    pub(super) const fn is_up(&self) -> bool {
        self.health.is_up()
    }

    fn move_to(&mut self, address: SocketAddr) -> What {
        // What was found at one address is not held against another.
        self.health.begin_count();
        match self.address.replace(address) {
            Some(from) => What::Moved(from, address),
            None => {
                self.last_probe.clear();
                What::Resolved(address)
            }
        }
    }

    /// Whom nobody probes is up, once it has an address.
    fn up_if_unprobed(&mut self, health: &config::Health, now: Instant) {
        if health.check == Check::Off && !self.is_up() && self.address.is_some() {
            self.since = now;
            self.health = Health::new(health.rise, health.fall, true);
        }
    }
}

/// The address in the words of the configuration.
fn written(address: &ServerAddress) -> Arc<str> {
    match address {
        ServerAddress::Ip(address) => address.to_string().into(),
        ServerAddress::Name { host, port } => format!("{host}:{port}").into(),
    }
}
