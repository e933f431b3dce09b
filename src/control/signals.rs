//! Signals: their meaning, and the thread that receives them.

use std::io;

use nix::sys::signal::{SigSet, Signal as Number};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// The meaning of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP
    Reload,
    /// SIGTERM, SIGINT, SIGQUIT, SIGUSR1 (HAProxy's soft stop): drain; while draining, stop.
    End,
    /// SIGUSR2
    Upgrade,
}

/// Receives the signals of this process.
#[derive(Debug)]
pub struct Signals {
    hangup: Stream,
    terminate: Stream,
    interrupt: Stream,
    quit: Stream,
    user1: Stream,
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
            quit: signal(SignalKind::quit())?,
            user1: signal(SignalKind::user_defined1())?,
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
            _ = self.quit.recv() => Signal::End,
            _ = self.user1.recv() => Signal::End,
            _ = self.user2.recv() => Signal::Upgrade,
        }
    }

    /// Waits for a signal that ends the process; others are left to [`Signals::next`].
    pub async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.quit.recv() => {}
            _ = self.user1.recv() => {}
        }
    }
}

/// Blocks signals in this thread and those that it starts, so that no worker is interrupted by
/// them; they are pending until [`Signals::new`]. SIGXFSZ stays blocked, so that a write beyond
/// `RLIMIT_FSIZE` fails with EFBIG instead of killing the process. SIGPIPE needs nothing: Rust's
/// runtime ignores it from the start.
///
/// # Errors
/// None that a caller could handle.
pub fn block() -> io::Result<()> {
    let mut blocked = ours();
    blocked.add(Number::SIGXFSZ);
    Ok(blocked.thread_block()?)
}

fn ours() -> SigSet {
    let drain = [Number::SIGTERM, Number::SIGINT, Number::SIGQUIT, Number::SIGUSR1];
    drain.into_iter().chain([Number::SIGHUP, Number::SIGUSR2]).collect()
}
