//! The state of upgrades in the control thread.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::control::controller::requester::Requester;
use crate::control::upgrade::{Offered, Predecessor, Program, Publisher, Role};
use crate::shared::table::Listener;
use crate::shared::totals::Totals;

/// A socket of `observe.bind` or `observe.control`, to be passed on.
#[derive(Debug)]
pub struct Observed {
    /// How it is offered.
    pub offered: Offered,
    /// A copy of its descriptor.
    pub socket: Arc<OwnedFd>,
}

/// The state of upgrades.
#[derive(Debug)]
pub(super) struct Upgrading {
    /// What is started; none: /proc was not there at the start.
    pub(super) program: Option<Program>,
    pub(super) observed: Vec<Observed>,
    /// Upgrades that led to this process.
    pub(super) done: u64,
    /// Upgrades that changed nothing.
    pub(super) failed: u64,
    pub(super) running: Option<Running>,
    /// An upgrade that begins when the reload under way has ended.
    pub(super) next: Option<Requester>,
    /// Processes before this one that may have sessions.
    pub(super) earlier: Vec<Predecessor>,
    /// The counters of those that have ended.
    pub(super) ended: Totals,
    /// To the process that has replaced this one.
    pub(super) publisher: Option<Publisher>,
    /// A signal to end has come since.
    pub(super) asked_to_end: bool,
}

impl Upgrading {
    /// Whether a new process starts, or has replaced this one.
    pub(super) const fn is_handing_over(&self) -> bool {
        self.running.is_some() || self.publisher.is_some()
    }
}

/// An upgrade that has begun.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) requester: Requester,
    /// Its shutdown ends the wait for the new process.
    pub(super) stream: UnixStream,
    pub(super) offered: Vec<OfferedSocket>,
    /// SIGHUP has come meanwhile: the process that is in charge afterwards reloads.
    pub(super) reload: bool,
}

/// A socket of the offer, in its order.
#[derive(Debug)]
pub(super) struct OfferedSocket {
    pub(super) role: Role,
    /// Of a frontend's.
    pub(super) listener: Option<Arc<Listener>>,
}
