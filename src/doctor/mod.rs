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

use crate::config::{self, Config};
use crate::doctor::finding::Finding;
use crate::doctor::lookups::{Severity, Warning};
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
        let advice = config::advice(config).into_iter();
        findings.extend(advice.map(|(span, text)| {
            let (text, remedy) = split(&text);
            Finding::warning("configuration", format!("{}{text}", config.locate(span)), remedy)
        }));
        // Descriptors are among the limits.
        let control = start::control(config);
        let warnings = lookups::look_up(config)?.into_iter().chain(control);
        findings.extend(warnings.map(|warning| found(config, &warning)));
    }
    finding::report(out, &findings)
}

fn found(config: &Config, warning: &Warning) -> Finding {
    let place = config.locate(warning.span);
    let (text, remedy) = split(&warning.text);
    match warning.severity {
        Severity::Note => Finding::ok(warning.subject, format!("{place}{}", warning.text)),
        Severity::Warning => Finding::warning(warning.subject, format!("{place}{text}"), remedy),
        Severity::Refused => Finding::failed(warning.subject, format!("{place}{text}"), remedy),
    }
}

/// "what is wrong; what to do".
fn split(text: &str) -> (&str, &str) {
    text.split_once("; ").unwrap_or((text, ""))
}
