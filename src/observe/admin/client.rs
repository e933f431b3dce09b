//! The client of the control socket: `evenkeel status`, `drain` and the like.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use socket2::{Domain, SockAddr, Type};

use crate::observe::admin::protocol::{Answer, Ask, ORDER_TIMEOUT, STATUS_TIMEOUT};
use crate::observe::explanation_text;
use crate::observe::report::{Report, ServerReport};
use crate::observe::session_report::{self, SessionReport};
use crate::shared::explanation::Explanation;
use crate::shared::orders::{Order, ServerName};
use crate::shared::plan::ReloadPlan;
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
        return pretty(&report);
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
        return pretty(&sessions);
    }
    Ok(session_report::text(&sessions).trim_end().to_owned())
}

/// What happens to a client of a frontend of the balancer at the control socket `path`, as text or
/// as JSON. None: any client.
///
/// # Errors
/// It does not answer, or has no such frontend; one line, with the remedy.
pub fn explain(
    path: &Path,
    frontend: &str,
    client: Option<IpAddr>,
    json: bool,
) -> Result<String, String> {
    let question = Ask::Explain { frontend: frontend.to_owned(), client };
    let explanation: Explanation = ask(path, &question, STATUS_TIMEOUT)?;
    if json {
        return pretty(&explanation);
    }
    Ok(explanation_text::text(&explanation))
}

/// What a reload of the balancer at the control socket `path` would change.
///
/// # Errors
/// It does not answer, or does not reload now; one line.
pub fn plan_reload(path: &Path) -> Result<ReloadPlan, String> {
    ask(path, &Ask::Reload { dry_run: true }, ORDER_TIMEOUT)
}

fn pretty(answer: &impl Serialize) -> Result<String, String> {
    let text = serde_json::to_string_pretty(answer);
    text.map_err(|error| format!("the answer cannot be shown: {error}"))
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

/// Waits until a server in drain has no session any more, for `limit` at most (none: for ever); a
/// line that says so. An answer that does not come in time is asked for again.
///
/// # Errors
/// The balancer has ended, `limit` has passed, or the server gets new sessions again; one line.
pub fn wait_for_sessions(
    path: &Path,
    name: &ServerName,
    limit: Option<Duration>,
) -> Result<String, String> {
    let ServerName { backend, server } = name;
    let shown = format!("{backend}/{server}");
    let begun = Instant::now();
    loop {
        let why = match drained(path, name) {
            Ok(0) => return Ok(format!("{shown} has no session any more")),
            Ok(active) => format!("{shown} still has sessions: {active}"),
            Err(Unfollowed::Late(why)) => why,
            Err(Unfollowed::Over(why)) => return Err(format!("{shown}: {why}")),
        };
        if limit.is_some_and(|limit| begun.elapsed() >= limit) {
            return Err(why);
        }
        #[expect(clippy::disallowed_methods, reason = "no ring is in this process")]
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Why the sessions of a server that drains are not known.
enum Unfollowed {
    /// The control thread is busy; the sessions continue.
    Late(String),
    /// There is nothing to wait for.
    Over(String),
}

/// The sessions of a server in drain.
fn drained(path: &Path, name: &ServerName) -> Result<u64, Unfollowed> {
    let line = exchange(path, &Ask::Status, within(STATUS_TIMEOUT)).map_err(|error| {
        let why = explain_error(path, &error);
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Unfollowed::Late(why),
            io::ErrorKind::PermissionDenied => Unfollowed::Over(why),
            _ => Unfollowed::Over(format!("evenkeel has ended before its last session ({why})")),
        }
    })?;
    let report: Report = match serde_json::from_str(&line) {
        Ok(Answer::Ok(report)) => report,
        Ok(Answer::Error(why)) => return Err(Unfollowed::Late(why)),
        Err(_) => read(path, &line).map_err(Unfollowed::Over)?,
    };
    let is_it = |one: &&ServerReport| one.backend == name.backend && one.name == name.server;
    let found: Vec<&ServerReport> = report.servers.iter().filter(is_it).collect();
    let active = found.iter().map(|one| one.sessions_active).sum();
    if active > 0 && found.iter().any(|one| matches!(one.state.as_str(), "up" | "down")) {
        let why = format!("it gets new sessions again, and has sessions: {active}");
        return Err(Unfollowed::Over(why));
    }
    Ok(active)
}

fn ask<T: DeserializeOwned>(path: &Path, ask: &Ask, wait: Duration) -> Result<T, String> {
    let line = exchange(path, ask, within(wait)).map_err(|error| explain_error(path, &error))?;
    read(path, &line)
}

/// The timeout of the balancer, and some time for the way.
fn within(wait: Duration) -> Duration {
    wait + Duration::from_secs(3)
}

fn read<T: DeserializeOwned>(path: &Path, line: &str) -> Result<T, String> {
    match serde_json::from_str(line) {
        Ok(Answer::Ok(answer)) => Ok(answer),
        Ok(Answer::Error(why)) => Err(why),
        Err(_) if line.len() as u64 >= ANSWER_MAX => {
            Err(format!("the answer is longer than {} MiB", ANSWER_MAX >> 20))
        }
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

fn explain_error(path: &Path, error: &io::Error) -> String {
    let is_other = fs::metadata(path).is_ok_and(|file| !file.file_type().is_socket());
    let path = path.display();
    match error.kind() {
        _ if is_other => format!(
            "{path} is not a socket; --control takes the path of the control socket \
             (observe.control), and -c the configuration file"
        ),
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
