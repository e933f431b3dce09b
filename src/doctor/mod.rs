//! `evenkeel doctor`: what this kernel, these limits and this machine give, and what to change.
//!
//! One line a thing: ok, warning (it works, and could work better or longer), or failed (evenkeel
//! does not run, or not as configured), each of the last two with the command that mends it.

mod kernel;
mod limits;
pub mod lookups;

use std::io::{self, Write};

use crate::config::Config;
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
    if let Some(config) = config {
        findings.extend(lookups::look_up(config)?.iter().map(|warning| {
            let place = config.locate(warning.span);
            let (text, remedy) = warning.text.split_once("; ").unwrap_or((&warning.text, ""));
            Finding::warning(warning.subject, format!("{place}{text}"), remedy)
        }));
    }
    report(out, &findings)
}

/// One line of the report.
#[derive(Debug)]
struct Finding {
    verdict: Verdict,
    /// What was looked at.
    subject: &'static str,
    /// What was found there, and what that means.
    text: String,
    /// The one command that mends it.
    remedy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warning,
    Failed,
}

impl Finding {
    fn ok(subject: &'static str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, subject, text: text.into(), remedy: None }
    }

    fn warning(subject: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into());
        Self { verdict: Verdict::Warning, subject, text: text.into(), remedy }
    }

    fn failed(subject: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into());
        Self { verdict: Verdict::Failed, subject, text: text.into(), remedy }
    }

    /// A thing that this machine does not show: worth a look, and no fault.
    fn unknown(subject: &'static str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, subject, text: text.into(), remedy: None }
    }
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

fn report(out: &mut dyn Write, findings: &[Finding]) -> io::Result<bool> {
    for finding in findings {
        writeln!(out, "{:<8} {}: {}", finding.verdict.name(), finding.subject, finding.text)?;
        if let Some(remedy) = &finding.remedy {
            writeln!(out, "{:<8}   to mend it: {remedy}", "")?;
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let failed = count(Verdict::Failed);
    writeln!(
        out,
        "\nfailed: {failed}, warnings: {}, ok: {}",
        count(Verdict::Warning),
        count(Verdict::Ok)
    )?;
    let sysctl = |finding: &Finding| {
        finding.remedy.as_ref().is_some_and(|remedy| remedy.starts_with("sysctl "))
    };
    if findings.iter().any(sysctl) {
        writeln!(
            out,
            "A sysctl lasts until the next boot; a line `key = value` in \
             /etc/sysctl.d/evenkeel.conf keeps it."
        )?;
    }
    Ok(failed == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_with_its_command_and_as_the_answer() {
        let mut out = Vec::new();
        let findings = [
            Finding::ok("cores", "2"),
            Finding::failed("io_uring", "forbidden", "sysctl -w kernel.io_uring_disabled=0"),
        ];
        assert!(!report(&mut out, &findings).unwrap());
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("ok       cores: 2\n"), "{text}");
        assert!(text.contains("failed   io_uring: forbidden\n"), "{text}");
        assert!(text.contains("to mend it: sysctl -w kernel.io_uring_disabled=0\n"), "{text}");
        assert!(text.contains("failed: 1, warnings: 0, ok: 1"), "{text}");
        assert!(text.contains("/etc/sysctl.d/"), "{text}");
    }

    #[test]
    fn warnings_alone_are_no_failure() {
        let mut out = Vec::new();
        let findings = [Finding::warning("backlog", "cut", "sysctl -w net.core.somaxconn=4096")];
        assert!(report(&mut out, &findings).unwrap());
    }
}
