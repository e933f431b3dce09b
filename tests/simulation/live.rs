//! A session of a simulated worker, with the real permits, the real choice of a server and the
//! real queue.

use std::mem;
use std::rc::Rc;
use std::sync::Arc;

use evenkeel::config::SendProxy;
use evenkeel::proxy::access::SessionPermit;
use evenkeel::proxy::queue::QueuePlace;
use evenkeel::proxy::route::{ServerPermit, choose};
use evenkeel::proxy::rules::{BackendRules, Rules, Timeout};
use evenkeel::proxy::session::Session;
use evenkeel::proxy::slots::Key;
use evenkeel::proxy::state::{Attempt, Outcome, PickError, State};
use evenkeel::proxy::timer_wheel::Tick;
use evenkeel::proxy::worker_handle::WorkerHandle;
use evenkeel::shared::phase::Phase;
use evenkeel::shared::queue::QueueFull;
use evenkeel::shared::table::{Backend, Frontend, FrontendShared, Table};
use evenkeel::terms::{Reason, ServerId};

use crate::context::Context;
use crate::fate::{Fate, Planted};
use crate::kernel::{Memory, Simulated};
use crate::listening::NewClient;
use crate::random::Random;

/// A session, and what `proxy::sockets` holds for it.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) number: u64,
    pub(crate) session: Session,
    pub(crate) kernel: Simulated,
    pub(crate) shared: Arc<FrontendShared>,
    permit: SessionPermit,
    /// While every server is full.
    place: Option<QueuePlace>,
    queue_timeout: Timeout,
    /// When it began to wait.
    waits_since: Tick,
    /// Until a server is connected.
    frontend: Option<Arc<Frontend>>,
    is_old: bool,
    /// A server was chosen for it before, or none could be; or it had a preface.
    was_routed: bool,
}

impl Live {
    pub(crate) fn new(client: NewClient, context: &mut Context) -> Self {
        let NewClient { number, frontend, is_old, permit } = client;
        let settings = &frontend.settings;
        let backend = frontend.backend.as_ref();
        let backend = backend.map_or_else(BackendRules::default, |it| (&*it.settings).into());
        let has_preface = frontend.reads_preface();
        let rules = Rules::new(settings, has_preface, backend);
        let seed = context.random.next();
        let fate = Fate { planted: context.planted, ..Fate::small(seed) };
        let mut kernel = Simulated::new(number, Random::new(seed), fate, Memory::new(0, 0));
        kernel.backend = backend;
        Self {
            number,
            session: Session::new(rules, context.now),
            kernel,
            shared: Arc::clone(&frontend.shared),
            permit,
            place: None,
            queue_timeout: rules.queue_timeout,
            waits_since: context.now,
            frontend: Some(frontend),
            is_old,
            // What was in force when the client came may be gone.
            was_routed: has_preface,
        }
    }

    /// The server whose permit it holds.
    pub(crate) fn server(&self) -> Option<ServerId> {
        self.kernel.permit.as_ref().map(|permit| permit.endpoint().id.server)
    }

    /// Whether it waits in the queue of a backend.
    pub(crate) fn is_queued(&self) -> bool {
        matches!(self.session.state(), State::Queued(_))
    }

    /// Its place in a queue.
    pub(crate) const fn place(&self) -> Option<&QueuePlace> {
        self.place.as_ref()
    }

    /// Whether it would get a server, another queue or its end, if it were told now. A client of a
    /// listener or a frontend that is gone queues by the old table, and is told when a session of
    /// one of those servers ends.
    pub(crate) fn waits_for_nothing(&self, table: &Table) -> bool {
        if self.is_old {
            return false;
        }
        let backend = self.in_force(table).and_then(|frontend| frontend.backend.as_deref());
        let Some(backend) = backend else { return false };
        let moved = self.place.as_ref().is_some_and(|place| !place.is_in(&backend.queue));
        moved || !is_full(backend)
    }

