//! The servers of the table and their endpoints: what both keep from one table to the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::shared::counters::{BackendCells, HistogramSum, PerWorker, ServerCell};
use crate::shared::limit::Limit;
use crate::shared::load::Load;
use crate::shared::queue::Queue;
use crate::sys::address::Address;
use crate::terms::{EndpointId, ServerId};

/// An endpoint: one address of a server. The same value is in every table for as long as the
/// server has the address.
#[derive(Debug)]
pub struct Endpoint {
    /// Never given to another endpoint.
    pub id: EndpointId,
    /// Where to connect.
    pub address: Address,
    /// Its server.
    pub shared: Arc<ServerShared>,
    /// Sessions that hold this endpoint.
    pub load: Load,
    /// Whether its last probe passed, or it is not probed. The control thread writes it.
    probe_passed: AtomicBool,
}

impl Endpoint {
    /// An endpoint that was not probed yet.
    #[must_use]
    pub fn new(
        id: EndpointId,
        address: impl Into<Address>,
        shared: Arc<ServerShared>,
        load: Load,
    ) -> Self {
        let address = address.into();
        Self { id, address, shared, load, probe_passed: AtomicBool::new(false) }
    }

    /// Whether its last probe passed, or it is not probed.
    #[must_use]
    pub fn probe_passed(&self) -> bool {
        self.probe_passed.load(Ordering::Relaxed)
    }

    /// Sets [`Endpoint::probe_passed`].
    pub fn set_probe_passed(&self, passed: bool) {
        self.probe_passed.store(passed, Ordering::Relaxed);
    }
}

/// A server, whatever its endpoints are.
#[derive(Debug)]
pub struct ServerShared {
    /// Never given to another server.
    pub id: ServerId,
    /// Its backend's name.
    pub backend: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// `sessions_max` of this server, for all its endpoints.
    pub sessions: Limit,
    /// Counters.
    pub cells: PerWorker<ServerCell>,
    /// Those of its backend.
    pub backend_cells: Arc<BackendCells>,
    /// The queue of its backend.
    pub queue: Arc<Queue>,
}

impl ServerShared {
    /// How long connects of this process have taken, at all workers.
    #[must_use]
    pub fn own_connect_durations(&self) -> HistogramSum {
        self.cells.cells().map(|cell| &cell.connect_duration).sum()
    }

    /// How long connects have taken, at all workers and in the processes before this one.
    #[must_use]
    pub fn connect_durations(&self) -> HistogramSum {
        self.cells.all().map(|cell| &cell.connect_duration).sum()
    }
}
