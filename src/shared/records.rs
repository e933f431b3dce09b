//! Session records, and the channel from the workers to the session log.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crossbeam::channel::{self, Receiver, Sender};

use crate::shared::counters::Count;
use crate::sys::address::ClientAddress;
use crate::terms::{End, Reason};

/// Records in the channel: half a second of sessions of a fast machine, 8 MiB of memory.
const RECORDS_WAITING: usize = 32_768;

/// A session that has ended.
#[derive(Debug, Clone)]
pub struct SessionRecord {
    /// Its frontend.
    pub frontend: Arc<str>,
    /// Its backend.
    pub backend: Arc<str>,
    /// The last server that was tried, if any.
    pub server: Option<Arc<str>>,
    /// The address of the client; none if it left at once.
    pub client: Option<ClientAddress>,
    /// When it ended.
    pub ended: SystemTime,
    /// From accept to the end.
    pub duration: Duration,
    /// From accept to the established connection, with preface and queue; none if there was none.
    pub connect: Option<Duration>,
    /// Attempts after the first.
    pub retries: u32,
    /// Bytes delivered, in and out.
    pub bytes: [u64; 2],
    /// How it ended.
    pub end: End,
}

/// The workers' end of the channel to the session log.
#[derive(Debug)]
pub struct Records {
    queue: Sender<SessionRecord>,
    unwritten: Arc<Count>,
    /// Whether sessions without a byte are logged.
    empty: bool,
}

/// A bounded channel: the workers' end, the log's end, and the count of records that the log could
/// not write.
#[must_use]
pub fn channel(empty: bool) -> (Records, Receiver<SessionRecord>, Arc<Count>) {
    with_capacity(RECORDS_WAITING, empty)
}

fn with_capacity(capacity: usize, empty: bool) -> (Records, Receiver<SessionRecord>, Arc<Count>) {
    let (queue, waiting) = channel::bounded(capacity);
    let unwritten = Arc::new(Count::default());
    (Records { queue, unwritten: Arc::clone(&unwritten), empty }, waiting, unwritten)
}

impl Records {
    /// Whether a session is to be logged. Without `observe.log.empty`, one without a byte is not,
    /// unless a server or a limit has ended it.
    #[must_use]
    pub fn wants(&self, bytes: [u64; 2], reason: Reason) -> bool {
        let by_the_peers = matches!(
            reason,
            Reason::Done
                | Reason::ClientLeft
                | Reason::ClientReset
                | Reason::IdleTimeout
                | Reason::HalfClosedTimeout
        );
        self.empty || bytes != [0; 2] || !by_the_peers
    }

    /// Hands `record` over; false: the channel is full, and the record is dropped.
    #[must_use]
    pub fn offer(&self, record: SessionRecord) -> bool {
        self.queue.try_send(record).is_ok()
    }

    /// Records that were handed over and could not be written.
    #[must_use]
    pub fn unwritten(&self) -> u64 {
        self.unwritten.read()
    }
}

#[cfg(any(test, fuzzing))]
impl SessionRecord {
    /// A made-up record, for tests and fuzzing.
    pub(crate) fn sample() -> Self {
        Self {
            frontend: "http".into(),
            backend: "web".into(),
            server: Some("web1".into()),
            client: "192.0.2.7:50123".parse().ok().map(ClientAddress::Ip),
            ended: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            duration: Duration::from_micros(234_567),
            connect: Some(Duration::from_micros(214)),
            retries: 1,
            bytes: [512, 10_240],
            end: End::new(Reason::Done, b"--"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_dropped_while_the_channel_is_full() {
        let (records, waiting, _) = with_capacity(1, true);
        let record = SessionRecord::sample();
        assert!(records.offer(record.clone()) && !records.offer(record.clone()));
        drop(waiting.recv().unwrap());
        assert!(records.offer(record), "the channel has room again");
        assert_eq!(records.unwritten(), 0, "a dropped record is not one that failed to be written");
    }
}
