//! The power of two choices (Mitzenmacher, 2001): of two endpoints that are drawn by weight, the
//! one with fewer sessions.

use std::sync::Arc;

use crate::proxy::worker_handle::WorkerHandle;
use crate::shared::schedule::Schedule;
use crate::shared::server::Endpoint;

/// Both that were drawn, the better one first; then the others.
pub(super) fn order<'a>(
    schedule: &'a Schedule,
    position: usize,
    worker: &WorkerHandle,
) -> impl Iterator<Item = &'a Arc<Endpoint>> {
    let Schedule { endpoints, rotation, .. } = schedule;
    let drawn = [position, worker.random(rotation.len())];
    let both = schedule.lighter_first(drawn.map(|turn| usize::from(rotation[turn])));
    both.map(|index| &endpoints[index]).into_iter().chain(schedule.walk(position))
}
