//! The servers of the table and their endpoints: what both keep from one table to the next.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::shared::counters::{PerWorker, ServerCell};
use crate::shared::limit::Limit;
use crate::terms::{EndpointId, ServerId};

/// An endpoint: one address of a server. The same value is in every table for as long as the
/// server has the address.
#[derive(Debug)]
pub struct Endpoint {
    /// Never given to another endpoint.
    pub id: EndpointId,
    /// Where to connect.
    pub address: SocketAddr,
    /// Its server.
    pub shared: Arc<ServerShared>,
    /// Sessions that hold this endpoint, without a maximum of its own.
    pub sessions: Limit,
    /// Whether its last probe passed, or it is not probed. The control thread writes it.
    probe_passed: AtomicBool,
}

impl Endpoint {
    /// An endpoint that was not probed yet.
    #[must_use]
    pub fn new(id: EndpointId, address: SocketAddr, shared: Arc<ServerShared>) -> Self {
        Self {
            id,
            address,
            shared,
            sessions: Limit::new(None),
            probe_passed: AtomicBool::new(false),
        }
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
}
