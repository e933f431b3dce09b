//! The first endpoint in the order of the file: servers fill up one after the other, each to its
//! `sessions_max`.

use std::sync::Arc;

use crate::shared::schedule::Schedule;
use crate::shared::server::Endpoint;

/// The order of the file.
pub(super) fn order(schedule: &Schedule) -> impl Iterator<Item = &Arc<Endpoint>> {
    schedule.endpoints.iter()
}
