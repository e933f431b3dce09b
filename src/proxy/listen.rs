//! Listening: accepts armed on the worker's own socket of each address, admission before anything
//! is spent, and what happens when sessions or descriptors run out: clients wait, unaccepted, in
//! the kernel's backlog.

use std::collections::VecDeque;
use std::mem;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use crate::proxy::legs::{Admission, Admitted, Tools};
use crate::proxy::pick::Local;
use crate::proxy::token::Token;
use crate::proxy::wheel::Moment;
use crate::shared::events::WorkerEvent;
use crate::shared::table::{Frontend, Listener, Table};
use crate::sys::ring::Completion;
use crate::sys::socket::{
    Socket, accept_waiting, descriptor_limit, has_descriptors_left, stop_listening,
};
use crate::terms::Refusal;

/// With less room than this for more sessions, connections are accepted one at a time, so that at
/// most one a listener is accepted that has to wait for its session: a multishot accept takes all
/// that waits in the backlog at once.
const ROOM_FOR_MULTISHOT: u32 = 2048;

/// After an accept failed for want of something that no session of this worker released since.
const RETRY: Duration = Duration::from_millis(100);

/// While it pauses, it looks again at least this often: a wake-up that was missed, or a limit that
/// was raised.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Descriptors that a listener which is left leaves to sessions, probes and visitors: what waits in
/// its queue may be more than there are.
const LEFT_BY_LEAVING: u64 = 32;

/// A pause is told to the control thread at most this often.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// One connection in so many is asked which core received it, where that can matter.
const ASK_EVERY: u32 = 4;

/// Accepts of this worker.
#[derive(Debug)]
pub(super) struct Listeners {
    local: Rc<Local>,
    /// The core that this worker is pinned to, if what it receives is counted.
    core: Option<usize>,
    /// Connections since one was asked which core received it.
    unasked: u32,
    listening: Vec<Listening>,
    /// Of [`Listening::id`].
    next_id: u32,
    /// Descriptors ran out: no accept until one is released, or then.
    starved_until: Option<Moment>,
    /// Those who were accepted with the last descriptors wait until one is released.
    short: bool,
    /// A descriptor is released as soon as the ring is entered.
    releasing: bool,
    told: Option<Moment>,
    pause: Pause,
    /// The limit of descriptors, and when it was read.
    limit: (u64, Moment),
}

/// Whether accepting pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    No,
    /// It has just begun to: what made it so may have changed before others knew.
    Begins,
    Yes,
}

/// One listening socket of this worker.
#[derive(Debug)]
struct Listening {
    /// In the token of its accepts.
    id: u32,
    listener: Arc<Listener>,
    frontend: Arc<Frontend>,
    accept: Accept,
    /// No longer wanted: what has connected is still taken in, then the socket stops listening.
    leaving: bool,
    /// While leaving: descriptors are nearly all taken, so that those who wait go first.
    crowded: bool,
    /// Accepted when there was no room any more.
    parked: VecDeque<Socket>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accept {
    Idle,
    One,
    Many,
    Cancelling,
    /// It no longer listens.
    Stopped,
}

impl Listeners {
    pub(super) const fn new(local: Rc<Local>, core: Option<usize>) -> Self {
        Self {
            local,
            core,
            unasked: 0,
            listening: Vec::new(),
            next_id: 0,
            starved_until: None,
            short: false,
            releasing: false,
            told: None,
            pause: Pause::No,
            limit: (u64::MAX, Moment::START),
        }
    }

    /// Follows a new table: what is new will be accepted on, what is gone is left.
    pub(super) fn follow(&mut self, table: &Table) {
        let mut wanted: Vec<&(Arc<Listener>, Arc<Frontend>)> = table.listeners.iter().collect();
        for listening in &mut self.listening {
            let found = wanted.iter().position(|(listener, _)| {
                Arc::ptr_eq(listener, &listening.listener) && !listening.leaving
            });
            match found {
                Some(found) => {
                    let (_, frontend) = wanted.swap_remove(found);
                    listening.frontend = Arc::clone(frontend);
                }
                None => listening.leaving = true,
            }
        }
        for (listener, frontend) in wanted {
            self.listening.push(Listening {
                id: self.next_id,
                listener: Arc::clone(listener),
                frontend: Arc::clone(frontend),
                accept: Accept::Idle,
                leaving: false,
                crowded: false,
                parked: VecDeque::new(),
            });
            self.next_id = self.next_id.wrapping_add(1);
        }
    }

