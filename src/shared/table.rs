//! The table: the state in force that workers read, whole and immutable.
//!
//! What must outlive a table (counters, the position in the rotation, listening sockets) is held
//! by `Arc` and handed from one table to the next.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam::utils::CachePadded;

use crate::config::{BackendSettings, FrontendSettings, ProxyProtocol};
use crate::shared::clients::Clients;
use crate::shared::counters::{FrontendCell, PerWorker};
use crate::shared::limit::Limit;
use crate::shared::queue::Queue;
use crate::shared::rate::Bucket;
use crate::shared::routes::{ClientHello, Routes};
use crate::shared::schedule::Schedule;
use crate::sys::address::Address;
use crate::sys::socket_file::SocketFile;
use crate::terms::WorkerIndex;

/// The state in force.
#[derive(Debug)]
pub struct Table {
    /// Grows by one with each table of the process.
    pub version: u64,
    /// Where clients connect.
    pub frontends: Vec<Arc<Frontend>>,
    /// The listeners, and their frontends. A session holds its frontend, and must not keep a
    /// listening socket open.
    pub listeners: Vec<(Arc<Listener>, Arc<Frontend>)>,
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

/// One address that a frontend listens on: one SO_REUSEPORT socket for each worker; or one unix
/// socket, of which each worker has a descriptor.
#[derive(Debug)]
pub struct Listener {
    /// The address.
    pub address: Address,
    /// By worker; none once the worker has closed its own.
    sockets: Vec<Mutex<Option<Arc<OwnedFd>>>>,
    /// Of a unix socket that is not removed yet.
    file: Mutex<Option<SocketFile>>,
}

impl Listener {
    /// Listening sockets in blocking mode, one for each worker.
    #[must_use]
    pub fn new(address: impl Into<Address>, sockets: Vec<OwnedFd>) -> Self {
        let slot = |socket| Mutex::new(Some(Arc::new(socket)));
        let sockets = sockets.into_iter().map(slot).collect();
        Self { address: address.into(), sockets, file: Mutex::default() }
    }

    /// With the file of a unix socket.
    #[must_use]
    pub fn with_file(self, file: SocketFile) -> Self {
        Self { file: Mutex::new(Some(file)), ..self }
    }

    /// Removes the file of a unix socket: no further client can connect. Clients that wait in the
    /// backlog are still accepted.
    pub fn remove_file(&self) {
        lock(&self.file).take();
    }

    /// Gives the file of a unix socket to the user that the process becomes, so that this user can
    /// remove it.
    ///
    /// # Errors
    /// Not permitted.
    pub fn give_to(&self, user: u32, group: u32) -> io::Result<()> {
        lock(&self.file).as_ref().map_or(Ok(()), |file| file.give_to(user, group))
    }

    /// The socket of a worker; none if it is closed.
    #[must_use]
    pub fn socket(&self, worker: WorkerIndex) -> Option<Arc<OwnedFd>> {
        self.sockets.get(worker.0).and_then(|slot| lock(slot).clone())
    }

    /// All sockets that are not closed.
    pub fn sockets(&self) -> impl Iterator<Item = Arc<OwnedFd>> {
        self.sockets.iter().filter_map(|slot| lock(slot).clone())
    }

    /// Gives up the socket of a worker: it is closed once the worker has dropped its own reference.
    pub fn close(&self, worker: WorkerIndex) {
        if let Some(slot) = self.sockets.get(worker.0) {
            lock(slot).take();
        }
    }
}

fn lock<T>(slot: &Mutex<Option<T>>) -> MutexGuard<'_, Option<T>> {
    // Nothing panics while it is held, and a panic would end the process.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
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
