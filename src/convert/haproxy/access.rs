//! `tcp-request` rules as lists of clients and limits of rates.

use std::collections::BTreeSet;
use std::path::Path;

use super::conditions::{self, Clause};
use super::limits::{self, Bound};
use super::rates;
use super::rules::{self, Action, Rule};
use super::sections::{Proxy, Sections};
use super::terms::Term;
use crate::convert::first_match::{Lists, Set};
use crate::convert::networks::{self, Clients, Network};
use crate::convert::report::{Place, Report};

/// The result of the rules of a frontend, and of the backends behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Access {
    /// Allowed and denied clients.
    pub(super) lists: Lists,
    /// Limits.
    pub(super) bounds: Vec<Bound>,
    /// Peers whose PROXY header is required and believed.
    pub(super) proxy_protocol: Option<Vec<Clients>>,
    /// Lines that limits needed, and rules on requests that became lists or are reported.
    pub(super) lines: BTreeSet<Place>,
    /// The rule that refuses clients which do not begin TLS.
    pub(super) tls_only: Option<Place>,
    /// A `ClientHello` passes every later rule.
    passes_tls: bool,
    /// Each connection begins with a PROXY header.
    has_header: bool,
    /// A rule looks at the first bytes of the client.
    pub(super) reads_payload: bool,
}

/// Evaluates rules for one port of a frontend.
pub(super) struct Rules<'a> {
    frontend: &'a Proxy,
    sections: &'a Sections,
    report: &'a Report,
    rules: Vec<Rule>,
}

