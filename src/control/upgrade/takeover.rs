//! The new process of an upgrade: what the old one offers, and what is reported to it.

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::unistd::dup2_stdin;

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

/// For the old process to stop accepting once this one is ready: its control thread may be busy.
const GO_TIMEOUT: Duration = Duration::from_secs(10);

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
        match Self::receive(&stream) {
            Ok((pid, version, inherited, state, earlier)) => {
                Ok(Some((Self { stream, pid, version, state, earlier }, inherited)))
            }
            Err(error) => {
                let why = failed(error);
                report(&stream, &Report::Failed(why.clone()));
                Err(why)
            }
        }
    }

    #[expect(clippy::type_complexity, reason = "the parts of a value that is made once")]
    fn receive(
        stream: &UnixStream,
    ) -> io::Result<(u32, String, Inherited, Result<State, String>, Vec<Predecessor>)> {
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
        let mut earlier = state.iter_mut().flat_map(|state| state.earlier.drain(..));
        let (mut inherited, mut predecessors) = (Inherited::default(), Vec::new());
        for (index, (offered, socket)) in sockets.into_iter().zip(received).enumerate() {
            if offered.role == Role::Earlier {
                if let Some(earlier) = earlier.next() {
                    predecessors.push(Predecessor::new(socket.into(), earlier)?);
                }
                continue;
            }
            inherited.add(index, offered, socket).map_err(io::Error::other)?;
        }
        drop(earlier);
        Ok((pid, version, inherited, state, predecessors))
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

    /// Reports that this process accepts, and waits until the old one has stopped.
    ///
    /// # Errors
    /// The old process ends, or does not answer: it accepts no clients, or hangs.
    pub fn ready(self, unused: Vec<usize>) -> io::Result<Taken> {
        let Self { stream, pid, version, state, mut earlier } = self;
        let deadline = Instant::now() + GO_TIMEOUT;
        let own = env!("CARGO_PKG_VERSION").to_owned();
        wire::write(&stream, &Report::Ready { version: own, unused }, deadline)?;
        let first: serde_json::Value = wire::read(&stream, STATE_MAX, deadline)?;
        if let (Ok(_), Ok(totals)) = (&state, serde_json::from_value::<Totals>(first)) {
            earlier.push(Predecessor::new(stream, Earlier { totals, ..Earlier::default() })?);
        }
        Ok(Taken { pid, version, state: state.ok(), earlier })
    }
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
    if let Err(error) = wire::write(stream, report, Instant::now() + GO_TIMEOUT) {
        tracing::warn!("the old process is not told: {error}");
    }
}
