//! Runs the balancer. Stand-in: not built yet.

use crate::control::config::Config;

/// Why the balancer could not run.
#[derive(Debug, thiserror::Error)]
#[error("not built yet")]
pub struct Failure;

/// Runs until told to stop.
///
/// # Errors
/// Always.
pub fn run(config: Config) -> Result<(), Failure> {
    drop(config);
    Err(Failure)
}
