//! `evenkeel doctor`: what this kernel, these limits and this machine give, and what to change.
//!
//! One line a thing: ok, warning (it works, and could work better or longer), or failed (evenkeel
//! does not run, or not as configured), each of the last two with the command that mends it.

mod finding;
mod kernel;
mod limits;

use std::io::{self, Write};

use crate::control::config::Config;
use crate::sys::features::ring_available;

/// Looks at this machine and writes what it found; `config` says how much is wanted of it (none:
/// the defaults). True when nothing failed.
///
/// # Errors
/// `out` cannot be written to.
pub fn doctor(out: &mut dyn Write, config: Option<&Config>) -> io::Result<bool> {
    let available = ring_available();
    let mut findings = kernel::examine(available);
    findings.extend(limits::examine(config, available.is_ok())?);
    finding::report(out, &findings)
}
