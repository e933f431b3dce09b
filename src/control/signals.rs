//! Signals: their meaning, and the thread that receives them.

use std::io;

use nix::sys::signal::{SigSet, Signal as Number};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// The meaning of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP
    Reload,
    /// SIGTERM, SIGINT: drain; while draining, stop.
    End,
    /// SIGUSR2
    HandOver,
}

/// Receives the signals of this process.
#[derive(Debug)]
pub struct Signals {
    hangup: Stream,
    terminate: Stream,
    interrupt: Stream,
    user2: Stream,
}

impl Signals {
    /// Receives signals from now on, and those that have come since [`block`].
    ///
    /// # Errors
    /// The runtime cannot receive them.
    pub fn new() -> io::Result<Self> {
        let signals = Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            user2: signal(SignalKind::user_defined2())?,
        };
        ours().thread_unblock()?;
        Ok(signals)
    }

    /// The next one.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.terminate.recv() => Signal::End,
            _ = self.interrupt.recv() => Signal::End,
            _ = self.user2.recv() => Signal::HandOver,
        }
    }
}

/// Blocks the signals in this thread and those that it starts, so that no worker is woken by them;
/// they are pending until [`Signals::new`]. SIGPIPE needs nothing: Rust's runtime ignores it.
///
/// # Errors
/// None that a caller could mend.
pub fn block() -> io::Result<()> {
    Ok(ours().thread_block()?)
}

fn ours() -> SigSet {
    [Number::SIGHUP, Number::SIGTERM, Number::SIGINT, Number::SIGUSR2].into_iter().collect()
}
