//! What `evenkeel doctor` found, and its report.

use std::io::{self, Write};

/// One line of the report.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    /// What was examined.
    pub(super) subject: &'static str,
    /// What was found, and what it means.
    pub(super) text: String,
    /// The command that remedies it.
    pub(super) remedy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Ok,
    Warning,
    Failed,
}

impl Finding {
    pub(super) fn ok(subject: &'static str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, subject, text: text.into(), remedy: None }
    }

    pub(super) fn warning(
        subject: &'static str,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let remedy = Some(remedy.into());
        Self { verdict: Verdict::Warning, subject, text: text.into(), remedy }
    }

    pub(super) fn failed(
        subject: &'static str,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let remedy = Some(remedy.into());
        Self { verdict: Verdict::Failed, subject, text: text.into(), remedy }
    }

    /// A value that cannot be read here: a warning without a remedy.
    pub(super) fn unknown(subject: &'static str, text: impl Into<String>) -> Self {
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

pub(super) fn report(out: &mut dyn Write, findings: &[Finding]) -> io::Result<bool> {
    for finding in findings {
        writeln!(out, "{:<8} {}: {}", finding.verdict.name(), finding.subject, finding.text)?;
        if let Some(remedy) = finding.remedy.as_ref().filter(|remedy| !remedy.is_empty()) {
            writeln!(out, "{:<8}   remedy: {remedy}", "")?;
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
            "`sysctl -w` lasts until the next boot. To keep a value, write a line `key = value` \
             to /etc/sysctl.d/evenkeel.conf."
        )?;
    }
    Ok(failed == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_reported_with_its_remedy_and_as_the_result() {
        let mut out = Vec::new();
        let findings = [
            Finding::ok("cores", "2"),
            Finding::failed("io_uring", "forbidden", "sysctl -w kernel.io_uring_disabled=0"),
        ];
        assert!(!report(&mut out, &findings).unwrap());
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("ok       cores: 2\n"), "{text}");
        assert!(text.contains("failed   io_uring: forbidden\n"), "{text}");
        assert!(text.contains("remedy: sysctl -w kernel.io_uring_disabled=0\n"), "{text}");
        assert!(text.contains("failed: 1, warnings: 0, ok: 1"), "{text}");
        assert!(text.contains("/etc/sysctl.d/"), "{text}");
    }

    #[test]
    fn a_warning_is_no_failure() {
        let mut out = Vec::new();
        let findings = [Finding::warning("backlog", "cut", "sysctl -w net.core.somaxconn=4096")];
        assert!(report(&mut out, &findings).unwrap());
    }
}
