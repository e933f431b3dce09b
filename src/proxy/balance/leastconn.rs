//! The endpoint with the fewest sessions in proportion to its weight.

use std::sync::Arc;

use crate::shared::schedule::Schedule;
use crate::shared::server::Endpoint;

/// How often the least loaded endpoint that is not full may have become full meanwhile, before the
/// others are offered in their order.
const TRIES: usize = 4;

/// Offers the least loaded endpoint, then the least loaded ones that are not full. Endpoints with
/// the same load take turns.
pub(super) fn offer<T>(
    schedule: &Schedule,
    turn: usize,
    take: &mut impl FnMut(&Arc<Endpoint>) -> Option<T>,
) -> Option<T> {
    let Schedule { endpoints, .. } = schedule;
    let start = turn % endpoints.len();
    let least = schedule.least_loaded(start, |_| true)?;
    if let Some(taken) = take(&endpoints[least]) {
        return Some(taken);
    }
    // Endpoints that were offered and not taken: more than these are not remembered.
    let mut refused = [least; TRIES];
    for tries in 1..TRIES {
        let may = |index: usize| {
            !refused[..tries].contains(&index) && endpoints[index].shared.sessions.room() > 0
        };
        let index = schedule.least_loaded(start, may)?;
        if let Some(taken) = take(&endpoints[index]) {
            return Some(taken);
        }
        refused[tries] = index;
    }
    endpoints[start..].iter().chain(&endpoints[..start]).find_map(take)
}