    /// Leaves every listener: a drain. When it is `over`, those who wait for a session are reset.
    pub(super) fn leave(&mut self, over: bool) {
        for listening in &mut self.listening {
            listening.leaving = true;
            if over {
                let cell = listening.frontend.shared.cells.of(self.local.index);
                cell.refused[Refusal::Limit as usize].add(listening.parked.len() as u64);
                listening.parked.drain(..).for_each(|client| client.abort_on_close());
            }
        }
    }

    /// Whether nothing is listened on any more.
    pub(super) const fn is_empty(&self) -> bool {
        self.listening.is_empty()
    }

    /// An accept answered. Its client, if it may begin at once.
    pub(super) fn on_accepted(
        &mut self,
        id: u32,
        completion: Completion,
        now: Moment,
    ) -> Option<Admitted> {
        let limit = self.limit(now);
        self.note_core(completion.socket.as_ref());
        let listening = self.listening.iter_mut().find(|listening| listening.id == id)?;
        if !completion.more {
            listening.accept = Accept::Idle;
        }
        match (completion.socket, completion.result) {
            // A multishot accept goes by the limit of when it was armed, not by one lowered since.
            (Some(client), _) if client.number() >= limit => {
                listening.parked.push_back(client);
                self.on_accept_failed(Errno::EMFILE, now);
                None
            }
            (Some(client), _) => listening.admit(client, &self.local),
            (None, Err(errno)) if errno != Errno::ECANCELED => {
                self.on_accept_failed(errno, now);
                None
            }
            (None, _) => None,
        }
    }

    /// Now and then counts who was received by this worker's own core: see `control::steering`.
    fn note_core(&mut self, client: Option<&Socket>) {
        let (Some(core), Some(client)) = (self.core, client) else { return };
        self.unasked += 1;
        if self.unasked >= ASK_EVERY {
            self.unasked = 0;
            let here = client.received_by() == Some(core);
            self.local.seam.cells.of(self.local.index).received_here.add(u64::from(here));
        }
    }

    /// The limit of descriptors, at most [`RETRY`] old.
    fn limit(&mut self, now: Moment) -> u64 {
        if now >= self.limit.1 {
            self.limit = (descriptor_limit(), now.after(RETRY));
        }
        self.limit.0
    }

    fn on_accept_failed(&mut self, errno: Errno, now: Moment) {
        self.local.seam.cells.of(self.local.index).accept_errors.add(1);
        // A client that was gone before it was accepted is no reason to wait.
        if matches!(errno, Errno::ECONNABORTED | Errno::EINTR | Errno::EAGAIN | Errno::EPROTO) {
            return;
        }
        self.starve(now);
    }

    /// Accepts nothing for a while, and says so now and then.
    fn starve(&mut self, now: Moment) {
        self.starved_until = Some(now.after(RETRY));
        self.short = true;
        if self.told.is_none_or(|told| now >= told.after(TELL_EVERY)) {
            self.told = Some(now);
            self.local.seam.events.try_send(WorkerEvent::AcceptPaused(self.local.index)).ok();
        }
    }

    /// Once a turn: arms what may accept, stops what may not, lets the parked in and what is left
    /// go. Clients that may begin are put into `admitted`.
    pub(super) fn steer(&mut self, tools: &mut Tools, now: Moment, admitted: &mut Vec<Admitted>) {
        let released = mem::replace(&mut self.releasing, mem::take(&mut tools.released));
        let retry = self.starved_until.is_some_and(|until| now >= until);
        if released || retry {
            self.starved_until = None;
        }
        if released || (self.short && retry && has_descriptors_left()) {
            self.short = false;
        }
        if mem::take(&mut tools.starved) {
            self.starve(now);
        }
        if self.starved_until.is_some() {
            tools.released |= tools.spares.let_go();
        }
        let most = self.limit(now).saturating_sub(LEFT_BY_LEAVING);
        let mut full = false;
        for listening in &mut self.listening {
            if !self.short {
                listening.unpark(&self.local, admitted);
            }
            let starved = self.starved_until.is_some();
            if !listening.leaving {
                full |= listening.arm(tools, &self.local, starved);
            } else if starved && listening.accept == Accept::Idle {
                // It goes on when the others do: each try would put that off.
            } else if let Err(errno) = listening.leave(tools, &self.local, most, admitted) {
                self.on_accept_failed(errno, now);
                break;
            }
            full |= !listening.parked.is_empty();
        }
        self.listening.retain(|listening| !listening.is_left());
        self.set_paused(full || self.short || self.starved_until.is_some());
        if self.pause == Pause::Yes && !admitted.is_empty() {
            // A session may end as it begins, and this worker is not woken by its own.
            self.pause = Pause::Begins;
        }
        if self.short && self.starved_until.is_none() {
            self.starved_until = Some(now.after(RETRY));
        }
    }

