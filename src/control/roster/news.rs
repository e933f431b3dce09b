//! What changed in the books, in the words of the operator's log.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

#[cfg(doc)]
use crate::shared::schedule::Schedule;

/// Addresses that one rotation can name, by the 16 bits of [`Schedule::rotation`].
pub(super) const SERVERS_MAX: usize = 1 << 16;

/// Something that an operator wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Its backend.
    pub backend: Arc<str>,
    /// Its server; none: it is of the whole backend.
    pub server: Option<Arc<str>>,
    /// What happened.
    pub what: What,
}

/// What happened to a server or a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Enough probes in a row succeeded.
    Up {
        /// Of the last one.
        detail: String,
        /// Probes in a row.
        probes: u32,
    },
    /// Enough probes in a row failed.
    Down {
        /// Of the last one.
        detail: String,
        /// Probes in a row.
        probes: u32,
    },
    /// Its name has an address now.
    Resolved(SocketAddr),
    /// Its name has another address now: from, to.
    Moved(SocketAddr, SocketAddr),
    /// Its name leads back to a frontend of this balancer; that address is not used.
    Itself(SocketAddr),
    /// Its name has no address but those.
    LeadsNowhere,
    /// In the file that is now in force, and not in the one before; or one more address of a name.
    Added(Option<SocketAddr>),
    /// No longer in the file, or no longer an address of its name.
    Removed {
        /// Sessions that it still has; they live on.
        sessions: u32,
    },
    /// The last server that could be picked is gone.
    Empty {
        /// Whether all servers are used nevertheless (`all_down = "try"`).
        tried: bool,
    },
    /// A server can be picked again.
    Serving,
    /// More addresses than a rotation can name: how many those are that get no session.
    Crowded(usize),
}

impl News {
    /// Whether somebody should look.
    #[must_use]
    pub const fn is_bad(&self) -> bool {
        matches!(
            self.what,
            What::Down { .. }
                | What::Itself(_)
                | What::LeadsNowhere
                | What::Empty { .. }
                | What::Crowded(_)
        )
    }
}

impl fmt::Display for News {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.server {
            Some(server) => write!(out, "server {}/{server} ", self.backend)?,
            None => write!(out, "backend {} ", self.backend)?,
        }
        match &self.what {
            What::Up { detail, probes } => write!(out, "is up: {detail} ({probes} in a row)"),
            What::Down { detail, probes } => {
                write!(out, "is down: {detail} ({probes} of {probes} probes)")
            }
            What::Resolved(address) => write!(out, "has an address: {address}"),
            What::Moved(from, to) => write!(out, "moved from {from} to {to}"),
            What::Itself(address) => {
                write!(out, "is not used at {address}: that is a frontend of this balancer itself")
            }
            What::LeadsNowhere => write!(out, "is down: its name leads nowhere else"),
            What::Added(Some(address)) => write!(out, "is new, at {address}"),
            What::Added(None) => {
                write!(out, "is new, and down: its name has no address; it is asked for again")
            }
            What::Removed { sessions: 0 } => write!(out, "is removed"),
            What::Removed { sessions: 1 } => write!(out, "is removed; its session lives on"),
            What::Removed { sessions } => {
                write!(out, "is removed; its {sessions} sessions live on")
            }
            What::Empty { tried: false } => write!(out, "has no server left; clients are reset"),
            What::Empty { tried: true } => {
                write!(out, "has no server left; all are tried (all_down = \"try\")")
            }
            What::Crowded(left) => {
                write!(out, "has more than {SERVERS_MAX} addresses; ")?;
                write!(out, "the last {left} get no session: spread them over several backends")
            }
            What::Serving => write!(out, "has a server again"),
        }
    }
}
