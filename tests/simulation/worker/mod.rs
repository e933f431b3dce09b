//! A worker as data: it takes the steps of `proxy::worker` and `proxy::listeners`, with the real
//! gates, permits, slots, timers and sessions, and the kernel is the model.

mod orders;

use std::iter;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;

use evenkeel::proxy::io::Event;
use evenkeel::proxy::session::Session;
use evenkeel::proxy::slots::{Key, Slots};
use evenkeel::proxy::timer_wheel::{Tick, TimerWheel};
use evenkeel::proxy::worker_handle::WorkerHandle;
use evenkeel::shared::phase::Phase;
use evenkeel::shared::table::{FrontendShared, Table};
use evenkeel::terms::WorkerIndex;

use crate::accept::Answer;
use crate::context::{Begun, Context};
use crate::fate::Planted;
use crate::kernel::{Memory, Simulated};
use crate::listening::{Listening, NewClient};
use crate::live::Live;
use crate::random::Random;

const BUFFERS: u16 = 8;
const PIPES: u16 = 2;
/// Of a session, to let something happen, before another one is looked at.
const ATTEMPTS: u32 = 12;

/// A worker.
#[derive(Debug)]
pub(crate) struct Worker {
    handle: Rc<WorkerHandle>,
    table: Arc<Table>,
    listeners: Vec<Listening>,
    sessions: Slots<Box<Live>>,
    /// Of all sessions.
    keys: Vec<Key>,
    timers: TimerWheel,
    memory: Memory,
    /// Its waker was used.
    woken: bool,
    pause: Pause,
    /// What is left of its turn.
    rest: Option<Rest>,
    ended: bool,
}

/// As in `proxy::listeners`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    No,
    Begins,
    Yes,
}

/// What is left of a turn once the gates have decided: other workers act before it is done.
#[derive(Debug)]
struct Rest {
    /// Whether accepting is to pause.
    full: bool,
    admitted: Vec<NewClient>,
}

/// An operation that has completed.
#[derive(Debug)]
enum Completion {
    Session(Key, Event),
    /// Of the listener at that place; whether the accept goes on.
    Accept(usize, Answer, bool),
}

impl Worker {
    pub(crate) fn new(index: WorkerIndex, context: &Context) -> Self {
        let none = Table { version: 0, ..Table::default() };
        Self {
            handle: Rc::new(WorkerHandle::new(Arc::clone(&context.shared), index)),
            table: Arc::new(none),
            listeners: Vec::new(),
            sessions: Slots::new(),
            keys: Vec::new(),
            timers: TimerWheel::new(),
            memory: Memory::new(BUFFERS, PIPES),
            woken: true,
            pause: Pause::No,
            rest: None,
            ended: false,
        }
    }

    pub(crate) const fn has_ended(&self) -> bool {
        self.ended
    }

    /// When it goes on though nothing happens.
    pub(crate) fn next(&self) -> Option<Tick> {
        self.timers.next()
    }

    /// Notes that its waker was used.
    pub(crate) fn take_wake_up(&mut self) {
        let handle = &self.handle;
        self.woken |= handle.shared.wakers[handle.index.0].take();
    }

    /// A client connects to one of the sockets that will go on to accept; false: there is none.
    pub(crate) fn connect(&mut self, client: u64, random: &mut Random) -> bool {
        let open = self.listeners.iter_mut().filter(|one| !one.gate.is_draining());
        let mut open: Vec<&mut Listening> = open.collect();
        let choice = random.below(open.len() as u64) as usize;
        let listening = open.get_mut(choice);
        listening.is_some_and(|listening| {
            listening.socket.connect(client);
            true
        })
    }

    /// Goes on if anything has happened; false: it waits.
    pub(crate) fn step(&mut self, context: &mut Context) -> bool {
        if let Some(rest) = self.rest.take() {
            self.end_turn(rest, context);
            return true;
        }
        if self.ended {
            return false;
        }
        let completion = self.completion(context);
        let due = self.timers.next().is_some_and(|next| next <= context.now);
        let returns = self.woken || self.pause == Pause::Begins || due || context.is_drain_over();
        if completion.is_none() && !returns {
            return false;
        }
        self.turn(completion, context);
        true
    }

    /// A worker that waits has followed the table in force, and has no room for a client that it
    /// has not asked for.
    pub(crate) fn assert_not_asleep(&self) {
        if self.ended || self.acts() {
            return;
        }
        let in_force = self.handle.shared.table.load().version;
        assert_eq!(self.table.version, in_force, "it goes by an old table");
        for listening in &self.listeners {
            let asleep = listening.is_asleep(&self.handle);
            assert!(!asleep, "a wake-up is lost: {:?} {listening:?}", self.pause);
        }
    }

    /// Whether it goes on without anything that happens.
    pub(crate) fn acts(&self) -> bool {
        self.rest.is_some() || self.woken || self.pause == Pause::Begins
    }

    /// The first in a queue is not left to wait while there is room for it.
    pub(crate) fn assert_told(&mut self, key: Key, in_force: &Table) {
        let acts = self.acts();
        let live = self.sessions.get(key).expect("who waits has a session");
        let asleep = !acts && live.is_queued() && live.waits_for_nothing(in_force);
        assert!(!asleep, "a wake-up is lost: {} of {:?}", live.number, live.session);
    }

    /// Looks at every session.
    pub(crate) fn look(&mut self, mut look: impl FnMut(&Live)) {
        for key in &self.keys {
            let live = self.sessions.get(*key).expect("a session has its key until it has ended");
            look(live);
        }
    }

