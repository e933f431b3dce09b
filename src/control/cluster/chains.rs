//! Which addresses of host names are used, and which would close a cycle of frontends: the rule is
//! that of [`Chains`], and the order of the names is decided here.

use std::collections::HashSet;
use std::sync::Arc;

use crate::config::{BackendSettings, Chains, FrontendSettings};
use crate::control::cluster::backend::BackendState;
use crate::control::cluster::input::{Answers, answered};
use crate::control::cluster::srv::{self, Records};
use crate::sys::address::Address;
use crate::sys::local_addresses::LocalAddresses;

/// The chains of a configuration, with the addresses of its host names: first those that are in
/// use, then the others, each in the order of the configuration. So of two names that form a cycle
/// together, the one that was resolved first is used.
pub(super) fn find<'a, 'b>(
    frontends: impl IntoIterator<Item = &'a Arc<FrontendSettings>>,
    backends: impl IntoIterator<Item = &'b Arc<BackendSettings>> + Clone,
    local: &'a LocalAddresses,
    (answers, records): (&Answers, &Records),
    before: &[BackendState],
) -> Chains<'a> {
    let mut chains = Chains::new(frontends, backends.clone(), local);
    let mut found: Vec<(&str, Address)> = Vec::new();
    for backend in backends {
        let servers = srv::servers(backend, records);
        let addresses = servers.iter().flat_map(|server| answered(&server.address, answers));
        let of_frontends =
            addresses.filter(|address| chains.reached(&backend.name, address).is_some());
        found.extend(of_frontends.map(|address| (&*backend.name, address)));
    }
    if found.len() > 1 {
        let in_use: HashSet<(&str, &Address)> =
            before.iter().flat_map(BackendState::addresses).collect();
        // The sort is stable, and false comes before true.
        found.sort_by_key(|(backend, address)| !in_use.contains(&(*backend, address)));
    }
    for (backend, address) in found {
        chains.add(backend, &address);
    }
    chains
}
