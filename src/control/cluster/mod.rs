//! The state of every frontend, backend, server and endpoint: configured, set by the operator,
//! found by DNS and by probes. The table and the status are made from it.
//!
//! It has no socket and no clock: events come in with the time.

mod input;
mod change;
mod recent_failures;
mod endpoint;
mod registry;
mod recent_mean;
mod server;
mod slow_start;
mod backend;
mod build;
mod srv;
mod chains;
mod departed;
mod state;
mod downtime;
mod supply;
mod orders;
mod status;
mod explain;
mod carry;

pub use carry::ClusterState;
pub use change::{Change, ChangeKind, UpCount};
pub use input::{ADDRESSES_MAX, Answers, Bound, HostAddress, ProbeCheck, ProbeReport, ProbeTarget};
pub use srv::{RECORDS_MAX, Records, SrvRecord};
pub use state::Cluster;

#[cfg(test)]
mod tests;
