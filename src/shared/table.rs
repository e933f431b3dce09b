//! The table: the state in force that workers read, whole and immutable.
//!
//! What must outlive a table (counters, the position in the rotation, listening sockets) is held
//! by `Arc` and handed from one table to the next.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crossbeam::utils::CachePadded;

use crate::config::{BackendSettings, FrontendSettings};
use crate::shared::counters::{FrontendCell, PerWorker};
use crate::shared::limit::Limit;
use crate::shared::schedule::Schedule;

/// The state in force.
#[derive(Debug)]
pub struct Table {
    /// Grows by one with each table of the process.
    pub version: u64,
    /// Where clients connect.
    pub frontends: Vec<Arc<Frontend>>,
    /// What is listened on, and for whom. Not in the frontend: sessions hold that, and a socket
    /// must not live as long as they do.
    pub listeners: Vec<(Arc<Listener>, Arc<Frontend>)>,
}

/// A frontend in force. A session holds the one that it came by until it is connected.
#[derive(Debug)]
pub struct Frontend {
    /// As configured.
    pub settings: Arc<FrontendSettings>,
    /// Who serves its clients.
    pub backend: Arc<Backend>,
    /// What outlives a table.
    pub shared: Arc<FrontendShared>,
}

/// What a frontend keeps from one table to the next.
#[derive(Debug)]
pub struct FrontendShared {
    /// `sessions_max` of this frontend.
    pub sessions: Limit,
    /// Counters.
    pub cells: PerWorker<FrontendCell>,
}

/// One address that a frontend listens on: a SO_REUSEPORT socket a worker, all bound to it.
#[derive(Debug)]
pub struct Listener {
    /// The address.
    pub address: SocketAddr,
    /// Listening sockets, blocking mode, by worker.
    pub sockets: Vec<OwnedFd>,
}

/// A backend in force.
#[derive(Debug)]
pub struct Backend {
    /// As configured.
    pub settings: Arc<BackendSettings>,
    /// Those that may be picked now, and in which order.
    pub schedule: Schedule,
    /// The place in the rotation; outlives the table, and is shared by all workers, so that the
    /// rotation is exact.
    pub turn: Arc<CachePadded<AtomicUsize>>,
}
