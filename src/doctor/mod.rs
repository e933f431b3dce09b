//! `evenkeel doctor`: what the kernel, the limits and the settings of this machine allow, and what
//! to change.
//!
//! One line for each finding: ok, warning (evenkeel works, and could work better or longer), or
//! failed (evenkeel does not run, or not as configured). The last two name a remedy.

mod confinement;
mod fast_open;
mod finding;
mod kernel;
mod limits;
mod listening;
pub mod lookups;
pub mod start;

use std::io::{self, Write};

use crate::config::Config;
use crate::doctor::finding::Finding;
use crate::doctor::lookups::Severity;
use crate::sys::features::ring_available;

/// Examine this machine and write the findings. `config` tells what is needed (none: the
/// defaults). Returns true if nothing failed.
///
/// # Errors
/// `out` cannot be written to.
pub fn doctor(out: &mut dyn Write, config: Option<&Config>) -> io::Result<bool> {
    let available = ring_available();
    let mut findings = kernel::examine(available);
    let defaults = limits::defaults()?;
    findings.extend(limits::examine(config, &defaults, available.is_ok()));
    findings.extend(confinement::examine(config.unwrap_or(&defaults)));
    if let Some(config) = config {
        findings.extend(fast_open::examine(config));
        findings.extend(lookups::look_up(config)?.iter().map(|warning| {
            let place = config.locate(warning.span);
            if warning.severity == Severity::Note {
                return Finding::ok(warning.subject, format!("{place}{}", warning.text));
            }
            let (text, remedy) = warning.text.split_once("; ").unwrap_or((&warning.text, ""));
            Finding::warning(warning.subject, format!("{place}{text}"), remedy)
        }));
    }
    finding::report(out, &findings)
}
