//! Signals: what each means here, and which thread is interrupted by them.

use std::io;

use nix::sys::signal::{SigSet, Signal as Number};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP
    Reload,
    /// SIGTERM, SIGINT: drain; while draining, stop.
    End,
    /// SIGUSR2
    HandOver,
}

/// The signals that this process acts on.
#[derive(Debug)]
pub struct Signals {
    hangup: Stream,
    terminate: Stream,
    interrupt: Stream,
    user2: Stream,
}

impl Signals {
    /// Takes the signals over from here on, those that came since [`block`] too.
    ///
    /// # Errors
    /// The runtime cannot take them.
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

/// Keeps signals from this thread and those that it starts, so that no worker is woken by them;
/// they wait for [`Signals::new`]. SIGPIPE needs nothing: Rust's runtime ignores it from the start.
///
/// # Errors
/// None that a caller could mend.
pub fn block() -> io::Result<()> {
    Ok(ours().thread_block()?)
}

fn ours() -> SigSet {
    [Number::SIGHUP, Number::SIGTERM, Number::SIGINT, Number::SIGUSR2].into_iter().collect()
}
