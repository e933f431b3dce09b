//! The client of the control socket: `evenkeel status`, `drain` and the like.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use socket2::{Domain, SockAddr, Type};

use crate::observe::admin::protocol::{Answer, Ask, ORDER_TIMEOUT, STATUS_TIMEOUT};
use crate::observe::report::{Report, ServerReport};
use crate::observe::session_report::{self, SessionReport};
use crate::shared::orders::{Order, ServerName};
use crate::shared::sessions::SessionId;

/// Between two looks at the sessions of a server that drains.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The longest answer, in bytes: a report of 10,000 servers has about 6 MiB.
const ANSWER_MAX: u64 = 64 << 20;

/// The status of the balancer at the control socket `path`: as tables, or as JSON.
///
/// # Errors
/// It does not answer; one line, with the remedy.
pub fn status(path: &Path, json: bool) -> Result<String, String> {
    let report: Report = ask(path, &Ask::Status, STATUS_TIMEOUT)?;
    if json {
        let text = serde_json::to_string_pretty(&report);
        return text.map_err(|error| format!("the status cannot be shown: {error}"));
    }
    Ok(report.text().trim_end().to_owned())
}

/// The open sessions of the balancer at the control socket `path`: as a table, or as JSON.
///
/// # Errors
/// It does not answer; one line, with the remedy.
pub fn sessions(path: &Path, json: bool) -> Result<String, String> {
    let sessions: Vec<SessionReport> = ask(path, &Ask::Sessions, STATUS_TIMEOUT)?;
    if json {
        let text = serde_json::to_string_pretty(&sessions);
        return text.map_err(|error| format!("the sessions cannot be shown: {error}"));
    }
    Ok(session_report::text(&sessions).trim_end().to_owned())
}

/// Closes a session of the balancer at the control socket `path`; which one it was, in one line.
///
/// # Errors
/// It does not answer, or has no such session; one line, with the remedy.
pub fn kill(path: &Path, id: SessionId) -> Result<String, String> {
    ask(path, &Ask::Kill { id: id.to_string() }, STATUS_TIMEOUT)
}

/// Has the balancer at the control socket `path` carry out `order`; what it did, in one line.
///
/// # Errors
/// It does not answer, or refuses; one line, with the remedy.
#[expect(clippy::needless_pass_by_value, reason = "an order is given once")]
pub fn order(path: &Path, order: Order) -> Result<String, String> {
    ask(path, &Ask::from(&order), ORDER_TIMEOUT)
}

/// Waits until a server has no session any more, for `limit` at most (none: for ever); a line that
/// says so.
///
/// # Errors
/// The balancer does not answer, or `limit` has passed; one line.
pub fn wait_for_sessions(
    path: &Path,
    name: &ServerName,
    limit: Option<Duration>,
) -> Result<String, String> {
    let ServerName { backend, server } = name;
    let begun = Instant::now();
    loop {
        let report: Report = ask(path, &Ask::Status, STATUS_TIMEOUT)?;
        let is_it = |one: &&ServerReport| one.backend == *backend && one.name == *server;
        let active: u64 = report.servers.iter().filter(is_it).map(|one| one.sessions_active).sum();
        if active == 0 {
            return Ok(format!("{backend}/{server} has no session any more"));
        }
        if limit.is_some_and(|limit| begun.elapsed() >= limit) {
            return Err(format!("{backend}/{server} still has sessions: {active}"));
        }
        #[expect(clippy::disallowed_methods, reason = "no ring is in this process")]
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn ask<T: DeserializeOwned>(path: &Path, ask: &Ask, wait: Duration) -> Result<T, String> {
    // The timeout of the balancer, and some time for the way.
    let wait = wait + Duration::from_secs(3);
    let line = exchange(path, ask, wait).map_err(|error| explain(path, &error))?;
    match serde_json::from_str(&line) {
        Ok(Answer::Ok(answer)) => Ok(answer),
        Ok(Answer::Error(why)) => Err(why),
        Err(error) => {
            let shown = path.display();
            Err(format!("{shown}: the answer is not of this version ({error}); restart evenkeel"))
        }
    }
}

fn exchange(path: &Path, ask: &Ask, wait: Duration) -> io::Result<String> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Before the connect, which waits for the write timeout while the backlog is full.
    socket.set_write_timeout(Some(wait))?;
    socket.set_read_timeout(Some(wait))?;
    socket.connect(&SockAddr::unix(path)?)?;
    let mut stream = UnixStream::from(OwnedFd::from(socket));
    let request = serde_json::to_string(ask)? + "\n";
    // A balancer of another user answers without reading the request.
    let sent = stream.write_all(request.as_bytes());
    let mut answer = String::new();
    let read = BufReader::new(stream).take(ANSWER_MAX).read_line(&mut answer);
    match (read, sent) {
        (Ok(1..), _) => Ok(answer),
        (_, Err(error)) | (Err(error), _) => Err(error),
        (Ok(0), Ok(())) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn explain(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "no control socket at {path}: is evenkeel running, and is observe.control this path? \
             (-c FILE or --control PATH gives another)"
        ),
        io::ErrorKind::ConnectionRefused => {
            format!("no process listens at {path}: evenkeel has ended; start it again")
        }
        io::ErrorKind::PermissionDenied => {
            format!("no permission for {path}: run as root, or as the user that evenkeel runs as")
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!(
                "no answer at {path} in time: the control thread does not answer; sessions continue"
            )
        }
        io::ErrorKind::UnexpectedEof => {
            format!(
                "{path} closed the connection without an answer: evenkeel is stopping, or another \
                 program listens there"
            )
        }
        _ => format!("control socket {path}: {error}"),
    }
}
