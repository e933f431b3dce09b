//! The counters of a process that drains, for the one that has replaced it.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::control::upgrade::wire;
use crate::shared::totals::Totals;

/// For the last totals to be read: longer than the new process may be busy.
const LAST_TIMEOUT: Duration = Duration::from_secs(2);

/// For the first totals, while this process is still in charge.
const FIRST_TIMEOUT: Duration = Duration::from_secs(5);

/// Totals of many servers take a while: they are made for one part in so many of the time.
const COST_SHARE: u32 = 20;

/// The stream to the new process.
#[derive(Debug)]
pub struct Publisher {
    /// None once the new process is gone.
    stream: Option<UnixStream>,
    /// The rest of a message that the new process has not read yet.
    unsent: Vec<u8>,
    /// When the next totals are due.
    next: Instant,
}

impl Publisher {
    /// Publishes on a stream to a new process, first of all these totals: they tell it that this
    /// process has stopped accepting.
    ///
    /// # Errors
    /// The new process is gone.
    pub fn begin(stream: UnixStream, totals: &Totals) -> io::Result<Self> {
        // The new process waits for them, and for nothing else.
        wire::write(&stream, totals, Instant::now() + FIRST_TIMEOUT)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream: Some(stream), unsent: Vec::new(), next: Instant::now() })
    }

    /// Sends newer totals, unless the last ones are still on their way. Never waits.
    pub fn publish(&mut self, totals: impl FnOnce() -> Totals) {
        let sent = self.send().and_then(|()| {
            let begun = Instant::now();
            if self.unsent.is_empty() && self.stream.is_some() && begun >= self.next {
                self.unsent = wire::encode(&totals())?;
                self.next = Instant::now() + begun.elapsed() * COST_SHARE;
            }
            self.send()
        });
        if let Err(error) = sent {
            tracing::debug!("the new process does not take counters: {error}");
            self.stream = None;
        }
    }

    fn send(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        while !self.unsent.is_empty() {
            match stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends the last totals, and waits for that, but not long. For a process that has no session
    /// any more.
    pub fn finish(self, totals: &Totals) {
        let Some(mut stream) = self.stream else { return };
        let deadline = Instant::now() + LAST_TIMEOUT;
        let sent = stream.set_nonblocking(false).and_then(|()| {
            stream.set_write_timeout(Some(LAST_TIMEOUT))?;
            stream.write_all(&self.unsent)?;
            wire::write(&stream, totals, deadline)
        });
        if let Err(error) = sent {
            tracing::debug!("the new process does not take the last counters: {error}");
        }
    }
}
