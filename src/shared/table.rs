//! The table: the state in force that workers read, whole and immutable.
//!
//! What must outlive a table (counters, the position in the rotation, listening sockets) is held
//! by `Arc` and handed from one table to the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::utils::CachePadded;

use crate::config::{BackendSettings, FrontendSettings, ProxyProtocol};
use crate::shared::clients::Clients;
use crate::shared::counters::{FrontendCell, PerWorker};
use crate::shared::limit::Limit;
pub use crate::shared::listener::Listener;
use crate::shared::queue::Queue;
use crate::shared::rate::Bucket;
use crate::shared::routes::{ClientHello, Routes};
use crate::shared::schedule::Schedule;

/// The state in force.
#[derive(Debug, Default)]
pub struct Table {
    /// Grows by one with each table of the process.
    pub version: u64,
    /// Where clients connect.
    pub frontends: Vec<Arc<Frontend>>,
    /// The listeners, and their frontends. A session holds its frontend, and must not keep a
    /// listening socket open.
    pub listeners: Vec<(Arc<Listener>, Arc<Frontend>)>,
    /// Listeners that reloads have removed, and the frontends that they had, until every worker has
    /// closed its sockets. A worker may not have read a table that had them.
    pub removed: Vec<(Arc<Listener>, Arc<Frontend>)>,
}

/// A frontend in force. A session holds it until it is connected.
#[derive(Debug)]
pub struct Frontend {
    /// As configured.
    pub settings: Arc<FrontendSettings>,
    /// The backend of what no route leads elsewhere; none: such a connection is reset.
    pub backend: Option<Arc<Backend>>,
    /// The backends that a `ClientHello` can lead to; none: it is not read.
    pub routes: Option<Routes<Arc<Backend>>>,
    /// Kept from one table to the next.
    pub shared: Arc<FrontendShared>,
}

impl Frontend {
    /// Whether something is read from a client before its backend is known.
    #[must_use]
    pub fn reads_preface(&self) -> bool {
        self.routes.is_some() || self.settings.proxy_protocol == ProxyProtocol::Required
    }

    /// The backend of a client, by its `ClientHello` if that was read.
    #[must_use]
    pub fn backend_of(&self, hello: Option<&ClientHello>) -> Option<&Arc<Backend>> {
        let routed = self.routes.as_ref().zip(hello).and_then(|(routes, hello)| routes.find(hello));
        routed.or(self.backend.as_ref())
    }

    /// Every backend, some more than once.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.backend.iter().chain(self.routes.iter().flat_map(Routes::backends))
    }
}

/// What a frontend keeps from one table to the next.
#[derive(Debug)]
pub struct FrontendShared {
    /// Its name.
    pub name: Arc<str>,
    /// `sessions_max` of this frontend.
    pub sessions: Limit,
    /// Counters.
    pub cells: PerWorker<FrontendCell>,
    /// `rate.sessions` of this frontend.
    pub rate: Bucket,
    /// What is counted for each client.
    pub clients: Clients,
}

impl FrontendShared {
    /// Nothing is counted yet.
    #[must_use]
    pub fn new(name: Arc<str>, sessions_max: Option<u32>, workers: usize) -> Self {
        Self {
            name,
            sessions: Limit::new(sessions_max),
            cells: PerWorker::new(workers),
            rate: Bucket::default(),
            clients: Clients::default(),
        }
    }
}

/// A backend in force.
#[derive(Debug)]
pub struct Backend {
    /// As configured.
    pub settings: Arc<BackendSettings>,
    /// The endpoints that can be chosen, and their rotation.
    pub schedule: Schedule,
    /// Sessions that wait while every server is full; kept from one table to the next.
    pub queue: Arc<Queue>,
    /// The position in the rotation. It is kept from one table to the next, and all workers share
    /// it, so that the rotation is exact.
    pub turn: Arc<CachePadded<AtomicUsize>>,
    /// Added to it, so that the rotation of this table begins where the one before was.
    pub turn_offset: usize,
}

impl Backend {
    /// Takes the next turn of the rotation; it may be above its length.
    #[must_use]
    pub fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed).wrapping_add(self.turn_offset)
    }

    /// Takes further turns.
    pub fn skip_turns(&self, turns: usize) {
        self.turn.fetch_add(turns, Ordering::Relaxed);
    }

    /// The turn that [`Backend::next_turn`] takes next.
    #[must_use]
    pub fn turn(&self) -> usize {
        self.turn.load(Ordering::Relaxed).wrapping_add(self.turn_offset)
    }
}