    /// The frontends of clients that are counted and whose sessions have not begun.
    pub(crate) fn admitted(&self) -> impl Iterator<Item = &Arc<FrontendShared>> {
        let admitted = self.rest.iter().flat_map(|rest| &rest.admitted);
        admitted.map(|client| &client.frontend.shared)
    }

    pub(crate) fn assert_nothing_left(&self) {
        assert!(self.ended && self.sessions.is_empty() && self.listeners.is_empty(), "{self:?}");
        self.memory.assert_all_returned();
        assert_eq!(self.timers.next(), None, "a deadline is left");
    }

    /// Something that the kernel has completed.
    fn completion(&mut self, context: &mut Context) -> Option<Completion> {
        let sources = self.listeners.len() + self.keys.len();
        let choice = context.random.below(sources as u64) as usize;
        if let Some(listening) = self.listeners.get_mut(choice) {
            let (answer, more) = listening.socket.complete(false, &mut context.random)?;
            return Some(Completion::Accept(choice, answer, more));
        }
        let key = *self.keys.get(choice - self.listeners.len())?;
        let live = self.sessions.get(key)?;
        live.kernel.swap_memory(&mut self.memory);
        let event = live.kernel.try_step(&live.session, ATTEMPTS);
        live.kernel.swap_memory(&mut self.memory);
        Some(Completion::Session(key, event?))
    }

    fn turn(&mut self, completion: Option<Completion>, context: &mut Context) {
        self.follow_table(context);
        self.follow_phase(context);
        if let Some(completion) = completion {
            self.dispatch(completion, context);
            for _ in 0..context.random.below(3) {
                if let Some(completion) = self.completion(context) {
                    self.dispatch(completion, context);
                }
            }
        }
        if mem::take(&mut self.woken) {
            self.follow_orders(context);
        }
        let mut due = Vec::new();
        self.timers.advance(context.now, &mut due);
        for slot in due {
            if let Some((key, _)) = self.sessions.at(slot) {
                self.with(key, context, |session, now, io| session.on(Event::Deadline, now, io));
            }
        }
        self.turn_listeners();
    }

    fn dispatch(&mut self, completion: Completion, context: &mut Context) {
        match completion {
            Completion::Session(key, event) => {
                let told = matches!(
                    event,
                    Event::BufferFree(_) | Event::ServerFree | Event::BuffersStalled
                );
                assert!(told || self.sessions.get(key).is_some(), "{event:?} comes too late");
                self.with(key, context, |session, now, io| session.on(event, now, io));
            }
            Completion::Accept(index, answer, more) => {
                let listening = &mut self.listeners[index];
                listening.on_answer(answer, more);
                if listening.parked.len() == 1
                    && let Some(client) = listening.admit(&self.handle)
                {
                    self.begin(client, context);
                }
            }
        }
    }

    fn begin(&mut self, client: NewClient, context: &mut Context) {
        let (number, worker) = (client.number, self.handle.index);
        let live = Live::new(client, context);
        let key = self.sessions.reserve();
        self.sessions.insert(key, Box::new(live));
        self.keys.push(key);
        context.record.begun.push(Begun { number, worker, key });
        self.with(key, context, |session, now, io| session.start(now, io));
    }

    /// Lets a session act, then does what it asks for.
    fn with(
        &mut self,
        key: Key,
        context: &mut Context,
        act: impl FnOnce(&mut Session, Tick, &mut Simulated),
    ) {
        let Some(live) = self.sessions.get(key) else { return };
        live.kernel.swap_memory(&mut self.memory);
        live.route(key, &self.handle, &self.table, context);
        act(&mut live.session, context.now, &mut live.kernel);
        live.route(key, &self.handle, &self.table, context);
        live.kernel.swap_memory(&mut self.memory);
        if !live.session.is_closed() {
            let deadline = live.session.deadline();
            if deadline < self.timers.deadline(key.slot) {
                self.timers.set(key.slot, deadline);
            }
        } else if let Some(live) = self.sessions.remove(key) {
            self.timers.set(key.slot, Tick::NEVER);
            self.keys.retain(|known| *known != key);
            live.retire(&self.handle, context);
        }
    }

    /// The first half of what `proxy::listeners` does in a turn.
    fn turn_listeners(&mut self) {
        let mut rest = Rest { full: false, admitted: Vec::new() };
        for listening in &mut self.listeners {
            rest.admitted.extend(iter::from_fn(|| listening.admit(&self.handle)));
            rest.full |= listening.decide(&self.handle);
        }
        self.listeners.retain(|one| !one.gate.is_stopped() || !one.parked.is_empty());
        self.rest = Some(rest);
    }

    /// The second half.
    fn end_turn(&mut self, rest: Rest, context: &mut Context) {
        self.pause = match rest.full {
            false => Pause::No,
            true if context.shared.pause(self.handle.index) => {
                context.record.pauses += 1;
                let unchecked = context.is_planted(Planted::UncheckedPause);
                if unchecked { Pause::Yes } else { Pause::Begins }
            }
            true => Pause::Yes,
        };
        if self.pause == Pause::Yes && !rest.admitted.is_empty() {
            self.pause = Pause::Begins;
        }
        for client in rest.admitted {
            self.begin(client, context);
        }
        let draining = context.shared.phase.load() != Phase::Running;
        if draining && self.listeners.is_empty() && self.sessions.is_empty() {
            self.ended = true;
            context.shared.end(self.handle.index);
        }
    }
}
