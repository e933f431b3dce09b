//! The directives that hold for a `server`: its own, and those of `stream` around it.

use std::collections::{HashMap, HashSet};

use super::lexer::Directive;
use crate::convert::literal;
use crate::convert::report::Report;

/// The directives that hold for a server: its own, or those of `stream`.
pub(super) struct Scope<'a> {
    pub(super) server: &'a Directive,
    pub(super) stream: &'a [&'a Directive],
    /// Addresses of its `listen` lines for TCP that another server serves.
    pub(super) elsewhere: HashSet<&'a str>,
    /// For each zone of `limit_conn`, the servers that count in it.
    pub(super) zones: &'a HashMap<&'a str, usize>,
}

/// For each zone of `limit_conn`, the number of servers that count in it.
pub(super) fn zones<'a>(
    stream: &[&'a Directive],
    shared: &[&'a Directive],
) -> HashMap<&'a str, usize> {
    let mut zones: HashMap<&str, usize> = HashMap::new();
    for server in stream.iter().copied().filter(|line| line.name == "server") {
        for line in all(server, shared, &["limit_conn"]) {
            *zones.entry(line.word(0)).or_default() += 1;
        }
    }
    zones
}

/// All lines of some names: the server's own, or else those of `stream`.
fn all<'a>(server: &'a Directive, stream: &[&'a Directive], names: &[&str]) -> Vec<&'a Directive> {
    let is = |line: &Directive| names.contains(&line.name.as_str());
    let own: Vec<&Directive> = server.inside().iter().filter(|it| is(it)).collect();
    if own.is_empty() { stream.iter().copied().filter(|it| is(it)).collect() } else { own }
}

impl<'a> Scope<'a> {
    /// The line that acts.
    pub(super) fn last(&self, name: &str) -> Option<&'a Directive> {
        let own = self.server.inside().iter().rfind(|line| line.name == name);
        own.or_else(|| self.stream.iter().rfind(|line| line.name == name).copied())
    }

    /// All lines of some names: the server's own, or else those of `stream`.
    pub(super) fn all(&self, names: &[&str]) -> Vec<&'a Directive> {
        all(self.server, self.stream, names)
    }

    pub(super) fn is_on(&self, name: &str) -> bool {
        self.last(name).is_some_and(|line| line.is("on"))
    }

    /// A time in ms.
    pub(super) fn time(&self, name: &str, default: u64, report: &Report) -> u64 {
        let Some(line) = self.last(name) else { return default };
        literal::millis(line.word(0), 1000).unwrap_or_else(|| {
            report
                .refuse(line.place, format!("{:?} is no time; write one such as 5s", line.word(0)));
            default
        })
    }
}
