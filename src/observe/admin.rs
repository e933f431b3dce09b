//! Talks to a running balancer. Stand-in: not built yet.

use std::path::Path;

use crate::observe::status::Order;

/// What the balancer at the socket `path` says of itself.
///
/// # Errors
/// Always.
pub fn status(path: &Path, json: bool) -> Result<String, String> {
    let _ = (path, json);
    Err("not built yet".to_owned())
}

/// Gives an order to it.
///
/// # Errors
/// Always.
pub fn order(path: &Path, order: Order) -> Result<String, String> {
    let _ = (path, order);
    Err("not built yet".to_owned())
}
