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

fn retries(backend: &str) -> String {
    format!("retries/{backend}")
}

fn probe_durations(backend: &str) -> String {
    format!("probe_durations/{backend}")
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
        let object = retries(&backend.name);
        backend.cells.retries.cells().for_each(|cell| totals.add_cell(&object, cell));
        let object = probe_durations(&backend.name);
        backend.cells.probe_duration.cells().for_each(|cell| totals.add_cell(&object, cell));
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
        totals.write(&retries(&backend.name), backend.cells.retries.carried());
        totals.write(&probe_durations(&backend.name), backend.cells.probe_duration.carried());
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::config;
    use crate::control::cluster::Answers;
    use crate::shared::counters::HistogramSum;
    use crate::shared::phase::PhaseCell;
    use crate::shared::table::Table;
    use crate::sys::local_addresses::LocalAddresses;
    use crate::sys::waker::Waker;
    use crate::terms::{ConnectFailure, WorkerIndex};

    fn cluster() -> Cluster {
        let text = "[frontend.f]\nbind = [\"127.0.0.1:80\"]\nbackend = \"b\"\n\
                    [[backend.b.server]]\nname = \"s\"\naddress = \"127.0.0.1:81\"\n";
        let mut cluster = Cluster::new(1);
        let config = config::parse(text, "test").unwrap();
        cluster.merge(&config, Answers::new(), &LocalAddresses::now(), Instant::now());
        cluster
    }

    fn shared() -> SharedState {
        let table = Table { version: 1, ..Table::default() };
        let (events, _nobody) = crossbeam::channel::unbounded();
        let phase = PhaseCell::new(Instant::now());
        SharedState::new(table, phase, 1, events, None, vec![Waker::new().unwrap()])
    }

    #[test]
    fn retries_and_probe_durations_of_a_backend_are_carried() {
        let (old, new, shared) = (cluster(), cluster(), shared());
        let cells = &old.backend_statuses()[0].cells;
        cells.retries.of(WorkerIndex(0))[ConnectFailure::Refused as usize].add(3);
        cells.probe_duration.of(WorkerIndex(0)).record(Duration::from_millis(2));
        apply(&collect(&old, &shared), &new, &shared);
        let cells = &new.backend_statuses()[0].cells;
        let retries = |failure| cells.retries.sum(|cell| cell[failure as usize].read());
        assert_eq!((retries(ConnectFailure::Refused), retries(ConnectFailure::Timeout)), (3, 0));
        let durations: HistogramSum = cells.probe_duration.all().sum();
        assert_eq!((durations.count(), durations.micros), (1, 2000));
        assert_eq!(collect(&new, &shared), collect(&cluster(), &shared), "it counts its own only");
    }
}