impl<'a> Rules<'a> {
    /// The rules of a frontend in the order in which HAProxy evaluates them, and those of its
    /// backends after them. `is_one`: every client of the frontend reaches the same backend.
    pub(super) fn of(
        frontend: &'a Proxy,
        backends: &[&'a Proxy],
        is_one: bool,
        sections: &'a Sections,
        report: &'a Report,
    ) -> Self {
        let rules = rules::read(frontend, backends, is_one, report);
        Self { frontend, sections, report, rules }
    }

    /// The ports at which the answer may change.
    pub(super) fn port_bounds(&self) -> Vec<u16> {
        let conditions = self.rules.iter().map(|rule| &rule.condition);
        conditions.flat_map(conditions::port_bounds).collect()
    }

    /// The access to one port, or range of ports, where each connection begins with a PROXY header
    /// (`accepts_proxy`) or not.
    pub(super) fn on(&self, port: Option<(u16, u16)>, accepts_proxy: bool) -> Access {
        let expects = |rule: &Rule| {
            let mut clauses = rule.condition.iter();
            rule.action == Action::ExpectProxy
                && clauses.any(|clause| conditions::on_port(clause, port).is_some())
        };
        let has_header = accepts_proxy || self.rules.iter().any(expects);
        let mut access = Access { has_header, ..Access::default() };
        let mut phase = 0;
        for (at, rule) in self.rules.iter().enumerate() {
            if rule.phase != phase {
                if phase == 0 {
                    self.peers(accepts_proxy, &mut access);
                }
                phase = rule.phase;
                access.lists.begin_phase();
                access.passes_tls = false;
            }
            let mut later = self.rules[at + 1..].iter().filter(|later| later.phase == phase);
            let is_last = !later.any(|later| later.action != Action::Accept);
            for clause in &rule.condition {
                let Some(clause) = conditions::on_port(clause, port) else { continue };
                if !access.lists.is_settled {
                    self.apply(rule, &clause, is_last, &mut access);
                }
            }
        }
        if phase == 0 {
            self.peers(accepts_proxy, &mut access);
        }
        access
    }

    /// After the rules of the first phase (`tcp-request connection`), which see the address of the
    /// peer, while the lists of evenkeel have that in the PROXY header.
    fn peers(&self, accepts_proxy: bool, access: &mut Access) {
        if !accepts_proxy && access.proxy_protocol.is_none() {
            return;
        }
        let everybody = Network::everybody().map(Clients::Network);
        let lists = std::mem::take(&mut access.lists);
        let mut from = access.proxy_protocol.take().unwrap_or_else(|| everybody.to_vec());
        if let Some(allow) = lists.allow {
            from = networks::intersection(&from, &allow).unwrap_or(allow);
        }
        if from.is_empty() || networks::covers(&lists.deny, &everybody) {
            access.lists.deny = everybody.to_vec();
            from = everybody.to_vec();
        } else if !lists.deny.is_empty() {
            let refuses = |rule: &&Rule| {
                rule.phase == 0 && matches!(rule.action, Action::Reject | Action::SilentDrop)
            };
            for rule in self.rules.iter().filter(refuses) {
                let reason = "a rule on the peer that sends the PROXY header: evenkeel has a list \
                              of the peers that it admits only";
                self.report.urgent(rule.line.place, reason);
            }
        }
        access.proxy_protocol = Some(from);
    }

    /// `is_last`: no later rule of the phase refuses anybody.
    fn apply(&self, rule: &Rule, clause: &Clause, is_last: bool, access: &mut Access) {
        let refuses = matches!(rule.action, Action::Reject | Action::SilentDrop);
        if rule.is_of_some && refuses {
            let reason = "it holds for the clients of this backend only: evenkeel has rules for a \
                          whole frontend, and serves the clients that this one refuses";
            self.report.urgent(rule.line.place, reason);
        }
        if rule.is_http {
            access.lines.insert(rule.line.place);
        }
        if rule.is_of_some {
            return;
        }
        self.files(rule, clause);
        match rule.action {
            Action::Accept if is_last => {}
            Action::Accept => self.accept(rule, clause, access),
            Action::ExpectProxy => self.expect_proxy(rule, clause, access),
            Action::Reject | Action::SilentDrop => self.reject(rule, clause, access),
        }
    }

    /// A list that is not on this machine.
    fn files(&self, rule: &Rule, clause: &Clause) {
        let sources = clause.iter().filter_map(|test| match &test.term {
            Term::Source(clients) => Some(clients),
            _ => None,
        });
        for clients in sources.flatten() {
            if let Clients::File(path) = clients
                && !Path::new(path).is_file()
            {
                let reason = format!(
                    "{path} is not on this machine: `evenkeel check` refuses the result until it is"
                );
                self.report.near(rule.line.place, reason);
            }
        }
    }

    fn accept(&self, rule: &Rule, clause: &Clause, access: &mut Access) {
        let (sources, rest) = split(clause);
        let rest: Vec<&Term> = rest.into_iter().filter(|term| **term != Term::Wait).collect();
        match (sources.as_slice(), rest.as_slice()) {
            ([], []) => access.lists.is_settled = true,
            ([(false, clients)], []) => access.lists.accept(clients),
            ([], [Term::Hello]) if !clause.iter().any(|test| test.is_negated) => {
                access.passes_tls = true;
            }
            _ => {
                access.lists.has_unknown = true;
                access.reads_payload |= rest.iter().any(|term| is_payload(term));
                self.report.urgent(rule.line.place, unusable(&rest, "accepts"));
            }
        }
    }

    fn reject(&self, rule: &Rule, clause: &Clause, access: &mut Access) {
        let (sources, mut rest) = split(clause);
        let place = rule.line.place;
        if rest.contains(&&Term::Wait) && !sources.is_empty() {
            rest.retain(|term| **term != Term::Wait);
            let used = clause.iter().filter_map(|test| test.place);
            for place in used.chain([place]) {
                self.report.near(place, "refused at once, not after the delay");
            }
        }
        if let ([], [Term::Limit(limit)]) = (sources.as_slice(), rest.as_slice()) {
            let is_negated = clause.iter().any(|test| test.is_negated);
            let is_first = rule.phase == 0 && limit.is_of_client();
            match rates::convert(limit, place, self.frontend, self.sections) {
                Ok(limit) if access.has_header && (is_first || limit.counts_peers) => {
                    let reason = "it counts the connections of the peer that sends the PROXY \
                                  header: evenkeel would count those of each client behind it";
                    self.report.urgent(place, reason);
                }
                Ok(limit) if !is_negated => {
                    if !limit.difference.is_empty() {
                        self.report.near(place, limit.difference);
                    }
                    if !access.lists.passed.is_empty() {
                        let reason = "it holds for the clients of an earlier accept as well";
                        self.report.near(place, reason);
                    }
                    access.lines.extend(&limit.lines);
                    limits::add(&mut access.bounds, limit.bound, self.report);
                    self.silent(rule);
                }
                Ok(_) => self.report.urgent(place, "counters: evenkeel has upper limits only"),
                Err(reason) => {
                    self.report.urgent(place, reason);
                    for place in clause.iter().filter_map(|test| test.place) {
                        self.report.report(place, reason);
                    }
                }
            }
            return;
        }
        let only = match (sources.as_slice(), rest.as_slice()) {
            // Refuses clients that do not begin TLS.
            ([], []) => access.passes_tls,
            ([], [Term::Hello]) => clause.iter().all(|test| test.is_negated),
            _ => false,
        };
        if only {
            access.tls_only = Some(place);
            access.lists.is_settled = rest.is_empty();
            return self.silent(rule);
        }
        if !rest.is_empty() {
            access.reads_payload |= rest.iter().any(|term| is_payload(term));
            self.report.urgent(place, unusable(&rest, "refuses"));
            return;
        }
        match access.lists.refuse(&sources) {
            Ok(()) if rule.is_http => {
                self.report.near(place, "evenkeel resets; it sends no response");
            }
            Ok(()) => self.silent(rule),
            Err(reason) => self.report.urgent(place, reason),
        }
    }

    /// A silent drop becomes a reset.
    fn silent(&self, rule: &Rule) {
        if rule.action == Action::SilentDrop {
            self.report.near(rule.line.place, "evenkeel resets; it does not drop silently");
        }
    }

    fn expect_proxy(&self, rule: &Rule, clause: &Clause, access: &mut Access) {
        let (sources, rest) = split(clause);
        match (sources.as_slice(), rest.as_slice()) {
            ([], []) => {
                let all = Network::everybody().map(Clients::Network);
                access.proxy_protocol = Some(all.to_vec());
            }
            ([(false, clients)], []) => {
                let reason = "a connection from another peer is refused: evenkeel requires the \
                header of all";
                self.report.near(rule.line.place, reason);
                networks::extend(access.proxy_protocol.get_or_insert_default(), clients);
            }
            _ => self.report.urgent(rule.line.place, "the PROXY header is required of all or none"),
        }
    }
}

/// The sets of clients of a clause, with their negation, and its other terms.
fn split(clause: &Clause) -> (Vec<Set>, Vec<&Term>) {
    let (mut sources, mut rest) = (Vec::new(), Vec::new());
    for test in clause {
        match &test.term {
            Term::Source(clients) => sources.push((test.is_negated, clients.clone())),
            term => rest.push(term),
        }
    }
    (sources, rest)
}

const fn is_payload(term: &Term) -> bool {
    matches!(term, Term::Payload | Term::Hello | Term::Wait)
}

fn unusable(rest: &[&Term], does: &str) -> String {
    let what = match rest.first() {
        Some(Term::Http) => "requests",
        Some(Term::OtherSource) => "the source that an earlier rule has set (set-src)",
        Some(Term::Payload | Term::Wait) => "the first bytes of the client (or waits for them)",
        Some(Term::Hello) => "whether the client begins TLS",
        Some(Term::ServerName(..)) => "the TLS server name",
        Some(Term::Alpn(_)) => "the ALPN protocols",
        Some(Term::Limit(_)) => "counters together with other conditions",
        _ => "something that evenkeel does not compare",
    };
    format!("a rule that {does} by {what}: evenkeel has rules on client addresses and rates only")
}
