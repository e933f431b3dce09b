//! The new process of an upgrade: what the old one offers, and what is reported to it.

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::unistd::dup2_stdin;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::control::upgrade::inherited::Inherited;
use crate::control::upgrade::messages::{OFFER_MAX, Offer, PROTOCOL, Report, Role, STATE_MAX};
use crate::control::upgrade::predecessor::{Earlier, Predecessor};
use crate::control::upgrade::program::{Program, VARIABLE};
use crate::control::upgrade::state::State;
use crate::control::upgrade::wire;
use crate::shared::totals::Totals;
use crate::sys::descriptors;

/// For the offer, which an old process sends at once.
const OFFER_TIMEOUT: Duration = Duration::from_secs(10);

/// For the old process to read why this one does not start.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;

/// An upgrade under way, in the new process.
#[derive(Debug)]
pub struct Takeover {
    stream: UnixStream,
    /// The process id of the old one.
    pid: u32,
    version: String,
    /// Or why it is not used.
    state: Result<State, String>,
    earlier: Vec<Predecessor>,
}

impl Takeover {
    /// The upgrade that this process was started for, if it was, and its sockets. To be called
    /// once, before another thread exists.
    ///
    /// # Errors
    /// The old process is gone, or what it offers is not understood: for the operator.
    pub fn from_environment() -> Result<Option<(Self, Inherited)>, String> {
        if env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let failed = |error: io::Error| format!("no sockets from the old process: {error}");
        let stream = take_stdin().map_err(failed)?;
        match receive(&stream) {
            Ok(Received { pid, version, state, earlier, inherited }) => {
                Ok(Some((Self { stream, pid, version, state, earlier }, inherited)))
            }
            Err(error) => {
                let why = failed(error);
                report(&stream, &Report::Failed(why.clone()));
                Err(why)
            }
        }
    }

    /// What the old process knew; none: it is of another version.
    #[must_use]
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref().ok()
    }

    /// Why its state is not used, for the operator.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        let why = self.state.as_ref().err()?;
        Some(format!(
            "the state of the old process is not used: {why}; its sockets are, and health, orders \
             and counters start anew"
        ))
    }

    /// Reports that this process is ready, and waits until the old one has put it in charge: by its
    /// first totals. There is no time limit, as the old process alone decides. Until then, this one
    /// must not have accepted a client, nor changed anything that the old one uses; after that, it
    /// must not fail.
    ///
    /// # Errors
    /// The old process has ended, or the upgrade: this process must end.
    pub async fn ready(self, unused: Vec<usize>) -> io::Result<Taken> {
        let Self { stream, pid, version, state, mut earlier } = self;
        let own = env!("CARGO_PKG_VERSION").to_owned();
        stream.set_nonblocking(true)?;
        let mut stream = tokio::net::UnixStream::from_std(stream)?;
        stream.write_all(&wire::encode(&Report::Ready { version: own, unused })?).await?;
        let mut unread = Vec::new();
        let first = loop {
            if let Some(first) = wire::take_text(&mut unread, STATE_MAX)? {
                break first;
            }
            unread.reserve(CHUNK);
            if stream.read_buf(&mut unread).await? == 0 {
                let why = "it has ended, or has ended the upgrade";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
            }
        };
        if let (Ok(_), Ok(totals)) = (&state, serde_json::from_slice::<Totals>(&first)) {
            let known = Earlier { totals, unread, ..Earlier::default() };
            match stream.into_std().and_then(|stream| Predecessor::new(stream, known)) {
                Ok(old) => earlier.push(old),
                Err(error) => tracing::warn!("the counters of the old process end here: {error}"),
            }
        }
        Ok(Taken { pid, version, state: state.ok(), earlier })
    }
}

/// What an old process has sent.
struct Received {
    pid: u32,
    version: String,
    /// Or why it is not used.
    state: Result<State, String>,
    earlier: Vec<Predecessor>,
    inherited: Inherited,
}

fn receive(stream: &UnixStream) -> io::Result<Received> {
    let deadline = Instant::now() + OFFER_TIMEOUT;
    let Offer { protocol, pid, version, sockets } = wire::read(stream, OFFER_MAX, deadline)?;
    if protocol != PROTOCOL {
        let problem = format!("its protocol is {protocol}, and {PROTOCOL} is known");
        return Err(io::Error::other(problem));
    }
    let mut received = Vec::new();
    while received.len() < sockets.len() {
        stream.set_read_timeout(Some(OFFER_TIMEOUT))?;
        let batch = descriptors::receive(stream)?;
        if batch.is_empty() || received.len() + batch.len() > sockets.len() {
            let (some, all) = (received.len() + batch.len(), sockets.len());
            return Err(io::Error::other(format!("{some} descriptors for {all} sockets")));
        }
        received.extend(batch);
    }
    let state = wire::read(stream, STATE_MAX, deadline + OFFER_TIMEOUT)?;
    let mut state = State::read(state);
    let mut known = state.iter_mut().flat_map(|state| state.earlier.drain(..));
    let (mut inherited, mut earlier) = (Inherited::default(), Vec::new());
    for (index, (offered, socket)) in sockets.into_iter().zip(received).enumerate() {
        if offered.role == Role::Earlier {
            if let Some(known) = known.next() {
                earlier.push(Predecessor::new(socket.into(), known)?);
            }
            continue;
        }
        inherited.add(index, offered, socket).map_err(io::Error::other)?;
    }
    drop(known);
    Ok(Received { pid, version, state, earlier, inherited })
}

/// What this process was started with beside its arguments.
#[derive(Debug)]
pub struct Start {
    /// What an upgrade starts; none: /proc is not there.
    pub program: Option<Program>,
    /// Sockets of the old process, or of a service manager.
    pub inherited: Inherited,
    /// The upgrade that this process was started for.
    pub takeover: Option<Takeover>,
}

impl Start {
    /// Of this process. To be called once, before another thread exists.
    ///
    /// # Errors
    /// This is an upgrade, and the old process is gone or not understood: for the operator.
    pub fn of_this_process() -> Result<Self, String> {
        let program = Program::of_this_process().ok();
        let taken = Takeover::from_environment()?;
        let (takeover, inherited) = match taken {
            Some((takeover, inherited)) => (Some(takeover), inherited),
            None => (None, Inherited::default()),
        };
        Ok(Self { program, inherited, takeover })
    }

    /// Reports that this process does not start, and why, if it was started for an upgrade.
    pub fn fail(&mut self, why: &str) {
        if let Some(takeover) = self.takeover.take() {
            report(&takeover.stream, &Report::Failed(why.to_owned()));
        }
    }
}

/// An upgrade that is done, in the new process.
#[derive(Debug, Default)]
pub struct Taken {
    /// The old process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// What it knew.
    pub state: Option<State>,
    /// The processes that still have sessions, it among them.
    pub earlier: Vec<Predecessor>,
}

/// The socket that is the standard input of this process; /dev/null takes its place.
fn take_stdin() -> io::Result<UnixStream> {
    let socket: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    dup2_stdin(File::open("/dev/null")?)?;
    let stream = UnixStream::from(socket);
    // An error if it is something else.
    stream.peer_addr()?;
    Ok(stream)
}

fn report(stream: &UnixStream, report: &Report) {
    if let Err(error) = wire::write(stream, report, Instant::now() + REPORT_TIMEOUT) {
        tracing::warn!("the old process is not told: {error}");
    }
}
