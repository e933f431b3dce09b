//! Waiting for a time, or until a signal asks the demo to stop.

use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

/// Catches SIGINT, SIGTERM and SIGHUP: they end a wait, and not the process.
#[derive(Debug)]
pub(super) struct StopSignals {
    runtime: Runtime,
    signals: [Signal; 3],
}

impl StopSignals {
    pub(super) fn new() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let signals = [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ];
        drop(entered);
        Ok(Self { runtime, signals })
    }

    /// Waits for `time`.
    ///
    /// # Errors
    /// `Interrupted`: one of the signals came, now or since the last wait.
    pub(super) fn wait(&mut self, time: Duration) -> io::Result<()> {
        let [interrupt, terminate, hangup] = &mut self.signals;
        let waited = self.runtime.block_on(async {
            timeout(time, async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
            })
            .await
        });
        match waited {
            Err(_) => Ok(()),
            Ok(()) => Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted")),
        }
    }
}
