//! The messages between an old process and a new one.

use serde::{Deserialize, Serialize};

/// Of the messages before the state, and of their order.
pub(super) const PROTOCOL: u32 = 1;

/// The longest offer, in bytes: about 70,000 sockets.
pub(super) const OFFER_MAX: usize = 4 << 20;

/// The longest report, in bytes: the indices of as many sockets, or the problems of a file.
pub(super) const REPORT_MAX: usize = 1 << 20;

/// The longest state and totals, in bytes: 10,000 servers have about 5 MiB.
pub(super) const STATE_MAX: usize = 64 << 20;

/// What an old process offers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Offer {
    pub(super) protocol: u32,
    /// Its process id.
    pub(super) pid: u32,
    pub(super) version: String,
    /// In the order of their descriptors.
    pub(super) sockets: Vec<Offered>,
}

/// The use of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// `frontend.F.bind`
    Frontend,
    /// `observe.bind`
    Observe,
    /// `observe.control`
    Control,
    /// The counters of an earlier process.
    Earlier,
}

/// A socket that is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// Its use in the old process.
    pub role: Role,
    /// Device and inode of the file of a unix socket that the old process has created.
    pub file: Option<(u64, u64)>,
}

/// What a new process answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Report {
    /// Nothing can fail any more.
    Ready {
        version: String,
        /// The indices of sockets that it will not use: the old process drains their backlogs.
        unused: Vec<usize>,
    },
    /// It does not start, and why.
    Failed(String),
}
