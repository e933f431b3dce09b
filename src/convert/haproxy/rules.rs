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
}

/// The rules of a frontend in the order in which HAProxy evaluates them, and those of its backends
/// after them.
pub(super) fn read(frontend: &Proxy, backends: &[&Proxy], report: &Report) -> Vec<Rule> {
    let own = ["connection", "session", "content"].map(|name| (frontend, name));
    let others = backends.iter().filter(|backend| backend.place() != frontend.place());
    let others = others.map(|backend| (*backend, "content"));
    let (mut rules, mut phase) = (Vec::new(), 0);
    for (proxy, name) in own.into_iter().chain(others) {
        of_connections(proxy, phase, name, report, &mut rules);
        phase += 1;
        if name == "content" && proxy.is_http() {
            of_requests(proxy, phase, report, &mut rules);
            phase += 1;
        }
    }
    rules
}

fn of_connections(proxy: &Proxy, phase: usize, name: &str, report: &Report, rules: &mut Vec<Rule>) {
    let acls = Acls::of(proxy);
    for line in proxy.all("tcp-request").filter(|line| line.word(1) == name) {
        let condition = acls.condition(line, report);
        let action = match line.word(2) {
            "accept" => Action::Accept,
            "reject" => Action::Reject,
            "silent-drop" => Action::SilentDrop,
            "expect-proxy" => Action::ExpectProxy,
            _ => continue,
        };
        let condition = condition.unwrap_or_else(|| vec![Vec::new()]);
        rules.push(Rule { phase, action, condition, line: Rc::clone(line), is_http: false });
    }
}

/// The rules on requests that look at the client address alone. A rule that accepts by something
/// else ends them: the clients that it accepts are not known.
fn of_requests(proxy: &Proxy, phase: usize, report: &Report, rules: &mut Vec<Rule>) {
    let acls = Acls::of(proxy);
    let is_rule = |line: &&Rc<Line>| matches!(line.word(0), "http-request" | "block");
    let lines: Vec<&Rc<Line>> = proxy.lines.iter().filter(is_rule).collect();
    if lines.iter().any(|line| line.word(1).starts_with("set-src")) {
        return;
    }
    for line in lines {
        let action = match (line.word(0), line.word(1)) {
            ("block", _) | (_, "deny" | "reject" | "tarpit") => Action::Reject,
            (_, "silent-drop") => Action::SilentDrop,
            (_, "allow") => Action::Accept,
            _ => continue,
        };
        let condition = acls.condition(line, report).unwrap_or_else(|| vec![Vec::new()]);
        let is_known =
            |term: &Term| matches!(term, Term::Source(_) | Term::Port(_) | Term::Constant(_));
        if condition.iter().flatten().all(|test| is_known(&test.term)) {
            rules.push(Rule { phase, action, condition, line: Rc::clone(line), is_http: true });
        } else if action == Action::Accept {
            return;
        }
    }
}
