//! The servers that the records of an SRV name supply (RFC 2782).

use std::collections::{BTreeMap, HashSet};

use crate::config::{BackendSettings, Server, ServerAddress};
use crate::shared::maglev;

/// Records of one name that are used. Each is a server, with the counters of one.
pub const RECORDS_MAX: usize = 1024;

/// Records by SRV name, from DNS. A name without an answer is not in it.
pub type Records = BTreeMap<String, Vec<SrvRecord>>;

/// One SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SrvRecord {
    /// The host name, in lower case, with the dot at its end.
    pub target: String,
    /// 1-65535
    pub port: u16,
    /// Lower is used first.
    pub priority: u16,
    /// Its share of the sessions of its priority.
    pub weight: u16,
}

/// The longest name of a server, as for those in the file.
const NAME_MAX: usize = 64;

/// The characters of a longer target that a name keeps before the hash: with the hash, a port and
/// two separators it has 64.
const TARGET_KEPT: usize = 41;

/// The largest weight of a server.
const WEIGHT_MAX: u32 = 1000;

/// The weight of each server if all records have weight 0 ("there isn't any server selection to
/// do"): the default of a server.
const WEIGHT_EQUAL: u32 = 100;

/// The servers of a backend: those of the file, then those of its SRV name by priority.
pub(super) fn servers(backend: &BackendSettings, records: &Records) -> Vec<Server> {
    let mut servers = backend.servers.clone();
    if let Some(found) = backend.srv.as_ref().and_then(|name| records.get(name)) {
        servers.extend(supplied(&backend.servers, found));
    }
    servers
}

/// The servers of `records`, without those that are `listed` in the file with other settings.
fn supplied(listed: &[Server], records: &[SrvRecord]) -> Vec<Server> {
    let mut names: HashSet<String> = listed.iter().map(|server| server.name.clone()).collect();
    let known: HashSet<String> = listed.iter().map(|server| server.address.to_string()).collect();
    let mut records: Vec<&SrvRecord> = records.iter().collect();
    records.sort_by_key(|record| record.priority);
    let mut servers = Vec::new();
    for (rank, group) in (0..).zip(records.chunk_by(|a, b| a.priority == b.priority)) {
        let weights = Weights::of(group);
        for record in group {
            let SrvRecord { target, port, weight, .. } = record;
            let address = ServerAddress::Name { host: target.clone(), port: *port };
            if known.contains(&address.to_string()) {
                continue;
            }
            let Some(name) = name(record, &mut names) else { continue };
            servers.push(Server {
                name,
                address,
                weight: weights.of_server(*weight),
                backup: rank > 0,
                srv_rank: Some(rank),
                ..Server::default()
            });
        }
    }
    servers
}

/// The weights of the records of one priority.
struct Weights {
    most: u16,
    has_zero: bool,
}

impl Weights {
    fn of(group: &[&SrvRecord]) -> Self {
        let weights = || group.iter().map(|record| record.weight);
        Self { most: weights().max().unwrap_or(0), has_zero: weights().any(|weight| weight == 0) }
    }

    /// As in the record. Beside other records, weight 0 has "a very small chance of being
    /// selected": there, and above 1000, weights are scaled so that the largest is 1000.
    fn of_server(&self, weight: u16) -> u32 {
        let (most, weight) = (u32::from(self.most), u32::from(weight));
        match (most, weight) {
            (0, _) => WEIGHT_EQUAL,
            (_, 0) => 1,
            (..=WEIGHT_MAX, _) if !self.has_zero => weight,
            _ => (weight * WEIGHT_MAX / most).max(1),
        }
    }
}

/// "web-0.example:80", shortened with a hash if that is too long or `taken`. The same record has
/// the same name in every answer.
fn name(record: &SrvRecord, taken: &mut HashSet<String>) -> Option<String> {
    let SrvRecord { target, port, .. } = record;
    let target = target.trim_end_matches('.');
    let kept = &target[..target.len().min(TARGET_KEPT)];
    let hash = maglev::hash(target, &port.to_string());
    let names = [format!("{target}:{port}"), format!("{kept}~{hash:016x}:{port}")];
    names.into_iter().find(|name| name.len() <= NAME_MAX && taken.insert(name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(target: &str, port: u16, priority: u16, weight: u16) -> SrvRecord {
        SrvRecord { target: target.to_owned(), port, priority, weight }
    }

    fn of(records: &[SrvRecord]) -> Vec<(String, u32, bool)> {
        let servers = supplied(&[], records).into_iter();
        servers.map(|server| (server.name, server.weight, server.backup)).collect()
    }

    #[test]
    fn higher_priorities_are_backups() {
        let records = [record("b.x.", 80, 20, 1), record("a.x.", 80, 10, 5)];
        let expected = [("a.x:80".to_owned(), 5, false), ("b.x:80".to_owned(), 1, true)];
        assert_eq!(of(&records), expected);
    }

    #[test]
    fn weights_are_kept_or_scaled() {
        let weights = |of: &[u16]| -> Vec<u32> {
            let records: Vec<_> =
                (1..).zip(of).map(|(port, weight)| record("a.", port, 1, *weight)).collect();
            supplied(&[], &records).iter().map(|server| server.weight).collect()
        };
        assert_eq!(weights(&[0, 0]), [100, 100]);
        assert_eq!(weights(&[1, 33, 1000]), [1, 33, 1000]);
        assert_eq!(weights(&[1, 0, 2]), [500, 1, 1000]);
        assert_eq!(weights(&[65535, 30000, 1]), [1000, 457, 1]);
    }

    #[test]
    fn names_are_short_unique_and_the_same_in_any_order() {
        let long = format!("{}.web.default.svc.cluster.local.", "p".repeat(60));
        let other = format!("{}q.web.default.svc.cluster.local.", "p".repeat(60));
        let mut records = vec![record(&long, 80, 1, 1), record(&other, 80, 1, 1)];
        records.push(record(&long, 65535, 1, 1));
        let names = |records: &[SrvRecord]| {
            let mut names: Vec<String> = of(records).into_iter().map(|(name, ..)| name).collect();
            names.sort_unstable();
            names
        };
        let found = names(&records);
        assert!(found.iter().all(|name| name.len() <= NAME_MAX), "{found:?}");
        assert_eq!(found.iter().collect::<HashSet<_>>().len(), 3, "{found:?}");
        records.reverse();
        assert_eq!(names(&records), found);
    }

    #[test]
    fn a_server_of_the_file_takes_precedence() {
        let address = ServerAddress::Name { host: "a.x".to_owned(), port: 80 };
        let listed = [
            Server { name: "one".to_owned(), address, ..Server::default() },
            Server { name: "a.x:81".to_owned(), ..Server::default() },
        ];
        let records = [record("a.x.", 80, 1, 1), record("a.x.", 81, 1, 1)];
        let names: Vec<_> = supplied(&listed, &records).into_iter().map(|one| one.name).collect();
        assert!(names.len() == 1 && names[0].starts_with("a.x~"), "{names:?}");
    }
}
