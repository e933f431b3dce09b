//! The control socket: one line of JSON asks, one line of JSON answers.
//!
//! ```text
//! {"do":"status"}                                         {"ok":{"version":...}}
//! {"do":"state","server":"web/web1","state":"drain"}      {"ok":"web/web1 is in state drain"}
//! {"do":"weight","server":"web/web1","weight":50}         {"error":"there is no backend ..."}
//! {"do":"reload"}
//! ```
//!
//! For root and the user that the balancer runs as: by the mode of the socket, and by what the
//! kernel says of who connects.

mod client;
mod socket;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::config::AdminState;
use crate::observe::report::Report;
use crate::observe::visitors::{self, Door, Heard};
use crate::shared::orders::{Order, Request, ServerName};
use crate::shared::state::SharedState;

pub use client::{order, status};
pub use socket::{Socket, bind};

/// The longest request, in bytes; the longest that makes sense is two names.
const REQUEST_MAX: u64 = 4096;

/// Connections at once; for one more, the oldest one without a request is ended.
pub const CONNECTIONS_MAX: usize = 16;

/// For a request to arrive, and for an answer to be taken.
const PEER_TIMEOUT: Duration = Duration::from_secs(5);

/// For the control thread to say what it knows.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// For an order to be carried out: a reload resolves every name first.
const ORDER_TIMEOUT: Duration = Duration::from_secs(60);

/// What can be asked, as written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
enum Ask {
    Status,
    State { server: String, state: StateName },
    Weight { server: String, weight: u32 },
    Reload,
}

/// [`AdminState`], as written.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StateName {
    Ready,
    Drain,
    Maint,
}

/// What comes back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer<T> {
    Ok(T),
    Error(String),
}

/// Serves the control socket until the control thread hangs up; dropped, it ends every connection
/// and removes the socket.
///
/// # Errors
/// The runtime cannot take the socket.
pub async fn serve(
    socket: Socket,
    control: mpsc::Sender<Request>,
    seam: Arc<SharedState>,
) -> io::Result<()> {
    let (listener, _remove_at_end) = socket.into_listener()?;
    let accept = || async { Ok(listener.accept().await?.0) };
    let converse = |stream, heard: Heard| {
        let (control, seam) = (control.clone(), Arc::clone(&seam));
        async move {
            if let Err(error) = converse(stream, &heard, &control, &seam).await {
                tracing::debug!("control socket: {error}");
            }
        }
    };
    // Who has given an order hears how it went.
    let door = Door { name: "control socket", most: CONNECTIONS_MAX, patience: None };
    visitors::serve(door, &control, accept, converse).await;
    Ok(())
}

/// One request, one answer.
async fn converse(
    mut stream: UnixStream,
    heard: &Heard,
    control: &mpsc::Sender<Request>,
    seam: &SharedState,
) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let answer = if peer == 0 || peer == geteuid().as_raw() {
        let line = timeout(PEER_TIMEOUT, read_line(&mut stream)).await;
        match line.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(line) => {
                heard.set();
                answer(&line, control, seam).await
            }
            Err(error) => refuse(&format!("no request: {error}")),
        }
    } else {
        refuse("not for you: run as root, or as the user that evenkeel runs as")
    };
    timeout(PEER_TIMEOUT, async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    })
    .await?
}

async fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(stream).take(REQUEST_MAX).read_until(b'\n', &mut line).await?;
    match line.pop() {
        Some(b'\n') => Ok(line),
        None => Err(io::Error::other("the connection ended without one")),
        Some(_) if line.len() as u64 + 1 < REQUEST_MAX => {
            Err(io::Error::other("the connection ended within the line"))
        }
        Some(_) => Err(io::Error::other(format!("a line is at most {REQUEST_MAX} bytes"))),
    }
}

