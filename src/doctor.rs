//! Says what this machine gives. Stand-in: not built yet.

use std::io::{self, Write};

use crate::control::config::Config;

/// Writes one line a finding; true: nothing failed.
///
/// # Errors
/// `out` cannot be written.
pub fn doctor(out: &mut dyn Write, config: Option<&Config>) -> io::Result<bool> {
    let _ = config;
    writeln!(out, "not built yet")?;
    Ok(false)
}
