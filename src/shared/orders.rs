//! Requests to the control thread: for a snapshot, or to carry out an operator's order; and orders
//! to one worker.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::config::AdminState;
use crate::shared::explanation::Explanation;
use crate::shared::plan::ReloadPlan;
use crate::shared::queue::Waiter;
use crate::shared::sessions::SessionInfo;
use crate::shared::snapshot::Snapshot;
use crate::shared::table::{Frontend, Listener};
use crate::sys::socket::Socket;
use crate::terms::ServerId;

/// A request to the control thread.
#[derive(Debug)]
pub enum Request {
    /// Send a snapshot.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Carry out this order. The answer is one line: what was done, or the error.
    Order(Order, oneshot::Sender<Result<String, String>>),
    /// What happens to a client of the frontend of that name; none: to any client. Nothing changes.
    Explain(String, Option<IpAddr>, oneshot::Sender<Result<Explanation, String>>),
    /// What a reload would change. Nothing changes.
    PlanReload(oneshot::Sender<Result<ReloadPlan, String>>),
}

/// An order of the operator, from the control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// `drain | ready | maint BACKEND/SERVER`
    SetState(ServerName, AdminState),
    /// `weight BACKEND/SERVER N`, 0-1000
    SetWeight(ServerName, u32),
    /// As SIGHUP; the answer comes when the reload has ended.
    Reload,
    /// As SIGUSR2; the answer comes when the new process is in charge, or has not started.
    Upgrade,
}

/// BACKEND/SERVER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerName {
    /// The backend's name.
    pub backend: String,
    /// The server's name.
    pub server: String,
}

/// An order to one worker, by its mailbox ([`SharedState::order`]).
///
/// [`SharedState::order`]: crate::shared::state::SharedState::order
#[derive(Debug)]
pub enum WorkerOrder {
    /// Close this session; nothing happens if it has ended.
    Kill {
        /// Its slot.
        slot: u32,
        /// The generation of the slot.
        generation: u32,
    },
    /// Close every session of this server.
    CloseSessionsOf(ServerId),
    /// Send the open sessions from this slot on, in parts: the channel closes after the last one.
    List {
        /// 0 at first.
        from: u32,
        /// Where to send them.
        to: UnboundedSender<Vec<SessionInfo>>,
    },
    /// Accept anew what waits in the backlogs.
    LookAtBacklogs,
    /// A server may have room for this session, which is the first in its queue.
    ServerFree(Waiter),
    /// Put the sessions that wait back into their queues: while this worker was stuck, they were
    /// taken out.
    RejoinQueues,
    /// Serve this client, which waited for a worker that is stuck.
    Serve(Box<WaitingClient>),
}

/// A client that was accepted from the queue of a worker that is stuck.
#[derive(Debug)]
pub struct WaitingClient {
    /// Its connection.
    pub socket: Socket,
    /// What it connected to.
    pub listener: Arc<Listener>,
    /// The frontend of `listener`.
    pub frontend: Arc<Frontend>,
}