/// The line to send back, with its line break.
async fn answer(line: &[u8], control: &mpsc::Sender<Request>, seam: &SharedState) -> String {
    match serde_json::from_slice(line) {
        Ok(Ask::Status) => match snapshot(control, seam).await {
            Ok(report) => encode(&Answer::Ok(report)),
            Err(why) => refuse(&why),
        },
        Ok(ask) => match carry_out(ask, control).await {
            Ok(done) => encode(&Answer::Ok(done)),
            Err(why) => refuse(&why),
        },
        Err(error) => refuse(&format!("not a request: {error}")),
    }
}

async fn snapshot(control: &mpsc::Sender<Request>, seam: &SharedState) -> Result<Report, String> {
    let asked = async {
        let (sender, receiver) = oneshot::channel();
        control.send(Request::Snapshot(sender)).await.ok()?;
        receiver.await.ok()
    };
    match timeout(STATUS_TIMEOUT, asked).await {
        Ok(Some(snapshot)) => Ok(Report::new(&snapshot, seam)),
        Ok(None) => Err("evenkeel is stopping".to_owned()),
        Err(_) => Err("the control thread does not answer; sessions go on".to_owned()),
    }
}

async fn carry_out(ask: Ask, control: &mpsc::Sender<Request>) -> Result<String, String> {
    let order = ask.order()?;
    let asked = async {
        let (sender, receiver) = oneshot::channel();
        control.send(Request::Order(order, sender)).await.ok()?;
        receiver.await.ok()
    };
    match timeout(ORDER_TIMEOUT, asked).await {
        Ok(Some(outcome)) => outcome,
        Ok(None) => Err("evenkeel is stopping".to_owned()),
        Err(_) => {
            let wait = ORDER_TIMEOUT.as_secs();
            Err(format!("not done within {wait} s; it may still happen: see evenkeel status"))
        }
    }
}

impl Ask {
    /// What the control thread is asked to do.
    fn order(self) -> Result<Order, String> {
        match self {
            Self::Status => Err("status is a question, not an order".to_owned()),
            Self::Reload => Ok(Order::Reload),
            Self::State { server, state } => {
                Ok(Order::SetState(server_name(&server)?, state.into()))
            }
            Self::Weight { server, weight: weight @ 0..=1000 } => {
                Ok(Order::SetWeight(server_name(&server)?, weight))
            }
            Self::Weight { weight, .. } => Err(format!("weight {weight} is not within 0-1000")),
        }
    }
}

impl From<&Order> for Ask {
    fn from(order: &Order) -> Self {
        let written = |name: &ServerName| format!("{}/{}", name.backend, name.server);
        match order {
            Order::Reload => Self::Reload,
            Order::SetWeight(name, weight) => {
                Self::Weight { server: written(name), weight: *weight }
            }
            Order::SetState(name, state) => {
                Self::State { server: written(name), state: (*state).into() }
            }
        }
    }
}

impl From<StateName> for AdminState {
    fn from(name: StateName) -> Self {
        match name {
            StateName::Ready => Self::Ready,
            StateName::Drain => Self::Drain,
            StateName::Maint => Self::Maint,
        }
    }
}

impl From<AdminState> for StateName {
    fn from(state: AdminState) -> Self {
        match state {
            AdminState::Ready => Self::Ready,
            AdminState::Drain => Self::Drain,
            AdminState::Maint => Self::Maint,
        }
    }
}

fn server_name(text: &str) -> Result<ServerName, String> {
    match text.split_once('/') {
        Some((backend, server)) if !backend.is_empty() && !server.is_empty() => {
            Ok(ServerName { backend: backend.to_owned(), server: server.to_owned() })
        }
        _ => Err(format!("{text:?} is not BACKEND/SERVER")),
    }
}

fn refuse(why: &str) -> String {
    encode(&Answer::<()>::Error(why.to_owned()))
}

fn encode<T: Serialize>(answer: &Answer<T>) -> String {
    let line = serde_json::to_string(answer);
    // Strings and numbers always encode; said rather than assumed.
    line.unwrap_or_else(|_| r#"{"error":"the answer cannot be encoded"}"#.to_owned()) + "\n"
}

#[cfg(test)]
mod tests;
