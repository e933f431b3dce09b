//! Waiting, until a moment or until somebody presses Ctrl-C.

use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

/// SIGINT, SIGTERM and SIGHUP end the waiting instead of the process, from its making on.
#[derive(Debug)]
pub(super) struct Patience {
    runtime: Runtime,
    signals: [Signal; 3],
}

impl Patience {
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
    /// `Interrupted`: somebody wants the end, now or since the last wait.
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
