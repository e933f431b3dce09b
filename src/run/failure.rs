//! Why the balancer does not run, for the operator.

use std::fmt;

/// Why the balancer does not run. Displayed as lines for the operator: place, problem, remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    lines: Vec<String>,
    configuration: bool,
}

impl Failure {
    /// The configuration cannot work on this machine: the operator has to change it.
    pub(super) const fn configuration(lines: Vec<String>) -> Self {
        Self { lines, configuration: true }
    }

    pub(super) const fn cannot(lines: Vec<String>) -> Self {
        Self { lines, configuration: false }
    }

    pub(super) fn of(line: impl Into<String>) -> Self {
        Self::cannot(vec![line.into()])
    }

    /// Whether the configuration is to blame (exit code 64), and not this machine (1).
    #[must_use]
    pub const fn is_configuration(&self) -> bool {
        self.configuration
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.lines.join("\n"))
    }
}

impl std::error::Error for Failure {}
