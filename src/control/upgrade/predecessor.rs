//! A process that this one has replaced and that still has sessions: its counters, and its end.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use crate::control::upgrade::messages::STATE_MAX;
use crate::control::upgrade::wire;
use crate::shared::totals::Totals;

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;

/// What was read from a predecessor, for the next process that reads from it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// Its latest totals.
    pub totals: Totals,
    /// The part of its next message that was read.
    pub unread: Vec<u8>,
    /// The numbers of workers of the processes that have read it.
    pub folds: Vec<usize>,
}

/// A predecessor.
#[derive(Debug)]
pub struct Predecessor {
    stream: Arc<UnixStream>,
    reading: Arc<Mutex<Earlier>>,
    /// Reads its totals while this process is in charge.
    task: Option<JoinHandle<()>>,
}

impl Predecessor {
    /// A predecessor that sends totals on `stream`.
    ///
    /// # Errors
    /// The stream cannot be used.
    pub fn new(stream: UnixStream, earlier: Earlier) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let reading = Arc::new(Mutex::new(earlier));
        Ok(Self { stream: Arc::new(stream), reading, task: None })
    }

    /// Reads what it sends, and says so in `changed`, until it ends or [`Predecessor::pause`].
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub fn follow(&mut self, changed: UnboundedSender<()>) -> io::Result<()> {
        self.pause();
        let stream = tokio::net::UnixStream::from_std(self.stream.try_clone()?)?;
        let reading = Arc::clone(&self.reading);
        self.task = Some(tokio_uring::spawn(async move {
            while stream.readable().await.is_ok() {
                let read = read(&stream, &mut lock(&reading));
                // Its end is news as well.
                let is_news = !matches!(read, Ok(false));
                if (is_news && changed.send(()).is_err()) || read.is_err() {
                    break;
                }
            }
        }));
        Ok(())
    }

    /// Stops reading; what was read is kept.
    pub fn pause(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// Whether it has sent its last totals, or is gone.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.task.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Its latest totals.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let reading = lock(&self.reading);
        let mut totals = reading.totals.clone();
        reading.folds.iter().for_each(|workers| totals.fold_workers(*workers));
        totals
    }

    /// What the next process needs to go on reading; this one has so many `workers`.
    #[must_use]
    pub fn earlier(&self, workers: usize) -> Earlier {
        let mut earlier = lock(&self.reading).clone();
        earlier.folds.push(workers);
        earlier
    }

    /// The stream.
    #[must_use]
    pub fn stream(&self) -> Arc<UnixStream> {
        Arc::clone(&self.stream)
    }
}

fn lock(reading: &Mutex<Earlier>) -> MutexGuard<'_, Earlier> {
    // Nothing panics while it is held, and a panic would end the process.
    reading.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads what is there; whether there were totals.
///
/// # Errors
/// It is the end, or no message.
fn read(stream: &tokio::net::UnixStream, earlier: &mut Earlier) -> io::Result<bool> {
    let mut any = false;
    let mut chunk = vec![0; CHUNK];
    loop {
        // First of all, what was read before: the stream may be at its end.
        while let Some(totals) = wire::take(&mut earlier.unread, STATE_MAX)? {
            earlier.totals = totals;
            any = true;
        }
        match stream.try_read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => earlier.unread.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(any),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