    /// When to look again though nothing happens.
    pub(super) fn next(&self, now: Moment) -> Option<Moment> {
        if self.pause == Pause::Begins || (self.short && self.releasing) {
            return Some(now);
        }
        self.starved_until.or_else(|| (self.pause == Pause::Yes).then(|| now.after(LOOK_AGAIN)))
    }

    /// While it pauses, whoever ends a session on another worker wakes it.
    fn set_paused(&mut self, paused: bool) {
        self.pause = match paused {
            false => Pause::No,
            true if self.local.seam.pause(self.local.index) => Pause::Begins,
            true => Pause::Yes,
        };
        let cell = self.local.seam.cells.of(self.local.index);
        cell.accept_paused.set(u64::from(paused));
    }
}

impl Listening {
    fn socket(&self, local: &Local) -> Option<&OwnedFd> {
        self.listener.sockets.get(local.index.0)
    }

    const fn token(&self) -> u64 {
        Token::Accept(self.id).pack()
    }

    /// A session for `client`, or a place in the row. Those who wait go first.
    fn admit(&mut self, client: Socket, local: &Rc<Local>) -> Option<Admitted> {
        if self.parked.is_empty()
            && let Some(admission) = Admission::new(local, &self.frontend.shared)
        {
            return Some(Admitted { client, frontend: Arc::clone(&self.frontend), admission });
        }
        self.parked.push_back(client);
        None
    }

    fn unpark(&mut self, local: &Rc<Local>, admitted: &mut Vec<Admitted>) {
        while !self.parked.is_empty()
            && let Some(admission) = Admission::new(local, &self.frontend.shared)
            && let Some(client) = self.parked.pop_front()
        {
            admitted.push(Admitted { client, frontend: Arc::clone(&self.frontend), admission });
        }
    }

    /// Accepts as many as there is room for; true when there is none.
    fn arm(&mut self, tools: &mut Tools, local: &Local, starved: bool) -> bool {
        let room = local.seam.sessions.room().min(self.frontend.shared.sessions.room());
        let full = room == 0 || !self.parked.is_empty();
        let wanted = match room {
            _ if full || starved => Accept::Idle,
            ..ROOM_FOR_MULTISHOT => Accept::One,
            _ => Accept::Many,
        };
        match (self.accept, wanted) {
            (Accept::Idle, Accept::One | Accept::Many) => {
                let token = self.token();
                if let Some(socket) = self.socket(local) {
                    tools.ring.accept(socket, token, wanted == Accept::Many);
                    self.accept = wanted;
                }
            }
            (Accept::Many, Accept::Idle | Accept::One) => self.cancel(tools),
            _ => {}
        }
        full
    }

    fn cancel(&mut self, tools: &mut Tools) {
        self.accept = Accept::Cancelling;
        tools.ring.cancel_accept(self.token());
    }

    /// Ends the accept, takes in what is left in the queue, stops listening. Once a descriptor is
    /// numbered `most` or above, the next clients stay in the queue until all that were taken in
    /// have a session: these need descriptors too.
    ///
    /// # Errors
    /// Out of descriptors: what is left waits for the next turn.
    fn leave(
        &mut self,
        tools: &mut Tools,
        local: &Rc<Local>,
        most: u64,
        admitted: &mut Vec<Admitted>,
    ) -> Result<(), Errno> {
        match self.accept {
            Accept::Cancelling | Accept::Stopped => {}
            Accept::One | Accept::Many => self.cancel(tools),
            Accept::Idle => {
                let listener = Arc::clone(&self.listener);
                let Some(socket) = listener.sockets.get(local.index.0) else { return Ok(()) };
                loop {
                    if self.crowded && !self.parked.is_empty() {
                        return Ok(());
                    }
                    // Also when there is none to be had.
                    self.crowded = true;
                    let Some(client) = accept_waiting(socket)? else { break };
                    self.crowded = client.number() >= most;
                    admitted.extend(self.admit(client, local));
                }
                stop_listening(socket);
                self.accept = Accept::Stopped;
            }
        }
        Ok(())
    }

    fn is_left(&self) -> bool {
        self.accept == Accept::Stopped && self.parked.is_empty()
    }
}
