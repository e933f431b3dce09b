//! One listening socket of a worker: its accepts, and the clients that wait for a session.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use crate::proxy::accept::{Action, Gate};
use crate::proxy::access::{self, Admitted, NewClient};
use crate::proxy::context::WorkerContext;
use crate::proxy::user_data::UserData;
use crate::proxy::worker_handle::WorkerHandle;
use crate::shared::table::{Frontend, Listener};
use crate::sys::socket::Socket;
use crate::terms::Refusal;

/// One listening socket of this worker.
#[derive(Debug)]
pub(super) struct ListenSocket {
    /// In the user data of its accepts.
    pub(super) id: u32,
    pub(super) listener: Arc<Listener>,
    /// And its slot there. None once it is closed.
    pub(super) socket: Option<(usize, Arc<OwnedFd>)>,
    pub(super) frontend: Arc<Frontend>,
    pub(super) gate: Gate,
    /// Accepted when there was no room any more.
    pub(super) parked: VecDeque<Admitted>,
}

impl ListenSocket {
    /// Resets a client that may not connect.
    pub(super) fn check(&self, client: Socket, worker: &Rc<WorkerHandle>) -> Option<Admitted> {
        let refused = |(client, refusal): (Socket, Refusal)| {
            let cell = self.frontend.shared.cells.of(worker.index);
            cell.refused[refusal as usize].add(1);
            client.abort_on_close();
        };
        access::admit(client, &self.frontend, worker).map_err(refused).ok()
    }

    /// A session for `client`, a place behind those that wait for one, or a reset.
    pub(super) fn admit(&mut self, client: Socket, worker: &Rc<WorkerHandle>) -> Option<NewClient> {
        let admitted = self.check(client, worker)?;
        if !self.parked.is_empty() {
            self.parked.push_back(admitted);
            return None;
        }
        let begun = NewClient::begin(admitted, &self.frontend, self.port(), worker);
        begun.map_err(|waiting| self.parked.push_back(waiting)).ok()
    }

    /// Begins the sessions of clients that wait, until `admitted` has `most`. After an upgrade, the
    /// limits of sessions do not hold for them: no new process can take them, and each listening
    /// socket that this one closes leaves a descriptor.
    pub(super) fn unpark(
        &mut self,
        worker: &Rc<WorkerHandle>,
        admitted: &mut Vec<NewClient>,
        most: usize,
    ) {
        while admitted.len() < most
            && let Some(first) = self.parked.pop_front()
        {
            if self.listener.is_handed_over() {
                let (frontend, port) = (&self.frontend, self.port());
                admitted.push(NewClient::begin_beyond_limits(first, frontend, port, worker));
                continue;
            }
            match NewClient::begin(first, &self.frontend, self.port(), worker) {
                Ok(client) => admitted.push(client),
                Err(waiting) => return self.parked.push_front(waiting),
            }
        }
    }

    /// The port that its clients connect to; none: it is a unix socket.
    fn port(&self) -> Option<u16> {
        self.listener.address.port()
    }

    pub(super) fn act(&mut self, action: Action, context: &mut WorkerContext) {
        let user_data = UserData::Accept(self.id).pack();
        let Some((slot, socket)) = &self.socket else { return };
        match action {
            Action::Nothing => {}
            Action::ArmOne => context.ring.accept(socket, user_data, false),
            // Several workers accept from one socket. The kernel wakes the one that has waited for
            // longest: a multishot accept would never lose the first place.
            Action::ArmMany => {
                let many = !self.listener.is_shared();
                context.ring.accept(socket, user_data, many);
            }
            Action::Cancel => context.ring.cancel_accept(user_data),
            Action::DrainBacklog => {
                // The accept completes at once if a connection waits; if none does, the cancel ends
                // it. O_NONBLOCK would do the same to every process that shares the socket.
                context.ring.accept(socket, user_data, false);
                context.ring.cancel_accept(user_data);
            }
            // No shutdown(2), which would stop the socket for every process that shares it.
            Action::Stop => {
                self.listener.close(*slot);
                self.socket = None;
            }
        }
    }
}
