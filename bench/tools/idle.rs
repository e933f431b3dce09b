//! Memory of idle sessions: connections through a balancer that did one exchange and stay.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::exchange::{Exchange, verified};
use crate::subject::{Place, Subject, pause, start};

/// What was seen of one process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Bytes of user memory before the first session.
    pub(crate) at_start: u64,
    /// Bytes a session: the slope between the two counts.
    pub(crate) session: f64,
}

/// The two counts of sessions, well below the most that fit.
///
/// # Errors
/// Too few fit for a slope.
pub(crate) fn counts(sessions_max: usize) -> io::Result<[usize; 2]> {
    let most = sessions_max / 5 * 4;
    if most < 400 {
        return Err(io::Error::other("idle: raise the limit of open files: ulimit -n 20000"));
    }
    Ok([most / 4, most])
}

/// Starts the subject anew and measures it.
///
/// # Errors
/// It does not start, or a session fails.
pub(crate) fn measure(
    subject: Subject,
    place: &Place,
    servers: &[SocketAddr],
    counts: [usize; 2],
) -> io::Result<Option<Memory>> {
    let Some(running) = start(subject, place, servers)? else { return Ok(None) };
    let process = running.process();
    let at_start = settled(process)?;
    let mut sessions = Vec::new();
    let [few, many] = counts;
    open(&mut sessions, few, running.address)?;
    let with_few = settled(process)?;
    open(&mut sessions, many, running.address)?;
    let with_many = settled(process)?;
    let bytes = i64::try_from(with_many).map_err(io::Error::other)?
        - i64::try_from(with_few).map_err(io::Error::other)?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let session = bytes as f64 / (many - few) as f64;
    Ok(Some(Memory { at_start, session }))
}

fn open(sessions: &mut Vec<TcpStream>, count: usize, address: SocketAddr) -> io::Result<()> {
    let exchange = Exchange { up: 116, down: 128, last: false };
    while sessions.len() < count {
        let (connection, _) = verified(address, exchange).map_err(|error| {
            io::Error::other(format!("idle session {}: {error}", sessions.len() + 1))
        })?;
        sessions.push(connection);
    }
    Ok(())
}

/// User memory once it stands still (three readings the same, 100 ms apart), or after 5 s.
fn settled(process: u32) -> io::Result<u64> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut last = (0, 0);
    loop {
        let now = user_memory(process)?;
        last = if now == last.0 { (now, last.1 + 1) } else { (now, 1) };
        if last.1 == 3 || Instant::now() > deadline {
            return Ok(now);
        }
        pause(Duration::from_millis(100));
    }
}

/// Proportional set size of a process: resident memory, where shared pages count by their share.
fn user_memory(process: u32) -> io::Result<u64> {
    let path = format!("/proc/{process}/smaps_rollup");
    let text = fs::read_to_string(&path)?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    let kibibytes: u64 = kibibytes.ok_or_else(|| io::Error::other(format!("{path}: no Pss")))?;
    Ok(kibibytes * 1024)
}
