//! Access: what a connection must pass before anything is spent on it. One that may not connect, or
//! comes too fast, is refused; one beyond the limits of sessions waits.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::config::ProxyProtocol;
use crate::proxy::worker_handle::WorkerHandle;
use crate::shared::clients::{ClientKey, ClientRefusal, ClientRules};
use crate::shared::counters::FrontendCell;
use crate::shared::table::{Frontend, FrontendShared};
use crate::sys::address::ClientAddress;
use crate::sys::socket::Socket;
use crate::terms::Refusal;

/// A connection that may become a session once there is room for one.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) socket: Socket,
    client: Option<ClientPermit>,
}

/// A client whose session may begin.
#[derive(Debug)]
pub(super) struct NewClient {
    pub(super) socket: Socket,
    pub(super) frontend: Arc<Frontend>,
    pub(super) permit: SessionPermit,
    /// The port that it connected to; none: a unix socket.
    pub(super) port: Option<u16>,
}

impl NewClient {
    /// Counts a session for `admitted`, if there is room for one.
    ///
    /// # Errors
    /// There is none: it waits.
    pub(super) fn begin(
        admitted: Admitted,
        frontend: &Arc<Frontend>,
        port: Option<u16>,
        worker: &Rc<WorkerHandle>,
    ) -> Result<Self, Admitted> {
        let Some(mut permit) = SessionPermit::new(worker, &frontend.shared) else {
            return Err(admitted);
        };
        permit.client = admitted.client;
        Ok(Self { socket: admitted.socket, frontend: Arc::clone(frontend), permit, port })
    }

    /// Counts a session for `admitted`, whether there is room for one or not.
    pub(super) fn begin_beyond_limits(
        admitted: Admitted,
        frontend: &Arc<Frontend>,
        port: Option<u16>,
        worker: &Rc<WorkerHandle>,
    ) -> Self {
        let mut permit = SessionPermit::beyond_limits(worker, &frontend.shared);
        permit.client = admitted.client;
        Self { socket: admitted.socket, frontend: Arc::clone(frontend), permit, port }
    }
}

/// Checks a connection by the rules of its frontend: `deny`, `allow`, `rate`, `clients_max`.
///
/// # Errors
/// Why it is refused.
pub(super) fn admit(
    socket: Socket,
    frontend: &Frontend,
    worker: &Rc<WorkerHandle>,
) -> Result<Admitted, (Socket, Refusal)> {
    if frontend.settings.proxy_protocol == ProxyProtocol::Required {
        // The client is checked once its PROXY header was read.
        if !is_believed(&socket, frontend) {
            return Err((socket, Refusal::BadProxyHeader));
        }
        return Ok(Admitted { socket, client: None });
    }
    if !has_rules(frontend) {
        return Ok(Admitted { socket, client: None });
    }
    // A client of a unix socket has no IP address, and neither has one that has left already: they
    // are none of those that are listed, and are not counted.
    let address = socket.peer().ok().and_then(ClientAddress::ip);
    let client = match check(address, frontend, worker) {
        Ok(client) => client,
        Err(refusal) => return Err((socket, refusal)),
    };
    Ok(Admitted { socket, client })
}

/// Whether the PROXY header of this peer is read.
fn is_believed(socket: &Socket, frontend: &Frontend) -> bool {
    match socket.peer().map_err(|error| error.kind()) {
        Ok(ClientAddress::Ip(address)) => {
            frontend.settings.proxy_protocol_from.contains(address.ip())
        }
        // A process that may open the path of a Unix socket; and a peer that has left already,
        // whose session ends before its header counts.
        Ok(ClientAddress::Unix) | Err(io::ErrorKind::NotConnected) => true,
        Err(_) => false,
    }
}

/// Whether clients are checked at all.
fn has_rules(frontend: &Frontend) -> bool {
    let settings = &frontend.settings;
    settings.allow.is_listed()
        || settings.deny.is_listed()
        || settings.rate.sessions.is_some()
        || settings.rate.per_client.is_some()
        || settings.clients_max.is_some()
}

