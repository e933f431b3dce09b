//! Host names and SRV names: which are followed, what their answers change, and when they are asked
//! again before their TTL ends.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

use crate::control::cluster::{ADDRESSES_MAX, ProbeReport, RECORDS_MAX};
use crate::control::controller::events::Events;
use crate::control::controller::state::Controller;
use crate::control::reload::Found;
use crate::control::resolve::{Answer, Followed, Follower, Resolved, Resolver, SrvAnswer};
use crate::sys::local_addresses::LocalAddresses;
use crate::terms::{EndpointId, Reason};

/// Answers of DNS that make one table, at most: an SRV name with a thousand records has as many
/// targets.
const ANSWERS_AT_ONCE: usize = 1024;

impl Controller {
    /// Follows the names of servers and backends, and no others; `found` are the first answers.
    pub(super) fn follow_names(&mut self, found: Found) {
        let Found { hosts, srv } = found;
        for (host, answer) in &hosts {
            warn_of_addresses(host, answer);
        }
        for (name, answer) in &srv {
            warn_of_records(name, answer);
        }
        let (resolver, senders) = (&self.resolver, &self.senders);
        let names = self.cluster.hosts();
        follow(&mut self.followers, names, hosts, resolver, &senders.resolved);
        let names = self.cluster.srv_names();
        follow(&mut self.srv_followers, names, srv, resolver, &senders.supplied);
    }

    /// One answer for a host name, and those that have come meanwhile: many make one table.
    pub(super) fn on_resolved(&mut self, first: Resolved, events: &mut Events) {
        let more = std::iter::from_fn(|| events.another_answer()).take(ANSWERS_AT_ONCE - 1);
        let batch = std::iter::once(first).chain(more).collect();
        if self.resolved(batch) {
            self.fit_sessions();
            self.stale = true;
        }
    }

    /// Whether an endpoint was added or removed. The names are looked up together: each alone would
    /// cost a pass over all servers.
    fn resolved(&mut self, batch: Vec<Resolved>) -> bool {
        let (mut found, mut unanswered) = (Vec::new(), HashMap::new());
        for Resolved { name: host, answer } in batch {
            if !self.followers.contains_key(&host) {
                continue; // a reload or an SRV name has removed it meanwhile
            }
            match answer {
                Ok(answer) => {
                    warn_of_addresses(&host, &answer);
                    if self.cluster.has_answer(&host, &answer.addresses) {
                        tracing::info!("host name {host} is resolved again");
                    }
                    found.push((host, answer.addresses));
                }
                Err(why) if self.cluster.knows(&host) => tracing::warn!(
                    "host name {host} cannot be resolved: {why}; its last addresses stay in use"
                ),
                Err(why) => {
                    tracing::warn!(
                        "host name {host} has no address: {why}; its servers are down until it \
                         has one (check the spelling)"
                    );
                    unanswered.insert(host, why);
                }
            }
        }
        self.cluster.unanswered(&unanswered);
        let found = found.iter().map(|(host, addresses)| (host.as_str(), addresses.as_slice()));
        self.cluster.resolved(found, &LocalAddresses::now(), Instant::now())
    }

    /// An answer for an SRV name.
    pub(super) fn on_supplied(&mut self, Resolved { name, answer }: Resolved<SrvAnswer>) {
        if !self.cluster.srv_names().any(|known| known == name) {
            return; // a reload has removed it meanwhile
        }
        match answer {
            Ok(answer) => {
                warn_of_records(&name, &answer);
                if self.cluster.has_records(&name, &answer.records) {
                    return tracing::info!("SRV name {name} is resolved again");
                }
                let local = LocalAddresses::now();
                if self.cluster.supplied(&name, answer.records, &local, Instant::now()) {
                    self.follow_names(Found::default());
                    self.fit_sessions();
                    self.stale = true;
                }
            }
            Err(why) if self.cluster.knows_srv(&name) => tracing::warn!(
                "SRV name {name} cannot be resolved: {why}; its last records stay in use"
            ),
            Err(why) => tracing::warn!(
                "SRV name {name} supplies no server: {why}; it is resolved again (check the \
                 spelling)"
            ),
        }
    }

    /// An endpoint failed: the names of its server may have other answers now.
    pub(super) fn ask_again(&self, endpoint: EndpointId) {
        self.hint(self.cluster.names_of(endpoint));
    }

    /// As [`Self::ask_again`], if a probe failed.
    pub(super) fn ask_after_probe(&self, report: &ProbeReport) {
        if report.verdict == Some(false) {
            self.hint(self.cluster.names_of_probed(report.task));
        }
    }

    fn hint(&self, [host, srv]: [Option<&str>; 2]) {
        let host = host.and_then(|host| self.followers.get(host));
        let srv = srv.and_then(|name| self.srv_followers.get(name));
        host.into_iter().chain(srv).for_each(Follower::hint);
    }

    /// If sessions found no server: asks again for the names of backends that have none.
    pub(super) fn ask_for_unserved(&mut self) {
        let table = self.shared.table.load();
        let unserved = table.frontends.iter().map(|frontend| {
            frontend.shared.cells.sum(|cell| cell.closed[Reason::NoServer as usize].read())
        });
        let unserved = unserved.sum();
        if std::mem::replace(&mut self.unserved, unserved) >= unserved {
            return;
        }
        let (hosts, srv) = self.cluster.names_of_empty();
        let hosts = hosts.into_iter().filter_map(|host| self.followers.get(host));
        let srv = srv.into_iter().filter_map(|name| self.srv_followers.get(name));
        hosts.chain(srv).for_each(Follower::hint);
    }

    /// The addresses of a host name, or of all servers of an SRV name.
    pub(super) fn address_count(&self, name: &str) -> usize {
        match self.cluster.address_count(name) {
            0 => self.cluster.srv_address_count(name),
            count => count,
        }
    }
}

/// Follows `names`, and no others; `answers` are the first ones.
fn follow<'a, A: Followed>(
    followers: &mut BTreeMap<String, Follower>,
    names: impl Iterator<Item = &'a str>,
    mut answers: BTreeMap<String, A>,
    resolver: &Resolver,
    sender: &UnboundedSender<Resolved<A>>,
) {
    let mut known = std::mem::take(followers);
    for name in names {
        if followers.contains_key(name) {
            continue;
        }
        let follower = known.remove(name).unwrap_or_else(|| {
            let first = answers.remove(name);
            Follower::start(resolver.clone(), name.to_owned(), first, sender.clone())
        });
        followers.insert(name.to_owned(), follower);
    }
}

fn warn_of_addresses(host: &str, answer: &Answer) {
    if answer.left_out > 0 {
        tracing::warn!(
            "host name {host} has {} addresses; the first {ADDRESSES_MAX} of them are used",
            answer.addresses.len() + answer.left_out
        );
    }
}

fn warn_of_records(name: &str, answer: &SrvAnswer) {
    if answer.left_out > 0 {
        tracing::warn!(
            "SRV name {name} has {} records; the first {RECORDS_MAX} of them are used",
            answer.records.len() + answer.left_out
        );
    }
}