    /// Its frontend in a table.
    fn in_force<'a>(&self, table: &'a Table) -> Option<&'a Arc<Frontend>> {
        table.frontends.iter().find(|frontend| Arc::ptr_eq(&frontend.shared, &self.shared))
    }

    /// Chooses a server as long as the session needs one.
    pub(crate) fn route(
        &mut self,
        key: Key,
        worker: &Rc<WorkerHandle>,
        table: &Table,
        context: &mut Context,
    ) {
        self.count();
        while self.session.needs_server() {
            let choice = self.choose(key, worker, table, context);
            self.session.on_routed(choice, context.now, &mut self.kernel);
            self.count();
        }
    }

    fn count(&mut self) {
        if let Some(Outcome::Connected(_)) = self.session.take_outcome() {
            self.frontend = None;
        }
    }

    /// Does what `proxy::sockets` does to choose a server or to join the queue.
    pub(crate) fn choose(
        &mut self,
        key: Key,
        worker: &Rc<WorkerHandle>,
        table: &Table,
        context: &mut Context,
    ) -> Result<Attempt, PickError> {
        drop(self.kernel.dropped.take());
        // After a failed attempt, or from the queue.
        let again = mem::replace(&mut self.was_routed, true);
        let in_force = self.in_force(table).cloned();
        if again || self.frontend.is_none() {
            self.frontend = in_force.clone().or_else(|| self.frontend.take());
        }
        let backend = self.frontend.as_ref().and_then(|frontend| frontend.backend.clone());
        let backend = &backend.ok_or(PickError::NoRoute)?;
        let in_force = in_force.and_then(|frontend| frontend.backend.clone());
        let is_old = in_force.is_some_and(|one| !Arc::ptr_eq(&one, backend));
        assert!(!is_old || self.is_old && !again, "it goes by an old table: {self:?}");
        let moved = |place: &mut QueuePlace| !place.is_in(&backend.queue);
        if let Some(place) = self.place.take_if(moved) {
            place.record(context.now);
        }
        let others_first = match &self.place {
            Some(place) => !place.is_first(key),
            None => backend.queue.length() > 0,
        };
        let permit =
            if others_first { Err(PickError::AllFull) } else { self.permit_of(backend, worker) };
        let permit = match permit {
            Err(PickError::AllFull) if self.place.is_none() => {
                context.between_choice_and_queue(worker.index);
                let place = QueuePlace::new(&backend.queue, worker, key, context.now);
                let place = place.map_err(|QueueFull| PickError::QueueFull)?;
                let first = place.is_first(key) && !context.is_planted(Planted::UncheckedQueue);
                self.place = Some(place);
                if !self.is_queued() {
                    self.waits_since = context.now;
                }
                let permit =
                    if first { self.permit_of(backend, worker) } else { Err(PickError::AllFull) };
                context.record.found_room += u64::from(permit.is_ok());
                permit?
            }
            permit => permit?,
        };
        let is_first = self.place.as_ref().map(|place| place.is_first(key));
        let in_turn = is_first.unwrap_or_else(|| backend.queue.length() == 0);
        assert!(in_turn, "it takes a server before those that wait: {self:?}");
        context.record.queued += u64::from(self.is_queued());
        self.leave_queue(context.now);
        let timeout = backend.settings.connect_timeout;
        let sends_proxy = backend.settings.send_proxy != SendProxy::Off;
        self.kernel.sends_proxy = sends_proxy;
        let attempt = Attempt { endpoint: permit.endpoint().id, timeout, sends_proxy };
        let before = self.kernel.permit.replace(permit);
        assert!(before.is_none(), "the permit of the server before: {before:?}");
        Ok(attempt)
    }

    /// The permit of a server that has room.
    fn permit_of(
        &self,
        backend: &Backend,
        worker: &Rc<WorkerHandle>,
    ) -> Result<ServerPermit, PickError> {
        let endpoints = &backend.schedule.endpoints;
        let choice = choose(backend, || None, self.session.tried(), worker);
        match &choice {
            Ok(permit) => {
                let chosen = permit.endpoint();
                let (active, max) = (chosen.shared.sessions.active(), chosen.shared.sessions.max());
                assert!(active <= max, "above the limit of the server: {chosen:?}");
                let known = endpoints.iter().any(|endpoint| Arc::ptr_eq(endpoint, chosen));
                assert!(known, "not in the table: {chosen:?}");
            }
            Err(PickError::NoRoute | PickError::ClientLeft) => unreachable!("{choice:?}"),
            Err(PickError::NoServer) => assert!(endpoints.is_empty(), "there is one: {backend:?}"),
            Err(PickError::AllFull | PickError::QueueFull) => {
                assert!(is_full(backend), "there is room: {backend:?}");
            }
        }
        choice
    }

    fn leave_queue(&mut self, now: Tick) {
        if let Some(place) = self.place.take() {
            place.record(now);
        }
    }

    /// It has ended: it is counted, and others that wait for that are woken.
    pub(crate) fn retire(mut self, worker: &WorkerHandle, context: &mut Context) {
        self.leave_queue(context.now);
        let end = self.kernel.assert_ended(&self.session);
        let record = &mut context.record;
        let stopped = context.shared.phase.load() == Phase::Stopped;
        let ordered = match end.reason {
            Reason::Killed => stopped || record.killed.contains(&self.number),
            Reason::ServerDown => record.cut_off.contains(&self.number),
            Reason::QueueTimeout => context.now >= self.queue_timeout.end(self.waits_since),
            _ => true,
        };
        assert!(ordered, "nobody ordered to close {self:?}");
        record.ended.push(end.reason);
        record.retried += u64::from(self.session.retries() > 0);
        self.shared.cells.of(worker.index).closed[end.reason as usize].add(1);
        // The worker may be slow to do this, while others act.
        if let Some(permit) = self.kernel.dropped.take()
            && context.random.one_in(2)
        {
            context.dropping.push((worker.index, permit));
        }
        drop(self.permit);
        if context.is_planted(Planted::WorkerNotWoken) {
            for waker in &context.shared.wakers {
                waker.take();
            }
        }
    }
}

/// Whether no server has room, and there is one.
fn is_full(backend: &Backend) -> bool {
    let endpoints = &backend.schedule.endpoints;
    !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.shared.sessions.room() == 0)
}
