//! All that can happen to the control thread, in one place to wait at.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use crossbeam::channel::Receiver;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::control::prober::ProbeOutcome;
use crate::control::reload::Fresh;
use crate::control::resolve::Resolved;
use crate::control::signals::{Signal, Signals};
use crate::observe::status::Request;
use crate::terms::Seen;

/// What workers saw that is handed on at once; what is beyond it waits in their channel, and when
/// that is full, is lost: each of it only hints.
const SEEN_AT_ONCE: usize = 1024;

/// Requests that wait; who comes then waits himself.
const REQUESTS_WAITING: usize = 64;

/// Between looks at what nobody tells: whether old tables are still read, deadlines of a drain.
const TICK: Duration = Duration::from_millis(500);

/// Something happened.
#[derive(Debug)]
pub(super) enum Event {
    Signal(Signal),
    Request(Request),
    Seen(Vec<Seen>),
    Probed(ProbeOutcome),
    Resolved(Resolved),
    Read(Box<Read>),
    Tick,
    /// Every worker has ended.
    Ended,
}

/// A reload has read its file.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) outcome: Result<Fresh, Vec<String>>,
    /// How often its addresses were in use by us, still leaving them.
    pub(super) attempts: u32,
}

/// Where events arrive.
#[derive(Debug)]
pub(super) struct Inbox {
    signals: Signals,
    requests: mpsc::Receiver<Request>,
    seen: mpsc::Receiver<Vec<Seen>>,
    probed: mpsc::UnboundedReceiver<ProbeOutcome>,
    resolved: mpsc::UnboundedReceiver<Resolved>,
    read: mpsc::UnboundedReceiver<Read>,
    tick: Interval,
    ended: oneshot::Receiver<()>,
}

/// Where others put them.
#[derive(Debug)]
pub(super) struct Slots {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) probed: mpsc::UnboundedSender<ProbeOutcome>,
    pub(super) resolved: mpsc::UnboundedSender<Resolved>,
    pub(super) read: mpsc::UnboundedSender<Read>,
}

impl Inbox {
    /// An inbox that takes the signals over.
    ///
    /// # Errors
    /// The runtime cannot take the signals, or no thread can be had.
    pub(super) fn new(
        seen: Receiver<Seen>,
        ended: oneshot::Receiver<()>,
    ) -> io::Result<(Self, Slots)> {
        let seen = bridge(seen)?;
        let (requests_slot, requests) = mpsc::channel(REQUESTS_WAITING);
        let (probed_slot, probed) = mpsc::unbounded_channel();
        let (resolved_slot, resolved) = mpsc::unbounded_channel();
        let (read_slot, read) = mpsc::unbounded_channel();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let signals = Signals::new()?;
        let inbox = Self { signals, requests, seen, probed, resolved, read, tick, ended };
        let slots = Slots {
            requests: requests_slot,
            probed: probed_slot,
            resolved: resolved_slot,
            read: read_slot,
        };
        Ok((inbox, slots))
    }

    /// The next event. Not to be called again after [`Event::Ended`].
    pub(super) async fn next(&mut self) -> Event {
        // Every sender but that of `seen` is held by our own side, so that none runs dry.
        tokio::select! {
            signal = self.signals.next() => Event::Signal(signal),
            Some(request) = self.requests.recv() => Event::Request(request),
            Some(seen) = self.seen.recv() => Event::Seen(seen),
            Some(outcome) = self.probed.recv() => Event::Probed(outcome),
            Some(resolved) = self.resolved.recv() => Event::Resolved(resolved),
            Some(read) = self.read.recv() => Event::Read(Box::new(read)),
            _ = self.tick.tick() => Event::Tick,
            _ = &mut self.ended => Event::Ended,
        }
    }

    /// Another outcome that is there already.
    pub(super) fn another_probe(&mut self) -> Option<ProbeOutcome> {
        self.probed.try_recv().ok()
    }
}

/// Waits for what workers say, on a thread of its own: a worker then pays for a `try_send` and
/// nothing more, and wakes nobody by a system call of its own.
fn bridge(seen: Receiver<Seen>) -> io::Result<mpsc::Receiver<Vec<Seen>>> {
    let (sender, receiver) = mpsc::channel(1);
    let run = move || {
        while let Ok(first) = seen.recv() {
            // A thousand refused connects of one server are one thing to know.
            let mut known = BTreeSet::new();
            let mut batch = Vec::new();
            for seen in std::iter::once(first).chain(seen.try_iter().take(SEEN_AT_ONCE)) {
                let is_news = match seen {
                    Seen::ConnectFailed(server, _) => known.insert(server),
                    _ => true,
                };
                if is_news {
                    batch.push(seen);
                }
            }
            if sender.blocking_send(batch).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new().name("seen".to_owned()).spawn(run)?;
    Ok(receiver)
}
