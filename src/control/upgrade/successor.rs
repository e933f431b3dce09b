//! The new process of an upgrade, as the old one sees it.

use std::collections::BTreeSet;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::control::upgrade::messages::{Offer, Offered, PROTOCOL, REPORT_MAX, Report};
use crate::control::upgrade::program::Program;
use crate::control::upgrade::state::State;
use crate::control::upgrade::wire;
use crate::sys::descriptors;
use crate::sys::detachable_child::DetachableChild;

/// From the start of a new process to its report: 5 s for host names, and the rest for the disk and
/// the memory of a small machine under load. A service manager waits longer (systemd: 90 s).
pub const START_TIMEOUT: Duration = Duration::from_secs(20);

/// For a process that has closed its stream to end, so that its exit status is known.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

/// What is offered to a new process.
#[derive(Debug)]
pub struct Offering {
    /// Each socket once.
    pub sockets: Vec<(Offered, Arc<OwnedFd>)>,
    /// See [`State`].
    pub state: State,
}

/// A new process that is ready.
#[derive(Debug)]
pub struct Successor {
    /// Its version.
    pub version: String,
    /// The indices of sockets that it does not use.
    pub unused: BTreeSet<usize>,
    child: DetachableChild,
    stream: UnixStream,
}

impl Successor {
    /// Starts the new process and waits for its report, until `limit`. Blocks: for a thread of its
    /// own. `stream` and `theirs` are a pair; a shutdown of `stream` elsewhere ends the wait.
    ///
    /// # Errors
    /// It does not start, and why; the process has ended then.
    pub fn start(
        program: &Program,
        offering: &Offering,
        stream: UnixStream,
        theirs: UnixStream,
        limit: Duration,
    ) -> Result<Self, String> {
        let path = program.path().display();
        let mut child = program
            .start(theirs.into())
            .map_err(|error| format!("{path} cannot be started: {error}"))?;
        match exchange(&stream, offering, Instant::now() + limit) {
            Ok(Report::Ready { version, unused }) => {
                let unused = unused.into_iter().collect();
                Ok(Self { version, unused, child, stream })
            }
            Ok(Report::Failed(why)) => {
                child.end(EXIT_TIMEOUT);
                Err(why)
            }
            Err(error) => Err(match (error.kind(), child.end(EXIT_TIMEOUT)) {
                (io::ErrorKind::TimedOut, _) => format!("{path} was not ready within {limit:?}"),
                (_, Some(status)) => format!("{path} has ended before it was ready ({status})"),
                (_, None) => format!("{path} was not understood: {error}"),
            }),
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Whether it has not ended.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.child.runs()
    }

    /// It becomes a child of the service manager, which is told of its end then.
    ///
    /// # Errors
    /// See [`DetachableChild::detach`].
    pub fn detach(&mut self) -> io::Result<()> {
        self.child.detach()
    }

    /// The stream for totals.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn stream(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }

    /// It is not put in charge: the end of its stream says so, and a process that does not end then
    /// is killed. Does not wait.
    pub fn abandon(self) {
        let Self { mut child, stream, .. } = self;
        drop(stream.shutdown(Shutdown::Both));
        let run = move || {
            child.end(EXIT_TIMEOUT);
        };
        let thread = thread::Builder::new().name("upgrade-end".to_owned()).spawn(run);
        if let Err(error) = thread {
            tracing::warn!("the new process is left to itself: no thread: {error}");
        }
    }
}

fn exchange(stream: &UnixStream, offering: &Offering, deadline: Instant) -> io::Result<Report> {
    let offer = Offer {
        protocol: PROTOCOL,
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        sockets: offering.sockets.iter().map(|(offered, _)| *offered).collect(),
    };
    // A new process that refuses reports why, and reads no more.
    let sent = send(stream, &offer, offering, deadline);
    let report = wire::read(stream, REPORT_MAX, deadline);
    if report.is_err() { sent.and(report) } else { report }
}

fn send(
    stream: &UnixStream,
    offer: &Offer,
    offering: &Offering,
    deadline: Instant,
) -> io::Result<()> {
    wire::write(stream, offer, deadline)?;
    for batch in offering.sockets.chunks(descriptors::AT_ONCE) {
        let batch: Vec<BorrowedFd<'_>> = batch.iter().map(|(_, socket)| socket.as_fd()).collect();
        descriptors::send(stream, &batch)?;
    }
    wire::write(stream, &offering.state, deadline)
}
