//! Rules that accept or refuse connections, in the order in which HAProxy evaluates them.

use std::rc::Rc;

use super::conditions::{Acls, Condition};
use super::lexer::Line;
use super::sections::Proxy;
use super::terms::Term;
use crate::convert::report::Report;

/// The action of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Accept,
    Reject,
    /// Rejects without a reset.
    SilentDrop,
    ExpectProxy,
}

#[derive(Debug)]
pub(super) struct Rule {
    /// Rules of one phase are evaluated until one accepts or refuses; the next phase begins anew.
    pub(super) phase: usize,
    pub(super) action: Action,
    pub(super) condition: Condition,
    pub(super) line: Rc<Line>,
    /// It answers requests.
    pub(super) is_http: bool,
    /// It is of a backend that only some clients of the frontend reach.
    pub(super) is_of_some: bool,
}

/// The rules of a frontend in the order in which HAProxy evaluates them, and those of its backends
/// after them. `is_one`: every client of the frontend reaches the same backend.
pub(super) fn read(
    frontend: &Proxy,
    backends: &[&Proxy],
    is_one: bool,
    report: &Report,
) -> Vec<Rule> {
    let mut reader = Reader { report, rules: Vec::new(), phase: 0, is_of_some: false, sets: false };
    for name in ["connection", "session", "content"] {
        reader.connections(frontend, name);
    }
    reader.requests(frontend);
    reader.is_of_some = !is_one;
    for backend in backends.iter().filter(|backend| backend.place() != frontend.place()) {
        reader.connections(backend, "content");
        reader.requests(backend);
    }
    reader.rules
}

struct Reader<'a> {
    report: &'a Report,
    rules: Vec<Rule>,
    phase: usize,
    is_of_some: bool,
    /// An earlier rule sets the source (`set-src`): it is no longer that of the client.
    sets: bool,
}

impl Reader<'_> {
    fn connections(&mut self, proxy: &Proxy, name: &str) {
        let acls = Acls::of(proxy);
        for line in proxy.all("tcp-request").filter(|line| line.word(1) == name) {
            let condition = self.condition(&acls, line);
            let action = match line.word(2) {
                "accept" => Action::Accept,
                "reject" => Action::Reject,
                "silent-drop" => Action::SilentDrop,
                "expect-proxy" => Action::ExpectProxy,
                other => {
                    self.sets |= other == "set-src";
                    continue;
                }
            };
            self.push(action, condition, line, false);
        }
        self.phase += 1;
    }

    /// The rules on requests that look at the client address alone. A rule that accepts by
    /// something else ends them: the clients that it accepts are not known.
    fn requests(&mut self, proxy: &Proxy) {
        if !proxy.is_http() {
            return;
        }
        let acls = Acls::of(proxy);
        let mut is_over = false;
        let is_rule = |line: &&Rc<Line>| matches!(line.word(0), "http-request" | "block");
        for line in proxy.lines.iter().filter(is_rule) {
            let action = match (line.word(0), line.word(1)) {
                ("block", _) | (_, "deny" | "reject" | "tarpit") => Action::Reject,
                (_, "silent-drop") => Action::SilentDrop,
                (_, "allow") => Action::Accept,
                (_, other) => {
                    self.sets |= other == "set-src";
                    continue;
                }
            };
            let condition = self.condition(&acls, line);
            let is_known =
                |term: &Term| matches!(term, Term::Source(_) | Term::Port(_) | Term::Constant(_));
            if !condition.iter().flatten().all(|test| is_known(&test.term)) {
                is_over |= action == Action::Accept;
            } else if !is_over {
                self.push(action, condition, line, true);
            }
        }
        self.phase += 1;
    }

    /// The condition of a rule, without tests of a source that is not that of the client.
    fn condition(&self, acls: &Acls, line: &Line) -> Condition {
        let condition = acls.condition(line, self.report);
        let mut condition = condition.unwrap_or_else(|| vec![Vec::new()]);
        for test in condition.iter_mut().flatten().filter(|_| self.sets) {
            let is_of_source = match &test.term {
                Term::Source(_) => true,
                Term::Limit(limit) => limit.is_of_client(),
                _ => false,
            };
            if is_of_source {
                test.term = Term::OtherSource;
            }
        }
        condition
    }

    fn push(&mut self, action: Action, condition: Condition, line: &Rc<Line>, is_http: bool) {
        let (phase, is_of_some) = (self.phase, self.is_of_some);
        let line = Rc::clone(line);
        self.rules.push(Rule { phase, action, condition, line, is_http, is_of_some });
    }
}
