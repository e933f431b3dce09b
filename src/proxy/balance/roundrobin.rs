//! Round robin over the schedule of a table. One atomic counter for all workers, so that the
//! rotation is exact.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::shared::server::Endpoint;
use crate::shared::table::Backend;

/// The endpoints of a backend from the one whose turn it is. The schedule is not empty.
pub(in crate::proxy) fn in_turn(backend: &Backend) -> impl Iterator<Item = &Arc<Endpoint>> + Clone {
    let schedule = &backend.schedule;
    let turn = backend.turn.fetch_add(1, Ordering::Relaxed) % schedule.rotation.len();
    let (before, from) = schedule.endpoints.split_at(usize::from(schedule.rotation[turn]));
    from.iter().chain(before)
}
