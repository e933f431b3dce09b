//! A server, as the table has it, and what it keeps from one table to the next.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use crate::shared::counters::{PerWorker, ServerCell};
use crate::shared::limit::Limit;
use crate::terms::ServerId;

/// A server in force.
#[derive(Debug)]
pub struct Server {
    /// Where to connect.
    pub address: SocketAddr,
    /// What outlives a table.
    pub shared: Arc<ServerShared>,
    /// Whether its kernel sends timestamps (RFC 7323), as it did when a worker first looked.
    pub timestamps: OnceLock<bool>,
}

impl Server {
    /// Nothing is known of its kernel yet.
    #[must_use]
    pub const fn new(address: SocketAddr, shared: Arc<ServerShared>) -> Self {
        Self { address, shared, timestamps: OnceLock::new() }
    }
}

/// What a server keeps from one table to the next, also when its address changes.
#[derive(Debug)]
pub struct ServerShared {
    /// Never given to another server.
    pub id: ServerId,
    /// Its backend's name.
    pub backend: Arc<str>,
    /// Its name (`name#2` for the second address of a host name).
    pub name: Arc<str>,
    /// `sessions_max` of this server.
    pub sessions: Limit,
    /// Counters.
    pub cells: PerWorker<ServerCell>,
}
