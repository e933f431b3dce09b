//! A session of a simulated worker, with the real permits and the real choice of a server.

use std::mem;
use std::rc::Rc;
use std::sync::Arc;

use evenkeel::config::SendProxy;
use evenkeel::proxy::access::SessionPermit;
use evenkeel::proxy::route::choose;
use evenkeel::proxy::rules::{BackendRules, Rules, Timeout};
use evenkeel::proxy::session::Session;
use evenkeel::proxy::state::{Attempt, Outcome, PickError};
use evenkeel::proxy::worker_handle::WorkerHandle;
use evenkeel::shared::phase::Phase;
use evenkeel::shared::table::{Frontend, FrontendShared, Table};
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
        let backend = BackendRules {
            queue_timeout: context.queue_timeout.map_or(Timeout::NEVER, Timeout::from),
            retries: frontend.backend.as_ref().map_or(0, |backend| backend.settings.retries),
        };
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

    /// Chooses a server as long as the session needs one.
    pub(crate) fn route(&mut self, worker: &Rc<WorkerHandle>, table: &Table, context: &Context) {
        self.count();
        while self.session.needs_server() {
            let choice = self.choose(worker, table);
            self.session.on_routed(choice, context.now, &mut self.kernel);
            self.count();
        }
    }

    fn count(&mut self) {
        if let Some(Outcome::Connected(_)) = self.session.take_outcome() {
            self.frontend = None;
        }
    }

    fn choose(&mut self, worker: &Rc<WorkerHandle>, table: &Table) -> Result<Attempt, PickError> {
        // After a failed attempt, or from the queue.
        let again = mem::replace(&mut self.was_routed, true);
        let mut frontends = table.frontends.iter();
        let in_force = frontends.find(|frontend| Arc::ptr_eq(&frontend.shared, &self.shared));
        if again || self.frontend.is_none() {
            self.frontend = in_force.cloned().or_else(|| self.frontend.take());
        }
        let backend = self.frontend.as_ref().and_then(|frontend| frontend.backend.as_ref());
        let backend = backend.ok_or(PickError::NoServer)?;
        let in_force = in_force.and_then(|frontend| frontend.backend.as_ref());
        let is_old = in_force.is_some_and(|one| !Arc::ptr_eq(one, backend));
        assert!(!is_old || self.is_old && !again, "it goes by an old table: {self:?}");
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
            Err(PickError::NoServer) => assert!(endpoints.is_empty(), "there is one: {backend:?}"),
            Err(PickError::AllFull | PickError::QueueFull) => {
                let full = endpoints.iter().all(|endpoint| endpoint.shared.sessions.room() == 0);
                assert!(full && !endpoints.is_empty(), "there is room: {backend:?}");
            }
        }
        let permit = choice?;
        let timeout = backend.settings.connect_timeout;
        let introduces = backend.settings.send_proxy != SendProxy::Off;
        self.kernel.introduces = introduces;
        let attempt = Attempt { endpoint: permit.endpoint().id, timeout, introduces };
        let before = self.kernel.permit.replace(permit);
        assert!(before.is_none(), "the permit of the server before: {before:?}");
        Ok(attempt)
    }

    /// It has ended: it is counted, and others that wait for that are woken.
    pub(crate) fn retire(self, worker: &WorkerHandle, context: &mut Context) {
        let end = self.kernel.assert_ended(&self.session);
        let record = &mut context.record;
        let stopped = context.shared.phase.load() == Phase::Stopped;
        let ordered = match end.reason {
            Reason::Killed => stopped || record.killed.contains(&self.number),
            Reason::ServerDown => record.cut_off.contains(&self.number),
            _ => true,
        };
        assert!(ordered, "nobody ordered to close {self:?}");
        record.ended.push(end.reason);
        record.retried += u64::from(self.session.retries() > 0);
        self.shared.cells.of(worker.index).closed[end.reason as usize].add(1);
        drop(self.permit);
        if context.is_planted(Planted::WorkerNotWoken) {
            for waker in &context.shared.wakers {
                waker.take();
            }
        }
    }
}
