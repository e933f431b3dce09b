//! `evenkeel doctor`: what the kernel, the limits and the settings of this machine allow, and what
//! to change.
//!
//! One line for each finding: ok, warning (evenkeel works, and could work better or longer), or
//! failed (evenkeel does not run, or not as configured). The last two name a remedy.

mod finding;
mod kernel;
mod limits;

use std::io::{self, Write};

use crate::control::config::Config;
use crate::sys::features::ring_available;

/// Examine this machine and write the findings. `config` tells what is needed (none: the
/// defaults). Returns true if nothing failed.
///
/// # Errors
/// `out` cannot be written to.
pub fn doctor(out: &mut dyn Write, config: Option<&Config>) -> io::Result<bool> {
    let available = ring_available();
    let mut findings = kernel::examine(available);
    findings.extend(limits::examine(config, available.is_ok())?);
    finding::report(out, &findings)
}
