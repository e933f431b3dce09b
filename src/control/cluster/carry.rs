//! What the cluster of one process passes to that of the process that replaces it: orders of the
//! operator, health, answers of DNS.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::{AdminState, Check};
use crate::control::cluster::endpoint::EndpointState;
use crate::control::cluster::input::HostAddress;
use crate::control::cluster::server::{Overrides, ServerState};
use crate::control::cluster::srv::SrvRecord;
use crate::control::cluster::state::Cluster;
use crate::control::health::Health;
use crate::shared::server::ServerShared;
use crate::shared::snapshot::ProbeCounts;
use crate::sys::address::Address;

/// What is passed. Times are ages in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterState {
    orders: Vec<CarriedOrder>,
    servers: Vec<CarriedServer>,
    /// Servers of SRV names that were down when their records left DNS, by backend.
    departed: BTreeMap<String, Vec<String>>,
    /// Addresses and their interfaces, by host name.
    hosts: BTreeMap<String, Vec<(IpAddr, u32)>>,
    /// Target, port, priority and weight of records, by SRV name.
    srv: BTreeMap<String, Vec<(String, u16, u16, u16)>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct CarriedOrder {
    backend: String,
    server: String,
    state: Option<(String, u64)>,
    weight: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct CarriedServer {
    backend: String,
    server: String,
    /// As written in the configuration.
    address: String,
    since: u64,
    admin_since: u64,
    /// The weight grows since then.
    came_up: Option<u64>,
    endpoints: Vec<CarriedEndpoint>,
    departed: Vec<SocketAddr>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct CarriedEndpoint {
    address: String,
    up: bool,
    decided: bool,
    against: u32,
    probe_passed: bool,
    /// Milliseconds until it is up again, without probes.
    down_for: Option<u64>,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn age(since: Instant, now: Instant) -> u64 {
    millis(now.saturating_duration_since(since))
}

fn time_of(age: u64, now: Instant) -> Instant {
    now.checked_sub(Duration::from_millis(age)).unwrap_or(now)
}

impl ClusterState {
    /// Addresses by host name.
    #[must_use]
    pub fn answers(&self) -> BTreeMap<String, Vec<HostAddress>> {
        let address = |(ip, zone): &(IpAddr, u32)| HostAddress { ip: *ip, zone: *zone };
        let hosts = self.hosts.iter();
        hosts.map(|(host, all)| (host.clone(), all.iter().map(address).collect())).collect()
    }

    /// Records by SRV name.
    #[must_use]
    pub fn records(&self) -> BTreeMap<String, Vec<SrvRecord>> {
        let record = |(target, port, priority, weight): &(String, u16, u16, u16)| SrvRecord {
            target: target.clone(),
            port: *port,
            priority: *priority,
            weight: *weight,
        };
        let names = self.srv.iter();
        names.map(|(name, all)| (name.clone(), all.iter().map(record).collect())).collect()
    }
}

impl Cluster {
    /// What the cluster of the next process starts with.
    #[must_use]
    pub fn carry(&self, now: Instant) -> ClusterState {
        let order = |((backend, server), set): (&(String, String), &Overrides)| CarriedOrder {
            backend: backend.clone(),
            server: server.clone(),
            state: set.state.map(|(state, since)| (state.word().to_owned(), age(since, now))),
            weight: set.weight,
        };
        let departed = self.backends.iter().map(|backend| (backend, backend.departed.names()));
        let departed = departed.filter(|(_, names)| !names.is_empty());
        let address = |address: &HostAddress| (address.ip, address.zone);
        let record = |record: &SrvRecord| {
            (record.target.clone(), record.port, record.priority, record.weight)
        };
        let (hosts, srv) = (self.answers.iter(), self.records.iter());
        ClusterState {
            orders: self.overrides.iter().map(order).collect(),
            servers: self.servers().map(|server| server.carry(now)).collect(),
            departed: departed
                .map(|(backend, names)| (backend.name.to_string(), names.to_vec()))
                .collect(),
            hosts: hosts
                .map(|(host, all)| (host.clone(), all.iter().map(address).collect()))
                .collect(),
            srv: srv.map(|(name, all)| (name.clone(), all.iter().map(record).collect())).collect(),
        }
    }

    /// Puts the orders of the operator in force, before the configuration is merged.
    pub fn restore_orders(&mut self, carried: &ClusterState, now: Instant) {
        for order in &carried.orders {
            let state = order.state.as_ref().and_then(|(word, age)| {
                let all = [AdminState::Ready, AdminState::Drain, AdminState::Maint];
                let known = all.into_iter().find(|state| state.word() == word);
                known.map(|state| (state, time_of(*age, now)))
            });
            let overrides = Overrides { state, weight: order.weight };
            self.overrides.insert((order.backend.clone(), order.server.clone()), overrides);
        }
    }

    /// Restores the health of the servers that both processes have: after the merge.
    pub fn restore_health(&mut self, carried: &ClusterState, now: Instant) {
        let servers = carried.servers.iter();
        let key = |server: &CarriedServer| (server.backend.clone(), server.server.clone());
        let known: HashMap<_, _> = servers.map(|server| (key(server), server)).collect();
        for backend in &mut self.backends {
            if let Some(names) = carried.departed.get(&*backend.name) {
                backend.departed.restore(names.clone());
            }
            let checked = backend.config.health.check != Check::Off;
            let (rise, fall) = (backend.config.health.rise, backend.config.health.fall);
            for server in &mut backend.servers {
                let key = (backend.name.to_string(), server.config.name.clone());
                let Some(carried) = known.get(&key) else { continue };
                if *carried.address == *server.written {
                    server.restore(carried, checked.then_some((rise, fall)), now);
                }
            }
            backend.touch();
        }
    }

    /// The counters of every server, with those of removed servers that are not forgotten yet.
    pub fn server_counters(&self) -> impl Iterator<Item = (&Arc<ServerShared>, &Arc<ProbeCounts>)> {
        let present = self.servers().map(|server| (&server.shared, &server.probes));
        present.chain(self.registry.removed_counters())
    }
}

impl ServerState {
    fn carry(&self, now: Instant) -> CarriedServer {
        let endpoint = |endpoint: &EndpointState| {
            let until = endpoint.failures.until;
            CarriedEndpoint {
                address: endpoint.address().to_string(),
                up: endpoint.is_up(),
                decided: endpoint.health.is_decided(),
                against: endpoint.health.against(),
                probe_passed: endpoint.shared.probe_passed(),
                down_for: until.map(|until| millis(until.saturating_duration_since(now))),
            }
        };
        let ip = |address: &Address| match address {
            Address::Ip(ip) => Some(*ip),
            Address::Unix(_) => None,
        };
        CarriedServer {
            backend: self.shared.backend.to_string(),
            server: self.config.name.clone(),
            address: self.written.to_string(),
            since: age(self.since, now),
            admin_since: age(self.admin_since, now),
            came_up: self.slow_start.came_up().map(|since| age(since, now)),
            endpoints: self.endpoints.iter().map(endpoint).collect(),
            departed: self.departed.iter().filter_map(ip).collect(),
        }
    }

    /// `thresholds`: rise and fall, if the server is probed.
    fn restore(&mut self, carried: &CarriedServer, thresholds: Option<(u32, u32)>, now: Instant) {
        self.admin_since = time_of(carried.admin_since, now);
        self.departed = carried.departed.iter().map(|address| Address::Ip(*address)).collect();
        for endpoint in &mut self.endpoints {
            let address = endpoint.address().to_string();
            let Some(known) = carried.endpoints.iter().find(|known| known.address == address)
            else {
                continue;
            };
            if let Some((rise, fall)) = thresholds {
                endpoint.health =
                    Health::restored(rise, fall, known.up, known.decided, known.against);
                endpoint.shared.set_probe_passed(known.probe_passed);
            } else if let Some(down_for) = known.down_for.filter(|_| !known.up) {
                endpoint.failures.took_down(Some(now + Duration::from_millis(down_for)));
                endpoint.shared.set_probe_passed(false);
                endpoint.health.fail();
            }
        }
        self.since = time_of(carried.since, now);
        if let Some(age) = carried.came_up {
            self.slow_start.begin(time_of(age, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Config};
    use crate::control::cluster::{Answers, ProbeReport};
    use crate::shared::orders::ServerName;
    use crate::shared::snapshot::ProbeResult;
    use crate::sys::local_addresses::LocalAddresses;

    fn config() -> Config {
        let text = "[frontend.f]\nbind = [\"127.0.0.1:80\"]\nbackend = \"b\"\n\
                    [backend.b.health]\nfall = 2\nrise = 3\n\
                    [[backend.b.server]]\nname = \"s\"\naddress = \"127.0.0.1:81\"\n\
                    [[backend.b.server]]\nname = \"t\"\naddress = \"127.0.0.1:82\"\n";
        config::parse(text, "test").unwrap()
    }

    fn merged(carried: Option<&ClusterState>, now: Instant) -> Cluster {
        let mut cluster = Cluster::new(1);
        if let Some(carried) = carried {
            cluster.restore_orders(carried, now);
        }
        cluster.merge(&config(), Answers::new(), &LocalAddresses::now(), now);
        if let Some(carried) = carried {
            cluster.restore_health(carried, now);
        }
        cluster
    }

    fn probe(cluster: &mut Cluster, server: usize, passed: bool, now: Instant) -> bool {
        let task = cluster.probe_targets().nth(server).unwrap().task;
        let (detail, duration) = ("".into(), Duration::ZERO);
        let result = if passed { ProbeResult::Passed } else { ProbeResult::Refused };
        cluster.probed(ProbeReport { task, result, detail, duration, verdict: Some(passed) }, now)
    }

    #[test]
    fn health_orders_and_their_times_pass_through_json() {
        let now = Instant::now() + Duration::from_secs(100);
        let mut old = merged(None, now);
        // s is down, and one probe of the three that bring it up has passed.
        assert!(probe(&mut old, 0, false, now) && !probe(&mut old, 0, true, now));
        let t = ServerName { backend: "b".to_owned(), server: "t".to_owned() };
        old.set_state(&t, AdminState::Drain, now).unwrap();
        old.set_weight(&t, 7, now).unwrap();
        let later = now + Duration::from_secs(5);
        let text = serde_json::to_string(&old.carry(later)).unwrap();
        let carried: ClusterState = serde_json::from_str(&text).unwrap();
        let mut new = merged(Some(&carried), later);
        let statuses = new.server_statuses(later);
        let shown: Vec<_> = statuses.iter().map(|s| (s.up, s.admin, s.weight)).collect();
        assert_eq!(shown, [(false, AdminState::Ready, 100), (true, AdminState::Drain, 7)]);
        assert_eq!(statuses[0].since, Duration::from_secs(5));
        assert_eq!(statuses[1].admin_since, Duration::from_secs(5));
        assert!(!probe(&mut new, 0, true, later), "the second of three");
        assert!(probe(&mut new, 0, true, later), "the third brings it up");
    }
}
