//! Round robin over the rotation of a table, and the walk over the entries of a hash table.

use std::sync::Arc;

use crate::shared::schedule::Schedule;
use crate::shared::server::Endpoint;

/// Steps of a walk for each endpoint. An endpoint that none of them reached is offered at the end:
/// a rotation has up to 65,536 turns, and a backend that is full must be found full soon.
const STEPS: usize = 2;

/// The endpoints from the turn or entry at `position` on: if one is full or has just failed, the
/// next in the rotation takes its turn, so that the weights of the others hold.
pub(super) fn from(schedule: &Schedule, position: usize) -> impl Iterator<Item = &Arc<Endpoint>> {
    let Schedule { endpoints, rotation, .. } = schedule;
    let (before, from) = rotation.split_at(position % rotation.len());
    let steps = STEPS * endpoints.len();
    let walk = from.iter().chain(before).take(steps);
    let rest = if rotation.len() > steps { &endpoints[..] } else { &[] };
    walk.map(|index| &endpoints[usize::from(*index)]).chain(rest)
}
