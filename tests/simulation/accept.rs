//! The accept gate on a model of a listening socket: connections wait in a backlog, accepts
//! complete when and how a seed decides, sessions begin and end, descriptors run out, and a drain
//! begins.

use std::collections::VecDeque;
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

/// What an accept answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Client(u64),
    Exhausted,
    Nothing,
}

/// A listening socket as its kernel has it.
#[derive(Debug, Default)]
pub(crate) struct ListeningSocket {
    /// Clients that are connected and not accepted, by number.
    backlog: VecDeque<u64>,
    armed: Option<Armed>,
    cancelled: bool,
}

impl ListeningSocket {
    pub(crate) fn connect(&mut self, client: u64) {
        self.backlog.push_back(client);
    }

    pub(crate) const fn is_armed(&self) -> bool {
        self.armed.is_some()
    }

    /// Does what `gate` has decided in this situation.
    pub(crate) fn act(&mut self, action: Action, situation: Situation, gate: &Gate) {
        let Situation { room, parked, starved } = situation;
        let draining = gate.is_draining();
        match action {
            Action::Nothing => {}
            Action::ArmOne | Action::ArmMany => {
                assert!(self.armed.is_none() && !draining && !starved, "armed too early: {self:?}");
                assert!(room > 0 && parked == 0, "armed without room: {self:?} {situation:?}");
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
                assert!(self.backlog.is_empty(), "connections are lost: {self:?}");
            }
        }
    }

    /// Completes the accept, if it can: the answer, and whether the accept goes on. `exhausted`: no
    /// descriptor is left for a client.
    pub(crate) fn complete(
        &mut self,
        exhausted: bool,
        random: &mut Random,
    ) -> Option<(Answer, bool)> {
        let armed = self.armed?;
        let waiting = !self.backlog.is_empty();
        let (answer, more) = if waiting && exhausted {
            (Answer::Exhausted, false)
        } else if waiting && !(self.cancelled && random.one_in(2)) {
            let client = self.backlog.pop_front()?;
            (Answer::Client(client), armed == Armed::Many && !random.one_in(8))
        } else if self.cancelled || armed == Armed::Drain {
            (Answer::Nothing, false)
        } else {
            return None;
        };
        if !more {
            self.armed = None;
            self.cancelled = false;
        }
        Some((answer, more))
    }
}

/// A listener, and the sessions of its clients.
#[derive(Debug)]
struct Model {
    random: Random,
    gate: Gate,
    shortage: DescriptorShortage,
    now: Tick,
    socket: ListeningSocket,
    connected: u64,
    served: u64,
    parked: usize,
    open: u32,
    sessions_max: u32,
    /// Sessions and parked connections that descriptors allow.
    descriptors: u32,
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
            socket: ListeningSocket::default(),
            connected: 0,
            served: 0,
            parked: 0,
            open: 0,
            sessions_max,
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
        let situation = Situation { room, parked: self.parked, starved };
        let action = self.gate.next(situation);
        self.socket.act(action, situation, &self.gate);
    }

    fn begin(&mut self) {
        self.open += 1;
        self.served += 1;
    }

    /// The kernel completes the accept, if it can.
    fn complete(&mut self) {
        let exhausted = self.in_use() >= self.descriptors;
        let Some((answer, more)) = self.socket.complete(exhausted, &mut self.random) else {
            return;
        };
        match answer {
            Answer::Exhausted => {
                self.gate.on_completed(more, Accepted::Exhausted);
                self.shortage.begin(self.now);
            }
            Answer::Client(_) => {
                let fds_low = self.gate.is_draining() && self.in_use() + 1 >= self.descriptors;
                self.gate.on_completed(more, Accepted::Client { fds_low });
                if self.parked == 0 && self.open < self.sessions_max {
                    self.begin();
                } else {
                    self.parked += 1;
                }
            }
            Answer::Nothing => self.gate.on_completed(more, Accepted::Nothing),
        }
    }
}

/// Runs one listener from its first connection to its close.
pub(crate) fn run(seed: u64) {
    let mut model = Model::new(seed);
    let drain_at = model.random.below(2000);
    for step in 0..20_000 {
        if model.gate.is_stopped() {
            break;
        }
        let mut released = false;
        match model.random.below(4) {
            0 if step < drain_at => {
                model.socket.connect(model.connected);
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
    assert!(model.gate.is_stopped(), "it never stops: {model:?}");
    for _ in 0..10_000 {
        model.open = model.open.saturating_sub(1);
        model.now = model.now.after(Duration::from_millis(20));
        model.turn(true);
    }
    assert_eq!((model.served, model.parked), (model.connected, 0), "each is served: {model:?}");
}
