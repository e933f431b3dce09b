//! Changes of the cluster state, as the application log reports them.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

#[cfg(doc)]
use crate::shared::schedule::Schedule;
use crate::sys::address::Address;

/// Endpoints that one rotation can hold, by the 16 bits of [`Schedule::rotation`].
pub(super) const ENDPOINTS_MAX: usize = 1 << 16;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The backend.
    pub backend: Arc<str>,
    /// The server; none: the whole backend.
    pub server: Option<Arc<str>>,
    /// What changed.
    pub kind: ChangeKind,
}

/// What changed about a server or a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// An endpoint went up or down.
    Health {
        /// Up, or down.
        up: bool,
        /// The last probe, with how many of them decided.
        reason: String,
        /// The endpoint, and how many endpoints of the server are up, if the server has several.
        endpoint: Option<(Address, UpCount)>,
    },
    /// The host name has an address for the first time.
    Resolved(Address),
    /// The only address of the host name was replaced: from, to.
    Moved(Address, Address),
    /// The host name has one more address.
    AddressAdded(Address),
    /// The host name has one address less.
    AddressRemoved(Address),
    /// The host name resolves to a frontend that leads back to the backend; that address is not
    /// used.
    LeadsBack {
        /// The address.
        address: Address,
        /// The frontend that listens there.
        frontend: Arc<str>,
    },
    /// The host name has only such addresses.
    OnlyLeadsBack,
    /// The host name has an address that no server has, and what it is ("a multicast address").
    NotAServer(IpAddr, &'static str),
    /// New in the configuration, or in an SRV name.
    Added {
        /// Its addresses.
        addresses: Vec<Address>,
        /// By a record of an SRV name, whose target is resolved next.
        supplied: bool,
    },
    /// No longer in the configuration.
    Removed {
        /// Sessions that it still has.
        sessions: u32,
    },
    /// The backend has no server to choose from any more.
    Empty {
        /// Whether all servers are used nevertheless (`all_down = "try"`).
        tried: bool,
    },
    /// The backend has a server to choose from again.
    Serving,
    /// The backend has more endpoints than a rotation can hold: how many get no session.
    TooManyEndpoints(usize),
}

/// How many servers, or endpoints of a server, are up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpCount {
    /// Up, whatever the operator set.
    pub up: usize,
    /// All.
    pub all: usize,
}

impl Change {
    /// Whether it is logged as a warning.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        matches!(
            self.kind,
            ChangeKind::Health { up: false, .. }
                | ChangeKind::LeadsBack { .. }
                | ChangeKind::OnlyLeadsBack
                | ChangeKind::NotAServer(..)
                | ChangeKind::Empty { .. }
                | ChangeKind::TooManyEndpoints(_)
        )
    }
}

impl fmt::Display for Change {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.server {
            Some(server) => write!(out, "server {}/{server} ", self.backend)?,
            None => write!(out, "backend {} ", self.backend)?,
        }
        match &self.kind {
            ChangeKind::Health { up, reason, endpoint } => {
                let state = if *up { "up" } else { "down" };
                match endpoint {
                    None => write!(out, "is {state}: {reason}"),
                    Some((address, UpCount { up, all })) => write!(
                        out,
                        "endpoint {} is {state}: {reason}; {up} of {all} endpoints up",
                        address
                    ),
                }
            }
            ChangeKind::Resolved(address) => write!(out, "has an address: {address}"),
            ChangeKind::Moved(from, to) => write!(out, "moved from {from} to {to}"),
            ChangeKind::AddressAdded(address) => write!(out, "has another address: {address}"),
            ChangeKind::AddressRemoved(address) => write!(out, "no longer has address {address}"),
            ChangeKind::LeadsBack { address, frontend } => write!(
                out,
                "is not used at {address}: that is frontend {frontend}, which leads back to \
                 backend {}; correct what the host name resolves to, or the address of the server",
                self.backend
            ),
            ChangeKind::OnlyLeadsBack => write!(
                out,
                "is down: every address of the host name leads back to backend {}; correct what it \
                 resolves to",
                self.backend
            ),
            ChangeKind::NotAServer(address, what) => write!(
                out,
                "is not used at {address}, {what}, which no server has; correct what the host \
                 name resolves to (a DNS filter may block it)"
            ),
            ChangeKind::Added { addresses, supplied: true } if addresses.is_empty() => {
                write!(out, "is new; its host name is resolved next")
            }
            ChangeKind::Added { addresses, .. } if addresses.is_empty() => {
                write!(
                    out,
                    "is new, and down: the host name has no usable address; it is resolved again"
                )
            }
            ChangeKind::Added { addresses, .. } => {
                let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                write!(out, "is new, at {}", addresses.join(", "))
            }
            ChangeKind::Removed { sessions: 0 } => write!(out, "is removed"),
            ChangeKind::Removed { sessions: 1 } => write!(out, "is removed; its session continues"),
            ChangeKind::Removed { sessions } => {
                write!(out, "is removed; its {sessions} sessions continue")
            }
            ChangeKind::Empty { tried: false } => {
                write!(out, "has no server left; client connections are reset")
            }
            ChangeKind::Empty { tried: true } => {
                write!(out, "has no server left; all are tried (all_down = \"try\")")
            }
            ChangeKind::TooManyEndpoints(left) => {
                write!(out, "has more than {ENDPOINTS_MAX} endpoints; ")?;
                write!(out, "the last {left} get no session: use several backends")
            }
            ChangeKind::Serving => write!(out, "has a server again"),
        }
    }
}
