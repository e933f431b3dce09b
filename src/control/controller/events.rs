//! The events of the control thread, and the one place where it waits for them.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use crossbeam::channel::Receiver;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::config::Difference;
use crate::control::cluster::ProbeReport;
use crate::control::reload::NewConfig;
use crate::control::resolve::{Resolved, SrvAnswer};
use crate::control::signals::{Signal, Signals};
use crate::control::upgrade::Successor;
use crate::shared::events::{FailedConnects, WorkerEvent};
use crate::shared::orders::Request;
use crate::shared::plan::ReloadPlan;
use crate::terms::EndpointId;

/// Worker events in one batch. The others wait in their channel; when it is full, events are lost,
/// which costs only hints.
const EVENTS_AT_ONCE: usize = 1024;

/// Between two ticks: what the control thread does without another event is in
/// `Controller::on_tick`.
const TICK: Duration = Duration::from_millis(500);

/// One event.
#[derive(Debug)]
pub(super) enum Event {
    Signal(Signal),
    Request(Request),
    Workers(Batch),
    Probed(ProbeReport),
    Resolved(Resolved),
    Supplied(Resolved<SrvAnswer>),
    Read(Box<Read>),
    /// A new process is ready, or has not started.
    Upgraded(Result<Successor, String>),
    /// An earlier process has sent its counters, or has ended.
    Counted,
    /// A table that had to wait is due.
    TableDue,
    Tick,
    /// Every worker has ended.
    Ended,
}

/// Events of workers that came together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Failed connects: a thousand to one endpoint are one event.
    pub(super) failed: BTreeMap<EndpointId, FailedConnects>,
    /// All others, in order.
    pub(super) others: Vec<WorkerEvent>,
}

impl Batch {
    fn add(&mut self, event: WorkerEvent) {
        let WorkerEvent::ConnectFailed(endpoint, failure) = event else {
            return self.others.push(event);
        };
        let none = FailedConnects { count: 0, last: failure };
        self.failed.entry(endpoint).or_insert(none).add(failure);
    }
}

/// A reload has read its file.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) outcome: Result<NewConfig, Vec<String>>,
    /// How often addresses were still bound by our own sockets.
    pub(super) attempts: u32,
    /// What differs, and who is to be told, if nothing is to change.
    pub(super) dry_run: Option<DryRun>,
}

/// What differs between a file and others that were read before.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// From the file that was read last, without keys that need a restart.
    pub(super) differences: Vec<Difference>,
    /// From the file of the start.
    pub(super) since_start: Vec<Difference>,
}

/// A file is to be compared with the configuration in force.
#[derive(Debug)]
pub(super) struct DryRun {
    pub(super) comparison: Comparison,
    pub(super) answer: oneshot::Sender<Result<ReloadPlan, String>>,
}

/// The receiving ends of all events.
#[derive(Debug)]
pub(super) struct Events {
    signals: Signals,
    requests: mpsc::Receiver<Request>,
    workers: mpsc::Receiver<Batch>,
    probed: mpsc::UnboundedReceiver<ProbeReport>,
    resolved: mpsc::UnboundedReceiver<Resolved>,
    supplied: mpsc::UnboundedReceiver<Resolved<SrvAnswer>>,
    read: mpsc::UnboundedReceiver<Read>,
    upgraded: mpsc::UnboundedReceiver<Result<Successor, String>>,
    counted: mpsc::UnboundedReceiver<()>,
    tick: Interval,
    ended: oneshot::Receiver<()>,
}

/// The sending ends, for the tasks of the control thread.
#[derive(Debug)]
pub(super) struct Senders {
    pub(super) probed: mpsc::UnboundedSender<ProbeReport>,
    pub(super) resolved: mpsc::UnboundedSender<Resolved>,
    pub(super) supplied: mpsc::UnboundedSender<Resolved<SrvAnswer>>,
    pub(super) read: mpsc::UnboundedSender<Read>,
    pub(super) upgraded: mpsc::UnboundedSender<Result<Successor, String>>,
    pub(super) counted: mpsc::UnboundedSender<()>,
}

impl Events {
    /// Events of all of these.
    pub(super) fn new(
        signals: Signals,
        WorkerEvents(workers): WorkerEvents,
        requests: mpsc::Receiver<Request>,
        ended: oneshot::Receiver<()>,
    ) -> (Self, Senders) {
        let (probed_sender, probed) = mpsc::unbounded_channel();
        let (resolved_sender, resolved) = mpsc::unbounded_channel();
        let (supplied_sender, supplied) = mpsc::unbounded_channel();
        let (read_sender, read) = mpsc::unbounded_channel();
        let (upgraded_sender, upgraded) = mpsc::unbounded_channel();
        let (counted_sender, counted) = mpsc::unbounded_channel();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let senders = Senders {
            probed: probed_sender,
            resolved: resolved_sender,
            supplied: supplied_sender,
            read: read_sender,
            upgraded: upgraded_sender,
            counted: counted_sender,
        };
        let events = Self {
            signals,
            requests,
            workers,
            probed,
            resolved,
            supplied,
            read,
            upgraded,
            counted,
            tick,
            ended,
        };
        (events, senders)
    }

    /// The next event. Not to be called again after [`Event::Ended`].
    pub(super) async fn next(&mut self) -> Event {
        // A channel whose senders are gone is not polled; the tick and the signals remain.
        tokio::select! {
            signal = self.signals.next() => Event::Signal(signal),
            Some(request) = self.requests.recv() => Event::Request(request),
            Some(batch) = self.workers.recv() => Event::Workers(batch),
            Some(report) = self.probed.recv() => Event::Probed(report),
            Some(resolved) = self.resolved.recv() => Event::Resolved(resolved),
            Some(supplied) = self.supplied.recv() => Event::Supplied(supplied),
            Some(read) = self.read.recv() => Event::Read(Box::new(read)),
            Some(outcome) = self.upgraded.recv() => Event::Upgraded(outcome),
            Some(()) = self.counted.recv() => Event::Counted,
            _ = self.tick.tick() => Event::Tick,
            _ = &mut self.ended => Event::Ended,
        }
    }

    /// Another answer of DNS that has already arrived.
    pub(super) fn another_answer(&mut self) -> Option<Resolved> {
        self.resolved.try_recv().ok()
    }

    /// Another result that has already arrived.
    pub(super) fn another_probe(&mut self) -> Option<ProbeReport> {
        self.probed.try_recv().ok()
    }
}

/// The events of workers, for the control thread.
#[derive(Debug)]
pub struct WorkerEvents(mpsc::Receiver<Batch>);

impl WorkerEvents {
    /// Forwards them from a thread of its own: a worker then pays for a `try_send` only, and makes
    /// no system call to wake the control thread.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn forward(events: Receiver<WorkerEvent>) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(1);
        let run = move || {
            while let Ok(first) = events.recv() {
                let mut batch = Batch::default();
                for event in std::iter::once(first).chain(events.try_iter().take(EVENTS_AT_ONCE)) {
                    batch.add(event);
                }
                if sender.blocking_send(batch).is_err() {
                    break;
                }
            }
        };
        std::thread::Builder::new().name("events".to_owned()).spawn(run)?;
        Ok(Self(receiver))
    }
}
