//! The counters of a process that drains, for the one that has replaced it.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::control::upgrade::successor::START_TIMEOUT;
use crate::control::upgrade::wire;
use crate::shared::totals::Totals;

/// For the first totals, while this process is still in charge.
const FIRST_TIMEOUT: Duration = Duration::from_secs(5);

/// For the last totals to be read. The new process does not read while it starts one that replaces
/// it: for [`START_TIMEOUT`], and the time in which that one is put in charge or ended.
const LAST_TIMEOUT: Duration = START_TIMEOUT.saturating_add(Duration::from_secs(10));

/// Totals of many servers take a while: they are made for one part in so many of the time.
const COST_SHARE: u32 = 20;

/// The decision that a new process waits for. It is in charge once it has the first totals whole,
/// so their last byte is the point of no return: whichever process is stopped or killed before or
/// after it, one of them is in charge.
#[derive(Debug)]
pub struct Decision {
    stream: UnixStream,
    last: Vec<u8>,
}

impl Decision {
    /// Sends the first totals but for their last byte. The new process still waits; if this is
    /// dropped, it ends.
    ///
    /// # Errors
    /// The new process is gone, or does not read.
    pub fn prepare(stream: UnixStream, totals: &Totals) -> io::Result<Self> {
        let deadline = Instant::now() + FIRST_TIMEOUT;
        let mut bytes = wire::encode(totals)?;
        let last = bytes.split_off(bytes.len() - 1);
        wire::write_bytes(&stream, &bytes, deadline)?;
        wait_for_room(&stream, deadline)?;
        Ok(Self { stream, last })
    }

    /// Sends the last byte, for which there is room.
    ///
    /// # Errors
    /// The new process is gone: it is not in charge.
    pub fn take(self) -> io::Result<Publisher> {
        let Self { mut stream, last } = self;
        stream.set_nonblocking(true)?;
        stream.write_all(&last)?;
        Ok(Publisher { stream: Some(stream), unsent: Vec::new(), next: Instant::now() })
    }
}

/// Waits until the next write takes at least a byte.
fn wait_for_room(stream: &UnixStream, deadline: Instant) -> io::Result<()> {
    let mut polled = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match poll(&mut polled, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) if polled[0].revents() == Some(PollFlags::POLLOUT) => return Ok(()),
            Ok(_) => return Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

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

    /// Sends the last totals, and waits for that, but not for ever. For a process that has no
    /// session any more.
    pub fn finish(self, totals: &Totals) {
        let Some(stream) = self.stream else { return };
        let deadline = Instant::now() + LAST_TIMEOUT;
        let sent = stream.set_nonblocking(false).and_then(|()| {
            wire::write_bytes(&stream, &self.unsent, deadline)?;
            wire::write(&stream, totals, deadline)
        });
        if let Err(error) = sent {
            tracing::debug!("the new process does not take the last counters: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_last_byte_decides_and_nothing_decides_for_a_process_that_is_gone() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let totals = wire::encode(&Totals::default()).unwrap();
        let decision = Decision::prepare(here, &Totals::default()).unwrap();
        let mut read = vec![0; totals.len()];
        there.read_exact(&mut read[1..]).unwrap();
        assert_eq!(read[1..], totals[..totals.len() - 1]);
        let _publisher = decision.take().unwrap();
        there.read_exact(&mut read[..1]).unwrap();
        assert_eq!(read[..1], totals[totals.len() - 1..]);
        let (here, there) = UnixStream::pair().unwrap();
        let decision = Decision::prepare(here.try_clone().unwrap(), &Totals::default()).unwrap();
        drop(there);
        assert!(decision.take().is_err());
        let error = Decision::prepare(here, &Totals::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