fn check(
    address: Option<IpAddr>,
    frontend: &Frontend,
    worker: &Rc<WorkerHandle>,
) -> Result<Option<ClientPermit>, Refusal> {
    let settings = &frontend.settings;
    let rules = ClientRules {
        sessions_max: settings.clients_max.map(Into::into),
        rate: settings.rate.per_client,
    };
    let counted = rules.sessions_max.is_some() || rules.rate.is_some();
    let is_in = |address: IpAddr| {
        let denied = settings.deny.contains(address);
        !denied && (!settings.allow.is_listed() || settings.allow.contains(address))
    };
    if !address.is_none_or(is_in) {
        return Err(Refusal::Denied);
    }
    let now = worker.shared.phase.since_start(Instant::now());
    if settings.rate.sessions.is_some_and(|rate| !frontend.shared.rate.take(rate, now)) {
        return Err(Refusal::Rate);
    }
    let Some(key) = address.filter(|_| counted).map(ClientKey::from) else { return Ok(None) };
    frontend.shared.clients.begin(key, rules, now).map_err(|refusal| match refusal {
        ClientRefusal::Sessions => Refusal::Limit,
        ClientRefusal::Rate => Refusal::Rate,
    })?;
    let (frontend, worker) = (Arc::clone(&frontend.shared), Rc::clone(worker));
    Ok(Some(ClientPermit(Box::new(CountedClient { key, frontend, worker }))))
}

/// A session in the count of its client, as long as it lives. In a box, as few frontends count
/// clients and each idle session has one of these.
#[derive(Debug)]
struct ClientPermit(Box<CountedClient>);

#[derive(Debug)]
struct CountedClient {
    key: ClientKey,
    frontend: Arc<FrontendShared>,
    worker: Rc<WorkerHandle>,
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        let CountedClient { key, frontend, worker } = &*self.0;
        frontend.clients.end(*key, worker.shared.phase.since_start(Instant::now()));
    }
}

/// A session in the counts of its frontend, open as long as it lives.
#[derive(Debug)]
pub struct SessionPermit {
    frontend: Arc<FrontendShared>,
    worker: Rc<WorkerHandle>,
    /// Held as long as the session is counted.
    client: Option<ClientPermit>,
}

impl SessionPermit {
    /// Counts a session, if `sessions_max` allows one more: over all, and of the frontend.
    #[must_use]
    pub fn new(worker: &Rc<WorkerHandle>, frontend: &Arc<FrontendShared>) -> Option<Self> {
        if !worker.shared.sessions.try_raise() {
            return None;
        }
        if !frontend.sessions.try_raise() {
            worker.shared.sessions.lower();
            return None;
        }
        Some(Self::count(worker, frontend))
    }

    /// Counts a session beyond `sessions_max`, if need be.
    fn beyond_limits(worker: &Rc<WorkerHandle>, frontend: &Arc<FrontendShared>) -> Self {
        worker.shared.sessions.raise();
        frontend.sessions.raise();
        Self::count(worker, frontend)
    }

    fn count(worker: &Rc<WorkerHandle>, frontend: &Arc<FrontendShared>) -> Self {
        let cell = frontend.cells.of(worker.index);
        cell.sessions.add(1);
        cell.active.add(1);
        Self { frontend: Arc::clone(frontend), worker: Rc::clone(worker), client: None }
    }

    /// Checks the client, whose address was not known when the session began.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn check_client(
        &mut self,
        address: Option<IpAddr>,
        frontend: &Frontend,
    ) -> Result<(), Refusal> {
        if has_rules(frontend) {
            self.client = check(address, frontend, &self.worker)?;
        }
        Ok(())
    }

    /// The counters of this worker.
    pub(super) fn cell(&self) -> &FrontendCell {
        self.frontend.cells.of(self.worker.index)
    }

    /// The name of its frontend.
    pub(super) fn frontend_name(&self) -> &Arc<str> {
        &self.frontend.name
    }

    /// Whether `frontend` is the one of this session.
    pub(super) fn is_of(&self, frontend: &Frontend) -> bool {
        Arc::ptr_eq(&frontend.shared, &self.frontend)
    }
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        self.cell().active.subtract(1);
        self.frontend.sessions.lower();
        self.worker.shared.sessions.lower();
        self.worker.shared.wake_paused(self.worker.index);
    }
}
