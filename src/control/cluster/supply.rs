//! SRV names: what their records do to the servers of backends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use crate::config::BackendSettings;
use crate::control::cluster::backend::Update;
use crate::control::cluster::chains;
use crate::control::cluster::server::ServerState;
use crate::control::cluster::srv::{Records, SrvRecord};
use crate::control::cluster::state::Cluster;
use crate::control::health::ProbeTaskId;
use crate::sys::local_addresses::LocalAddresses;
use crate::terms::EndpointId;

impl Cluster {
    /// Adds records of SRV names that had none yet: the next merge uses them.
    pub fn add_records(&mut self, records: Records) {
        for (name, found) in records {
            // An answer that has come since these were asked for is newer.
            self.records.entry(name).or_insert(found);
        }
    }

    /// DNS has answered for an SRV name. Servers whose records stay keep everything; the sessions
    /// of those that leave continue. Without any record, the last good answer holds. Returns
    /// whether that changed anything.
    pub fn supplied(
        &mut self,
        name: &str,
        found: Vec<SrvRecord>,
        local: &LocalAddresses,
        now: Instant,
    ) -> bool {
        if found.is_empty() || self.has_records(name, &found) {
            return false;
        }
        self.records.insert(name.to_owned(), found);
        let Self { frontends, backends, answers, records, overrides, registry, changes, .. } = self;
        let served = frontends.iter().map(|frontend| &frontend.config);
        let configured: Vec<Arc<BackendSettings>> =
            backends.iter().map(|backend| Arc::clone(&backend.config)).collect();
        let chains = chains::find(served, &configured, local, (answers, records), backends);
        let mut update =
            Update { answers, records, chains: &chains, overrides, registry, changes, now };
        let supplied = configured.iter().zip(backends);
        for (config, backend) in supplied.filter(|(config, _)| config.srv.as_deref() == Some(name))
        {
            backend.update(config, &mut update);
        }
        self.forget_names();
        self.find_tasks();
        true
    }

    /// Forgets the answers for names that no server has any more.
    pub(super) fn forget_names(&mut self) {
        let hosts: BTreeSet<String> = self.hosts().map(str::to_owned).collect();
        self.answers.retain(|host, _| hosts.contains(host));
        let names: BTreeSet<String> = self.srv_names().map(str::to_owned).collect();
        self.records.retain(|name, _| names.contains(name));
    }

    /// SRV names of backends, each once or more.
    pub fn srv_names(&self) -> impl Iterator<Item = &str> {
        self.backends.iter().filter_map(|backend| backend.config.srv.as_deref())
    }

    /// Whether DNS has ever answered for that SRV name.
    #[must_use]
    pub fn knows_srv(&self, name: &str) -> bool {
        self.records.contains_key(name)
    }

    /// SRV names for which DNS has never had a usable record, each once.
    #[must_use]
    pub fn without_records(&self) -> Vec<String> {
        let names: BTreeSet<&str> = self.srv_names().filter(|name| !self.knows_srv(name)).collect();
        names.into_iter().map(str::to_owned).collect()
    }

    /// Whether these are the records that the SRV name has.
    #[must_use]
    pub fn has_records(&self, name: &str, records: &[SrvRecord]) -> bool {
        self.records.get(name).is_some_and(|known| known == records)
    }

    /// The addresses of the servers that an SRV name supplies, at least one for each.
    #[must_use]
    pub fn srv_address_count(&self, name: &str) -> usize {
        let records = self.records.get(name).into_iter().flatten();
        records.map(|record| self.address_count(&record.target).max(1)).sum()
    }

    /// The host name of a server, and the SRV name that supplies it: what may have changed in DNS
    /// when the server fails.
    #[must_use]
    pub fn names_of(&self, id: EndpointId) -> [Option<&str>; 2] {
        self.place_of(id).map_or([None, None], |place| self.names_at(place))
    }

    /// The same, of the endpoint that a task probes.
    #[must_use]
    pub fn names_of_probed(&self, task: ProbeTaskId) -> [Option<&str>; 2] {
        self.tasks.get(&task).map_or([None, None], |place| self.names_at(*place))
    }

    fn names_at(&self, (backend, server, _): (usize, usize, usize)) -> [Option<&str>; 2] {
        let backend = &self.backends[backend];
        let (server, srv) = (&backend.servers[server], backend.config.srv.as_deref());
        [server.host(), srv.filter(|_| server.config.srv_rank.is_some())]
    }

    /// The names by which backends without a server to choose from may get one: host names, and
    /// SRV names.
    #[must_use]
    pub fn names_of_empty(&self) -> (BTreeSet<&str>, BTreeSet<&str>) {
        let empty = || self.backends.iter().filter(|backend| backend.empty);
        let hosts = empty().flat_map(|backend| &backend.servers).filter_map(ServerState::host);
        (hosts.collect(), empty().filter_map(|backend| backend.config.srv.as_deref()).collect())
    }
}
