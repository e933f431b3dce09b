//! Requests to the control thread: for a snapshot, or to carry out an operator's order.

use tokio::sync::oneshot;

use crate::config::AdminState;
use crate::shared::snapshot::Snapshot;

/// To the control thread, by a tokio channel.
#[derive(Debug)]
pub enum Request {
    /// What is known now.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Do this; the answer is one line: what was done, or why not.
    Order(Order, oneshot::Sender<Result<String, String>>),
}

/// What an operator orders over the control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// `drain | ready | maint BACKEND/SERVER`
    SetState(ServerName, AdminState),
    /// `weight BACKEND/SERVER N`, 0-1000
    SetWeight(ServerName, u32),
    /// As SIGHUP; the answer comes when it has been carried out.
    Reload,
}

/// BACKEND/SERVER; SERVER as configured means every address of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerName {
    /// The backend's name.
    pub backend: String,
    /// The server's name.
    pub server: String,
}
