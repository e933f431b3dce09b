//! What the control thread puts in force, and what it orders.

use std::rc::Rc;
use std::sync::Arc;

use evenkeel::proxy::io::Event;
use evenkeel::proxy::session::Session;
use evenkeel::proxy::slots::Key;
use evenkeel::proxy::state::{PickError, State};
use evenkeel::shared::orders::WorkerOrder;
use evenkeel::shared::phase::Phase;
use evenkeel::shared::queue::Waiter;
use evenkeel::terms::{End, Reason, ServerId};

use super::Worker;
use crate::context::Context;
use crate::fate::Planted;
use crate::listening::Listening;

impl Worker {
    pub(super) fn follow_table(&mut self, context: &Context) {
        let table = context.shared.table.load_full();
        let is_stuck = context.is_planted(Planted::StaleTable) && self.table.version > 0;
        if table.version == self.table.version || is_stuck {
            return;
        }
        self.listeners.iter_mut().for_each(|listening| listening.follow(&table));
        // While draining, those that are closed are in the table too.
        let running = context.shared.phase.load() == Phase::Running;
        for (listener, frontend) in table.listeners.iter().filter(|_| running) {
            let mut known = self.listeners.iter();
            if !known.any(|listening| Arc::ptr_eq(&listening.listener, listener)) {
                self.listeners.push(Listening::new(listener, frontend));
            }
        }
        self.tell_queued(context);
        context.shared.acknowledge(self.handle.index, table.version);
        self.table = table;
    }

    /// Does what `proxy::sessions` does for a new table, and once the worker is not stuck any more.
    fn tell_queued(&mut self, context: &Context) {
        for key in &self.keys {
            let queued = self.sessions.get(*key).filter(|live| live.is_queued());
            if let Some(place) = queued.and_then(|live| live.place()) {
                if !context.is_planted(Planted::PlaceLost) {
                    place.put_back(*key);
                }
                let Key { slot, generation } = *key;
                let waiter = Waiter { worker: self.handle.index, slot, generation };
                context.shared.order(self.handle.index, WorkerOrder::ServerFree(waiter));
            }
        }
    }

    pub(super) fn follow_phase(&mut self, context: &mut Context) {
        let end = match context.shared.phase.load() {
            Phase::Running => return,
            Phase::Draining(deadline) if context.instant() < deadline => None,
            Phase::Draining(_) => Some(End::new(Reason::DrainTimeout, b"KD")),
            Phase::Stopped => Some(End::new(Reason::Killed, b"KD")),
        };
        for listening in &mut self.listeners {
            listening.gate.drain();
            if end.is_some() {
                context.record.refused += listening.parked.len() as u64;
                listening.parked.clear();
            }
        }
        if let Some(end) = end {
            self.stop_where(end, context, |_| true);
        }
    }

    pub(super) fn follow_orders(&mut self, context: &mut Context) {
        let handle = Rc::clone(&self.handle);
        for order in handle.shared.orders_to(handle.index) {
            match order {
                WorkerOrder::Kill { slot, generation } => {
                    self.kill(Key { slot, generation }, context);
                }
                WorkerOrder::CloseSessionsOf(server) => self.close_sessions_of(server, context),
                WorkerOrder::ServerFree(_) if context.is_planted(Planted::QueueNotTold) => {}
                WorkerOrder::ServerFree(Waiter { slot, generation, .. }) => {
                    self.serve_queued(Key { slot, generation }, context);
                }
                WorkerOrder::RejoinQueues => self.tell_queued(context),
                // Nobody asks for a list, no client is given to another worker, and no process is
                // replaced.
                WorkerOrder::List { .. } | WorkerOrder::Serve(_) | WorkerOrder::LookAtBacklogs => {}
            }
        }
    }

    /// A server may have room for a session that is the first in its queue.
    fn serve_queued(&mut self, key: Key, context: &mut Context) {
        let Some(live) = self.sessions.get(key).filter(|live| live.is_queued()) else { return };
        match live.choose(key, &self.handle, &self.table, context) {
            Err(PickError::AllFull) => {}
            choice => self.with(key, context, |session, now, io| {
                session.on(Event::ServerFree, now, io);
                session.on_routed(choice, now, io);
            }),
        }
    }

    fn kill(&mut self, key: Key, context: &mut Context) {
        let at_slot = self.sessions.at(key.slot).map(|(key, _)| key);
        let found = if context.is_planted(Planted::WrongGeneration) { at_slot } else { Some(key) };
        context.record.late_kills += u64::from(at_slot.is_some_and(|now| now != key));
        if let Some(found) = found {
            self.stop(found, End::new(Reason::Killed, b"KD"), context);
        }
        let state = self.sessions.get(key).map(|live| live.session.state());
        assert!(matches!(state, None | Some(State::Joining(_))), "it lives on: {state:?}");
    }

    fn close_sessions_of(&mut self, server: ServerId, context: &mut Context) {
        self.look(|live| {
            if live.server() == Some(server) {
                context.record.cut_off.insert(live.number);
            }
        });
        let end = End::new(Reason::ServerDown, b"DD");
        self.stop_where(end, context, |session| session.server() == Some(server));
        self.look(|live| {
            // One that leaves the server is about to try another.
            let left = matches!(live.session.state(), State::Joining(_) | State::Leaving);
            assert!(left || live.server() != Some(server), "it lives on: {live:?}");
        });
    }

    fn stop_where(&mut self, end: End, context: &mut Context, which: impl Fn(&Session) -> bool) {
        for key in self.keys.clone() {
            if self.sessions.get(key).is_some_and(|live| which(&live.session)) {
                self.stop(key, end, context);
            }
        }
    }

    fn stop(&mut self, key: Key, end: End, context: &mut Context) {
        self.with(key, context, |session, now, io| session.stop(end, now, io));
    }
}
