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
#[expect(clippy::needless_pass_by_value, reason = "a stand-in")]
pub fn run(config: Config) -> Result<(), Failure> {
    drop(config);
    Err(Failure)
}
