//! Picking a server: lock-free, exact over all workers, never above a server's `sessions_max`.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::proxy::kernel::Unserved;
use crate::shared::server::Server;
use crate::shared::state::SharedState;
use crate::shared::table::Backend;
use crate::terms::{ServerId, WorkerIndex};

/// What everything of one worker shares.
#[derive(Debug)]
pub struct Local {
    /// With the control thread.
    pub seam: Arc<SharedState>,
    /// This worker.
    pub index: WorkerIndex,
}

/// A session's place at a server: counted as long as it lives.
#[derive(Debug)]
pub struct Place {
    server: Arc<Server>,
    local: Rc<Local>,
}

impl Place {
    /// The server.
    #[must_use]
    pub const fn server(&self) -> &Arc<Server> {
        &self.server
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.server.shared.cells.of(self.local.index).active.subtract(1);
        self.server.shared.sessions.lower();
    }
}

/// The next server in the rotation that is not among `tried` and has room; where every server with
/// room was tried, one of those.
///
/// # Errors
/// No server may be picked, or all are at their `sessions_max`.
pub fn pick(backend: &Backend, tried: &[ServerId], local: &Rc<Local>) -> Result<Place, Unserved> {
    let schedule = &backend.schedule;
    if schedule.is_empty() {
        return Err(Unserved::NoServer);
    }
    let turn = backend.turn.fetch_add(1, Ordering::Relaxed) % schedule.rotation.len();
    let first = usize::from(schedule.rotation[turn]);
    let (before, from) = schedule.servers.split_at(first);
    let in_turn = || from.iter().chain(before);
    let untried = in_turn().filter(|server| !tried.contains(&server.shared.id));
    let again = in_turn().filter(|server| tried.contains(&server.shared.id));
    let server = untried.chain(again).find(|server| server.shared.sessions.try_raise());
    let server = server.ok_or(Unserved::AllFull)?;
    server.shared.cells.of(local.index).active.add(1);
    Ok(Place { server: Arc::clone(server), local: Rc::clone(local) })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::AtomicUsize;
    use std::time::Instant;

    use crossbeam::utils::CachePadded;

    use super::*;
    use crate::shared::counters::PerWorker;
    use crate::shared::limit::Limit;
    use crate::shared::phase::PhaseCell;
    use crate::shared::schedule::Schedule;
    use crate::shared::server::ServerShared;
    use crate::shared::table::Table;
    use crate::sys::waker::Waker;

    fn local() -> Rc<Local> {
        let table = Table { version: 1, frontends: Vec::new(), listeners: Vec::new() };
        let (seen, _) = crossbeam::channel::unbounded();
        let wakers = vec![Waker::new().unwrap()];
        let seam = SharedState::new(table, PhaseCell::new(Instant::now()), 100, seen, None, wakers);
        Rc::new(Local { seam: Arc::new(seam), index: WorkerIndex(0) })
    }

    fn backend(servers: &[(u32, u32, Option<u32>)]) -> Backend {
        let share = |(id, weight, max): &(u32, u32, Option<u32>)| {
            let shared = ServerShared {
                id: ServerId(*id),
                backend: Arc::from("b"),
                name: Arc::from("s"),
                sessions: Limit::new(*max),
                cells: PerWorker::new(1),
            };
            let address = SocketAddr::from(([127, 0, 0, 1], 1));
            (Arc::new(Server::new(address, Arc::new(shared))), *weight)
        };
        Backend {
            settings: Arc::default(),
            schedule: Schedule::new(servers.iter().map(share).collect()),
            turn: Arc::new(CachePadded::new(AtomicUsize::new(0))),
        }
    }

    fn ids(backend: &Backend, tried: &[u32], count: usize) -> Vec<u32> {
        let local = local();
        let tried: Vec<ServerId> = tried.iter().copied().map(ServerId).collect();
        (0..count).map(|_| pick(backend, &tried, &local).unwrap().server().shared.id.0).collect()
    }

    #[test]
    fn servers_take_turns_by_weight() {
        let backend = backend(&[(1, 200, None), (2, 100, None)]);
        assert_eq!(ids(&backend, &[], 6), [1, 2, 1, 1, 2, 1]);
    }

    #[test]
    fn a_tried_server_is_taken_again_only_where_there_is_no_other() {
        let two = backend(&[(1, 100, None), (2, 100, None)]);
        assert_eq!(ids(&two, &[1], 3), [2, 2, 2]);
        assert_eq!(ids(&backend(&[(1, 100, None)]), &[1], 2), [1, 1]);
    }

    #[test]
    fn a_full_server_is_passed_over_until_a_place_is_left() {
        let backend = backend(&[(1, 100, Some(1)), (2, 100, Some(1))]);
        let local = local();
        let first = pick(&backend, &[], &local).unwrap();
        let second = pick(&backend, &[], &local).unwrap();
        assert_ne!(first.server().shared.id, second.server().shared.id);
        assert_eq!(pick(&backend, &[], &local).unwrap_err(), Unserved::AllFull);
        let id = first.server().shared.id;
        drop(first);
        assert_eq!(pick(&backend, &[], &local).unwrap().server().shared.id, id);
    }

    #[test]
    fn without_servers_nobody_is_picked() {
        let empty = backend(&[(1, 0, None)]);
        assert_eq!(pick(&empty, &[], &local()).unwrap_err(), Unserved::NoServer);
    }
}
