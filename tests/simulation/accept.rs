//! The accept gate on a model of a listening socket: connections wait in a backlog, accepts
//! complete when and how a seed decides, sessions begin and end, descriptors run out, and a drain
//! begins.

use std::time::Duration;

use evenkeel::proxy::accept::{Accepted, Action, DescriptorShortage, Gate, Situation};
use evenkeel::proxy::timer_wheel::Tick;

use crate::random::Random;

/// An accept in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Armed {
    One,
    Many,
    /// One, with its cancel behind it.
    Drain,
}

/// A listening socket, and the sessions of its clients.
#[derive(Debug)]
struct Model {
    random: Random,
    gate: Gate,
    shortage: DescriptorShortage,
    now: Tick,
    armed: Option<Armed>,
    cancelled: bool,
    /// Connections that the kernel holds.
    backlog: u32,
    connected: u32,
    served: u32,
    parked: usize,
    open: u32,
    sessions_max: u32,
    /// Sessions and parked connections that descriptors allow.
    descriptors: u32,
    stopped: bool,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0xacce);
        let large = random.one_in(2);
        let sessions_max =
            if large { 2040 + random.below(20) as u32 } else { 1 + random.below(6) as u32 };
        Self {
            descriptors: if random.one_in(2) { 2 + random.below(8) as u32 } else { 5000 },
            gate: Gate::new(),
            shortage: DescriptorShortage::default(),
            now: Tick(1),
            armed: None,
            cancelled: false,
            backlog: 0,
            connected: 0,
            served: 0,
            parked: 0,
            open: 0,
            sessions_max,
            stopped: false,
            random,
        }
    }

    fn in_use(&self) -> u32 {
        self.open + self.parked as u32
    }

    /// A turn of the worker.
    fn turn(&mut self, released: bool) {
        let left = self.in_use() < self.descriptors;
        self.shortage.turn(self.now, released, || left);
        while self.parked > 0 && self.open < self.sessions_max && !self.shortage.holds_parked() {
            self.parked -= 1;
            self.begin();
        }
        let room = self.sessions_max - self.open;
        let starved = self.shortage.is_starved();
        let action = self.gate.next(Situation { room, parked: self.parked, starved });
        let draining = self.gate.is_draining();
        match action {
            Action::Nothing => {}
            Action::ArmOne | Action::ArmMany => {
                assert!(self.armed.is_none() && !draining && !starved, "armed too early: {self:?}");
                assert!(room > 0 && self.parked == 0, "armed without room: {self:?}");
                let many = action == Action::ArmMany;
                self.armed = Some(if many { Armed::Many } else { Armed::One });
            }
            Action::Cancel => {
                assert!(self.armed.is_some() && !self.cancelled, "nothing to cancel: {self:?}");
                self.cancelled = true;
            }
            Action::DrainBacklog => {
                assert!(self.armed.is_none() && draining, "drained too early: {self:?}");
                self.armed = Some(Armed::Drain);
            }
            Action::Stop => {
                assert!(self.armed.is_none() && draining, "stopped too early: {self:?}");
                assert_eq!(self.backlog, 0, "connections are lost: {self:?}");
                self.stopped = true;
            }
        }
    }

    fn begin(&mut self) {
        self.open += 1;
        self.served += 1;
    }

    /// The kernel completes the accept, if it can.
    fn complete(&mut self) {
        let Some(armed) = self.armed else { return };
        if self.backlog > 0 && self.in_use() >= self.descriptors {
            self.armed = None;
            self.cancelled = false;
            self.gate.on_completed(false, Accepted::Exhausted);
            self.shortage.begin(self.now);
        } else if self.backlog > 0 && !(self.cancelled && self.random.one_in(2)) {
            self.backlog -= 1;
            let more = armed == Armed::Many && !self.random.one_in(8);
            if !more {
                self.armed = None;
                self.cancelled = false;
            }
            let fds_low = self.gate.is_draining() && self.in_use() + 1 >= self.descriptors;
            self.gate.on_completed(more, Accepted::Client { fds_low });
            if self.parked == 0 && self.open < self.sessions_max {
                self.begin();
            } else {
                self.parked += 1;
            }
        } else if self.cancelled || armed == Armed::Drain {
            self.armed = None;
            self.cancelled = false;
            self.gate.on_completed(false, Accepted::Nothing);
        }
    }
}

/// Runs one listener from its first connection to its close.
pub(crate) fn run(seed: u64) {
    let mut model = Model::new(seed);
    let drain_at = model.random.below(2000);
    for step in 0..20_000 {
        if model.stopped {
            break;
        }
        let mut released = false;
        match model.random.below(4) {
            0 if step < drain_at => {
                model.backlog += 1;
                model.connected += 1;
            }
            1 if model.open > 0 => {
                model.open -= 1;
                released = true;
            }
            _ => model.complete(),
        }
        if step == drain_at {
            model.gate.drain();
        }
        model.now = model.now.after(Duration::from_millis(model.random.below(20)));
        model.turn(released);
    }
    assert!(model.stopped && model.gate.is_stopped(), "it never stops: {model:?}");
    for _ in 0..10_000 {
        model.open = model.open.saturating_sub(1);
        model.now = model.now.after(Duration::from_millis(20));
        model.turn(true);
    }
    assert_eq!((model.served, model.parked), (model.connected, 0), "each is served: {model:?}");
}
