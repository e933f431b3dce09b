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
use crate::shared::events::WorkerEvent;
use crate::shared::orders::Request;

/// What workers saw that is handed on at once; what is beyond it waits in their channel, and when
/// that is full, is lost: each of it only hints.
const EVENTS_AT_ONCE: usize = 1024;

/// Between looks at what nobody tells: whether old tables are still read, deadlines of a drain.
const TICK: Duration = Duration::from_millis(500);

/// Something happened.
#[derive(Debug)]
pub(super) enum Event {
    Signal(Signal),
    Request(Request),
    Workers(Vec<WorkerEvent>),
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
    workers: mpsc::Receiver<Vec<WorkerEvent>>,
    probed: mpsc::UnboundedReceiver<ProbeOutcome>,
    resolved: mpsc::UnboundedReceiver<Resolved>,
    read: mpsc::UnboundedReceiver<Read>,
    tick: Interval,
    ended: oneshot::Receiver<()>,
}

/// Where others put them.
#[derive(Debug)]
pub(super) struct Slots {
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
        events: Receiver<WorkerEvent>,
        requests: mpsc::Receiver<Request>,
        ended: oneshot::Receiver<()>,
    ) -> io::Result<(Self, Slots)> {
        let workers = bridge(events)?;
        let (probed_slot, probed) = mpsc::unbounded_channel();
        let (resolved_slot, resolved) = mpsc::unbounded_channel();
        let (read_slot, read) = mpsc::unbounded_channel();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let signals = Signals::new()?;
        let inbox = Self { signals, requests, workers, probed, resolved, read, tick, ended };
        let slots = Slots { probed: probed_slot, resolved: resolved_slot, read: read_slot };
        Ok((inbox, slots))
    }

    /// The next event. Not to be called again after [`Event::Ended`].
    pub(super) async fn next(&mut self) -> Event {
        // A channel whose senders are gone is not polled; the tick and the signals remain.
        tokio::select! {
            signal = self.signals.next() => Event::Signal(signal),
            Some(request) = self.requests.recv() => Event::Request(request),
            Some(events) = self.workers.recv() => Event::Workers(events),
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
fn bridge(events: Receiver<WorkerEvent>) -> io::Result<mpsc::Receiver<Vec<WorkerEvent>>> {
    let (sender, receiver) = mpsc::channel(1);
    let run = move || {
        while let Ok(first) = events.recv() {
            // A thousand refused connects of one server are one thing to know.
            let mut known = BTreeSet::new();
            let mut batch = Vec::new();
            for event in std::iter::once(first).chain(events.try_iter().take(EVENTS_AT_ONCE)) {
                let is_news = match event {
                    WorkerEvent::ConnectFailed(server, _) => known.insert(server),
                    _ => true,
                };
                if is_news {
                    batch.push(event);
                }
            }
            if sender.blocking_send(batch).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new().name("events".to_owned()).spawn(run)?;
    Ok(receiver)
}
