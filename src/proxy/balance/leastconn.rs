//! The endpoint with the fewest sessions in proportion to its weight.

use std::sync::Arc;

use crate::shared::server::Endpoint;
use crate::shared::table::Backend;

/// How often the least loaded endpoint that is not full may have become full meanwhile, before the
/// others are offered in their order.
const TRIES: usize = 4;

/// Offers the least loaded endpoint, then the least loaded ones that are not full. Endpoints with
/// the same load take turns.
pub(super) fn offer<T>(
    backend: &Backend,
    turn: usize,
    take: &mut impl FnMut(&Arc<Endpoint>) -> Option<T>,
) -> Option<T> {
    let schedule = &backend.schedule;
    let endpoints = &schedule.endpoints;
    let start = turn % endpoints.len();
    // Endpoints that were offered and not taken: more than these are not remembered.
    let mut refused = [usize::MAX; TRIES];
    for tries in 0..TRIES {
        let may = |index: usize| {
            let has_room = || endpoints[index].shared.sessions.room() > 0;
            tries == 0 || (!refused[..tries].contains(&index) && has_room())
        };
        let index = match schedule.least_loaded(start, may) {
            Some(index) => index,
            None if tries > 0 => return None,
            // A newer table has none of these endpoints.
            None => break,
        };
        if let Some(taken) = take(&endpoints[index]) {
            if index != start {
                // The next session begins after this endpoint, so that ties alternate.
                backend.skip_turns((index + endpoints.len() - start) % endpoints.len());
            }
            return Some(taken);
        }
        refused[tries] = index;
    }
    endpoints[start..].iter().chain(&endpoints[..start]).find_map(take)
}
