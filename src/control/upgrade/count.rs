//! The counters of this process as totals, and totals of others as counters that are carried.

use crate::control::cluster::Cluster;
use crate::shared::records::Records;
use crate::shared::state::SharedState;
use crate::shared::totals::{Counts, Totals, frontend, worker};

/// The object of what the process counts itself.
const PROCESS: &str = "process";
const UNWRITTEN: &str = "log.unwritten";

fn server(backend: &str, name: &str) -> String {
    format!("server/{backend}/{name}")
}

fn probes(backend: &str, name: &str) -> String {
    format!("probes/{backend}/{name}")
}

fn queue(backend: &str) -> String {
    format!("queue/{backend}")
}

/// What this process has counted itself, without what it carries.
#[must_use]
pub fn collect(cluster: &Cluster, shared: &SharedState) -> Totals {
    let mut totals = Totals::default();
    for status in cluster.frontend_statuses() {
        let object = frontend(&status.name);
        status.shared.cells.cells().for_each(|cell| totals.add_cell(&object, cell));
    }
    for backend in cluster.backend_statuses() {
        let object = queue(&backend.name);
        backend.queue.waits.cells().for_each(|cell| totals.add_cell(&object, cell));
    }
    for (shared, counts) in cluster.server_counters() {
        let object = server(&shared.backend, &shared.name);
        // As in a scrape: of a removed server whose name is used again, only active sessions.
        if totals.has(&object) {
            let active = shared.cells.cells().fold(0, |sum, cell| sum + cell.active.read());
            totals.add(&object, &Counts::from([("active".to_owned(), active)]));
            continue;
        }
        shared.cells.cells().for_each(|cell| totals.add_cell(&object, cell));
        let object = probes(&shared.backend, &shared.name);
        counts.cells().for_each(|cell| totals.add_cell(&object, cell));
    }
    for (index, cell) in shared.cells.cells().enumerate() {
        totals.add_cell(&worker(index), cell);
    }
    let unwritten = shared.records.as_ref().map_or(0, Records::unwritten);
    totals.add(PROCESS, &Counts::from([(UNWRITTEN.to_owned(), unwritten)]));
    totals
}

/// Carries the totals of the processes before this one. What the configuration does not name is
/// left out, as after a reload.
pub fn apply(totals: &Totals, cluster: &Cluster, shared: &SharedState) {
    for status in cluster.frontend_statuses() {
        totals.write(&frontend(&status.name), status.shared.cells.carried());
    }
    for backend in cluster.backend_statuses() {
        totals.write(&queue(&backend.name), backend.queue.waits.carried());
    }
    let mut written = std::collections::HashSet::new();
    for (shared, counts) in cluster.server_counters() {
        let object = server(&shared.backend, &shared.name);
        if written.insert(object.clone()) {
            totals.write(&object, shared.cells.carried());
            totals.write(&probes(&shared.backend, &shared.name), counts.carried());
        }
    }
    for (index, cell) in shared.carried.workers.cells().enumerate() {
        totals.write(&worker(index), cell);
    }
    shared.carried.unwritten.set(totals.count(PROCESS, UNWRITTEN));
}
