//! Serves the control socket.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::geteuid;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::observe::admin::protocol::{Answer, Ask, ORDER_TIMEOUT, STATUS_TIMEOUT, encode};
use crate::observe::admin::socket::Socket;
use crate::observe::connection_limit::{self, ConnectionLimit, RequestArrived};
use crate::observe::report::Report;
use crate::observe::session_report::SessionReport;
use crate::shared::orders::{Request, WorkerOrder};
use crate::shared::sessions::{SessionId, SessionInfo};
use crate::shared::state::{Observing, SharedState};

/// The longest request, in bytes.
const REQUEST_MAX: u64 = 4096;

/// Open connections; at the limit, a new one replaces the oldest one without a request.
pub const CONNECTIONS_MAX: usize = 16;

/// How long the control thread may take to answer a question, and the error if it takes longer.
const QUESTION: (Duration, &str) =
    (STATUS_TIMEOUT, "the control thread does not answer; sessions continue");

/// For a request to arrive, and for an answer to be read.
pub(super) const PEER_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves the control socket until the control thread drops its receiver of requests; dropped, it
/// ends every connection and removes the socket.
///
/// # Errors
/// The runtime cannot take the socket.
pub async fn serve(
    socket: Socket,
    control: mpsc::Sender<Request>,
    shared: Arc<SharedState>,
) -> io::Result<()> {
    let (listener, mut file) = socket.into_listener()?;
    let accept = || async { Ok(listener.accept().await?.0) };
    let converse = |stream, arrived: RequestArrived| {
        let (control, shared) = (control.clone(), Arc::clone(&shared));
        async move {
            if let Err(error) = converse(stream, &arrived, &control, &shared).await {
                tracing::debug!("control socket: {error}");
            }
        }
    };
    // An order is always answered.
    let (name, max) = ("control socket", CONNECTIONS_MAX);
    let limit = ConnectionLimit { name, max, answer_timeout: None };
    let open = connection_limit::serve(limit, &control, &shared, accept, converse).await;
    drop(listener);
    let kept = *shared.observing.borrow() == Observing::HandedOver { control: true };
    if let Some(file) = file.take_if(|_| kept && open.are_handed_over()) {
        file.keep();
    }
    drop(file);
    open.finish().await;
    Ok(())
}

/// One request, one answer.
async fn converse(
    mut stream: UnixStream,
    arrived: &RequestArrived,
    control: &mpsc::Sender<Request>,
    shared: &Arc<SharedState>,
) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let answer = if peer == 0 || peer == geteuid().as_raw() {
        let line = timeout(PEER_TIMEOUT, read_line(&mut stream)).await;
        match line.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(line) => {
                arrived.set();
                answer(&line, control, shared).await
            }
            Err(error) => refuse(&format!("no request: {error}")),
        }
    } else {
        refuse("permission denied: run as root, or as the user that evenkeel runs as")
    };
    timeout(PEER_TIMEOUT, async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    })
    .await?
}

pub(super) async fn read_line(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
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
pub(super) async fn answer(
    line: &[u8],
    control: &mpsc::Sender<Request>,
    shared: &Arc<SharedState>,
) -> String {
    match serde_json::from_slice(line) {
        Ok(Ask::Status) => {
            let (snapshot, shared) =
                (asked(control, QUESTION, Request::Snapshot).await, Arc::clone(shared));
            on_pool(move || encoded(snapshot.map(|snapshot| Report::new(&snapshot, &shared)))).await
        }
        Ok(Ask::Sessions) => {
            let found = sessions(shared).await;
            let report =
                |found: Vec<SessionInfo>| found.iter().map(SessionReport::from).collect::<Vec<_>>();
            on_pool(move || encoded(found.map(report))).await
        }
        Ok(Ask::Kill { id }) => encoded(kill(&id, shared).await),
        Ok(Ask::Explain { frontend, client }) => {
            let request = |sender| Request::Explain(frontend, client, sender);
            encoded(asked(control, QUESTION, request).await.flatten())
        }
        Ok(Ask::Reload { dry_run: true }) => {
            let late = "the file was not read and compared in time";
            let plan = asked(control, (ORDER_TIMEOUT, late), Request::PlanReload);
            encoded(plan.await.flatten())
        }
        Ok(ask) => encoded(send_order(ask, control).await),
        Err(error) => refuse(&format!("invalid request: {error}")),
    }
}

/// Asks the control thread.
async fn asked<T>(
    control: &mpsc::Sender<Request>,
    (limit, late): (Duration, &str),
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, String> {
    let asked = async {
        let (sender, receiver) = oneshot::channel();
        control.send(request(sender)).await.ok()?;
        receiver.await.ok()
    };
    match timeout(limit, asked).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err("evenkeel is stopping".to_owned()),
        Err(_) => Err(late.to_owned()),
    }
}

/// Encodes an answer on a thread of the pool: one of thousands of servers or sessions takes longer
/// than the control thread should wait.
async fn on_pool(encode: impl FnOnce() -> String + Send + 'static) -> String {
    spawn_blocking(encode).await.unwrap_or_else(|_| refuse("the answer cannot be encoded"))
}

/// Every open session, as its worker sees it.
async fn sessions(shared: &SharedState) -> Result<Vec<SessionInfo>, String> {
    let (sender, mut parts) = mpsc::unbounded_channel();
    shared.list_sessions(&sender);
    drop(sender);
    let all = async {
        let mut all = Vec::new();
        while let Some(mut part) = parts.recv().await {
            all.append(&mut part);
        }
        all
    };
    let late = |_| "a worker does not answer".to_owned();
    timeout(STATUS_TIMEOUT, all).await.map_err(late)
}

/// Closes one session; which one it was.
async fn kill(id: &str, shared: &SharedState) -> Result<String, String> {
    let wanted: SessionId = id.parse()?;
    let none = || {
        format!(
            "no open session has the ID {wanted}; `evenkeel sessions` lists those that are open"
        )
    };
    let found = sessions(shared).await?.into_iter().find(|one| one.id == wanted);
    let session = found.ok_or_else(none)?;
    let SessionId { worker, slot, generation } = wanted;
    shared.order(worker, WorkerOrder::Kill { slot, generation });
    let client = session.client.map_or_else(|| "-".to_owned(), |client| client.to_string());
    let server = session.server.as_deref().unwrap_or("-");
    let done = format!("session {wanted} of {client} to {}/{server} killed", session.backend);
    tracing::info!("{done} (by the operator)");
    Ok(done)
}

async fn send_order(ask: Ask, control: &mpsc::Sender<Request>) -> Result<String, String> {
    let order = ask.order()?;
    let wait = ORDER_TIMEOUT.as_secs();
    let late = format!("not done within {wait} s; it may still be done: check evenkeel status");
    let request = |sender| Request::Order(order, sender);
    asked(control, (ORDER_TIMEOUT, &late), request).await.flatten()
}

fn encoded<T: Serialize>(outcome: Result<T, String>) -> String {
    match outcome {
        Ok(answer) => encode(&Answer::Ok(answer)),
        Err(why) => refuse(&why),
    }
}

fn refuse(why: &str) -> String {
    encode(&Answer::<()>::Error(why.to_owned()))
}
